package redis_test

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/test/redistest"
)

// A replica is one of three that share a server.
type replica struct {
	*count.Fallback
	mu   sync.Mutex
	told []count.Notice
}

func (r *replica) notify(n count.Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, n)
}

func (r *replica) events() (events []count.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.told {
		events = append(events, n.Event)
	}
	return events
}

// three starts replicas that are patient with a machine that stands still.
func three(t *testing.T, at string, settle time.Duration) (all []*replica) {
	t.Helper()
	for range 3 {
		r := new(replica)
		c := count.FallbackConfig{Timeout: 700 * time.Millisecond, Watch: 100 * time.Millisecond, Retry: 50 * time.Millisecond, Settle: settle}
		r.Fallback = count.NewFallback(c, limits(t, at), count.NewMemory(count.MemoryConfig{Keys: 1024}), func() int { return 3 }, r.notify)
		t.Cleanup(r.Close)
		all = append(all, r)
	}
	return all
}

// flood lets 64 clients ask all replicas for each of the keys, and returns how
// often each was let through.
func flood(t *testing.T, all []*replica, asks []count.Ask) []int64 {
	t.Helper()
	took := make([]atomic.Int64, len(asks))
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			res := make([]count.Result, 1)
			for i := range 10 * len(asks) {
				n := (g + i) % len(asks)
				if err := all[(g+i/len(asks))%3].Take(context.Background(), asks[n:n+1], res, time.Now()); err != nil {
					t.Error(err)
				} else if res[0].OK {
					took[n].Add(1)
				}
			}
		})
	}
	wg.Wait()
	sums := make([]int64, len(asks))
	for i := range took {
		sums[i] = took[i].Load()
	}
	return sums
}

// Whatever happens to the server, three replicas and 64 clients never get more
// than the quota, one burst when it is lost and one when it has forgotten. It is
// told once, and all recover.
func TestFallbackWhateverHappens(t *testing.T) {
	lost := []count.Event{count.SharedLost, count.SharedBack}
	for _, c := range []struct {
		name           string
		happen, mend   func(t *testing.T, srv *redistest.Server, c rueidis.Client)
		events         []count.Event
		forgets, short bool
	}{
		{name: "killed and restarted", events: []count.Event{count.SharedLost, count.SharedForgot, count.SharedBack}, forgets: true, short: true,
			happen: func(_ *testing.T, srv *redistest.Server, _ rueidis.Client) { srv.Kill() },
			mend:   func(t *testing.T, srv *redistest.Server, _ rueidis.Client) { srv.Run(t) }},
		{name: "stopped", events: lost, short: true,
			happen: func(t *testing.T, srv *redistest.Server, _ rueidis.Client) { srv.Signal(t, syscall.SIGSTOP) },
			mend:   func(t *testing.T, srv *redistest.Server, _ rueidis.Client) { srv.Signal(t, syscall.SIGCONT) }},
		{name: "paused", events: lost,
			happen: func(t *testing.T, _ *redistest.Server, c rueidis.Client) {
				redistest.Do(t, c, "CLIENT", "PAUSE", "3000", "ALL")
			},
			mend: func(*testing.T, *redistest.Server, rueidis.Client) {}},
		{name: "read-only", events: lost,
			happen: func(t *testing.T, _ *redistest.Server, c rueidis.Client) {
				redistest.Do(t, c, "REPLICAOF", "127.0.0.1", "1")
			},
			mend: func(t *testing.T, _ *redistest.Server, c rueidis.Client) {
				redistest.Do(t, c, "REPLICAOF", "NO", "ONE")
			}},
		{name: "no right", events: lost,
			happen: func(t *testing.T, _ *redistest.Server, c rueidis.Client) {
				redistest.Do(t, c, "ACL", "SETUSER", "default", "-eval", "-evalsha")
			},
			mend: func(t *testing.T, _ *redistest.Server, c rueidis.Client) {
				redistest.Do(t, c, "ACL", "SETUSER", "default", "+@all")
			}},
		{name: "another password", events: lost,
			happen: func(t *testing.T, _ *redistest.Server, c rueidis.Client) {
				redistest.Do(t, c, "CONFIG", "SET", "requirepass", "s3cret")
				redistest.Do(t, c, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			},
			mend: func(t *testing.T, _ *redistest.Server, c rueidis.Client) {
				redistest.Do(t, c, "CONFIG", "SET", "requirepass", "")
			}},
		{name: "no memory", events: lost,
			happen: func(t *testing.T, _ *redistest.Server, c rueidis.Client) {
				redistest.Do(t, c, "CONFIG", "SET", "maxmemory", "1")
			},
			mend: func(t *testing.T, _ *redistest.Server, c rueidis.Client) {
				redistest.Do(t, c, "CONFIG", "SET", "maxmemory", "0")
			}},
		{name: "flushed", events: []count.Event{count.SharedForgot}, forgets: true,
			happen: func(t *testing.T, _ *redistest.Server, c rueidis.Client) { redistest.Do(t, c, "FLUSHALL") },
			mend:   func(*testing.T, *redistest.Server, rueidis.Client) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && !c.short {
				t.Skip("one of many")
			}
			srv, at := redistest.OnSocket(t)
			all, admin := three(t, at, 500*time.Millisecond), redistest.Dial(t, at)
			const burst = 60
			ends := time.Now().Add(time.Hour)
			asks := []count.Ask{hourly("a", burst, 1), {Key: count.Key("b"), Quota: count.Quota{Burst: burst, Ends: ends}, Cost: 1}, hourly("c", burst, 1)}
			for i, n := range flood(t, all, asks) {
				if n != burst {
					t.Errorf("key %d: %d before, want exactly %d", i, n, burst)
				}
			}
			asks = append(asks, hourly("fresh", burst, 1))
			c.happen(t, srv, admin)
			most := int64(0)
			if c.forgets {
				most = burst
			}
			meanwhile := flood(t, all, asks)
			for i, n := range meanwhile[:3] {
				// The flood is not quite even over the replicas.
				if n > most+burst/3 {
					t.Errorf("key %d: %d more while it lasts, want at most %d", i, n, most+burst/3)
				}
			}
			if n := meanwhile[3]; n < burst || n > 2*burst {
				t.Errorf("a fresh key: %d while it lasts, want from %d to twice that", n, burst)
			}
			c.mend(t, srv, admin)
			for _, r := range all {
				redistest.Eventually(t, "it is told", func() bool { return len(r.events()) >= len(c.events) })
				recovers(t, r)
			}
			after := flood(t, all, append(asks, hourly("fresher", burst, 1)))
			for i, n := range after[:4] {
				if total := n + meanwhile[i]; total > most+2*burst {
					t.Errorf("key %d: %d more in all, want at most %d", i, total, most+2*burst)
				}
			}
			for i, r := range all {
				if e := r.events(); !slices.Equal(e, c.events) {
					t.Errorf("replica %d was told %v, want %v", i, e, c.events)
				}
			}
			t.Logf("meanwhile %v, afterwards %v", meanwhile, after)
		})
	}
}

