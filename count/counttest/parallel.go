package counttest

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/merlon-dev/merlon/count"
)

// at64 calls f from 64 goroutines, n times in each, until the test has failed.
func (b *bench) at64(n int, f func(g int)) {
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for range n {
				if b.Failed() {
					return
				}
				f(g)
			}
		})
	}
	wg.Wait()
}

func testParallel(b *bench) {
	b.kinds(func(kind string, ask func(string, int64, int64) count.Ask) {
		var took [7]atomic.Int64
		names := []string{"a", "b", "c", "d", "e", "f", "g"}
		b.at64(40, func(g int) {
			res := make([]count.Result, 1)
			if err := b.Take(b.Context(), []count.Ask{ask(names[g%7], 100, 1)}, res, b.Now()); err != nil {
				b.Error(err)
			} else if res[0].OK {
				took[g%7].Add(1)
			}
		})
		for i := range took {
			if n := took[i].Load(); n != 100 {
				b.Errorf("%s: %d were taken, want exactly 100", kind, n)
			}
		}
	})
}

// What is given back may for a moment be missing, so fewer may be taken at
// first; but all of it is there afterwards.
func testParallelAll(b *bench) {
	b.kinds(func(kind string, ask func(string, int64, int64) count.Ask) {
		var took atomic.Int64
		b.at64(10, func(g int) {
			res, asks := make([]count.Result, 2), []count.Ask{ask("large", 700, 1), ask("small", 50, 1)}
			if g%2 == 0 {
				asks[0], asks[1] = asks[1], asks[0]
			}
			if err := b.Take(b.Context(), asks, res, b.Now()); err != nil {
				b.Error(err)
			} else if res[0].OK && res[1].OK {
				took.Add(1)
			}
		})
		if n := took.Load(); n != 50 {
			b.Errorf("%s: %d were taken, want exactly 50", kind, n)
		}
		b.is(kind+": the large one afterwards", b.take(ask("large", 700, 0))[0], true, 650)
	})
}

func testParallelRate(b *bench) {
	k, q := b.key(), count.Quota{Every: time.Millisecond, Burst: 50}
	var took atomic.Int64
	start, began := b.Now(), time.Now()
	b.at64(40, func(g int) {
		if g == 0 {
			b.Pass(time.Millisecond)
		}
		res := make([]count.Result, 1)
		if err := b.Take(b.Context(), []count.Ask{{Key: k, Quota: q, Cost: 1}}, res, b.Now()); err != nil {
			b.Error(err)
		} else if res[0].OK {
			took.Add(1)
		}
	})
	passed := max(b.Now().Sub(start), 0)
	if _, real := b.Clock.(Real); real {
		passed = time.Since(began)
	}
	// The store's clock may differ from this one by what both round.
	if n, most := took.Load(), 50+int64(passed/time.Millisecond)+1; n > most || n < 50 {
		b.Errorf("%d were taken in %v, want from 50 to %d", n, passed, most)
	}
}

func testHold(b *bench) {
	hold := func(most int64) (int, func()) {
		b.Helper()
		full, release, err := b.Hold(b.Context(), []count.Place{{Key: b.key("a"), Most: most}})
		if err != nil || (full == -1) != (release != nil) {
			b.Fatalf("%d, release %v: %v", full, release != nil, err)
		}
		return full, release
	}
	_, one := hold(2)
	_, two := hold(2)
	if full, _ := hold(2); full != 0 {
		b.Errorf("three of two places: %d", full)
	}
	one()
	one()
	one()
	_, three := hold(2)
	if full, _ := hold(2); full != 0 {
		b.Errorf("a place was released twice: %d", full)
	}
	two()
	three()
	if full, _ := hold(0); full != 0 {
		b.Errorf("one of no places: %d", full)
	}
	_, last := hold(1)
	last()
}

func testHoldAll(b *bench) {
	a, c := count.Place{Key: b.key("a"), Most: 1}, count.Place{Key: b.key("c"), Most: 1}
	_, release, err := b.Hold(b.Context(), []count.Place{c})
	if err != nil {
		b.Fatal(err)
	}
	for range 2 {
		if full, _, err := b.Hold(b.Context(), []count.Place{a, c}); full != 1 || err != nil {
			b.Errorf("%d is full, want 1: %v", full, err)
		}
		if full, _, err := b.Hold(b.Context(), []count.Place{c, a}); full != 0 || err != nil {
			b.Errorf("%d is full, want 0: %v", full, err)
		}
	}
	release()
	full, both, err := b.Hold(b.Context(), []count.Place{a, c})
	if full != -1 || err != nil {
		b.Fatalf("%d is full, want none: %v", full, err)
	}
	both()
	if full, none, err := b.Hold(b.Context(), nil); full != -1 || err != nil {
		b.Errorf("nothing at all: %d %v", full, err)
	} else {
		none()
	}
}

func testParallelHold(b *bench) {
	var inside, took atomic.Int64
	b.at64(20, func(int) {
		full, release, err := b.Hold(b.Context(), []count.Place{{Key: b.key("a"), Most: 5}})
		if err != nil {
			b.Error(err)
			return
		}
		if full >= 0 {
			return
		}
		took.Add(1)
		if n := inside.Add(1); n > 5 {
			b.Errorf("%d hold one of five places", n)
		}
		inside.Add(-1)
		release()
	})
	if took.Load() < 5 {
		b.Errorf("only %d held a place", took.Load())
	}
}
