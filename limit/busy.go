package limit

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/merlon-dev/merlon"
)

// A busy counts requests that are under way, and knows of each what both
// halves of the guard need. It holds one entry for each of them, so it is
// bounded by what the server has accepted.
type busy struct {
	all    atomic.Int64
	shards [64]shard
}

type shard struct {
	mu      sync.Mutex
	clients map[netip.Addr]int
	held    map[*merlon.Request]held
	_       [40]byte
}

// held is what a request holds.
type held struct {
	places int // one per Check
	told   told
	front  *after // of the Checks in front of identity
	known  *after // of those behind it
}

type place uint8

const (
	granted place = iota
	clientFull
	routeFull
)

func newBusy() *busy {
	b := &busy{}
	for i := range b.shards {
		b.shards[i].clients, b.shards[i].held = map[netip.Addr]int{}, map[*merlon.Request]held{}
	}
	return b
}

// enter takes a place for r if the client has fewer than perClient, and all
// together have fewer than inAll unless that is 0.
func (b *busy) enter(r *merlon.Request, client netip.Addr, perClient, inAll int, in admission) place {
	s := b.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.clients[client]
	if n >= perClient {
		return clientFull
	}
	if b.all.Add(1) > int64(inAll) && inAll > 0 {
		b.all.Add(-1)
		return routeFull
	}
	s.clients[client] = n + 1
	h := s.held[r]
	h.places++
	h.told, h.front = in.told, push(h.front, in.after)
	s.held[r] = h
	return granted
}

// note notes what r, which has a place, was counted as.
func (b *busy) note(r *merlon.Request, client netip.Addr, in admission) {
	s := b.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[r]
	h.told, h.front = in.told, push(h.front, in.after)
	s.held[r] = h
}

// leave gives back one place that r holds, if it holds any.
func (b *busy) leave(r *merlon.Request, client netip.Addr) *after {
	s := b.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[r]
	if h.places == 0 {
		return nil
	}
	a := h.front
	h.places, h.front = h.places-1, pop(a)
	s.put(r, h)
	b.all.Add(-1)
	if n := s.clients[client]; n > 1 {
		s.clients[client] = n - 1
	} else {
		delete(s.clients, client)
	}
	return a
}

// told returns what the half in front has told r's client.
func (b *busy) told(r *merlon.Request, client netip.Addr) told {
	s := b.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[r].told
}

// keep keeps what the half behind identity has to do at the end of r.
func (b *busy) keep(r *merlon.Request, client netip.Addr, a *after) {
	s := b.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[r]
	h.known = push(h.known, a)
	s.held[r] = h
}

// kept returns it, once.
func (b *busy) kept(r *merlon.Request, client netip.Addr) *after {
	s := b.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[r]
	a := h.known
	if a != nil {
		h.known = pop(a)
		s.put(r, h)
	}
	return a
}

// put stores h, or forgets r if it holds nothing any more.
func (s *shard) put(r *merlon.Request, h held) {
	if h.places == 0 && h.front == nil && h.known == nil {
		delete(s.held, r)
		return
	}
	s.held[r] = h
}

func push(list, a *after) *after {
	if a == nil {
		return list
	}
	a.next = list
	return a
}

func pop(list *after) *after {
	if list == nil {
		return nil
	}
	return list.next
}

// shard spreads clients by the bits that differ between neighbours. Choosing
// an address to meet another's shard gains no more than contention for a lock.
func (b *busy) shard(client netip.Addr) *shard {
	a := client.As16()
	return &b.shards[(a[3]^a[5]^a[6]^a[7]^a[13]^a[14]^a[15])%uint8(len(b.shards))]
}
