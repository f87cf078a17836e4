package count

import (
	"math"
	"time"
)

// windows are the accounts of quotas that end. They too are sets of eight
// places. Since they end at different times, one that is pushed out leaves its
// trace beside the places: until it would have ended, nobody who comes to that
// set begins with less than the share that it had used of its quota.
type windows struct {
	sets  []set
	mask  uint64
	locks [stripes]stripe
}

type set struct {
	slots [ways]window
	floor float64 // the largest share of a quota that one pushed out had used
	ends  int64   // until when that holds
}

// A window is one key's account.
type window struct {
	id   uint64 // 0: free
	used int64
	of   int64
	ends int64 // late after it has ended, so that a late request finds it
}

func (w *window) share() float64 { return float64(w.used) / float64(w.of) }

func (m *Memory) windows() *windows {
	if w := m.ends.Load(); w != nil {
		return w
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.ends.Load()
	if w == nil {
		w = &windows{sets: make([]set, m.keys/ways), mask: uint64(m.keys/ways) - 1}
		m.ends.Store(w)
	}
	return w
}

// account finds the key's place, or the one it may take, and what it has used.
func (s *set) account(id uint64, burst, at int64) (w *window, owned bool, used int64) {
	for i := range s.slots {
		p := &s.slots[i]
		switch {
		case p.id == id && p.ends > at:
			return p, true, p.used
		case p.ends <= at:
			if w == nil || w.ends > at {
				w = p
			}
		case w == nil || w.ends > at && p.share() < w.share():
			w = p
		}
	}
	floor := 0.0
	if s.ends > at {
		floor = s.floor
	}
	if w.ends > at { // it would be pushed out
		floor = max(floor, w.share())
	}
	return w, false, int64(min(math.Ceil(floor*float64(burst)), 2*float64(burst)))
}

// put writes an account, after whoever had the place has left a trace.
func (s *set) put(w *window, owned bool, id uint64, used, burst, at, ends int64) {
	if !owned && w.ends > at {
		if s.ends <= at {
			s.floor, s.ends = 0, 0
		}
		s.floor, s.ends = max(s.floor, w.share()), max(s.ends, w.ends)
	}
	*w = window{id: id, used: used, of: burst, ends: ends}
}

func (t *windows) take(id uint64, q *Quota, cost, at int64, left time.Duration, really bool) Result {
	lock := &t.locks[id&t.mask%stripes]
	s := &t.sets[id&t.mask]
	burst := q.Burst
	lock.Lock()
	defer lock.Unlock()
	at = lock.clock(at)
	w, owned, used := s.account(id, burst, at)
	res := Result{OK: used+cost <= burst}
	if res.OK && really && cost > 0 {
		used += cost
		s.put(w, owned, id, used, burst, at, at+int64(left)+late)
	}
	res.Remaining = max(0, burst-used)
	if used > 0 {
		res.Reset = left
	}
	if !res.OK {
		res.Retry, res.Shared = left, !owned
	}
	return res
}

func (t *windows) add(id uint64, q *Quota, cost, at int64, left time.Duration) {
	lock := &t.locks[id&t.mask%stripes]
	s := &t.sets[id&t.mask]
	lock.Lock()
	defer lock.Unlock()
	at = lock.clock(at)
	w, owned, used := s.account(id, q.Burst, at)
	if cost < 0 && !owned {
		return
	}
	used = min(max(used+cost, 0), max(2*q.Burst, used))
	s.put(w, owned, id, used, q.Burst, at, at+int64(left)+late)
}
