package origin

import (
	"bytes"
	"net/http"
	"net/netip"

	"github.com/merlon-dev/merlon"
)

// A span is a part of a head, counted from its first byte.
type span struct{ from, to int32 }

func (s span) of(b []byte) []byte { return b[s.from:s.to] }

// A head is what must be known of a request's head to frame the request.
type head struct {
	lines     int
	method    span
	target    span
	authority span // of an absolute-form target
	version10 bool
	host      span
	hosts     int
	length    int64 // -1: no Content-Length
	lengths   int
	codings   int
	chunked   bool
	lists     bool // Connection lists "upgrade"
	expects   int
	upgrades  [4]span // whole lines of Upgrade and HTTP2-Settings
	nUpgrades int
	wantsWS   int  // Upgrade fields that speak of WebSocket
	websocket bool // a well-formed request for WebSocket, and nothing else
}

func bad(reason merlon.Reason, rule string) *flaw {
	return &flaw{http.StatusBadRequest, reason, rule, nil}
}

// requestLine judges method SP request-target SP HTTP-version (RFC 9112, 3).
// at is where the line begins.
func (h *head) requestLine(line []byte, at int) *flaw {
	n := tokenLen(line)
	if n == 0 || n > 32 || n >= len(line) || line[n] != ' ' {
		return bad(BadRequestLine, "a request line must be METHOD SP TARGET SP VERSION")
	}
	rest := line[n+1:]
	sp := bytes.IndexByte(rest, ' ')
	if sp <= 0 {
		return bad(BadRequestLine, "a request line must be METHOD SP TARGET SP VERSION")
	}
	method, target, version := line[:n], rest[:sp], rest[sp+1:]
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.version10 = true
	default:
		if len(version) == 8 && string(version[:5]) == "HTTP/" && version[6] == '.' && isDigit(version[5]) && isDigit(version[7]) {
			return &flaw{http.StatusHTTPVersionNotSupported, BadRequestLine, "the version must be HTTP/1.1 or HTTP/1.0 on this connection", nil}
		}
		return bad(BadRequestLine, "the version must be HTTP/1.1 or HTTP/1.0")
	}
	h.method = span{int32(at), int32(at + n)}
	h.target = span{int32(at + n + 1), int32(at + n + 1 + sp)}
	switch string(method) {
	case http.MethodConnect, http.MethodTrace, "TRACK":
		return &flaw{http.StatusMethodNotAllowed, MethodRefused, "CONNECT and TRACE are off", nil}
	}
	return h.requestTarget(string(method) == http.MethodOptions, target)
}

func (h *head) requestTarget(options bool, target []byte) *flaw {
	path := target
	switch {
	case target[0] == '/':
	case len(target) == 1 && target[0] == '*':
		if !options {
			return bad(BadRequestLine, `the target "*" is for OPTIONS only`)
		}
		return nil
	default:
		n := schemeLen(target)
		if n == 0 {
			return bad(BadRequestLine, "a target must be a path or an http or https URL")
		}
		end := bytes.IndexAny(target[n:], "/?")
		if end < 0 {
			end = len(target) - n
		}
		if !validHost(target[n : n+end]) {
			return bad(BadHost, hostRule)
		}
		h.authority = span{h.target.from + int32(n), h.target.from + int32(n+end)}
		path = target[n+end:]
	}
	for i, query := 0, false; i < len(path); i++ {
		switch c := path[i]; {
		case c <= ' ' || c == 0x7f || c == '#':
			return bad(BadRequestLine, "a target must hold no control characters, spaces or fragment")
		case c == '?':
			query = true
		case c == '%' && !query:
			if i+2 >= len(path) || hexValue[path[i+1]] < 0 || hexValue[path[i+2]] < 0 {
				return bad(BadRequestLine, "a percent sign in a path must be followed by two hexadecimal digits")
			}
		}
	}
	return nil
}

// schemeLen returns the length of "http://" or "https://", else 0.
func schemeLen(target []byte) int {
	for _, s := range [...]string{"http://", "https://"} {
		if len(target) > len(s) && equalFold(target[:len(s)], s) {
			return len(s)
		}
	}
	return 0
}

// cutField parses field-name ":" OWS field-value OWS (RFC 9112, 5).
func cutField(line []byte) (name, value []byte, f *flaw) {
	n := tokenLen(line)
	if n == 0 || n >= len(line) || line[n] != ':' {
		if line[0] == ' ' || line[0] == '\t' {
			return nil, nil, bad(BadFraming, "a field must not be folded over lines, nor begin with a space")
		}
		return nil, nil, bad(BadHeader, "a field name must be a token, and a colon must follow it at once")
	}
	value = line[n+1:]
	if !cleanValue(value) {
		return nil, nil, bad(BadHeader, "a field value must hold no control characters")
	}
	return line[:n], trimOWS(value), nil
}

