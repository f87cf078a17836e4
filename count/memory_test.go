package count_test

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/count/counttest"
)

func TestMemory(t *testing.T) {
	counttest.Run(t, func(*testing.T) (count.Store, counttest.Clock) {
		return count.NewMemory(count.MemoryConfig{Keys: 1 << 10}), counttest.NewFake()
	})
}

func key(n uint32) count.Key { return binary.BigEndian.AppendUint32(nil, n) }

func take(t testing.TB, s count.Store, k count.Key, q count.Quota, cost int64, now time.Time) count.Result {
	t.Helper()
	res := make([]count.Result, 1)
	if err := s.Take(t.Context(), []count.Ask{{Key: k, Quota: q, Cost: cost}}, res, now); err != nil {
		t.Fatal(err)
	}
	return res[0]
}

// exact counts with a map: what nobody may exceed.
type exact map[string]time.Time

func (e exact) take(k count.Key, q count.Quota, now time.Time) bool {
	until := e[string(k)]
	if until.Before(now) {
		until = now
	}
	until = until.Add(q.Every)
	if until.After(now.Add(q.Every * time.Duration(q.Burst))) {
		return false
	}
	e[string(k)] = until
	return true
}

// However crowded the table, nobody gets more than the quota, and what fits
// gets exactly the quota.
func TestMemoryNeverGrantsMore(t *testing.T) {
	for _, keys := range []uint32{1, 8, 50, 3000} {
		s, model := count.NewMemory(count.MemoryConfig{Keys: 64}), exact{}
		rnd := rand.New(rand.NewPCG(1, uint64(keys)))
		now, passed, exactPassed := time.Now(), 0, 0
		q := count.Quota{Every: 7 * time.Millisecond, Burst: 4}
		alone := exact{}
		for range 60_000 {
			now = now.Add(time.Duration(rnd.Int64N(int64(8*time.Millisecond))) / time.Duration(keys))
			k := key(rnd.Uint32N(keys))
			if alone.take(k, q, now) {
				exactPassed++
			}
			if take(t, s, k, q, 1, now).OK {
				passed++
				if !model.take(k, q, now) {
					t.Fatalf("%d keys: more than the quota was granted", keys)
				}
			}
		}
		if keys <= 8 && passed != exactPassed { // they fit into one set
			t.Errorf("%d keys: %d of %d granted", keys, passed, exactPassed)
		}
		if passed == 0 {
			t.Errorf("%d keys: nothing was granted", keys)
		}
	}
}

// The same for windows of several lengths and sizes, also with additions and
// what is given back.
func TestWindowsNeverGrantMore(t *testing.T) {
	for _, keys := range []uint32{1, 8, 50, 3000} {
		s := count.NewMemory(count.MemoryConfig{Keys: 64})
		rnd := rand.New(rand.NewPCG(2, uint64(keys)))
		start := time.Now()
		now, passed, exactPassed := start, 0, 0
		used, alone := map[string]int64{}, map[string]int64{}
		for range 60_000 {
			now = now.Add(time.Duration(rnd.Int64N(int64(5 * time.Millisecond))))
			n := rnd.Uint32N(keys)
			length := time.Duration(1+n%3) * 20 * time.Second
			window := now.Sub(start) / length
			q := count.Quota{Burst: int64(5 + 90*(n%2)), Ends: start.Add((window + 1) * length)}
			k := key(n).With(q.Ends.String())
			if alone[string(k)] < q.Burst {
				alone[string(k)]++
				exactPassed++
			}
			if take(t, s, k, q, 1, now).OK {
				passed++
				if used[string(k)]++; used[string(k)] > q.Burst {
					t.Fatalf("%d keys: more than the quota was granted", keys)
				}
			}
		}
		if keys == 1 && passed != exactPassed { // windows stay a minute after they have ended, so more do not fit
			t.Errorf("%d keys: %d of %d granted", keys, passed, exactPassed)
		}
		if passed == 0 {
			t.Errorf("%d keys: nothing was granted", keys)
		}
		t.Logf("%d keys over 64 places: %d granted, %d with unbounded memory", keys, passed, exactPassed)
	}
}

// Filling the table does not wash a count clean, and does not make it unlimited.
func TestMemoryOverfullStaysLimited(t *testing.T) {
	now := time.Now()
	for _, q := range []count.Quota{{Every: time.Hour, Burst: 5}, {Burst: 5, Ends: now.Add(5 * time.Hour)}} {
		s := count.NewMemory(count.MemoryConfig{Keys: 64})
		for range 5 {
			take(t, s, key(1), q, 1, now)
		}
		passed := 0
		for n := range uint32(100_000) {
			if take(t, s, key(2+n), q, 1, now).OK {
				passed++
			}
		}
		if most := 64 * 5; passed > most {
			t.Errorf("%d passed through 64 places of 5, want at most %d", passed, most)
		}
		if res := take(t, s, key(1), q, 1, now); res.OK {
			t.Error("the flood washed a client's count clean")
		}
		if res := take(t, s, key(200_000), q, 1, now); res.OK || !res.Shared {
			t.Errorf("a newcomer in a full table: %+v, want a refusal that says why", res)
		}
		fast := count.Quota{Every: 10 * time.Millisecond, Burst: 200}
		if res := take(t, s, key(200_000), fast, 1, now); !res.OK || res.Remaining != 199 {
			t.Errorf("a flood of one class of rates took another's room: %+v", res)
		}
		later := now.Add(5*time.Hour + 2*time.Minute)
		if q.Every == 0 {
			q.Ends = later.Add(time.Hour)
		}
		if res := take(t, s, key(200_000), q, 1, later); !res.OK || res.Remaining != 4 {
			t.Errorf("when all quotas are whole again: %+v", res)
		}
	}
}

// A key pushed out by windows that end sooner does not come back with a clean
// account when those have made room.
func TestWindowsThatEndSoonWashNothing(t *testing.T) {
	s, now := count.NewMemory(count.MemoryConfig{Keys: 8}), time.Now()
	month := count.Quota{Burst: 100, Ends: now.Add(20 * 24 * time.Hour)}
	take(t, s, key(0), month, 30, now)
	minute := count.Quota{Burst: 100, Ends: now.Add(time.Minute)}
	for n := range uint32(20) {
		take(t, s, key(1+n), minute, 40, now)
	}
	for _, at := range []time.Duration{0, time.Hour, 19 * 24 * time.Hour} {
		if res := take(t, s, key(0), month, 0, now.Add(at)); res.Remaining > 70 {
			t.Errorf("after %v: %+v, want at most 70", at, res)
		}
	}
}

// Accounts that are settled make room, whoever else is deep in debt.
func TestMemoryReusesSettledPlaces(t *testing.T) {
	s := count.NewMemory(count.MemoryConfig{Keys: 8})
	q, now := count.Quota{Every: time.Second, Burst: 10}, time.Now()
	for n := range uint32(100) {
		now = now.Add(2 * time.Second)
		take(t, s, key(0), q, 2, now)
		if n == 0 {
			take(t, s, key(0), q, 8, now)
		}
		if res := take(t, s, key(1+n), q, 1, now); !res.OK || res.Remaining != 9 {
			t.Fatalf("newcomer %d: %+v, though seven places are settled", n, res)
		}
	}
}

// A request that was received a while ago and is counted only now, because the
// process stood still or a guard in front was slow, is late. It is no sign of a
// clock that has gone back, and must not give anybody a fresh quota.
func TestMemoryLateRequestsWashNothing(t *testing.T) {
	q := count.Quota{Every: 10 * time.Millisecond, Burst: 200}
	for _, late := range []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, time.Minute} {
		s, now := count.NewMemory(count.MemoryConfig{Keys: 8}), time.Now()
		if res := take(t, s, key(1), q, 200, now); !res.OK {
			t.Fatalf("%+v", res)
		}
		if res := take(t, s, key(1), q, 1, now.Add(-late)); res.OK {
			t.Errorf("%s late: passed with nothing left", late)
		}
		if res := take(t, s, key(2), q, 1, now.Add(-late)); !res.OK {
			t.Errorf("%s late: another client's first request was refused", late)
		}
		if res := take(t, s, key(1), q, 1, now); res.OK {
			t.Errorf("a request %s late washed the count clean: %+v", late, res)
		}
		if res := take(t, s, key(1), q, 200, now.Add(2*time.Second)); !res.OK {
			t.Errorf("%s late: the quota is not whole again when it should be: %+v", late, res)
		}
	}
}

