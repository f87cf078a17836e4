package ledger_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ledger"
)

// child runs one of the functions below in a process of its own.
const child = "LEDGER_TEST_CHILD"

func TestMain(m *testing.M) {
	switch what, dir, _ := strings.Cut(os.Getenv(child), ":"); what {
	case "":
		os.Exit(m.Run())
	case "writer":
		writeForEver(dir)
	case "full":
		os.Exit(fullDisk(dir))
	}
}

func childCommand(what, dir string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), os.Args[0])
	cmd.Env = append(os.Environ(), child+"="+what+":"+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// writeForEver says which event is on the disk, after each.
func writeForEver(dir string) {
	l, err := ledger.Open(dir, ledger.Config{Sync: ledger.SyncAlways, Details: merlon.GiB})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		if err := l.Append(refusal(i)); err != nil {
			os.Exit(1)
		}
		fmt.Println(i)
	}
}

func TestAKilledWriterLosesNothingItSaidWasOnTheDisk(t *testing.T) {
	dir := t.TempDir()
	var said []int // how far each writer said it had come
	for round := range 3 {
		cmd := childCommand("writer", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last := ""
		for s := bufio.NewScanner(out); s.Scan(); {
			if last = s.Text(); last == "20" {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		n := 0
		_, _ = fmt.Sscan(last, &n)
		seen := map[string]int{}
		for _, e := range query(t, dir, ledger.Filter{Kind: ledger.Refusal}) {
			seen[e.ID]++
		}
		said = append(said, n)
		want := 0
		for _, m := range said {
			if m >= n {
				want++
			}
		}
		// A writer may have written one more than it had the time to say.
		if got := seen[refusal(n).ID]; n < 20 || got < want {
			t.Fatalf("round %d: event %d was on the disk %d times, want %d", round, n, got, want)
		}
		wantUntouched(t, dir)
	}
	if n := len(files(t, dir)); n != 1 {
		t.Errorf("%d files: a crashed writer's chain is not gone on with", n)
	}
}

// crashed makes a log whose writer did not end in order.
func crashed(t *testing.T) (dir, file string) {
	t.Helper()
	live := t.TempDir()
	l := open(t, live, ledger.Config{Sync: ledger.SyncAlways})
	fill(t, l, 0, 10)
	dir = copied(t, live)
	return dir, files(t, dir)[0]
}

func add(t *testing.T, file, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestATornTailIsTakenForACrashAndKept(t *testing.T) {
	for name, torn := range map[string]string{
		"half a line":    `{"seq":11,"prev":"`,
		"zeros":          strings.Repeat("\x00", 5000),
		"no JSON":        "garbage of a lost block\nand more",
		"half with line": `{"seq":11,"prev":` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir, file := crashed(t)
			add(t, file, torn)
			r := wantUntouched(t, dir)
			if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "torn tail") || !strings.Contains(r.Notes[0], ":11:") {
				t.Errorf("notes: %v", r.Notes)
			}
			if name == "half a line" && len(query(t, dir, ledger.Filter{Kind: ledger.Refusal})) != 10 {
				t.Error("not all whole lines can be read")
			}
			var a alarms
			l := open(t, dir, ledger.Config{OnAlarm: a.on})
			fill(t, l, 10, 12)
			closeLog(t, l)
			if !a.have("log_torn") || !a.have(ledger.SysCrash) {
				t.Error("the crash was not told")
			}
			wantUntouched(t, dir)
			kept, _ := filepath.Glob(filepath.Join(dir, "events", "torn-*"))
			if len(kept) != 1 {
				t.Fatalf("torn bytes kept in %v", kept)
			}
			if b, _ := os.ReadFile(kept[0]); string(b) != torn {
				t.Errorf("kept %q", b)
			}
			if n := len(query(t, dir, ledger.Filter{Kind: ledger.Refusal})); n != 12 {
				t.Errorf("%d events", n)
			}
		})
	}
}

func TestLinesAfterTheCheckpointThatHoldAreRecovered(t *testing.T) {
	live := t.TempDir()
	l := open(t, live, ledger.Config{Sync: ledger.SyncAlways})
	fill(t, l, 0, 5)
	heads, err := os.ReadFile(filepath.Join(live, "events", "heads.json"))
	if err != nil {
		t.Fatal(err)
	}
	fill(t, l, 5, 10)
	dir := copied(t, live)
	// The crash came between the lines and their checkpoint.
	if err := os.WriteFile(filepath.Join(dir, "events", "heads.json"), heads, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := wantUntouched(t, dir); r.Lines != 10 || len(r.Notes) != 1 {
		t.Errorf("%d lines, notes %v", r.Lines, r.Notes)
	}
	l2 := open(t, dir, ledger.Config{})
	fill(t, l2, 10, 11)
	closeLog(t, l2)
	if n := len(query(t, dir, ledger.Filter{Kind: ledger.Refusal})); n != 11 || len(files(t, dir)) != 1 {
		t.Errorf("%d events in %d files", n, len(files(t, dir)))
	}
	wantUntouched(t, dir)
}

func TestAChangedTailIsNotTakenForACrash(t *testing.T) {
	for name, tamper := range map[string]func(t *testing.T, file string){
		"checkpointed lines cut": func(t *testing.T, file string) { write(t, file, lines(t, file)[:8]) },
		"last line cut in half": func(t *testing.T, file string) {
			ls := lines(t, file)
			ls[9] = ls[9][:60]
			write(t, file, ls)
		},
		"a forged line after the checkpoint": func(t *testing.T, file string) {
			ls := lines(t, file)
			write(t, file, append(ls, bytes.Replace(ls[9], []byte(`"seq":10`), []byte(`"seq":11`), 1)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, file := crashed(t)
			tamper(t, file)
			if r := verify(t, dir); r.OK() {
				t.Fatalf("taken for a crash: %v", r.Notes)
			}
			before, _ := os.ReadFile(file)
			var a alarms
			l := open(t, dir, ledger.Config{OnAlarm: a.on})
			fill(t, l, 20, 21)
			closeLog(t, l)
			if after, _ := os.ReadFile(file); !bytes.Equal(before, after) {
				t.Error("the evidence was changed")
			}
			if !a.have("log_tampered") {
				t.Error("no alarm")
			}
			if r := verify(t, dir); r.OK() {
				t.Error("a new start hides it")
			}
		})
	}
}

// fullDisk writes to a log on a disk that fills up, and has space again.
func fullDisk(dir string) int {
	signal.Ignore(syscall.SIGXFSZ)
	full := dir != os.Getenv("LEDGER_TEST_LIMIT")
	var space func() error
	if full {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=192k"); err != nil {
			return 77
		}
	} else {
		lim := syscall.Rlimit{Cur: 24 << 10, Max: 1 << 40}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &lim); err != nil {
			return 77
		}
		space = func() error {
			return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 40, Max: 1 << 40})
		}
	}
	for _, policy := range []string{ledger.OnFullSpool, ledger.OnFullRefuse} {
		if err := fullDiskWith(filepath.Join(dir, policy), policy, space); err != nil {
			fmt.Println(policy+":", err)
			return 1
		}
		if !full {
			lim := syscall.Rlimit{Cur: 24 << 10, Max: 1 << 40}
			_ = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &lim)
		}
	}
	return 0
}

