package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A peer is a gateway under measurement: one process and its children.
type peer struct {
	name string
	addr string
	waf  bool // whether it refuses attacks
	pid  int
	done chan struct{} // closed when the process has ended
	stop func(os.Signal) error
}

// launch starts a process that has one core, and waits until it answers a
// request.
func (b *bench) launch(name, addr, program string, args ...string) (*peer, error) {
	return b.launchOn(1, name, addr, program, args...)
}

// launchOn starts a process that uses so many cores.
func (b *bench) launchOn(cores int, name, addr, program string, args ...string) (*peer, error) {
	log, err := os.Create(filepath.Join(b.dir, strings.NewReplacer("/", "_", " ", "_").Replace(name+addr)+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	// All that is written stays in the folder of this run.
	cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(cores), "XDG_CONFIG_HOME="+b.dir, "XDG_DATA_HOME="+b.dir)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &peer{name: name, addr: addr, pid: cmd.Process.Pid, done: make(chan struct{}), stop: cmd.Process.Signal}
	go func() { _ = cmd.Wait(); close(p.done) }() // how it ended is in its log
	if p.answers() {
		return p, nil
	}
	p.end()
	text, _ := os.ReadFile(log.Name()) // more words for the error below
	return nil, fmt.Errorf("does not answer\n%s", text)
}

// answers waits until the process answers a request or has ended.
func (p *peer) answers() bool {
	ask := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for range 1500 {
		if res, err := ask.Get("http://" + p.addr + "/"); err == nil {
			return res.Body.Close() == nil
		}
		select {
		case <-p.done:
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
	return false
}

// end stops the process at once; nobody is waiting for an answer.
func (p *peer) end() {
	all := p.pids()
	_ = p.stop(unix.SIGQUIT) // nginx and HAProxy then stop their workers
	select {
	case <-p.done:
	case <-time.After(time.Second):
		for _, pid := range all {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		<-p.done
	}
}

// pids are the process and its children (nginx and HAProxy have workers).
func (p *peer) pids() []int {
	all := []int{p.pid}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.pid, p.pid))
	if err != nil {
		return all
	}
	for f := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(f); err == nil {
			all = append(all, child)
		}
	}
	return all
}

// cpu is the processor time used so far, from the scheduler's own nanoseconds.
func (p *peer) cpu() time.Duration {
	var sum time.Duration
	for _, pid := range p.pids() {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			continue
		}
		for _, t := range tasks {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, t.Name()))
			if err != nil {
				continue
			}
			if f := strings.Fields(string(text)); len(f) > 0 {
				ns, _ := strconv.ParseInt(f[0], 10, 64) // the kernel's own number
				sum += time.Duration(ns)
			}
		}
	}
	return sum
}

func (p *peer) rss() int64 {
	var sum int64
	for _, pid := range p.pids() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			continue
		}
		if f := strings.Fields(string(text)); len(f) > 1 {
			pages, _ := strconv.ParseInt(f[1], 10, 64) // the kernel's own number
			sum += pages * int64(os.Getpagesize())
		}
	}
	return sum
}

// pin keeps every thread of a process on one core.
func pin(pid, core int) {
	var set unix.CPUSet
	set.Set(core)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return
	}
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.SchedSetaffinity(tid, &set) // the thread may have ended
		}
	}
}

func freeAddr() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // no loopback, no benchmark
	}
	defer ln.Close()
	return ln.Addr().String()
}

// loadCore is where the load and the backend run.
func loadCore() int { return runtime.NumCPU() - 1 }
