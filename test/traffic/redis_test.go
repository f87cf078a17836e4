package traffic_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/ledger"
)

// usual is within what time most answers come, whatever Redis does, and latest
// all of them, on a machine that is busy. A connection that is waited for takes
// longer.
const (
	usual  = time.Second
	latest = 8 * time.Second
)

// Trap 62: Redis is killed, paused, flushed, full and started again. Limits go
// on, each replica with its part; nobody is kept waiting, and it is told. The
// bounds are those that count.Fallback states.
func TestRedisFails(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	names := 0
	// send sends requests of a shop of its own, or of the last one again.
	send := func(what string, fresh bool) int {
		t.Helper()
		if fresh {
			names++
		}
		through, all := f.send(t, wave{method: "GET", path: "/failing/x", groups: 1, fields: func(_, _ int) []string {
			return []string{"X-Shop", fmt.Sprint("shop ", names)}
		}})
		t.Logf("%s: %d of %d let through, %v, half of them within %v, all within %v", what, through[0], each, all.by,
			quantile(all.took, .5).Round(time.Millisecond), quantile(all.took, 1).Round(time.Millisecond))
		if all.by[http.StatusOK]+all.by[http.StatusTooManyRequests] != each {
			t.Errorf("%s: answers %v", what, all.by)
		}
		if half, whole := quantile(all.took, .5), quantile(all.took, 1); half > usual || whole > latest {
			t.Errorf("%s: half of the answers took %v, one %v", what, half, whole)
		}
		return through[0]
	}
	want := func(what string, got, least, most int) {
		t.Helper()
		if got < least || got > most {
			t.Errorf("%s: %d were let through, want %d to %d", what, got, least, most)
		}
	}
	// One that forgot is not used for a while, and one that was down is asked
	// every few seconds.
	recovered := func(what string) {
		t.Helper()
		waitFor(t, what+": counted together again", 45*time.Second, func() bool {
			return send(what, true) == burst && send(what+", the same", false) == 0
		})
	}
	const least = burst / 3 // at least what one replica has of it

	recovered("at the start")
	for _, c := range []struct {
		what      string
		fail, end func()
	}{
		{"killed", f.redis.Kill, f.redis.Start},
		{"paused", f.redis.Pause, f.redis.Resume},
		{"full", func() { f.redis.Do("CONFIG SET maxmemory 1", "+OK") }, func() { f.redis.Do("CONFIG SET maxmemory 0", "+OK") }},
	} {
		before := f.lost(t)
		c.fail()
		want(c.what+", of one that has used up all", send(c.what+", the one before", false), 0, burst)
		want(c.what, send(c.what+", another", true), least, burst)
		want(c.what+", the same", send(c.what+", the same", false), 0, 0)
		eventually(t, "every replica has told", func() bool {
			now := f.lost(t)
			for i := range now {
				if now[i] <= before[i] {
					return false
				}
			}
			return true
		})
		c.end()
		recovered(c.what + " no more")
	}

	// What is forgotten is forgotten: a burst until it is noticed, another when
	// it is used again.
	f.redis.Flush()
	f.redis.Do("SCRIPT FLUSH", "+OK")
	flushed := names
	total := send("flushed", false) + send("flushed", false)
	recovered("after the flush")
	names, flushed = flushed, names
	total += send("flushed, used again", false)
	names = flushed
	want("flushed", total, 0, 2*burst)
	t.Run("the places of a replica that has died come back", func(t *testing.T) {
		f.use(t)
		placesOfTheDead(t, f)
	})
}

// lost is how often each replica has told that Redis does not count.
func (f *fleet) lost(t *testing.T) (times []int) {
	t.Helper()
	for _, p := range f.all {
		p.t = t
		times = append(times, len(p.Events(t, 0, func(e ledger.Event) bool {
			return e.Kind == ledger.Alarm && e.Reason == "shared-lost"
		})))
	}
	return times
}

// local is how often each replica has counted by itself.
func (f *fleet) local(t *testing.T) (times []float64) {
	t.Helper()
	for _, p := range f.all {
		times = append(times, p.Metric(t, "merlon_limits_local_total"))
	}
	return times
}

// It is the last test of a fleet, as one of them is gone then.
func placesOfTheDead(t *testing.T, f *fleet) {
	const places = 5
	died := f.all[2]
	before := f.local(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range places {
		go died.from(fmt.Sprintf("127.0.13.%d", 1+i)).send(ctx, "GET", "/hold/x", "", "X-Shop", "of the dead")
	}
	waitFor(t, "places are held", soon, func() bool { return f.seen.Load() == places || !slices.Equal(before, f.local(t)) })
	ask := func() int {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // one that is let in waits
		defer cancel()
		return f.all[0].from("127.0.0.1").send(ctx, "GET", "/hold/x", "", "X-Shop", "of the dead").Status
	}
	if got := ask(); got != http.StatusTooManyRequests {
		if !slices.Equal(before, f.local(t)) {
			t.Skip("Redis was given up: this machine is too busy")
		}
		t.Errorf("while all are held: %d", got)
	}
	died.Signal(t, syscall.SIGKILL)
	began := time.Now()
	waitFor(t, "they come back", time.Minute, func() bool { return ask() != http.StatusTooManyRequests })
	t.Logf("after %v", time.Since(began).Round(time.Second))
}
