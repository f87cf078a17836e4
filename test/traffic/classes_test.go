package traffic_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const expensive = `
class:
  report: {at_once: 4, queue: 20, wait: 1m, timeout: 20s}
off: [waf]
sites:
  - host: localhost
    upstream: BACKEND
    routes:
      - {path: /report/**, throttle: {class: report}}
      - {path: /late/**, throttle: {timeout: 500ms}}
`

// A works is a backend of expensive work. It counts what is under way.
type works struct {
	now, most, done atomic.Int64
	held            atomic.Pointer[chan struct{}] // work ends when it is closed; nil: after a moment
	gone            chan string                   // paths of work that was cancelled

	mu   sync.Mutex
	told []string // how long an answer is wanted, by requests
}

func newWorks() *works { return &works{gone: make(chan string, 100)} }

func (b *works) answer(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/report/") && !strings.HasPrefix(r.URL.Path, "/late/") {
		hello(w, r)
		return
	}
	b.mu.Lock()
	b.told = append(b.told, strings.Join(r.Header.Values("Merlon-Timeout"), "|"))
	b.mu.Unlock()
	n := b.now.Add(1)
	defer b.now.Add(-1)
	for most := b.most.Load(); n > most && !b.most.CompareAndSwap(most, n); most = b.most.Load() {
	}
	held, after := b.held.Load(), time.After(10*time.Millisecond)
	if held != nil {
		after = nil
	} else {
		held = new(chan struct{})
	}
	select {
	case <-*held:
	case <-after:
	case <-r.Context().Done():
		b.gone <- r.URL.Path
		return
	}
	b.done.Add(1)
	hello(w, r)
}

// hold makes work take until the returned function is called.
func (b *works) hold() (end func()) {
	c := make(chan struct{})
	b.held.Store(&c)
	return func() {
		b.held.Store(nil)
		close(c)
	}
}

// Thousands of calls of expensive work at once: the backend never has more than
// its class allows, those that got a place finish, the others are told when to
// come back, and another route is served all the while.
func TestThousandsOfExpensiveCalls(t *testing.T) {
	t.Parallel()
	const (
		addresses, streams = 40, 125 // below what one connection may have open
		calls              = addresses * streams
		atOnce, queue      = 4, 20
	)
	b := newWorks()
	p := serve(t, expensive, b.answer)
	askers := make([]*asker, addresses)
	for i := range askers {
		askers[i] = p.from(fmt.Sprintf("127.0.20.%d", i+1))
		askers[i].get("/").want(t, "before", 200) // there is one connection of each now
	}
	var all tally
	var wg sync.WaitGroup
	var ended atomic.Bool
	began := time.Now()
	for _, a := range askers {
		for range streams {
			wg.Go(func() {
				got := a.send(t.Context(), "GET", "/report/x", "")
				all.add(got.Status)
				switch got.Status {
				case http.StatusOK:
				case http.StatusServiceUnavailable:
					if s, err := strconv.Atoi(got.Header.Get("Retry-After")); err != nil || s < 1 || !strings.Contains(got.Body, "temporary-reduced-capacity") {
						t.Errorf("a refusal: Retry-After %q, %.300s", got.Header.Get("Retry-After"), got.Body)
					}
				default:
					t.Errorf("%d %v", got.Status, got.Err)
				}
			})
		}
	}
	go func() { wg.Wait(); ended.Store(true) }()
	meanwhile := steady(t, p.from("127.0.0.2"), func(n int) bool { return n < 10 || !ended.Load() })
	took := time.Since(began)
	t.Logf("%d calls in %v: %v; the backend had %d at once at most and did %d; another route answered %d times, p99 %v",
		calls, took.Round(time.Millisecond), all.by, b.most.Load(), b.done.Load(), len(meanwhile), quantile(meanwhile, .99))
	if b.most.Load() != atOnce {
		t.Errorf("the backend had %d at once, want %d", b.most.Load(), atOnce)
	}
	if ok := all.by[http.StatusOK]; ok < atOnce+queue || int64(ok) != b.done.Load() {
		t.Errorf("%d calls were answered, the backend did %d; want at least %d", ok, b.done.Load(), atOnce+queue)
	}
	askers[0].get("/report/x").want(t, "afterwards", 200)
}

func TestExpensiveCalls(t *testing.T) {
	t.Parallel()
	b := newWorks()
	p := serve(t, expensive, b.answer)
	for _, c := range []struct {
		name string
		test func(*testing.T, *place, *works)
	}{
		{"trap 64: who goes away is not worked for", goneAway},
		{"who goes away in the queue gives up their place", goneFromQueue},
		{"a queue is fair", fairQueue},
		{"the backend is told how long it has", deadline},
		{"what takes too long is cancelled", tooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.t = t
			b.most.Store(0)
			b.done.Store(0)
			c.test(t, p, b)
			eventually(t, "the backend has nothing to do", func() bool { return b.now.Load() == 0 })
		})
	}
}

// start sends n requests, and waits until the backend has as many as can be.
func (b *works) start(ctx context.Context, t *testing.T, a *asker, n, atBackend int) (answers chan answer) {
	t.Helper()
	answers = make(chan answer, n)
	for range n {
		go func() { answers <- a.send(ctx, "GET", "/report/held", "") }()
	}
	eventually(t, "the backend works", func() bool { return b.now.Load() == int64(atBackend) })
	return answers
}

func goneAway(t *testing.T, p *place, b *works) {
	end := b.hold()
	defer end()
	ctx, leave := context.WithCancel(t.Context())
	b.start(ctx, t, p.from("127.0.0.1"), 4, 4)
	leave()
	for range 4 {
		select {
		case path := <-b.gone:
			if path != "/report/held" {
				t.Error(path)
			}
		case <-time.After(soon):
			t.Fatal("the backend goes on working for somebody who has left")
		}
	}
}

func goneFromQueue(t *testing.T, p *place, b *works) {
	end := b.hold()
	working := b.start(t.Context(), t, p.from("127.0.0.1"), 4, 4)
	ctx, leave := context.WithCancel(t.Context())
	waiting := b.start(ctx, t, p.from("127.0.0.2"), 20, 4)
	time.Sleep(200 * time.Millisecond) // for them to be there
	leave()
	for range 20 {
		if got := <-waiting; got.Err == nil {
			t.Errorf("one that left was answered %d", got.Status)
		}
	}
	// The whole queue is there for others.
	next := b.start(t.Context(), t, p.from("127.0.0.3"), 20, 4)
	time.Sleep(200 * time.Millisecond)
	end()
	for range 4 {
		(<-working).want(t, "one that was worked for", 200)
	}
	for range 20 {
		(<-next).want(t, "one that waited", 200)
	}
	if n := b.done.Load(); n != 24 {
		t.Errorf("the backend did %d, want 24", n)
	}
	if n := b.most.Load(); n != 4 {
		t.Errorf("the backend had %d at once", n)
	}
}

// Somebody who fills the queue does not keep others out of it.
func fairQueue(t *testing.T, p *place, b *works) {
	end := b.hold()
	greedy := b.start(t.Context(), t, p.from("127.0.0.5"), 50, 4)
	for range 26 { // the others are at work, or wait
		(<-greedy).want(t, "one too many", 503)
	}
	modest := b.start(t.Context(), t, p.from("127.0.0.6"), 1, 4)
	(<-greedy).want(t, "one that made room for somebody else", 503)
	end()
	(<-modest).want(t, "somebody else", 200)
	for range 23 {
		(<-greedy).want(t, "one of the many", 200)
	}
}

func deadline(t *testing.T, p *place, b *works) {
	b.mu.Lock()
	b.told = nil
	b.mu.Unlock()
	a := p.from("127.0.0.1")
	a.get("/report/x").want(t, "a client that says nothing", 200)
	a.get("/report/x", "Merlon-Timeout", "99999").want(t, "one that makes it up", 200)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, told := range b.told {
		if s, err := strconv.ParseFloat(told, 64); err != nil || s <= 0 || s > 20 {
			t.Errorf("the backend is told %q, want up to 20 s", told)
		}
	}
	if len(b.told) != 2 {
		t.Errorf("%q", b.told)
	}
}

func tooLong(t *testing.T, p *place, b *works) {
	end := b.hold()
	defer end()
	p.from("127.0.0.1").get("/late/x").want(t, "after half a second", 504)
	select {
	case <-b.gone:
	case <-time.After(soon):
		t.Error("the backend goes on working")
	}
}
