// Package headers tells browsers how to treat a site's answers: over TLS only,
// without guessing types, framed by nobody else, with cookies that scripts and
// other sites cannot use; and it keeps to itself what software answers.
//
// It adds to and replaces response fields and never reads a body: it does not
// write a script policy for an application that has none, and what a browser
// ignores it cannot enforce.
package headers

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"golang.org/x/net/http/httpguts"
)

// Config configures a [Policy]. The zero Config is the strict one.
type Config struct {
	// HSTS says for how long browsers must use only HTTPS for this site.
	// Example:
	//
	//	hsts: {max_age: 730d, include_subdomains: true}
	HSTS HSTS `yaml:"hsts,omitempty"`
	// ReferrerPolicy is sent where the upstream sends none, or one that gives
	// whole addresses to other sites: no-referrer, same-origin, origin,
	// strict-origin, origin-when-cross-origin, strict-origin-when-cross-origin,
	// or off to leave the field to the upstream. Default:
	// strict-origin-when-cross-origin. Example:
	//
	//	referrer_policy: same-origin
	ReferrerPolicy string `yaml:"referrer_policy,omitempty"`
	// PermissionsPolicy is sent where the upstream sends none: which features
	// of the browser this site's pages and the frames in them may ask for; or
	// off. Default: camera, microphone, geolocation and display-capture for
	// the site's own pages only; hid, midi, serial and usb for
	// nobody. At most 4096 bytes. Example:
	//
	//	permissions_policy: camera=(), geolocation=(self "https://map.example")
	PermissionsPolicy string `yaml:"permissions_policy,omitempty"`
	// OpenerPolicy is the Cross-Origin-Opener-Policy, sent where the upstream
	// sends none: same-origin, same-origin-allow-popups,
	// noopener-allow-popups, unsafe-none, or off. Default:
	// same-origin-allow-popups. Example:
	//
	//	opener_policy: same-origin
	OpenerPolicy string `yaml:"opener_policy,omitempty"`
	// ResourcePolicy is the Cross-Origin-Resource-Policy, sent where the
	// upstream sends none: same-origin, same-site, cross-origin, or off.
	// Sites whose images or scripts are meant for other sites' pages need
	// cross-origin. Default: same-site. Example:
	//
	//	resource_policy: cross-origin
	ResourcePolicy string `yaml:"resource_policy,omitempty"`
	// FrameAncestors are the pages that may show this site in a frame:
	// 'none', or a list of 'self' and of hosts, or off. It is sent where the
	// upstream's own Content-Security-Policy has no frame-ancestors. If set,
	// it also replaces the upstream's X-Frame-Options. Default: 'self', or
	// 'none' where the upstream sends X-Frame-Options: DENY. Example:
	//
	//	frame_ancestors: "'self' https://partner.example"
	FrameAncestors string `yaml:"frame_ancestors,omitempty"`
	// ReadableCookies are names of cookies that the site's scripts must be
	// able to read; every other cookie becomes HttpOnly. Upper and lower case
	// differ. Default: none beside XSRF-TOKEN and csrftoken, which are always
	// readable. Example:
	//
	//	readable_cookies: [theme, lang]
	ReadableCookies []string `yaml:"readable_cookies,omitempty"`
	// Remove are names of further fields that clients are not sent; a final *
	// stands for any ending. Default: none beside Server, X-Powered-By,
	// X-AspNet-Version, X-AspNetMvc-Version, X-Generator, X-Runtime and
	// X-Drupal-*, which are always removed. Example:
	//
	//	remove: [X-Backend, X-Internal-*]
	Remove []string `yaml:"remove,omitempty"`
	// Set are fields that every answer gets, whatever the upstream says. A
	// Content-Security-Policy is added to the upstream's, so that both hold.
	// Default: none. Example:
	//
	//	set: {Cross-Origin-Embedder-Policy: require-corp}
	Set map[string]string `yaml:"set,omitempty"`
}

// HSTS is HTTP Strict Transport Security (RFC 6797). It is sent over TLS only,
// and never for localhost and for hosts that are IP addresses; what the
// upstream says about it is replaced.
type HSTS struct {
	// MaxAge is how long a browser remembers, counted from each answer: a
	// number of seconds, or a duration such as 17520h or 730d. From 1 second
	// to 3650 days. Default: 63072000 (two years). Example:
	//
	//	max_age: 31536000
	MaxAge Seconds `yaml:"max_age,omitempty"`
	// IncludeSubdomains extends the rule to every sub-domain, also those that
	// other servers answer for: all of them must speak HTTPS. Default: false.
	// Example:
	//
	//	include_subdomains: true
	IncludeSubdomains bool `yaml:"include_subdomains,omitempty"`
	// Preload asks browser makers to build the rule in, which takes months to
	// undo. It needs include_subdomains, and max_age of at least 31536000.
	// Default: false. Example:
	//
	//	preload: true
	Preload bool `yaml:"preload,omitempty"`
	// Off leaves the field to the upstream, over TLS. Default: false.
	// Example:
	//
	//	off: true
	Off bool `yaml:"off,omitempty"`
}

