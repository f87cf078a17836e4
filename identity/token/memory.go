package token

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Memory is a [Store] in this process: what it knows ends with it.
type Memory struct {
	mu       sync.Mutex
	keys     []SigningKey
	revoked  map[revokedKey]memoryRevocation
	seq      int64
	families map[string]Family
	swept    time.Time
	wakes    map[int]func()
	wakeID   int
}

type revokedKey struct{ kind, issuer, id string }

type memoryRevocation struct {
	Revocation
	seq int64
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{
		revoked:  make(map[revokedKey]memoryRevocation),
		families: make(map[string]Family),
		wakes:    make(map[int]func()),
	}
}

// Keys implements [Store].
func (m *Memory) Keys(context.Context) ([]SigningKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.keys), nil
}

// AddKey implements [Store].
func (m *Memory) AddKey(_ context.Context, k SigningKey, after string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := ""
	if n := len(m.keys); n > 0 {
		last = m.keys[n-1].ID
	}
	if last != after {
		return ErrMoved
	}
	m.keys = append(m.keys, k)
	slices.SortStableFunc(m.keys, func(a, b SigningKey) int { return a.SignFrom.Compare(b.SignFrom) })
	return nil
}

// DropKey implements [Store].
func (m *Memory) DropKey(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = slices.DeleteFunc(m.keys, func(k SigningKey) bool { return k.ID == id })
	return nil
}

// Revoke implements [Store].
func (m *Memory) Revoke(_ context.Context, r Revocation, now time.Time) error {
	m.mu.Lock()
	m.sweep(now)
	k := revokedKey{r.Kind, r.Issuer, r.ID}
	if old, ok := m.revoked[k]; ok {
		r.Before, r.Expires = later(r.Before, old.Before), later(r.Expires, old.Expires)
	}
	m.seq++
	m.revoked[k] = memoryRevocation{r, m.seq}
	wakes := make([]func(), 0, len(m.wakes))
	for _, wake := range m.wakes {
		wakes = append(wakes, wake)
	}
	m.mu.Unlock()
	for _, wake := range wakes {
		wake()
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Revocations implements [Store].
func (m *Memory) Revocations(_ context.Context, after string, now time.Time) ([]Revocation, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, _ := strconv.ParseInt(after, 10, 64)
	if after != "" && from == m.seq {
		return nil, after, nil
	}
	var rs []Revocation
	for _, r := range m.revoked {
		if r.seq > from && r.Expires.After(now) {
			rs = append(rs, r.Revocation)
		}
	}
	return rs, strconv.FormatInt(m.seq, 10), nil
}

// OnRevoke implements [Waker].
func (m *Memory) OnRevoke(ctx context.Context, wake func()) error {
	m.mu.Lock()
	m.wakeID++
	id := m.wakeID
	m.wakes[id] = wake
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	delete(m.wakes, id)
	m.mu.Unlock()
	return ctx.Err()
}

// AddFamily implements [Store].
func (m *Memory) AddFamily(_ context.Context, f Family) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep(f.Started)
	m.families[f.ID] = f
	return nil
}

// Family implements [Store].
func (m *Memory) Family(_ context.Context, id string) (Family, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.families[id]
	if !ok {
		return Family{}, ErrNotFound
	}
	return f, nil
}

// RotateFamily implements [Store].
func (m *Memory) RotateFamily(_ context.Context, id string, from, to []byte, now, idle time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.families[id]
	if !ok || f.Revoked || !bytes.Equal(f.Hash, from) {
		return ErrMoved
	}
	f.Previous, f.Hash = f.Hash, to
	f.Generation++
	f.Rotated, f.Idle = now, idle
	m.families[id] = f
	return nil
}

// RevokeFamily implements [Store].
func (m *Memory) RevokeFamily(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.families[id]; ok {
		f.Revoked = true
		m.families[id] = f
	}
	return nil
}

// RevokeFamilies implements [Store].
func (m *Memory) RevokeFamilies(_ context.Context, subject, session string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, f := range m.families {
		if subject != "" && f.Grant.Subject == subject || session != "" && f.Grant.Session == session {
			f.Revoked = true
			m.families[id] = f
		}
	}
	return nil
}

// sweep removes what has expired, once a minute. m.mu must be held.
func (m *Memory) sweep(now time.Time) {
	if now.Sub(m.swept) < time.Minute {
		return
	}
	m.swept = now
	for k, r := range m.revoked {
		if !r.Expires.After(now) {
			delete(m.revoked, k)
		}
	}
	for id, f := range m.families {
		if !f.Expires.After(now) {
			delete(m.families, id)
		}
	}
}
