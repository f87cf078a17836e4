package challenge_test

import (
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/merlontest"
)

// A site has a guard and a clock of its own.
type flooded struct {
	t   *testing.T
	g   *challenge.Guard
	now time.Time
	req *merlon.Request
	one bool // a single client sends everything
}

func newFlooded(t *testing.T, c challenge.Config, l *challenge.Load) *flooded {
	f := &flooded{t: t, now: time.Unix(1_800_000_000, 0), req: merlontest.Request(t, "GET /"+page)}
	f.g = guard(t, c, func(e *challenge.Env) { e.Load = l })
	return f
}

// window sends requests for five seconds, evenly, some of which the backend fails.
func (f *flooded) window(requests, failed int) {
	for i := range requests {
		client := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		if f.one {
			client = f.req.Client
		}
		r := &merlon.Request{Request: f.req.Request, Client: client, Site: site, Path: "/", Received: f.now.Add(challenge.Window * time.Duration(i) / time.Duration(requests))}
		o := merlon.Outcome{Status: http.StatusOK, Upstream: true}
		if i < failed {
			o.Status = http.StatusGatewayTimeout
		}
		if d := f.g.Check(r); !d.Passed() {
			o = merlon.Outcome{Status: http.StatusSeeOther, Guard: "challenge"}
		}
		f.g.Done(r, o)
	}
	f.now = f.now.Add(challenge.Window)
}

// on asks once, without counting much.
func (f *flooded) on(want bool, when string) merlon.Decision {
	f.t.Helper()
	r := &merlon.Request{Request: f.req.Request, Client: f.req.Client, Site: site, Path: "/", Received: f.now}
	d := f.g.Check(r)
	if d.Passed() == want {
		f.t.Errorf("%s: %s, want challenges: %v", when, d.Reason, want)
	}
	return d
}

func TestFloodOnAndOff(t *testing.T) {
	over := challenge.Over{Rate: challenge.Rate{Count: 100, Per: time.Second}}
	f := newFlooded(t, challenge.Config{Over: over, Calm: 30 * time.Second}, challenge.NewLoad())
	f.on(false, "at first")
	f.window(400, 0) // the window that the first request fell into
	f.window(450, 0)
	f.on(false, "below")
	f.window(600, 0)
	f.on(false, "one window over")
	f.window(450, 0)
	f.on(false, "one window over and one not")
	f.window(600, 0)
	f.window(300, 0)
	f.window(600, 0)
	f.on(false, "a calm window between two that are over")
	f.window(450, 0)
	f.window(600, 0)
	f.window(600, 0)
	d := f.on(true, "two windows over")
	if d.Reason != challenge.FloodWorkRequired || d.Code() != http.StatusTooManyRequests || len(d.Findings) != 1 || d.Findings[0].Rule != "over.rate" || !strings.Contains(d.Findings[0].Message, "120 requests") {
		t.Errorf("%+v", d)
	}
	api := merlontest.Request(t, "GET /api\nAccept: application/json")
	api.Received = f.now
	if d := f.g.Check(api); d.Header.Get("Retry-After") != "30" || d.Header.Get(challenge.Header) == "" {
		t.Errorf("a program is told %+v", d.Header)
	}
	for range 20 {
		f.window(400, 0)
	}
	f.on(true, "between 70 and 100 %")
	for range 5 {
		f.window(300, 0)
		f.on(true, "not calm for long enough")
	}
	f.window(400, 0)
	for range 5 {
		f.window(300, 0)
		f.on(true, "calm was interrupted")
	}
	f.window(300, 0)
	f.on(false, "calm")
	f.window(600, 0)
	f.window(600, 0)
	f.on(true, "again")
	f.now = f.now.Add(35 * time.Second)
	f.on(false, "nobody came")
	f.window(600, 0)
	f.now = f.now.Add(time.Hour)
	f.window(600, 0)
	f.on(false, "two windows that are not one after the other")
	f.now = f.now.Add(-time.Hour)
	f.on(false, "the clock went back")
}

func TestErrorsOnAndOff(t *testing.T) {
	f := newFlooded(t, challenge.Config{Over: challenge.Over{Errors: challenge.Share{Percent: 20}}, Calm: 10 * time.Second}, challenge.NewLoad())
	f.window(10, 0)
	f.window(40, 40)
	f.window(40, 40)
	f.window(40, 40)
	f.on(false, "too few to tell")
	f.window(100, 15)
	f.window(100, 15)
	f.on(false, "few errors")
	f.window(100, 30)
	f.window(100, 30)
	d := f.on(true, "many errors")
	if len(d.Findings) != 1 || d.Findings[0].Rule != "over.errors" || d.Findings[0].Value != "20%" {
		t.Errorf("%+v", d.Findings)
	}
	f.window(100, 0)
	f.on(true, "for a moment")
	f.window(100, 0)
	f.on(false, "refusals of our own are no answers of the backend")
}

