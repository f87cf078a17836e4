package redis

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/secrets"
)

// Shared is [Limits] and [Replicas] of a server that need not be there when
// this process starts. Behind a [count.Fallback], which probes it, it connects
// as soon as it is.
type Shared struct {
	at   secrets.Secret
	file string
	kept int // the count of replicas in it at the start

	there   atomic.Pointer[connected]
	dialing sync.Mutex
	closed  bool
}

type connected struct {
	client   rueidis.Client
	limits   *Limits
	replicas *Replicas
}

var (
	_ count.Store  = (*Shared)(nil)
	_ count.Prober = (*Shared)(nil)

	errNotThere = errors.New("redis: not connected yet")
)

// OpenLimits returns what counts in the server of a URL, see [Dial]. The last
// count of the replicas is kept in file, see [NewReplicas]. Its only errors are
// of the URL: a server that is not there is one that is lost.
func OpenLimits(at secrets.Secret, file string) (*Shared, error) {
	if _, err := options(at); err != nil {
		return nil, err
	}
	s := &Shared{at: at, file: file, kept: readCount(file)}
	_, _ = s.connect() // otherwise the next Probe does
	return s, nil
}

func (s *Shared) connect() (*connected, error) {
	s.dialing.Lock()
	defer s.dialing.Unlock()
	if c := s.there.Load(); c != nil {
		return c, nil
	}
	if s.closed {
		return nil, errClosed
	}
	client, err := DialLimits(s.at)
	if err != nil {
		return nil, err
	}
	c := &connected{client, NewLimits(client), NewReplicas(client, s.file)}
	s.there.Store(c)
	return c, nil
}

// Count is how many replicas there are, as in [Replicas]; 1 or what was kept
// if the server was never there.
func (s *Shared) Count() int {
	if c := s.there.Load(); c != nil {
		return c.replicas.Count()
	}
	return s.kept
}

// Take implements [count.Store].
func (s *Shared) Take(ctx context.Context, asks []count.Ask, results []count.Result, now time.Time) error {
	c := s.there.Load()
	if c == nil {
		return errNotThere
	}
	return c.limits.Take(ctx, asks, results, now)
}

// Add implements [count.Store].
func (s *Shared) Add(ctx context.Context, asks []count.Ask, now time.Time) error {
	c := s.there.Load()
	if c == nil {
		return errNotThere
	}
	return c.limits.Add(ctx, asks, now)
}

// Hold implements [count.Store].
func (s *Shared) Hold(ctx context.Context, places []count.Place) (full int, release func(), err error) {
	c := s.there.Load()
	if c == nil {
		return -1, nil, errNotThere
	}
	return c.limits.Hold(ctx, places)
}

// Probe implements [count.Prober]. It connects if that was never done, which
// may take longer than ctx has.
func (s *Shared) Probe(ctx context.Context, now time.Time) (forgot bool, err error) {
	c, err := s.connect()
	if err != nil {
		return false, err
	}
	return c.limits.Probe(ctx, now)
}

// Close takes this process out of the count of replicas, ends the counting and
// disconnects.
func (s *Shared) Close() {
	s.dialing.Lock()
	s.closed = true
	c := s.there.Load()
	s.dialing.Unlock()
	if c != nil {
		c.replicas.Close()
		c.limits.Close()
		c.client.Close()
	}
}
