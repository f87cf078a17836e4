package session

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultRoom is how many sessions a [Memory] has room for if it is not told:
// about half a gibibyte of them.
const DefaultRoom = 1 << 20

// Memory is a [Store] of one process, which forgets everything when it ends.
// When it is full, a new session takes the place of one of those that nobody
// has used for long.
type Memory struct {
	room     int64
	count    atomic.Int64
	accounts [shards]accountShard
	hashes   [shards]hashShard
	swept    atomic.Uint32 // how many shards were

	mu       sync.Mutex
	watchers map[*watcher]struct{}
}

// An accountShard decides: what an account has is changed under its lock.
// Locks are taken in the order account, hash.
type accountShard struct {
	mu  sync.Mutex
	has map[string][]Hash
}

type hashShard struct {
	mu       sync.RWMutex
	sessions map[Hash]Session
}

type watcher struct{ ended func([]Hash) }

// NewMemory returns a store with room for so many sessions; [DefaultRoom] if
// it is 0 or less.
func NewMemory(room int) *Memory {
	if room <= 0 {
		room = DefaultRoom
	}
	m := &Memory{room: int64(room), watchers: make(map[*watcher]struct{})}
	for i := range shards {
		m.accounts[i].has = make(map[string][]Hash)
		m.hashes[i].sessions = make(map[Hash]Session)
	}
	return m
}

func (m *Memory) account(id string) *accountShard {
	n := uint32(2166136261) // FNV-1a
	for i := range len(id) {
		n = (n ^ uint32(id[i])) * 16777619
	}
	return &m.accounts[n%shards]
}

func (m *Memory) hash(h Hash) *hashShard { return &m.hashes[h[0]%shards] }

// Put implements [Store].
func (m *Memory) Put(_ context.Context, s Session, atMost int) ([]Hash, error) {
	m.purge(s.Issued)
	full := m.evict()
	a := m.account(s.Account)
	a.mu.Lock()
	m.set(s)
	a.has[s.Account] = append(a.has[s.Account], s.Hash)
	var counted []Session
	for _, h := range a.has[s.Account] {
		if o, ok := m.peek(h); ok && !o.Retired && o.Expires.After(s.Issued) && h != s.Hash {
			counted = append(counted, o)
		}
	}
	var ended []Hash
	if over := len(counted) + 1 - atMost; over > 0 {
		slices.SortFunc(counted, newestFirst)
		for _, o := range counted[max(0, len(counted)-over):] {
			// Its retired ids are it, too.
			ended = append(ended, m.drop(a, Where{Account: o.Account, ID: o.ID})...)
		}
	}
	a.mu.Unlock()
	ended = append(ended, full...)
	m.tell(ended)
	return ended, nil
}

func newestFirst(a, b Session) int {
	if c := b.Created.Compare(a.Created); c != 0 {
		return c
	}
	return bytes.Compare(a.Hash[:], b.Hash[:])
}

// Get implements [Store].
func (m *Memory) Get(_ context.Context, h Hash) (Session, error) {
	if s, ok := m.peek(h); ok {
		return s, nil
	}
	return Session{}, ErrNotFound
}

func (m *Memory) peek(h Hash) (Session, bool) {
	sh := m.hash(h)
	sh.mu.RLock()
	s, ok := sh.sessions[h]
	sh.mu.RUnlock()
	return s, ok
}

func (m *Memory) set(s Session) {
	sh := m.hash(s.Hash)
	sh.mu.Lock()
	sh.sessions[s.Hash] = s
	sh.mu.Unlock()
	m.count.Add(1)
}

// Touch implements [Store].
func (m *Memory) Touch(_ context.Context, h Hash, seen, expires time.Time) error {
	sh := m.hash(h)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s, ok := sh.sessions[h]
	if !ok || s.Retired {
		return ErrNotFound
	}
	if seen.After(s.Seen) {
		s.Seen = seen
	}
	if expires = earlier(expires, s.Until); expires.After(s.Expires) {
		s.Expires = expires
	}
	sh.sessions[h] = s
	return nil
}

// Rotate implements [Store].
func (m *Memory) Rotate(_ context.Context, old Hash, grace time.Time, s Session) error {
	a := m.account(s.Account)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !m.retire(old, grace, &s) {
		return ErrNotFound
	}
	m.set(s)
	a.has[s.Account] = append(a.has[s.Account], s.Hash)
	return nil
}

func (m *Memory) retire(old Hash, grace time.Time, s *Session) bool {
	sh := m.hash(old)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	o, ok := sh.sessions[old]
	if !ok || o.Retired || o.Account != s.Account || o.ID != s.ID {
		return false
	}
	o.Retired, o.Expires = true, earlier(o.Expires, grace)
	sh.sessions[old] = o
	return true
}

// End implements [Store].
func (m *Memory) End(_ context.Context, w Where) ([]Hash, error) {
	var ended []Hash
	if w.Account != "" {
		a := m.account(w.Account)
		a.mu.Lock()
		ended = m.drop(a, w)
		a.mu.Unlock()
	} else {
		// A provider's log-out is rare enough to look at every session.
		for account := range m.matching(w) {
			w := w
			w.Account = account
			a := m.account(account)
			a.mu.Lock()
			ended = append(ended, m.drop(a, w)...)
			a.mu.Unlock()
		}
	}
	m.tell(ended)
	return ended, nil
}

