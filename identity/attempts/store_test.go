package attempts_test

import (
	"testing"
	"time"
	"unsafe"

	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/attempts/attemptstest"
)

func inMemory(_ *testing.T, n int) []attempts.Store {
	one := attempts.NewMemory(1 << 12)
	stores := make([]attempts.Store, n)
	for i := range stores {
		stores[i] = one
	}
	return stores
}

func TestMemory(t *testing.T) { attemptstest.TestStore(t, inMemory) }

func TestMemoryAtOnce(t *testing.T) { attemptstest.TestReplicas(t, inMemory) }

// set is a time after the machine's clock was set, while the other one, which
// nobody sets, has gone on: a Time keeps both, and its seconds of the former in
// the bits from 30 on.
func set(t time.Time, by time.Duration) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t))
	*wall += uint64(by/time.Second) << 30
	return t
}

func TestMemoryWhenTheClockIsSet(t *testing.T) {
	now := time.Now()
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		if later := set(now, by); later.Round(0).Sub(now.Round(0)) != by || later.Sub(now) != 0 {
			t.Fatalf("%v is not %v later", later, by)
		}
	}
	m := attempts.NewMemory(1 << 12)
	b := []attempts.Bucket{{Key: attempts.Key{1}, Schedule: attempts.Schedule{First: time.Minute, Longest: time.Minute, Forget: time.Hour}}}
	wait := func(now time.Time) time.Duration {
		t.Helper()
		r, err := m.Reserve(t.Context(), b, now)
		if err != nil {
			t.Fatal(err)
		}
		return r.Wait
	}
	if w := wait(now); w != 0 {
		t.Fatalf("the first waits %v", w)
	}
	for _, by := range []time.Duration{0, time.Hour, -time.Hour} {
		if w := wait(set(now, by)); w != time.Minute {
			t.Errorf("set by %v: %v, want a minute", by, w)
		}
	}
	// What is given back is known again.
	if err := m.Refund(t.Context(), []attempts.Refund{{Key: b[0].Key, Count: 1, At: now}}, set(now, time.Hour)); err != nil {
		t.Fatal(err)
	}
	if w := wait(set(now, -time.Hour)); w != 0 {
		t.Errorf("given back, and waits %v", w)
	}
}