func TestOff(t *testing.T) {
	f := newFlooded(t, challenge.Config{Over: challenge.Over{Rate: challenge.Rate{Off: true}, Errors: challenge.Share{Percent: 99}}}, challenge.NewLoad())
	for range 4 {
		f.window(20000, 0)
	}
	f.on(false, "the rate is not looked at")
	f = newFlooded(t, challenge.Config{}, challenge.NewLoad())
	for range 4 {
		f.window(20000, 15000)
	}
	f.on(false, "nobody has said what the site bears")
}

// One client that asks for what fails has nobody challenged; a backend that
// fails many does.
func TestErrorsOfOneClient(t *testing.T) {
	c := challenge.Config{Over: challenge.Over{Errors: challenge.Share{Percent: 20}}}
	f := newFlooded(t, c, challenge.NewLoad())
	f.one = true
	for range 4 {
		f.window(200, 100)
	}
	f.on(false, "one client")
	f.one = false
	for range 3 {
		f.window(200, 100)
	}
	f.on(true, "many clients")
	// What a guard ended is not the backend's failure.
	late := newFlooded(t, c, challenge.NewLoad())
	for range 4 {
		for i := range 200 {
			r := &merlon.Request{Request: late.req.Request, Client: netip.AddrFrom4([4]byte{198, 18, 1, byte(i)}), Site: site, Path: "/", Received: late.now}
			late.g.Check(r)
			late.g.Done(r, merlon.Outcome{Status: http.StatusGatewayTimeout, Upstream: true, Guard: "throttle"})
		}
		late.now = late.now.Add(challenge.Window)
	}
	late.on(false, "deadlines of clients")
}

// A reload keeps what is known of a flood; another budget begins anew.
func TestReload(t *testing.T) {
	load := challenge.NewLoad()
	c := challenge.Config{Over: challenge.Over{Rate: challenge.Rate{Count: 100, Per: time.Second}}}
	f := newFlooded(t, c, load)
	quiet := newFlooded(t, challenge.Config{When: challenge.Never}, load)
	for range 3 {
		f.window(600, 0)
	}
	f.on(true, "before")
	again := newFlooded(t, c, load)
	again.now = f.now
	again.on(true, "after a reload")
	other := newFlooded(t, challenge.Config{Over: challenge.Over{Rate: challenge.Rate{Count: 200, Per: time.Second}}}, load)
	other.now = f.now
	other.on(false, "another budget")
	quiet.now = f.now
	quiet.on(false, "a route that is never challenged")
	runtime.KeepAlive(f)

	for n := range 200 { // guards that are gone leave nothing behind
		guard(t, challenge.Config{Over: challenge.Over{Rate: challenge.Rate{Count: 1000 + n, Per: time.Second}}}, func(e *challenge.Env) { e.Load = load })
		runtime.GC()
	}
	again.window(1, 0)
	again.window(1, 0)
	if n := load.Budgets(); n > 100 {
		t.Errorf("%d budgets are kept", n)
	}
	runtime.KeepAlive(again)
}

func TestLoadFromManySides(t *testing.T) {
	load := challenge.NewLoad()
	f := newFlooded(t, challenge.Config{Over: challenge.Over{Rate: challenge.Rate{Count: 100, Per: time.Second}}}, load)
	for window := range 4 {
		var wg sync.WaitGroup
		for n := range 4 {
			wg.Go(func() {
				for i := 500 * window; i < 500*(window+1); i++ {
					client := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
					if f.one {
						client = f.req.Client
					}
					r := &merlon.Request{Request: f.req.Request, Client: client, Site: site, Path: "/", Received: f.now.Add(time.Duration(i) * 10 * time.Millisecond)}
					f.g.Check(r)
					f.g.Done(r, merlon.Outcome{Status: 200 + 300*(n%2), Upstream: true})
				}
			})
		}
		wg.Wait() // none is a window ahead of the others
	}
	f.now = f.now.Add(20 * time.Second)
	f.on(true, "four at once")
}

// A clock that is set neither holds challenges off nor makes them last.
func TestLoadWhenTheClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		f := newFlooded(t, challenge.Config{Over: challenge.Over{Rate: challenge.Rate{Count: 100, Per: time.Second}}, Calm: 10 * time.Second}, challenge.NewLoad())
		f.now = time.Now().Add(time.Minute)
		set := func() { // the seconds of a Time that goes by both clocks are in the bits from 30 on
			*(*uint64)(unsafe.Pointer(&f.now)) += uint64(by/time.Second) << 30
		}
		f.window(10, 0)
		set()
		for range 4 {
			f.window(1000, 0)
		}
		f.on(true, "flooded after the clock was set by "+by.String())
		set()
		for range 6 {
			f.window(10, 0)
		}
		f.on(false, "calm after the clock was set by "+by.String())
	}
}
