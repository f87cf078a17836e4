// Package counttest holds every [count.Store] to what the interface promises.
// It is for tests only.
package counttest

import (
	"crypto/rand"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/count"
)

// A Clock is what a store counts by.
type Clock interface {
	Now() time.Time
	Pass(d time.Duration) // goes on by at least d
}

// Real is the clock of stores that cannot be told another time.
type Real struct{}

// Now implements [Clock].
func (Real) Now() time.Time { return time.Now() }

// Pass implements [Clock] by waiting.
func (Real) Pass(d time.Duration) { time.Sleep(d) }

// Fake is a clock that only moves when it is told to. The zero Fake is not
// ready; see [NewFake].
type Fake struct{ at atomic.Pointer[time.Time] }

// NewFake returns a clock that stands at the present.
func NewFake() *Fake {
	f, now := new(Fake), time.Now()
	f.at.Store(&now)
	return f
}

// Now implements [Clock].
func (f *Fake) Now() time.Time { return *f.at.Load() }

// Pass implements [Clock].
func (f *Fake) Pass(d time.Duration) {
	next := f.Now().Add(d)
	f.at.Store(&next)
}

// Open opens a store. What it opens in turn may count together: keys differ
// from test to test.
type Open func(t *testing.T) (count.Store, Clock)

// slow is how long a store and this machine may take where time does not
// stand.
const slow = 20 * time.Second

// bench is one test's store, with keys of its own.
type bench struct {
	*testing.T
	count.Store
	Clock
	own string
}

// Run runs every promise against stores.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(b *bench)
	}{
		{"the burst, and no more while time stands", testBurst},
		{"one more after each interval", testRegain},
		{"a cost is taken whole or not at all", testCost},
		{"a cost of 0 only looks", testLook},
		{"all of several asks or none", testAllOrNothing},
		{"the same key twice in one take", testSameKey},
		{"giving back", testGiveBack},
		{"a debt of one burst and no more", testDebt},
		{"a window is used up", testWindow},
		{"a window ends", testWindowEnds},
		{"what makes no sense is an error", testNonsense},
		{"any bytes are a key", testKeys},
		{"64 at once get exactly the burst", testParallel},
		{"64 at once over two asks", testParallelAll},
		{"64 at once get what the rate gives", testParallelRate},
		{"places are held and released", testHold},
		{"places: all or none", testHoldAll},
		{"64 at once hold no more than there are", testParallelHold},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, clock := open(t)
			c.test(&bench{t, s, clock, rand.Text()})
		})
	}
}

func (b *bench) key(parts ...string) count.Key {
	k := count.Key{}.With(b.own)
	for _, p := range parts {
		k = k.With(p)
	}
	return k
}

func (b *bench) take(asks ...count.Ask) []count.Result {
	b.Helper()
	res := make([]count.Result, len(asks))
	if err := b.Take(b.Context(), asks, res, b.Now()); err != nil {
		b.Fatal(err)
	}
	for i, r := range res {
		most := asks[i].Quota.Burst
		if r.Remaining < 0 || r.Remaining > most || r.Retry < 0 || r.Reset < 0 || r.OK != (r.Retry == 0) {
			b.Fatalf("%+v makes no sense for %+v", r, asks[i])
		}
	}
	return res
}

func (b *bench) add(asks ...count.Ask) {
	b.Helper()
	if err := b.Add(b.Context(), asks, b.Now()); err != nil {
		b.Fatal(err)
	}
}

// is checks what can be known of a result.
func (b *bench) is(what string, r count.Result, ok bool, remaining int64) {
	b.Helper()
	if r.OK != ok || r.Remaining != remaining {
		b.Errorf("%s: %+v, want OK %v and %d remaining", what, r, ok, remaining)
	}
}

// about checks a time that may have passed a little.
func (b *bench) about(what string, got, want time.Duration) {
	b.Helper()
	if got > want+time.Millisecond || got < want-slow {
		b.Errorf("%s is %v, want about %v", what, got, want)
	}
}

