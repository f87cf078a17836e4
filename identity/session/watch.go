package session

import (
	"context"
	"slices"
	"time"
)

const (
	// tick is how often open connections are looked after: those that were not
	// asked about for half a second are, so that none is older than one.
	tick = 250 * time.Millisecond
	// budget is how long a tick may spend on reading sessions one by one; all
	// are asked about together before.
	budget = tick / 2
	// batch is how many sessions a store is asked about at once.
	batch = 1000
	// blind is how long open connections stay while the store does not answer.
	// New requests wait for it no longer than patience.
	blind = 30 * time.Second
)

// watch looks after open connections until the Manager is closed and the last
// of them is too.
func (m *Manager) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go m.listen(ctx)
	t := time.NewTicker(tick)
	defer t.Stop()
	for range t.C {
		open := m.sweep()
		select {
		case <-m.closing:
			if open == 0 {
				return
			}
		default:
		}
		m.verify(ctx)
	}
}

// listen hears of ends elsewhere. What is lost is found by asking.
func (m *Manager) listen(ctx context.Context) {
	for ctx.Err() == nil {
		_ = m.store.Watch(ctx, func() {}, m.live.forget)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// sweep drops what nobody has used for a second, and returns how many sessions
// have open connections.
func (m *Manager) sweep() int {
	open := 0
	for i := range m.live.shard {
		sh := &m.live.shard[i]
		sh.mu.Lock()
		for h, e := range sh.entries {
			e.mu.Lock()
			if e.inUse() {
				open++
			} else if time.Since(e.read) >= maxAge {
				e.leave()
				delete(sh.entries, h)
			}
			e.mu.Unlock()
		}
		sh.mu.Unlock()
	}
	return open
}

// verify asks about the sessions of open connections.
func (m *Manager) verify(ctx context.Context) {
	var due []*entry
	read := make(map[*entry]time.Time)
	for i := range m.live.shard {
		sh := &m.live.shard[i]
		sh.mu.RLock()
		for _, e := range sh.entries {
			e.mu.Lock()
			if len(e.open) > 0 && e.call == nil && time.Since(e.read) >= maxAge/2 {
				due = append(due, e)
				read[e] = e.read
			}
			e.mu.Unlock()
		}
		sh.mu.RUnlock()
	}
	for part := range slices.Chunk(due, batch) {
		m.askGone(ctx, part)
	}
	// What a single reading tells beyond that: limits, the account and its
	// roles. Who has waited longest comes first.
	slices.SortFunc(due, func(a, b *entry) int { return read[a].Compare(read[b]) })
	began := time.Now()
	for _, e := range due {
		if time.Since(began) > budget {
			return
		}
		e.mu.Lock()
		if e.left {
			e.mu.Unlock()
			continue
		}
		_ = m.refresh(ctx, e) // if it has ended, refresh has told the connections
	}
}

// askGone ends the connections of sessions that the store no longer has, or
// has not been heard of for too long.
func (m *Manager) askGone(ctx context.Context, part []*entry) {
	hashes := make([]Hash, len(part))
	for i, e := range part {
		hashes[i] = e.hash
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	gone, err := m.store.Gone(ctx, hashes)
	if err == nil {
		m.live.forget(gone)
	}
	for _, e := range part {
		e.mu.Lock()
		if err == nil {
			e.alive = began
		}
		lost := time.Since(e.alive) > blind
		e.mu.Unlock()
		if lost {
			m.live.forget([]Hash{e.hash})
		}
	}
}
