// Package throttle bounds expensive work: so many requests at once per class, a
// short queue that is fair between tenants, and the rest told when to come
// back. A slow backend is asked for less, not for more, and bandwidth is
// shared.
//
// It sees requests and answers, not the work itself: a backend that goes on
// after its request was cancelled works beyond the bound. A WebSocket or an
// event stream holds its place until it ends, and so does an upload that is
// longer than 16 KiB while the client sends it; timeout bounds them. Who holds
// several by WebSockets or event streams loses one when somebody who holds none
// has waited for half of the time. A guard whose refusals are not obeyed still lets requests wait for their turn,
// and bodies for theirs.
package throttle

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/merlon-dev/merlon"
)

const name = "throttle"

const (
	// LetIn: the request was let in at once.
	LetIn merlon.Reason = "let-in"
	// Queued: the request was let in after it had waited in its class's queue.
	Queued merlon.Reason = "queued"
	// ClassFull: as much of this class is under way as at_once allows, and its
	// queue is full, or the place in it went to somebody who has fewer waiting.
	// If the backend can take more, raise at_once; if the work is short, queue.
	ClassFull merlon.Reason = "class-full"
	// QueueTimeout: no place became free in the time for which a request may
	// wait in its class's queue, or in the time the client had left. If clients
	// are patient, raise wait; if the backend can take more, at_once.
	QueueTimeout merlon.Reason = "queue-timeout"
	// GaveUp: the client went away while it waited in the queue. Nothing has to
	// be done.
	GaveUp merlon.Reason = "gave-up"
	// StreamEnded: the WebSocket or event stream was ended, since its sender has
	// several in this class while somebody waits who has no place. If there are
	// places enough for all streams, raise at_once, or give streams a class of
	// their own.
	StreamEnded merlon.Reason = "stream-ended"
	// Shed: the backend answers more slowly than shed.latency, and has as many
	// requests of this route to answer as it can take without that. If it is
	// always as slow, raise shed.latency; otherwise find out what slows it.
	Shed merlon.Reason = "shed"
	// TimedOut: the request took longer than timeout, of the route or of its
	// class, or than its client had said it would wait; the backend was
	// cancelled. Raise timeout if the work takes so long.
	TimedOut merlon.Reason = "timed-out"
)

// reducedCapacity is of draft-ietf-httpapi-ratelimit-headers.
const reducedCapacity = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

// A Guard bounds the work of one route. How slow the backend is, and how much
// bandwidth each client has used, it finds out anew after a reload; what its
// class has let in is known to the [Pool].
type Guard struct {
	class   *class // nil: none
	bounds  ClassConfig
	fair    []string
	timeout time.Duration // 0: none
	seq     uint64        // later guards of a Pool have higher ones
	shed    *shedder      // nil: nothing is shed
	shape   *shaper       // nil: no bandwidth is bounded
	held    *register
}

// New returns a Guard whose classes are counted in pool.
func New(c Config, classes Classes, pool *Pool) (*Guard, error) {
	if err := c.check(classes, pool); err != nil {
		return nil, err
	}
	g := &Guard{fair: c.Fair, timeout: c.Timeout, seq: pool.next(), held: newRegister()}
	if c.Class != "" {
		g.class, g.bounds = pool.class(c.Class), classes.byName[c.Class]
		if g.timeout == 0 || g.bounds.Timeout < g.timeout {
			g.timeout = g.bounds.Timeout
		}
	}
	if len(g.fair) == 0 {
		g.fair = []string{"tenant", "user", "client"}
	}
	if c.Shed.Latency > 0 {
		g.shed = newShedder(c.Shed.Latency)
	}
	if c.Bandwidth != (Bandwidth{}) {
		g.shape = newShaper(c.Bandwidth, pool)
	}
	return g, nil
}

// Name returns "throttle".
func (g *Guard) Name() string { return name }

// Middleware puts the guard in front of next. Answers are not shaped there, and
// are timed to their end.
func (g *Guard) Middleware(next http.Handler) http.Handler { return merlon.Middleware(g)(next) }

// mostPeeked is how much of a body is waited for before a place is taken, so
// that nobody holds one by sending slowly what fits into memory.
const mostPeeked = 16 << 10

// Check lets r in, perhaps after it has waited in its class's queue. What it
// holds then Done gives back. r's context ends when its time is up, and with
// Done. If a refusal is not obeyed, r goes on without a place.
func (g *Guard) Check(r *merlon.Request) merlon.Decision {
	delete(r.Header, TimeoutHeader)
	if g.class == nil && g.shed == nil && g.shape == nil && g.timeout == 0 {
		return merlon.Pass(LetIn)
	}
	whole := r.Request.Body == nil || r.Request.Body == http.NoBody
	if n := r.ContentLength; !whole && g.class != nil && n > 0 && n <= mostPeeked && r.Header["Expect"] == nil {
		var err error
		if _, whole, err = r.Peek(n); err != nil {
			return merlon.BodyFailed(err)
		}
	}
	t := g.held.add(r)
	if g.shed != nil && !g.shed.reserve(&t.probe, whole, time.Now()) {
		return g.refuseShed()
	}
	reason := LetIn
	if g.class != nil {
		t.share = g.share(r)
		how, again := g.class.enter(r.Context(), t.share, g.bounds, g.seq, g.latest(r))
		switch how {
		case entered:
		case enteredLate:
			reason = Queued
		default:
			return g.refuse(t.share, how, again)
		}
		t.class = g.class
	}
	t.since = time.Now()
	g.begin(r, t, whole)
	return merlon.Pass(reason)
}

