package limit_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/merlontest"
)

// What runs in front of identity, and what behind it.
func TestFaces(t *testing.T) {
	for by, known := range map[string]bool{
		"client": false, "network": false, "asn": false, "country": false, "ja4": false, "header X": false, "field q": false, "route": false, "site": false,
		"user": true, "role": true, "session": true, "key": true, "tenant": true,
	} {
		for name, c := range map[string]limit.Config{
			"in the list": further(limit.Limit{By: limit.By{"route", by}, Rate: rate(t, "2/h")}),
			"at the top":  {By: limit.By{by}, Rate: rate(t, "2/h")},
		} {
			g, err := limit.New(c, count.NewMemory(count.MemoryConfig{Keys: 64}), atlas{})
			if err != nil {
				if by == "route" && name == "in the list" {
					continue // twice
				}
				t.Fatal(err)
			}
			k := g.Known()
			if (k != nil) != known {
				t.Errorf("by %s %s: behind identity: %v, want %v", by, name, k != nil, known)
			}
			if k != nil && k.Name() != g.Name() {
				t.Errorf("the halves are called %q and %q", g.Name(), k.Name())
			}
		}
	}
}

func TestContractBehindIdentity(t *testing.T) {
	merlontest.Run(t, func(t *testing.T) merlon.Guard {
		return newGuard(t, limit.Config{Limits: []limit.Limit{
			{By: limit.By{"user"}, Rate: rate(t, "3/h"), Bytes: limit.Bytes{Size: merlon.MiB, Per: time.Hour}, Concurrent: 2},
			{By: limit.By{"tenant", "field q"}, Quota: limit.Quota{Count: 5, Per: limit.Week}},
		}}, count.NewMemory(count.MemoryConfig{Keys: 64})).Known()
	}, merlontest.Options{Stateful: true}, []merlontest.Case{
		{Name: "nobody", Request: "GET /", Want: limit.Within},
		{Name: "somebody", Request: "GET /", Prepare: user("ann"), Want: limit.Within},
		{Name: "somebody's form", Request: "POST /\nContent-Type: application/x-www-form-urlencoded\n\nq=1&q=2", Prepare: user("ann"), Want: limit.Within},
		{Name: "a body that is not understood", Request: "POST /\nContent-Type: image/png\n\nPNG", Prepare: user("ann"), Want: limit.FieldUnclear, Status: 400},
	})
}

// A limit by user does not take away the one by client in front: a flood of
// what proves nothing does not reach identity.
func TestDefaultStaysInFront(t *testing.T) {
	for name, c := range map[string]limit.Config{
		"by user":         {Rate: rate(t, "1000/s"), By: limit.By{"user"}},
		"by header":       {Rate: rate(t, "1000/s"), By: limit.By{"header X"}},
		"by user, quota":  {Quota: limit.Quota{Count: 1e6, Per: limit.Day}, By: limit.By{"user"}},
		"distinct":        {Rate: rate(t, "1000/s"), Distinct: true},
		"by client, user": {Rate: rate(t, "1000/s"), By: limit.By{"client", "user"}},
		"in the list":     {Limits: []limit.Limit{{By: limit.By{"user"}, Rate: rate(t, "1000/s")}}},
	} {
		g := newGuard(t, c, count.NewMemory(count.MemoryConfig{Keys: 64}))
		w := &world{t, g, time.Now()}
		if n := w.passes("192.0.2.1", 900); n != 500 {
			t.Errorf("%s: %d in front, want the default burst of 500", name, n)
		}
		c.Rate = limit.Rate{Off: true}
		w.guard = newGuard(t, c, count.NewMemory(count.MemoryConfig{Keys: 64}))
		if n := w.passes("192.0.2.1", 900); n != 900 {
			t.Errorf("%s, rate off: %d in front, want all 900", name, n)
		}
	}
	for name, by := range map[string]limit.By{"client": {"client"}, "client and country": {"country", "client", "site"}} {
		g := newGate(t, limit.Config{Rate: rate(t, "1000/s"), By: by})
		if n := g.passes(t, 1100, "GET /"); n != 1000 {
			t.Errorf("by %s: %d, want the written 1000: it bounds clients itself", name, n)
		}
	}
}

// Each half tells what is tightest of all that is known there.
func TestTightestOfBothFaces(t *testing.T) {
	g := newGate(t, limit.Config{
		Rate: rate(t, "10/h"), By: limit.By{"client"},
		Limits: []limit.Limit{{By: limit.By{"user"}, Rate: rate(t, "4/h")}},
	})
	tell := func(set ...func(*merlon.Request)) string {
		r, _ := g.ask(t, "GET /", set...)
		h := http.Header{}
		r.AddHeader(h)
		return strings.SplitN(h.Get("RateLimit"), ";t=", 2)[0]
	}
	for i, want := range []string{`"user";r=3`, `"user";r=2`} {
		if got := tell(user("ann")); got != want {
			t.Errorf("ann's request %d: %s, want %s", i+1, got, want)
		}
	}
	for range 5 {
		tell(user("bob"), client("198.51.100.1"))
	}
	if got, want := tell(user("carl"), client("198.51.100.1")), `"default";r=4`; got != want {
		t.Errorf("a colleague of bob: %s, want %s", got, want)
	}
}

func TestMiddlewareHasBothFaces(t *testing.T) {
	g := newGuard(t, limit.Config{Limits: []limit.Limit{{By: limit.By{"user"}, Rate: rate(t, "2/h")}}}, count.NewMemory(count.MemoryConfig{Keys: 64}))
	h := g.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	codes := ""
	for range 3 {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
		codes += http.StatusText(rec.Code) + " "
	}
	if codes != "OK OK Too Many Requests " {
		t.Error(codes)
	}
}