func fullDiskWith(dir, policy string, space func() error) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if space == nil { // another file takes all the space
		ballast := filepath.Join(dir, "ballast")
		space = func() error { return os.Remove(ballast) }
		if err := os.WriteFile(ballast, make([]byte, 96<<10), 0o600); err != nil {
			return err
		}
	}
	var a alarms
	l, err := ledger.Open(dir, ledger.Config{OnFull: policy, Spool: merlon.MiB, Details: merlon.GiB, OnAlarm: a.on})
	if err != nil {
		return err
	}
	sent, accepted := 0, 0
	send := func(n int) {
		for range n {
			if l.Append(refusal(sent)) == nil {
				accepted++
			}
			sent++
		}
	}
	for end := time.Now().Add(5 * time.Second); !a.have("log_failed"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("the disk never got full")
		}
		send(10)
	}
	if l.Err() == nil || l.Healthy() != (policy == ledger.OnFullSpool) {
		return fmt.Errorf("error %v, healthy %t", l.Err(), l.Healthy())
	}
	send(6000) // more than the spool holds
	lost := l.Stats().Lost
	if lost == 0 || policy == ledger.OnFullRefuse && uint64(sent-accepted) != lost {
		return fmt.Errorf("%d lost, %d of %d accepted", lost, accepted, sent)
	}
	if r, err := ledger.Verify(dir, ledger.Config{}); err != nil || !r.OK() {
		return fmt.Errorf("while full: %v %v", r.Problems, err)
	}
	if err := space(); err != nil {
		return err
	}
	return afterwards(l, dir, &a, sent, lost)
}

// afterwards holds that with space again everything is either written or
// counted as lost.
func afterwards(l *ledger.Log, dir string, a *alarms, sent int, lost uint64) error {
	if os.Getenv("LEDGER_TEST_LIMIT") == "" {
		_ = l.Close() // the tiny disk cannot take the whole spool
		defer os.RemoveAll(dir)
		r, err := ledger.Verify(dir, ledger.Config{})
		if err != nil || !r.OK() {
			return fmt.Errorf("after: %v %v", r.Problems, err)
		}
		return nil
	}
	for end := time.Now().Add(5 * time.Second); !a.have("log_restored"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("never written again")
		}
	}
	if !l.Healthy() || l.Stats().Lost != lost {
		return fmt.Errorf("healthy %t, %d lost", l.Healthy(), l.Stats().Lost)
	}
	if err := l.Close(); err != nil {
		return err
	}
	var written, told, toldRefusals uint64
	for e, err := range ledger.Query(dir, ledger.Filter{}) {
		if err != nil {
			return err
		}
		if e.Name == "log_lost" {
			for kind, count := range e.Attrs {
				n := uint64(0)
				_, _ = fmt.Sscan(count, &n)
				told += n
				if kind == string(ledger.Refusal) {
					toldRefusals += n
				}
			}
		}
		if e.Kind == ledger.Refusal {
			written += max(1, e.Count)
		}
	}
	if written+toldRefusals != uint64(sent) || told == 0 || told != lost {
		return fmt.Errorf("%d written, %d lost, %d sent; the log tells of %d lost", written, lost, sent, told)
	}
	r, err := ledger.Verify(dir, ledger.Config{})
	if err != nil || !r.OK() || len(r.Notes) > 0 {
		return fmt.Errorf("after: %v %v %v", r.Problems, r.Notes, err)
	}
	return nil
}

func TestAFullDiskIsAnAlarmAndACountNeverSilence(t *testing.T) {
	t.Run("file size limit", func(t *testing.T) {
		dir := t.TempDir()
		cmd := childCommand("full", dir)
		cmd.Env = append(cmd.Env, "LEDGER_TEST_LIMIT="+dir)
		if out, err := cmd.Output(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
	t.Run("full file system", func(t *testing.T) {
		cmd := childCommand("full", t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
		out, err := cmd.Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() == 77) {
			t.Skipf("no file system of its own can be mounted here: %v", err)
		}
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
}