// Seconds is a time in whole seconds, written as a plain number of them or as
// a duration: "31536000", "8760h", "365d".
type Seconds int64

// UnmarshalText reads a plain number, or a duration in whole seconds.
func (s *Seconds) UnmarshalText(b []byte) error {
	text, bad := string(b), fmt.Errorf("must be a number of seconds such as 31536000, or a duration such as 8760h or 365d, not %q", b)
	scale := int64(1)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		text, scale = days, 86400
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		if n < 0 || n > maxAgeLimit {
			return bad
		}
		*s = Seconds(n * scale)
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || scale != 1 || d < 0 || d%time.Second != 0 {
		return bad
	}
	*s = Seconds(d / time.Second)
	return nil
}

const (
	defaultMaxAge  = 63072000
	maxAgeLimit    = 3650 * 86400
	preloadMaxAge  = 31536000 // hstspreload.org
	maxPermissions = 4096
	off            = "off"

	defaultPermissions = "camera=(self), microphone=(self), geolocation=(self), display-capture=(self), hid=(), midi=(), serial=(), usb=()"
)

// New returns a Policy.
func New(c Config) (*Policy, error) {
	b := builder{}
	p := &Policy{
		remove:   map[string]bool{},
		readable: map[string]bool{"XSRF-TOKEN": true, "csrftoken": true},
		hstsOff:  c.HSTS.Off,
		hsts:     b.hsts(c.HSTS),
		referrer: b.oneOf("referrer_policy", c.ReferrerPolicy, "strict-origin-when-cross-origin", referrerPolicies),
		opener:   b.oneOf("opener_policy", c.OpenerPolicy, "same-origin-allow-popups", openerPolicies),
		resource: b.oneOf("resource_policy", c.ResourcePolicy, "same-site", resourcePolicies),
	}
	p.permissions = b.permissions(c.PermissionsPolicy)
	p.ancestors, p.framing = b.ancestors(c.FrameAncestors)
	p.framingSet = c.FrameAncestors != "" && c.FrameAncestors != off
	b.remove(p, c.Remove)
	b.set(p, c.Set)
	for i, name := range c.ReadableCookies {
		if name == "" || strings.ContainsAny(name, "=; \t,") || !httpguts.ValidHeaderFieldValue(name) {
			b.bad(fmt.Sprintf("readable_cookies[%d]", i), name, "must be a cookie's name")
		}
		p.readable[name] = true
	}
	if len(b.errs) > 0 {
		return nil, errors.Join(b.errs...)
	}
	return p, nil
}

// Name returns "headers".
func (p *Policy) Name() string { return "headers" }

// Middleware applies the policy to everything that next answers, for programs
// that want the headers and not the gateway. An answer counts as secure if
// this connection is TLS.
func (p *Policy) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		r := merlon.From(hr)
		if r == nil {
			r = merlon.NewRequest(hr)
		}
		pw := &writer{ResponseWriter: w, policy: p, request: r}
		next.ServeHTTP(pw, r.Request)
		pw.apply() // for a handler that wrote nothing
	})
}

// A writer applies the policy before the fields leave.
type writer struct {
	http.ResponseWriter
	policy  *Policy
	request *merlon.Request
	sent    bool
}

func (w *writer) apply() {
	if !w.sent {
		w.policy.Apply(w.request, w.request.TLS != nil, w.Header())
	}
}

// WriteHeader sends the fields; those of 1xx answers are judged, too, and
// those of the final answer again.
func (w *writer) WriteHeader(code int) {
	w.apply()
	w.sent = w.sent || code >= 200 || code == http.StatusSwitchingProtocols
	w.ResponseWriter.WriteHeader(code)
}

func (w *writer) Write(b []byte) (int, error) {
	w.apply()
	w.sent = true
	return w.ResponseWriter.Write(b)
}

// Flush is for handlers that ask for an http.Flusher.
func (w *writer) Flush() { _ = w.FlushError() }

// FlushError keeps http.ResponseController from reaching past the policy: the
// writer below would send the fields as they are.
func (w *writer) FlushError() error {
	w.apply()
	w.sent = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
