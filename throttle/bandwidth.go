package throttle

import (
	"context"
	"io"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/merlon-dev/merlon"
)

// A shaper slows bodies down to what a client, and the route, may have.
type shaper struct {
	pool   *Pool
	bps    Bandwidth
	chunk  int           // the most that goes on in one piece
	route  *rate.Limiter // nil: no bound
	shards [64]buckets   // of clients, if these have a bound
}

const (
	maxChunk   = 32 << 10
	minChunk   = 1 << 10
	perShard   = 1024 // clients apart; 65536 in all
	tidy       = 4    // idle ones looked for when one comes
	mostTokens = 1 << 30
)

// A bucket is what one client may have, or several when there are too many.
type bucket struct {
	limiter *rate.Limiter // nil: no bound
	users   int           // under the shard's lock
	addr    netip.Addr
	shared  bool
}

type buckets struct {
	mu     sync.Mutex
	of     map[netip.Addr]*bucket
	shared *bucket
	_      [40]byte
}

func newShaper(b Bandwidth, pool *Pool) *shaper {
	s := &shaper{pool: pool, bps: b, chunk: maxChunk}
	for _, r := range [...]ByteRate{b.Client, b.Route} {
		if r > 0 { // several pieces a second
			s.chunk = min(s.chunk, max(int(min(r/8, maxChunk)), minChunk))
		}
	}
	if b.Route > 0 {
		s.route = s.limiter(b.Route)
	}
	for i := range s.shards {
		s.shards[i].of = map[netip.Addr]*bucket{}
		s.shards[i].shared = &bucket{limiter: s.limiter(b.Client), shared: true}
	}
	return s
}

// limiter lets a quarter of a second's bytes through at once.
func (s *shaper) limiter(r ByteRate) *rate.Limiter {
	if r == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(r), max(s.chunk, int(min(r/4, mostTokens))))
}

// spread tells a client's shard, by the bits that differ between neighbours.
func spread(client netip.Addr) uint8 {
	a := client.As16()
	return (a[3] ^ a[5] ^ a[6] ^ a[7] ^ a[13] ^ a[14] ^ a[15]) % 64
}

// join returns the client's bucket, to be given back by leave.
func (s *shaper) join(addr netip.Addr) *bucket {
	if s.bps.Client == 0 {
		return &bucket{shared: true}
	}
	addr = merlon.Subscriber(addr)
	b := &s.shards[spread(addr)]
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.of[addr]
	if c == nil {
		b.tidy()
		if len(b.of) >= perShard {
			return b.shared
		}
		c = &bucket{limiter: s.limiter(s.bps.Client), addr: addr}
		b.of[addr] = c
	}
	c.users++
	return c
}

// tidy forgets some clients that have nothing under way, and as much left as
// new ones.
func (b *buckets) tidy() {
	looked := 0
	for addr, c := range b.of {
		if c.users == 0 && c.whole() {
			delete(b.of, addr)
		}
		if looked++; looked == tidy {
			return
		}
	}
}

func (c *bucket) whole() bool { return c.limiter.Tokens() >= float64(c.limiter.Burst()) }

func (s *shaper) leave(c *bucket) {
	if c.shared {
		return
	}
	b := &s.shards[spread(c.addr)]
	b.mu.Lock()
	defer b.mu.Unlock()
	c.users--
	if c.users == 0 && c.whole() {
		delete(b.of, c.addr)
	}
}

// wrap slows body down.
func (s *shaper) wrap(ctx context.Context, body io.ReadCloser, c *bucket) io.ReadCloser {
	return &shaped{ReadCloser: body, s: s, ctx: ctx, client: c.limiter}
}

type shaped struct {
	io.ReadCloser
	s      *shaper
	ctx    context.Context
	client *rate.Limiter
}

// Read delivers a piece when its time has come. The client's turn is first, so
// that nothing of the route's is taken while it waits.
func (b *shaped) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.s.chunk)])
	if n == 0 {
		return n, err
	}
	if werr := wait(b.ctx, b.client, n); werr != nil {
		return 0, werr
	}
	if r := b.s.route; r != nil {
		if want := rate.Limit(float64(b.s.bps.Route) / float64(max(b.s.pool.replicas(), 1))); r.Limit() != want {
			r.SetLimit(want)
		}
		if werr := wait(b.ctx, r, n); werr != nil {
			return 0, werr
		}
	}
	return n, err
}

// wait waits until n bytes may go on, or ctx is done.
func wait(ctx context.Context, l *rate.Limiter, n int) error {
	if l == nil {
		return nil
	}
	turn := l.ReserveN(time.Now(), n)
	d := turn.Delay()
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		turn.Cancel() // who waits behind may have it
		return context.Cause(ctx)
	}
}
