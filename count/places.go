package count

import (
	"context"
	"hash/maphash"
	"sync"
)

// places are what is held at the moment: as many entries as there are keys of
// which something is held.
type places struct {
	seeds  [2]maphash.Seed
	shards [64]shard
}

type shard struct {
	mu   sync.Mutex
	held map[name]int64
	_    [48]byte
}

// A name is a keyed hash of a key. Two keys that shared one would count as
// one; with 128 bits that does not happen.
type name [2]uint64

func (p *places) init() {
	p.seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	for i := range p.shards {
		p.shards[i].held = make(map[name]int64)
	}
}

// Hold implements [Store]. It ignores ctx, and never fails.
func (m *Memory) Hold(_ context.Context, asked []Place) (full int, release func(), err error) {
	names := make([]name, len(asked))
	for i, a := range asked {
		names[i] = name{maphash.Bytes(m.held.seeds[0], a.Key), maphash.Bytes(m.held.seeds[1], a.Key)}
		if !m.held.take(names[i], a.Most) {
			m.held.release(names[:i])
			return i, nil, nil
		}
	}
	return -1, sync.OnceFunc(func() { m.held.release(names) }), nil
}

func (p *places) take(n name, most int64) bool {
	s := &p.shards[n[0]%uint64(len(p.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.held[n]
	if have >= most {
		return false
	}
	s.held[n] = have + 1
	return true
}

func (p *places) release(names []name) {
	for _, n := range names {
		s := &p.shards[n[0]%uint64(len(p.shards))]
		s.mu.Lock()
		if s.held[n]--; s.held[n] <= 0 {
			delete(s.held, n)
		}
		s.mu.Unlock()
	}
}
