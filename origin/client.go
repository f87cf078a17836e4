package origin

import (
	"net/http"
	"net/netip"
	"strings"
)

// Only this much of what proxies say about the way of a request is read.
const (
	maxHops     = 32
	maxHopBytes = 8 << 10
)

// ClientAddr returns the address of the client that sent hr: the rightmost
// address in the forwarding header that is no trusted proxy's, if the
// connection comes from one; the connection's own otherwise. Where a trusted
// proxy names nobody that can be understood ("unknown", an obfuscated name, a
// broken list), the proxy itself is the client: what is left of it may be
// anybody's invention. The address is unmapped and without zone; it is the
// zero Addr for a connection that has none, such as a Unix socket's.
func (e *Edge) ClientAddr(hr *http.Request) netip.Addr {
	addr, _ := e.client(hr)
	return addr
}

// IsHTTPS reports whether the client used https: over this connection, or
// over the one to a trusted proxy that says so.
func (e *Edge) IsHTTPS(hr *http.Request) bool {
	if hr.TLS != nil {
		return true
	}
	_, proto := e.client(hr)
	return proto == "https"
}

// client returns the client's address and the scheme that trusted proxies
// report.
func (e *Edge) client(hr *http.Request) (netip.Addr, string) {
	ap, err := netip.ParseAddrPort(hr.RemoteAddr)
	if err != nil {
		return netip.Addr{}, ""
	}
	peer := ap.Addr().Unmap().WithZone("")
	if !e.isTrusted(peer) {
		return peer, ""
	}
	if e.forwarded {
		return e.fromForwarded(peer, hr.Header["Forwarded"])
	}
	return e.fromXForwardedFor(peer, hr.Header)
}

func (e *Edge) fromXForwardedFor(peer netip.Addr, h http.Header) (netip.Addr, string) {
	// The nearest proxy wrote the last value.
	proto := ""
	if v := h["X-Forwarded-Proto"]; len(v) > 0 {
		last := v[len(v)-1]
		proto = strings.ToLower(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:]))
	}
	client := peer
	hops, size := 0, 0
	lines := h["X-Forwarded-For"]
	for i := len(lines) - 1; i >= 0; i-- {
		rest, more := lines[i], true
		for more {
			var item string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, item = rest[:comma], rest[comma+1:]
			} else {
				item, more = rest, false
			}
			hops, size = hops+1, size+len(item)+1
			addr, ok := hopAddr(strings.Trim(item, " \t"))
			if !ok || hops > maxHops || size > maxHopBytes {
				return client, proto
			}
			client = addr
			if !e.isTrusted(addr) {
				return client, proto
			}
		}
	}
	return client, proto
}

// fromForwarded walks RFC 7239 elements from the right. Quoted strings can
// only be told from the left, so the elements are cut first.
func (e *Edge) fromForwarded(peer netip.Addr, lines []string) (netip.Addr, string) {
	client, proto := peer, ""
	hops, size := 0, 0
	for i := len(lines) - 1; i >= 0; i-- {
		size += len(lines[i])
		if size > maxHopBytes {
			return client, proto
		}
		elements, ok := cutQuoted(lines[i], ',')
		if !ok {
			return client, proto
		}
		for j := len(elements) - 1; j >= 0; j-- {
			hops++
			node, p, ok := forwardedElement(elements[j])
			if !ok || hops > maxHops {
				return client, proto
			}
			proto = p
			addr, ok := hopAddr(node)
			if !ok {
				return client, proto
			}
			client = addr
			if !e.isTrusted(addr) {
				return client, proto
			}
		}
	}
	return client, proto
}

// forwardedElement returns the for and proto parameters of one element.
func forwardedElement(s string) (node, proto string, ok bool) {
	pairs, ok := cutQuoted(s, ';')
	if !ok {
		return "", "", false
	}
	seen := 0
	for _, pair := range pairs {
		name, value, found := strings.Cut(strings.Trim(pair, " \t"), "=")
		if !found {
			return "", "", false
		}
		if strings.HasPrefix(value, `"`) {
			if len(value) < 2 || !strings.HasSuffix(value, `"`) || strings.Contains(value, `\`) {
				return "", "", false // no address has anything to escape
			}
			value = value[1 : len(value)-1]
		}
		switch {
		case strings.EqualFold(name, "for"):
			node = value
			seen++
		case strings.EqualFold(name, "proto"):
			proto = strings.ToLower(value)
		}
	}
	return node, proto, seen == 1
}

// cutQuoted cuts s at every sep outside quoted strings; ok is false if a
// quoted string does not end.
func cutQuoted(s string, sep byte) (parts []string, ok bool) {
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == sep && !quoted:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:]), !quoted
}

// hopAddr reads an address as proxies write it: bare, in brackets, with a
// port, IPv4-mapped.
func hopAddr(s string) (netip.Addr, bool) {
	if len(s) == 0 || len(s) > 64 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	if err != nil && s[0] == '[' && s[len(s)-1] == ']' {
		a, err = netip.ParseAddr(s[1 : len(s)-1])
		if err == nil && a.Is4() {
			return netip.Addr{}, false
		}
	}
	if err != nil {
		ap, perr := netip.ParseAddrPort(s)
		if perr != nil {
			return netip.Addr{}, false
		}
		a = ap.Addr()
	}
	return a.Unmap().WithZone(""), true
}
