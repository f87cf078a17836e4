package upstream

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// rewrite makes the request that the backend gets. ReverseProxy has removed
// the hop-by-hop fields before, so that nothing written here can be removed by
// a client that names it in Connection.
func (e *exchange) rewrite(pr *httputil.ProxyRequest) {
	in, out := pr.In, pr.Out
	h := out.Header
	for name := range h {
		if ours(name) {
			delete(h, name)
		}
	}
	e.upgrade(in, h)
	e.introduce(in, h)
	if e.call.Plain {
		e.set(h, "Accept-Encoding", "identity")
	}
	// Trailers of requests may carry what guards have judged in headers
	// (RFC 9110, section 6.5.1), and no common client sends any.
	out.Trailer = nil
	// The bytes that guards have judged, not ReverseProxy's reading of them.
	out.URL.RawQuery = encode(in.URL.RawQuery, queryByte)
	out.URL.ForceQuery = in.URL.ForceQuery
	out.URL.Opaque = ""
	e.pool.path(in, out.URL)
	e.sent = out.URL.RawQuery
}

// set writes a header value without an allocation of its own.
func (e *exchange) set(h http.Header, name, value string) {
	if e.written == len(e.values) {
		h[name] = []string{value}
		return
	}
	i := e.written
	e.written++
	e.values[i] = value
	h[name] = e.values[i : i+1 : i+1]
}

// introduce tells the backend who asks.
func (e *exchange) introduce(in *http.Request, h http.Header) {
	if e.r.Client.IsValid() {
		client := e.r.Client.String()
		e.set(h, "X-Forwarded-For", client)
		e.set(h, "X-Real-Ip", client)
	}
	proto := e.call.Proto
	if proto == "" {
		proto = "http"
		if in.TLS != nil {
			proto = "https"
		}
	}
	e.set(h, "X-Forwarded-Proto", proto)
	e.set(h, "X-Forwarded-Host", in.Host)
	e.set(h, "X-Request-Id", e.r.ID)
	if at, ok := in.Context().Deadline(); ok {
		left := max(time.Until(at), time.Millisecond)
		e.set(h, "Merlon-Timeout", strconv.FormatFloat(left.Seconds(), 'f', 3, 64))
	}
	if id := e.r.Identity; id != nil {
		e.set(h, "Merlon-Subject", encode(id.Subject, nameByte))
		if len(id.Groups) > 0 {
			e.set(h, "Merlon-Groups", names(id.Groups))
		}
		if len(id.Roles) > 0 {
			e.set(h, "Merlon-Roles", names(id.Roles))
		}
		if id.Tenant != "" {
			e.set(h, "Merlon-Tenant", encode(id.Tenant, nameByte))
		}
	}
	if p := e.pool.c.StripPrefix; p != "" {
		if _, ok := cutPrefix(rawPath(in), p); ok {
			e.set(h, "X-Forwarded-Prefix", p)
		}
	}
}

func names(all []string) string {
	escaped := make([]string, len(all))
	for i, s := range all {
		escaped[i] = encode(s, nameByte)
	}
	return strings.Join(escaped, ",")
}

// ours reports whether only this package may write a request header of this
// name, in any spelling that a backend may take for it: CGI and WSGI make "_"
// of "-".
func ours(name string) bool {
	if name == "" {
		return false
	}
	switch name[0] | 0x20 {
	case 'x', 'm', 'f', 'h', 't':
	default:
		return false
	}
	for _, p := range [...]string{"merlon-", "x-forwarded"} {
		if len(name) >= len(p) && foldEqual(name[:len(p)], p) {
			return true
		}
	}
	for _, p := range [...]string{"forwarded", "x-real-ip", "x-request-id", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "http2-settings"} {
		if foldEqual(name, p) {
			return true
		}
	}
	return false
}

