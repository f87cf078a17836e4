package attemptstest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/attempts"
)

const (
	replicas = 3
	each     = 64 // who ask at the same time, at each replica
)

// TestReplicas lets many ask at once, at three replicas. They are never let
// through more often than one after the other would be, and who is refused
// leaves nothing behind.
func TestReplicas(t *testing.T, open Open) {
	wide := attempts.Schedule{Free: 100_000, First: time.Second, Longest: time.Hour, Forget: 24 * time.Hour}
	day := attempts.Schedule{Free: 3, First: time.Second, Longest: time.Hour, Forget: 24 * time.Hour}
	narrow := attempts.Bucket{Key: key(10), Schedule: day}
	roomy := attempts.Bucket{Key: key(11), Schedule: wide}
	t.Run("one bucket", func(t *testing.T) {
		stores := open(t, replicas)
		if n := atOnce(t, stores, noon, narrow); n != 4 {
			t.Errorf("%d were let through, want 4", n)
		}
		at := noon
		for i := range 8 { // after every wait there is one more
			at = at.Add(time.Second << i)
			if n := atOnce(t, stores, at, narrow); n != 1 {
				t.Errorf("%d were let through after the wait, want 1", n)
			}
		}
	})
	t.Run("several buckets", func(t *testing.T) {
		stores := open(t, replicas)
		if n := atOnce(t, stores, noon, roomy, narrow); n != 4 {
			t.Errorf("%d were let through, want 4", n)
		}
		if r := reserve(t, stores[0], noon, roomy); r.Counts[0] != 5 {
			t.Errorf("those who were refused are counted: %+v", r)
		}
	})
	t.Run("buckets that stand in each other's way", func(t *testing.T) {
		if n := atOnce(t, open(t, replicas), noon, a, b, narrow); n > 4 {
			t.Errorf("%d were let through, want at most 4", n)
		}
	})
	t.Run("as many as there may be", func(t *testing.T) {
		if n := atOnce(t, open(t, replicas), noon, attempts.Bucket{Key: key(12), Schedule: wide, Most: 20}); n != 20 {
			t.Errorf("%d were let through, want 20", n)
		}
	})
	t.Run("one member", func(t *testing.T) {
		stores := open(t, replicas)
		m := attempts.Bucket{Key: key(13), Schedule: wide, Member: key(14)}
		atOnce(t, stores, noon, m)
		m.Member = key(15)
		if r := reserve(t, stores[0], noon, m); r.Counts[0] != 2 {
			t.Errorf("one member was not counted once: %+v", r)
		}
	})
	t.Run("given back at once", func(t *testing.T) {
		stores := open(t, replicas)
		atOnce(t, stores, noon, roomy)
		var wg sync.WaitGroup
		for i := range replicas * each {
			wg.Go(func() {
				if err := stores[i%replicas].Refund(ctx, []attempts.Refund{{Key: roomy.Key, Count: 1, At: noon}}, noon); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if r := reserve(t, stores[0], noon, roomy); r.Counts[0] != 1 {
			t.Errorf("not all was given back: %+v", r)
		}
	})
}

// atOnce asks with all at the same time, and returns how many were let through.
func atOnce(t *testing.T, stores []attempts.Store, at time.Time, buckets ...attempts.Bucket) int {
	t.Helper()
	var in atomic.Int32
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range replicas * each {
		wg.Go(func() {
			<-begin
			if r, err := stores[i%replicas].Reserve(ctx, buckets, at); err != nil {
				t.Error(err)
			} else if r.Wait == 0 {
				in.Add(1)
			}
		})
	}
	close(begin)
	wg.Wait()
	return int(in.Load())
}
