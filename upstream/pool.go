package upstream

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	mathrand "math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/merlon-dev/merlon"
)

// A Pool is the backends of one site or route.
type Pool struct {
	c        Config // with defaults
	backends []*backend
	buffers  bufferPool
	encoders encoders

	fileCheck time.Duration         // how often TLS files are looked at
	tlsErr    atomic.Pointer[error] // why changed TLS files are not in use

	start  sync.Once
	cancel context.CancelFunc
	ctx    context.Context
	work   sync.WaitGroup // health checks and file watch

	mu      sync.Mutex
	tunnels map[*tunnel]struct{}
	empty   chan struct{} // closed when the last tunnel closes; nil if nobody waits
	shut    bool          // tunnels that still open are closed at once
}

// A backend is one address and what is known about it.
type backend struct {
	addr      address
	mark      string // what a sticky cookie says for it
	transport atomic.Pointer[http.Transport]
	inFlight  atomic.Int64
	down      atomic.Bool  // health checks say so
	fails     atomic.Int32 // connections that failed in a row
	rest      atomic.Int64 // until when others are asked first, in Unix nanoseconds
}

// New checks c and returns its backends, of which none is connected to yet.
func New(c Config) (*Pool, error) {
	c, addresses, err := c.check()
	errs := []error{err}
	tc, err := c.TLS.config()
	errs = append(errs, err)
	key := []byte(rand.Text())
	if c.Sticky != nil && c.Sticky.Key != "" {
		secret, err := c.Sticky.Key.Resolve()
		if err != nil {
			errs = append(errs, merlon.BadSetting("sticky.key", string(c.Sticky.Key), err.Error()))
		}
		key = []byte(secret.Reveal())
	}
	if err := flatten(errs); err != nil {
		return nil, err
	}
	p := &Pool{c: c, fileCheck: time.Second, tunnels: map[*tunnel]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, a := range addresses {
		b := &backend{addr: a, mark: mark(key, a.text)}
		b.transport.Store(p.c.newTransport(a, tc.Clone()))
		p.backends = append(p.backends, b)
	}
	return p, nil
}

// flatten joins errors that may be joined ones, each named once: a mistake in
// tls that both check and config see is one mistake.
func flatten(errs []error) error {
	var flat []error
	seen := map[string]bool{}
	for _, err := range errs {
		all := []error{err}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			all = joined.Unwrap()
		}
		for _, e := range all {
			if e != nil && !seen[e.Error()] {
				seen[e.Error()] = true
				flat = append(flat, e)
			}
		}
	}
	return errors.Join(flat...)
}

func mark(key []byte, text string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12])
}

// Start begins health checks and the watch on TLS files. Without it the pool
// works, but takes every backend for healthy. A second call does nothing.
func (p *Pool) Start() {
	p.start.Do(func() {
		if p.c.Health != nil {
			for _, b := range p.backends {
				p.work.Go(func() { p.watchHealth(p.ctx, b) })
			}
		}
		if p.c.TLS.CA != "" || p.c.TLS.Cert != "" {
			stamp := p.c.TLS.stamp()
			p.work.Go(func() { p.watchFiles(p.ctx, stamp) })
		}
	})
}

// Close ends health checks, waits until open WebSockets have closed or ctx is
// done, closes the rest, and closes connections that nobody uses. Other
// requests in flight go on: the HTTP server's Shutdown is what waits for them.
func (p *Pool) Close(ctx context.Context) {
	p.cancel()
	p.work.Wait()
	p.mu.Lock()
	var wait chan struct{}
	if len(p.tunnels) > 0 {
		if p.empty == nil {
			p.empty = make(chan struct{})
		}
		wait = p.empty
	}
	p.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	p.shut = true
	var rest []*tunnel
	for t := range p.tunnels {
		rest = append(rest, t)
	}
	p.mu.Unlock()
	for _, t := range rest {
		_ = t.Close() // it is being given up
	}
	for _, b := range p.backends {
		b.transport.Load().CloseIdleConnections()
	}
}

// Stats is what a pool is doing.
type Stats struct {
	Backends   []BackendStats `json:"backends"`
	WebSockets int            `json:"websockets"` // open now
	// TLSFiles is why changed TLS files are not in use; nil if they are.
	TLSFiles error `json:"-"`
}

// BackendStats is the state of one backend.
type BackendStats struct {
	Address  string `json:"address"`
	Healthy  bool   `json:"healthy"`
	InFlight int64  `json:"in_flight"`
}

// Stats returns what the pool is doing now.
func (p *Pool) Stats() Stats {
	var s Stats
	for _, b := range p.backends {
		healthy := !b.down.Load() && b.rest.Load() <= time.Now().UnixNano()
		s.Backends = append(s.Backends, BackendStats{b.addr.text, healthy, b.inFlight.Load()})
	}
	p.mu.Lock()
	s.WebSockets = len(p.tunnels)
	p.mu.Unlock()
	if err := p.tlsErr.Load(); err != nil {
		s.TLSFiles = *err
	}
	return s
}

const maxAttempts = 3

var (
	errNoneHealthy = errors.New("every backend failed its health checks")
	errBusy        = errors.New("every backend has max_in_flight requests in flight")
)

// pick takes a place at the backend that is to be asked: the one the cookie
// names, or the one with the fewest requests in flight. Backends that health
// checks found down are not asked. One whose last connection failed is asked
// only where nothing else is left: guessing wrong that all are dead would turn
// away everybody.
func (p *Pool) pick(cookie string, tried []*backend) (*backend, error) {
	now := time.Now().UnixNano()
	var best, resting *backend
	var least int64
	ties, healthy := 0, 0
	for _, b := range p.backends {
		if b.down.Load() || contains(tried, b) {
			continue
		}
		healthy++
		n := b.inFlight.Load()
		switch {
		case n >= int64(p.c.MaxInFlight):
		case b.rest.Load() > now:
			if resting == nil || b.rest.Load() < resting.rest.Load() {
				resting = b
			}
		case cookie != "" && hmac.Equal([]byte(cookie), []byte(b.mark)):
			best, least, ties = b, -1, 1
		case best == nil || n < least:
			best, least, ties = b, n, 1
		case n == least:
			ties++
			if mathrand.IntN(ties) == 0 {
				best = b
			}
		}
	}
	if best == nil && len(tried) == 0 {
		best = resting
	}
	switch {
	case best != nil && best.inFlight.Add(1) <= int64(p.c.MaxInFlight):
		return best, nil
	case best != nil:
		best.inFlight.Add(-1)
		return nil, errBusy
	case healthy == 0:
		return nil, errNoneHealthy
	default:
		return nil, errBusy
	}
}

func contains(all []*backend, b *backend) bool {
	for _, a := range all {
		if a == b {
			return true
		}
	}
	return false
}

// connected and unconnected keep what passing requests tell about b.
func (b *backend) connected() {
	if b.fails.Load() != 0 {
		b.fails.Store(0)
		b.rest.Store(0)
	}
}

func (b *backend) unconnected() {
	n := min(b.fails.Add(1), 5)
	b.rest.Store(time.Now().Add(500 * time.Millisecond << n).UnixNano()) // 1 s to 16 s
}

// retryAfter is when it is worth asking again.
func (p *Pool) retryAfter(err error) http.Header {
	wait := time.Second
	if errors.Is(err, errNoneHealthy) && p.c.Health != nil {
		wait = p.c.Health.Interval
	}
	seconds := int64((wait + time.Second - 1) / time.Second)
	return http.Header{"Retry-After": {strconv.FormatInt(seconds, 10)}}
}
