package limit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/merlontest"
)

// A world is a guard, its store and a clock.
type world struct {
	t     testing.TB
	guard *limit.Guard
	now   time.Time
}

func newWorld(t testing.TB, c limit.Config) *world {
	t.Helper()
	return &world{t, newGuard(t, c, count.NewMemory(count.MemoryConfig{Keys: 1 << 12})), time.Now()}
}

func newGuard(t testing.TB, c limit.Config, s count.Store) *limit.Guard {
	t.Helper()
	g, err := limit.New(c, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (w *world) request(client, path string) *merlon.Request {
	r := merlontest.Request(w.t, "GET "+path)
	r.Client, r.Received, r.Site, r.Route = netip.MustParseAddr(client), w.now, "shop.example.com", "/api/**"
	return r
}

// ask sends one request from start to end.
func (w *world) ask(client, path string) merlon.Decision {
	r := w.request(client, path)
	d := w.guard.Check(r)
	w.guard.Done(r, merlon.Outcome{})
	return d
}

// passes counts how many of n requests at once pass.
func (w *world) passes(client string, n int) int {
	passed := 0
	for range n {
		if w.ask(client, "/api/x").Passed() {
			passed++
		}
	}
	return passed
}

func rate(t testing.TB, text string) (r limit.Rate) {
	t.Helper()
	if err := r.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCheck(t *testing.T) {
	guard := func(c limit.Config) func(*testing.T) merlon.Guard {
		return func(t *testing.T) merlon.Guard {
			return newGuard(t, c, count.NewMemory(count.MemoryConfig{Keys: 8}))
		}
	}
	merlontest.Run(t, guard(limit.Config{}), merlontest.Options{Stateful: true}, []merlontest.Case{
		{Name: "an ordinary request", Request: "GET /", Want: limit.Within},
		{Name: "a long upload of undeclared length", Request: "POST /\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n", Want: limit.Within},
		{Name: "a client without an address", Request: "GET /", Prepare: func(r *merlon.Request) { r.Client = netip.Addr{} }, Want: limit.Within},
	})
	merlontest.Run(t, guard(limit.Config{Rate: limit.Rate{Off: true}, Body: 5}), merlontest.Options{}, []merlontest.Case{
		{Name: "a body at the bound", Request: "POST /\n\nhello", Want: limit.Within},
		{Name: "a body one byte longer", Request: "POST /\n\nhello!", Want: limit.BodyTooLarge, Status: 413},
		{Name: "a chunked body at the bound", Request: "POST /\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n", Want: limit.Within},
		{Name: "no body", Request: "GET /", Want: limit.Within},
	})
}

func TestRateIsExact(t *testing.T) {
	w := newWorld(t, limit.Config{Rate: rate(t, "10/s"), Burst: 5})
	if n := w.passes("192.0.2.1", 50); n != 5 {
		t.Fatalf("%d at once, want the burst of 5", n)
	}
	w.now = w.now.Add(100*time.Millisecond - 1)
	if n := w.passes("192.0.2.1", 5); n != 0 {
		t.Errorf("%d a nanosecond early", n)
	}
	w.now = w.now.Add(1)
	if n := w.passes("192.0.2.1", 5); n != 1 {
		t.Errorf("%d after a tenth of a second, want 1", n)
	}
	w.now = w.now.Add(time.Hour)
	if n := w.passes("192.0.2.1", 50); n != 5 {
		t.Errorf("%d after an hour, want the burst of 5", n)
	}
	total := 0
	for range 1000 { // ten seconds in steps: no window has an edge to use
		w.now = w.now.Add(10 * time.Millisecond)
		total += w.passes("192.0.2.1", 3)
	}
	if total != 100 {
		t.Errorf("%d in ten seconds of hammering, want 100: refusals cost nothing and gain nothing", total)
	}
	if n := w.passes("192.0.2.2", 50); n != 5 {
		t.Errorf("%d for another client, want 5", n)
	}
}

func TestDefaults(t *testing.T) {
	w := newWorld(t, limit.Config{})
	if n := w.passes("192.0.2.1", 363); n != 363 {
		t.Errorf("%d of a page's 363 resources came through", n)
	}
	if n := w.passes("192.0.2.1", 1000); n != 137 {
		t.Errorf("%d of a flood came through the rest of the burst of 500", n)
	}
	w.now = w.now.Add(time.Second)
	if n := w.passes("192.0.2.1", 1000); n != 100 {
		t.Errorf("%d a second later, want 100", n)
	}
	for text, want := range map[string]int{"50/s": 50, "600/min": 600, "10/h": 10, "3/d": 3} {
		if n := newWorld(t, limit.Config{Rate: rate(t, text)}).passes("192.0.2.1", 1000); n != want {
			t.Errorf("%s: a burst of %d, want %d", text, n, want)
		}
	}
	if n := newWorld(t, limit.Config{Rate: rate(t, "off")}).passes("192.0.2.1", 1000); n != 1000 {
		t.Errorf("rate off: %d of 1000", n)
	}
}

func TestManyGoroutinesGetExactlyTheBurst(t *testing.T) {
	w := newWorld(t, limit.Config{Rate: rate(t, "1/h"), Burst: 500})
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		requests := make([]*merlon.Request, 50)
		for i := range requests {
			requests[i] = w.request("192.0.2.1", "/api/x")
		}
		wg.Go(func() {
			for _, r := range requests {
				if w.guard.Check(r).Passed() {
					passed.Add(1)
				}
				w.guard.Done(r, merlon.Outcome{})
			}
		})
	}
	wg.Wait()
	if n := passed.Load(); n != 500 {
		t.Errorf("64 goroutines got %d, want exactly 500", n)
	}
}

// Who counts as one client, and what as one route.
func TestOneClientOneRoute(t *testing.T) {
	c := limit.Config{Rate: rate(t, "1/h"), Burst: 3}
	for name, same := range map[string][]string{
		"one address":                      {"192.0.2.1", "192.0.2.1"},
		"an IPv6 home rotating addresses":  {"2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"},
		"an IPv4 address mapped into IPv6": {"192.0.2.1", "::ffff:192.0.2.1"},
		"an IPv4 address translated":       {"192.0.2.1", "64:ff9b::192.0.2.1"},
		"an address with a zone":           {"fe80::1", "fe80::2%eth0"},
	} {
		w := newWorld(t, c)
		if n := w.passes(same[0], 2) + w.passes(same[1], 5); n != 3 {
			t.Errorf("%s: %d passed, want 3", name, n)
		}
	}
	for name, different := range map[string][]string{
		"neighbours":                     {"192.0.2.1", "192.0.2.2"},
		"two IPv6 networks":              {"2001:db8:1:2::1", "2001:db8:1:3::1"},
		"two translated IPv4 addresses":  {"64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2"},
		"an address and its IPv6 double": {"192.0.2.1", "::192.0.2.1"},
	} {
		w := newWorld(t, c)
		if n := w.passes(different[0], 5) + w.passes(different[1], 5); n != 6 {
			t.Errorf("%s: %d passed, want 6", name, n)
		}
	}
	w := newWorld(t, c)
	passed := 0
	for _, path := range []string{"/api/x", "/API/x", "/api/%78", "/api/x/", "/api//x", "/api/x?y=1", "/api/404"} {
		if w.ask("192.0.2.1", path).Passed() {
			passed++
		}
	}
	if passed != 3 {
		t.Errorf("%d spellings of one route passed, want 3", passed)
	}
	r := w.request("192.0.2.1", "/login")
	r.Route = "/login"
	if !w.guard.Check(r).Passed() {
		t.Error("another route was not counted apart")
	}
	r = w.request("192.0.2.1", "/api/x")
	r.Site = "blog.example.com"
	if !w.guard.Check(r).Passed() {
		t.Error("another site was not counted apart")
	}
}

var rateLimit = regexp.MustCompile(`^"default";r=(\d+);t=(\d+)$`)

func fields(t *testing.T, h http.Header) (r, wait int) {
	t.Helper()
	m := rateLimit.FindStringSubmatch(h.Get("RateLimit"))
	if m == nil {
		t.Fatalf("RateLimit: %q", h.Get("RateLimit"))
	}
	r, _ = strconv.Atoi(m[1])
	wait, _ = strconv.Atoi(m[2])
	return r, wait
}

func TestFieldsTellTheTruth(t *testing.T) {
	w := newWorld(t, limit.Config{Rate: rate(t, "30/min"), Burst: 4})
	for i := range 4 {
		d := w.ask("192.0.2.1", "/")
		if got := d.Header.Get("RateLimit-Policy"); got != `"default";q=4;w=8` {
			t.Errorf("RateLimit-Policy: %s", got)
		}
		if r, wait := fields(t, d.Header); r != 3-i || wait != 2*(i+1) {
			t.Errorf("after request %d: r=%d t=%d", i+1, r, wait)
		}
		if d.Header.Get("Retry-After") != "" {
			t.Error("Retry-After on a request that passed")
		}
	}
	for range 3 {
		w.now = w.now.Add(300 * time.Millisecond)
		d := w.ask("192.0.2.1", "/")
		if d.Passed() || d.Code() != http.StatusTooManyRequests || d.Reason != limit.RateExceeded {
			t.Fatalf("%+v", d)
		}
		if d.Problem != "https://iana.org/assignments/http-problem-types#quota-exceeded" {
			t.Errorf("problem type %q", d.Problem)
		}
		r, wait := fields(t, d.Header)
		retry, err := strconv.Atoi(d.Header.Get("Retry-After"))
		if r != 0 || err != nil || retry < wait || retry < 1 {
			t.Errorf("r=%d t=%d Retry-After=%q", r, wait, d.Header.Get("Retry-After"))
		}
		w.now = w.now.Add(time.Duration(retry) * time.Second)
		if n := w.passes("192.0.2.1", 5); n < 1 {
			t.Errorf("whoever waits for Retry-After is not let in")
		}
	}
	hidden := newWorld(t, limit.Config{Rate: rate(t, "1/h"), HideHeaders: true})
	if d := hidden.ask("192.0.2.1", "/"); len(d.Header) > 0 {
		t.Errorf("hidden, but sent: %v", d.Header)
	}
	if d := hidden.ask("192.0.2.1", "/"); len(d.Header) != 1 || d.Header.Get("Retry-After") != "3600" {
		t.Errorf("hidden, a refusal has: %v, want Retry-After alone", d.Header)
	}
}

// Shared header maps must survive a gate that sends them.
func TestFieldsAreNotChangedBySending(t *testing.T) {
	g := newGuard(t, limit.Config{Rate: rate(t, "1/h"), Burst: 100}, count.NewMemory(count.MemoryConfig{}))
	h := g.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("RateLimit-Policy", `"backend";q=1;w=1`)
		w.Header().Set("RateLimit", "changed")
	}))
	for i := range 3 {
		rec := httptest.NewRecorder()
		rec.Header().Set("X", "y")
		req := httptest.NewRequest("GET", "/", nil)
		h.ServeHTTP(rec, req)
		if rec.Code != 200 {
			t.Fatal(rec.Code)
		}
		d := g.Check(merlontest.Request(t, "GET /"))
		if got := d.Header["Ratelimit-Policy"]; len(got) != 1 || strings.Contains(d.Header.Get("RateLimit"), "changed") {
			t.Fatalf("round %d: fields were changed: %v", i, d.Header)
		}
	}
}