// field judges one header field. Most pass on their length alone.
func (h *head) field(line []byte, at int) *flaw {
	name, value, f := cutField(line)
	if f != nil {
		return f
	}
	switch len(name) {
	case 4:
		if equalFold(name, "host") {
			h.hosts++
			from := at + len(line) - len(bytes.TrimLeft(line[len(name)+1:], " \t"))
			h.host = span{int32(from), int32(from + len(value))}
			if !validHost(value) {
				return bad(BadHost, hostRule)
			}
		}
	case 6:
		if equalFold(name, "expect") {
			h.expects++
			if h.expects > 1 || !equalFold(value, "100-continue") {
				return &flaw{http.StatusExpectationFailed, BadHeader, `Expect must be "100-continue"`, nil}
			}
		}
	case 7:
		switch {
		case equalFold(name, "upgrade"):
			return h.upgrade(value, at, len(line))
		case equalFold(name, "trailer"):
			return trailerNames(value)
		}
	case 10:
		if equalFold(name, "connection") && hasToken(value, "upgrade") {
			h.lists = true
		}
	case 14:
		switch {
		case equalFold(name, "content-length"):
			return h.contentLength(value)
		case equalFold(name, "http2-settings"):
			return h.remove(at, len(line))
		case equalFold(name, "content_length"):
			return bad(BadFraming, "a field that frames the request must not be written with an underscore")
		}
	case 17:
		switch {
		case equalFold(name, "transfer-encoding"):
			h.codings++
			h.chunked = true
			if h.codings > 1 || !equalFold(value, "chunked") {
				return bad(BadFraming, `Transfer-Encoding must be "chunked", once`)
			}
		case equalFold(name, "transfer_encoding"):
			return bad(BadFraming, "a field that frames the request must not be written with an underscore")
		}
	}
	return nil
}

func (h *head) contentLength(value []byte) *flaw {
	h.lengths++
	if h.lengths > 1 {
		return bad(BadFraming, "there must be one Content-Length")
	}
	if len(value) == 0 || len(value) > 18 {
		return bad(BadFraming, "Content-Length must be a number of at most 18 digits")
	}
	h.length = 0
	for _, c := range value {
		if !isDigit(c) {
			return bad(BadFraming, "Content-Length must be digits only")
		}
		h.length = h.length*10 + int64(c-'0')
	}
	return nil
}

// upgrade notes an Upgrade field. WebSocket is all that can be upgraded to;
// offers of anything else, such as h2c or TLS, may be ignored (RFC 9110, 7.8),
// and are taken out so that the backend cannot accept them behind our back.
func (h *head) upgrade(value []byte, at, n int) *flaw {
	if bytes.Contains(bytes.ToLower(value), []byte("websocket")) {
		h.wantsWS++
		if h.wantsWS > 1 || !equalFold(value, "websocket") {
			return bad(BadUpgrade, `an Upgrade to WebSocket must be "websocket", and nothing else`)
		}
	}
	return h.remove(at, n)
}

// remove marks a whole line to be taken out.
func (h *head) remove(at, n int) *flaw {
	if h.nUpgrades == len(h.upgrades) {
		return bad(BadUpgrade, "there must be few Upgrade fields")
	}
	h.upgrades[h.nUpgrades] = span{int32(at), int32(at + n + 2)}
	h.nUpgrades++
	return nil
}

// trailerNames refuses announcements that net/http would refuse.
func trailerNames(value []byte) *flaw {
	for _, name := range [...]string{"content-length", "transfer-encoding", "trailer"} {
		if hasToken(value, name) {
			return bad(BadFraming, "Trailer must not announce fields that frame the request")
		}
	}
	return nil
}

// whole judges what only the complete head tells.
func (h *head) whole(b []byte) *flaw {
	switch {
	case h.codings > 0 && h.lengths > 0:
		return bad(BadFraming, "there must not be both Content-Length and Transfer-Encoding")
	case h.codings > 0 && h.version10:
		return bad(BadFraming, "there must be no Transfer-Encoding in HTTP/1.0")
	case h.hosts > 1:
		return bad(BadHost, "there must be one Host")
	case h.hosts == 0 && !h.version10:
		return bad(BadHost, "there must be a Host")
	case h.authority.to > 0 && (h.hosts == 0 || !bytes.EqualFold(h.authority.of(b), h.host.of(b))):
		return bad(BadHost, "the target's host must be the one in Host")
	}
	if h.wantsWS > 0 {
		if h.nUpgrades > 1 || !h.lists || h.version10 || h.chunked || h.length > 0 || string(h.method.of(b)) != http.MethodGet {
			return bad(BadUpgrade, "an Upgrade to WebSocket must be a GET without a body whose Connection lists it")
		}
		h.websocket = true
	}
	return nil
}

const hostRule = "Host must be a name or address, with or without a port"

// validHost judges uri-host [ ":" port ] by its characters. Which hosts are
// served is for the gateway.
func validHost(v []byte) bool {
	if len(v) == 0 || len(v) > 261 {
		return false
	}
	i := 0
	if v[0] == '[' {
		end := bytes.IndexByte(v, ']')
		if end < 0 {
			return false
		}
		a, err := netip.ParseAddr(string(v[1:end]))
		if err != nil || !a.Is6() || a.Zone() != "" {
			return false
		}
		i = end + 1
	} else {
		for i < len(v) && hostByte[v[i]] {
			i++
		}
	}
	if i == 0 || i == len(v) {
		return i > 0
	}
	port := v[i+1:]
	if v[i] != ':' || len(port) == 0 || len(port) > 5 {
		return false
	}
	for _, c := range port {
		if !isDigit(c) {
			return false
		}
	}
	return true
}
