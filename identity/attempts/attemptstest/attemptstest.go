// Package attemptstest holds the promises of an [attempts.Store] as a test that
// every store runs.
//
// It cannot know how a store fails, so that is for the store's own tests.
package attemptstest

import (
	"context"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/attempts"
)

// Open returns n stores that count together, and have counted nothing: one for
// each replica of a gateway. A store for one process is returned n times.
type Open func(t *testing.T, n int) []attempts.Store

var (
	ctx  = context.Background()
	noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	hour = attempts.Schedule{Free: 3, First: time.Second, Longest: time.Hour, Forget: time.Hour}
	a    = attempts.Bucket{Key: key(1), Schedule: hour}
	b    = attempts.Bucket{Key: key(2), Schedule: hour}
)

func key(n byte) attempts.Key { return attempts.Key{n, n, n} }

func reserve(t *testing.T, s attempts.Store, at time.Time, buckets ...attempts.Bucket) attempts.Result {
	t.Helper()
	r, err := s.Reserve(ctx, buckets, at)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func refund(t *testing.T, s attempts.Store, refunds ...attempts.Refund) {
	t.Helper()
	if err := s.Refund(ctx, refunds, noon); err != nil {
		t.Fatal(err)
	}
}

// TestStore holds a store to what it promises to one who asks after another.
func TestStore(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(*testing.T, attempts.Store)
	}{
		{"waits grow after what is free", testWaits},
		{"all or nothing", testAllOrNothing},
		{"what is forgotten", testForgotten},
		{"a refund", testRefund},
		{"a bound on what fails without a success", testMost},
		{"a member counts once", testMember},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t, 1)[0]) })
	}
}

func testWaits(t *testing.T, s attempts.Store) {
	at := noon
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
	for range 40 { // however many there are, the wait is never beyond the longest
		r := reserve(t, s, at, a)
		if r.Wait > hour.Longest || r.Wait < 0 {
			t.Fatalf("%+v", r)
		}
		at = at.Add(r.Wait)
	}
}

func testAllOrNothing(t *testing.T, s attempts.Store) {
	for range 4 {
		reserve(t, s, noon, b)
	}
	for range 10 {
		if r := reserve(t, s, noon, a, b); r.Wait == 0 || r.By != 1 || r.Counts[0] != 0 || r.Counts[1] != 4 {
			t.Fatalf("%+v", r)
		}
	}
	if r := reserve(t, s, noon, a); r.Counts[0] != 1 {
		t.Errorf("counted although the other had to wait: %+v", r)
	}
}

func testForgotten(t *testing.T, s attempts.Store) {
	for range 4 {
		reserve(t, s, noon, a)
	}
	later := noon.Add(2 * time.Hour)
	for range 2 {
		if r := reserve(t, s, later, a); r.Wait != 0 {
			t.Errorf("two hours forget two failures: %+v", r)
		}
	}
	if r := reserve(t, s, later, a); r.Wait == 0 {
		t.Error("and not more")
	}
	if r := reserve(t, s, later.Add(100*time.Hour), a); r.Wait != 0 || r.Counts[0] != 1 {
		t.Errorf("all is forgotten: %+v", r)
	}
}

func testRefund(t *testing.T, s attempts.Store) {
	for range 4 {
		reserve(t, s, noon, a)
	}
	refund(t, s, attempts.Refund{Key: a.Key, Count: 1, At: noon})
	if r := reserve(t, s, noon, a); r.Wait != 0 {
		t.Errorf("the wait was for what was given back: %+v", r)
	}
	refund(t, s, attempts.Refund{Key: a.Key, Count: 1, At: noon.Add(-time.Second)})
	if r := reserve(t, s, noon, a); r.Wait == 0 {
		t.Error("a refund of what came before took away another's wait")
	}
	refund(t, s, attempts.Refund{Key: a.Key, All: true})
	if r := reserve(t, s, noon, a); r.Wait != 0 || r.Counts[0] != 1 {
		t.Errorf("all is forgotten: %+v", r)
	}
	refund(t, s)
	refund(t, s, attempts.Refund{Key: key(9), Count: 5})
	if r := reserve(t, s, noon, attempts.Bucket{Key: key(9), Schedule: hour}); r.Counts[0] != 1 {
		t.Errorf("more was given back than there was: %+v", r)
	}
}

func testMost(t *testing.T, s attempts.Store) {
	c := attempts.Bucket{Key: key(3), Schedule: hour, Most: 5}
	at := noon
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
}

func testMember(t *testing.T, s attempts.Store) {
	m := attempts.Bucket{Key: key(4), Schedule: hour, Member: key(5)}
	if r := reserve(t, s, noon, m); r.Counts[0] != 1 {
		t.Errorf("%+v", r)
	}
	for range 20 {
		if r := reserve(t, s, noon, m); r.Wait != 0 || r.Counts[0] != 0 {
			t.Errorf("%+v", r)
		}
	}
	m.Member = key(6)
	if r := reserve(t, s, noon, m); r.Counts[0] != 2 {
		t.Errorf("%+v", r)
	}
	refund(t, s, attempts.Refund{Key: m.Key, Member: m.Member, Count: 1, At: noon})
	if r := reserve(t, s, noon, m); r.Counts[0] != 2 {
		t.Errorf("one that was given back counts again: %+v", r)
	}
	if r := reserve(t, s, noon.Add(13*time.Hour), m); r.Wait != 0 || r.Counts[0] != 1 {
		t.Errorf("one that is forgotten counts again: %+v", r)
	}
}