// begin starts the clocks of a request that has been let in.
func (g *Guard) begin(r *merlon.Request, t *ticket, whole bool) {
	if g.timeout > 0 {
		g.bound(r, t)
	}
	if g.shape != nil {
		t.client = g.shape.join(r.Client)
		if r.Request.Body != nil && r.Request.Body != http.NoBody {
			r.WrapBody(func(body io.ReadCloser, _ func(merlon.Decision) error) io.ReadCloser {
				return g.shape.wrap(r.Context(), body, t.client)
			})
		}
	}
	switch {
	case g.shed == nil:
	case whole:
		g.shed.start(&t.probe, t.since)
	default:
		r.WrapBody(func(body io.ReadCloser, refuse func(merlon.Decision) error) io.ReadCloser {
			return &upload{ReadCloser: body, length: r.ContentLength, end: func() error {
				if g.shed.startLate(&t.probe, time.Now()) {
					return nil
				}
				return refuse(g.refuseShed())
			}}
		})
	}
}

// CheckResponse takes the time of the answer's head, and shapes the rest. It
// never refuses.
func (g *Guard) CheckResponse(r *merlon.Request, res *http.Response) merlon.Decision {
	pass := merlon.Decision{Effect: merlon.Allow}
	if g.class == nil && g.shed == nil && g.shape == nil {
		return pass
	}
	t := g.held.find(r)
	if t == nil {
		return pass
	}
	if t.class != nil && streams(res) {
		t.class.stream(t)
	}
	if g.shed != nil {
		g.shed.end(&t.probe, time.Now(), judge(res.StatusCode))
	}
	if t.client != nil && res.Body != nil && res.Body != http.NoBody {
		r.WrapAnswer(res, func(body io.ReadCloser, _ func(merlon.Decision) error) io.ReadCloser {
			return g.shape.wrap(r.Context(), body, t.client)
		})
	}
	return pass
}

// Done gives back what r holds.
func (g *Guard) Done(r *merlon.Request, o merlon.Outcome) {
	t := g.held.remove(r)
	if t == nil {
		return
	}
	late := t.finish()
	if t.class != nil {
		t.class.leave(t, time.Since(t.since))
	}
	if g.shed != nil {
		v := judge(o.Status)
		switch {
		case late && t.hasty:
			v = slowIfLate // how long that is, the client has chosen
		case late:
			v = slow
		case !o.Upstream:
			v = unknown
		case o.Status == 0:
			v = slowIfLate // the client has gone: it did not wait for it
		}
		g.shed.end(&t.probe, time.Now(), v)
	}
	if t.client != nil {
		g.shape.leave(t.client)
	}
}

// share is whose turn r takes.
func (g *Guard) share(r *merlon.Request) share {
	for _, by := range g.fair {
		switch id := r.Identity; {
		case by == "client":
			return share{kind: 'c', addr: merlon.Subscriber(r.Client)}
		case id == nil:
		case by == "tenant" && id.Tenant != "":
			return share{kind: 't', name: id.Tenant}
		case by == "user" && id.Subject != "":
			return share{kind: 'u', name: id.Subject}
		}
	}
	return share{kind: 'c', addr: merlon.Subscriber(r.Client)}
}

// String says for the operator who it is.
func (s share) String() string {
	switch s.kind {
	case 't':
		return "tenant " + s.name
	case 'u':
		return "user " + s.name
	}
	return "client " + s.addr.String()
}

func (g *Guard) refuse(s share, how entry, again time.Duration) merlon.Decision {
	reason, message := ClassFull, "the queue is full"
	switch how {
	case evicted:
		message = "made room in the queue for somebody with fewer requests in it"
	case tooLong:
		reason, message = QueueTimeout, "waited in the queue for as long as it may"
	case gone:
		reason, message = GaveUp, "went away while it waited in the queue"
	}
	d := unavailable(reason, again)
	d.Findings = []merlon.Finding{{Rule: "class", Part: s.String(), Value: g.class.name, Message: message}}
	return d
}

func (g *Guard) refuseShed() merlon.Decision {
	limit, again := g.shed.state()
	d := unavailable(Shed, again)
	d.Findings = []merlon.Finding{{
		Rule: "shed.latency", Part: "backend", Value: g.shed.target.String(),
		Message: "is slow, and has as many requests to answer as it is given: " + strconv.Itoa(limit),
	}}
	return d
}

func unavailable(reason merlon.Reason, again time.Duration) merlon.Decision {
	d := merlon.Refuse(http.StatusServiceUnavailable, reason)
	d.Problem = reducedCapacity
	d.Header = http.Header{"Retry-After": {strconv.Itoa(seconds(again))}}
	return d
}
