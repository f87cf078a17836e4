package limit

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// MemoryConfig configures a [Memory]. The zero MemoryConfig counts a million
// clients apart.
type MemoryConfig struct {
	// Keys is how many pairs of client and route are counted apart at the same
	// time, rounded up to a power of two of at least 8 and at most 2^26; more
	// of them share. Those whose quota is whole again do not count. Memory is
	// 16 bytes for each, in each of the classes of rates that are in use:
	// quotas regained within ten seconds, ten minutes, or longer; at most
	// 48 bytes for each in all. Default: 1048576, which is 16 MiB a class.
	Keys int
}

// A Memory is a [Store] in this process. Its memory is fixed, whatever comes.
//
// It is a table of sets with eight places each, and a key belongs to one set.
// When all places of a set are taken by keys that have used some of their
// quota, a newcomer takes over the place that has the least on its account,
// with that account. So a key that was pushed out and comes back finds at
// least as much on its account as it left: nobody can wash a count clean by
// filling the table, and with more keys than places they share, down to no
// requests at all, for as long as that class takes to regain its quota.
type Memory struct {
	seed   maphash.Seed
	epoch  time.Time // of the monotonic clock, which never goes back
	keys   int
	mu     sync.Mutex
	tables [len(classes)]atomic.Pointer[table] // made when first used
}

// classes keep accounts that are settled in seconds from waiting behind those
// that take days.
var classes = [...]time.Duration{10 * time.Second, 10 * time.Minute, maxRefill}

const (
	ways        = 8
	stripes     = 256
	defaultKeys = 1 << 20
	maxKeys     = 1 << 26
	// late is how old a request may be when it is counted: the process stood
	// still, or a guard in front was slow. What is older than that is taken for
	// a clock that has gone back, and after one that has gone back less far
	// nothing is regained until it has caught up.
	late = int64(time.Minute)
)

type table struct {
	slots []slot
	mask  uint64 // of sets
	locks [stripes]stripe
}

// A stripe guards the sets that fall to it and has their clock.
type stripe struct {
	sync.Mutex
	latest int64
	_      [48]byte // a cache line each
}

// clock returns the time to count at. If a late request turned time back, the
// accounts would be ahead of their quotas, and clipping them would give away
// what was spent in between.
func (s *stripe) clock(at int64) int64 {
	if at > s.latest || at < s.latest-late {
		s.latest = at
	}
	return s.latest
}

// A slot is one key's account. 64 bits of a keyed hash stand for the key:
// nobody can aim for a collision, and one that happens only shares a quota.
type slot struct {
	id    uint64 // 0: free
	until int64  // when the quota is whole again: GCRA's theoretical arrival time
}

// NewMemory returns a Memory.
func NewMemory(c MemoryConfig) *Memory {
	keys := c.Keys
	if keys <= 0 {
		keys = defaultKeys
	}
	keys = min(max(keys, ways), maxKeys)
	// The epoch is in the past, for requests that were received before now.
	epoch := time.Now().Add(-time.Duration(2 * late))
	return &Memory{seed: maphash.MakeSeed(), epoch: epoch, keys: 1 << bits.Len(uint(keys-1))}
}

// Take implements [Store]. It ignores ctx, and fails only if what it is asked
// for makes no sense.
func (m *Memory) Take(_ context.Context, k Key, q Quota, cost int, now time.Time) (Result, error) {
	if !q.valid() || cost < 0 || cost > q.Burst {
		return Result{}, fmt.Errorf("%d of a quota of %d, one every %s, cannot be taken", cost, q.Burst, q.Every)
	}
	t, horizon := m.table(q.refill())
	id := m.hash(k)
	set := id & t.mask
	lock := &t.locks[set%stripes]
	places := t.slots[set*ways : set*ways+ways]
	at := int64(now.Sub(m.epoch))

	lock.Lock()
	at = lock.clock(at)
	s, owned := find(places, id, at)
	until := at
	if s.id != 0 {
		most := horizon
		if owned {
			most = q.refill()
		}
		// More on an account than it can have is the trace of a clock that
		// has gone back, or of a quota that was larger.
		s.until = min(s.until, at+int64(most))
		until = max(s.until, at)
	}
	inherited := !owned && until > at
	res, until := q.take(until, at, cost)
	if res.OK && cost > 0 {
		s.id, s.until = id, until
	}
	lock.Unlock()
	res.Shared = !res.OK && inherited
	return res, nil
}

// find returns the key's place, or the one that it may take: a free one, or
// else the one with the least on its account.
func find(places []slot, id uint64, at int64) (s *slot, owned bool) {
	for i := range places {
		p := &places[i]
		if p.id == id {
			return p, true
		}
		if p.id == 0 {
			// Places are taken from the first on and never given back, so
			// there is nothing behind a free one.
			if s == nil || s.until > at {
				s = p
			}
			return s, false
		}
		if s == nil || p.until < s.until {
			s = p
		}
	}
	return s, false
}

// take is GCRA: until is when the quota is whole again, and moves on by Every
// for each request taken.
func (q Quota) take(until, at int64, cost int) (Result, int64) {
	limit := at + int64(q.refill())
	next := until + int64(cost)*int64(q.Every)
	if next > limit {
		left := max(0, limit-until) / int64(q.Every)
		return Result{Remaining: int(left), Retry: time.Duration(next - limit)}, until
	}
	return Result{OK: true, Remaining: int((limit - next) / int64(q.Every))}, next
}

func (m *Memory) hash(k Key) uint64 {
	var b [40]byte
	binary.LittleEndian.PutUint64(b[0:], maphash.String(m.seed, k.Policy))
	binary.LittleEndian.PutUint64(b[8:], maphash.String(m.seed, k.Site))
	binary.LittleEndian.PutUint64(b[16:], maphash.String(m.seed, k.Route))
	a := k.Client.As16()
	copy(b[24:], a[:])
	return max(maphash.Bytes(m.seed, b[:]), 1)
}

// table returns the accounts of a class of quotas and the most that one of
// them can hold.
func (m *Memory) table(refill time.Duration) (t *table, horizon time.Duration) {
	class := 0
	for refill > classes[class] && class < len(classes)-1 {
		class++
	}
	if t = m.tables[class].Load(); t != nil {
		return t, classes[class]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t = m.tables[class].Load(); t == nil {
		t = &table{slots: make([]slot, m.keys), mask: uint64(m.keys/ways) - 1}
		m.tables[class].Store(t)
	}
	return t, classes[class]
}
