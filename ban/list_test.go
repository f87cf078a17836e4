package ban_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/merlon-dev/merlon/ban"
)

func file(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blocklist.txt")
	write(t, path, text)
	return path
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const blocklist = "\uFEFF# Spamhaus DROP\r\n\r\n203.0.113.7\r\n 198.51.100.0/24 ; SBL1\r\n2001:db8:bad::/48 # a comment\n;\n::ffff:192.0.2.1\n10.1.2.3/16\n"

func TestList(t *testing.T) {
	w := newWorld(t, ban.Config{Lists: []string{file(t, blocklist), file(t, "192.0.2.77")}}, options{})
	for _, banned := range []string{office, other, "2001:db8:bad::1", "192.0.2.1", "10.1.255.255", "192.0.2.77", "64:ff9b::203.0.113.7"} {
		w.wants(visit{client: banned}, ban.Listed)
		w.wants(visit{client: banned, header: "Cookie: s=ann"}, "") // who is signed in answers for themselves
		w.wants(visit{client: banned, header: "Cookie: s=forged"}, ban.Listed)
	}
	for _, fine := range []string{"203.0.113.8", "2001:db8::1", "192.0.2.2", "10.2.0.0"} {
		w.wants(visit{client: fine}, "")
	}
	if d := w.visit(visit{}); len(d.Findings) != 1 || !strings.HasSuffix(d.Findings[0].Value, "blocklist.txt") || d.Header != nil || d.Code() != 403 {
		t.Errorf("%+v", d)
	}
}

func TestListThatCannotBeUsed(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"a word":          {"203.0.113.7\n\nmalware.example\n", []string{`line 3 "malware.example": must be an address`}},
		"everybody":       {"0.0.0.0/0", []string{`line 1 "0.0.0.0/0": must be a /8 network`}},
		"everybody again": {"\n::/0", []string{`line 2 "::/0"`}},
		"a range":         {"203.0.113.7-203.0.113.9", []string{"line 1"}},
		"two in a line":   {"203.0.113.7 203.0.113.9", []string{"line 1"}},
		"octal":           {"010.0.0.1", []string{"line 1"}},
		"a zone":          {"fe80::1%eth0", []string{"line 1"}},
		"many":            {strings.Repeat("x\n", 25), []string{"line 1", "line 10", "and 15 more lines"}},
		"a long line":     {"# fine\n" + strings.Repeat("1", 1<<20), []string{"line 2: bufio.Scanner: token too long"}},
		"no text":         {"\x00\x01\x02", []string{`line 1 "\x00\x01\x02"`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ban.New(ban.Config{Lists: []string{file(t, c.text)}}, ban.Env{})
			if err == nil {
				t.Fatal("taken")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %v", want, err)
				}
			}
			if len(err.Error()) > 3000 {
				t.Errorf("%d bytes are told", len(err.Error()))
			}
		})
	}
	if _, err := ban.New(ban.Config{Lists: []string{t.TempDir()}}, ban.Env{}); err == nil || !strings.Contains(err.Error(), "must be a file") {
		t.Errorf("a folder: %v", err)
	}
}

// A file is read again when it changes; one that cannot be used changes nothing.
func TestListReload(t *testing.T) {
	path := file(t, office)
	w := newWorld(t, ban.Config{Lists: []string{path}}, options{})
	again := func() { w.pass(3 * time.Second); w.bans.Reread() }
	again()
	if len(w.of(ban.ListRead)) != 0 {
		t.Error("read again without a change")
	}
	write(t, path, other+"/32 # longer\n")
	again()
	w.wants(visit{}, "")
	w.wants(visit{client: other}, ban.Listed)
	if n := w.of(ban.ListRead); len(n) != 1 || n[0].Place != path || n[0].Entries != 1 || n[0].Alarm() {
		t.Errorf("told %+v", n)
	}
	write(t, path, "203.0.113.7\nwhat is this\n")
	again()
	again()
	w.wants(visit{}, "")
	w.wants(visit{client: other}, ban.Listed)
	if n := w.of(ban.ListUnusable); len(n) != 1 || !n[0].Alarm() || !strings.Contains(n[0].Err.Error(), "line 2") {
		t.Errorf("told %+v", n)
	}
	// A configuration that is loaded meanwhile can be, with what there was.
	newWorld(t, ban.Config{Lists: []string{path}}, options{bans: w.bans, clock: w.clock}).wants(visit{client: other}, ban.Listed)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again()
	again()
	w.wants(visit{client: other}, ban.Listed)
	if n := w.of(ban.ListUnusable); len(n) != 2 {
		t.Errorf("told %+v", n)
	}
	write(t, path, office)
	again()
	w.wants(visit{}, ban.Listed)
	w.wants(visit{client: other}, "")
}

