package count_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/count/counttest"
)

func lease(t testing.TB, size int64, hold time.Duration, s count.Store) *count.Lease {
	l := count.NewLease(size, hold, s)
	t.Cleanup(l.Close)
	return l
}

func TestLeaseKeepsTheContract(t *testing.T) {
	counttest.Run(t, func(t *testing.T) (count.Store, counttest.Clock) {
		return lease(t, 8, time.Hour, newShaky()), counttest.NewFake()
	})
}

// Three processes lease of one store. They never grant more than the quota;
// what they hold is at most size each, and when they have given it back, the
// rest is there.
func TestLeaseErrorIsBounded(t *testing.T) {
	const size, burst = 10, 500
	for _, q := range []count.Quota{{Every: time.Hour, Burst: burst}, {Burst: burst, Ends: time.Now().Add(time.Hour)}} {
		s, hold := newShaky(), 50*time.Millisecond
		all := []*count.Lease{lease(t, size, hold, s), lease(t, size, hold, s), lease(t, size, hold, s)}
		var took, refusedAt atomic.Int64
		var wg sync.WaitGroup
		for g := range 64 {
			wg.Go(func() {
				res := make([]count.Result, 1)
				for range 20 {
					err := all[g%3].Take(context.Background(), []count.Ask{{Key: key(1), Quota: q, Cost: int64(1 + g%2)}}, res, time.Now())
					if err != nil {
						t.Error(err)
					} else if res[0].OK {
						took.Add(int64(1 + g%2))
					} else {
						refusedAt.CompareAndSwap(0, took.Load())
					}
				}
			})
		}
		wg.Wait()
		// 64 may have asked at the moment of the first refusal, for two each.
		if at := refusedAt.Load(); at != 0 && at < burst-3*size-2*64 {
			t.Errorf("the first was refused after %d of %d", at, burst)
		}
		eventually(t, "what is left has come back", func() bool {
			r := take(t, s, key(1), q, 0, time.Now())
			return r.Remaining == burst-took.Load()
		})
		if asked := s.asked.Load(); asked > 64*20 {
			t.Errorf("the store was asked %d times", asked)
		}
		for _, l := range all {
			for take(t, l, key(1), q, 1, time.Now()).OK {
				took.Add(1)
			}
		}
		for _, l := range all {
			l.Close()
		}
		for take(t, s, key(1), q, 1, time.Now()).OK {
			took.Add(1)
		}
		if n := took.Load(); n != burst {
			t.Errorf("%d were granted in all, want exactly %d", n, burst)
		}
	}
}

// A hot key costs few trips, a cold one is not leased, and nor is one of which
// there is too little.
func TestLeaseSavesTrips(t *testing.T) {
	s := newShaky()
	l := lease(t, 20, time.Hour, s)
	q := count.Quota{Every: time.Hour, Burst: 400}
	for i := range int64(200) {
		if r := take(t, l, key(1), q, 1, time.Now()); !r.OK || r.Remaining != 399-i {
			t.Fatalf("%d: %+v", i, r)
		}
	}
	if n := s.asked.Load(); n > 13 {
		t.Errorf("200 units took %d trips", n)
	}
	take(t, l, key(2), q, 1, time.Now())
	if r := take(t, s, key(2), q, 0, time.Now()); r.Remaining != 399 {
		t.Errorf("a key that was asked for once is leased: %+v", r)
	}
	small := count.Quota{Every: time.Hour, Burst: 100}
	for range 3 {
		take(t, l, key(3), small, 1, time.Now())
	}
	if r := take(t, s, key(3), small, 0, time.Now()); r.Remaining != 97 {
		t.Errorf("a small quota is leased: %+v", r)
	}
	l.Close()
	if r := take(t, s, key(1), q, 0, time.Now()); r.Remaining != 200 {
		t.Errorf("what was left did not come back: %+v", r)
	}
}

// One of two asks is leased: they are granted together or not at all.
func TestLeaseAllOrNothing(t *testing.T) {
	s := newShaky()
	l := lease(t, 10, time.Hour, s)
	large, small := count.Quota{Every: time.Hour, Burst: 400}, count.Quota{Every: time.Hour, Burst: 5}
	res, granted := make([]count.Result, 2), 0
	for range 30 {
		asks := []count.Ask{{Key: key(1), Quota: large, Cost: 1}, {Key: key(2), Quota: small, Cost: 1}}
		if err := l.Take(t.Context(), asks, res, time.Now()); err != nil {
			t.Fatal(err)
		}
		if res[0].OK && res[1].OK {
			granted++
		}
	}
	s.fail(errors.New("down"))
	asks := []count.Ask{{Key: key(1), Quota: large, Cost: 1}, {Key: key(2), Quota: small, Cost: 1}}
	if err := l.Take(t.Context(), asks, res, time.Now()); err == nil {
		t.Error("no error")
	}
	s.fail(nil)
	l.Close()
	if r := take(t, s, key(1), large, 0, time.Now()); granted != 5 || r.Remaining != 395 {
		t.Errorf("%d were granted, and %d remain of the large one, want 5 and 395", granted, r.Remaining)
	}
}

// Behind a fallback, what a lease has is not used while the store is lost, and
// all of it together stays within the bounds.
func TestLeaseBehindAFallback(t *testing.T) {
	s, now := newShaky(), time.Now()
	q := count.Quota{Every: time.Hour, Burst: 400}
	l := lease(t, 20, time.Hour, s)
	f, n := fallback(t, patient, l, 2)
	for range 100 {
		if !take(t, f, key(1), q, 1, now).OK {
			t.Fatal("refused")
		}
	}
	s.fail(errors.New("down"))
	eventually(t, "it is noticed by asking", func() bool { return !f.Shared() })
	if more := grants(t, f, key(1), q, now); more != 100 {
		t.Errorf("%d more of half of 400, of which 100 were granted", more)
	}
	s.fail(nil)
	eventually(t, "it is back", f.Shared)
	if more := grants(t, f, key(1), q, now); more != 300 {
		t.Errorf("%d more when it is back, want the 300 that are left", more)
	}
	eventually(t, "both are told", func() bool { return len(n.events()) == 2 })
}

func BenchmarkLease(b *testing.B) {
	l := lease(b, 1000, time.Second, newShaky())
	asks, res := []count.Ask{{Key: benchKey(1), Quota: often, Cost: 1}}, make([]count.Result, 1)
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Take(b.Context(), asks, res, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
