package password_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/password"
)

const within = 10 * time.Second

// waiting waits until so many wait for their turn.
func waiting(t *testing.T, h *password.Hasher, n int) {
	t.Helper()
	for end := time.Now().Add(within); password.Waiting(h) != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d wait, not %d", password.Waiting(h), n)
		}
	}
}

func hold(t *testing.T, h *password.Hasher) func() {
	t.Helper()
	leave, err := password.Hold(h)
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

func TestQueue(t *testing.T) {
	h := newHasher(t, password.Config{AtOnce: 1, Queue: 2, Wait: time.Minute})
	leave := hold(t, h)
	type answer struct {
		ok  bool
		err error
	}
	answers := make(chan answer, 2)
	stored := "$2b$05$abcdefghijklmnopqrstuuRWUgMyyCUnsDr8evYotXg5ZXVF/HhzS"
	ask := func(ctx context.Context) {
		ok, _, err := h.Verify(ctx, stored, "abc")
		answers <- answer{ok, err}
	}
	gone, leaveEarly := context.WithCancel(t.Context())
	go ask(gone)
	waiting(t, h, 1)
	go ask(t.Context())
	waiting(t, h, 2)

	// The queue is full: who comes now is told so at once, whatever it wants.
	start := time.Now()
	if _, _, err := h.Verify(t.Context(), stored, "abc"); !errors.Is(err, password.ErrBusy) {
		t.Errorf("verify: %v", err)
	}
	if _, err := h.Hash(t.Context(), right); !errors.Is(err, password.ErrBusy) {
		t.Errorf("hash: %v", err)
	}
	if err := h.Dummy(t.Context(), right); !errors.Is(err, password.ErrBusy) {
		t.Errorf("dummy: %v", err)
	}
	if _, err := h.Import(t.Context(), "3cb4e732631f47e6eb961f34554b7cde"); !errors.Is(err, password.ErrBusy) {
		t.Errorf("import: %v", err)
	}
	if time.Since(start) > within {
		t.Error("it was not told at once")
	}

	// Who gives up frees the place.
	leaveEarly()
	if a := <-answers; a.ok || !errors.Is(a.err, context.Canceled) {
		t.Errorf("who gave up: %+v", a)
	}
	waiting(t, h, 1)
	go ask(t.Context())
	waiting(t, h, 2)
	leave()
	for range 2 {
		if a := <-answers; !a.ok || a.err != nil {
			t.Errorf("who waited: %+v", a)
		}
	}
	waiting(t, h, 0)

	// Who has gone before does not take a turn at all.
	if _, err := h.Hash(gone, right); !errors.Is(err, context.Canceled) {
		t.Errorf("who has gone: %v", err)
	}
}

// Who is known waits for no more strangers than are computed at once, however
// many wait, and not at all for a place in their line.
func TestTheKnownDoNotWaitBehindStrangers(t *testing.T) {
	const strangers = 20
	h := newHasher(t, password.Config{AtOnce: 1, Queue: strangers, Wait: time.Minute})
	leave := hold(t, h)
	stored := "$2b$05$abcdefghijklmnopqrstuuRWUgMyyCUnsDr8evYotXg5ZXVF/HhzS"
	var before atomic.Int32
	var all sync.WaitGroup
	for range strangers {
		all.Go(func() {
			if _, _, err := h.Verify(t.Context(), stored, "abc"); err != nil {
				t.Error(err)
			}
			before.Add(1)
		})
	}
	waiting(t, h, strangers)
	if _, _, err := h.Verify(t.Context(), stored, "abc"); !errors.Is(err, password.ErrBusy) {
		t.Errorf("one stranger more: %v", err)
	}
	all.Go(func() {
		ok, _, err := h.VerifyKnown(t.Context(), stored, "abc")
		if !ok || err != nil {
			t.Errorf("the owner: %v, %v", ok, err)
		}
		// Those whose hash was done keep their pace, so that a few may overtake.
		if n := before.Load(); n > 5 {
			t.Errorf("%d strangers were before the owner", n)
		}
	})
	waiting(t, h, strangers+1)
	leave()
	all.Wait()
	waiting(t, h, 0)
}

func TestWaitEnds(t *testing.T) {
	h := newHasher(t, password.Config{AtOnce: 1, Wait: 10 * time.Millisecond})
	leave := hold(t, h)
	if _, err := h.Hash(t.Context(), right); !errors.Is(err, password.ErrBusy) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
	defer cancel()
	if _, err := h.Hash(ctx, right); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a deadline of the caller's: %v", err)
	}
	leave()
	if _, err := h.Hash(t.Context(), right); err != nil {
		t.Error(err)
	}
}

// A hash that needs more memory than the configured kind takes several turns.
func TestLargeHashesTakeMoreTurns(t *testing.T) {
	h := newHasher(t, password.Config{AtOnce: 3, Wait: 20 * time.Millisecond})
	const large = "$argon2id$v=19$m=131072,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	leave := hold(t, h)
	if _, _, err := h.Verify(t.Context(), large, right); !errors.Is(err, password.ErrBusy) {
		t.Errorf("128 MiB beside another, where there are 3 turns of 46 MiB: %v", err)
	}
	leave()
	if got := verify(t, h, large, right); got != "wrong" {
		t.Error(got)
	}
	// It takes all turns, where there are fewer than it needs.
	h = newHasher(t, password.Config{AtOnce: 1})
	if got := verify(t, h, large, right); got != "wrong" {
		t.Error(got)
	}
}

