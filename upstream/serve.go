package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"

	"github.com/merlon-dev/merlon"
)

// A Call is what the caller of [Pool.Serve] adds to one request.
type Call struct {
	// Proto is what X-Forwarded-Proto says: "http" or "https". If empty, it is
	// told by the connection the request came on.
	Proto string
	// Plain asks the backend for an answer without content coding, for
	// response guards that read it. It is still compressed for the client.
	Plain bool
	// Response judges the backend's answer before the client sees any of it,
	// and may change its header and replace its body. An answer that did not
	// pass is dropped, and Failed gets the decision. With status 101 there is
	// no body. Nil passes everything.
	Response func(*http.Response) merlon.Decision
	// Failed is told why no complete answer was given. If begun is false it
	// must answer the client itself; if it is true a part of the answer has
	// been sent, and Serve will panic with http.ErrAbortHandler, so that the
	// client cannot take the part for the whole. If nil, merlon.Respond.
	Failed func(d merlon.Decision, begun bool)
}

// Serve asks a backend about r and passes its answer to w. It returns when the
// answer, or the WebSocket that it became, has ended. The client going away,
// or r's context being cancelled for any other reason, ends both.
func (p *Pool) Serve(w http.ResponseWriter, r *merlon.Request, c Call) {
	ctx, cancel := context.WithCancelCause(r.Context())
	e := &exchange{pool: p, r: r, call: c, ctx: ctx, cancel: cancel}
	e.w = writer{ResponseWriter: w, e: e, early: http.Header{}}
	e.upload.e, e.answer.e = e, e
	e.proxy = httputil.ReverseProxy{
		Rewrite:        e.rewrite,
		Transport:      e,
		ModifyResponse: e.modify,
		ErrorHandler:   e.handle,
		BufferPool:     &p.buffers,
		ErrorLog:       silent,
	}
	done := false
	defer func() {
		cancel(nil)
		e.release()
		if !done {
			e.aborted() // by a panic, which goes on
		}
	}()
	e.proxy.ServeHTTP(&e.w, r.Request.WithContext(ctx))
	done = true
	if e.aborted() {
		panic(http.ErrAbortHandler) // ReverseProxy does so only below an http.Server
	}
}

// silent is for what ReverseProxy would log; Failed has been told.
var silent = log.New(io.Discard, "", 0)

// An exchange is one request, on its way to a backend and back.
type exchange struct {
	pool   *Pool
	r      *merlon.Request
	call   Call
	ctx    context.Context
	cancel context.CancelCauseFunc
	proxy  httputil.ReverseProxy

	w       writer
	upload  upload
	answer  answer
	backend *backend         // the last that was asked; nil if none
	held    bool             // a place at backend is taken
	accept  string           // the Sec-WebSocket-Accept that a 101 must carry; empty if none was asked for
	sent    string           // the query as it was rewritten
	refused *merlon.Decision // by Call.Response
	late    error            // of a guard that refused the rest of the answer
	told    bool             // Failed was called
	values  [12]string       // backs the header values that are written
	written int
}

func (e *exchange) release() {
	e.upload.stop()
	e.answer.stop()
	e.leave()
}

func (e *exchange) leave() {
	if e.held {
		e.held = false
		e.backend.inFlight.Add(-1)
	}
}

// RoundTrip implements http.RoundTripper for the exchange's one request: it
// chooses a backend, and another if no connection to the first can be made.
func (e *exchange) RoundTrip(out *http.Request) (*http.Response, error) {
	if out.Method == http.MethodConnect {
		return nil, errConnect
	}
	if out.Body != nil {
		e.upload.src = out.Body
		e.upload.limit = e.patience(out.Header)
		if err := e.upload.ahead(out); err != nil {
			return nil, err
		}
	}
	cookie := e.cookie()
	var tried []*backend
	for {
		b, err := e.pool.pick(cookie, tried)
		if err != nil {
			return nil, err
		}
		e.backend, e.held = b, true
		res, err := b.transport.Load().RoundTrip(e.aim(out, b, len(tried) > 0))
		e.upload.answered()
		if err == nil {
			b.connected()
			return res, nil
		}
		if !neverLeft(err) || e.ctx.Err() != nil {
			return nil, e.at(err)
		}
		b.unconnected()
		tried = append(tried, b)
		if len(tried) == maxAttempts || e.upload.touched() || !e.pool.another(tried) {
			return nil, e.at(err)
		}
		e.leave()
		e.upload.again()
	}
}

// at notes which backend an error came from.
func (e *exchange) at(err error) error { return &backendError{e.backend.addr.text, err} }

type backendError struct {
	address string
	err     error
}

func (e *backendError) Error() string { return e.address + ": " + e.err.Error() }
func (e *backendError) Unwrap() error { return e.err }

// another reports whether pick will find a backend that was not tried.
func (p *Pool) another(tried []*backend) bool {
	b, err := p.pick("", tried)
	if err != nil {
		return false
	}
	b.inFlight.Add(-1)
	return true
}

