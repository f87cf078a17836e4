package ledger_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ledger"
)

// written makes a log of n lines, over several files if rotate is set, with
// its writer ended in order.
func written(t testing.TB, n int, rotate merlon.Size) (dir string) {
	t.Helper()
	dir = t.TempDir()
	l := open(t, dir, ledger.Config{Rotate: rotate, Details: merlon.GiB})
	for i := 0; i < n; i += 100 {
		fill(t, l, i, min(n, i+100))
		if rotate > 0 {
			eventually(t, "written", func() bool { return l.Stats().Written >= uint64(min(n, i+100)) })
		}
	}
	closeLog(t, l)
	wantUntouched(t, dir)
	return dir
}

// copied returns a copy of the data folder dir.
func copied(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		if d.IsDir() {
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(path)
		return errorsJoin(err, os.WriteFile(filepath.Join(to, rel), b, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func lines(t testing.TB, file string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.SplitAfter(bytes.TrimSuffix(b, nil), []byte("\n"))[:bytes.Count(b, []byte("\n"))]
}

func write(t testing.TB, file string, ls [][]byte) {
	t.Helper()
	if err := os.WriteFile(file, bytes.Join(ls, nil), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestEveryKindOfTamperingIsNamedWithItsPlace(t *testing.T) {
	whole := written(t, 20, 0)
	for _, c := range []struct {
		name   string
		tamper func(ls [][]byte) [][]byte
		fault  ledger.Fault
		line   int64
		only   bool // exactly one problem
	}{
		{"a changed character", func(ls [][]byte) [][]byte {
			ls[4] = bytes.Replace(ls[4], []byte("942100"), []byte("942101"), 1)
			return ls
		}, ledger.Changed, 5, true},
		{"a changed first line", func(ls [][]byte) [][]byte {
			ls[0] = bytes.Replace(ls[0], []byte("942100"), []byte("942101"), 1)
			return ls
		}, ledger.Changed, 1, true},
		{"a changed last line", func(ls [][]byte) [][]byte {
			ls[19] = bytes.Replace(ls[19], []byte("942100"), []byte("942101"), 1)
			return ls
		}, ledger.Changed, 20, true},
		{"a line made longer", func(ls [][]byte) [][]byte {
			ls[4] = bytes.Replace(ls[4], []byte("942100"), []byte("94210099"), 1)
			return ls
		}, ledger.Changed, 5, true},
		{"a line made into white space", func(ls [][]byte) [][]byte { ls[4] = []byte("   \n"); return ls }, ledger.Changed, 5, true},
		{"white space in a line", func(ls [][]byte) [][]byte {
			ls[4] = bytes.Replace(ls[4], []byte(`","event":`), []byte(`", "event":`), 1)
			return ls
		}, ledger.Changed, 5, true},
		{"two lines made one", func(ls [][]byte) [][]byte { ls[4] = bytes.TrimSuffix(ls[4], []byte("\n")); return ls }, ledger.Changed, 5, false},
		{"a removed line", func(ls [][]byte) [][]byte { return slices.Delete(ls, 4, 5) }, ledger.Removed, 5, true},
		{"the first lines removed", func(ls [][]byte) [][]byte { return ls[3:] }, ledger.Removed, 1, true},
		{"the last line removed", func(ls [][]byte) [][]byte { return ls[:19] }, ledger.Removed, 20, true},
		{"the last ten removed", func(ls [][]byte) [][]byte { return ls[:10] }, ledger.Removed, 11, true},
		{"all lines removed", func([][]byte) [][]byte { return nil }, ledger.Removed, 1, true},
		{"the last line cut in half", func(ls [][]byte) [][]byte { ls[19] = ls[19][:50]; return ls }, ledger.Changed, 20, true},
		{"a line inserted", func(ls [][]byte) [][]byte {
			return slices.Insert(ls, 4, bytes.Replace(ls[4], []byte("942100"), []byte("942101"), 1))
		}, ledger.Inserted, 5, true},
		{"a line duplicated", func(ls [][]byte) [][]byte { return slices.Insert(ls, 10, bytes.Clone(ls[4])) }, ledger.Duplicated, 11, true},
		{"the last line duplicated", func(ls [][]byte) [][]byte { return append(ls, bytes.Clone(ls[19])) }, ledger.Duplicated, 21, true},
		{"a line moved back", func(ls [][]byte) [][]byte {
			l := ls[10]
			return slices.Insert(slices.Delete(ls, 10, 11), 4, l)
		}, ledger.Reordered, 6, false},
		{"two lines swapped", func(ls [][]byte) [][]byte { ls[4], ls[5] = ls[5], ls[4]; return ls }, ledger.Reordered, 6, true},
		{"the last two swapped", func(ls [][]byte) [][]byte { ls[18], ls[19] = ls[19], ls[18]; return ls }, ledger.Reordered, 20, true},
		{"a forged line added", func(ls [][]byte) [][]byte {
			return append(ls, bytes.Replace(ls[19], []byte(`{"seq":20`), []byte(`{"seq":21`), 1))
		}, ledger.Inserted, 21, true},
		{"rubbish added to a chain that had ended", func(ls [][]byte) [][]byte { return append(ls, []byte("x")) }, ledger.Inserted, 21, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copied(t, whole)
			file := files(t, dir)[0]
			write(t, file, c.tamper(lines(t, file)))
			r := verify(t, dir)
			if !slices.ContainsFunc(r.Problems, func(p ledger.Problem) bool {
				return p.File == "events/"+filepath.Base(file) && p.Line == c.line && p.Fault == c.fault && (p.To == 0 || !c.only)
			}) || c.only && len(r.Problems) != 1 {
				t.Errorf("want %s in line %d, got %v (notes %v)", c.fault, c.line, r.Problems, r.Notes)
			}
			var b bytes.Buffer
			if _, err := r.WriteTo(&b); err != nil || !strings.Contains(b.String(), "TAMPERED") {
				t.Errorf("the report says %q", b.String())
			}
		})
	}
}

func TestTamperingWithFilesAndTheCheckpointIsFound(t *testing.T) {
	whole := written(t, 600, 64*merlon.KiB)
	heads := func(dir string) string { return filepath.Join(dir, "events", "heads.json") }
	for _, c := range []struct {
		name   string
		tamper func(t *testing.T, dir string, fs []string) error
		fault  ledger.Fault
		in     int // the file, or -1: the checkpoint
	}{
		{"the first file removed", func(_ *testing.T, _ string, fs []string) error { return os.Remove(fs[0]) }, ledger.Removed, 0},
		{"a middle file removed", func(_ *testing.T, _ string, fs []string) error { return os.Remove(fs[1]) }, ledger.Removed, 1},
		{"the last file removed", func(_ *testing.T, _ string, fs []string) error { return os.Remove(fs[len(fs)-1]) }, ledger.Removed, -2},
		{"two files exchanged", func(_ *testing.T, _ string, fs []string) error {
			return errorsJoin(os.Rename(fs[0], fs[0]+"x"), os.Rename(fs[1], fs[0]), os.Rename(fs[0]+"x", fs[1]))
		}, ledger.Reordered, 1},
		{"lines added to a file that was complete", func(t *testing.T, _ string, fs []string) error {
			write(t, fs[0], append(lines(t, fs[0]), lines(t, fs[1])[0]))
			return nil
		}, ledger.Inserted, 0},
		{"the end of a file that was complete removed", func(t *testing.T, _ string, fs []string) error {
			ls := lines(t, fs[0])
			write(t, fs[0], ls[:len(ls)-3])
			return nil
		}, ledger.Removed, 0},
		{"a file added", func(t *testing.T, dir string, fs []string) error {
			write(t, filepath.Join(dir, "events", "events-20260101T000000Z-aaaaaa.000001.jsonl"), lines(t, fs[0]))
			return nil
		}, ledger.Inserted, -3},
		{"the checkpoint removed", func(_ *testing.T, dir string, _ []string) error { return os.Remove(heads(dir)) }, ledger.Checkpoint, -1},
		{"the checkpoint changed", func(_ *testing.T, dir string, _ []string) error {
			b, err := os.ReadFile(heads(dir))
			return errorsJoin(err, os.WriteFile(heads(dir), bytes.Replace(b, []byte(`"closed":true`), []byte(`"closed":null`), 1), 0o600))
		}, ledger.Checkpoint, -1},
		{"the checkpoint's seal cut off", func(_ *testing.T, dir string, _ []string) error {
			b, err := os.ReadFile(heads(dir))
			return errorsJoin(err, os.WriteFile(heads(dir), b[:bytes.IndexByte(b, '\n')+1], 0o600))
		}, ledger.Checkpoint, -1},
		{"the checkpoint emptied", func(_ *testing.T, dir string, _ []string) error { return os.Truncate(heads(dir), 0) }, ledger.Checkpoint, -1},
		{"everything removed but the key", func(_ *testing.T, dir string, _ []string) error {
			return errorsJoin(os.RemoveAll(filepath.Join(dir, "events")), os.Mkdir(filepath.Join(dir, "events"), 0o700))
		}, ledger.Checkpoint, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copied(t, whole)
			fs := files(t, dir)
			if len(fs) < 3 {
				t.Fatalf("%d files", len(fs))
			}
			if err := c.tamper(t, dir, fs); err != nil {
				t.Fatal(err)
			}
			in := "heads.json"
			switch {
			case c.in >= 0:
				in = filepath.Base(fs[c.in])
			case c.in == -2:
				in = filepath.Base(fs[len(fs)-1])
			case c.in == -3:
				in = "events-20260101T000000Z-aaaaaa.000001.jsonl"
			}
			r := verify(t, dir)
			if !slices.ContainsFunc(r.Problems, func(p ledger.Problem) bool {
				return p.Fault == c.fault && filepath.Base(p.File) == in
			}) {
				t.Errorf("want %s in %s, got %v", c.fault, in, r.Problems)
			}
			// A start over the tampered log neither fails nor hides it.
			var a alarms
			l, err := ledger.Open(dir, ledger.Config{OnAlarm: a.on})
			if err != nil {
				t.Fatalf("the log cannot be opened again: %v", err)
			}
			fill(t, l, 0, 1)
			closeLog(t, l)
			if r := verify(t, dir); r.OK() && c.name != "everything removed but the key" {
				t.Error("nothing is reported any more after a start")
			}
			if c.fault == ledger.Checkpoint && !a.have("log_tampered") {
				t.Error("the start gave no alarm")
			}
		})
	}
}

func errorsJoin(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestAWholeDiskPutBackIsFoundByANotedHead(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, ledger.Config{})
	fill(t, l, 0, 10)
	closeLog(t, l)
	early := l.Head()
	backup := copied(t, dir)
	l = open(t, dir, ledger.Config{})
	fill(t, l, 10, 20)
	closeLog(t, l)
	late := l.Head()
	if r := verify(t, dir, early, late); !r.OK() {
		t.Errorf("noted heads of the true log: %v", r.Problems)
	}
	dir = backup
	if r := verify(t, dir, late); r.OK() || r.Problems[0].Fault != ledger.RolledBack {
		t.Errorf("put back: %v", r.Problems)
	}
	// Even with the key another history cannot be told.
	l = open(t, dir, ledger.Config{})
	fill(t, l, 100, 120)
	closeLog(t, l)
	if r := verify(t, dir); !r.OK() {
		t.Errorf("without the noted head: %v", r.Problems)
	}
	if r := verify(t, dir, late); r.OK() || r.Problems[0].Fault != ledger.Changed {
		t.Errorf("another history: %v", r.Problems)
	}
	var h ledger.Head
	if err := h.UnmarshalText([]byte(late.String())); err != nil || h != late {
		t.Errorf("%q reads as %v, %v", late, h, err)
	}
}

// Two histories of one chain come from a copy of the disk that Merlon went on
// with: every line of both was made with the key.
func TestLinesOfAnotherHistoryOfTheChainDoNotHold(t *testing.T) {
	one := written(t, 10, 0)
	other := copied(t, one)
	for i, dir := range []string{one, other} {
		l := open(t, dir, ledger.Config{})
		fill(t, l, 100*i+100, 100*i+110)
		closeLog(t, l)
	}
	file := files(t, one)[0]
	mine, theirs := lines(t, file), lines(t, files(t, other)[0])
	for _, c := range []struct {
		name string
		put  [][]byte
		line int64
	}{
		{"a line", slices.Concat(mine[:14], theirs[14:15], mine[15:]), 15},
		{"the last line", slices.Concat(mine[:19], theirs[19:]), 20},
		{"the whole end", slices.Concat(mine[:10], theirs[10:]), 20},
	} {
		write(t, file, c.put)
		if r := verify(t, one); r.OK() || r.Problems[0].Fault != ledger.Changed || r.Problems[0].Line != c.line {
			t.Errorf("%s: %v", c.name, r.Problems)
		}
	}
}

func TestALineHoldsOnlyInItsOwnChain(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, dir, ledger.Config{}), open(t, dir, ledger.Config{})
	fill(t, a, 0, 1)
	fill(t, b, 1, 2)
	closeLog(t, a)
	closeLog(t, b)
	fs := files(t, dir)
	write(t, fs[0], append(lines(t, fs[0]), lines(t, fs[1])...))
	r := verify(t, dir)
	if len(r.Problems) != 1 || r.Problems[0].Fault != ledger.Inserted || r.Problems[0].Line != 2 {
		t.Errorf("%v", r.Problems)
	}
}

func TestVerifyNeedsTheRightKey(t *testing.T) {
	dir := written(t, 5, 0)
	key := filepath.Join(dir, "keys", "ledger.key")
	if err := os.WriteFile(key, bytes.Repeat([]byte("ab"), 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Verify(dir, ledger.Config{}); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("another key: %v", err)
	}
	if _, err := ledger.Open(dir, ledger.Config{}); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("open with another key: %v", err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Open(dir, ledger.Config{}); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a log without its key was opened: %v", err)
	}
	if _, err := ledger.Verify(t.TempDir(), ledger.Config{}); err == nil {
		t.Error("no log at all verifies")
	}
}

func TestVerifyMayRunWhileTheLogIsWritten(t *testing.T) {
	dir := t.TempDir()
	c := ledger.Config{Rotate: 64 * merlon.KiB, MaxTotal: 256 * merlon.KiB, Details: merlon.GiB}
	a, b := open(t, dir, c), open(t, dir, c)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Microsecond):
			}
			_ = a.Append(refusal(2 * i))
			_ = b.Append(refusal(2*i + 1))
		}
	}()
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
		if r := verify(t, dir); !r.OK() {
			t.Errorf("tampering is reported: %v", r.Problems)
			break
		}
	}
	close(stop)
	<-done
	closeLog(t, a)
	closeLog(t, b)
	wantUntouched(t, dir)
}

// FuzzCorruption holds that no changed byte, wherever it is, lets the log
// verify, and that reading it never panics.
func FuzzCorruption(f *testing.F) {
	dir := written(f, 6, 0)
	file := files(f, dir)[0]
	whole, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(0, 0, []byte("x"))
	f.Add(100, 10, []byte{})
	f.Add(len(whole), 0, []byte("{\"seq\":7,\"prev\":\""))
	f.Add(len(whole)-1, 1, []byte{})
	f.Add(50, 1, []byte("\n\n\x00\xff"))
	f.Add(0, len(whole), []byte("{}"))
	f.Fuzz(func(t *testing.T, at, cut int, put []byte) {
		if at < 0 || cut < 0 || at > len(whole) || cut > len(whole)-at || len(put) > 1<<16 {
			return
		}
		b := slices.Concat(whole[:at], put, whole[at+cut:])
		if bytes.Equal(b, whole) {
			return
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := verify(t, dir); r.OK() {
			t.Errorf("verifies with %d bytes at %d replaced by %q", cut, at, put)
		}
		for _, err := range ledger.Query(dir, ledger.Filter{}) {
			_ = err
		}
		_, _ = ledger.Find(dir, "REQ000003")
	})
}
