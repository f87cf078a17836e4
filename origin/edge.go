package origin

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/gaissmai/bart"
	"github.com/merlon-dev/merlon"
)

// EdgeConfig configures what holds for every listener, before it is known
// which site a request is for. The zero EdgeConfig trusts no proxy.
type EdgeConfig struct {
	// TrustedProxies are the addresses and networks of the load balancers
	// and proxies in front of Merlon, whose word about the client's
	// address and scheme is believed. Nobody else's is, and loopback is
	// nobody special. Default: none. Example: [10.0.0.0/8, "2001:db8::5"].
	TrustedProxies []string `yaml:"trusted_proxies,omitempty"`
	// ClientHeader is the field in which trusted proxies name the client:
	// "x-forwarded-for" or "forwarded" (RFC 7239). Only the one named is
	// read. Default: x-forwarded-for.
	ClientHeader string `yaml:"client_header,omitempty"`
	// ProxyProtocol says that connections from trusted proxies begin with
	// a PROXY protocol header, version 1 or 2; without one they are
	// closed. From others it is never accepted. Default: false.
	ProxyProtocol bool `yaml:"proxy_protocol,omitempty"`

	// HandshakeTimeout bounds the PROXY protocol header and the TLS
	// handshake, each. 1s to 1m; default 10s.
	HandshakeTimeout time.Duration `yaml:"handshake_timeout,omitempty"`
	// HeaderTimeout bounds the time from the first byte of a request to
	// the end of its header, and on a new connection the wait for that
	// byte. 1s to 2m; default 10s.
	HeaderTimeout time.Duration `yaml:"header_timeout,omitempty"`
	// IdleTimeout bounds the time a connection may stay open between
	// requests. 1s to 1h; default 2m.
	IdleTimeout time.Duration `yaml:"idle_timeout,omitempty"`
	// SlowGrace is how long a client may keep Merlon waiting for body
	// bytes, or for room to send an answer, in excess of what MinRate
	// allows. Time in which Merlon or the backend is the slow one does not
	// count, so quiet WebSockets and event streams live on. An answer may
	// stall four times as long, because kernels make room in large steps.
	// 1s to 1h; default 20s.
	SlowGrace time.Duration `yaml:"slow_grace,omitempty"`
	// MinRate is the fewest bytes a second at which a client must send a
	// body, or read an answer, to be waited for. Raise SlowGrace for
	// clients that send one body bit by bit for hours. 1B to 1MiB; default
	// 240B.
	MinRate merlon.Size `yaml:"min_rate,omitempty"`

	// MaxHeader bounds the request line and header fields of one request.
	// More is refused with 431, or 414 if it is the request line alone.
	// 4KiB to 1MiB; default 64KiB.
	MaxHeader merlon.Size `yaml:"max_header,omitempty"`
	// MaxHeaderFields bounds their number. 10 to 1000; default 128.
	MaxHeaderFields int `yaml:"max_header_fields,omitempty"`
	// MaxConnections bounds the open connections of each listener; more
	// are closed at once. 1 to 1000000; default 20000.
	MaxConnections int `yaml:"max_connections,omitempty"`
	// MaxConnectionsPerAddress bounds the open connections from one IPv4
	// address or IPv6 /64 to each listener. Trusted proxies are exempt. 1
	// to 1000000; default 512.
	MaxConnectionsPerAddress int `yaml:"max_connections_per_address,omitempty"`
	// MaxStreams bounds the requests that one HTTP/2 connection may have
	// open. 1 to 10000; default 128.
	MaxStreams int `yaml:"max_streams,omitempty"`
}

// An Edge is where connections arrive: it makes listeners that refuse what is
// ambiguous or too slow, and tells who a request's client is.
type Edge struct {
	c         EdgeConfig
	trusted   *bart.Lite
	forwarded bool // read Forwarded, not X-Forwarded-For
}