// A server that throws keys away has forgotten.
func TestEvictionIsNoticed(t *testing.T) {
	_, at := redistest.OnSocket(t)
	all, admin := three(t, at, 0), redistest.Dial(t, at)
	for _, r := range all {
		redistest.Eventually(t, "it is watched", r.Shared)
	}
	time.Sleep(500 * time.Millisecond) // until each has looked once
	redistest.Do(t, admin, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	redistest.Do(t, admin, "CONFIG", "SET", "maxmemory", "4000000")
	for i := range 40 {
		_ = admin.Do(t.Context(), admin.B().Set().Key("x"+strconv.Itoa(i)).Value(string(make([]byte, 1<<18))).Build()).Error()
	}
	for _, r := range all {
		redistest.Eventually(t, "it is told", func() bool { return slices.Contains(r.events(), count.SharedForgot) })
	}
}

// What a flood costs while the server hangs: nobody waits but those who found
// out.
func TestHangingServerHoldsNobody(t *testing.T) {
	srv, at := redistest.OnSocket(t)
	l := limits(t, at)
	f := count.NewFallback(count.FallbackConfig{}, l, count.NewMemory(count.MemoryConfig{Keys: 1024}), func() int { return 3 }, func(count.Notice) {})
	defer f.Close()
	takes(t, f, hourly("a", 3, 1))
	srv.Signal(t, syscall.SIGSTOP)
	defer srv.Signal(t, syscall.SIGCONT)
	began := time.Now()
	for range 1000 {
		takes(t, f, hourly("b", 3, 1))
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a thousand requests took %v", took)
	}
}

// A replica that starts while the server is down has its share, by the count
// that was kept, and counts in common as soon as the server is there.
func TestStartWithoutServer(t *testing.T) {
	srv, at := redistest.OnSocket(t)
	srv.Kill()
	file := filepath.Join(t.TempDir(), "replicas")
	redistest.Write(t, file, []byte("4\n"))
	shared, err := redis.OpenLimits(secrets.New(at), file)
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	r := new(replica)
	c := count.FallbackConfig{Timeout: 2 * time.Second, Watch: 100 * time.Millisecond, Retry: 50 * time.Millisecond}
	r.Fallback = count.NewFallback(c, shared, count.NewMemory(count.MemoryConfig{Keys: 1024}), shared.Count, r.notify)
	defer r.Close()
	for i := range 40 {
		if ok := takes(t, r, hourly("a", 40, 1)); ok != (i < 10) {
			t.Fatalf("%d of a quarter of 40: %v", i+1, ok)
		}
	}
	if full, _, err := r.Hold(t.Context(), []count.Place{{Key: count.Key("a"), Most: 4}}); full != -1 || err != nil {
		t.Errorf("%d %v", full, err)
	}
	srv.Run(t)
	recovers(t, r)
	if !takes(t, limits(t, at), hourly("b", 1, 1)) || takes(t, r, hourly("b", 1, 1)) {
		t.Error("it does not count in common")
	}
	if n := shared.Count(); n != 4 {
		t.Errorf("%d replicas, before those that were kept can have been seen", n)
	}
	for _, bad := range []string{"", "http://s3cret@x", "redis://192.0.2.1:6379"} {
		if _, err := redis.OpenLimits(secrets.New(bad), ""); err == nil || has(err.Error(), "s3cret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