func hourly(k count.Key, burst, cost int64) count.Ask {
	return count.Ask{Key: k, Quota: count.Quota{Every: time.Hour, Burst: burst}, Cost: cost}
}

func (b *bench) until(k count.Key, ends time.Time, burst, cost int64) count.Ask {
	return count.Ask{Key: k, Quota: count.Quota{Ends: ends, Burst: burst}, Cost: cost}
}

// kinds calls f with asks of either kind that time does not change.
func (b *bench) kinds(f func(kind string, ask func(name string, burst, cost int64) count.Ask)) {
	ends := b.Now().Add(30 * time.Hour)
	f("rate", func(name string, burst, cost int64) count.Ask { return hourly(b.key("rate", name), burst, cost) })
	f("window", func(name string, burst, cost int64) count.Ask {
		return b.until(b.key("window", name), ends, burst, cost)
	})
}

func testBurst(b *bench) {
	b.kinds(func(kind string, ask func(string, int64, int64) count.Ask) {
		for i := range int64(10) {
			b.is(kind, b.take(ask("a", 10, 1))[0], true, 9-i)
		}
		for range 3 {
			b.is(kind, b.take(ask("a", 10, 1))[0], false, 0)
		}
		b.is(kind+" of another", b.take(ask("b", 10, 1))[0], true, 9)
	})
	r := b.take(hourly(b.key("rate", "a"), 10, 1))[0]
	b.about("Retry", r.Retry, time.Hour)
	b.about("Reset", r.Reset, 10*time.Hour)
}

func testRegain(b *bench) {
	k, q := b.key(), count.Quota{Every: 200 * time.Millisecond, Burst: 3}
	start := time.Now()
	for range 3 {
		b.take(count.Ask{Key: k, Quota: q, Cost: 1})
	}
	r := b.take(count.Ask{Key: k, Quota: q, Cost: 1})[0]
	if r.OK && time.Since(start) < q.Every {
		b.Errorf("four of three: %+v", r)
	}
	if r.Retry > q.Every {
		b.Errorf("Retry is %v", r.Retry)
	}
	b.Pass(q.Every)
	if r := b.take(count.Ask{Key: k, Quota: q, Cost: 1})[0]; !r.OK {
		b.Errorf("after an interval: %+v", r)
	}
	b.Pass(3 * q.Every)
	if r := b.take(count.Ask{Key: k, Quota: q, Cost: 3})[0]; !r.OK || r.Remaining > 1 {
		b.Errorf("when it is whole again: %+v", r)
	}
}

func testCost(b *bench) {
	b.kinds(func(kind string, ask func(string, int64, int64) count.Ask) {
		b.is(kind, b.take(ask("a", 10, 7))[0], true, 3)
		b.is(kind, b.take(ask("a", 10, 4))[0], false, 3)
		b.is(kind+": a refusal was charged", b.take(ask("a", 10, 3))[0], true, 0)
		b.is(kind, b.take(ask("b", 10, 10))[0], true, 0)
	})
	b.about("Retry", b.take(hourly(b.key("rate", "b"), 10, 4))[0].Retry, 4*time.Hour)
}

func testLook(b *bench) {
	b.kinds(func(kind string, ask func(string, int64, int64) count.Ask) {
		for range 3 {
			r := b.take(ask("a", 10, 0))[0]
			b.is(kind, r, true, 10)
			if r.Reset != 0 {
				b.Errorf("%s: a whole quota is whole in %v", kind, r.Reset)
			}
		}
		b.take(ask("a", 10, 4))
		b.is(kind, b.take(ask("a", 10, 0))[0], true, 6)
		b.take(ask("a", 10, 6))
		b.is(kind, b.take(ask("a", 10, 0))[0], true, 0)
	})
}

