// Package limit bounds how much one client may ask for: how often, how much at
// once and how large, counted per client address and route, so that a flood
// from one place leaves the others their share.
//
// Counting here is one process's own; a [Store] that several processes share
// makes it common. It cannot help when the line itself is full, and it does
// not know people: an office behind one address has that address's share.
package limit

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/merlon-dev/merlon"
)

// Config configures a [Guard]. The zero Config allows each client 200 requests
// at once and 100 a second for as long as it likes.
type Config struct {
	// Rate is how many requests one client may send to this route in the long
	// run: a number and a time, s, min, h or d; at most 1000000/s. Requests
	// become available one after the other, not all at the end of that time.
	// "off" counts nothing. A client is an IPv4 address or an IPv6 /64 network.
	// Default: 100/s. Example:
	//
	//	rate: 600/min
	Rate Rate `yaml:"rate,omitempty"`
	// Burst is how many requests one client may send at once after a pause; 1
	// spaces every two of them. Regaining the whole of it may take 31 days at
	// most. From 1 to 1000000 requests. Default: 200 if rate is not set either,
	// otherwise the number in rate. Example:
	//
	//	burst: 50
	Burst int `yaml:"burst,omitempty"`
	// Concurrent bounds how many requests are under way at the same time.
	// Example:
	//
	//	concurrent: {client: 100, route: 2000}
	Concurrent Concurrent `yaml:"concurrent,omitempty"`
	// Body is the longest request body, in bytes or with KiB, MiB or GiB. What
	// says that it is longer is refused at once, what turns out longer while it
	// streams is cut off. To lift a site's bound on one route, set there one
	// that no upload reaches, such as 1024GiB. Default: no bound beside the
	// inspection limit of the WAF, and uploads of any length stream. Example:
	//
	//	body: 20MiB
	Body merlon.Size `yaml:"body,omitempty"`
	// HideHeaders keeps the RateLimit and RateLimit-Policy fields, which are
	// an Internet-Draft still, out of answers. Refusals keep Retry-After.
	// Default: false. Example:
	//
	//	hide_headers: true
	HideHeaders bool `yaml:"hide_headers,omitempty"`
}

// Concurrent bounds requests that are under way at the same time, an open
// WebSocket or event stream among them. After a reload those that began before
// it are not counted.
type Concurrent struct {
	// Client is how many requests of one client may be under way on this
	// route. From 1 to 1000000 requests. Default: 512, which browsers, a
	// hundred requests over one HTTP/2 connection each, do not notice.
	// Example:
	//
	//	client: 64
	Client int `yaml:"client,omitempty"`
	// Route is how many requests of all clients together may be under way on
	// this route, for backends that break rather than queue. From 1 to 1000000
	// requests. Default: no bound. Example:
	//
	//	route: 200
	Route int `yaml:"route,omitempty"`
}

const (
	// Within: the request is within every limit.
	Within merlon.Reason = "within-limits"
	// RateExceeded: this client has used up its burst and sends faster than
	// rate. If that is what the application's own pages or a known program do,
	// raise burst, or rate if it goes on for long.
	RateExceeded merlon.Reason = "rate-exceeded"
	// ClientBusy: this client has as many requests under way as
	// concurrent.client allows. Raise it if many people share this address.
	ClientBusy merlon.Reason = "client-busy"
	// RouteBusy: all clients together have as many requests under way as
	// concurrent.route allows. Raise it if the backend can take more.
	RouteBusy merlon.Reason = "route-busy"
	// BodyTooLarge: the request's body is longer than body allows. Raise it
	// for routes that take uploads.
	BodyTooLarge merlon.Reason = "body-too-large"
)

// The problem types of draft-ietf-httpapi-ratelimit-headers.
const (
	quotaExceeded   = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	reducedCapacity = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
)

const (
	defaultBurst  = 200
	defaultClient = 512
	maxCount      = 1_000_000
	maxRefill     = 31 * 24 * time.Hour
)

// A Guard holds clients to the limits of one route.
type Guard struct {
	rate    Rate
	quota   Quota
	store   Store
	fields  *fields
	busy    *busy
	clients int
	routes  int // 0: no bound
	body    int64
	hide    bool
}

