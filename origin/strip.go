package origin

import (
	"net/http"
	"strings"
)

// StripHeaders removes from a request that goes to a backend what only a
// gateway may say: fields that claim who or where the client is, that override
// method, host or path, and those that Connection lists (RFC 9110, 7.6.1). The
// names are matched without case and with "-" for all that is no letter or
// digit, because CGI and WSGI make "-" and "_" the same, and some servers every
// other sign as well. Fields that Connection lists for the hop itself stay
// for the proxy to handle. Whoever sets such fields for the backend must do so
// afterwards.
func StripHeaders(h http.Header) {
	for _, list := range h["Connection"] {
		for listed := range strings.SplitSeq(list, ",") {
			listed = http.CanonicalHeaderKey(strings.Trim(listed, " \t"))
			if listed != "Upgrade" && listed != "Connection" {
				delete(h, listed)
			}
		}
	}
	for field := range h {
		if isIdentity(field) || isOdd(field) && isFraming(field) {
			delete(h, field)
		}
	}
}

// maxIdentityName is longer than any name in the lists.
const maxIdentityName = 64

// fold writes a name in lower case, with "-" for whatever is no letter or digit:
// some servers tell applications all of that as "_".
func fold(b *[maxIdentityName]byte, field string) []byte {
	n := copy(b[:], field)
	for i, c := range b[:n] {
		switch {
		case c >= 'A' && c <= 'Z':
			b[i] = c + 'a' - 'A'
		case plain(c):
		default:
			b[i] = '-'
		}
	}
	return b[:n]
}

func plain(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' }

// isOdd reports whether a name has anything but letters, digits and "-".
func isOdd(field string) bool {
	for i := range len(field) {
		if c := field[i]; !plain(c) && (c < 'A' || c > 'Z') {
			return true
		}
	}
	return false
}

// isIdentity reports whether a field is one that only a gateway may set.
func isIdentity(field string) bool {
	if !mayBeIdentity(field) {
		return false
	}
	var b [maxIdentityName]byte
	folded := fold(&b, field)
	if identityNames[string(folded)] {
		return true
	}
	for _, prefix := range identityPrefixes {
		if len(folded) >= len(prefix) && string(folded[:len(prefix)]) == prefix {
			return true
		}
	}
	return false
}

// mayBeIdentity tells most names by their first two letters.
func mayBeIdentity(field string) bool {
	if len(field) < 2 {
		return false
	}
	var b [maxIdentityName]byte
	folded := fold(&b, field[:2])
	return identityBeginnings[folded[0]]&(1<<(folded[1]&63)) != 0
}

var identityNames = set(
	// Who the client is: address.
	"forwarded", "x-forwarded", "x-real-ip", "x-real-port", "x-client-ip", "client-ip", "true-client-ip", "x-true-client-ip",
	"x-cluster-client-ip", "x-originating-ip", "x-remote-ip", "x-remote-addr", "remote-addr", "x-proxyuser-ip", "x-original-forwarded-for",
	"x-custom-ip-authorization", "cf-connecting-ip", "cf-connecting-ipv6", "cf-pseudo-ipv4", "cf-ipcountry", "cf-visitor",
	"fastly-client-ip", "fastly-ssl", "x-azure-clientip", "x-azure-socketip", "x-appengine-user-ip", "x-appengine-remote-addr",
	"x-originally-forwarded-for", "x-source-ip", "wl-proxy-client-ip", "proxy-client-ip",
	// Who the client is: name.
	"remote-user", "remote-groups", "remote-group", "remote-name", "remote-email", "x-remote-user", "x-remote-groups", "x-remote-group",
	"x-remote-email", "x-remote-name", "x-user", "x-user-id", "x-userid", "x-user-name", "x-username", "x-user-email", "x-user-role",
	"x-user-roles", "x-user-groups", "x-groups", "x-roles", "x-email", "x-auth-user", "x-authenticated-user", "x-authenticated-userid",
	"x-authenticated-email", "x-authenticated-groups", "x-webauth-user", "x-webauth-email", "x-webauth-groups", "x-token-subject",
	"x-consumer-id", "x-consumer-username", "x-consumer-custom-id", "x-credential-identifier", "x-anonymous-consumer",
	"auth-user", "auth-type", "x-goog-iap-jwt-assertion", "x-vouch-user", "x-jwt-assertion",
	// The client's certificate and scheme.
	"ssl-client-cert", "x-client-cert", "x-client-dn", "x-client-verify", "x-client-certificate", "x-arr-clientcert", "x-arr-ssl",
	"client-cert", "client-cert-chain", "front-end-https", "x-scheme", "x-url-scheme", "x-https", "x-spiffe-id",
	// Overrides.
	"x-original-url", "x-original-uri", "x-original-host", "x-original-method", "x-original-proto", "x-rewrite-url", "x-rewrite-uri",
	"x-override-url", "x-host", "x-http-host-override", "x-http-method-override", "x-http-method", "x-method-override", "x-method",
	"x-proxy-url", "x-script-name", "x-sendfile-type", "x-accel-mapping", "proxy", "proxy-host", "request-uri", "x-http-path-override",
)

// identityPrefixes are the beginnings of whole families of such names.
var identityPrefixes = [...]string{
	"merlon-", "x-merlon-", "x-forwarded-", "x-auth-request-", "x-authentik-", "x-pomerium-", "x-amzn-oidc-", "x-amzn-mtls-",
	"x-goog-authenticated-user-", "x-ms-client-principal", "x-ssl-client-", "ssl-client-", "x-tls-client-", "x-client-cert-",
	"x-envoy-", "x-middleware-", "cf-access-", "tailscale-user-", "remote-user-", "x-remote-extra-", "x-vouch-idp-",
}

// identityBeginnings has the second letters, as bits, that follow a first one.
var identityBeginnings = beginnings()

func beginnings() *[256]uint64 {
	var b [256]uint64
	for name := range identityNames {
		b[name[0]] |= 1 << (name[1] & 63)
	}
	for _, prefix := range identityPrefixes {
		b[prefix[0]] |= 1 << (prefix[1] & 63)
	}
	return &b
}

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}

// isFraming reports whether an odd name becomes one that frames or routes the
// request where its signs are the same as "-".
func isFraming(field string) bool {
	var b [maxIdentityName]byte
	switch string(fold(&b, field)) {
	case "content-length", "transfer-encoding", "content-type", "content-encoding", "proxy-authorization", "x-request-id":
		return true
	}
	return false
}
