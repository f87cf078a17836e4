// Package harness starts the real binary for end-to-end tests: Merlon as a
// user would run it, on loopback ports that are free, with a data folder of
// its own.
//
// It is for tests only, and ends only processes that it started.
package harness

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	buildOnce sync.Once
	binary    string
	buildErr  error
)

// Binary builds Merlon once per test process and returns its path.
func Binary(t testing.TB) string {
	t.Helper()
	buildOnce.Do(func() {
		dir, err := os.MkdirTemp("", "merlon-e2e-")
		if err != nil {
			buildErr = err
			return
		}
		binary = filepath.Join(dir, "merlon")
		cmd := exec.Command("go", "build", "-o", binary, "github.com/merlon-dev/merlon/cmd/merlon")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			buildErr = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	return binary
}

// Cleanup removes what Binary built; call it at the end of TestMain.
func Cleanup() {
	if binary != "" {
		_ = os.RemoveAll(filepath.Dir(binary))
	}
}

// A Merlon is a running gateway.
type Merlon struct {
	HTTPS    string // addresses, host:port
	HTTP     string
	Admin    string
	Insecure string // empty unless asked for
	Data     string
	PID      int

	cmd    *exec.Cmd
	output *lockedBuffer
	exited chan error

	caOnce sync.Once
	ca     *x509.CertPool
}

// Options say how to start Merlon beside its arguments.
type Options struct {
	Data     string            // a folder to use; a new one if empty
	Addrs    map[string]string // "https", "http", "admin": fixed addresses; free ones otherwise
	Insecure bool              // also serve in clear text
	Env      []string
}

// Serve starts `merlon serve` with args, which name a configuration or an
// upstream, and waits until it is ready. It is stopped when the test ends.
func Serve(t testing.TB, o Options, args ...string) *Merlon {
	t.Helper()
	m := &Merlon{Data: o.Data, output: new(lockedBuffer), exited: make(chan error, 1)}
	if m.Data == "" {
		m.Data = t.TempDir()
	}
	addr := func(name string) string {
		if a := o.Addrs[name]; a != "" {
			return a
		}
		return FreeAddr(t)
	}
	m.HTTPS, m.HTTP, m.Admin = addr("https"), addr("http"), addr("admin")
	full := append([]string{"serve", "--data", m.Data, "--https", m.HTTPS, "--http", m.HTTP, "--admin", m.Admin}, args...)
	if o.Insecure {
		m.Insecure = addr("insecure")
		full = append(full, "--insecure-http", m.Insecure)
	}
	m.cmd = exec.Command(Binary(t), full...)
	m.cmd.Env = append(os.Environ(), o.Env...)
	m.cmd.Stdout, m.cmd.Stderr = m.output, m.output
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.PID = m.cmd.Process.Pid
	go func() { m.exited <- m.cmd.Wait() }()
	t.Cleanup(func() { m.kill(t) })
	m.waitReady(t)
	return m
}

func (m *Merlon) waitReady(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		select {
		case err := <-m.exited:
			m.exited <- err
			t.Fatalf("merlon ended: %v\n%s", err, m.Output())
		case <-time.After(20 * time.Millisecond):
		}
		if !strings.Contains(m.Output(), "ready after") {
			continue // another process may answer on the same port
		}
		res, err := http.Get("http://" + m.Admin + "/readyz")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
	}
	t.Fatalf("merlon is not ready\n%s", m.Output())
}

// Output is what it has printed so far.
func (m *Merlon) Output() string { return m.output.String() }

// Signal sends a signal.
func (m *Merlon) Signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Stop sends SIGTERM and waits for the end; an exit code other than 0 fails the test.
func (m *Merlon) Stop(t testing.TB) {
	t.Helper()
	m.Signal(t, syscall.SIGTERM)
	select {
	case err := <-m.exited:
		m.exited <- err
		if err != nil {
			t.Errorf("merlon ended badly: %v\n%s", err, m.Output())
		}
	case <-time.After(45 * time.Second):
		t.Errorf("merlon did not stop\n%s", m.Output())
	}
}

func (m *Merlon) kill(t testing.TB) {
	select {
	case <-m.exited:
		return
	default:
	}
	_ = m.cmd.Process.Kill() // it may have ended in between
	<-m.exited
	if t.Failed() {
		t.Logf("merlon said:\n%s", m.Output())
	}
}

// CA returns the pool with the local CA's root.
func (m *Merlon) CA(t testing.TB) *x509.CertPool {
	t.Helper()
	m.caOnce.Do(func() { m.ca = m.readCA(t) })
	return m.ca
}

func (m *Merlon) readCA(t testing.TB) *x509.CertPool {
	t.Helper()
	out, err := exec.Command(Binary(t), "ca", "--path", "--data", m.Data).Output()
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool
}

// Client returns a client that trusts the local CA, follows no redirects and
// reaches HTTPS whatever host a URL names.
func (m *Merlon) Client(t testing.TB) *http.Client {
	t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", m.HTTPS)
	}
	tr := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: m.CA(t), MinVersion: tls.VersionTLS12},
		DialContext:       dial,
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 60 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Run runs another subcommand on the same data folder and returns its output.
func (m *Merlon) Run(t testing.TB, args ...string) (stdout string, code int) {
	t.Helper()
	cmd := exec.Command(Binary(t), append(args, "--data", m.Data)...)
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// RSS returns the process's resident memory in bytes.
func (m *Merlon) RSS(t testing.TB) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// FDs returns how many descriptors the process has open.
func (m *Merlon) FDs(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.PID))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Metric returns the value of a metric by its full name and labels, as in
// `go_goroutines` or `merlon_reloads_total{result="ok"}`; 0 if it is not there.
func (m *Merlon) Metric(t testing.TB, name string) float64 {
	t.Helper()
	res, err := http.Get("http://" + m.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// FreeAddr returns a loopback address that nobody listens on. Its port is below
// those that systems give to outgoing connections, which could take it first.
func FreeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(22_000)))
		if err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal("there is no free port")
	return ""
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
