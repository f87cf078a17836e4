package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/secrets"
)

const (
	// atStart is how long a process that starts waits for its server, which may
	// be starting itself.
	atStart = 3 * time.Second
	// firstPause is how long after a failure a server is looked for again; the
	// pauses double up to longestPause, and differ between processes.
	firstPause   = 100 * time.Millisecond
	longestPause = 2 * time.Second
)

// A Link is a connection to a server that need not be there when this process
// starts: it connects as soon as it is. Nobody waits for that, and one
// goroutine looks for the server. Once connected, the client itself does so.
type Link struct {
	at    secrets.Secret
	there atomic.Pointer[rueidis.Client]
	ended chan struct{}

	mu     sync.Mutex
	why    error // of the last failure to connect
	closed bool
}

// Open connects to the server of a URL, see [Dial], and waits a few seconds for
// it. Its only errors are of the URL, and what a server answers that waiting
// does not mend: that it knows no such user, or cannot prove who it is.
func Open(ctx context.Context, at secrets.Secret) (*Link, error) {
	if err := Check(at); err != nil {
		return nil, err
	}
	l := &Link{at: at, ended: make(chan struct{}), why: errors.New("no answer yet")}
	tried := make(chan error, 1)
	go l.connect(tried)
	enough := time.NewTimer(atStart)
	defer enough.Stop()
	for {
		select {
		case err := <-tried:
			if err != nil && !refused(err) {
				continue
			}
			if err != nil {
				l.Close()
				return nil, err
			}
			return l, nil
		case <-enough.C:
			return l, nil
		case <-ctx.Done():
			l.Close()
			return nil, ctx.Err()
		}
	}
}

// Client returns the client, which must not be closed, or why there is none.
func (l *Link) Client() (rueidis.Client, error) {
	if c := l.there.Load(); c != nil {
		return *c, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return nil, fmt.Errorf("redis: not connected yet: %w", l.why)
}

// connect looks for the server until it is there or the Link is closed. What
// came of it is told to tried as long as that has room.
func (l *Link) connect(tried chan<- error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		c, err := Dial(l.at)
		if !l.use(c, err) {
			return
		}
		select {
		case tried <- err:
		default:
		}
		if err == nil {
			return
		}
		select {
		case <-l.ended:
			return
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

// use keeps what [Dial] returned, and reports false if nobody wants it any more.
func (l *Link) use(c rueidis.Client, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed && err == nil:
		c.Close()
	case err == nil:
		l.there.Store(&c)
	default:
		l.why = err
	}
	return !l.closed
}

// Close disconnects. An attempt to connect that is under way ends by itself
// within some seconds.
func (l *Link) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	close(l.ended)
	if c := l.there.Load(); c != nil {
		(*c).Close()
	}
}

// passing are the beginnings of a server's refusals that end by themselves.
var passing = []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "max number of clients"}

// refused reports whether a server, or somebody in its place, has answered what
// waiting does not mend.
func refused(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok { // it does not speak TLS
		return true
	}
	e, ok := errors.AsType[*rueidis.RedisError](err)
	return ok && !e.IsNil() && !slices.ContainsFunc(passing, func(word string) bool { return strings.HasPrefix(e.Error(), word) })
}
