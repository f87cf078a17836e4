package ban

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Most is how many bans there are at most, with those that have ended within
// [Remembered]. Of more, the ones that end soonest go.
const Most = 100_000

// Remembered is how long after its end a ban makes the next one longer.
const Remembered = 24 * time.Hour

// A Ban says who is shut out.
type Ban struct {
	Site  string    `json:"site,omitempty"` // empty for all sites
	Key   string    `json:"key"`            // see [ParseKey]
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Times int       `json:"times"` // how often in a row; 1 for the first
	Why   string    `json:"why"`
	By    string    `json:"by"` // "merlon", or the operator
}

// Holds reports whether the ban has not ended.
func (b *Ban) Holds(now time.Time) bool { return now.Before(b.Until) }

// remembered reports whether the ban makes the next one longer.
func (b *Ban) remembered(now time.Time) bool { return now.Before(b.Until.Add(Remembered)) }

// A Store keeps bans for all replicas, and for the command line. It must be
// safe for many goroutines and processes.
type Store interface {
	// Put adds bans, each unless there is one of the same site and key that ends
	// later. It forgets those that ended longer than [Remembered] before now,
	// and those that end soonest beyond atMost; the latter it counts. All of
	// it is one step.
	Put(ctx context.Context, list []Ban, atMost int, now time.Time) (dropped int, err error)
	// Lift removes a ban, and reports whether there was one.
	Lift(ctx context.Context, site, key string) (bool, error)
	// List returns all bans, also those that have ended, in any order, and the
	// version that they are. If have is that version it returns none, and have.
	// The version is empty if there has never been a ban, or all was lost.
	List(ctx context.Context, have string) (list []Ban, version string, err error)
}

type id struct{ site, key string }

func (b *Ban) id() id { return id{b.Site, b.Key} }

// Memory is a [Store] in this process.
type Memory struct {
	mu      sync.Mutex
	bans    map[id]Ban
	version int
}

// NewMemory returns an empty one.
func NewMemory() *Memory { return &Memory{bans: map[id]Ban{}} }

// Put implements [Store].
func (m *Memory) Put(_ context.Context, list []Ban, atMost int, now time.Time) (dropped int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version++
	for _, b := range list {
		if old, ok := m.bans[b.id()]; !ok || !old.Until.After(b.Until) {
			m.bans[b.id()] = b
		}
	}
	forget(m.bans, now)
	return drop(m.bans, atMost, 0), nil
}

// Lift implements [Store].
func (m *Memory) Lift(_ context.Context, site, key string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.bans[id{site, key}]
	if ok {
		delete(m.bans, id{site, key})
		m.version++
	}
	return ok, nil
}

// List implements [Store].
func (m *Memory) List(_ context.Context, have string) ([]Ban, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	version := ""
	if m.version > 0 {
		version = strconv.Itoa(m.version)
	}
	if have == version {
		return nil, have, nil
	}
	return slices.Collect(maps.Values(m.bans)), version, nil
}

// forget removes what no longer matters.
func forget(bans map[id]Ban, now time.Time) {
	maps.DeleteFunc(bans, func(_ id, b Ban) bool { return !b.remembered(now) })
}

// drop removes those that end soonest beyond atMost, and as many more as spare.
func drop(bans map[id]Ban, atMost, spare int) int {
	n := len(bans) - atMost
	if n <= 0 {
		return 0
	}
	n = min(n+spare, len(bans))
	list := slices.SortedFunc(maps.Values(bans), func(a, b Ban) int {
		return cmp.Or(a.Until.Compare(b.Until), cmp.Compare(a.Key, b.Key))
	})
	for i := range list[:n] {
		delete(bans, list[i].id())
	}
	return n
}
