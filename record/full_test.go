package record_test

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/record"
)

// A full disk loses what does not fit, and what was written before can be read.
func TestAFullDisk(t *testing.T) {
	const child = "RECORD_TEST_CHILD"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	// In a process of its own: no file may be longer than two and a half chunks.
	signal.Ignore(syscall.SIGXFSZ)
	s := open(t, record.Config{})
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 160 << 10, Max: 1 << 40}); err != nil {
		t.Skip(err)
	}
	const sent = 400
	for range sent {
		s.send(t, request("POST", "/", "application/x-www-form-urlencoded", "q="+strings.Repeat("a", 1000)), record.Outcome{})
	}
	for st := s.Stats(); st.Written+st.Lost < sent; st = s.Stats() {
		time.Sleep(time.Millisecond)
	}
	_ = s.Close()
	st := s.Stats()
	read, unfinished := 0, 0
	for _, err := range record.Read(s.dir, time.Time{}, s.ids...) {
		switch {
		case errors.Is(err, record.ErrUnfinished):
			unfinished++
		case err != nil:
			t.Error(err)
		default:
			read++
		}
	}
	files, _ := filepath.Glob(filepath.Join(s.dir, "*"))
	if st.Lost == 0 || unfinished != 1 || len(files) != 1 || read < 80 || uint64(read) > st.Written {
		t.Errorf("%+v, %d read, %d unfinished, files %v", st, read, unfinished, files)
	}
}
