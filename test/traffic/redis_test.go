package traffic_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/ledger"
)

// fast is within what time every answer comes, whatever Redis does. It is far
// below the time that a connection to it may take, and far above what a busy
// machine needs.
const fast = 2 * time.Second

// Trap 62: Redis is killed, paused, flushed and started again. Limits go on,
// each replica with its part; nobody is kept waiting, and it is told.
func TestRedisFails(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	names := 0
	// wave sends requests of a shop of its own, or of the last one again.
	wave := func(what string, fresh bool) int {
		t.Helper()
		if fresh {
			names++
		}
		through, all := f.send(t, wave{method: "GET", path: "/failing/x", groups: 1, fields: func(_, _ int) []string {
			return []string{"X-Shop", fmt.Sprint("shop ", names)}
		}})
		t.Logf("%s: %d of %d let through, %v, the slowest after %v", what, through[0], each, all.by, all.slowest.Round(time.Millisecond))
		if all.by[http.StatusOK]+all.by[http.StatusTooManyRequests] != each {
			t.Errorf("%s: answers %v", what, all.by)
		}
		if all.slowest > fast {
			t.Errorf("%s: an answer took %v", what, all.slowest)
		}
		return through[0]
	}
	want := func(what string, got, least, most int) {
		t.Helper()
		if got < least || got > most {
			t.Errorf("%s: %d were let through, want %d to %d", what, got, least, most)
		}
	}
	// Each replica has a third of the limit, and may be a moment late to notice.
	const least = burst / 3
	recovered := func(what string) {
		t.Helper()
		eventually(t, what+": counted together again", func() bool { return wave(what, true) == burst })
		want(what+", the same", wave(what, false), 0, 0)
	}

	recovered("at the start")

	f.redis.Kill()
	want("killed, of one that has used up all", wave("killed", false), 0, burst)
	want("killed", wave("killed, another", true), least, burst)
	want("killed, the same", wave("killed, the same", false), 0, 0)
	f.alarmed(t, 1)
	f.redis.Start()
	recovered("started again")

	f.redis.Pause()
	want("paused, of one that has used up all", wave("paused", false), 0, burst)
	want("paused", wave("paused, another", true), least, burst)
	want("paused, the same", wave("paused, the same", false), 0, 0)
	f.alarmed(t, 2)
	f.redis.Resume()
	recovered("goes on")

	// What is forgotten is forgotten, but counted from then on.
	want("before the flush", wave("before", true), burst, burst)
	f.redis.Flush()
	f.redis.Do("SCRIPT FLUSH", "+OK")
	want("flushed", wave("flushed", false), burst, burst)
	want("flushed, the same", wave("flushed", false), 0, 0)

	// Neither is a server that takes no more a reason to stop counting.
	f.redis.Do("CONFIG SET maxmemory 1", "+OK")
	f.redis.Do("CONFIG SET maxmemory-policy noeviction", "+OK")
	want("full", wave("full", true), least, 2*burst)
	want("full, the same", wave("full, the same", false), 0, burst)
	f.redis.Do("CONFIG SET maxmemory 0", "+OK")
	recovered("has room again")
}

// alarmed checks that every replica has told so often that Redis fails.
func (f *fleet) alarmed(t *testing.T, times int) {
	t.Helper()
	for i, p := range f.all {
		list := p.events(times, func(e ledger.Event) bool {
			return e.Kind == ledger.Alarm && strings.Contains(strings.ToLower(e.Message+" "+e.Attrs["error"]), "redis")
		})
		if len(list) < times {
			t.Errorf("replica %d has told %d times that Redis fails, want %d", i, len(list), times)
		}
	}
}
