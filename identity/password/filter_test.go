package password_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/identity/password"
)

// fullLines returns lines "SHA1:COUNT" of passwords.
func fullLines(passwords ...string) string {
	var b strings.Builder
	for i, p := range passwords {
		fmt.Fprintf(&b, "%X:%d\n", password.Sum(p), i+1)
	}
	return b.String()
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// build makes a filter of a list on standard input.
func build(t testing.TB, out string, least uint64, list string) password.FilterInfo {
	t.Helper()
	info, err := password.BuildFilter(t.Context(), password.Build{Out: out, Least: least, Sources: []string{"-"}, In: strings.NewReader(list)})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func open(t testing.TB, path string) *password.Filter {
	t.Helper()
	f, err := password.OpenFilter(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func contains(t testing.TB, f *password.Filter, text string) bool {
	t.Helper()
	got, err := f.Contains(password.Sum(text))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFilterSources(t *testing.T) {
	dir := t.TempDir()
	lists := filepath.Join(dir, "lists")
	// The public range format: hunter2 is F3BBBD66A63D4BF1747940578EC3D0103530E21D.
	write(t, filepath.Join(lists, "F3BBB"), "D66A63D4BF1747940578EC3D0103530E21D:25000\r\n00D4F6E8FA6EECAD2A3AA415EEC418D38EC:0\r\n")
	write(t, filepath.Join(lists, "sub", "5baa6.txt"), "1e4c9b93f3f0682250b6cf8331b7ee68fd8:9\n\n") // password
	write(t, filepath.Join(lists, ".hidden"), "not a list")
	full := write(t, filepath.Join(dir, "full.txt"), fullLines("one", "two", "three")+fmt.Sprintf("%x\n", password.Sum("four")))
	out := filepath.Join(lists, "breached.filter")
	for range 2 { // the second time the filter itself lies among the lists
		info, err := password.BuildFilter(t.Context(), password.Build{Out: out, Sources: []string{lists, full, full}})
		if err != nil {
			t.Fatal(err)
		}
		if info.Passwords != 6 || info.Least != 1 {
			t.Errorf("%+v", info)
		}
		f := open(t, out)
		if f.Info() != info {
			t.Errorf("%+v is read as %+v", info, f.Info())
		}
		for _, in := range []string{"hunter2", "password", "one", "two", "three", "four"} {
			if !contains(t, f, in) {
				t.Errorf("%s is missing", in)
			}
		}
		for _, not := range []string{"hunter3", "five", ""} {
			if contains(t, f, not) {
				t.Errorf("%s is in it", not)
			}
		}
	}
	if sum := [20]byte(bytes.Repeat([]byte{0xf3}, 20)); true {
		if got, err := open(t, out).Contains(sum); got || err != nil {
			t.Error("padding with the count 0 was taken")
		}
	}
	info := build(t, out, 2, fullLines("one", "two", "three")+fmt.Sprintf("%x\n", password.Sum("four")))
	if f := open(t, out); info.Passwords != 2 || contains(t, f, "one") || !contains(t, f, "two") || contains(t, f, "four") {
		t.Errorf("least 2: %+v", info)
	}
	if names, err := filepath.Glob(filepath.Join(lists, ".breached-*")); err != nil || len(names) != 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

func TestFilterMistakes(t *testing.T) {
	dir := t.TempDir()
	out := write(t, filepath.Join(dir, "out"), "what was there before")
	for _, c := range []struct{ name, text, want string }{
		{"words.txt", "hunter2\n", "words.txt:1: must be SHA1:COUNT, in hexadecimal digits"},
		{"ntlm.txt", fullLines("one") + "8846F7EAEE8FB117AD06BDD830B7586C:3\n", "ntlm.txt:2: is no SHA-1 sum but probably one of NTLM"},
		{"ABCDE", "EE8FB117AD06BDD830B7586C123:3\n", "ABCDE:1: is no SHA-1 sum but probably one of NTLM"},
		{"suffix.txt", "D66A63D4BF1747940578EC3D0103530E21D:3\n", "the file is not called by the five digits"},
		{"ABCDF", "D66A63D4BF1747940578EC3D0103530E21:3\n", "with 40 hexadecimal digits; it has 34"},
		{"count.txt", "F3BBBD66A63D4BF1747940578EC3D0103530E21D:many\n", "must have a number after the colon"},
		{"nothing.txt", "F3BBBD66A63D4BF1747940578EC3D0103530E21D:\n", "must have a number after the colon"},
		{"huge.txt", "F3BBBD66A63D4BF1747940578EC3D0103530E21D:99999999999999999999\n", "must have a number after the colon"},
		{"long.txt", strings.Repeat("A", 1000) + "\n", "is too long for a SHA-1 sum"},
		{"endless.txt", strings.Repeat("A", 1<<20), "token too long"},
		{"empty.txt", "\n", "there is no password in these files"},
		{"padding.txt", "F3BBBD66A63D4BF1747940578EC3D0103530E21D:0\n", "there is no password in these files"},
	} {
		_, err := password.BuildFilter(t.Context(), password.Build{Out: out, Sources: []string{write(t, filepath.Join(dir, "in", c.name), c.text)}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for name, b := range map[string]password.Build{
		"no sources":       {Out: out},
		"an empty folder":  {Out: out, Sources: []string{t.TempDir()}},
		"a missing source": {Out: out, Sources: []string{filepath.Join(dir, "nowhere")}},
		"no input":         {Out: out, Sources: []string{"-"}},
		"a folder to make": {Out: dir, Sources: []string{out}},
		"nowhere to write": {Out: filepath.Join(dir, "no", "where"), Sources: []string{out}},
	} {
		if _, err := password.BuildFilter(t.Context(), b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := password.BuildFilter(ctx, password.Build{Out: out, Sources: []string{"-"}, In: strings.NewReader(fullLines("one"))}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "what was there before" {
		t.Errorf("the old file was changed: %.20q, %v", text, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// list returns n lines of sums by chance, which every test has alike.
func list(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	b.Grow(n * 43)
	var sum [sha1.Size]byte
	for range n {
		randomSum(r, &sum)
		fmt.Fprintf(&b, "%X:1\n", sum)
	}
	return b.String()
}

func randomSum(r *rand.Rand, sum *[sha1.Size]byte) {
	binary.BigEndian.PutUint64(sum[:], r.Uint64())
	binary.BigEndian.PutUint64(sum[8:], r.Uint64())
	binary.BigEndian.PutUint32(sum[16:], r.Uint32())
}

// Everything that was put in is found, and of the rest one in 65,536.
func TestFilterIsRightAndSmall(t *testing.T) {
	const n, tries = 50_000, 500_000
	out := filepath.Join(t.TempDir(), "filter")
	info := build(t, out, 1, list(n))
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	f, err := password.ReadFilter(raw)
	if err != nil {
		t.Fatal(err)
	}
	if info.Passwords != n || info.Bytes != int64(len(raw)) {
		t.Errorf("%+v, %d bytes", info, len(raw))
	}
	var sum [sha1.Size]byte
	r := rand.New(rand.NewPCG(1, 2))
	for range n {
		randomSum(r, &sum)
		if ok, err := f.Contains(sum); !ok || err != nil {
			t.Fatalf("%x is missing: %v", sum, err)
		}
	}
	wrong := 0
	for range tries {
		randomSum(r, &sum)
		if ok, _ := f.Contains(sum); ok {
			wrong++
		}
	}
	t.Logf("%d of %d others are taken for one; %.2f bytes a password", wrong, tries, float64(len(raw))/n)
	// 7.6 are expected; more than 25 come once in 10^6 times.
	if wrong > 25 {
		t.Errorf("%d of %d others are taken for one", wrong, tries)
	}
	// The same list, in another order and with repetitions, makes the same file.
	lines := strings.SplitAfter(list(n), "\n")
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	build(t, out, 1, strings.Join(lines, "")+lines[7])
	if again, err := os.ReadFile(out); err != nil || !bytes.Equal(again, raw) {
		t.Errorf("another order makes another file: %v", err)
	}
}

func TestSmallFilters(t *testing.T) {
	out := filepath.Join(t.TempDir(), "filter")
	for _, n := range []int{1, 2, 3, 4, 5, 8, 40, 600} {
		var passwords []string
		for i := range n {
			passwords = append(passwords, fmt.Sprint("p", i))
		}
		build(t, out, 1, fullLines(passwords...))
		f := open(t, out)
		for _, p := range passwords {
			if !contains(t, f, p) {
				t.Errorf("%d: %s is missing", n, p)
			}
		}
	}
}

func TestDamagedFilter(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "filter")
	build(t, out, 1, list(2000))
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	const head = 7240
	change := func(i int) []byte {
		b := bytes.Clone(raw)
		b[i] ^= 1
		return b
	}
	version := bytes.Clone(raw)
	version[16] = 2
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"empty":          {nil, "is no file of merlon password build-filter"},
		"another file":   {[]byte("F3BBBD66A63D4BF1747940578EC3D0103530E21D:9\n"), "is no file of merlon password build-filter"},
		"a later one":    {version, "has the version 2"},
		"cut":            {raw[:len(raw)-1], "is damaged: make it anew"},
		"cut head":       {raw[:head-1], "is damaged"},
		"only a head":    {raw[:head], "is damaged"},
		"longer":         {append(bytes.Clone(raw), 0), "is damaged"},
		"in its numbers": {change(24), "is damaged"},
		"in its shards":  {change(100), "is damaged"},
		"in its sum":     {change(head - 1), "is damaged"},
		"first byte":     {change(head), "is damaged"},
		"last byte":      {change(len(raw) - 1), "is damaged"},
	} {
		path := write(t, filepath.Join(dir, "bad"), string(c.text))
		if _, err := password.OpenFilter(path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		_, err := password.NewPolicy(password.Config{Breached: path})
		if err == nil || !strings.Contains(err.Error(), `breached "`+path+`": `+c.want) {
			t.Errorf("%s: the policy: %v", name, err)
		}
	}
	if _, err := password.OpenFilter(dir); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("a folder: %v", err)
	}

	// A file that is cut while it is in use is an error, not a crash, and does
	// not keep anybody from setting a password.
	p := newPolicy(t, password.Config{Breached: out})
	if err := os.Truncate(out, head); err != nil {
		t.Fatal(err)
	}
	problems, err := p.Check(t.Context(), "kP3~vQz8tLm2wXs", nil, false)
	if len(problems) != 0 || err == nil || !strings.Contains(err.Error(), "breached: ") {
		t.Errorf("cut in use: %v, %v", problems, err)
	}
}

// FuzzFilter: no file, however it was made, is read beyond its end.
func FuzzFilter(f *testing.F) {
	out := filepath.Join(f.TempDir(), "filter")
	build(f, out, 1, list(3))
	raw, err := os.ReadFile(out)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, text := range [][]byte{b, password.Reseal(b)} {
			filter, err := password.ReadFilter(text)
			if err != nil {
				continue
			}
			for i := range 64 {
				if _, err := filter.Contains(password.Sum(fmt.Sprint(i))); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// FuzzList: no line, however strange, is taken for what it is not.
func FuzzList(f *testing.F) {
	f.Add("F3BBBD66A63D4BF1747940578EC3D0103530E21D:9\r\n\n:\n")
	f.Add("D66A63D4BF1747940578EC3D0103530E21D:0")
	f.Fuzz(func(t *testing.T, text string) {
		const suffix = "D66A63D4BF1747940578EC3D0103530E21D"
		got, err := password.InRange([]byte(text), suffix)
		if got && (err != nil || !strings.Contains(strings.ToUpper(text), suffix)) {
			t.Errorf("found in %q, %v", text, err)
		}
	})
}

func BenchmarkContains(b *testing.B) {
	out := filepath.Join(b.TempDir(), "filter")
	build(b, out, 1, list(100_000))
	f := open(b, out)
	sum := password.Sum("password")
	for b.Loop() {
		_, _ = f.Contains(sum)
	}
}

func BenchmarkBuildFilter(b *testing.B) {
	const n = 200_000
	text := list(n)
	out := filepath.Join(b.TempDir(), "filter")
	for b.Loop() {
		build(b, out, 1, text)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/password")
}
