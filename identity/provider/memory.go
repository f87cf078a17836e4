package provider

import (
	"cmp"
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"
)

// A Memory is a [Store] in this process. What it remembers ends with it.
type Memory struct {
	mu        sync.Mutex
	grants    map[string]*held
	codes     map[digest]*usedCode
	refreshes map[digest]*usedRefresh
	consents  map[[2]string]Consent // by subject and client
	swept     time.Time             // when expired grants were last dropped
}

// held is a grant and what hangs on it.
type held struct {
	Grant
	codes, refreshes []digest
}

type digest [sha256.Size]byte

type usedCode struct {
	Code
	used bool
}

type usedRefresh struct {
	Refresh
	used bool
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{
		grants: make(map[string]*held), codes: make(map[digest]*usedCode),
		refreshes: make(map[digest]*usedRefresh), consents: make(map[[2]string]Consent),
	}
}

// key returns a hash as a map's key; what is no SHA-256 is nobody's.
func key(b []byte) (h digest, ok bool) { return h, copy(h[:], b) == len(h) && len(b) == len(h) }

// sweepEvery is how often a Memory looks for what has expired.
const sweepEvery = time.Minute

// AddGrant implements [Store].
func (m *Memory) AddGrant(_ context.Context, g Grant, c *Code) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if g.Created.Sub(m.swept) >= sweepEvery {
		m.swept = g.Created
		for id, old := range m.grants {
			if !g.Created.Before(old.Expires) {
				m.end(id)
			}
		}
	}
	h := &held{Grant: g}
	if c != nil {
		k, ok := key(c.Hash)
		if !ok {
			return ErrNotFound
		}
		m.codes[k] = &usedCode{Code: *c}
		h.codes = append(h.codes, k)
	}
	m.grants[g.ID] = h
	return nil
}

// end removes a grant and what hangs on it. The lock is held.
func (m *Memory) end(id string) {
	g := m.grants[id]
	if g == nil {
		return
	}
	delete(m.grants, id)
	for _, h := range g.codes {
		delete(m.codes, h)
	}
	for _, h := range g.refreshes {
		delete(m.refreshes, h)
	}
}

// Grant implements [Store].
func (m *Memory) Grant(_ context.Context, id string, now time.Time) (Grant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.grants[id]
	if g == nil || !now.Before(g.Expires) {
		return Grant{}, ErrNotFound
	}
	return g.Grant, nil
}

// Grants implements [Store].
func (m *Memory) Grants(_ context.Context, subject string, now time.Time) ([]Grant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var gs []Grant
	for _, g := range m.grants {
		if g.Subject == subject && now.Before(g.Expires) {
			gs = append(gs, g.Grant)
		}
	}
	slices.SortFunc(gs, func(a, b Grant) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	return gs, nil
}

// EndGrant implements [Store].
func (m *Memory) EndGrant(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end(id)
	return nil
}

// TakeCode implements [Store].
func (m *Memory) TakeCode(_ context.Context, hash []byte) (Code, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, _ := key(hash)
	c := m.codes[h]
	switch {
	case c == nil:
		return Code{}, ErrNotFound
	case c.used:
		return c.Code, ErrUsed
	}
	c.used = true
	return c.Code, nil
}

// AddRefresh implements [Store].
func (m *Memory) AddRefresh(_ context.Context, r Refresh) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, ok := key(r.Hash)
	g := m.grants[r.Grant]
	if !ok || g == nil {
		return ErrNotFound
	}
	g.refreshes = append(g.refreshes, h)
	m.refreshes[h] = &usedRefresh{Refresh: r}
	return nil
}

// Refresh implements [Store].
func (m *Memory) Refresh(_ context.Context, hash []byte) (Refresh, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, _ := key(hash)
	r := m.refreshes[h]
	switch {
	case r == nil:
		return Refresh{}, ErrNotFound
	case r.used:
		return r.Refresh, ErrUsed
	}
	return r.Refresh, nil
}

// Rotate implements [Store].
func (m *Memory) Rotate(_ context.Context, old []byte, next Refresh) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, _ := key(old)
	n, ok := key(next.Hash)
	r := m.refreshes[h]
	switch {
	case r == nil || !ok || next.Grant != r.Grant:
		return ErrNotFound
	case r.used:
		return ErrUsed
	}
	r.used = true
	g := m.grants[next.Grant]
	g.refreshes = append(g.refreshes, n)
	m.refreshes[n] = &usedRefresh{Refresh: next}
	return nil
}

// SetConsent implements [Store].
func (m *Memory) SetConsent(_ context.Context, c Consent) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.consents[[2]string{c.Subject, c.Client}] = c
	return nil
}

// Consents implements [Store].
func (m *Memory) Consents(_ context.Context, subject string) ([]Consent, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var cs []Consent
	for k, c := range m.consents {
		if k[0] == subject {
			cs = append(cs, c)
		}
	}
	slices.SortFunc(cs, func(a, b Consent) int { return cmp.Compare(a.Client, b.Client) })
	return cs, nil
}

// RemoveConsent implements [Store].
func (m *Memory) RemoveConsent(_ context.Context, subject, client string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.consents, [2]string{subject, client})
	for id, g := range m.grants {
		if g.Subject == subject && g.Client == client {
			m.end(id)
		}
	}
	return nil
}
