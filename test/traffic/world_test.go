// Package traffic_test runs the real binary under hostile traffic: slow
// clients, floods, many log-ins, bots, and a Redis that fails. It shows what is
// held off, and that others are served meanwhile.
//
// `go test -parallel 1` runs one attack at a time, for times that can be
// compared.
package traffic_test

import (
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait most of the time: few cores are no reason for a queue.
	if p := flag.Lookup("test.parallel"); p.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		if err := p.Value.Set("6"); err != nil {
			panic(err)
		}
	}
	defer harness.Cleanup()
	m.Run()
}

// soon is within what time something must have happened that takes a moment,
// on a machine that is busy.
const soon = 15 * time.Second

// A place is one Merlon and its configuration.
type place struct {
	*harness.Merlon
	t      testing.TB
	env    []string
	config string
}

// serve starts Merlon with a configuration in which BACKEND stands for a
// backend's URL.
func serve(t testing.TB, text string, h http.HandlerFunc, env ...string) *place {
	t.Helper()
	p := &place{t: t, env: env, config: filepath.Join(t.TempDir(), "merlon.yaml")}
	write(t, p.config, strings.ReplaceAll(text, "BACKEND", backend(t, h).URL))
	p.Merlon = harness.Serve(t, harness.Options{Env: env}, "-c", p.config)
	return p
}

// backend starts a server that the gateway stands in front of.
func backend(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// hello answers every request once its body is there.
func hello(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, "hello")
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a subcommand with the place's configuration, as an administrator
// beside the running server would.
func (p *place) run(args ...string) string {
	p.t.Helper()
	cmd := exec.Command(harness.Binary(p.t), append(args, "-c", p.config, "--data", p.Data)...)
	cmd.Env = append(os.Environ(), p.env...)
	out, err := cmd.Output()
	if err != nil {
		if ee, ok := errors.AsType[*exec.ExitError](err); ok {
			out = append(out, ee.Stderr...)
		}
		p.t.Fatalf("merlon %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// base is the address that people open.
func (p *place) base() string {
	_, port, err := net.SplitHostPort(p.HTTPS)
	if err != nil {
		p.t.Fatal(err)
	}
	return "https://localhost:" + port
}

// from returns a client at an address of this machine.
func (p *place) from(addr string) *asker {
	p.t.Helper()
	c := p.ClientFrom(p.t, addr)
	return &asker{p, c, ""}
}

// An asker is a program that sends requests; it may be used by several
// goroutines.
type asker struct {
	p    *place
	c    *http.Client
	host string // of the site; localhost if empty
}

// An answer is what became of a request; Status is 0 if it failed.
type answer struct {
	Status int
	Header http.Header
	Body   string
	Took   time.Duration
	Err    error
}

// send sends a request with fields, given as names and values.
func (a *asker) send(ctx context.Context, method, path, body string, fields ...string) answer {
	r, err := http.NewRequestWithContext(ctx, method, a.p.base()+path, strings.NewReader(body))
	if err != nil {
		return answer{Err: err}
	}
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	if a.host != "" {
		r.URL.Host = a.host + ":" + r.URL.Port()
		r.Host = r.URL.Host
	}
	began := time.Now()
	res, err := a.c.Do(r)
	if err != nil {
		return answer{Err: err, Took: time.Since(began)}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(text), time.Since(began), err}
}

// get asks for a path, as send does, and ends the test if there is no answer.
func (a *asker) get(path string, fields ...string) answer {
	a.p.t.Helper()
	got := a.send(context.Background(), "GET", path, "", fields...)
	if got.Err != nil {
		a.p.t.Fatal(got.Err)
	}
	return got
}

// want checks a status.
func (g answer) want(t testing.TB, what string, status int) answer {
	t.Helper()
	if g.Status != status {
		t.Errorf("%s: %d %v, want %d\n%.500s", what, g.Status, g.Err, status, g.Body)
	}
	return g
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, soon)
		}
	}
}

// parallel runs f for 0 to n-1, by some workers.
func parallel(workers, n int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// A tally counts answers by status; it may be used by several goroutines.
type tally struct {
	mu   sync.Mutex
	by   map[int]int
	took []time.Duration
}

func (c *tally) answered(took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.took = append(c.took, took)
}

func (c *tally) add(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[int]int{}
	}
	c.by[status]++
}

// of returns how many answers had a status.
func (c *tally) of(status int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.by[status]
}

// quantile returns the time that a share of all took at most.
func quantile(list []time.Duration, share float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[min(len(list)-1, int(share*float64(len(list))))]
}
