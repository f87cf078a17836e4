package limit

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/merlon-dev/merlon"
)

// A busy counts requests that are under way. It holds one entry for each of
// them, so it is bounded by what the server has accepted.
type busy struct {
	all    atomic.Int64
	shards [64]shard
}

type shard struct {
	mu      sync.Mutex
	clients map[netip.Addr]int
	held    map[*merlon.Request]int // how many places a request holds: one per Check
	_       [40]byte
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
		b.shards[i].clients, b.shards[i].held = map[netip.Addr]int{}, map[*merlon.Request]int{}
	}
	return b
}

// enter takes a place for r if the client has fewer than perClient, and all
// together have fewer than inAll unless that is 0.
func (b *busy) enter(r *merlon.Request, client netip.Addr, perClient, inAll int) place {
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
	s.held[r]++
	return granted
}

// leave gives back one place that r holds, if it holds any.
func (b *busy) leave(r *merlon.Request, client netip.Addr) {
	s := b.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n := s.held[r]; n {
	case 0:
		return
	case 1:
		delete(s.held, r)
	default:
		s.held[r] = n - 1
	}
	b.all.Add(-1)
	if n := s.clients[client]; n > 1 {
		s.clients[client] = n - 1
	} else {
		delete(s.clients, client)
	}
}

// shard spreads clients by the bits that differ between neighbours. Choosing
// an address to meet another's shard gains no more than contention for a lock.
func (b *busy) shard(client netip.Addr) *shard {
	a := client.As16()
	return &b.shards[(a[3]^a[5]^a[6]^a[7]^a[13]^a[14]^a[15])%uint8(len(b.shards))]
}
