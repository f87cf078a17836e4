package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
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
	whole []byte // read ahead; nil if it streams
}

// ahead reads a short body to its end before a backend is asked. A slow client
// then holds none, what a guard refuses at the end of the body reaches none,
// and the body goes out in one piece with the header. Clients that wait for
// 100 Continue are not kept waiting, and streams are not held back.
func (u *upload) ahead(out *http.Request) error {
	n := int(min(out.ContentLength, mostAhead+1))
	if n <= 0 || n > mostAhead || repeatable(out) || out.Header["Expect"] != nil || u.limit == u.e.pool.c.Timeouts.Stream {
		return nil
	}
	whole := make([]byte, n+1) // more than was announced would be seen
	m := 0
	var err error
	for m < len(whole) && err == nil {
		var k int
		k, err = u.src.Read(whole[m:])
		m += k
	}
	switch {
	case err == io.EOF && m == n:
		u.whole = whole[:n]
		return nil
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	case err == nil:
		err = errLonger
	}
	u.mu.Lock()
	u.err = err
	u.mu.Unlock()
	return err
}

var errLonger = errors.New("the body is longer than its Content-Length")

// repeatable reports whether net/http would send a request twice where its body
// is known. What has left once is not sent again.
func repeatable(out *http.Request) bool {
	switch out.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return out.Header["Idempotency-Key"] != nil || out.Header["X-Idempotency-Key"] != nil
	}
	return true
}

// give makes the body that of an attempt. A reader of memory net/http knows by
// its type, and sends it together with the header; a connection that turns out
// to be closed before anything was sent costs a second reader and no error.
func (u *upload) give(out *http.Request) {
	if u.whole == nil {
		out.Body = u
		return
	}
	body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(u.whole)), nil }
	out.GetBody = body
	out.Body, _ = body() // it has no errors
	// How much the backend has taken cannot be seen, so that its time for
	// the answer begins now.
	patience := u.limit + u.e.pool.c.Timeouts.ResponseHeader
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.timer == nil {
		u.timer = time.AfterFunc(patience, u.stalled)
	} else {
		u.timer.Reset(patience)
	}
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
