package throttle_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/throttle"
)

const reducedCapacity = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

func classes(t testing.TB, c map[string]throttle.ClassConfig) throttle.Classes {
	t.Helper()
	cs, err := throttle.NewClasses(c)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

func guard(t testing.TB, c throttle.Config, cs throttle.Classes, p *throttle.Pool) *throttle.Guard {
	t.Helper()
	g, err := throttle.New(c, cs, p)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// one is a guard of the only class of a new pool.
func one(t testing.TB, c throttle.ClassConfig) (*throttle.Guard, *throttle.Pool) {
	t.Helper()
	p := throttle.NewPool(nil)
	return guard(t, throttle.Config{Class: "work"}, classes(t, map[string]throttle.ClassConfig{"work": c}), p), p
}

// by is a request of a tenant.
func by(tenant string) *merlon.Request {
	r := merlon.NewRequest(httptest.NewRequest("GET", "/report", nil))
	r.Identity = &merlon.Identity{Subject: "of-" + tenant, Tenant: tenant}
	return r
}

var ended = merlon.Outcome{Status: 200, Upstream: true}

func stat(t testing.TB, p *throttle.Pool) throttle.ClassStat {
	t.Helper()
	s := p.Stats()
	if len(s) != 1 {
		t.Fatalf("%d classes: %+v", len(s), s)
	}
	return s[0]
}

// unavailable holds a refusal to what clients and operators are promised.
func unavailable(t testing.TB, d merlon.Decision, want merlon.Reason) {
	t.Helper()
	if d.Reason != want || d.Passed() || d.Code() != http.StatusServiceUnavailable || d.Problem != reducedCapacity {
		t.Fatalf("%+v, want %s", d, want)
	}
	if n, err := strconv.Atoi(d.Header.Get("Retry-After")); err != nil || n < 1 || n > 60 {
		t.Errorf("Retry-After %q", d.Header.Get("Retry-After"))
	}
	if len(d.Findings) == 0 {
		t.Error("the operator is told nothing")
	}
}

func TestContract(t *testing.T) {
	newGuard := func(t *testing.T) merlon.Guard {
		c := throttle.Config{
			Class: "work", Timeout: time.Minute, Shed: throttle.ShedConfig{Latency: time.Second},
			Bandwidth: throttle.Bandwidth{Client: 1 << 20, Route: 1 << 20},
		}
		return guard(t, c, classes(t, map[string]throttle.ClassConfig{"work": {}}), throttle.NewPool(nil))
	}
	merlontest.Run(t, newGuard, merlontest.Options{Stateful: true}, []merlontest.Case{
		{Name: "a page", Request: "GET /report", Want: throttle.LetIn},
		{Name: "a small body", Request: "POST /report\n\na=1", Want: throttle.LetIn},
		{Name: "a long body", Request: "POST /report\n\n" + strings.Repeat("x", 100_000), Want: throttle.LetIn},
		{Name: "a body of unknown length", Request: "POST /report\nTransfer-Encoding: chunked\n\n3\r\na=1\r\n0\r\n\r\n", Want: throttle.LetIn},
		{Name: "a body that is shorter than it says", Request: "POST /report\nContent-Length: 10\n\na=1", Want: merlon.BodyUnreadable, Status: 400},
		{Name: "a stranger", Request: "GET /report", Client: "2001:db8::1", Want: throttle.LetIn},
	})
	merlontest.Run(t, func(t *testing.T) merlon.Guard {
		return guard(t, throttle.Config{}, throttle.Classes{}, throttle.NewPool(nil))
	}, merlontest.Options{}, []merlontest.Case{
		{Name: "nothing is bounded", Request: "POST /\n\na=1", Want: throttle.LetIn},
	})
}

func TestSettings(t *testing.T) {
	known := map[string]throttle.ClassConfig{"db-report": {}, "convert": {}}
	for _, c := range []struct {
		name   string
		config throttle.Config
		want   []string // none: it is good
	}{
		{"zero", throttle.Config{}, nil},
		{"all", throttle.Config{Class: "convert", Fair: []string{"user", "client"}, Timeout: time.Hour,
			Shed: throttle.ShedConfig{Latency: time.Second}, Bandwidth: throttle.Bandwidth{Client: 1 << 20, Route: 1 << 30}}, nil},
		{"an unknown class", throttle.Config{Class: "db-raport"}, []string{`class "db-raport": must be one of the classes at the top of the file: convert, db-report`}},
		{"an unknown share", throttle.Config{Fair: []string{"user", "office"}}, []string{`fair[1] "office": must be tenant, user or client`}},
		{"a share twice", throttle.Config{Fair: []string{"user", "user"}}, []string{`fair[1] "user": stands in this list already`}},
		{"no time", throttle.Config{Timeout: -1}, []string{"timeout", "must be from 100ms to 24h"}},
		{"too much time", throttle.Config{Timeout: 25 * time.Hour}, []string{"timeout"}},
		{"every mistake at once", throttle.Config{Class: "x", Shed: throttle.ShedConfig{Latency: 1}, Bandwidth: throttle.Bandwidth{Client: 5, Route: -1}},
			[]string{"class", "shed.latency", `bandwidth.client "5/s"`, "bandwidth.route"}},
		{"a client faster than all", throttle.Config{Bandwidth: throttle.Bandwidth{Client: 2 << 20, Route: 1 << 20}}, []string{"must not be more than bandwidth.route"}},
	} {
		_, err := throttle.New(c.config, classes(t, known), throttle.NewPool(nil))
		if (err != nil) != (len(c.want) > 0) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", c.name, err, w)
			}
		}
	}
	if _, err := throttle.New(throttle.Config{Class: "x"}, throttle.Classes{}, nil); err == nil ||
		!strings.Contains(err.Error(), "there is none") || !strings.Contains(err.Error(), "needs a pool") {
		t.Errorf("%v", err)
	}
	_, err := throttle.NewClasses(map[string]throttle.ClassConfig{
		"Bad name": {}, "a": {AtOnce: -1, Queue: -2, Wait: 1, Timeout: 1}, "b": {AtOnce: 100_001, Queue: 10_001, Wait: time.Hour, Timeout: 25 * time.Hour}, "good": {Queue: -1},
	})
	for _, w := range []string{"Bad name: must be named", `a.at_once "-1": must be from 1 to 100000`, `a.queue "-2"`, `a.wait "1ns"`, `a.timeout "1ns"`, "b.at_once", "b.queue", "b.wait", "b.timeout"} {
		if !strings.Contains(fmt.Sprint(err), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if strings.Contains(fmt.Sprint(err), "good") {
		t.Errorf("%v", err)
	}
}

func TestByteRate(t *testing.T) {
	for text, want := range map[string]throttle.ByteRate{"1MiB/s": 1 << 20, "512KiB/s": 512 << 10, "1500/s": 1500, "1MiB": -1, "0/s": -1, "": -1, "/s": -1, "-1/s": -1, "8589934592GiB/s": -1} {
		var r throttle.ByteRate
		err := r.UnmarshalText([]byte(text))
		if want < 0 {
			if err == nil {
				t.Errorf("%q is %s", text, r)
			}
			continue
		}
		if again, _ := r.MarshalText(); err != nil || r != want || text != string(again) {
			t.Errorf("%q: %d %v, written %q", text, r, err, again)
		}
	}
}

// A panic in the handler, and a refusal by another guard, give the place back.
func TestPlaceComesBack(t *testing.T) {
	g, p := one(t, throttle.ClassConfig{AtOnce: 1, Queue: -1})
	h := g.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }))
	for range 3 {
		func() {
			defer func() { _ = recover() }()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		}()
	}
	refused := merlon.Middleware(g, refuser{})(h)
	refused.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if s := stat(t, p); s.Running != 0 || s.Admitted != 4 {
		t.Errorf("%+v", s)
	}
}