// Trap 43: argon2's memory times the number of log-ins.
func TestMemoryUnderFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const atOnce, memory, logIns = 2, 46 * merlon.MiB, 200
	h := newHasher(t, password.Config{Argon2: password.Argon2{Memory: memory, Time: 1}, AtOnce: atOnce, Queue: 20, Wait: time.Minute})
	stored := hashOf(t, h, right)
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, most := m.HeapAlloc, uint64(0)
	var served, busy atomic.Int64
	var all sync.WaitGroup
	for i := range logIns {
		all.Go(func() {
			// Known, unknown and damaged, all at once.
			switch ok, _, err := h.Verify(t.Context(), [...]string{stored, "", "$2b$"}[i%3], right); {
			case errors.Is(err, password.ErrBusy):
				busy.Add(1)
			case ok == (i%3 == 0):
				served.Add(1)
			default:
				t.Errorf("%d: %v, %v", i, ok, err)
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(2 * time.Millisecond):
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc-min(before, m.HeapAlloc))
		}
	}
	if served.Load() < 20 || busy.Load() < 100 || served.Load()+busy.Load() != logIns {
		t.Errorf("%d were served, %d told to come again", served.Load(), busy.Load())
	}
	t.Logf("%d log-ins at once, %d served: %d MiB at most", logIns, served.Load(), most>>20)
	// Go frees what is not used any more only when as much again was taken; and
	// there is what is no hash.
	if bound := uint64(3*atOnce*memory + 16*merlon.MiB); most > bound {
		t.Errorf("%d MiB, more than %d", most>>20, bound>>20)
	}
}

func TestDefaultTurns(t *testing.T) {
	if got, want := password.AtOnce(newHasher(t, password.Config{})), max(runtime.GOMAXPROCS(0)/2, 1); got != want {
		t.Errorf("%d at once, not %d", got, want)
	}
}

func TestTrap42(t *testing.T) {
	argon := newHasher(t, password.Config{})
	crypt := newHasher(t, password.Config{Hash: "bcrypt", BcryptCost: 10})
	keyed := newHasher(t, password.Config{Hash: "bcrypt", BcryptCost: 10, Pepper: pepper(t, "p")})
	for name, h := range map[string]*password.Hasher{"argon2id": argon, "bcrypt": crypt, "bcrypt and pepper": keyed} {
		t.Run("an unknown account costs what a known one does: "+name, func(t *testing.T) {
			if dummy, known := password.Classes(h, hashOf(t, h, right)); dummy != known || known == "" {
				t.Errorf("%s, but %s", dummy, known)
			}
			if err := h.Dummy(t.Context(), right); err != nil {
				t.Error(err)
			}
			if got := verify(t, h, "", ""); got != "wrong" {
				t.Error(got)
			}
		})
	}
	t.Run("in a mixed population all take as long as the slowest kind", func(t *testing.T) {
		slow := hashOf(t, newHasher(t, password.Config{Hash: "bcrypt", BcryptCost: 10}), right)
		h := newHasher(t, password.Config{})
		own := hashOf(t, h, right)
		if err := h.Rehearse(t.Context(), slow); err != nil {
			t.Fatal(err)
		}
		for name, do := range map[string]func(){
			"unknown":         func() { _ = h.Dummy(t.Context(), right) },
			"own kind":        func() { verify(t, h, own, right) },
			"own kind, wrong": func() { verify(t, h, own, "wrong") },
			"damaged":         func() { verify(t, h, "$2b$", right) },
			"too long":        func() { verify(t, h, own, string(make([]byte, password.MaxBytes+1))) },
			"bcrypt cut":      func() { verify(t, h, slow, string(make([]byte, 100))) },
		} {
			start := time.Now()
			do()
			if d, slowest := time.Since(start), password.Slowest(h); d < min(slowest*5/4, time.Second) || slowest < time.Millisecond {
				t.Errorf("%s: %v, where the slow kind takes %v", name, d, slowest)
			}
		}
	})
	t.Run("a hash that cannot be read cannot be rehearsed", func(t *testing.T) {
		if err := argon.Rehearse(t.Context(), "$2b$"); !errors.Is(err, password.ErrBadHash) {
			t.Error(err)
		}
	})
}

func TestPace(t *testing.T) {
	const ms = time.Millisecond
	var p password.Pace
	rest := func(took, want time.Duration) {
		t.Helper()
		if got := p.Rest(took); got != want {
			t.Errorf("%v: %v, not %v", took, got, want)
		}
	}
	rest(50*ms, 0) // nothing is known
	p.Note("argon2id", 50*ms)
	p.Note("argon2id", 90*ms)
	rest(50*ms, 0) // one class: nothing to hide
	p.Note("bcrypt", 400*ms)
	p.Note("bcrypt", 200*ms) // the first was slowed by something else
	rest(50*ms, 200*ms)
	rest(210*ms, 40*ms)
	rest(300*ms, -50*ms) // slower by itself
	p.Note("scrypt", 30*ms)
	rest(50*ms, 200*ms)
	p.Note("endless", time.Hour) // never longer than a second
	rest(0, time.Second)
	for i := range 1000 { // and it remembers no more than a few classes
		p.Note(string(rune('a'+i)), time.Duration(i))
	}
	rest(0, time.Second)
}