// aim points out at b. The first attempt may use out itself, which is ours.
func (e *exchange) aim(out *http.Request, b *backend, copied bool) *http.Request {
	if copied {
		u := *out.URL
		out = out.WithContext(out.Context())
		out.URL = &u
	}
	if out.Body != nil {
		e.upload.give(out)
	}
	out.URL.Scheme, out.URL.Host = b.addr.scheme, b.addr.host
	switch e.pool.c.Host {
	case "":
	case "upstream":
		out.Host = b.addr.host
	default:
		out.Host = e.pool.c.Host
	}
	if b.addr.h2c && e.accept != "" {
		// HTTP/2 has no Upgrade (RFC 9113, section 8.6).
		delete(out.Header, "Upgrade")
		delete(out.Header, "Connection")
	}
	return out
}

func (e *exchange) cookie() string {
	s := e.pool.c.Sticky
	if s == nil {
		return ""
	}
	c, err := e.r.Cookie(s.Cookie)
	if err != nil {
		return ""
	}
	return c.Value
}

// modify is asked about every answer, also 101, before any of it is sent.
func (e *exchange) modify(res *http.Response) error {
	e.w.early = nil
	if err := e.sane(res); err != nil {
		return e.at(err)
	}
	clean(res.Header)
	if s := e.pool.c.Sticky; s != nil && len(e.pool.backends) > 1 && e.cookie() != e.backend.mark {
		res.Header.Add("Set-Cookie", s.Cookie+"="+e.backend.mark+"; Path=/; Secure; HttpOnly; SameSite=Lax")
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		conn, ok := res.Body.(io.ReadWriteCloser)
		if !ok {
			return e.at(errNotAsked)
		}
		res.Body = http.NoBody
		if err := e.judge(res); err != nil {
			_ = conn.Close() // ReverseProxy would close what it sees as the body
			return err
		}
		res.Body = e.pool.open(conn)
		return nil
	}
	trailers(res.Trailer)
	e.answer.ReadCloser, e.answer.res = res.Body, res
	e.answer.limit = e.patience(res.Header)
	res.Body = &e.answer
	if err := e.answer.ahead(&e.pool.buffers); err != nil {
		return e.at(err)
	}
	if err := e.judge(res); err != nil {
		return err
	}
	if res.Body != io.ReadCloser(&e.answer) {
		res.Body = &watched{res.Body, e}
	}
	if !e.pool.c.NoCompression {
		e.pool.compress(e.r, e.sent, res)
	}
	return nil
}

var errRefused = errors.New("the answer was refused")

func (e *exchange) judge(res *http.Response) error {
	if e.call.Response == nil {
		return nil
	}
	d := e.call.Response(res)
	if e.answer.err != nil {
		return e.at(e.answer.err) // the guard could not judge what did not come
	}
	if !d.Passed() {
		e.refused = &d
		return errRefused
	}
	return nil
}

// handle is told by ReverseProxy why there is no answer.
func (e *exchange) handle(_ http.ResponseWriter, _ *http.Request, err error) {
	e.fail(e.decide(err))
}

func (e *exchange) fail(d merlon.Decision) {
	if e.told {
		return
	}
	e.told = true
	switch {
	case e.call.Failed != nil:
		e.call.Failed(d, e.w.begun)
	case !e.w.begun && d.Reason != ClientClosed:
		merlon.Respond(e.w.ResponseWriter, e.r, d)
	}
}

// aborted tells Failed if an answer broke off after it had begun.
func (e *exchange) aborted() bool {
	var err error
	switch {
	case e.told:
		return false
	case e.late != nil:
		err = e.late
	case e.answer.err != nil:
		err = e.at(e.answer.err)
	case e.w.err != nil:
		err = errClientGone
	default:
		return false
	}
	e.fail(e.decide(err))
	return true
}

// A writer is the client's, watched.
type writer struct {
	http.ResponseWriter
	e       *exchange
	begun   bool
	interim int
	early   http.Header // of interim answers; nil once the real answer is there
	err     error       // of writing
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Header keeps what interim answers carry, and ReverseProxy clears, apart from
// what the caller has put into the client's header.
func (w *writer) Header() http.Header {
	if w.early != nil {
		return w.early
	}
	return w.ResponseWriter.Header()
}

const maxInterim = 8

var errInterim = errors.New("more than 8 interim (1xx) answers")

// WriteHeader passes of the interim answers only 103 on, and of that only the
// links. The server says 100 itself when the backend begins to read the body.
func (w *writer) WriteHeader(code int) {
	switch {
	case code >= 200 || code == http.StatusSwitchingProtocols:
		w.begun = true
		w.ResponseWriter.WriteHeader(code)
		return
	case w.interim == maxInterim:
		w.e.cancel(errInterim)
		return
	}
	w.interim++
	if code != http.StatusEarlyHints || !w.e.r.ProtoAtLeast(1, 1) || !validHeader(w.early) {
		return
	}
	h := w.ResponseWriter.Header()
	own := maps.Clone(h)
	clear(h)
	h["Link"] = w.early["Link"]
	w.ResponseWriter.WriteHeader(code)
	clear(h)
	maps.Copy(h, own)
}

func (w *writer) Write(p []byte) (int, error) {
	w.begun = true
	n, err := w.ResponseWriter.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// Hijack notes that the connection is no longer one to answer on.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.begun = w.begun || err == nil
	return conn, rw, err
}

// A bufferPool lends ReverseProxy what it copies bodies through.
type bufferPool struct{ pool sync.Pool }

const bufferSize = 32 << 10

func (b *bufferPool) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buf[:]
	}
	return new([bufferSize]byte)[:]
}

func (b *bufferPool) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }
