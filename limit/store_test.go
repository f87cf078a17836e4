package limit_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/limit"
)

type failing struct{}

func (failing) Take(context.Context, limit.Key, limit.Quota, int, time.Time) (limit.Result, error) {
	return limit.Result{}, errors.New("no connection")
}

func key(n uint32) limit.Key {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return limit.Key{Policy: "default", Site: "s", Route: "/r", Client: netip.AddrFrom4(b)}
}

func take(t testing.TB, s limit.Store, k limit.Key, q limit.Quota, cost int, now time.Time) limit.Result {
	t.Helper()
	res, err := s.Take(t.Context(), k, q, cost, now)
	if err != nil {
		t.Fatal(err)
	}
	if res.Remaining < 0 || res.Remaining > q.Burst || res.Retry < 0 || !res.OK && res.Retry == 0 {
		t.Fatalf("%+v makes no sense for %+v", res, q)
	}
	return res
}

func TestMemory(t *testing.T) {
	testStore(t, func(*testing.T) limit.Store { return limit.NewMemory(limit.MemoryConfig{Keys: 1 << 10}) })
}

// testStore runs every promise of [limit.Store] against fresh stores.
func testStore(t *testing.T, open func(*testing.T) limit.Store) {
	q := limit.Quota{Every: time.Minute, Burst: 10}
	now := time.Now()
	t.Run("the burst, then one after each interval", func(t *testing.T) {
		s := open(t)
		for i := range 10 {
			if res := take(t, s, key(1), q, 1, now); !res.OK || res.Remaining != 9-i {
				t.Fatalf("%d: %+v", i, res)
			}
		}
		if res := take(t, s, key(1), q, 1, now); res.OK || res.Retry != time.Minute || res.Remaining != 0 {
			t.Errorf("%+v", res)
		}
		if res := take(t, s, key(1), q, 1, now.Add(time.Minute)); !res.OK {
			t.Errorf("after Retry: %+v", res)
		}
	})
	t.Run("a cost is taken whole or not at all", func(t *testing.T) {
		s := open(t)
		if res := take(t, s, key(1), q, 7, now); !res.OK || res.Remaining != 3 {
			t.Errorf("%+v", res)
		}
		if res := take(t, s, key(1), q, 4, now); res.OK || res.Remaining != 3 || res.Retry != time.Minute {
			t.Errorf("%+v", res)
		}
		if res := take(t, s, key(1), q, 3, now); !res.OK {
			t.Errorf("a refusal was charged: %+v", res)
		}
	})
	t.Run("a cost of 0 only looks", func(t *testing.T) {
		s := open(t)
		for range 20 {
			if res := take(t, s, key(1), q, 0, now); !res.OK || res.Remaining != 10 {
				t.Fatalf("%+v", res)
			}
		}
	})
	t.Run("every part of the key counts apart", func(t *testing.T) {
		s := open(t)
		a := netip.MustParseAddr("192.0.2.1")
		for _, k := range []limit.Key{
			{Policy: "p", Site: "ab", Route: "c", Client: a}, {Policy: "p", Site: "a", Route: "bc", Client: a},
			{Policy: "q", Site: "ab", Route: "c", Client: a}, {Policy: "p", Site: "c", Route: "ab", Client: a},
			{Policy: "ab", Site: "p", Route: "c", Client: a}, {Policy: "p", Site: "ab", Route: "c"},
		} {
			if res := take(t, s, k, q, 10, now); !res.OK {
				t.Errorf("%+v shares with another: %+v", k, res)
			}
		}
	})
	t.Run("what makes no sense is an error", func(t *testing.T) {
		s := open(t)
		for _, c := range []struct {
			q    limit.Quota
			cost int
		}{{limit.Quota{}, 1}, {limit.Quota{Every: -1, Burst: 1}, 1}, {limit.Quota{Every: 1}, 1}, {q, 11}, {q, -1}, {limit.Quota{Every: 1 << 62, Burst: 4}, 1}} {
			if res, err := s.Take(t.Context(), key(1), c.q, c.cost, now); err == nil || res.OK {
				t.Errorf("%+v cost %d: %+v, no error", c.q, c.cost, res)
			}
		}
	})
}

// exact is the same algorithm with a map: what nobody may exceed.
type exact map[limit.Key]time.Time

func (e exact) take(k limit.Key, q limit.Quota, now time.Time) bool {
	until := e[k]
	if until.Before(now) {
		until = now
	}
	until = until.Add(q.Every)
	if until.After(now.Add(q.Every * time.Duration(q.Burst))) {
		return false
	}
	e[k] = until
	return true
}

// However crowded the table, nobody gets more than the quota, and what fits
// gets exactly the quota.
func TestMemoryNeverGrantsMore(t *testing.T) {
	for _, keys := range []uint32{1, 8, 50, 3000} {
		s, model := limit.NewMemory(limit.MemoryConfig{Keys: 64}), exact{}
		rnd := rand.New(rand.NewPCG(1, uint64(keys)))
		now, passed, exactPassed := time.Now(), 0, 0
		q := limit.Quota{Every: 7 * time.Millisecond, Burst: 4}
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
		t.Logf("%d keys over 64 places: %d granted, %d with unbounded memory", keys, passed, exactPassed)
	}
}

// Filling the table does not wash a count clean, and does not make it unlimited.
func TestMemoryOverfullStaysLimited(t *testing.T) {
	s := limit.NewMemory(limit.MemoryConfig{Keys: 64})
	q, now := limit.Quota{Every: time.Hour, Burst: 5}, time.Now()
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
	res := take(t, s, key(1), q, 1, now)
	if res.OK {
		t.Error("the flood washed a client's count clean")
	}
	if res := take(t, s, key(200_000), q, 1, now); res.OK || !res.Shared {
		t.Errorf("a newcomer in a full table: %+v, want a refusal that says why", res)
	}
	fast := limit.Quota{Every: 10 * time.Millisecond, Burst: 200}
	if res := take(t, s, key(200_000), fast, 1, now); !res.OK || res.Remaining != 199 {
		t.Errorf("a flood of one class of rates took another's room: %+v", res)
	}
	if res := take(t, s, key(200_000), q, 1, now.Add(5*time.Hour)); !res.OK || res.Remaining != 4 {
		t.Errorf("when all quotas are whole again: %+v", res)
	}
}

// Accounts that are settled make room, whoever else is deep in debt.
func TestMemoryReusesSettledPlaces(t *testing.T) {
	s := limit.NewMemory(limit.MemoryConfig{Keys: 8})
	q, now := limit.Quota{Every: time.Second, Burst: 10}, time.Now()
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

// Ten million addresses do not make the table grow.
func TestMemoryIsBounded(t *testing.T) {
	addresses := uint32(10_000_000)
	if raceEnabled || testing.Short() {
		addresses = 500_000
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	s := limit.NewMemory(limit.MemoryConfig{})
	q, now := limit.Quota{Every: 10 * time.Millisecond, Burst: 200}, time.Now()
	start := time.Now()
	for n := range addresses {
		if n%100 == 0 {
			now = now.Add(time.Microsecond)
		}
		if _, err := s.Take(t.Context(), key(n), q, 1, now); err != nil {
			t.Fatal(err)
		}
	}
	grown := int64(heap() - before)
	t.Logf("%d addresses: %d KiB, %s each", addresses, grown>>10, time.Since(start)/time.Duration(addresses))
	if bound := int64(16<<20 + 256<<10); grown > bound {
		t.Errorf("%d distinct addresses took %d bytes, the bound is %d", addresses, grown, bound)
	}
	runtime.KeepAlive(s)
}
