package throttle

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// A Pool holds the classes, with what is under way and waiting in each. It
// outlives reloads, so that a new configuration goes on from what the old one
// has let in: requests of both together keep to the newer bound. A bound is in
// force when the first request meets a guard that has it; guards that are
// built and thrown away change nothing.
type Pool struct {
	replicas func() int
	seq      atomic.Uint64
	mu       sync.RWMutex
	classes  map[string]*class
}

// NewPool returns an empty Pool. replicas says how many processes share each
// bound; it is called often, from many goroutines. Nil means one.
func NewPool(replicas func() int) *Pool {
	if replicas == nil {
		replicas = func() int { return 1 }
	}
	return &Pool{replicas: replicas, classes: map[string]*class{}}
}

// A ClassStat is how one class is doing in this process.
type ClassStat struct {
	Name    string
	AtOnce  int // this process's part of the bound
	Running int // under way
	Waiting int // in the queue

	Admitted  uint64 // let in since the process began
	Full      uint64 // refused because the queue was full
	TimedOut  uint64 // refused because they had waited for too long
	Abandoned uint64 // gone while they waited
}

// Stats returns how the classes are doing that have been asked for, by name.
func (p *Pool) Stats() []ClassStat {
	p.mu.RLock()
	defer p.mu.RUnlock()
	stats := make([]ClassStat, 0, len(p.classes))
	for _, n := range slices.Sorted(maps.Keys(p.classes)) {
		if c := p.classes[n]; c.seq.Load() > 0 {
			stats = append(stats, c.stat())
		}
	}
	return stats
}

func (p *Pool) next() uint64 { return p.seq.Add(1) }

// share is this process's part of n, rounded up if up is set.
func (p *Pool) share(n int, up bool) int {
	of := max(p.replicas(), 1)
	if up {
		return (n + of - 1) / of
	}
	return max(n/of, 1)
}

func (p *Pool) class(name string) *class {
	p.mu.RLock()
	c := p.classes[name]
	p.mu.RUnlock()
	if c != nil {
		return c
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c = p.classes[name]; c == nil {
		c = newClass(name, p)
		p.classes[name] = c
	}
	return c
}
