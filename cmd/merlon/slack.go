package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how much later than asked the kernel may wake a thread that
// sleeps. Go's runtime has a thread that looks after the others every 20 µs
// while they work. With Linux's 50 µs of slack it takes an eighth of a busy
// processor, most of it to move work between threads that wait in the kernel
// for some microseconds only. Timers of Merlon's own are seconds long.
const timerSlack = 500 * time.Microsecond

// relaxed says to the program that relax has started it.
const relaxed = "MERLON_RELAXED"

// relax sets the timer slack. A thread can only set its own, and inherits it
// from the one that starts it; the runtime's is older than main. So the program
// is executed anew, in the same process. More slack than ours, as systemd's
// TimerSlackNSec sets it, is left alone. Where the kernel does not allow it, all
// is as before, but dearer.
func relax() {
	if os.Getenv(relaxed) != "" {
		_ = os.Unsetenv(relaxed) // fails for malformed names only
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || now >= int(timerSlack) {
		return
	}
	if unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0) != nil {
		return
	}
	_ = syscall.Exec(self, os.Args, append(os.Environ(), relaxed+"=1")) // returns only if it failed
}
