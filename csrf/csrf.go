// Package csrf lets a site's state be changed only from the site's own pages:
// what another site's page makes a visitor's browser send is refused, and so
// are WebSockets that such a page opens.
//
// It believes what browsers say about themselves (Sec-Fetch-Site, Origin),
// which a page cannot forge. A request with neither is taken for a program's
// and passes, since a program carries nobody's cookies; a state change that
// the application makes on GET, HEAD or OPTIONS is not covered.
package csrf

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/merlon-dev/merlon"
)

// Config configures a [Guard]. The zero Config trusts only the site itself.
type Config struct {
	// TrustedOrigins are other sites whose pages may also send state-changing
	// requests and open WebSockets here, with the visitor's cookies. Each is a
	// scheme and a host, and a port if it is not the scheme's own; the scheme
	// must be https, except on loopback. Sub-domains are not included: list
	// each. Default: none. Example:
	//
	//	trusted_origins: [https://partner.example, "https://pay.example:8443"]
	TrustedOrigins []string `yaml:"trusted_origins,omitempty"`
}

const (
	// SafeMethod: GET, HEAD and OPTIONS are not supposed to change anything,
	// so it does not matter who sent the request.
	SafeMethod merlon.Reason = "safe-method"
	// SameOrigin: the site's own page sent the request, or the user did by
	// hand.
	SameOrigin merlon.Reason = "same-origin"
	// TrustedOrigin: a page of one of the trusted_origins sent the request.
	TrustedOrigin merlon.Reason = "trusted-origin"
	// NotBrowser: the request says nothing about the page it comes from, as
	// programs do and browsers since 2020 do not, so no visitor's cookies are
	// being misused.
	NotBrowser merlon.Reason = "not-browser"
	// CrossSite: another site's page sent this state-changing request. If that
	// page is yours or a partner's, add it to trusted_origins; sub-domains of
	// one domain count as other sites.
	CrossSite merlon.Reason = "cross-site"
	// CrossSiteWebSocket: another site's page tried to open a WebSocket with
	// the visitor's cookies. If that page is yours or a partner's, add it to
	// trusted_origins.
	CrossSiteWebSocket merlon.Reason = "cross-site-websocket"
)

// A Guard refuses state-changing requests and WebSockets that other sites'
// pages send.
type Guard struct {
	rule    *http.CrossOriginProtection
	trusted map[string]bool
}

// New returns a Guard.
func New(c Config) (*Guard, error) {
	g := &Guard{rule: http.NewCrossOriginProtection(), trusted: make(map[string]bool)}
	var errs []error
	for i, text := range c.TrustedOrigins {
		o, rule := parseTrusted(text)
		if rule == "" {
			if err := g.rule.AddTrustedOrigin(o); err != nil {
				rule = err.Error()
			}
		}
		if rule != "" {
			errs = append(errs, merlon.BadSetting(fmt.Sprintf("trusted_origins[%d]", i), text, rule))
			continue
		}
		g.trusted[o] = true
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return g, nil
}

// Name returns "csrf".
func (g *Guard) Name() string { return "csrf" }

// Middleware puts the guard in front of next.
func (g *Guard) Middleware(next http.Handler) http.Handler { return merlon.Middleware(g)(next) }

// Check decides whether the page that sent r may do what r does.
func (g *Guard) Check(r *merlon.Request) merlon.Decision {
	refusal := CrossSite
	judged := r.Request
	if opensWebSocket(r.Request) {
		refusal, judged = CrossSiteWebSocket, asStateChange(r.Request)
	} else if safeMethod(r.Method) {
		return merlon.Pass(SafeMethod)
	}
	origins, sites := judged.Header["Origin"], judged.Header["Sec-Fetch-Site"]
	if len(origins) > 1 || len(sites) > 1 {
		// Which of them the upstream would believe is anyone's guess.
		return g.refuse(r, refusal, "a browser sends this field once; the request has it twice")
	}
	if err := g.rule.Check(judged); err != nil {
		d := g.refuse(r, refusal, "sent by a page of another site")
		d.Err = err
		return d
	}
	origin := judged.Header.Get("Origin")
	switch site := judged.Header.Get("Sec-Fetch-Site"); {
	case site == "same-origin" || site == "none":
		return merlon.Pass(SameOrigin)
	case g.trusted[origin]:
		return merlon.Pass(TrustedOrigin)
	case origin == "":
		return merlon.Pass(NotBrowser)
	case r.Host == "" || !strings.HasPrefix(origin, "https://") && !strings.HasPrefix(origin, "http://"):
		// net/http compares only hosts: no host would equal that of "null",
		// and an app's own scheme can carry any name.
		return g.refuse(r, refusal, "sent by something that is no page of this site")
	case r.TLS != nil && !strings.HasPrefix(origin, "https://"):
		// A page that came in the clear may be the work of whoever sits on the wire.
		return g.refuse(r, refusal, "sent over TLS by a page that came without it")
	}
	return merlon.Pass(SameOrigin)
}

func safeMethod(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// opensWebSocket reports whether hr is a WebSocket handshake: RFC 6455 for
// HTTP/1.1, RFC 8441 for HTTP/2.
func opensWebSocket(hr *http.Request) bool {
	if strings.EqualFold(hr.Header.Get(":protocol"), "websocket") {
		return true
	}
	for _, field := range hr.Header["Upgrade"] {
		for token := range strings.SplitSeq(field, ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(token), "/")
			if strings.EqualFold(name, "websocket") {
				return true
			}
		}
	}
	return false
}

// asStateChange returns what has to be judged about a handshake. A browser
// always names the page's origin there (RFC 6455 section 4.1), but not all of
// them send Sec-Fetch-Site, and some compared wss with https and called the
// site's own page another's. So Origin decides wherever there is one, unless
// Sec-Fetch-Site vouches for the page.
func asStateChange(hr *http.Request) *http.Request {
	h := http.Header{"Origin": hr.Header["Origin"], "Sec-Fetch-Site": hr.Header["Sec-Fetch-Site"]}
	if hr.Header.Get("Origin") != "" && len(h["Sec-Fetch-Site"]) == 1 && h.Get("Sec-Fetch-Site") != "same-origin" {
		delete(h, "Sec-Fetch-Site")
	}
	return &http.Request{Method: http.MethodPost, Host: hr.Host, URL: hr.URL, Header: h}
}

func (g *Guard) refuse(r *merlon.Request, reason merlon.Reason, message string) merlon.Decision {
	d := merlon.Refuse(http.StatusForbidden, reason)
	for _, name := range [...]string{"Sec-Fetch-Site", "Origin"} {
		if values := r.Header[name]; len(values) > 0 {
			d.Findings = append(d.Findings, merlon.Finding{
				Part:    "header " + name,
				Value:   shorten(strings.Join(values, ", ")),
				Message: message,
			})
		}
	}
	once := len(r.Header["Origin"]) == 1 && len(r.Header["Sec-Fetch-Site"]) <= 1
	if o, rule := parseTrusted(r.Header.Get("Origin")); once && rule == "" && o == r.Header.Get("Origin") {
		d.Remedy = "csrf:\n  trusted_origins: [\"" + o + "\"]"
	}
	return d
}

const shown = 120 // bytes of a client's value that a finding repeats

func shorten(s string) string {
	if len(s) <= shown {
		return s
	}
	return strings.ToValidUTF8(s[:shown], "") + "…"
}
