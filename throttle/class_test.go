package throttle_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/throttle"
)

// A flood of expensive calls, over a real upstream: SC-33.
func TestFloodNeverExceedsTheBound(t *testing.T) {
	const calls, atOnce = 5000, 4
	var now, most, ran atomic.Int64
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer now.Add(-1)
		time.Sleep(200 * time.Microsecond)
		ran.Add(1)
	}))
	defer backend.Close()
	p := throttle.NewPool(nil)
	cs := classes(t, map[string]throttle.ClassConfig{"work": {AtOnce: atOnce, Queue: 1000, Wait: 10 * time.Minute}})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce}}
	call := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := http.NewRequestWithContext(r.Context(), "GET", backend.URL, nil)
		if err != nil {
			t.Error(err)
			return
		}
		res, err := client.Do(out)
		if err != nil {
			t.Error(err)
			return
		}
		_ = res.Body.Close()
	})
	expensive := merlon.Middleware(guard(t, throttle.Config{Class: "work"}, cs, p))(call)
	other := merlon.Middleware(guard(t, throttle.Config{}, cs, p))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	var passed, refused, waited atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range calls {
		wg.Go(func() {
			<-start
			hr := httptest.NewRequest("GET", "/", nil)
			hr.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", i%7)
			w := httptest.NewRecorder()
			expensive.ServeHTTP(w, hr)
			switch w.Code {
			case 200:
				passed.Add(1)
			case 503:
				refused.Add(1)
			default:
				t.Errorf("status %d", w.Code)
			}
			waited.Store(max(waited.Load(), int64(stat(t, p).Waiting)))
		})
	}
	close(start)
	for range 100 { // another route does not queue behind it
		w := httptest.NewRecorder()
		other.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != 200 {
			t.Fatalf("another route: %d", w.Code)
		}
	}
	wg.Wait()
	if most.Load() > atOnce {
		t.Errorf("%d at once, the bound is %d", most.Load(), atOnce)
	}
	if passed.Load() != ran.Load() || passed.Load() < 1000 || passed.Load()+refused.Load() != calls {
		t.Errorf("%d passed, %d ran, %d refused", passed.Load(), ran.Load(), refused.Load())
	}
	if waited.Load() > 1000 {
		t.Errorf("%d waited", waited.Load())
	}
	s := stat(t, p)
	if s.Running != 0 || s.Waiting != 0 || s.TimedOut != 0 || s.Abandoned != 0 || int64(s.Admitted) != passed.Load() || int64(s.Full) != refused.Load() {
		t.Errorf("%+v; %d passed, %d refused", s, passed.Load(), refused.Load())
	}
	t.Logf("%d passed, %d refused, most at once %d, most waiting %d", passed.Load(), refused.Load(), most.Load(), waited.Load())
}

// ask checks in the background and tells its name when it is let in.
func ask(t *testing.T, g *throttle.Guard, r *merlon.Request, who string, in chan<- string) {
	go func() {
		d := g.Check(r)
		if !d.Passed() {
			in <- who + " " + string(d.Reason)
			g.Done(r, merlon.Outcome{})
			return
		}
		in <- who
	}()
	synctest.Wait()
}

func TestFairBetweenTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, p := one(t, throttle.ClassConfig{AtOnce: 1, Queue: 2000})
		in := make(chan string, 2000)
		requests := make(chan *merlon.Request, 2000)
		run := by("many")
		g.Check(run)
		for range 1000 {
			r := by("many")
			requests <- r
			ask(t, g, r, "many", in)
		}
		few := by("few")
		ask(t, g, few, "few", in)
		turns := 0
		for who := ""; who != "few"; turns++ {
			g.Done(run, ended)
			synctest.Wait()
			if who = <-in; who == "many" {
				run = <-requests
			}
		}
		if turns > 2 {
			t.Errorf("who had one request waiting got in after %d turns", turns)
		}
		if s := stat(t, p); s.Running != 1 || s.Waiting != 1000-turns+1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Minute) // the rest gives up
		g.Done(few, ended)
		if s := stat(t, p); s.Running != 0 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A full queue makes room for who has fewer waiting, and for nobody else.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, p := one(t, throttle.ClassConfig{AtOnce: 1, Queue: 3, Wait: time.Minute})
		g.Check(by("a"))
		in := make(chan string, 10)
		for i := range 3 {
			ask(t, g, by("a"), fmt.Sprint("a", i), in)
		}
		r := by("a")
		unavailable(t, g.Check(r), throttle.ClassFull) // it alone may use all, not more
		ask(t, g, by("b"), "b0", in)
		if got := <-in; got != "a2 class-full" {
			t.Errorf("%q made room", got)
		}
		unavailable(t, g.Check(by("b")), throttle.ClassFull) // 2 and 1 would only become 1 and 2
		ask(t, g, by("c"), "c0", in)
		if got := <-in; got != "a1 class-full" {
			t.Errorf("%q made room", got)
		}
		unavailable(t, g.Check(by("d")), throttle.ClassFull) // all have one
		if s := stat(t, p); s.Waiting != 3 || s.Full != 5 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Hour)
	})
}

func TestQueueWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, p := one(t, throttle.ClassConfig{AtOnce: 1, Wait: 5 * time.Second})
		held := by("a")
		g.Check(held)
		began := time.Now()
		late := by("b")
		d := g.Check(late)
		unavailable(t, d, throttle.QueueTimeout)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("waited %s", took)
		}
		g.Done(late, merlon.Outcome{Status: 503})
		if s := stat(t, p); s.Running != 1 || s.Waiting != 0 || s.TimedOut != 1 {
			t.Errorf("what has timed out in the queue is counted: %+v", s)
		}
		g.Done(held, ended)
		g.Done(held, ended) // once is enough
		if s := stat(t, p); s.Running != 0 {
			t.Errorf("%+v", s)
		}
		if d := g.Check(by("b")); d.Reason != throttle.LetIn {
			t.Errorf("%+v", d)
		}
	})
}

func TestClientGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, p := one(t, throttle.ClassConfig{AtOnce: 1, Wait: time.Minute})
		running := by("a")
		g.Check(running)
		ctx, leave := context.WithCancel(t.Context())
		r := by("b")
		r.Request = r.Request.WithContext(ctx)
		in := make(chan string, 1)
		ask(t, g, r, "b", in)
		leave()
		synctest.Wait()
		if got := <-in; got != "b gave-up" {
			t.Errorf("%q", got)
		}
		if s := stat(t, p); s.Running != 1 || s.Waiting != 0 || s.Abandoned != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// Over a real connection: the client hangs up, the handler's context ends, and
// the place is free.
func TestClientGoneWhileRunning(t *testing.T) {
	g, p := one(t, throttle.ClassConfig{AtOnce: 1})
	begun, cancelled := make(chan struct{}), make(chan error, 1)
	s := httptest.NewServer(g.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		cancelled <- context.Cause(r.Context())
	})))
	defer s.Close()
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if _, err := http.DefaultClient.Do(req); err == nil {
			t.Error("was answered")
		}
	}()
	<-begun
	hangUp()
	if err := <-cancelled; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	for stat(t, p).Running != 0 {
		time.Sleep(time.Millisecond)
	}
}

func TestReloadKeepsTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := throttle.NewPool(nil)
		of := func(n int) *throttle.Guard {
			return guard(t, throttle.Config{Class: "work"}, classes(t, map[string]throttle.ClassConfig{"work": {AtOnce: n, Wait: time.Minute}}), p)
		}
		before := of(3)
		running := []*merlon.Request{by("a"), by("a"), by("a")}
		for _, r := range running {
			before.Check(r)
		}
		after, unused := of(2), of(100) // the last is of a configuration that was not taken
		_ = unused
		in := make(chan string, 10)
		waiting := by("b")
		ask(t, after, waiting, "new", in)
		ask(t, before, by("c"), "old", in) // the newer bound holds for it, too
		if s := stat(t, p); s.AtOnce != 2 || s.Running != 3 || s.Waiting != 2 {
			t.Fatalf("%+v", s)
		}
		before.Done(running[0], ended)
		synctest.Wait()
		if s := stat(t, p); s.Running != 2 || s.Waiting != 2 {
			t.Fatalf("let in beyond the new bound: %+v", s)
		}
		before.Done(running[1], ended)
		if got := <-in; got != "new" {
			t.Errorf("%q", got)
		}
		before.Done(running[2], ended)
		if got := <-in; got != "old" {
			t.Errorf("%q", got)
		}
		more := of(5)
		for range 3 {
			if d := more.Check(by("d")); d.Reason != throttle.LetIn {
				t.Errorf("%+v", d)
			}
		}
		if s := stat(t, p); s.AtOnce != 5 || s.Running != 5 {
			t.Errorf("%+v", s)
		}
	})
}

func TestReplicasShareTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		replicas := 2
		p := throttle.NewPool(func() int { return replicas })
		g := guard(t, throttle.Config{Class: "work"}, classes(t, map[string]throttle.ClassConfig{"work": {AtOnce: 5, Queue: 5, Wait: time.Second}}), p)
		for range 2 {
			if d := g.Check(by("a")); d.Reason != throttle.LetIn {
				t.Fatalf("%+v", d)
			}
		}
		unavailable(t, g.Check(by("a")), throttle.QueueTimeout)
		replicas = 9 // 5 ÷ 9 is still one
		if s := stat(t, p); s.AtOnce != 1 {
			t.Errorf("%+v", s)
		}
		replicas = 1 // who waits is let in with the next one who asks
		in := make(chan string, 4)
		replicas = 2
		ask(t, g, by("a"), "waits", in)
		replicas = 1
		ask(t, g, by("a"), "asks", in)
		if first, second := <-in, <-in; first+second != "waitsasks" && first+second != "askswaits" {
			t.Errorf("%s, %s", first, second)
		}
	})
}

// By default a tenant is whose share it is, then a user, then a client.
func TestShares(t *testing.T) {
	for _, c := range []struct {
		fair         []string
		a, b         *merlon.Identity
		addrA, addrB string
		same         bool
	}{
		{nil, &merlon.Identity{Subject: "1", Tenant: "x"}, &merlon.Identity{Subject: "2", Tenant: "x"}, "192.0.2.1", "192.0.2.2", true},
		{[]string{"user"}, &merlon.Identity{Subject: "1", Tenant: "x"}, &merlon.Identity{Subject: "2", Tenant: "x"}, "192.0.2.1", "192.0.2.1", false},
		{[]string{"client"}, &merlon.Identity{Subject: "1", Tenant: "x"}, &merlon.Identity{Subject: "2", Tenant: "y"}, "192.0.2.1", "192.0.2.1", true},
		{nil, &merlon.Identity{Subject: "1"}, &merlon.Identity{Subject: "1"}, "192.0.2.1", "192.0.2.2", true},
		{nil, &merlon.Identity{Subject: "x"}, &merlon.Identity{Tenant: "x"}, "192.0.2.1", "192.0.2.1", false},
		{nil, nil, nil, "192.0.2.1", "192.0.2.2", false},
		{nil, nil, nil, "2001:db8::1", "2001:db8::2", true},
		{nil, nil, nil, "64:ff9b::c000:201", "192.0.2.1", true},
		{[]string{"tenant"}, nil, nil, "192.0.2.1", "192.0.2.2", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := guard(t, throttle.Config{Class: "work", Fair: c.fair}, classes(t, map[string]throttle.ClassConfig{"work": {AtOnce: 1, Queue: 2}}), throttle.NewPool(nil))
			request := func(id *merlon.Identity, addr string) *merlon.Request {
				r := by("")
				r.Identity, r.Client = id, netip.MustParseAddr(addr)
				return r
			}
			g.Check(request(c.a, c.addrA))
			in := make(chan string, 3)
			ask(t, g, request(c.a, c.addrA), "first", in)
			ask(t, g, request(c.a, c.addrA), "second", in)
			ask(t, g, request(c.b, c.addrB), "other", in)
			// If it is another's, it takes the second one's place.
			want := "second class-full"
			if c.same {
				want = "other class-full"
			}
			if got := <-in; got != want {
				t.Errorf("%+v: %q, want %q", c, got, want)
			}
			time.Sleep(time.Minute)
		})
	}
}

// What a refusal tells is when there is likely to be a place, by the recent pace.
func TestRetryAfterIsHonest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := one(t, throttle.ClassConfig{AtOnce: 2, Queue: 3, Wait: time.Hour / 6})
		for range 20 {
			r := by("a")
			g.Check(r)
			time.Sleep(10 * time.Second)
			g.Done(r, ended)
		}
		in := make(chan string, 10)
		for range 5 {
			ask(t, g, by("a"), "", in)
		}
		d := g.Check(by("a"))
		unavailable(t, d, throttle.ClassFull)
		// Three wait, and two at once take 10 s each; up to half is added.
		if n, _ := strconv.Atoi(d.Header.Get("Retry-After")); n < 20 || n > 30 {
			t.Errorf("Retry-After: %d", n)
		}
		time.Sleep(time.Hour)
	})
}