type refuser struct{}

func (refuser) Name() string                          { return "refuser" }
func (refuser) Check(*merlon.Request) merlon.Decision { return merlon.Decision{} }

// A monitored guard's refusals are not obeyed; nobody's place is given back twice.
func TestMonitored(t *testing.T) {
	g, p := one(t, throttle.ClassConfig{AtOnce: 1, Queue: -1})
	gate := merlon.NewGate(merlon.Monitor(g))
	a, b := by("a"), by("b")
	gate.Check(a)
	if d := gate.Check(b); d.Reason != throttle.ClassFull || !d.Passed() {
		t.Errorf("%+v", d)
	}
	gate.Done(b, ended)
	if s := stat(t, p); s.Running != 1 {
		t.Errorf("%+v", s)
	}
	gate.Done(a, ended)
	if s := stat(t, p); s.Running != 0 {
		t.Errorf("%+v", s)
	}
}

func TestStatsAreSorted(t *testing.T) {
	p := throttle.NewPool(nil)
	cs := classes(t, map[string]throttle.ClassConfig{"b": {}, "a": {}, "c": {}})
	for _, n := range []string{"c", "a", "b"} {
		guard(t, throttle.Config{Class: n}, cs, p).Check(by(n))
	}
	guard(t, throttle.Config{Class: "c"}, cs, p)
	got := ""
	for _, s := range p.Stats() {
		got += s.Name
	}
	if got != "abc" {
		t.Error(got)
	}
	if s := throttle.NewPool(nil).Stats(); len(s) != 0 {
		t.Errorf("%+v", s)
	}
}