// Places are shared by all that use one store, and come back.
func TestPlaces(t *testing.T) {
	s := count.NewMemory(count.MemoryConfig{Keys: 64})
	c := further(
		limit.Limit{By: limit.By{"user"}, Concurrent: 2}, limit.Limit{Name: "all", By: limit.By{"site"}, Concurrent: 3},
		limit.Limit{By: limit.By{"client"}, Concurrent: 2},
	)
	one, two := gateOn(t, c, s), gateOn(t, c, s) // two replicas
	type open struct {
		g *gate
		r *merlon.Request
	}
	var held []open
	enter := func(g *gate, set ...func(*merlon.Request)) merlon.Decision {
		r := g.from(t, "GET /", set...)
		held = append(held, open{g, r})
		return g.Check(r)
	}
	a, b, third := client("192.0.2.1"), client("192.0.2.2"), client("192.0.2.3")
	for i, step := range []struct {
		d       merlon.Decision
		refused string
		status  int
	}{
		{enter(one, a, user("ann")), "", 0}, {enter(two, b, user("ann")), "", 0},
		{enter(one, third, user("ann")), "user", 429}, // and gave back what it had in front
		{enter(two, a, user("bob")), "all", 503},      // ann's third still holds its place in front until Done
	} {
		got := ""
		if !step.d.Passed() {
			got = step.d.Findings[0].Rule
			if step.d.Reason != limit.PlacesTaken || step.d.Code() != step.status || step.d.Header.Get("Retry-After") != "1" ||
				strings.HasSuffix(step.d.Problem, "#quota-exceeded") != (step.status == 429) {
				t.Errorf("step %d: %+v", i, step.d)
			}
		}
		if got != step.refused {
			t.Errorf("step %d: refused by %q, want %q", i, got, step.refused)
		}
	}
	for _, o := range held[2:] {
		o.g.Done(o.r, merlon.Outcome{})
	}
	if d := enter(two, a, user("bob")); !d.Passed() {
		t.Errorf("after two are gone: %+v", d)
	}
	if d := enter(one, a, user("carl")); d.Passed() || d.Findings[0].Rule != "client" && d.Findings[0].Rule != "all" {
		t.Errorf("a third of one client: %+v", d)
	}
	for _, o := range held {
		o.g.Done(o.r, merlon.Outcome{})
		o.g.Done(o.r, merlon.Outcome{})
	}
	held = nil
	for _, set := range [][]func(*merlon.Request){{a, user("ann")}, {b, user("ann")}, {a, user("bob")}} {
		if d := enter(two, set...); !d.Passed() {
			t.Errorf("after all are gone: %+v", d)
		}
	}
}

// A request that holds a shared place and is refused here gives it back.
func TestRefusedHoldNothing(t *testing.T) {
	c := further(limit.Limit{By: limit.By{"client"}, Concurrent: 1})
	c.Body = 3
	g := newGate(t, c)
	for _, wire := range []string{"POST /\n\nhello", "GET /", "POST /\n\nhello", "GET /"} {
		_, d := g.ask(t, wire)
		if want := wire == "GET /"; d.Passed() != want {
			t.Errorf("%s: %+v", wire, d)
		}
	}
	c.Body, c.Concurrent.Client, c.Limits[0].Concurrent = 0, 1, 2
	g = newGate(t, c)
	open := g.from(t, "GET /")
	g.Check(open)
	for range 3 {
		r := g.from(t, "GET /")
		if d := g.Check(r); d.Reason != limit.ClientBusy {
			t.Errorf("the shared place of a refused request is not given back: %+v", d)
		}
	}
}

type broken struct {
	count.Store
	take, hold, add bool
}

func (b broken) Take(ctx context.Context, asks []count.Ask, results []count.Result, now time.Time) error {
	if b.take {
		return errors.New("no connection")
	}
	return b.Store.Take(ctx, asks, results, now)
}

func (b broken) Hold(ctx context.Context, p []count.Place) (int, func(), error) {
	if b.hold {
		return 0, nil, errors.New("no connection")
	}
	return b.Store.Hold(ctx, p)
}

func (b broken) Add(ctx context.Context, asks []count.Ask, now time.Time) error {
	if b.add {
		return errors.New("no connection")
	}
	return b.Store.Add(ctx, asks, now)
}

func TestBrokenStore(t *testing.T) {
	memory := count.NewMemory(count.MemoryConfig{Keys: 64})
	for _, by := range []string{"client", "user"} {
		c := further(limit.Limit{By: limit.By{by}, Rate: rate(t, "5/h"), Bytes: limit.Bytes{Size: merlon.MiB, Per: time.Hour}, Concurrent: 5})
		for name, s := range map[string]broken{"take": {memory, true, false, false}, "hold": {memory, false, true, false}} {
			if _, d := gateOn(t, c, s).ask(t, "GET /"); d.Passed() || d.Reason != merlon.GuardFailed || d.Code() != 503 {
				t.Errorf("by %s, %s fails: %+v", by, name, d)
			}
		}
		g := gateOn(t, c, broken{memory, false, false, true})
		r := g.from(t, "GET /")
		g.Check(r)
		g.Done(r, merlon.Outcome{Out: 1 << 20})
		v := r.Verdicts()
		if last := v[len(v)-1]; last.Decision.Err == nil || last.Guard != "limit" {
			t.Errorf("by %s: bytes that were not counted are not told: %+v", by, last)
		}
	}
}