// A clock that goes back an hour locks nobody out for longer than a debt.
func TestMemoryClockGoesBack(t *testing.T) {
	s, now := count.NewMemory(count.MemoryConfig{Keys: 8}), time.Now()
	q := count.Quota{Every: time.Second, Burst: 10}
	take(t, s, key(1), q, 10, now)
	back := now.Add(-time.Hour)
	if res := take(t, s, key(1), q, 1, back); res.OK || res.Retry > 11*time.Second {
		t.Errorf("%+v", res)
	}
	if res := take(t, s, key(1), q, 1, back.Add(11*time.Second)); !res.OK {
		t.Errorf("%+v", res)
	}
}

// Ten million keys do not make the table grow.
func TestMemoryIsBounded(t *testing.T) {
	keys := uint32(10_000_000)
	if raceEnabled || testing.Short() {
		keys = 500_000
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	now := time.Now()
	for name, c := range map[string]struct {
		q     count.Quota
		bound int64
	}{
		"rate":   {count.Quota{Every: 10 * time.Millisecond, Burst: 200}, 16 << 20},
		"window": {count.Quota{Burst: 200, Ends: now.Add(time.Hour)}, 34 << 20},
	} {
		before := heap()
		s := count.NewMemory(count.MemoryConfig{})
		asks, res := []count.Ask{{Key: make(count.Key, 4), Quota: c.q, Cost: 1}}, make([]count.Result, 1)
		start := time.Now()
		for n := range keys {
			if n%100 == 0 {
				now = now.Add(time.Microsecond)
			}
			binary.BigEndian.PutUint32(asks[0].Key, n)
			if err := s.Take(t.Context(), asks, res, now); err != nil {
				t.Fatal(err)
			}
		}
		grown := int64(heap() - before)
		t.Logf("%s: %d keys: %d KiB, %s each", name, keys, grown>>10, time.Since(start)/time.Duration(keys))
		if grown > c.bound+256<<10 {
			t.Errorf("%s: %d distinct keys took %d bytes, the bound is %d", name, keys, grown, c.bound)
		}
		runtime.KeepAlive(s)
	}
}

// What is held is forgotten when it is released.
func TestPlacesAreBoundedByWhatIsHeld(t *testing.T) {
	s := count.NewMemory(count.MemoryConfig{Keys: 8})
	for n := range uint32(100_000) {
		full, release, err := s.Hold(t.Context(), []count.Place{{Key: key(n), Most: 1}, {Key: key(n), Most: 2}})
		if full != -1 || err != nil {
			t.Fatal(full, err)
		}
		release()
	}
	if n := s.Held(); n != 0 {
		t.Errorf("%d keys are remembered", n)
	}
}

func TestTakeAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s, now := count.NewMemory(count.MemoryConfig{Keys: 64}), time.Now()
	asks := []count.Ask{
		{Key: key(1), Quota: count.Quota{Every: time.Millisecond, Burst: 10}, Cost: 1},
		{Key: key(2), Quota: count.Quota{Burst: 10, Ends: now.Add(time.Hour)}, Cost: 1},
	}
	res := make([]count.Result, 2)
	n := testing.AllocsPerRun(100, func() {
		_ = s.Take(t.Context(), asks, res, now)
		_ = s.Add(t.Context(), asks, now)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A quota may take no longer than MaxRefill to be whole again, however large
// its numbers are.
func TestLongestQuota(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		every time.Duration
		burst int64
		ok    bool
	}{
		{count.MaxRefill, 1, true},
		{count.MaxRefill + 1, 1, false},
		{count.MaxRefill / 2, 2, true},
		{count.MaxRefill/2 + 1, 2, false},
		{1, int64(count.MaxRefill), true},
		{1, int64(count.MaxRefill) + 1, false},
		{1 << 32, 1 << 32, false}, // 2^64, which is 0 in 64 bits
		{1<<63 - 1, count.MaxBurst, false},
	} {
		q := count.Quota{Every: c.every, Burst: c.burst}
		if err := q.Check(now); (err == nil) != c.ok {
			t.Errorf("%d of one every %d ns: %v", c.burst, c.every, err)
		}
	}
}