// matching returns the accounts that have what w selects.
func (m *Memory) matching(w Where) map[string]bool {
	found := make(map[string]bool)
	for i := range m.hashes {
		sh := &m.hashes[i]
		sh.mu.RLock()
		for _, s := range sh.sessions {
			if w.Match(&s) {
				found[s.Account] = true
			}
		}
		sh.mu.RUnlock()
	}
	return found
}

// drop removes what w selects of the account's; it needs a.mu.
func (m *Memory) drop(a *accountShard, w Where) []Hash {
	var ended []Hash
	kept := a.has[w.Account][:0]
	for _, h := range a.has[w.Account] {
		s, ok := m.peek(h)
		switch {
		case !ok:
		case w.Match(&s):
			m.remove(h)
			ended = append(ended, h)
		default:
			kept = append(kept, h)
		}
	}
	if len(kept) == 0 {
		delete(a.has, w.Account)
	} else {
		a.has[w.Account] = kept
	}
	return ended
}

// remove removes one; that it is in its account's list must be seen to.
func (m *Memory) remove(h Hash) {
	sh := m.hash(h)
	sh.mu.Lock()
	if _, ok := sh.sessions[h]; ok {
		delete(sh.sessions, h)
		m.count.Add(-1)
	}
	sh.mu.Unlock()
}

// Find implements [Store].
func (m *Memory) Find(_ context.Context, w Where) ([]Session, error) {
	var list []Session
	for i := range m.hashes {
		sh := &m.hashes[i]
		sh.mu.RLock()
		for _, s := range sh.sessions {
			if w.Match(&s) && !s.Retired {
				list = append(list, s)
			}
		}
		sh.mu.RUnlock()
	}
	return list, nil
}

// List implements [Store].
func (m *Memory) List(_ context.Context, account string, now time.Time) ([]Session, error) {
	a := m.account(account)
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []Session
	for _, h := range a.has[account] {
		if s, ok := m.peek(h); ok && !s.Retired && s.Expires.After(now) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, newestFirst)
	return list, nil
}

// Gone implements [Store].
func (m *Memory) Gone(_ context.Context, hashes []Hash) ([]Hash, error) {
	var gone []Hash
	for _, h := range hashes {
		if _, ok := m.peek(h); !ok {
			gone = append(gone, h)
		}
	}
	return gone, nil
}

// Watch implements [Store].
func (m *Memory) Watch(ctx context.Context, ready func(), ended func([]Hash)) error {
	w := &watcher{ended}
	m.mu.Lock()
	m.watchers[w] = struct{}{}
	m.mu.Unlock()
	ready()
	<-ctx.Done()
	m.mu.Lock()
	delete(m.watchers, w)
	m.mu.Unlock()
	return ctx.Err()
}

func (m *Memory) tell(ended []Hash) {
	if len(ended) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for w := range m.watchers {
		w.ended(ended)
	}
}

// purge removes what expired in one shard, the next each time it is called.
func (m *Memory) purge(now time.Time) {
	sh := &m.hashes[m.swept.Add(1)%shards]
	var over []Session
	sh.mu.RLock()
	for _, s := range sh.sessions {
		if !s.Expires.After(now) {
			over = append(over, s)
		}
	}
	sh.mu.RUnlock()
	for _, s := range over {
		m.dropOne(s.Account, s.Hash, func(s *Session) bool { return !s.Expires.After(now) })
	}
}

// dropOne removes one session if it still is as it should be.
func (m *Memory) dropOne(account string, h Hash, still func(*Session) bool) bool {
	a := m.account(account)
	a.mu.Lock()
	defer a.mu.Unlock()
	s, ok := m.peek(h)
	if !ok || !still(&s) {
		return false
	}
	m.remove(h)
	if kept := slices.DeleteFunc(a.has[account], func(o Hash) bool { return o == h }); len(kept) == 0 {
		delete(a.has, account)
	} else {
		a.has[account] = kept
	}
	return true
}

// evict makes room for one more: of some sessions taken at random, those go
// that were used least lately.
func (m *Memory) evict() []Hash {
	var ended []Hash
	for m.count.Load() >= m.room {
		var victim Session
		looked := 0
		for i := range uint32(shards) {
			sh := &m.hashes[(m.swept.Load()+i)%shards]
			sh.mu.RLock()
			for _, s := range sh.sessions {
				if looked == 0 || s.Seen.Before(victim.Seen) {
					victim = s
				}
				if looked++; looked%8 == 0 {
					break
				}
			}
			sh.mu.RUnlock()
			if looked >= 32 {
				break
			}
		}
		if looked == 0 {
			break
		}
		if m.dropOne(victim.Account, victim.Hash, func(*Session) bool { return true }) {
			ended = append(ended, victim.Hash)
		}
	}
	return ended
}