// New returns a Guard that counts in s.
func New(c Config, s Store) (*Guard, error) {
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	if s == nil {
		bad("", "", "needs a store to count in")
	}
	if c.Burst < 0 || c.Burst > maxCount {
		bad("burst", strconv.Itoa(c.Burst), "must be from 1 to 1000000")
	}
	rate := c.Rate
	if rate == (Rate{}) {
		rate = Rate{Count: 100, Per: time.Second}
		if c.Burst == 0 {
			c.Burst = defaultBurst
		}
	}
	quota := Quota{Burst: c.Burst}
	if rule := rate.broken(); rule != "" {
		bad("rate", rate.String(), rule)
	} else if !rate.Off {
		if quota.Burst == 0 {
			quota.Burst = min(rate.Count, maxCount)
		}
		quota.Every = rate.every()
		if !quota.valid() && c.Burst >= 0 && c.Burst <= maxCount {
			bad("burst", strconv.Itoa(quota.Burst), fmt.Sprintf("must be regained within 31 days at a rate of %s", rate))
		}
	}
	places := func(setting string, n int) {
		if n < 0 || n > maxCount {
			bad(setting, strconv.Itoa(n), "must be from 1 to 1000000")
		}
	}
	places("concurrent.client", c.Concurrent.Client)
	places("concurrent.route", c.Concurrent.Route)
	if c.Body < 0 {
		bad("body", strconv.FormatInt(int64(c.Body), 10), "must not be negative")
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	g := &Guard{
		rate: rate, quota: quota, store: s, busy: newBusy(),
		clients: c.Concurrent.Client, routes: c.Concurrent.Route,
		body: int64(c.Body), hide: c.HideHeaders,
	}
	if g.clients == 0 {
		g.clients = defaultClient
	}
	if !rate.Off {
		g.fields = newFields(quota)
	}
	return g, nil
}

// Name returns "limit".
func (g *Guard) Name() string { return "limit" }

// Middleware puts the guard in front of next.
func (g *Guard) Middleware(next http.Handler) http.Handler { return merlon.Middleware(g)(next) }

// Check counts r, whatever becomes of it later: errors and refusals of other
// guards are not free.
func (g *Guard) Check(r *merlon.Request) merlon.Decision {
	d := merlon.Pass(Within)
	client := clientOf(r.Client)
	if !g.rate.Off {
		now := r.Received
		if now.IsZero() {
			now = time.Now()
		}
		key := Key{Policy: policyName, Site: r.Site, Route: r.Route, Client: client}
		res, err := g.store.Take(r.Context(), key, g.quota, 1, now)
		if err != nil {
			return merlon.Unable(fmt.Errorf("limit: %w", err))
		}
		if !res.OK {
			return g.tooFast(client, res)
		}
		if !g.hide {
			d.Header = g.fields.pass(res.Remaining)
		}
	}
	if g.body > 0 && r.ContentLength > g.body {
		return g.declaredTooLarge(r.ContentLength).with(d.Header)
	}
	if g.body > 0 && r.ContentLength < 0 {
		g.watchBody(r)
	}
	// The last step, so that nothing can fail while a place is held.
	switch g.busy.enter(r, client, g.clients, g.routes) {
	case clientFull:
		return g.tooMany(ClientBusy, "client", g.clients, client).with(d.Header)
	case routeFull:
		return g.tooMany(RouteBusy, "route", g.routes, client).with(d.Header)
	}
	return d
}

// Done gives r's place back.
func (g *Guard) Done(r *merlon.Request, _ merlon.Outcome) { g.busy.leave(r, clientOf(r.Client)) }

// clientOf returns what one subscriber can be told by: an IPv4 address, the
// first 64 bits of an IPv6 address, since every home has that many of them. An
// IPv4 address that a translator has put into 64:ff9b::/96 (RFC 6052) is
// itself again, or the whole of IPv4 would be one client.
func clientOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	b := a.As16()
	if [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b} {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	clear(b[8:])
	return netip.AddrFrom16(b)
}

// refusal is a decision in the making.
type refusal merlon.Decision

// with adds fields to the refusal's own.
func (d refusal) with(h http.Header) merlon.Decision {
	if len(h) > 0 && d.Header == nil {
		d.Header = http.Header{}
	}
	merlon.AddHeader(d.Header, h)
	return merlon.Decision(d)
}

func (g *Guard) tooFast(client netip.Addr, res Result) merlon.Decision {
	d := merlon.Refuse(http.StatusTooManyRequests, RateExceeded)
	d.Problem = quotaExceeded
	d.Header = g.fields.refusal(res.Retry, g.hide)
	f := merlon.Finding{
		Rule: "rate", Part: "client " + client.String(), Value: g.rate.String(),
		Message: fmt.Sprintf("sends faster than %s after a burst of %d", g.rate, g.quota.Burst),
	}
	if res.Shared {
		f.Message += "; counted together with others, because there are more clients than the table has places"
	} else if burst := min(2*g.quota.Burst, maxCount, int(maxRefill/g.quota.Every)); burst > g.quota.Burst {
		d.Remedy = fmt.Sprintf("limit:\n  burst: %d", burst)
	}
	d.Findings = []merlon.Finding{f}
	return d
}

func (g *Guard) tooMany(reason merlon.Reason, setting string, bound int, client netip.Addr) refusal {
	d := merlon.Refuse(http.StatusServiceUnavailable, reason)
	d.Problem = reducedCapacity
	d.Header = http.Header{"Retry-After": {"1"}}
	d.Findings = []merlon.Finding{{
		Rule: "concurrent." + setting, Part: "client " + client.String(), Value: strconv.Itoa(bound),
		Message: fmt.Sprintf("%d requests are under way already", bound),
	}}
	if bound < maxCount {
		d.Remedy = fmt.Sprintf("limit:\n  concurrent:\n    %s: %d", setting, min(2*bound, maxCount))
	}
	return refusal(d)
}