func testAllOrNothing(b *bench) {
	b.kinds(func(kind string, ask func(string, int64, int64) count.Ask) {
		b.take(ask("empty", 5, 5))
		for place := range 3 {
			asks := []count.Ask{ask("a", 10, 2), ask("b", 20, 3), ask("c", 30, 4)}
			asks[place] = ask("empty", 5, 1)
			for range 2 {
				for i, r := range b.take(asks...) {
					if i == place {
						b.is(kind, r, false, 0)
					} else {
						b.is(kind, r, true, asks[i].Quota.Burst)
					}
				}
			}
		}
		for i, r := range b.take(ask("a", 10, 10), ask("b", 20, 20), ask("c", 30, 30)) {
			if !r.OK {
				b.Errorf("%s: what was refused was charged to %d: %+v", kind, i, r)
			}
		}
		res := b.take(ask("d", 10, 1), ask("a", 10, 1), ask("e", 10, 1), ask("b", 20, 1))
		b.is(kind, res[0], true, 10)
		b.is(kind, res[1], false, 0)
		b.is(kind, res[2], true, 10)
		b.is(kind, res[3], false, 0)
	})
	if err := b.Take(b.Context(), nil, nil, b.Now()); err != nil {
		b.Errorf("nothing at all: %v", err)
	}
}

func testSameKey(b *bench) {
	b.kinds(func(kind string, ask func(string, int64, int64) count.Ask) {
		res := b.take(ask("a", 5, 3), ask("a", 5, 3))
		if res[0].OK && res[1].OK {
			b.Errorf("%s: six of five: %+v", kind, res)
		}
		b.is(kind+" afterwards", b.take(ask("a", 5, 5))[0], true, 0)
	})
}

func testGiveBack(b *bench) {
	b.kinds(func(kind string, ask func(string, int64, int64) count.Ask) {
		b.take(ask("a", 10, 10))
		b.add(ask("a", 10, -3), ask("never seen", 10, -3))
		b.is(kind, b.take(ask("a", 10, 0))[0], true, 3)
		b.add(ask("a", 10, -30))
		b.is(kind+": more than was taken", b.take(ask("a", 10, 0))[0], true, 10)
		b.is(kind+": of what was never taken", b.take(ask("never seen", 10, 0))[0], true, 10)
		b.take(ask("a", 10, 10))
		b.is(kind, b.take(ask("a", 10, 1))[0], false, 0)
	})
}

func testDebt(b *bench) {
	b.kinds(func(kind string, ask func(string, int64, int64) count.Ask) {
		b.add(ask("a", 10, 4), ask("b", 10, 1<<62), ask("c", 10, 0))
		b.is(kind, b.take(ask("a", 10, 0))[0], true, 6)
		b.is(kind, b.take(ask("c", 10, 0))[0], true, 10)
		b.add(ask("a", 10, 6), ask("a", 10, 6))
		b.is(kind, b.take(ask("a", 10, 1))[0], false, 0)
		b.is(kind+": a look at a debt", b.take(ask("a", 10, 0))[0], false, 0)
		b.add(ask("a", 10, -8)) // 16 were used
		b.is(kind, b.take(ask("a", 10, 0))[0], true, 2)
		b.add(ask("b", 10, 5))
		b.is(kind, b.take(ask("b", 10, 1))[0], false, 0)
		b.add(ask("b", 10, -15)) // of at most 20
		b.is(kind+": the debt has a bound", b.take(ask("b", 10, 0))[0], true, 5)
	})
	b.add(hourly(b.key("x"), 10, 1<<62))
	b.about("Retry of one in debt", b.take(hourly(b.key("x"), 10, 1))[0].Retry, 11*time.Hour)
}

func testWindow(b *bench) {
	ends := b.Now().Add(20 * 24 * time.Hour)
	r := b.take(b.until(b.key("a"), ends, 1<<50, 1<<49))[0]
	b.is("much", r, true, 1<<49)
	b.about("Reset", r.Reset, 20*24*time.Hour)
	b.take(b.until(b.key("a"), ends, 1<<50, 1<<49-1))
	b.is("the last one", b.take(b.until(b.key("a"), ends, 1<<50, 2))[0], false, 1)
	b.is("the last one", b.take(b.until(b.key("a"), ends, 1<<50, 1))[0], true, 0)
	r = b.take(b.until(b.key("a"), ends, 1<<50, 1))[0]
	b.is("one too many", r, false, 0)
	b.about("Retry", r.Retry, 20*24*time.Hour)
}

