package headers

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon"
)

// A Policy says what browsers are told with every answer. It may be used from
// many goroutines at once.
type Policy struct {
	hsts, referrer, permissions, opener, resource []string // nil: left to the upstream

	ancestors  []string // the whole policy: "frame-ancestors 'self'"
	framing    []string // the X-Frame-Options that says the same, if any does
	framingSet bool     // frame_ancestors is the operator's word, not the default

	hstsOff      bool
	readable     map[string]bool
	remove       map[string]bool
	removePrefix []string
	set          []field
}

type field struct {
	name  string
	value []string
}

var (
	nosniff    = one("nosniff")
	noStore    = one("no-store")
	deny       = one("DENY")
	sameOrigin = one("SAMEORIGIN")
	frameNone  = one("frame-ancestors 'none'")
)

// Apply changes h, the fields of an answer to r, to what the client is sent.
// secure says that the client came over TLS, to this server or to a trusted
// proxy. Applied twice it changes nothing more.
func (p *Policy) Apply(r *merlon.Request, secure bool, h http.Header) {
	p.strip(h)
	p.applyHSTS(r, secure, h)
	p.applyCookies(secure, h)
	if switches(r, h) || isGRPC(h) {
		return // no document: a browser shows none of it
	}
	h["X-Content-Type-Options"] = nosniff
	p.applyReferrer(h)
	fallback(h, "Permissions-Policy", p.permissions, nil)
	fallback(h, "Cross-Origin-Opener-Policy", p.opener, openerPolicies)
	fallback(h, "Cross-Origin-Resource-Policy", p.resource, resourcePolicies)
	p.applyFraming(h)
	applyCaching(r, h)
	for _, f := range p.set {
		if f.name != "Content-Security-Policy" {
			h[f.name] = f.value
		} else if !slices.Contains(h[f.name], f.value[0]) {
			h[f.name] = append(h[f.name], f.value[0]) // both must hold (CSP3 8.1)
		}
	}
}

// strip removes what names the software, and fields that would be split or
// cut on the wire. Names are brought to the form that the rest looks for.
func (p *Policy) strip(h http.Header) {
	for name, values := range h {
		canon := http.CanonicalHeaderKey(name)
		if p.removes(canon) {
			delete(h, name)
			continue
		}
		if slices.ContainsFunc(values, unsafe) {
			values = slices.DeleteFunc(slices.Clone(values), unsafe)
			if len(values) == 0 {
				delete(h, name)
				continue
			}
			h[name] = values
		}
		if canon != name {
			delete(h, name)
			h[canon] = append(slices.Clip(h[canon]), values...)
		}
	}
}

