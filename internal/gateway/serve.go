package gateway

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/internal/portal/resume"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/origin"
	"github.com/merlon-dev/merlon/record"
	"github.com/merlon-dev/merlon/throttle"
	"github.com/merlon-dev/merlon/upstream"
)

// LedgerFull: events cannot be written and ledger.on_full is refuse, so
// nothing that might have to be logged is let in. Make space on the disk.
const LedgerFull merlon.Reason = "ledger-full"

// ServeHTTP is the way of one request: make it, ask the gate, ask the
// upstream, answer, record.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	g.inFlight.Add(1)
	defer g.inFlight.Done()

	tape := g.env.Tapes.Begin(hr)
	in := &countingBody{ReadCloser: tape.Body(hr.Body)}
	r := merlon.NewRequest(hr)
	if hr.Body != nil && hr.Body != http.NoBody {
		// In the copy only: by the body of its own request, net/http knows
		// that a client still waits for 100 Continue.
		r.Body = in
	}
	r.Client, r.Room = g.edge.ClientAddr(hr), g.env.Room
	r.JA4 = g.edge.Fingerprint(hr)
	e := &exchange{g: g, r: r, w: &countingWriter{ResponseWriter: w, in: &in.n}, secure: g.edge.IsHTTPS(hr), in: in, tape: tape}
	if e.secure && r.TLS == nil {
		// TLS ended at a trusted proxy. For cookies, and whoever asks, it is TLS.
		r.TLS = new(tls.ConnectionState)
	}
	e.route = g.match(r)
	end := g.env.Tracer.start(r)
	defer func() { // also when the upstream's answer breaks off by a panic
		e.left = e.r.Context().Err() != nil // Done may end it
		e.outcome.Status, e.outcome.In, e.outcome.Out = e.w.status, e.in.n.Load(), e.w.n.Load()
		e.route.gate.Done(r, e.outcome)
		r.Release()
		e.record()
		e.tapeEnd()
		end(e.outcome)
	}()
	e.serve()
}

// match finds the route, and writes what the request says about its place.
func (g *Gateway) match(r *merlon.Request) *route {
	if path, err := origin.CanonicalPath(r.URL); err == nil || errors.Is(err, origin.ErrEncodedTwice) {
		r.Path = path // the route may allow what is encoded twice
	} // else origin refuses it
	host, err := origin.CanonicalHost(r.Host)
	if err != nil {
		return g.stranger
	}
	s := g.hosts.find(host)
	if s == nil {
		return g.stranger
	}
	r.Site = s.name
	rt := s.find(r.Path)
	r.Route = rt.pattern
	r.Conflict = s.conflict(r.Path, rt)
	return rt
}

// An exchange is one request and its answer.
type exchange struct {
	g       *Gateway
	r       *merlon.Request
	w       *countingWriter
	in      *countingBody
	route   *route
	secure  bool         // the client speaks TLS, to us or to a trusted proxy
	tape    *record.Tape // nil if the request is not recorded
	answer  bool         // the upstream's answer was refused, not the request
	gone    bool         // the client went away before it was answered
	left    bool         // it was away, or its time was up, when it was answered
	outcome merlon.Outcome

	proofEnds func() // watches for the end of what proves who asks; nil if that is nobody
}

func (e *exchange) serve() {
	if l := e.g.env.Ledger; l != nil && !l.Healthy() {
		d := merlon.Refuse(http.StatusServiceUnavailable, LedgerFull)
		e.r.Record("ledger", d)
		e.refuse(d)
		return
	}
	p := e.g.people
	kept, resumed, err := e.swap()
	if err != nil {
		e.refuseGone(err)
		return
	}
	d := e.route.gate.Check(e.r)
	if !d.Passed() {
		e.refuse(d)
		return
	}
	if resumed && (e.r.Identity == nil || e.r.Identity.Subject != kept.For) {
		e.refuseGone(nil)
		return
	}
	if e.route.page != nil {
		e.page()
		return
	}
	if p != nil {
		defer e.watch()()
		p.guard.Strip(e.r, e.r.Header)
	}
	session.StripCookies(e.r.Header)
	origin.StripHeaders(e.r.Header)
	throttle.TellDeadline(e.r)
	e.g.env.Tracer.inject(e.r)
	call := upstream.Call{Proto: "http", Plain: e.route.plain, Response: e.response, Failed: e.failed}
	if e.secure {
		call.Proto = "https"
	}
	e.outcome.Upstream = true
	e.route.pool.Serve(e.w, e.r, call)
	if e.gone {
		panic(http.ErrAbortHandler) // or net/http would say 200 for us
	}
}

// swap puts the form back that was kept while its sender proved who they are.
func (e *exchange) swap() (kept resume.Kept, resumed bool, err error) {
	if e.g.people == nil || e.route.page != nil {
		return resume.Kept{}, false, nil
	}
	return e.g.people.swap(e.r)
}

