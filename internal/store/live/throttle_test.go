package live_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/test/redistest"
)

// A gate is the throttle of one replica.
type gate struct {
	*attempts.Throttle
	mu   sync.Mutex
	told []attempts.Notice
}

func newGate(tb testing.TB, s attempts.Store) *gate {
	tb.Helper()
	k, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
	if err != nil {
		tb.Fatal(err)
	}
	g := &gate{}
	// Waits that a slow machine does not outlive.
	long := attempts.Schedule{Free: 5, First: time.Hour}
	g.Throttle, err = attempts.New(attempts.Config{Pair: long, Account: attempts.Schedule{First: time.Hour}}, k, s, func(n attempts.Notice) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.told = append(g.told, n)
	})
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

func (g *gate) failures() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, told := range g.told {
		if told.Kind == attempts.StoreFailed {
			n++
		}
	}
	return n
}

// guess fails to log in and reports whether it was let try.
func (g *gate) guess(t *testing.T, who, from, password string) bool {
	t.Helper()
	ticket, wait := g.Begin(t.Context(), attempts.Try{Kind: attempts.Password, Account: who, Client: netip.MustParseAddr(from), Password: password})
	if !wait.OK() {
		return false
	}
	ticket.Failed()
	return true
}

// logIn does not fail to.
func (g *gate) logIn(t *testing.T, who, from string) {
	t.Helper()
	ticket, wait := g.Begin(t.Context(), attempts.Try{Kind: attempts.Password, Account: who, Client: netip.MustParseAddr(from), Password: "right"})
	if !wait.OK() {
		t.Errorf("%s waits %v for %s", who, wait.For, wait.By)
		return
	}
	ticket.Succeeded()
}

// A guesser who goes round the replicas gets no more tries than at one.
func TestReplicasGiveNoMoreTries(t *testing.T) {
	_, at := redistest.OnSocket(t)
	var gates []*gate
	for range 3 {
		gates = append(gates, newGate(t, live.NewTries(live.Connected(redistest.Dial(t, at))).Patient()))
	}
	let := 0
	for i := range 60 {
		if gates[i%3].guess(t, "ann", "192.0.2.1", fmt.Sprint(i)) {
			let++
		}
	}
	if let != 6 { // five are free, and the sixth makes wait
		t.Errorf("%d tries, want 6", let)
	}
	gates[1].logIn(t, "bob", "198.51.100.1")
	// What she failed herself is forgotten by a success, wherever.
	for range 3 {
		for i := range 5 {
			if !gates[i%3].guess(t, "eve", "203.0.113.1", "oops") {
				t.Fatal("had to wait")
			}
		}
		gates[2].logIn(t, "eve", "203.0.113.1")
	}
	// An administrator on one replica forgives on all.
	if err := gates[0].Forgive(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	for _, g := range gates {
		if g.failures() > 0 {
			t.Error(g.told)
		}
	}
}

// Trap 62: a server that hangs or is dead makes nobody wait long, lets nobody
// guess without end, and those who know their passwords in.
func TestThrottleWithoutAServer(t *testing.T) {
	for _, c := range []struct {
		name string
		fail func(*testing.T, *redistest.Server)
		mend func(*testing.T, *redistest.Server)
	}{
		{
			"it hangs",
			func(t *testing.T, s *redistest.Server) { s.Signal(t, syscall.SIGSTOP) },
			func(t *testing.T, s *redistest.Server) { s.Signal(t, syscall.SIGCONT) },
		},
		{
			"it is dead",
			func(_ *testing.T, s *redistest.Server) { s.Kill() },
			func(t *testing.T, s *redistest.Server) { s.Run(t) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv, at := redistest.OnSocket(t)
			tries := live.NewTries(live.Connected(redistest.Dial(t, at)))
			g := newGate(t, tries)
			g.logIn(t, "bob", "198.51.100.1")
			c.fail(t, srv)
			began := time.Now()
			let := 0
			for i := range 200 {
				if g.guess(t, "ann", "192.0.2.1", fmt.Sprint(i)) {
					let++
				}
			}
			if let < 1 || let > 2 {
				t.Errorf("%d tries of 200, want 2", let)
			}
			g.logIn(t, "bob", "198.51.100.1")
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("201 tries took %v", took)
			}
			if g.failures() != 1 {
				t.Errorf("the operator is told %d times", g.failures())
			}
			var wg sync.WaitGroup
			began = time.Now()
			for i := range 2000 { // more than a connection may have waiting
				wg.Go(func() { g.guess(t, fmt.Sprint(i), "203.0.113.1", "x") })
			}
			wg.Wait()
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("2000 at once took %v", took)
			}
			c.mend(t, srv)
			redistest.Eventually(t, "it counts again", func() bool {
				_, err := tries.Reserve(t.Context(), []attempts.Bucket{bucket(1, hour)}, time.Now())
				return err == nil
			})
			g.logIn(t, "bob", "198.51.100.1")
		})
	}
}

// A server that only says no is asked again each time, and counts for nothing.
func TestThrottleRefusedByTheServer(t *testing.T) {
	_, at := redistest.OnSocket(t)
	c := redistest.Dial(t, at)
	tries := live.NewTries(live.Connected(c)).Patient()
	g := newGate(t, tries)
	redistest.Do(t, c, "CONFIG", "SET", "maxmemory", "1")
	let := 0
	for i := range 50 {
		if g.guess(t, "ann", "192.0.2.1", fmt.Sprint(i)) {
			let++
		}
	}
	if let != 2 || g.failures() != 1 {
		t.Errorf("%d tries, told %d times", let, g.failures())
	}
	redistest.Do(t, c, "CONFIG", "SET", "maxmemory", "0")
	if _, err := tries.Reserve(t.Context(), []attempts.Bucket{bucket(1, hour)}, time.Now()); err != nil {
		t.Errorf("with room again: %v", err)
	}
	// Scripts that the server forgot are sent again.
	redistest.Do(t, c, "SCRIPT", "FLUSH")
	if _, err := tries.Reserve(t.Context(), []attempts.Bucket{bucket(1, hour)}, time.Now()); err != nil {
		t.Errorf("after SCRIPT FLUSH: %v", err)
	}
	redistest.Do(t, c, "SET", "merlon:t:{01010000000000000000000000000000}", "nonsense")
	if _, err := tries.Reserve(t.Context(), []attempts.Bucket{bucket(1, hour)}, time.Now()); err == nil {
		t.Error("nonsense is a bucket")
	}
}

func BenchmarkTries(b *testing.B) {
	_, at := redistest.OnSocket(b)
	g := newGate(b, live.NewTries(live.Connected(redistest.Dial(b, at))).Patient())
	try := attempts.Try{Kind: attempts.Password, Account: "ann", Client: netip.MustParseAddr("192.0.2.1"), Password: "x"}
	b.Run("a right password", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ticket, wait := g.Begin(b.Context(), try)
			if !wait.OK() {
				b.Fatal(wait)
			}
			ticket.Succeeded()
		}
	})
	for range 10 {
		if ticket, wait := g.Begin(b.Context(), try); wait.OK() {
			ticket.Failed()
		}
	}
	b.Run("who has to wait", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, wait := g.Begin(b.Context(), try); wait.OK() {
				b.Fatal("need not wait")
			}
		}
	})
}
