package harness

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A RedisServer is a redis-server of the test's own, on a loopback port that
// it keeps when it is killed and started again.
type RedisServer struct {
	URL string

	t    testing.TB
	addr string
	args []string
	cmd  *exec.Cmd // nil while it is down
	out  *lockedBuffer
}

// StartRedis starts an empty redis-server that ends with the test. The test is
// skipped if this machine has none.
func StartRedis(t testing.TB) *RedisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("there is no Redis here: apt-get install redis-server")
	}
	addr := FreeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &RedisServer{URL: "redis://" + addr, t: t, addr: addr, out: new(lockedBuffer),
		args: []string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir()}}
	t.Cleanup(func() {
		s.end()
		if t.Failed() {
			t.Logf("redis-server said:\n%s", s.out)
		}
	})
	s.Start()
	return s
}

// Start starts it, or starts it again after Kill: empty then, on the same port.
func (s *RedisServer) Start() {
	s.t.Helper()
	cmd := exec.Command("redis-server", s.args...)
	cmd.Stdout, cmd.Stderr = s.out, s.out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.cmd = cmd
	answers(s.t, "Redis", func() error { return s.ask("PING", "+PONG") })
}

// Kill ends it at once, as a crash does: its port refuses connections then.
func (s *RedisServer) Kill() {
	s.t.Helper()
	if s.cmd == nil {
		s.t.Fatal("Redis is down already")
	}
	s.end()
}

// Pause makes it neither answer nor hang up, until Resume.
func (s *RedisServer) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *RedisServer) Resume() { s.signal(syscall.SIGCONT) }

// Flush takes all that it holds away.
func (s *RedisServer) Flush() {
	s.t.Helper()
	s.Do("FLUSHALL", "+OK")
}

// Do sends one command, in words that hold no spaces, and fails the test
// unless the answer begins as wanted.
func (s *RedisServer) Do(command, want string) {
	s.t.Helper()
	if err := s.ask(command, want); err != nil {
		s.t.Fatal(err)
	}
}

// ask speaks the inline form of the protocol, as a person at a terminal would.
func (s *RedisServer) ask(command, want string) error {
	c, err := net.DialTimeout("tcp", s.addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		return err
	}
	got, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(got, want) {
		return fmt.Errorf("redis: %s: %q, want %q", command, got, want)
	}
	return nil
}

func (s *RedisServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *RedisServer) end() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended; also one that is paused ends
	_ = s.cmd.Wait()
	s.cmd = nil
}