func (e *exchange) refuseGone(err error) {
	d := merlon.Refuse(http.StatusForbidden, ResumeGone)
	d.Err = err
	e.r.Record("identity", d)
	e.refuse(d)
}

// PagesInClear: one of the pages where people sign in was asked for without
// TLS, from another machine. If a proxy ends TLS, name it in trusted_proxies
// and let it say so in X-Forwarded-Proto.
const PagesInClear merlon.Reason = "pages-in-clear"

// page answers with one of Merlon's own pages, which has its own policy for
// what browsers may do; the rest is as for every answer.
func (e *exchange) page() {
	if !e.secure && !e.r.Client.IsLoopback() {
		d := merlon.Refuse(http.StatusForbidden, PagesInClear)
		e.r.Record("identity", d)
		e.refuse(d)
		return
	}
	h := e.w.Header()
	if e.route.headers != nil {
		e.route.headers.Apply(e.r, e.secure, h)
	}
	e.r.AddHeader(h)
	h.Set("X-Request-Id", e.r.ID)
	e.route.page.ServeHTTP(e.w, e.r.Request)
}

// response judges and dresses the upstream's answer.
func (e *exchange) response(res *http.Response) merlon.Decision {
	d := e.route.gate.CheckResponse(e.r, res)
	if !d.Passed() {
		e.answer = true
		return d
	}
	if e.proofEnds != nil && strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		e.proofEnds()
	}
	session.StripAnswer(res.Header)
	e.r.AddHeader(res.Header)
	limit.KeepFromCaches(res.Header)
	if e.route.headers != nil {
		e.route.headers.Apply(e.r, e.secure, res.Header)
	}
	res.Header.Set("X-Request-Id", e.r.ID)
	return d
}

// failed answers for an upstream that did not, or whose answer was refused.
func (e *exchange) failed(d merlon.Decision, begun bool) {
	if e.r.RefusedBy() == "" {
		e.r.Record(upstream.Name, d)
	}
	if begun || d.Reason == upstream.ClientClosed {
		e.gone = !begun
		e.outcome.Guard = e.r.RefusedBy()
		return
	}
	e.refuse(d)
}

func (e *exchange) refuse(d merlon.Decision) {
	e.outcome.Guard = e.r.RefusedBy()
	if d.Effect == merlon.Challenge {
		switch e.outcome.Guard {
		case "challenge", "stuffing":
			d = e.work(d)
		default:
			d = e.g.people.challenge(e.r, d, e.route)
		}
	}
	h := e.w.Header()
	if e.route.headers != nil {
		e.route.headers.Apply(e.r, e.secure, h)
	}
	e.r.AddHeader(h)
	merlon.Respond(e.w, e.r, d)
}

// record leaves the one event, and counts.
func (e *exchange) record() {
	took := time.Since(e.r.Received)
	refusedBy := e.outcome.Guard
	e.g.env.Metrics.request(e.r, e.outcome, took)
	log := e.g.env.Ledger
	if log == nil {
		return
	}
	gone := refusedBy == upstream.Name && e.w.status == 0 && e.left
	if !log.Access() && (gone || !e.notable()) {
		return
	}
	if log.Fold(e.r, e.outcome) {
		return
	}
	event := ledger.FromRequest(e.r, e.outcome, ledger.Traffic{
		Duration: took, BytesIn: e.in.n.Load(), BytesOut: e.w.n.Load(), Inspected: e.r.Peeked(),
	})
	if err := log.Append(event); err != nil && !errors.Is(err, ledger.ErrClosed) {
		e.g.env.Log.Error("an event could not be recorded", "id", e.r.ID, "error", err)
	}
}

// notable reports whether a guard refused, or would have.
func (e *exchange) notable() bool {
	for _, v := range e.r.Verdicts() {
		if v.Decision.Effect != merlon.Allow {
			return true
		}
	}
	return false
}

// countingBody counts the bytes of a request body.
type countingBody struct {
	io.ReadCloser
	n atomic.Int64 // the transport may still read when the answer has ended
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// countingWriter remembers the status and counts the bytes of an answer.
type countingWriter struct {
	http.ResponseWriter
	status int
	n      atomic.Int64  // both ways of a WebSocket go on until both have ended
	in     *atomic.Int64 // of the request
}

// WriteHeader remembers the final status; 1xx answers go before it.
func (w *countingWriter) WriteHeader(code int) {
	if w.status == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.n.Add(int64(n))
	return n, err
}

// Hijack takes over the connection of a WebSocket, on which bytes are counted
// as those of bodies are.
func (w *countingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return &countingConn{conn, w}, rw, nil
}

// countingConn counts what a client sends and gets after it has switched
// protocols.
type countingConn struct {
	net.Conn
	w *countingWriter
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.w.in.Add(int64(n))
	return n, err
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.w.n.Add(int64(n))
	return n, err
}

// CloseWrite tells the client that nothing more comes, which lets it finish.
func (c *countingConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// Unwrap lets http.ResponseController reach the writer below, to flush.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