func TestClockGoingBack(t *testing.T) {
	w := newWorld(t, limit.Config{Rate: rate(t, "10/s"), Burst: 5})
	w.now = w.now.Round(0) // a wall clock: the monotonic one does not go back
	w.passes("192.0.2.1", 5)
	w.now = w.now.Add(-time.Hour)
	if n := w.passes("192.0.2.1", 50); n != 0 {
		t.Errorf("%d extra requests for a clock that went back", n)
	}
	w.now = w.now.Add(time.Second)
	if n := w.passes("192.0.2.1", 50); n == 0 || n > 5 {
		t.Errorf("a second after the clock went back %d pass, want 1 to 5, not a wait of an hour", n)
	}
}

func TestConcurrency(t *testing.T) {
	c := limit.Config{Rate: rate(t, "off"), Concurrent: limit.Concurrent{Client: 2, Route: 3}}
	w := newWorld(t, c)
	var held []*merlon.Request
	enter := func(client string) merlon.Decision {
		r := w.request(client, "/")
		d := w.guard.Check(r)
		held = append(held, r)
		return d
	}
	for _, step := range []struct {
		client string
		want   merlon.Reason
	}{
		{"192.0.2.1", limit.Within}, {"192.0.2.1", limit.Within}, {"192.0.2.1", limit.ClientBusy},
		{"192.0.2.2", limit.Within}, {"192.0.2.2", limit.RouteBusy}, {"192.0.2.3", limit.RouteBusy},
	} {
		d := enter(step.client)
		if d.Reason != step.want {
			t.Fatalf("%s: %s, want %s", step.client, d.Reason, step.want)
		}
		if d.Passed() {
			continue
		}
		status, problem := 429, "#quota-exceeded" // this client's own excess
		if d.Reason == limit.RouteBusy {
			status, problem = 503, "#temporary-reduced-capacity" // whoever asks
		}
		if d.Code() != status || d.Header.Get("Retry-After") != "1" || !strings.HasSuffix(d.Problem, problem) || d.Remedy == "" {
			t.Errorf("%+v", d)
		}
	}
	w.guard.Done(held[2], merlon.Outcome{}) // was refused: holds nothing
	if d := enter("192.0.2.1"); d.Reason != limit.ClientBusy {
		t.Errorf("a refused request gave back a place: %s", d.Reason)
	}
	w.guard.Done(held[0], merlon.Outcome{})
	w.guard.Done(held[0], merlon.Outcome{})
	if a, b := enter("192.0.2.1"), enter("192.0.2.1"); a.Reason != limit.Within || b.Reason != limit.ClientBusy {
		t.Errorf("after one place was given back (twice): %s, %s", a.Reason, b.Reason)
	}
	for _, r := range held {
		w.guard.Done(r, merlon.Outcome{})
	}
	if d := enter("192.0.2.3"); d.Reason != limit.Within {
		t.Errorf("after all are gone: %s", d.Reason)
	}
}

// Two browsers with a hundred streams each do not notice the default.
func TestConcurrencyDefault(t *testing.T) {
	w := newWorld(t, limit.Config{Rate: rate(t, "off")})
	passed := 0
	for range 1000 {
		if w.guard.Check(w.request("192.0.2.1", "/")).Passed() {
			passed++
		}
	}
	if passed != 512 {
		t.Errorf("%d at the same time, want 512", passed)
	}
	if d := w.guard.Check(w.request("192.0.2.2", "/")); !d.Passed() {
		t.Errorf("another client pays for it: %+v", d)
	}
}

func TestConcurrencyUnderRace(t *testing.T) {
	w := newWorld(t, limit.Config{Rate: rate(t, "off"), Concurrent: limit.Concurrent{Client: 10, Route: 30}})
	var inside, most, passed atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		r := w.request(fmt.Sprintf("192.0.2.%d", i%4), "/")
		wg.Go(func() {
			for range 200 {
				if w.guard.Check(r).Passed() {
					n := inside.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					passed.Add(1)
					inside.Add(-1)
				}
				w.guard.Done(r, merlon.Outcome{})
			}
		})
	}
	wg.Wait()
	if most.Load() > 30 || passed.Load() == 0 {
		t.Errorf("%d inside at once of 30, %d passed", most.Load(), passed.Load())
	}
	for i := range 30 {
		if d := w.guard.Check(w.request(fmt.Sprintf("198.51.100.%d", i), "/")); !d.Passed() {
			t.Fatalf("places leaked: only %d of 30 are free: %+v", i, d)
		}
	}
}

