// Package origin answers where a request comes from and where it goes: who
// the client is behind trusted proxies, which host and path are meant, whether
// this address may ask at all, and it promises that a request which two
// programs could read differently reaches no backend.
//
// It judges HTTP/1 on the bytes and leaves HTTP/2 framing to net/http; it does
// not know what backends do with the paths they are sent, only what such
// programs are known to do; and it cannot tell clients apart that a proxy
// nobody named trusted has put behind one address.
package origin

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gaissmai/bart"
	"github.com/merlon-dev/merlon"
)

const name = "origin"

// Config configures a Guard for a site or route. The zero Config lets every
// address in and the usual methods.
type Config struct {
	// Allow are the addresses and networks that may send requests; if
	// there are any, nobody else may. Clients are known by the address
	// that EdgeConfig's trusted proxies report. Default: everybody.
	// Example: [10.8.0.0/16, "2001:db8::/32", 192.0.2.7].
	Allow []string `yaml:"allow,omitempty"`
	// Deny are the addresses and networks that may not, whatever Allow
	// says. Default: none. Example: [203.0.113.0/24].
	Deny []string `yaml:"deny,omitempty"`
	// Methods are the request methods that pass, in upper case. CONNECT,
	// TRACE and TRACK never do. Default: [GET, HEAD, POST, PUT, PATCH,
	// DELETE, OPTIONS].
	Methods []string `yaml:"methods,omitempty"`
	// AllowDoubleEncoding lets paths pass that hold a dot or slash which is
	// encoded twice, such as the address of another page, as long as no
	// number of decodings makes dot segments, backslashes or control
	// characters of it. Default: false.
	AllowDoubleEncoding bool `yaml:"allow_double_encoding,omitempty"`
}

// A Guard decides whether requests come from and go to where they may.
type Guard struct {
	allow, deny *bart.Lite // nil if empty
	methods     []string
	twice       bool                     // paths may be encoded twice
	siteOf      func(host string) string // nil: hosts are compared
	anyHost     bool                     // there are no sites
}