// NewEdge checks c and fills in its defaults.
func NewEdge(c EdgeConfig) (*Edge, error) {
	var errs []error
	dur := func(setting string, d *time.Duration, standard, least, most time.Duration) {
		if *d == 0 {
			*d = standard
		}
		if *d < least || *d > most {
			errs = append(errs, merlon.BadSetting(setting, d.String(), "must be from "+least.String()+" to "+most.String()))
		}
	}
	num := func(setting string, n *int, standard, least, most int) {
		if *n == 0 {
			*n = standard
		}
		if *n < least || *n > most {
			errs = append(errs, merlon.BadSetting(setting, strconv.Itoa(*n), "must be from "+strconv.Itoa(least)+" to "+strconv.Itoa(most)))
		}
	}
	size := func(setting string, s *merlon.Size, standard, least, most merlon.Size) {
		if *s == 0 {
			*s = standard
		}
		if *s < least || *s > most {
			errs = append(errs, merlon.BadSetting(setting, s.String(), "must be from "+least.String()+" to "+most.String()))
		}
	}
	trusted, err := ranges("trusted_proxies", c.TrustedProxies)
	errs = append(errs, err)
	switch c.ClientHeader {
	case "", "x-forwarded-for", "forwarded":
	default:
		errs = append(errs, merlon.BadSetting("client_header", c.ClientHeader, `must be "x-forwarded-for" or "forwarded"`))
	}
	if c.ProxyProtocol && len(c.TrustedProxies) == 0 {
		errs = append(errs, merlon.BadSetting("proxy_protocol", "true", "needs trusted_proxies, or it would never be accepted"))
	}
	dur("handshake_timeout", &c.HandshakeTimeout, 10*time.Second, time.Second, time.Minute)
	dur("header_timeout", &c.HeaderTimeout, 10*time.Second, time.Second, 2*time.Minute)
	dur("idle_timeout", &c.IdleTimeout, 2*time.Minute, time.Second, time.Hour)
	dur("slow_grace", &c.SlowGrace, 20*time.Second, time.Second, time.Hour)
	size("min_rate", &c.MinRate, 240, 1, merlon.MiB)
	size("max_header", &c.MaxHeader, 64*merlon.KiB, 4*merlon.KiB, merlon.MiB)
	num("max_header_fields", &c.MaxHeaderFields, 128, 10, 1000)
	num("max_connections", &c.MaxConnections, 20000, 1, 1e6)
	num("max_connections_per_address", &c.MaxConnectionsPerAddress, 512, 1, 1e6)
	num("max_streams", &c.MaxStreams, 128, 1, 10000)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Edge{c: c, trusted: trusted, forwarded: c.ClientHeader == "forwarded"}, nil
}

// Tune sets what a server behind one of the edge's listeners needs for
// HTTP/2: limits on headers, streams, idle time and writes. HTTP/2 framing
// itself is judged by net/http.
func (e *Edge) Tune(s *http.Server) {
	s.MaxHeaderBytes = int(e.c.MaxHeader)
	s.IdleTimeout = e.c.IdleTimeout
	s.ConnContext = withFingerprint
	s.ReadHeaderTimeout = 0 // the connection keeps the time itself, so as to be able to answer 408
	s.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: e.c.MaxStreams,
		SendPingTimeout:      e.c.IdleTimeout,
		WriteByteTimeout:     (maxStalls + 2) * e.c.SlowGrace,
	}
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
}

// ranges builds a table of addresses and networks.
func ranges(setting string, texts []string) (*bart.Lite, error) {
	t := new(bart.Lite)
	var errs []error
	for i, text := range texts {
		p, rule := parseRange(text)
		if rule != "" {
			errs = append(errs, merlon.BadSetting(setting+"["+strconv.Itoa(i)+"]", text, rule))
			continue
		}
		t.Insert(p)
	}
	return t, errors.Join(errs...)
}

// parseRange reads "10.0.0.0/8", "10.1.2.3", "2001:db8::/32" or the
// IPv4-mapped spelling of an IPv4 range, or says what is wrong with it.
func parseRange(text string) (p netip.Prefix, rule string) {
	if a, err := netip.ParseAddr(text); err == nil {
		if a.Zone() != "" {
			return p, "must have no zone"
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), ""
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, "must be an address such as 192.0.2.7 or a network such as 10.8.0.0/16"
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, "must be written as an IPv4 or an IPv6 network"
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return p, "has bits beyond its length set; write " + p.Masked().String()
	}
	return p, ""
}

// isTrusted reports whether a is a trusted proxy's.
func (e *Edge) isTrusted(a netip.Addr) bool {
	return a.IsValid() && e.trusted.Contains(a)
}

// addrPort returns the address and port of a network address, unmapped and
// without zone; the zero AddrPort if it has none.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