// A real server: a body of undeclared length is cut off at the bound, a
// monitored guard lets it go on.
func TestStreamedBody(t *testing.T) {
	send := func(g merlon.Guard, size int) (got int64, err error) {
		srv := httptest.NewServer(merlon.Middleware(g)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got, err = io.Copy(io.Discard, r.Body)
		})))
		defer srv.Close()
		res, perr := http.Post(srv.URL, "application/octet-stream", io.MultiReader(strings.NewReader(strings.Repeat("x", size))))
		if perr == nil {
			res.Body.Close()
		}
		return got, err
	}
	g := newGuard(t, limit.Config{Body: 100 * merlon.KiB}, count.NewMemory(count.MemoryConfig{Keys: 8}))
	if n, err := send(g, 100<<10); n != 100<<10 || err != nil {
		t.Errorf("at the bound: %d, %v", n, err)
	}
	n, err := send(g, 300<<10)
	late, ok := errors.AsType[*merlon.LateRefusal](err)
	if n != 100<<10 || !ok || late.Decision.Reason != limit.BodyTooLarge || late.Decision.Code() != 413 {
		t.Errorf("beyond the bound: %d bytes, %v", n, err)
	}
	if n, err := send(merlon.Monitor(g), 300<<10); n != 300<<10 || err != nil {
		t.Errorf("monitored: %d, %v", n, err)
	}
	free := newGuard(t, limit.Config{}, count.NewMemory(count.MemoryConfig{Keys: 8}))
	if n, err := send(free, 30<<20); n != 30<<20 || err != nil {
		t.Errorf("no bound: %d, %v", n, err)
	}
}

type failing struct{ count.Store }

func (failing) Take(context.Context, []count.Ask, []count.Result, time.Time) error {
	return errors.New("no connection")
}

func TestStoreFails(t *testing.T) {
	g := newGuard(t, limit.Config{}, failing{})
	if d := g.Check(merlontest.Request(t, "GET /")); d.Passed() || d.Code() != 503 || d.Reason != merlon.GuardFailed {
		t.Errorf("a store that fails must refuse: %+v", d)
	}
}
