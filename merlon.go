// Package merlon holds the words that every part of the gateway shares: a
// [Request] arrives, each [Guard] makes a [Decision] about it, and the [Gate]
// obeys the first decision that does not let it pass.
//
// It promises that a forgotten, failed or panicking decision refuses. It does
// no network or file I/O and knows no guard: what is decided, and in which
// order guards are asked, is for the packages above it.
package merlon

import (
	"fmt"
	"net/http"
	"runtime/debug"
)

// A Guard answers one question about a request. It never writes a response,
// never logs and never calls another guard.
type Guard interface {
	// Name is the guard's folder: "waf", "csrf".
	Name() string
	// Check decides about r. It may read r and peek at its body; it may
	// be called from many goroutines at once, each with its own Request.
	Check(r *Request) Decision
}

// A ResponseGuard is a [Guard] that also judges the upstream's answer before
// the client sees any of it. It may replace res.Body, but what it lets pass
// must reach the client as the upstream sent it; [Request.WrapAnswer] lets it
// break off what it cannot judge before.
type ResponseGuard interface {
	Guard
	CheckResponse(r *Request, res *http.Response) Decision
}

// A Finisher is a [Guard] that holds something for the length of a request,
// such as a concurrency slot. Done is called exactly once for every Check that
// was made, also when another guard refused or the guard itself panicked.
type Finisher interface {
	Guard
	Done(r *Request, o Outcome)
}

// An Outcome is how a request ended.
type Outcome struct {
	Status   int    // the status the client was sent; 0 if it was sent none
	Guard    string // the guard that refused; empty if the request passed
	Upstream bool   // whether the upstream was asked
	In, Out  int64  // bytes of the request's body and of the answer's
}

// A Gate asks guards in a fixed order and obeys the first that does not pass.
type Gate struct {
	entries []entry
}

type entry struct {
	guard     Guard
	response  ResponseGuard // nil if the guard judges no responses
	finisher  Finisher      // nil if the guard holds nothing
	monitored bool
	shadow    bool
}

// NewGate returns a gate that asks guards in the order given.
func NewGate(guards ...Guard) *Gate {
	g := &Gate{entries: make([]entry, 0, len(guards))}
	for _, guard := range guards {
		e := entry{guard: guard}
		switch m := guard.(type) {
		case monitor:
			e.guard, e.monitored = m.Guard, true
		case shadow:
			e.guard, e.shadow = m.Guard, true
		}
		if !e.shadow {
			e.response, _ = e.guard.(ResponseGuard)
		}
		e.finisher, _ = e.guard.(Finisher)
		g.entries = append(g.entries, e)
	}
	return g
}

// Check asks the guards about r until one does not let it pass, appends every
// answer to r.Verdicts and returns the last one. With no guards it allows.
// Every Check must be followed by one [Gate.Done].
func (g *Gate) Check(r *Request) Decision {
	last := Decision{Effect: Allow}
	for i := range g.entries {
		e := &g.entries[i]
		r.asking, r.checked = e, i+1
		d := e.check(r)
		r.Record(e.guard.Name(), d)
		if e.shadow {
			continue
		}
		last = d
		if !last.Passed() {
			break
		}
	}
	r.asking = nil
	return last
}

func (e *entry) check(r *Request) (d Decision) {
	defer func() {
		if p := recover(); p != nil {
			d = panicked(p)
		}
		d.Monitored = d.Monitored || e.monitored
		d.Shadow = d.Shadow || e.shadow
	}()
	return e.guard.Check(r)
}

// CheckResponse asks the response guards among those that let r pass, in
// order, about the upstream's answer.
func (g *Gate) CheckResponse(r *Request, res *http.Response) Decision {
	last := Decision{Effect: Allow}
	for i := range g.entries[:r.checked] {
		e := &g.entries[i]
		if e.response == nil {
			continue
		}
		r.asking = e
		last = e.checkResponse(r, res)
		if last.Reason != "" || !last.Passed() {
			r.Record(e.guard.Name(), last)
		}
		if !last.Passed() {
			break
		}
	}
	r.asking = nil
	return last
}

func (e *entry) checkResponse(r *Request, res *http.Response) (d Decision) {
	defer func() {
		if p := recover(); p != nil {
			d = panicked(p)
		}
		d.Monitored = d.Monitored || e.monitored
	}()
	return e.response.CheckResponse(r, res)
}

// Done tells every guard that was asked about r how it ended. A second call
// for the same Check does nothing.
func (g *Gate) Done(r *Request, o Outcome) {
	n := r.checked
	r.checked = 0
	for i := range g.entries[:n] {
		if f := g.entries[i].finisher; f != nil {
			finish(f, r, o)
		}
	}
}

// finish keeps one guard's panic from robbing the next of its Done.
func finish(f Finisher, r *Request, o Outcome) {
	defer func() {
		if p := recover(); p != nil {
			r.Record(f.Name(), panicked(p))
		}
	}()
	f.Done(r, o)
}

func panicked(p any) Decision {
	return Unable(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
}

// Monitor returns a guard whose decisions are made and recorded by a [Gate]
// but not obeyed.
func Monitor(g Guard) Guard { return monitor{g} }

type monitor struct{ Guard }

// Check answers as the guard does, marked as not to be obeyed.
func (m monitor) Check(r *Request) Decision {
	d := m.Guard.Check(r)
	d.Monitored = true
	return d
}

// Shadow returns a guard that a [Gate] asks about requests and records, but
// does not obey: another configuration of the guard that it is put before, to
// be tried on the same requests. It sees of a body what its Check peeks at,
// not the rest that streams, and no answer; whatever it does, panic included,
// becomes no more than a verdict that is marked as its own.
func Shadow(g Guard) Guard { return shadow{g} }

type shadow struct{ Guard }

// Check answers as the guard does, marked as not to be obeyed.
func (s shadow) Check(r *Request) Decision {
	d := s.Guard.Check(r)
	d.Shadow = true
	return d
}

// Middleware returns an adapter that puts the guards in front of a handler,
// for programs that want single guards and not the gateway. The client
// address is the connection's; response guards are not asked. Of two around
// one handler, the inner one knows who the outer one has found is asking.
func Middleware(guards ...Guard) func(http.Handler) http.Handler {
	gate := NewGate(guards...)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
			r := NewRequest(hr)
			if outer := From(hr); outer != nil {
				r.ID, r.Client, r.Site, r.Identity = outer.ID, outer.Client, outer.Site, outer.Identity
			}
			o := Outcome{}
			defer func() { gate.Done(r, o) }()
			d := gate.Check(r)
			r.AddHeader(w.Header())
			if !d.Passed() {
				o.Status, o.Guard = d.Code(), r.RefusedBy()
				Respond(w, r, d)
				return
			}
			o.Upstream = true
			sw := &statusWriter{ResponseWriter: w}
			next.ServeHTTP(sw, r.Request)
			o.Status = sw.status
		})
	}
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	if w.status == 0 && code >= 200 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
