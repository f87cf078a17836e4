package apikey

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
)

// A Memory is a [Store] in this process: what it knows ends with it.
type Memory struct {
	mu   sync.Mutex
	keys map[string]Key
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{keys: map[string]Key{}} }

// AddKey implements [Store].
func (m *Memory) AddKey(_ context.Context, k Key) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.keys[k.ID]; ok {
		return account.ErrTaken
	}
	m.keys[k.ID] = k
	return nil
}

// Key implements [Store].
func (m *Memory) Key(_ context.Context, id string) (Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.keys[id]
	if !ok {
		return Key{}, account.ErrNotFound
	}
	return k, nil
}

// Keys implements [Store].
func (m *Memory) Keys(_ context.Context, account string) ([]Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Key
	for _, k := range m.keys {
		if account == "" || k.Account == account {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b Key) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// RevokeKey implements [Store].
func (m *Memory) RevokeKey(_ context.Context, id string, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.keys[id]
	if !ok {
		return account.ErrNotFound
	}
	if k.Revoked.IsZero() {
		k.Revoked = now
		m.keys[id] = k
	}
	return nil
}

// UseKey implements [Store].
func (m *Memory) UseKey(_ context.Context, id string, now time.Time, from netip.Addr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k, ok := m.keys[id]; ok && now.After(k.Used) {
		k.Used, k.UsedFrom = now, from
		m.keys[id] = k
	}
	return nil
}
