package count

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxRefill is the longest that an emptied [Quota] with Every may take to
	// be whole again.
	MaxRefill = 31 * 24 * time.Hour
	// MaxWindow is the furthest from now that a Quota may end.
	MaxWindow = 366 * 24 * time.Hour
	// MaxBurst is the largest burst: what a float64 counts exactly, with a
	// debt, since Redis has no other numbers.
	MaxBurst = 1 << 52
)

// MemoryConfig configures a [Memory]. The zero MemoryConfig counts a million
// keys apart.
type MemoryConfig struct {
	// Keys is how many keys are counted apart at the same time, rounded up to
	// a power of two of at least 8 and at most 2^26; more of them share. Those
	// whose quota is whole again do not count. Memory is 16 bytes for each, in
	// each of the classes of rates that are in use: quotas regained within ten
	// seconds, ten minutes, or longer; and 34 bytes for each if there are
	// windows: at most 82 bytes for each in all. Default: 1048576, which is
	// 16 MiB a class and 34 MiB for windows.
	Keys int
}

// A Memory is a [Store] in this process. Its memory is fixed, whatever comes;
// only what is held takes more, about 64 bytes for each place.
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
	ends   atomic.Pointer[windows]             // likewise
	held   places
}

var _ Store = (*Memory)(nil)

// classes keep accounts that are settled in seconds from waiting behind those
// that take days.
var classes = [...]time.Duration{10 * time.Second, 10 * time.Minute, MaxRefill}

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
	m := &Memory{seed: maphash.MakeSeed(), keys: 1 << bits.Len(uint(keys-1))}
	// The epoch is in the past, for requests that were received before now.
	m.epoch = time.Now().Add(-time.Duration(2 * late))
	m.held.init()
	return m
}

// refill is how long an emptied quota takes to be whole again.
func (q *Quota) refill() time.Duration { return q.Every * time.Duration(q.Burst) }

// Check says what makes no sense about q at now, which every [Store] answers
// with an error.
func (q *Quota) Check(now time.Time) error {
	switch {
	case q.Burst <= 0 || q.Burst > MaxBurst:
		return fmt.Errorf("a quota of %d makes no sense: it must be from 1 to %d", q.Burst, int64(MaxBurst))
	case q.Every < 0:
		return fmt.Errorf("a quota of one every %s makes no sense", q.Every)
	case q.Every > 0 && over(uint64(q.Every), uint64(q.Burst)):
		return fmt.Errorf("a quota of %d, one every %s, takes longer than %s to be whole again", q.Burst, q.Every, MaxRefill)
	case q.Every == 0 && (!q.Ends.After(now) || q.Ends.Sub(now) > MaxWindow):
		return fmt.Errorf("a quota that ends at %s makes no sense: it must end within %s from %s", q.Ends.UTC(), MaxWindow, now.UTC())
	}
	return nil
}

// over says whether so many units of a rate are more than MaxRefill, without
// dividing, which would be a tenth of what counting costs.
func over(every, burst uint64) bool {
	high, refill := bits.Mul64(every, burst)
	return high > 0 || refill > uint64(MaxRefill)
}

// Check says whether asks can be asked for at now: what every [Store] answers
// with an error otherwise.
func Check(asks []Ask, now time.Time) error {
	for i := range asks {
		a := &asks[i]
		if err := a.Quota.Check(now); err != nil {
			return err
		}
		if a.Cost < 0 || a.Cost > a.Quota.Burst {
			return fmt.Errorf("%d of a quota of %d cannot be taken", a.Cost, a.Quota.Burst)
		}
	}
	return nil
}

// Take implements [Store]. It ignores ctx, and fails only if what it is asked
// for makes no sense.
func (m *Memory) Take(_ context.Context, asks []Ask, results []Result, now time.Time) error {
	if err := Check(asks, now); err != nil {
		return err
	}
	m.takeShare(asks, results, now, 1)
	return nil
}

// takeShare is Take where one of n shares the quotas with others.
func (m *Memory) takeShare(asks []Ask, results []Result, now time.Time, n int64) {
	at := int64(now.Sub(m.epoch))
	refused := false
	for i := range asks {
		m.take(&asks[i], &results[i], at, now, n, !refused)
		if results[i].OK || refused {
			continue
		}
		refused = true
		for j := range i {
			a := &asks[j]
			m.add(a, -a.Cost, at, now, n)
			q := a.Quota.share(a.Cost, n)
			results[j].giveBack(&q, a.Cost)
		}
	}
}

// mostShares bounds how many may share a quota, so that nothing overflows.
const mostShares = 1000

// share returns what one of n may have of q. It may always have the cost that
// it asks for, if not often, or there would be requests that nobody could make.
func (q Quota) share(cost, n int64) Quota {
	if n > 1 {
		least := int64(1)
		if c := max(cost, -cost); c <= q.Burst {
			least = max(least, c)
		}
		q.Burst = max(q.Burst/n, least)
		q.Every *= time.Duration(n)
	}
	return q
}

