package token

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"

	"github.com/merlon-dev/merlon"
)

// A digest stands for a token in the cache, which holds no token. It is
// SHA-256 over a seed of this process and the token, so that nobody outside
// can tell which digests are near each other.
type digest [sha256.Size]byte

// An entry is a token that was verified.
type entry struct {
	digest   digest
	issuer   *issuer
	key      *publicKey
	claims   *Claims
	identity merlon.Identity
	until    time.Time
	// judged is the state of revocations and keys that the entry was last
	// compared with.
	judged atomic.Uint64
	done   chan struct{} // closed when the token stops holding
	timer  *time.Timer
}

// A cache remembers tokens that were verified, until they expire.
type cache struct {
	seed [32]byte
	max  int
	bufs sync.Pool // of *[]byte

	mu      sync.RWMutex
	entries map[digest]*entry
}

func newCache(max int) *cache {
	c := &cache{max: max, entries: make(map[digest]*entry)}
	_, _ = rand.Read(c.seed[:]) // never fails
	c.bufs.New = func() any { b := make([]byte, 0, 2048); return &b }
	return c
}

func (c *cache) digest(token string) digest {
	b := c.bufs.Get().(*[]byte)
	*b = append(append((*b)[:0], c.seed[:]...), token...)
	d := sha256.Sum256(*b)
	clear(*b)
	c.bufs.Put(b)
	return d
}

func (c *cache) get(d digest) *entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.entries[d]
}

// put adds an entry, or returns the one that another goroutine added first.
func (c *cache) put(e *entry, now time.Time) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.entries[e.digest]; old != nil {
		return old
	}
	if len(c.entries) >= c.max {
		c.evict()
	}
	e.done = make(chan struct{})
	e.identity.Done = e.done
	e.timer = time.AfterFunc(e.until.Sub(now), func() { c.drop(e) })
	c.entries[e.digest] = e
	return e
}

// evict forgets, of a few entries, the one that expires first. c.mu must be held.
func (c *cache) evict() {
	var out *entry
	n := 0
	for _, e := range c.entries { // Go begins at a random place
		if out == nil || e.until.Before(out.until) {
			out = e
		}
		if n++; n == 8 {
			break
		}
	}
	c.remove(out)
}

// drop forgets an entry and closes its Done.
func (c *cache) drop(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[e.digest] == e {
		c.remove(e)
	}
}

// remove is drop with c.mu held and e in the cache.
func (c *cache) remove(e *entry) {
	delete(c.entries, e.digest)
	e.timer.Stop()
	close(e.done)
}

// dropIf forgets every entry that no longer holds.
func (c *cache) dropIf(gone func(*entry) bool) {
	c.mu.RLock()
	var out []*entry
	for _, e := range c.entries {
		if gone(e) {
			out = append(out, e)
		}
	}
	c.mu.RUnlock()
	for _, e := range out {
		c.drop(e)
	}
}
