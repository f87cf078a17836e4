package upstream

import (
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it; it protects nothing
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
)

var (
	errNotAsked = errors.New("switched protocols (101) without having been asked to")
	errAccept   = errors.New("switched protocols (101) without the right Sec-WebSocket-Accept")
	errHeader   = errors.New("header with bytes that may not stand in one")
	errConnect  = errors.New("CONNECT cannot be passed on")
)

// sane refuses answers that clients or proxies could read in two ways.
// net/http has refused conflicting lengths and unknown transfer codings before.
func (e *exchange) sane(res *http.Response) error {
	if !validHeader(res.Header) {
		return errHeader
	}
	switch {
	case res.StatusCode == http.StatusSwitchingProtocols:
		if e.accept == "" {
			return errNotAsked
		}
		// A backend that did not read the handshake as one does not know
		// this value: the tunnel would carry requests.
		if got := res.Header["Sec-Websocket-Accept"]; len(got) != 1 || got[0] != e.accept {
			return errAccept
		}
	case res.StatusCode < 200 || res.StatusCode > 999:
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

// acceptKey is RFC 6455, section 4.2.2, 5.4.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// clean drops what is for a front server or for its peers, not for clients.
// Alt-Svc would send browsers around the gateway.
func clean(h http.Header) {
	for name := range h {
		switch name[0] | 0x20 {
		case 'x', 'm', 'a':
		default:
			continue
		}
		if strings.HasPrefix(name, "X-Accel-") || strings.HasPrefix(name, "Merlon-") {
			delete(h, name)
			continue
		}
		switch name {
		case "X-Sendfile", "X-Lighttpd-Send-File", "X-Lighttpd-Send-Tempfile", "X-Reproxy-Url", "Alt-Svc":
			delete(h, name)
		}
	}
}

func onlyTrailer(name string) bool {
	switch name {
	case "Content-Length", "Transfer-Encoding", "Trailer", "Host", "Content-Encoding", "Content-Type", "Content-Range",
		"Cache-Control", "Set-Cookie", "Authorization", "Www-Authenticate", "Proxy-Authenticate", "Location",
		"Connection", "Upgrade", "Keep-Alive", "Te", "Expires", "Vary", "Age", "Date", "Retry-After", "Alt-Svc",
		"Strict-Transport-Security", "Content-Security-Policy", "Access-Control-Allow-Origin":
		return false
	}
	return !strings.HasPrefix(name, "Merlon-") && !strings.HasPrefix(name, "X-Accel-")
}

// trailers drops fields that may not stand in a trailer (RFC 9110, section
// 6.5.1): guards have judged the header without them.
func trailers(h http.Header) {
	for name, values := range h {
		if !onlyTrailer(name) || !validHeader(http.Header{name: values}) {
			delete(h, name)
		}
	}
}

// An answer is the body of a backend's answer. A backend that is silent for
// longer than limit while the body is read ends the exchange.
type answer struct {
	io.ReadCloser
	e     *exchange
	res   *http.Response
	limit time.Duration
	timer *time.Timer
	err   error  // of reading
	whole []byte // read ahead; from the pool's buffers
	rest  []byte // of whole, not yet delivered
}

// mostAhead is far below what a client would see sooner if it were not waited
// for: servers send so little in one piece.
const mostAhead = 16 << 10

// ahead reads a short answer to its end before the client is told that there is
// one, so that a backend which dies on the way is a clear 502 and not half a page.
func (a *answer) ahead(buffers *bufferPool) error {
	n := a.res.ContentLength
	if n <= 0 || n > mostAhead || a.res.Request.Method == http.MethodHead || a.limit == a.e.pool.c.Timeouts.Stream {
		return nil
	}
	a.whole = buffers.Get()
	m, err := io.ReadFull(readerFunc(a.read), a.whole[:n])
	a.rest = a.whole[:m]
	return err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (a *answer) Read(p []byte) (int, error) {
	if len(a.rest) > 0 {
		n := copy(p, a.rest)
		a.rest = a.rest[n:]
		return n, nil
	}
	return a.read(p)
}

// Close is called by whoever was given the body, after the last Read.
func (a *answer) Close() error {
	if a.whole != nil {
		a.e.pool.buffers.Put(a.whole)
		a.whole, a.rest = nil, nil
	}
	return a.ReadCloser.Close()
}

func (a *answer) read(p []byte) (int, error) {
	if a.timer == nil {
		a.timer = time.AfterFunc(a.limit, func() { a.e.cancel(errStalled) })
	} else {
		a.timer.Reset(a.limit)
	}
	n, err := a.ReadCloser.Read(p)
	a.timer.Stop()
	switch {
	case err == io.EOF:
		trailers(a.res.Trailer)
	case err != nil:
		a.err = err
	}
	return n, err
}

// A watched body is an answer as a guard passes it on, which may refuse the
// rest of it with a [merlon.LateRefusal].
type watched struct {
	io.ReadCloser
	e *exchange
}

func (b *watched) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if _, ok := err.(*merlon.LateRefusal); ok {
		b.e.late = err
	}
	return n, err
}

func (a *answer) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

// A tunnel is the backend's end of an open WebSocket.
type tunnel struct {
	io.ReadWriteCloser
	pool *Pool
	idle *time.Timer
}

// open counts a new tunnel.
func (p *Pool) open(conn io.ReadWriteCloser) *tunnel {
	t := &tunnel{ReadWriteCloser: conn, pool: p}
	t.idle = time.AfterFunc(p.c.Timeouts.Stream, func() { _ = t.Close() }) // nobody is left to tell
	p.mu.Lock()
	p.tunnels[t] = struct{}{}
	shut := p.shut
	p.mu.Unlock()
	if shut {
		_ = t.Close()
	}
	return t
}

func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Read(p)
	if n > 0 {
		t.idle.Reset(t.pool.c.Timeouts.Stream)
	}
	return n, err
}

func (t *tunnel) Write(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Write(p)
	if n > 0 {
		t.idle.Reset(t.pool.c.Timeouts.Stream)
	}
	return n, err
}

// CloseWrite passes the end of what the client sends on.
func (t *tunnel) CloseWrite() error {
	if c, ok := t.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return t.Close()
}

// Close may be called more than once.
func (t *tunnel) Close() error {
	t.idle.Stop()
	p := t.pool
	p.mu.Lock()
	delete(p.tunnels, t)
	if len(p.tunnels) == 0 && p.empty != nil {
		close(p.empty)
		p.empty = nil
	}
	p.mu.Unlock()
	return t.ReadWriteCloser.Close()
}
