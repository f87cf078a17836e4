package upstream

import (
	"io"
	"sync"
	"time"
)

// An upload is the client's request body on its way. A backend that does not
// take the next part within limit, though it has not answered, ends the
// exchange: without that, one that never reads would hold the client forever.
type upload struct {
	src   io.Reader
	e     *exchange
	limit time.Duration

	mu    sync.Mutex
	timer *time.Timer
	over  bool // the backend has answered, or failed
	begun bool // a byte was asked for
	err   error
}

// Read is called by the transport when it has sent what it read before.
func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	u.begun = true
	if u.timer != nil {
		u.timer.Stop()
	}
	u.mu.Unlock()
	n, err := u.src.Read(p)
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case err != nil && err != io.EOF && !u.over:
		u.err = err
	case err != nil || u.over:
	case u.timer == nil:
		u.timer = time.AfterFunc(u.limit, u.stalled)
	default:
		u.timer.Reset(u.limit)
	}
	return n, err
}

func (u *upload) stalled() {
	u.mu.Lock()
	over := u.over
	u.mu.Unlock()
	if !over {
		u.e.cancel(errStalled)
	}
}

// Close does nothing: the body may still be wanted for another backend, and
// closing it is for the HTTP server.
func (u *upload) Close() error { return nil }

// answered ends the watch. What an answer's header came before the end of the
// body, the backend may read as slowly as it likes.
func (u *upload) answered() {
	u.mu.Lock()
	u.over = true
	if u.timer != nil {
		u.timer.Stop()
	}
	u.mu.Unlock()
}

func (u *upload) stop() { u.answered() }

// again readies the body, of which nothing was read, for another backend.
func (u *upload) again() {
	u.mu.Lock()
	u.over = false
	u.mu.Unlock()
}

func (u *upload) touched() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.begun
}

func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}
