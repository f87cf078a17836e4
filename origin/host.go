package origin

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

var errHost = errors.New("must be a host name or an address, with or without a port")

// CanonicalHost returns the one spelling of a host under which sites are
// found, whether it comes from a Host field, a TLS server name or the
// configuration: lower case, without port and final dot, international names
// in their ASCII form (RFC 5891), addresses as netip writes them. Underscores
// are allowed, because container names have them. Anything else is an error.
func CanonicalHost(host string) (string, error) {
	if host == "" || len(host) > 512 {
		return "", errHost
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() == "" {
		return a.Unmap().String(), nil
	}
	if host[0] == '[' {
		return bracketed(host)
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		if !validPort(host[i+1:]) {
			return "", errHost
		}
		host = host[:i]
		if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
			return a.String(), nil
		}
	}
	host = strings.TrimSuffix(host, ".")
	for i := 0; i < len(host); i++ {
		if host[i] >= 0x80 {
			ascii, err := idna.Lookup.ToASCII(host)
			if err != nil {
				return "", errHost
			}
			host = ascii
			break
		}
	}
	host = strings.ToLower(host)
	if !validName(host) {
		return "", errHost
	}
	return host, nil
}

func bracketed(host string) (string, error) {
	end := strings.IndexByte(host, ']')
	if end < 0 {
		return "", errHost
	}
	a, err := netip.ParseAddr(host[1:end])
	if err != nil || !a.Is6() || a.Zone() != "" {
		return "", errHost
	}
	if rest := host[end+1:]; rest != "" && (rest[0] != ':' || !validPort(rest[1:])) {
		return "", errHost
	}
	return a.Unmap().String(), nil
}

func validPort(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return false
		}
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// validName judges a lower-case name without final dot (RFC 1123, 2.1, and
// underscores).
func validName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			if !(c >= 'a' && c <= 'z' || isDigit(c) || c == '-' || c == '_') {
				return false
			}
		}
		if strings.HasPrefix(label, "xn--") {
			if _, err := idna.Lookup.ToUnicode(label); err != nil {
				return false
			}
		}
	}
	return true
}
