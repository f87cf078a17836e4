package main

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRelax: the program begins anew, once and in the same process, with more
// slack and without a trace in its environment.
func TestRelax(t *testing.T) {
	const child = "RELAX_IN_A_CHILD"
	if os.Getenv(child) != "" {
		fmt.Print("begun, ")
		relax()
		slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		fmt.Printf("relaxed: %d %d %v %q\n", os.Getpid(), slack, err, os.Getenv(relaxed))
		os.Exit(0)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRelax$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("begun, begun, relaxed: %d %d <nil> \"\"\n", cmd.Process.Pid, timerSlack.Nanoseconds())
	if string(out) != want {
		t.Errorf("%q, not %q", out, want)
	}
}
