package throttle_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/throttle"
)

// The ways in which bounds on expensive work go wrong, trap 64. Leaving clients
// over a real connection are in TestClientGoneWhileRunning, cancelled backends
// in TestDeadlineThroughUpstream, fair turns in TestFairBetweenTenants.
func TestTrap64(t *testing.T) {
	for _, row := range []struct {
		name string
		test func(*testing.T)
	}{
		{"a client that leaves cancels the work and frees the place", leavingClient},
		{"a request that leaves the queue at the moment of its turn frees the place", leavingAtItsTurn},
		{"the queue does not keep anybody longer than wait", queueTimeout},
		{"who waits for one class holds up no other", noInversion},
		{"a retry storm gets no place and keeps nobody from one", retryStorm},
		{"refused clients do not come back together", spreadRetries},
		{"an event stream does not hold its place for ever", eventStream},
		{"a slow upload holds no place before it is there", slowUpload},
		{"a long slow upload holds its place for as long as the class allows", longUpload},
		{"a tenant with a thousand addresses has one share", manyAddresses},
		{"the deadline goes on to the backend", deadlineGoesOn},
		{"a client cannot lengthen its deadline", noLongerDeadline},
		{"nobody is exempt by looking like a health check", healthCheck},
		{"nothing is kept of who has gone", memory},
	} {
		t.Run(row.name, func(t *testing.T) { synctest.Test(t, row.test) })
	}
}

func leavingClient(t *testing.T) {
	g, p := one(t, throttle.ClassConfig{AtOnce: 1})
	ctx, leave := context.WithCancel(t.Context())
	var work error
	h := g.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		work = r.Context().Err()
	}))
	go h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil).WithContext(ctx))
	synctest.Wait()
	if s := stat(t, p); s.Running != 1 {
		t.Fatalf("%+v", s)
	}
	leave()
	synctest.Wait()
	if s := stat(t, p); s.Running != 0 || work == nil {
		t.Errorf("%+v, %v", s, work)
	}
}

func leavingAtItsTurn(t *testing.T) {
	for range 100 {
		g, p := one(t, throttle.ClassConfig{AtOnce: 1})
		held, r := by("a"), by("b")
		g.Check(held)
		ctx, leave := context.WithCancel(t.Context())
		r.Request = r.Request.WithContext(ctx)
		in := make(chan string, 1)
		ask(t, g, r, "b", in)
		go leave()
		g.Done(held, ended)
		synctest.Wait()
		want := 0
		if <-in == "b" {
			want = 1
		}
		if s := stat(t, p); s.Running != want || s.Waiting != 0 {
			t.Fatalf("%+v, want %d running", s, want)
		}
		g.Done(r, ended)
		if s := stat(t, p); s.Running != 0 {
			t.Fatalf("%+v", s)
		}
	}
}

func queueTimeout(t *testing.T) {
	g, _ := one(t, throttle.ClassConfig{AtOnce: 1, Queue: 50, Wait: 3 * time.Second})
	g.Check(by("a"))
	in := make(chan string, 50)
	began := time.Now()
	for range 50 {
		ask(t, g, by("a"), "a", in)
	}
	for range 50 {
		if got := <-in; got != "a queue-timeout" {
			t.Errorf("%q", got)
		}
	}
	if took := time.Since(began); took != 3*time.Second {
		t.Errorf("kept for %s", took)
	}
}

func noInversion(t *testing.T) {
	p := throttle.NewPool(nil)
	cs := classes(t, map[string]throttle.ClassConfig{"slow": {AtOnce: 1}, "quick": {AtOnce: 1}})
	slow, quick := guard(t, throttle.Config{Class: "slow"}, cs, p), guard(t, throttle.Config{Class: "quick"}, cs, p)
	slow.Check(by("a"))
	in := make(chan string, 10)
	for range 10 {
		ask(t, slow, by("a"), "slow", in)
	}
	began := time.Now()
	for range 100 {
		r := by("a")
		if d := quick.Check(r); d.Reason != throttle.LetIn {
			t.Fatalf("%+v", d)
		}
		quick.Done(r, ended)
	}
	if time.Since(began) != 0 {
		t.Errorf("waited %s for another class", time.Since(began))
	}
	time.Sleep(time.Minute)
}

