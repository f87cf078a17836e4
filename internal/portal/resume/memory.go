package resume

import (
	"context"
	"sync"
	"time"
)

// A Memory is a [Store] in this process. How much it holds is up to who puts
// it there.
type Memory struct {
	now func() time.Time

	mu    sync.Mutex
	kept  map[[32]byte]*entry
	swept time.Time
}

type entry struct {
	sealed   []byte
	subject  string // who sent it; empty if nobody was signed in
	released string // who may send it now; empty before Release
	until    time.Time
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{now: time.Now, kept: map[[32]byte]*entry{}} }

// Put implements [Store].
func (m *Memory) Put(_ context.Context, id [32]byte, sealed []byte, subject string, lifetime time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.sweep(now)
	m.kept[id] = &entry{sealed: sealed, subject: subject, until: now.Add(lifetime)}
	return nil
}

// sweep forgets what is too old, at most once a second.
func (m *Memory) sweep(now time.Time) {
	if d := now.Sub(m.swept); d >= 0 && d < time.Second {
		return
	}
	m.swept = now
	for id, e := range m.kept {
		if !now.Before(e.until) {
			delete(m.kept, id)
		}
	}
}

// Release implements [Store].
func (m *Memory) Release(_ context.Context, id [32]byte, subject string, window time.Duration) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.kept[id]
	switch {
	case e == nil || !m.now().Before(e.until),
		e.subject != "" && e.subject != subject,
		e.released != "" && e.released != subject:
		return nil, nil
	}
	if e.released == "" {
		e.released, e.until = subject, m.now().Add(window)
	}
	return e.sealed, nil
}

// Take implements [Store].
func (m *Memory) Take(_ context.Context, id [32]byte) ([]byte, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.kept[id]
	if e == nil || e.released == "" || !m.now().Before(e.until) {
		return nil, "", nil
	}
	delete(m.kept, id)
	return e.sealed, e.released, nil
}