func (p *Policy) removes(name string) bool {
	if p.remove[name] {
		return true
	}
	for _, prefix := range p.removePrefix {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func unsafe(v string) bool {
	return strings.IndexByte(v, '\n') >= 0 || strings.IndexByte(v, '\r') >= 0 || strings.IndexByte(v, 0) >= 0
}

// applyHSTS replaces the upstream's word also with none: its max-age=0 would
// switch the protection off for the whole site.
func (p *Policy) applyHSTS(r *merlon.Request, secure bool, h http.Header) {
	switch {
	case !secure || !named(r.Host): // RFC 6797, 7.2 and 8.1.1
		delete(h, "Strict-Transport-Security")
	case !p.hstsOff:
		h["Strict-Transport-Security"] = p.hsts
	}
}

// named reports whether host is a public name: no IP address, not this machine.
func named(host string) bool {
	if host == "" || host[0] == '[' {
		return false
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || isWord(host, "localhost") {
		return false
	}
	const sub = ".localhost"
	if len(host) > len(sub) && isWord(host[len(host)-len(sub):], sub) {
		return false
	}
	if c := host[len(host)-1]; c < '0' || c > '9' {
		return true // no top-level domain ends in a digit; every IPv4 address does
	}
	_, err := netip.ParseAddr(host)
	return err != nil
}

// switches reports whether the answer is a 101. An Upgrade field alone is no
// sign: servers advertise h2c with it on ordinary pages.
func switches(r *merlon.Request, h http.Header) bool {
	want, got := r.Header["Upgrade"], h["Upgrade"]
	return len(want) == 1 && len(got) == 1 && isWord(want[0], got[0])
}

// isGRPC takes one media type only: of "application/grpc, text/html" browsers
// believe the last.
func isGRPC(h http.Header) bool {
	ct := h["Content-Type"]
	if len(ct) != 1 || strings.IndexByte(ct[0], ',') >= 0 {
		return false
	}
	const grpc = "application/grpc"
	rest, ok := strings.CutPrefix(ct[0], grpc)
	return ok && (rest == "" || strings.IndexByte("+-; ", rest[0]) >= 0)
}

// fallback sets a field where the upstream has none, or none that browsers
// would understand.
func fallback(h http.Header, name string, value, valid []string) {
	if value == nil {
		return
	}
	switch own := h[name]; {
	case len(own) == 0 || len(own) == 1 && own[0] == "":
	case valid == nil:
		return
	case len(own) == 1:
		word, _, _ := strings.Cut(own[0], ";") // "; report-to=..." may follow
		if slices.Contains(valid, trim(word)) {
			return
		}
	}
	h[name] = value
}

// applyReferrer keeps the upstream's policy if the word in it that browsers
// obey, the last one known to them, gives no whole address to other sites.
func (p *Policy) applyReferrer(h http.Header) {
	if p.referrer == nil {
		return
	}
	own, obeyed := h["Referrer-Policy"], ""
	for _, v := range own {
		for word := range strings.SplitSeq(v, ",") {
			word = trim(word)
			if i := indexFold(referrerPolicies, word); i >= 0 {
				obeyed = referrerPolicies[i]
			} else if isWord(word, "unsafe-url") || isWord(word, "no-referrer-when-downgrade") {
				obeyed = ""
			}
		}
	}
	switch {
	case obeyed == "":
		h["Referrer-Policy"] = p.referrer
	case len(own) != 1 || own[0] != obeyed:
		h["Referrer-Policy"] = one(obeyed)
	}
}

// applyFraming adds frame-ancestors as a further policy, so that whatever the
// upstream forbids stays forbidden. Since frame-ancestors makes browsers
// ignore X-Frame-Options, a DENY there is carried over.
func (p *Policy) applyFraming(h http.Header) {
	if p.ancestors == nil {
		return
	}
	const csp, xfo = "Content-Security-Policy", "X-Frame-Options"
	options := ownFraming(h[xfo])
	if own, ok := frameAncestors(h[csp]); ok {
		if options != nil {
			h[xfo] = options
		} else if same := frameOptions(own); same != nil {
			h[xfo] = same
		} else {
			delete(h, xfo)
		}
		return
	}
	ancestors := p.ancestors
	switch {
	case options == nil || p.framingSet:
		options = p.framing
	case options[0] == "DENY":
		ancestors = frameNone
	}
	if options == nil {
		delete(h, xfo) // it has no words for a list of hosts
	} else {
		h[xfo] = options
	}
	if len(h[csp]) == 0 {
		h[csp] = ancestors
	} else {
		h[csp] = append(slices.Clip(h[csp]), ancestors[0])
	}
}

// ownFraming returns what browsers make of the upstream's X-Frame-Options: nil
// for what they ignore, such as ALLOW-FROM, DENY for contradictions.
func ownFraming(values []string) []string {
	var found []string
	for _, v := range values {
		for word := range strings.SplitSeq(v, ",") {
			switch word = trim(word); {
			case isWord(word, "DENY"):
				return deny
			case isWord(word, "SAMEORIGIN"):
				found = sameOrigin
			}
		}
	}
	return found
}

// frameOptions translates the sources of frame-ancestors.
func frameOptions(sources string) []string {
	switch {
	case isWord(sources, "'none'"):
		return deny
	case isWord(sources, "'self'"):
		return sameOrigin
	}
	return nil
}

// frameAncestors finds the directive in enforced policies (CSP3, 2.2.1).
func frameAncestors(policies []string) (sources string, ok bool) {
	for _, v := range policies {
		for v != "" {
			i := strings.IndexAny(v, ";,")
			directive := v
			if i >= 0 {
				directive, v = v[:i], v[i+1:]
			} else {
				v = ""
			}
			directive = strings.Trim(directive, " \t\f")
			const name = "frame-ancestors"
			if len(directive) < len(name) || !isWord(directive[:len(name)], name) {
				continue
			}
			rest := directive[len(name):]
			if rest == "" || strings.IndexByte(" \t\f", rest[0]) >= 0 {
				return strings.Trim(rest, " \t\f"), true
			}
		}
	}
	return "", false
}

// applyCaching keeps what one person was told from being stored for the next.
func applyCaching(r *merlon.Request, h http.Header) {
	if r.Identity != nil {
		h["Cache-Control"] = noStore
		return
	}
	if len(r.Header["Authorization"]) == 0 || storedKnowingly(h["Cache-Control"]) {
		return
	}
	h["Cache-Control"] = noStore
}

// storedKnowingly reports whether the upstream has said itself how an answer
// to an authorized request may be stored: RFC 9111, 3.5, or not by others.
func storedKnowingly(values []string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			name, _, hasValue := strings.Cut(trim(part), "=")
			switch {
			case hasValue && isWord(name, "s-maxage"):
				return true
			case hasValue: // no-cache="field" speaks of that field only
			case isWord(name, "public"), isWord(name, "must-revalidate"),
				isWord(name, "no-store"), isWord(name, "private"), isWord(name, "no-cache"):
				return true
			}
		}
	}
	return false
}

func trim(s string) string { return strings.Trim(s, " \t") }

// isWord compares without regard to ASCII case. Of equal length, no letter of
// another alphabet (the long s) can pass for one of word's.
func isWord(s, word string) bool { return len(s) == len(word) && strings.EqualFold(s, word) }

func indexFold(words []string, s string) int {
	return slices.IndexFunc(words, func(w string) bool { return isWord(s, w) })
}
