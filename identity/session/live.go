package session

import (
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
)

const (
	// maxAge is how long what was read about a session is believed. It bounds
	// how long an end elsewhere can go unnoticed, whatever happens to messages.
	maxAge = time.Second
	shards = 64
	// perShard bounds the sessions in use within a second or by open
	// connections.
	perShard = 1 << 12
)

// live are the sessions in use: those of the last second, and those with
// requests that are not over.
type live struct {
	shard [shards]liveShard
}

type liveShard struct {
	mu      sync.RWMutex
	entries map[Hash]*entry
}

func newLive() *live {
	l := &live{}
	for i := range l.shard {
		l.shard[i].entries = make(map[Hash]*entry)
	}
	return l
}

// An entry is what is known about one session.
type entry struct {
	hash Hash

	mu      sync.Mutex
	left    bool      // no longer among the live ones: look again
	read    time.Time // when what follows began to be read; zero if it must be read again
	alive   time.Time // when the store last had the session
	call    *call     // being read; nil if it is not
	changes int       // how often what was read became doubtful

	s       Session
	ends    time.Time // of s, if nobody does anything
	touched time.Time // Seen as the store knows it
	rights  string    // of the account now
	agent   string    // of s, as [kindOf] says, if sessions are bound to it
	who     merlon.Identity
	done    chan struct{} // who.Done

	open    []<-chan struct{} // closed when a request is over
	crowded int               // how many to have before looking for those
}

// A call is one reading of a session, which others wait for.
type call struct {
	over    chan struct{}
	err     error
	changes int // the entry's when it began
}

// get returns the entry of h, a new one if there is none.
func (l *live) get(h Hash) *entry {
	sh := &l.shard[h[0]%shards]
	sh.mu.RLock()
	e := sh.entries[h]
	sh.mu.RUnlock()
	if e != nil {
		return e
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e := sh.entries[h]; e != nil {
		return e
	}
	if len(sh.entries) >= perShard {
		sh.makeRoom()
	}
	e = &entry{hash: h, done: make(chan struct{})}
	sh.entries[h] = e
	return e
}

// makeRoom drops an entry, if possible one without open connections: nobody
// may be left connected whom nobody watches.
func (sh *liveShard) makeRoom() {
	var victim *entry
	looked := 0
	for _, e := range sh.entries {
		victim = e
		e.mu.Lock()
		idle := !e.inUse()
		e.mu.Unlock()
		if looked++; idle || looked == 16 {
			break
		}
	}
	victim.mu.Lock()
	victim.leave()
	victim.mu.Unlock()
	delete(sh.entries, victim.hash)
}

// forget ends what is known about sessions that are no more.
func (l *live) forget(hashes []Hash) {
	for _, h := range hashes {
		sh := &l.shard[h[0]%shards]
		sh.mu.Lock()
		e := sh.entries[h]
		delete(sh.entries, h)
		sh.mu.Unlock()
		if e != nil {
			e.mu.Lock()
			e.leave()
			e.mu.Unlock()
		}
	}
}

// doubt makes entries be read again before they are next believed.
func (l *live) doubt(which func(*entry) bool) {
	for i := range l.shard {
		sh := &l.shard[i]
		sh.mu.RLock()
		for _, e := range sh.entries {
			e.mu.Lock()
			if which(e) {
				e.doubt()
			}
			e.mu.Unlock()
		}
		sh.mu.RUnlock()
	}
}

// doubtOne is doubt for one session.
func (l *live) doubtOne(h Hash) {
	sh := &l.shard[h[0]%shards]
	sh.mu.RLock()
	e := sh.entries[h]
	sh.mu.RUnlock()
	if e != nil {
		e.mu.Lock()
		e.doubt()
		e.mu.Unlock()
	}
}

// The methods below need e.mu.

func (e *entry) doubt() {
	e.read = time.Time{}
	e.changes++
}

// leave takes the entry out of use. Whoever still waits for the session's end
// is told that it is over, rather than never.
func (e *entry) leave() {
	if !e.left {
		e.left = true
		close(e.done)
	}
}

// renew tells the open connections to prove themselves again.
func (e *entry) renew() {
	close(e.done)
	e.done = make(chan struct{})
	e.open = nil
}

// join returns the reading that is under way, or a new one that the caller
// must do.
func (e *entry) join() (c *call, first bool) {
	if e.call == nil {
		e.call = &call{over: make(chan struct{}), changes: e.changes}
		return e.call, true
	}
	return e.call, false
}

// enter notes a request that is under way until over is closed.
func (e *entry) enter(over <-chan struct{}) {
	if over == nil {
		return // nobody will ever know
	}
	if len(e.open) >= e.crowded {
		e.prune()
		e.crowded = max(4, 2*len(e.open))
	}
	e.open = append(e.open, over)
}

// prune drops the requests that are over.
func (e *entry) prune() {
	n := 0
	for _, over := range e.open {
		select {
		case <-over:
		default:
			e.open[n] = over
			n++
		}
	}
	clear(e.open[n:])
	e.open = e.open[:n]
}

// inUse reports whether a request is under way or somebody is reading.
func (e *entry) inUse() bool {
	e.prune()
	return len(e.open) > 0 || e.call != nil
}
