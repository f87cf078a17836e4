package mfa_test

import (
	"context"
	"sync"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
)

// A memory is a store of factors and links in a process, for fuzzing and
// measuring: the tests are about the real one.
type memory struct {
	account.Store // for what is not called
	mu            sync.Mutex
	factors       []account.Factor
	links         map[string]account.Link
}

func newMemory() *memory { return &memory{links: make(map[string]account.Link)} }

func (m *memory) AddFactor(_ context.Context, f account.Factor) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.find(f.ID) >= 0 {
		return account.ErrTaken
	}
	m.factors = append(m.factors, f)
	return nil
}

func (m *memory) find(id string) int {
	for i, f := range m.factors {
		if f.ID == id {
			return i
		}
	}
	return -1
}

func (m *memory) Factors(_ context.Context, of string) ([]account.Factor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []account.Factor
	for _, f := range m.factors {
		if f.Account == of {
			list = append(list, f)
		}
	}
	return list, nil
}

func (m *memory) Factor(_ context.Context, id string) (account.Factor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.find(id); i >= 0 {
		return m.factors[i], nil
	}
	return account.Factor{}, account.ErrNotFound
}

func (m *memory) UseFactor(_ context.Context, id string, before, counter int64, data []byte, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.find(id)
	switch {
	case i < 0:
		return account.ErrNotFound
	case m.factors[i].Counter != before:
		return account.ErrUsed
	}
	m.factors[i].Counter, m.factors[i].Used = counter, now
	if data != nil {
		m.factors[i].Data = data
	}
	return nil
}

func (m *memory) AddLink(_ context.Context, l account.Link) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.links[string(l.Hash)]; ok {
		return account.ErrTaken
	}
	m.links[string(l.Hash)] = l
	return nil
}