// New returns a Guard, or every mistake in c.
func New(c Config) (*Guard, error) {
	g := &Guard{methods: c.Methods, twice: c.AllowDoubleEncoding}
	var errs []error
	table := func(setting string, texts []string) *bart.Lite {
		t, err := ranges(setting, texts)
		errs = append(errs, err)
		if len(texts) == 0 {
			return nil
		}
		return t
	}
	g.allow, g.deny = table("allow", c.Allow), table("deny", c.Deny)
	for i, m := range c.Methods {
		setting := "methods[" + strconv.Itoa(i) + "]"
		switch {
		case m == "" || tokenLen([]byte(m)) != len(m) || m != strings.ToUpper(m):
			errs = append(errs, merlon.BadSetting(setting, m, "must be a method in upper case such as PROPFIND"))
		case m == http.MethodConnect || m == http.MethodTrace || m == "TRACK":
			errs = append(errs, merlon.BadSetting(setting, m, "must not be CONNECT, TRACE or TRACK"))
		}
	}
	if len(g.methods) == 0 {
		g.methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return g, nil
}

// ForSites returns the guard with knowledge of the sites: siteOf returns the
// site that serves a host, or "". A TLS connection made for one site is then
// refused for another, but two hosts of one site may share it. Without that
// knowledge the two hosts must be the same.
func (g *Guard) ForSites(siteOf func(host string) string) *Guard {
	known := *g
	known.siteOf = siteOf
	return &known
}

// Name returns "origin".
func (g *Guard) Name() string { return name }

// Middleware puts the guard in front of next. There are no sites then, so
// every well-formed host is served.
func (g *Guard) Middleware(next http.Handler) http.Handler {
	return merlon.Middleware(g.alone())(next)
}

func (g *Guard) alone() *Guard {
	alone := *g
	alone.anyHost = true
	return &alone
}

// The reasons of the guard and of the listeners.
const (
	// Accepted: host, path, address and method are acceptable.
	Accepted merlon.Reason = "origin-accepted"
	// UnknownHost: no site serves this host. If it is yours, add it to the hosts of a site.
	UnknownHost merlon.Reason = "unknown-host"
	// WrongConnection: the TLS connection was made for another site than the request is for. Browsers open a new connection and try again.
	WrongConnection merlon.Reason = "wrong-connection"
	// AmbiguousPath: the path holds dot segments, control characters, backslashes or hidden encodings that backends read differently. Nothing legitimate sends these; correct the client.
	AmbiguousPath merlon.Reason = "ambiguous-path"
	// PathConflict: some backends would read this path as one of another route, whose rules it would escape. Correct the link, or give both routes the same rules.
	PathConflict merlon.Reason = "path-conflict"
	// AddressDenied: the client's address is denied, or not among those allowed. See allow and deny, and trusted_proxies if the address is a proxy's.
	AddressDenied merlon.Reason = "address-denied"
	// MethodRefused: the request method is not among those that pass. Add it to methods if the application needs it.
	MethodRefused merlon.Reason = "method-refused"

	// BadRequestLine: the first line of an HTTP/1 request is malformed. Scanners and clients of other protocols send these.
	BadRequestLine merlon.Reason = "bad-request-line"
	// BadHeader: a header field is malformed: its name, its value, or an Expect that nobody can meet.
	BadHeader merlon.Reason = "bad-header"
	// BadFraming: where the request ends can be read in two ways: request smuggling, or a broken client. The finding says which rule was broken.
	BadFraming merlon.Reason = "bad-framing"
	// BadHost: Host is missing, repeated, malformed, or differs from the request target's.
	BadHost merlon.Reason = "bad-host"
	// BadUpgrade: a request to change to WebSocket is malformed or carries more than that.
	BadUpgrade merlon.Reason = "bad-upgrade"
	// HeaderTooLarge: the request line or header is beyond max_header or max_header_fields. Raise them if the application needs such headers; oversized cookies are the usual cause.
	HeaderTooLarge merlon.Reason = "header-too-large"
	// SlowHeader: the header did not arrive within header_timeout.
	SlowHeader merlon.Reason = "slow-header"
	// SlowBody: the body arrived more slowly than min_rate for longer than slow_grace.
	SlowBody merlon.Reason = "slow-body"
	// SlowReader: the client took its answer more slowly than min_rate for longer than slow_grace.
	SlowReader merlon.Reason = "slow-reader"
	// BadHandshake: a connection ended in its TLS handshake or PROXY protocol header. The error says why; plain HTTP on the https port is the usual cause.
	BadHandshake merlon.Reason = "bad-handshake"
	// TooManyConnections: max_connections or max_connections_per_address was reached. Behind a proxy, name it in trusted_proxies.
	TooManyConnections merlon.Reason = "too-many-connections"
)

// Check asks, in this order: is the host served, is there one way to read the
// path, may this address ask, may this method.
func (g *Guard) Check(r *merlon.Request) merlon.Decision {
	if d, ok := g.checkHost(r); !ok {
		return d
	}
	if d, ok := g.checkPath(r); !ok {
		return d
	}
	if d, ok := g.checkAddress(r.Client); !ok {
		return d
	}
	if !slices.Contains(g.methods, r.Method) {
		return g.refuseMethod(r.Method)
	}
	return merlon.Pass(Accepted)
}

func (g *Guard) checkHost(r *merlon.Request) (merlon.Decision, bool) {
	host, err := CanonicalHost(r.Host)
	if err != nil || r.Site == "" && !g.anyHost {
		d := merlon.Refuse(http.StatusMisdirectedRequest, UnknownHost)
		d.Err = err
		d.Findings = finding("host", "Host", r.Host, "no site serves this host")
		return d, false
	}
	if r.TLS == nil || r.TLS.ServerName == "" {
		return merlon.Decision{}, true
	}
	server, err := CanonicalHost(r.TLS.ServerName)
	if err == nil && (server == host || g.siteOf != nil && g.shares(server, r.Site)) {
		return merlon.Decision{}, true
	}
	d := merlon.Refuse(http.StatusMisdirectedRequest, WrongConnection)
	d.Findings = finding("sni", "Host", r.Host, "the TLS connection was made for "+shorten(r.TLS.ServerName))
	return d, false
}

// shares reports whether a connection made for a server name may carry
// requests for site: it names the same site, or none and so no other's rules.
func (g *Guard) shares(server, site string) bool {
	s := g.siteOf(server)
	return s == "" || s == site
}

func (g *Guard) checkPath(r *merlon.Request) (merlon.Decision, bool) {
	d := merlon.Refuse(http.StatusBadRequest, AmbiguousPath)
	if _, err := CanonicalPath(r.URL); err != nil && !(g.twice && err == ErrEncodedTwice) {
		d.Err = err
		if err == ErrEncodedTwice {
			d.Remedy = "address:\n  allow_double_encoding: true"
		}
		d.Findings = finding("path", "path", r.URL.EscapedPath(), err.Error())
		return d, false
	}
	if i := strings.IndexFunc(r.URL.RawQuery, func(c rune) bool { return c < ' ' || c == 0x7f }); i >= 0 {
		d.Findings = finding("query", "query", strconv.QuoteToASCII(shorten(r.URL.RawQuery[i:])), "a query must hold no raw control characters")
		return d, false
	}
	if r.Conflict {
		d.Reason = PathConflict
		d.Findings = finding("path", "path", r.URL.EscapedPath(), "another reading of the path reaches another route than "+shorten(r.Route))
		return d, false
	}
	return merlon.Decision{}, true
}

func (g *Guard) checkAddress(a netip.Addr) (merlon.Decision, bool) {
	if g.allow == nil && g.deny == nil {
		return merlon.Decision{}, true
	}
	a = a.Unmap().WithZone("")
	d := merlon.Refuse(http.StatusForbidden, AddressDenied)
	switch {
	case !a.IsValid():
		d.Findings = finding("address", "client", "", "the client has no address, and there are address lists")
	case g.deny != nil && g.deny.Contains(a):
		d.Findings = finding("deny", "client", a.String(), "the address is denied")
	case g.allow != nil && !g.allow.Contains(a):
		d.Findings = finding("allow", "client", a.String(), "the address is not among those allowed")
		d.Remedy = "address:\n  allow: [\"" + a.String() + "\"] # added to those that are there"
	default:
		return merlon.Decision{}, true
	}
	return d, false
}

func (g *Guard) refuseMethod(method string) merlon.Decision {
	d := merlon.Refuse(http.StatusMethodNotAllowed, MethodRefused)
	d.Header = http.Header{"Allow": {strings.Join(g.methods, ", ")}}
	d.Findings = finding("method", "method", shorten(method), "the method is not among those that pass")
	switch method {
	case http.MethodConnect, http.MethodTrace, "TRACK":
	default:
		if method == strings.ToUpper(method) {
			d.Remedy = "address:\n  methods: [" + strings.Join(g.methods, ", ") + ", " + shorten(method) + "]"
		}
	}
	return d
}

func finding(rule, part, value, message string) []merlon.Finding {
	return []merlon.Finding{{Rule: rule, Part: part, Value: shorten(value), Message: message}}
}

func shorten(s string) string {
	if len(s) > 96 {
		return s[:93] + "..."
	}
	return s
}