// giveBack makes r tell what there is after what it was given is back.
func (r *Result) giveBack(q *Quota, cost int64) {
	r.Remaining += cost
	if q.Every > 0 {
		r.Reset -= q.Every * time.Duration(cost)
	} else if r.Remaining == q.Burst {
		r.Reset = 0
	}
}

// take takes, or only looks.
func (m *Memory) take(a *Ask, res *Result, at int64, now time.Time, n int64, really bool) {
	id := max(maphash.Bytes(m.seed, a.Key), 1)
	q := &a.Quota
	if n > 1 {
		part := q.share(a.Cost, n)
		q = &part
	}
	if q.Every == 0 {
		*res = m.windows().take(id, q, a.Cost, at, q.Ends.Sub(now), really)
		return
	}
	// The whole quota says which table it is, whatever its shares are.
	refill := a.Quota.refill()
	t, horizon := m.table(refill)
	t.take(res, id, q, a.Cost, at, bounds{n * int64(refill), n * int64(horizon)}, really)
}

// Add implements [Store]. What is added to a window that has ended is
// forgotten.
func (m *Memory) Add(_ context.Context, asks []Ask, now time.Time) error {
	return m.addShare(asks, now, 1)
}

func (m *Memory) addShare(asks []Ask, now time.Time, n int64) error {
	at := int64(now.Sub(m.epoch))
	for i := range asks {
		q := &asks[i].Quota
		if q.Every == 0 && !q.Ends.After(now) {
			continue
		}
		if err := q.Check(now); err != nil {
			return err
		}
		m.add(&asks[i], asks[i].Cost, at, now, n)
	}
	return nil
}

func (m *Memory) add(a *Ask, cost, at int64, now time.Time, n int64) {
	if cost == 0 {
		return
	}
	q := &a.Quota
	if n > 1 {
		part := q.share(cost, n)
		q = &part
	}
	// More than this makes no difference, and does not overflow.
	cost = min(max(cost, -2*a.Quota.Burst), 2*q.Burst)
	id := max(maphash.Bytes(m.seed, a.Key), 1)
	if q.Every == 0 {
		m.windows().add(id, q, cost, at, q.Ends.Sub(now))
		return
	}
	refill := a.Quota.refill()
	t, horizon := m.table(refill)
	t.add(id, q, cost, at, bounds{n * int64(refill), n * int64(horizon)})
}

// bounds say how long those may take to be settled that have a place of
// their own, and those of the whole table.
type bounds struct{ own, any int64 }

// account finds the key's place in its set, or the one it may take, and what
// is on its account: until when. The lock of the set must be held.
func (t *table) account(id, set uint64, at int64, bound bounds) (s *slot, owned bool, until int64) {
	s, owned = find(t.slots[set*ways:set*ways+ways], id, at)
	if s.id == 0 {
		return s, owned, at
	}
	most := bound.any
	if owned {
		most = bound.own
	}
	// More on an account than its quota and a debt is the trace of a clock
	// that has gone back, or of a quota that was larger.
	s.until = min(s.until, at+2*most)
	return s, owned, max(s.until, at)
}

func (t *table) take(res *Result, id uint64, q *Quota, cost, at int64, bound bounds, really bool) {
	set := id & t.mask
	lock := &t.locks[set%stripes]
	lock.Lock()
	at = lock.clock(at)
	s, owned, until := t.account(id, set, at, bound)
	inherited := !owned && until > at
	until, ok := q.take(res, until, at, cost)
	if ok && cost > 0 && really {
		s.id, s.until = id, until
	}
	lock.Unlock()
	if !really && ok {
		res.giveBack(q, cost)
	}
	res.Shared = !ok && inherited
}

func (t *table) add(id uint64, q *Quota, cost, at int64, bound bounds) {
	set := id & t.mask
	lock := &t.locks[set%stripes]
	lock.Lock()
	defer lock.Unlock()
	at = lock.clock(at)
	s, owned, until := t.account(id, set, at, bound)
	if cost < 0 && !owned {
		return // what it took is on the account of another by now, and stays there
	}
	debt := at + 2*int64(q.refill())
	// An account that was taken over may be beyond that debt, and stays so.
	until = min(until+cost*int64(q.Every), max(debt, until))
	s.id, s.until = id, max(until, at)
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
// for each unit taken.
func (q *Quota) take(res *Result, until, at, cost int64) (next int64, ok bool) {
	limit := at + int64(q.refill())
	next = until + cost*int64(q.Every)
	if next > limit {
		*res = Result{Remaining: max(0, limit-until) / int64(q.Every), Retry: time.Duration(next - limit), Reset: time.Duration(until - at)}
		return until, false
	}
	*res = Result{OK: true, Remaining: (limit - next) / int64(q.Every), Reset: time.Duration(next - at)}
	return next, true
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