func foldEqual(name, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if c == '_' {
			c = '-'
		} else if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// upgrade lets only a well-formed WebSocket handshake (RFC 6455, section 4.1)
// ask the backend to switch protocols. Anything else, h2c before all, would
// open a way around the guards; such a request goes on as an ordinary one.
func (e *exchange) upgrade(in *http.Request, h http.Header) {
	if h["Upgrade"] == nil {
		return
	}
	key, version := h["Sec-Websocket-Key"], h["Sec-Websocket-Version"]
	if in.Method == http.MethodGet && in.ProtoMajor == 1 && in.ProtoAtLeast(1, 1) && in.ContentLength == 0 &&
		len(h["Upgrade"]) == 1 && strings.EqualFold(h["Upgrade"][0], "websocket") &&
		len(key) == 1 && len(key[0]) == 24 && len(version) == 1 && version[0] == "13" {
		e.accept = acceptKey(key[0])
		return
	}
	delete(h, "Upgrade")
	delete(h, "Connection")
}

// path sets u's path to what the backend is asked for. Escapes stay as the
// client wrote them, as "%2f" and "/" are not the same to everybody; bytes that
// may not stand in a path (RFC 3986, section 3.3) become escapes.
func (p *Pool) path(in *http.Request, u *url.URL) {
	if in.URL.Path == "*" {
		return
	}
	raw := rawPath(in)
	if p.c.StripPrefix != "" {
		raw, _ = cutPrefix(raw, p.c.StripPrefix)
	}
	if p.c.AddPrefix != "" {
		raw = p.c.AddPrefix + raw
	}
	raw = encode(raw, pathByte)
	path, err := url.PathUnescape(raw)
	if err != nil { // net/http has parsed it before: this cannot be
		path, raw = in.URL.Path, ""
	}
	u.Path, u.RawPath = path, raw
}

// rawPath returns the path as the client wrote it, unless somebody has
// changed it since.
func rawPath(in *http.Request) string {
	raw, _, _ := strings.Cut(in.RequestURI, "?")
	if strings.HasPrefix(raw, "/") {
		if raw == in.URL.Path && !strings.Contains(raw, "%") {
			return raw
		}
		if path, err := url.PathUnescape(raw); err == nil && path == in.URL.Path {
			return raw
		}
	}
	raw = in.URL.EscapedPath()
	if raw == "" {
		return "/"
	}
	return raw
}

// cutPrefix takes prefix off an escaped path, at a segment's end. The path may
// have any byte of the prefix escaped.
func cutPrefix(raw, prefix string) (string, bool) {
	i := 0
	for j := range len(prefix) {
		switch {
		case i >= len(raw):
			return raw, false
		case raw[i] == prefix[j]:
			i++
		case raw[i] == '%' && prefix[j] != '/' && i+2 < len(raw) && unhex(raw[i+1])<<4|unhex(raw[i+2]) == prefix[j]:
			i += 3
		default:
			return raw, false
		}
	}
	switch {
	case i == len(raw):
		return "/", true
	case raw[i] == '/':
		return raw[i:], true
	default:
		return raw, false
	}
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	default:
		return 0
	}
}

// encode percent-encodes every byte of s that ok does not let stand.
func encode(s string, ok func(byte) bool) string {
	n := 0
	for i := range len(s) {
		if !ok(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; ok(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

func alphanumeric(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
}

// pathByte is RFC 3986's path with "%", and "[" and "]", which net/url lets be.
func pathByte(c byte) bool {
	return alphanumeric(c) || strings.IndexByte("-_.~!$&'()*+,;=:@[]/%", c) >= 0
}

// queryByte lets stand what cannot end a query or a request line: servers
// read the rest in as many ways as guards have looked at it.
func queryByte(c byte) bool { return c > ' ' && c < 0x7f && c != '#' }

// nameByte is for names in Merlon-Subject, Merlon-Groups and Merlon-Roles.
func nameByte(c byte) bool { return c > ' ' && c < 0x7f && c != ',' && c != '%' }

// patience is how long the backend may be silent, by what it sends or is sent.
func (e *exchange) patience(h http.Header) time.Duration {
	t := h.Get("Content-Type")
	for _, streaming := range [...]string{"text/event-stream", "application/grpc", "multipart/x-mixed-replace"} {
		if len(t) >= len(streaming) && strings.EqualFold(t[:len(streaming)], streaming) {
			return e.pool.c.Timeouts.Stream
		}
	}
	return e.pool.c.Timeouts.Stall
}

func validHeader(h http.Header) bool {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return false
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return false
			}
		}
	}
	return true
}
