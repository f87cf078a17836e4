package attempts

import (
	"context"
	"encoding/binary"
	"math/bits"
	"sync"
	"time"
)

const (
	shards = 64
	ways   = 8 // places that a key can have
)

// A Memory is a [Store] in this process, of a fixed size. How long ago something
// was it knows by the time that the process has run, so that a clock which is
// set neither ends a wait nor makes one longer.
type Memory struct {
	shards [shards]shard
	epoch  time.Time // 1970, reckoned from the start by the clock that nobody sets
}

type shard struct {
	mu     sync.Mutex
	places []place // made at first use; a multiple of ways, which is a power of two
	size   int
	_      [24]byte // no two locks share a cache line
}

// A place is 40 bytes.
type place struct {
	key   Key
	last  int64   // when something was counted last, in nanoseconds since the epoch; 0: free
	next  int64   // no try before this
	level float32 // failures that count for the wait, as of last
	total uint32  // failures since the last success
}

// NewMemory returns a store with room for about that many buckets.
func NewMemory(places int) *Memory {
	now := time.Now()
	m := &Memory{epoch: now.Add(-time.Duration(now.UnixNano()))}
	per := max(ways, places/shards)
	per = 1 << bits.Len(uint(per-1))
	for i := range m.shards {
		m.shards[i].size = per
	}
	return m
}

// at is a time as places keep it.
func (m *Memory) at(t time.Time) int64 { return int64(t.Sub(m.epoch)) }

func (m *Memory) shard(k Key) *shard { return &m.shards[k[0]%shards] }

// find returns the place of a key, or nil.
func (s *shard) find(k Key) *place {
	set := s.set(k)
	for i := range set {
		if set[i].last != 0 && set[i].key == k {
			return &set[i]
		}
	}
	return nil
}

func (s *shard) set(k Key) []place {
	if s.places == nil {
		s.places = make([]place, s.size)
	}
	at := int(binary.LittleEndian.Uint32(k[4:])) & (s.size/ways - 1) * ways
	return s.places[at : at+ways]
}

// get returns the place of a key, taking that of another if there is none: of
// the one that was used the longest ago, where each failure counts as two
// hours, so that a flood of new names does not wash away who is under attack.
func (s *shard) get(k Key) *place {
	if p := s.find(k); p != nil {
		return p
	}
	set := s.set(k)
	victim := &set[0]
	for i := range set {
		if set[i].worth() < victim.worth() {
			victim = &set[i]
		}
	}
	*victim = place{key: k}
	return victim
}

func (p *place) worth() int64 {
	if p.last == 0 {
		return 0
	}
	return p.last + int64(min(p.total, maxFailures))*int64(2*time.Hour)
}

// levelAt is how many failures still count.
func (p *place) levelAt(s Schedule, now int64) float32 {
	if p.last == 0 {
		return 0
	}
	return max(0, p.level-float32(now-p.last)/float32(s.Forget))
}

// waits says how long a bucket has to wait; p may be nil.
func (p *place) waits(b *Bucket, now int64) (wait time.Duration, locked bool) {
	switch {
	case p == nil:
		return 0, false
	case b.Most > 0 && int(p.total) >= b.Most:
		return max(b.Schedule.Longest, time.Duration(p.next-now)), true
	case p.next > now:
		return time.Duration(p.next - now), false
	}
	return 0, false
}

// Reserve counts one failure in every bucket.
func (m *Memory) Reserve(_ context.Context, buckets []Bucket, now time.Time) (Result, error) {
	at := m.at(now)
	res := Result{Counts: make([]uint32, len(buckets))}
	// Most who have to wait change nothing.
	for i := range buckets {
		m.look(&res, buckets, i, at)
	}
	if res.Wait > 0 {
		return res, nil
	}
	undo := make([]place, 0, len(buckets))
	for i := range buckets {
		before, ok := m.count(&res, buckets, i, at)
		if ok {
			undo = append(undo, before)
			continue
		}
		// Another try was faster.
		for j, before := range undo {
			m.undo(&buckets[j], before)
		}
		return res, nil
	}
	return res, nil
}

func (m *Memory) look(res *Result, buckets []Bucket, i int, at int64) {
	s := m.shard(buckets[i].Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(buckets[i].Key)
	wait, locked := p.waits(&buckets[i], at)
	if wait > res.Wait {
		clear(res.Counts)
		res.Wait, res.By, res.Locked = wait, i, locked
		res.Counts[i] = p.total
	}
}

// count counts one failure in a bucket and returns what was there before.
func (m *Memory) count(res *Result, buckets []Bucket, i int, at int64) (before place, ok bool) {
	b := &buckets[i]
	if b.Member != (Key{}) && m.seen(b, at) {
		return place{}, true
	}
	s := m.shard(b.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.get(b.Key)
	before = *p
	if wait, locked := p.waits(b, at); wait > 0 {
		clear(res.Counts)
		res.Wait, res.By, res.Locked = wait, i, locked
		res.Counts[i] = p.total
		return before, false
	}
	at = max(at, p.last) // a clock that went back makes nobody younger
	p.level = p.levelAt(b.Schedule, at) + 1
	if p.level == 1 && b.Most == 0 {
		p.total = 0 // all of it is forgotten
	}
	p.total++
	p.last = at
	p.next = 0 // not at: of two at the same time, one may have looked at the clock before
	if d := b.Schedule.delay(int(p.level + 0.001)); d > 0 {
		p.next = at + int64(d)
	}
	res.Counts[i] = p.total
	return before, true
}

// seen notes a member and reports whether it was counted already.
func (m *Memory) seen(b *Bucket, at int64) bool {
	s := m.shard(b.Member)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.get(b.Member)
	again := p.last != 0 && at-p.last < 12*int64(b.Schedule.Forget)
	p.last = max(at, p.last)
	return again
}

// undo takes one count back that led to nothing.
func (m *Memory) undo(b *Bucket, before place) {
	if before.key != b.Key {
		return // a member that had been counted
	}
	s := m.shard(b.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.find(b.Key); p != nil {
		p.level = max(0, p.level-1)
		p.total -= min(1, p.total)
		if p.total == before.total {
			p.next = before.next
		}
	}
}

// Refund takes failures back.
func (m *Memory) Refund(_ context.Context, refunds []Refund, now time.Time) error {
	for _, r := range refunds {
		m.refund(r)
		if r.Member != (Key{}) && (r.Count > 0 || r.All) {
			m.refund(Refund{Key: r.Member, All: true})
		}
	}
	return nil
}

func (m *Memory) refund(r Refund) {
	s := m.shard(r.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(r.Key)
	switch {
	case p == nil:
	case r.All:
		*p = place{}
	default:
		p.level = max(0, p.level-float32(r.Count))
		p.total -= min(r.Count, p.total)
		if r.Count > 0 && p.last == m.at(r.At) {
			p.next = 0 // the wait was for this failure alone
		}
		if r.Success {
			p.total = 0
		}
	}
}
