package resume

import (
	"sync"
	"time"
)

// A room bounds what a Keeper keeps: in all, of those not signed in, and of
// each owner.
type room struct {
	mu     sync.Mutex
	held   map[[32]byte]share
	total  int
	nobody int // of those not signed in
	owned  map[string]int
	swept  time.Time
}

// A share is what one request takes.
type share struct {
	size   int
	owner  string // whose room it takes
	nobody bool   // nobody was signed in
	until  time.Time
}

func newRoom() room { return room{held: map[[32]byte]share{}, owned: map[string]int{}} }

// take reports whether there is room for s, and takes it.
func (m *room) take(id [32]byte, s share, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep(now)
	if m.owned[s.owner]+s.size > maxOwner || m.total+s.size > maxTotal {
		return false
	}
	if s.nobody {
		if m.nobody+s.size > maxNobody {
			return false
		}
		m.nobody += s.size
	}
	m.held[id] = s
	m.total += s.size
	m.owned[s.owner] += s.size
	return true
}

// leave gives the room of a request back, if it has any here.
func (m *room) leave(id [32]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.held[id]; ok {
		m.drop(id, s)
	}
}

func (m *room) drop(id [32]byte, s share) {
	delete(m.held, id)
	m.total -= s.size
	if s.nobody {
		m.nobody -= s.size
	}
	if m.owned[s.owner] -= s.size; m.owned[s.owner] <= 0 {
		delete(m.owned, s.owner)
	}
}

// sweep gives the room back of what is too old, at most once a second.
func (m *room) sweep(now time.Time) {
	if d := now.Sub(m.swept); d >= 0 && d < time.Second {
		return
	}
	m.swept = now
	for id, s := range m.held {
		if !now.Before(s.until) {
			m.drop(id, s)
		}
	}
}