func testWindowEnds(b *bench) {
	ends := b.Now().Add(500 * time.Millisecond)
	a := b.until(b.key("first"), ends, 2, 2)
	res := make([]count.Result, 1)
	if err := b.Take(b.Context(), []count.Ask{a}, res, ends.Add(-time.Millisecond)); err != nil || !res[0].OK {
		b.Fatal(res, err)
	}
	b.Pass(600 * time.Millisecond)
	if err := b.Take(b.Context(), []count.Ask{a}, res, b.Now()); err == nil {
		b.Errorf("a window that has ended: %+v", res[0])
	}
	b.add(a) // comes too late, and does nothing
	b.is("the next window", b.take(b.until(b.key("second"), ends.Add(time.Hour), 2, 2))[0], true, 0)
	// A late request finds what was used.
	if err := b.Take(b.Context(), []count.Ask{a}, res, ends.Add(-time.Millisecond)); err != nil || res[0].OK {
		b.Errorf("a late request in a window that is used up: %+v %v", res[0], err)
	}
}

func testNonsense(b *bench) {
	now := b.Now()
	good := count.Quota{Every: time.Hour, Burst: 10}
	for _, a := range []count.Ask{
		{Cost: 1}, {Quota: count.Quota{Every: -1, Burst: 1}, Cost: 1}, {Quota: count.Quota{Every: 1}, Cost: 1},
		{Quota: good, Cost: 11}, {Quota: good, Cost: -1}, {Quota: count.Quota{Every: 1 << 62, Burst: 4}, Cost: 1},
		{Quota: count.Quota{Every: time.Hour, Burst: -1}}, {Quota: count.Quota{Burst: 1}, Cost: 1},
		{Quota: count.Quota{Burst: 1, Ends: now}, Cost: 1}, {Quota: count.Quota{Burst: 1, Ends: now.AddDate(30, 0, 0)}, Cost: 1},
		{Quota: count.Quota{Burst: 1 << 53, Ends: now.Add(time.Hour)}, Cost: 1},
	} {
		a.Key = b.key("bad")
		asks, res := []count.Ask{hourly(b.key("good"), 10, 1), a}, make([]count.Result, 2)
		if err := b.Take(b.Context(), asks, res, now); err == nil {
			b.Errorf("%+v: %+v, no error", a, res)
		}
	}
	b.is("what was asked for along with nonsense", b.take(hourly(b.key("good"), 10, 0))[0], true, 10)
}

func testKeys(b *bench) {
	long := make([]byte, 1<<20)
	keys := []count.Key{
		{}, []byte(b.own + "\r\n"), []byte(b.own + "\r\nFLUSHALL\r\n"), []byte(b.own + ":"), []byte(b.own + "::"), []byte(b.own + "{}"),
		[]byte(b.own + "{a}b"), []byte(b.own + "{a}c"), []byte(b.own + "\xff\xfe"), []byte(b.own + "\xff"), []byte(b.own + "\x00"), []byte(b.own),
		append([]byte(b.own), long...), append(append([]byte(b.own), long...), 0),
		b.key("ab", "c"), b.key("a", "bc"), b.key("abc"), b.key("abc", ""), b.key("", "abc"), b.key("*"), b.key("$-1"),
	}
	for i, k := range keys {
		if r := b.take(hourly(k, 10, int64(i%10)+1))[0]; !r.OK || r.Remaining != 9-int64(i%10) {
			if len(k) == 0 && r.Remaining < 10 { // others that count together may have used it
				continue
			}
			b.Errorf("key %d shares with another: %+v", i, r)
		}
	}
	var releases []func()
	for i, k := range keys[1:] {
		full, release, err := b.Hold(b.Context(), []count.Place{{Key: k, Most: 1}})
		if err != nil || full != -1 {
			b.Fatalf("key %d shares its place with another: %d %v", i+1, full, err)
		}
		releases = append(releases, release)
	}
	for _, release := range releases {
		release()
	}
}