func retryStorm(t *testing.T) {
	g, p := one(t, throttle.ClassConfig{AtOnce: 2, Queue: 10, Wait: time.Second})
	held := by("calm")
	g.Check(held)
	g.Check(by("storm"))
	in := make(chan string, 5000)
	waits := by("calm")
	ask(t, g, waits, "calm", in)
	for range 2000 { // as soon as it is refused it asks again
		go func() {
			d := g.Check(by("storm"))
			in <- "storm " + string(d.Reason)
		}()
	}
	synctest.Wait()
	if s := stat(t, p); s.Running != 2 || s.Waiting != 10 {
		t.Errorf("%+v", s)
	}
	g.Done(held, ended)
	synctest.Wait()
	letIn := false
	for range len(in) {
		letIn = <-in == "calm" || letIn
	}
	if !letIn {
		t.Error("who was there before the storm was not let in")
	}
	g.Done(waits, ended)
	time.Sleep(time.Minute)
	for range len(in) {
		<-in
	}
	if s := stat(t, p); s.Waiting != 0 || s.Running > 2 {
		t.Errorf("%+v", s)
	}
}

func spreadRetries(t *testing.T) {
	g, _ := one(t, throttle.ClassConfig{AtOnce: 1, Queue: -1})
	for range 20 {
		r := by("a")
		g.Check(r)
		time.Sleep(30 * time.Second)
		g.Done(r, ended)
	}
	g.Check(by("a"))
	seen := map[int]bool{}
	for range 200 {
		d := g.Check(by("b"))
		unavailable(t, d, throttle.ClassFull)
		n, _ := strconv.Atoi(d.Header.Get("Retry-After"))
		if seen[n] = true; n < 25 || n > 45 {
			t.Errorf("Retry-After %d, though a place is free in about 30 s", n)
		}
	}
	if len(seen) < 5 {
		t.Errorf("all come back after %v s", seen)
	}
}

func eventStream(t *testing.T) {
	g, p := one(t, throttle.ClassConfig{AtOnce: 1, Timeout: time.Minute})
	h := g.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte("data: 1\n\n"))
			time.Sleep(time.Second)
		}
	}))
	go h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	time.Sleep(59 * time.Second)
	if s := stat(t, p); s.Running != 1 {
		t.Errorf("%+v", s)
	}
	time.Sleep(3 * time.Second)
	if s := stat(t, p); s.Running != 0 {
		t.Errorf("%+v", s)
	}
}

// uploads is a request whose body is sent byte by byte.
func uploads(n int) *merlon.Request {
	hr := httptest.NewRequest("POST", "/", &slowly{n})
	hr.ContentLength = int64(n)
	return merlon.NewRequest(hr)
}

func slowUpload(t *testing.T) {
	g, p := one(t, throttle.ClassConfig{AtOnce: 1})
	r, in := uploads(100), make(chan string, 1)
	ask(t, g, r, "slow", in)
	time.Sleep(90 * time.Second)
	other := by("a")
	if d := g.Check(other); d.Reason != throttle.LetIn {
		t.Fatalf("%+v", d)
	}
	g.Done(other, ended)
	if got := <-in; got != "slow" {
		t.Error(got)
	}
	if body, err := io.ReadAll(r.Body); len(body) != 100 || err != nil {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	g.Done(r, ended)
	if s := stat(t, p); s.Running != 0 {
		t.Errorf("%+v", s)
	}
}

func longUpload(t *testing.T) {
	g, p := one(t, throttle.ClassConfig{AtOnce: 1, Timeout: 30 * time.Second})
	go g.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for b := make([]byte, 1); r.Context().Err() == nil; { // as upstream stops to read
			_, _ = r.Body.Read(b)
		}
	})).ServeHTTP(httptest.NewRecorder(), uploads(100_000).Request)
	time.Sleep(20 * time.Second)
	if s := stat(t, p); s.Running != 1 {
		t.Errorf("%+v", s)
	}
	time.Sleep(12 * time.Second)
	if s := stat(t, p); s.Running != 0 {
		t.Errorf("%+v", s)
	}
}

