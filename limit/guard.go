package limit

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
)

// A Guard holds requests to the limits of one route. It is asked in front of
// identity, about what is known there.
type Guard struct {
	store count.Store
	geo   Geo // nil if no limit asks it
	front face
	known face
	busy  *busy
	pool  sync.Pool // of *scratch

	clients  int
	routes   int  // 0: no bound
	tellBusy bool // the bound of a client's requests is a policy that is told
	policy   []string
	body     int64
	hide     bool
}

// A face is what is counted at one place on a request's way.
type face struct {
	groups []*group
	reads  bool // the body is looked at
}

// Name returns "limit".
func (g *Guard) Name() string { return "limit" }

// Known returns the half of the guard that counts by who is asking, to be put
// behind identity. It is nil if no limit does. Without anybody having proved
// anything it counts by client, so it belongs there also if nobody can sign in.
func (g *Guard) Known() merlon.Guard {
	if len(g.known.groups) == 0 {
		return nil
	}
	return known{g}
}

// Middleware puts the guard in front of next, both halves of it: who is asking
// is known if identity's middleware is around it.
func (g *Guard) Middleware(next http.Handler) http.Handler {
	guards := []merlon.Guard{g}
	if k := g.Known(); k != nil {
		guards = append(guards, k)
	}
	return merlon.Middleware(guards...)(next)
}

// Check counts r, whatever becomes of it later: errors and refusals of other
// guards are not free.
func (g *Guard) Check(r *merlon.Request) merlon.Decision {
	c := caller{r: r, client: merlon.Subscriber(r.Client), geo: g.geo}
	if g.front.reads { // which may take long, and counts as being under way
		if busy := g.enter(&c, admission{}); busy != nil {
			c.unread = true
			in, _ := g.admit(&g.front, &c) // refusals count, and one is enough
			in.drop()
			return *busy
		}
	}
	in, refused := g.admit(&g.front, &c)
	if refused != nil {
		return *refused
	}
	d := merlon.Pass(Within)
	if in.told.m != nil && !g.hide {
		d.Header = in.told.header()
	}
	if g.body > 0 && r.ContentLength > g.body {
		in.drop()
		return g.declaredTooLarge(r.ContentLength).with(d.Header)
	}
	if g.body > 0 && r.ContentLength < 0 {
		g.watchBody(r)
	}
	if g.front.reads {
		g.busy.note(r, c.client, in)
	} else if busy := g.enter(&c, in); busy != nil {
		in.drop()
		return *busy
	}
	return d
}

// enter takes one of the places that this process has, or refuses.
func (g *Guard) enter(c *caller, in admission) *merlon.Decision {
	switch g.busy.enter(c.r, c.client, g.clients, g.routes, in) {
	case clientFull:
		return g.clientBusy(c.client)
	case routeFull:
		return g.routeBusy(c.client)
	}
	return nil
}

// Done gives r's place back, and counts the bytes.
func (g *Guard) Done(r *merlon.Request, o merlon.Outcome) {
	g.settle(r, g.busy.leave(r, merlon.Subscriber(r.Client)), o)
}

// known is the guard behind identity.
type known struct{ g *Guard }

// Name returns "limit".
func (k known) Name() string { return k.g.Name() }

// Check counts r by who is asking.
func (k known) Check(r *merlon.Request) merlon.Decision {
	g := k.g
	c := caller{r: r, client: merlon.Subscriber(r.Client), geo: g.geo}
	in, refused := g.admit(&g.known, &c)
	if refused != nil {
		return *refused
	}
	d := merlon.Pass(Within)
	// What the other half has told holds unless this is tighter.
	if in.told.tighter(g.busy.told(r, c.client)) && !g.hide {
		d.Header = in.told.header()
	}
	if in.after != nil {
		g.busy.keep(r, c.client, in.after)
	}
	return d
}

// Done counts the bytes, and gives back places that replicas share.
func (k known) Done(r *merlon.Request, o merlon.Outcome) {
	k.g.settle(r, k.g.busy.kept(r, merlon.Subscriber(r.Client)), o)
}

// clientBusy refuses a client's own excess, so it is 429.
func (g *Guard) clientBusy(client netip.Addr) *merlon.Decision {
	d := merlon.Refuse(http.StatusTooManyRequests, ClientBusy)
	d.Problem = quotaExceeded
	d.Header = http.Header{}
	if g.tellBusy && !g.hide {
		d.Header = made(g.policy, busyName, 0, 1)
	}
	return busyWith(d, "client", g.clients, client)
}

// routeBusy refuses for want of capacity, whoever asks: 503.
func (g *Guard) routeBusy(client netip.Addr) *merlon.Decision {
	d := merlon.Refuse(http.StatusServiceUnavailable, RouteBusy)
	d.Problem = reducedCapacity
	d.Header = http.Header{}
	return busyWith(d, "route", g.routes, client)
}

// now is when r is counted.
func now(r *merlon.Request) time.Time {
	if r.Received.IsZero() {
		return time.Now()
	}
	return r.Received
}

func busyWith(d merlon.Decision, setting string, bound int, client netip.Addr) *merlon.Decision {
	d.Header["Retry-After"] = []string{"1"}
	d.Findings = []merlon.Finding{{
		Rule: "concurrent." + setting, Part: "client " + client.String(), Value: strconv.Itoa(bound),
		Message: strconv.Itoa(bound) + " requests are under way already",
	}}
	if bound < maxCount {
		d.Remedy = "limit:\n  concurrent:\n    " + setting + ": " + strconv.Itoa(min(2*bound, maxCount))
	}
	return &d
}
