package attempts_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/attempts"
)

// stores are all that keep the promises of [attempts.Store].
var stores = map[string]func(t *testing.T) attempts.Store{
	"memory": func(*testing.T) attempts.Store { return attempts.NewMemory(1 << 12) },
}

func TestStore(t *testing.T) {
	hour := attempts.Schedule{Free: 3, First: time.Second, Longest: time.Hour, Forget: time.Hour}
	key := func(b byte) attempts.Key { return attempts.Key{b, b, b} }
	now := time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)
	reserve := func(t *testing.T, s attempts.Store, at time.Time, buckets ...attempts.Bucket) attempts.Result {
		t.Helper()
		r, err := s.Reserve(ctx, buckets, at)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	refund := func(t *testing.T, s attempts.Store, r attempts.Refund) {
		t.Helper()
		if err := s.Refund(ctx, []attempts.Refund{r}, now); err != nil {
			t.Fatal(err)
		}
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			a := attempts.Bucket{Key: key(1), Schedule: hour}
			b := attempts.Bucket{Key: key(2), Schedule: hour}
			t.Run("waits grow after what is free", func(t *testing.T) {
				s := open(t)
				at := now
				for i := range 3 {
					if r := reserve(t, s, at, a); r.Wait != 0 || r.Counts[0] != uint32(i+1) {
						t.Fatalf("%d: %+v", i, r)
					}
				}
				for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
					if r := reserve(t, s, at, a); r.Wait != 0 {
						t.Fatalf("before %v: %+v", want, r)
					}
					if r := reserve(t, s, at, a); r.Wait != want || r.Locked {
						t.Fatalf("want %v: %+v", want, r)
					}
					at = at.Add(want)
				}
			})
			t.Run("all or nothing", func(t *testing.T) {
				s := open(t)
				for range 4 {
					reserve(t, s, now, b)
				}
				for range 10 {
					if r := reserve(t, s, now, a, b); r.Wait == 0 || r.By != 1 {
						t.Fatalf("%+v", r)
					}
				}
				if r := reserve(t, s, now, a); r.Counts[0] != 1 {
					t.Errorf("counted although the other had to wait: %+v", r)
				}
			})
			t.Run("parallel tries are never let through more often", func(t *testing.T) {
				s := open(t)
				var in atomic.Int32
				var wg sync.WaitGroup
				for range 64 {
					wg.Go(func() {
						if r, err := s.Reserve(ctx, []attempts.Bucket{a, b}, now); err == nil && r.Wait == 0 {
							in.Add(1)
						}
					})
				}
				wg.Wait()
				if in.Load() > 4 {
					t.Errorf("%d, want at most 4", in.Load())
				}
			})
			t.Run("what is forgotten", func(t *testing.T) {
				s := open(t)
				for range 4 {
					reserve(t, s, now, a)
				}
				later := now.Add(2 * time.Hour)
				for range 2 {
					if r := reserve(t, s, later, a); r.Wait != 0 {
						t.Errorf("two hours forget two failures: %+v", r)
					}
				}
				if r := reserve(t, s, later, a); r.Wait == 0 {
					t.Error("and not more")
				}
			})
			t.Run("a refund", func(t *testing.T) {
				s := open(t)
				for range 4 {
					reserve(t, s, now, a)
				}
				refund(t, s, attempts.Refund{Key: a.Key, Count: 1, At: now})
				if r := reserve(t, s, now, a); r.Wait != 0 {
					t.Errorf("the wait was for what was given back: %+v", r)
				}
				refund(t, s, attempts.Refund{Key: a.Key, Count: 1, At: now.Add(-time.Second)})
				if r := reserve(t, s, now, a); r.Wait == 0 {
					t.Error("a refund of what came before took away another's wait")
				}
				refund(t, s, attempts.Refund{Key: a.Key, All: true})
				if r := reserve(t, s, now, a); r.Wait != 0 || r.Counts[0] != 1 {
					t.Errorf("all is forgotten: %+v", r)
				}
				refund(t, s, attempts.Refund{Key: key(9), Count: 5})
			})
			t.Run("a bound on what fails without a success", func(t *testing.T) {
				s := open(t)
				c := attempts.Bucket{Key: key(3), Schedule: hour, Most: 5}
				at := now
				for range 5 {
					reserve(t, s, at, c)
					at = at.Add(10 * time.Hour)
				}
				if r := reserve(t, s, at, c); r.Wait == 0 || !r.Locked {
					t.Errorf("%+v", r)
				}
				refund(t, s, attempts.Refund{Key: c.Key, Success: true})
				if r := reserve(t, s, at, c); r.Wait != 0 || r.Counts[0] != 1 {
					t.Errorf("after a success: %+v", r)
				}
			})
			t.Run("a member counts once", func(t *testing.T) {
				s := open(t)
				m := attempts.Bucket{Key: key(4), Schedule: hour, Member: key(5)}
				if r := reserve(t, s, now, m); r.Counts[0] != 1 {
					t.Errorf("%+v", r)
				}
				for range 20 {
					if r := reserve(t, s, now, m); r.Wait != 0 || r.Counts[0] != 0 {
						t.Errorf("%+v", r)
					}
				}
				m.Member = key(6)
				if r := reserve(t, s, now, m); r.Counts[0] != 2 {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}