// What stands where a list was and is no file is told once, and keeps nothing
// waiting.
func TestListBecomesSomethingElse(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a folder":               func(path string) error { return os.Mkdir(path, 0o700) },
		"a pipe":                 func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link to nothing":      func(path string) error { return os.Symlink(path+".not", path) },
		"a device without end":   func(path string) error { return os.Symlink("/dev/zero", path) },
		"a file with no mistake": func(path string) error { return os.WriteFile(path, []byte(other), 0o600) },
	} {
		path := file(t, office)
		w := newWorld(t, ban.Config{Lists: []string{path}}, options{})
		if err := errors.Join(os.Remove(path), put(path)); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			w.pass(3 * time.Second)
			w.bans.Reread()
		}
		if good := strings.HasPrefix(name, "a file"); len(w.of(ban.ListUnusable)) != 1 && !good || len(w.of(ban.ListRead)) != 1 && good {
			t.Errorf("%s: told %+v", name, w.of(ban.ListUnusable))
		} else if !good {
			w.wants(visit{}, ban.Listed)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		write(t, path, other)
		w.pass(3 * time.Second)
		w.bans.Reread()
		w.wants(visit{}, "")
		w.wants(visit{client: other}, ban.Listed)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ban.New(ban.Config{Lists: []string{pipe}}, ban.Env{}); err == nil {
		t.Error("a pipe is taken for a list")
	}
}

// What no guard uses any more is not kept.
func TestListGoesWithItsGuards(t *testing.T) {
	path := file(t, office)
	bans := ban.NewBans(nil, nil, nil)
	for range 3 {
		if _, err := ban.New(ban.Config{Lists: []string{path}}, ban.Env{Bans: bans}); err != nil {
			t.Fatal(err)
		}
	}
	clock := newClock()
	clock.drive(bans)
	for end := time.Now().Add(30 * time.Second); ; {
		runtime.GC()
		clock.pass(3 * time.Second)
		bans.Reread()
		if bans.Open() == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the list is kept")
		}
	}
}

// A million entries are read, and one more is told.
func TestLargeList(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a million lines twice")
	}
	var b bytes.Buffer
	for i := range 1_000_000 {
		h := uint32(i) * 2654435761
		fmt.Fprintf(&b, "%d.%d.%d.%d\n", 11+h>>24%200, h>>16&255, h>>8&255, h&255)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	table, n, err := ban.ParseList(bytes.NewReader(b.Bytes()))
	took := time.Since(begin)
	if err != nil || n != 1_000_000 {
		t.Fatal(n, err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) >> 20
	t.Logf("%d entries, %v, %d MiB", table.Size(), took, grown)
	if grown > 256 {
		t.Errorf("takes %d MiB", grown)
	}
	b.WriteString("192.0.2.1\n")
	if _, _, err := ban.ParseList(&b); err == nil || !strings.Contains(err.Error(), "line 1000001") {
		t.Errorf("one more: %v", err)
	}
	runtime.KeepAlive(table)
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte(blocklist), "203.0.113.7")
	f.Add([]byte("10.0.0.0/8\n::/0\n"), "10.1.1.1")
	f.Add([]byte("::ffff:1.2.3.0/120;x\n2001:db8::/33"), "2001:db8::1")
	f.Fuzz(func(t *testing.T, text []byte, client string) {
		table, n, err := ban.ParseList(bytes.NewReader(text))
		if err != nil {
			if table != nil {
				t.Error("a list with mistakes is used")
			}
			return
		}
		if n > bytes.Count(text, []byte("\n"))+1 {
			t.Errorf("%d entries", n)
		}
		a, err := netip.ParseAddr(client)
		if err != nil || a.Zone() != "" || !table.Contains(a.Unmap()) {
			return
		}
		// Who is found must stand there, by a plain reading of the lines.
		for line := range strings.Lines(strings.TrimPrefix(string(text), "\uFEFF")) {
			line, _, _ = strings.Cut(line, "#")
			line, _, _ = strings.Cut(line, ";")
			line = strings.TrimSpace(line)
			if p, err := netip.ParsePrefix(line); err == nil {
				if p.Contains(a.Unmap()) || p.Addr().Is4In6() && p.Contains(netip.AddrFrom16(a.As16())) {
					return
				}
				if p.Addr().Is4In6() && p.Bits() >= 96 && netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Contains(a.Unmap()) {
					return
				}
			}
			if one, err := netip.ParseAddr(line); err == nil && one.Unmap() == a.Unmap() {
				return
			}
		}
		t.Errorf("%s is banned by %q", client, text)
	})
}