func manyAddresses(t *testing.T) {
	g, _ := one(t, throttle.ClassConfig{AtOnce: 1, Queue: 2000, Wait: time.Minute})
	held := by("big")
	g.Check(held)
	in := make(chan string, 2000)
	turn := make(chan *merlon.Request, 2000)
	for i := range 1000 {
		r := by("big")
		r.RemoteAddr = fmt.Sprintf("198.51.100.%d:1", i%250)
		r = merlon.NewRequest(r.Request)
		r.Identity = &merlon.Identity{Subject: fmt.Sprint(i), Tenant: "big"}
		ask(t, g, r, "big", in)
		turn <- r
	}
	ask(t, g, by("small"), "small", in)
	for i, r := range []*merlon.Request{held, <-turn} {
		g.Done(r, ended)
		if got := <-in; got == "small" {
			time.Sleep(time.Hour)
			return
		} else if i == 1 {
			t.Errorf("%q had the second turn", got)
		}
	}
	time.Sleep(time.Hour)
}

func deadlineGoesOn(t *testing.T) {
	g, _ := one(t, throttle.ClassConfig{Timeout: 20 * time.Second})
	r := by("a")
	g.Check(r)
	if at, ok := r.Context().Deadline(); !ok || time.Until(at) != 20*time.Second || r.Header.Get(throttle.TimeoutHeader) != "20.000" {
		t.Errorf("%s %t %v", at, ok, r.Header)
	}
	g.Done(r, ended)
}

func noLongerDeadline(t *testing.T) {
	g, _ := one(t, throttle.ClassConfig{Timeout: 20 * time.Second})
	for _, theirs := range []string{"99999999H", "99999999M", "1H", "x", "", "-1S"} {
		r := by("a")
		r.Header["Content-Type"] = []string{"application/grpc"}
		r.Header["Grpc-Timeout"] = []string{theirs}
		r.Header[throttle.TimeoutHeader] = []string{"99999"}
		g.Check(r)
		if at, _ := r.Context().Deadline(); time.Until(at) != 20*time.Second || r.Header.Get(throttle.TimeoutHeader) != "20.000" || r.Header.Get("Grpc-Timeout") != "20000000u" {
			t.Errorf("%q: %s %v", theirs, at, r.Header)
		}
		g.Done(r, ended)
	}
}

func healthCheck(t *testing.T) {
	g, _ := one(t, throttle.ClassConfig{AtOnce: 1, Queue: -1})
	g.Check(by("a"))
	for _, path := range []string{"/healthz", "/health", "/livez", "/metrics"} {
		for _, agent := range []string{"merlon-health", "kube-probe/1.30", "ELB-HealthChecker/2.0", "GoogleHC/1.0"} {
			hr := httptest.NewRequest("GET", path, nil)
			hr.Header.Set("User-Agent", agent)
			unavailable(t, g.Check(merlon.NewRequest(hr)), throttle.ClassFull)
		}
	}
}

func memory(t *testing.T) {
	g := guard(t, throttle.Config{
		Class: "work", Shed: throttle.ShedConfig{Latency: time.Hour}, Bandwidth: throttle.Bandwidth{Client: 1 << 20},
	}, classes(t, map[string]throttle.ClassConfig{"work": {AtOnce: 1, Queue: 100, Wait: time.Second}}), throttle.NewPool(nil))
	flood := func(n int) {
		in := make(chan struct{}, n)
		for i := range n {
			go func() {
				r := by(fmt.Sprint("tenant-", i))
				g.Check(r)
				g.Done(r, ended)
				in <- struct{}{}
			}()
		}
		for range n {
			<-in
		}
	}
	flood(1000)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		flood(1000)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if throttle.Held(g) != 0 || throttle.Kept(g) != 0 || throttle.Clients(g) != 0 {
		t.Errorf("%d requests, %d of the queue, %d clients are kept", throttle.Held(g), throttle.Kept(g), throttle.Clients(g))
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("%d bytes more after ten times as many", grown)
	}
}
