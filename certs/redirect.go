package certs

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon"
)

const (
	// TokenInClear: a request over plain HTTP carried credentials, so anybody
	// on the way may have read them. It was refused, and not redirected, which
	// would hide the mistake. Revoke the token and give the client the https
	// address.
	TokenInClear merlon.Reason = "token-in-clear"
	// WriteInClear: a request over plain HTTP was neither GET nor HEAD.
	// Browsers open pages that way, programs send data that anybody may read.
	// Give the client the https address.
	WriteInClear merlon.Reason = "write-in-clear"
	// ForeignHost: a request over plain HTTP names a host that no site serves.
	// Add the host to a site if it is yours; otherwise it is a scanner.
	ForeignHost merlon.Reason = "foreign-host"
)

// redirectAge is how long, in seconds, clients may remember a redirect.
// Unbounded, as a 308 is without it, it would outlive a change of ports.
const redirectAge = "max-age=3600"

// credentialFields carry tokens. Cookies are not among them: browsers send
// those that lack Secure with the first, innocent, http request.
var credentialFields = []string{"Authorization", "Proxy-Authorization", "X-Api-Key", "X-Auth-Token"}

// Redirect returns the handler of the listener for plain HTTP, to be put
// behind [Certs.HTTPChallenge]. GET and HEAD for a host that is served go, by
// 308 and with path and query as they came, to https on the same host: at
// the port of httpsAddr, unless redirect_port names another. Everything else
// is refused: credentials and other methods with 403, since a program that
// sends them here must be put right and not helped along; foreign hosts with
// 421. Under "*" only loopback names and addresses and the address that the
// connection came in on are redirected, so that no name from outside is ever
// sent back.
//
// A refusal is told to refused, if that is not nil; what it says about a
// token is which field it was in. Strict-Transport-Security is never sent:
// RFC 6797 section 7.2 forbids it over plain HTTP.
func (c *Certs) Redirect(httpsAddr string, refused func(*merlon.Request, merlon.Decision)) http.Handler {
	port := c.config.RedirectPort
	if _, p, err := net.SplitHostPort(httpsAddr); port == 0 && err == nil {
		port, _ = strconv.Atoi(p) // 0 for a service name: clients then take 443
	}
	suffix := ""
	if port != 0 && port != 443 {
		suffix = ":" + strconv.Itoa(port)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		host, d := c.redirectable(hr)
		if !d.Passed() {
			r := merlon.NewRequest(hr)
			if refused != nil {
				refused(r, d)
			}
			merlon.Respond(w, r, d)
			return
		}
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		h := w.Header()
		h.Set("Location", "https://"+host+suffix+originForm(hr.RequestURI))
		h.Set("Cache-Control", redirectAge)
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusPermanentRedirect)
	})
}

// redirectable decides about a request over plain HTTP and returns the host,
// as served, that it is for.
func (c *Certs) redirectable(r *http.Request) (string, merlon.Decision) {
	if part := credential(r); part != "" {
		d := merlon.Refuse(http.StatusForbidden, TokenInClear)
		d.Findings = []merlon.Finding{{Part: part, Message: "credentials over plain HTTP: anybody on the way may have read them"}}
		d.Close = true
		return "", d
	}
	host, ok := requestHost(r.Host)
	if !ok || !c.redirects(host, r) {
		d := merlon.Refuse(http.StatusMisdirectedRequest, ForeignHost)
		d.Findings = []merlon.Finding{{Part: "Host", Value: shorten(r.Host), Message: "no site serves this host over plain HTTP"}}
		d.Close = true
		return "", d
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		d := merlon.Refuse(http.StatusForbidden, WriteInClear)
		d.Findings = []merlon.Finding{{Part: "method", Value: shorten(r.Method), Message: "only GET and HEAD are redirected to https"}}
		d.Close = true
		return "", d
	}
	return host, merlon.Decision{Effect: merlon.Allow}
}

// credential names the part of r that carries a token, if one does: RFC 6750
// knows the query, too.
func credential(r *http.Request) string {
	for _, f := range credentialFields {
		if len(r.Header[f]) > 0 {
			return `header "` + f + `"`
		}
	}
	if strings.Contains(r.URL.RawQuery, "access_token=") && r.URL.Query().Has("access_token") {
		return `query parameter "access_token"`
	}
	return ""
}

// redirects reports whether plain HTTP for a normalised host is redirected.
func (c *Certs) redirects(host string, r *http.Request) bool {
	if c.hosts.exact[host] {
		return true
	}
	if !c.hosts.any {
		return c.hosts.has(host)
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if _, parent, ok := strings.Cut(host, "."); ok && c.hosts.wild[parent] {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ip.IsLoopback() || local != nil && localAddr(local) == host
}

// originForm is a request target without scheme and authority (RFC 9112
// section 3.2), byte for byte.
func originForm(target string) string {
	if strings.HasPrefix(target, "/") {
		return target
	}
	_, rest, ok := strings.Cut(target, "://")
	if !ok {
		return "/"
	}
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		if rest[i] == '?' {
			return "/" + rest[i:]
		}
		return rest[i:]
	}
	return "/"
}

func shorten(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
