package origin

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ja4 names the kind of TLS client that sent a hello, after FoxIO's JA4
// (ja4/technical_details/JA4.md, BSD 3-Clause): programs of one build share it
// whatever address they come from and whatever agent they claim to be. Who
// wants to can send another's hello; it is a hint and no proof.
func ja4(h *tls.ClientHelloInfo) string {
	ciphers, extensions := hexes(h.CipherSuites), hexes(h.Extensions)
	name := byte('i')
	if slices.Contains(h.Extensions, 0) {
		name = 'd'
	}
	a := fmt.Sprintf("t%s%c%02d%02d%s", newest(h.SupportedVersions), name,
		min(len(ciphers), 99), min(len(extensions), 99), firstProtocol(h.SupportedProtos))
	slices.Sort(ciphers)
	slices.Sort(extensions)
	extensions = slices.DeleteFunc(extensions, func(e string) bool { return e == "0000" || e == "0010" })
	c := strings.Join(extensions, ",")
	if len(h.SignatureSchemes) > 0 {
		c += "_" + strings.Join(hexes(h.SignatureSchemes), ",")
	}
	return a + "_" + digest(strings.Join(ciphers, ",")) + "_" + digest(c)
}

// newest is the newest version that is offered, as JA4 writes it.
func newest(versions []uint16) string {
	most := uint16(0)
	for _, v := range versions {
		if !grease(v) {
			most = max(most, v)
		}
	}
	if text, ok := map[uint16]string{tls.VersionTLS13: "13", tls.VersionTLS12: "12", tls.VersionTLS11: "11", tls.VersionTLS10: "10"}[most]; ok {
		return text
	}
	return "00"
}

// firstProtocol is the first and last character of the first ALPN value, or of
// its hexadecimal form if they are no letters or digits.
func firstProtocol(protocols []string) string {
	if len(protocols) == 0 || protocols[0] == "" {
		return "00"
	}
	p := protocols[0]
	if !alphanumeric(p[0]) || !alphanumeric(p[len(p)-1]) {
		p = hex.EncodeToString([]byte(p))
	}
	return string([]byte{p[0], p[len(p)-1]})
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// grease reports whether v is there only to be ignored (RFC 8701).
func grease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

func hexes[V ~uint16](values []V) []string {
	var list []string
	for _, v := range values {
		if !grease(uint16(v)) {
			list = append(list, fmt.Sprintf("%04x", uint16(v)))
		}
	}
	return list
}

func digest(text string) string {
	if text == "" {
		return "000000000000"
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

// noting returns config, told to remember each client's hello on its line.
func noting(config *tls.Config) *tls.Config {
	config = config.Clone()
	next := config.GetConfigForClient
	config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if l, ok := h.Conn.(*line); ok {
			l.fingerprint = ja4(h)
		}
		if next == nil {
			return nil, nil
		}
		return next(h)
	}
	return config
}

type fingerprintKey struct{}

// withFingerprint is an http.Server's ConnContext: what is known of the
// connection goes with its requests.
func withFingerprint(ctx context.Context, c net.Conn) context.Context {
	if s, ok := c.(*secureConn); ok {
		c = s.Conn
	}
	tc, ok := c.(*tls.Conn)
	if !ok {
		return ctx
	}
	l, ok := tc.NetConn().(*line)
	if !ok || l.fingerprint == "" {
		return ctx
	}
	return context.WithValue(ctx, fingerprintKey{}, l.fingerprint)
}

// Fingerprint returns the JA4 fingerprint of the TLS client that sent hr; empty
// if it came in the clear, or through a proxy that did the client's handshake.
func (e *Edge) Fingerprint(hr *http.Request) string {
	f, _ := hr.Context().Value(fingerprintKey{}).(string)
	if f == "" {
		return ""
	}
	if ap, err := netip.ParseAddrPort(hr.RemoteAddr); err != nil || e.isTrusted(ap.Addr().Unmap().WithZone("")) {
		return ""
	}
	return f
}
