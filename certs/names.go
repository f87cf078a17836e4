package certs

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"

	"github.com/merlon-dev/merlon"
)

const anyHost = "*"

// A hostSet is the hosts that are served.
type hostSet struct {
	list     []string // normalised, in the order given, "*" and wildcards among them
	exact    map[string]bool
	wild     map[string]bool // "example.com" for "*.example.com"
	any      bool
	fallback string // for clients that name no host served; empty if there is none
}

func newHostSet(list []string) (hostSet, error) {
	h := hostSet{exact: map[string]bool{}, wild: map[string]bool{}}
	var errs []error
	for i, raw := range list {
		if raw == anyHost {
			h.any = true
			h.list = append(h.list, anyHost)
			continue
		}
		bare, wild := strings.CutPrefix(raw, "*.")
		name, ok := configuredName(bare)
		if _, err := netip.ParseAddr(name); !ok || wild && err == nil {
			errs = append(errs, merlon.BadSetting(fmt.Sprintf("hosts[%d]", i), raw,
				`must be a host name, an address, "*.example.com" or "*"`))
			continue
		}
		if wild {
			h.wild[name] = true
			h.list = append(h.list, "*."+name)
			continue
		}
		h.exact[name] = true
		h.list = append(h.list, name)
		if h.fallback == "" {
			h.fallback = name
		}
	}
	if h.any && h.fallback == "" {
		h.fallback = "localhost"
	}
	return h, errors.Join(errs...)
}

// has reports whether a normalised name is served. A wildcard stands for
// exactly one label (RFC 6125 section 6.4.3).
func (h hostSet) has(name string) bool {
	if h.any || h.exact[name] {
		return true
	}
	_, parent, ok := strings.Cut(name, ".")
	return ok && h.wild[parent]
}

// configuredName reads a name as people write it, internationalised ones too.
func configuredName(s string) (string, bool) {
	if name, ok := hostName(s); ok {
		return name, true
	}
	ascii, err := idna.Lookup.ToASCII(s)
	if err != nil {
		return "", false
	}
	return hostName(ascii)
}

// hostName normalises a host name or address as it comes over the wire: lower
// case, no dot at the end, addresses in their one canonical form. Whatever is
// not letters, digits, hyphens and underscores in labels is no name.
func hostName(s string) (string, bool) {
	if len(s) > 254 {
		return "", false
	}
	if ip, err := netip.ParseAddr(s); err == nil {
		if ip.Zone() != "" {
			return "", false
		}
		return ip.Unmap().String(), true
	}
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return "", false
	}
	label, letters := 0, false
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '.':
			if label == 0 || s[i-1] == '-' {
				return "", false
			}
			label, letters = 0, false
			continue
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
			letters = true
		case '0' <= c && c <= '9':
		case c == '-':
			if label == 0 {
				return "", false
			}
			letters = true
		default:
			return "", false
		}
		if label++; label > 63 {
			return "", false
		}
	}
	// A last label of digits is a misspelt address ("127.1"), never a name.
	if label == 0 || s[len(s)-1] == '-' || !letters {
		return "", false
	}
	return strings.ToLower(s), true
}

// requestHost is the normalised host of a Host field, without its port.
func requestHost(field string) (string, bool) {
	host := field
	if strings.HasPrefix(field, "[") {
		end := strings.IndexByte(field, ']')
		if end < 0 || !validPort(field[end+1:]) {
			return "", false
		}
		name, ok := hostName(field[1:end])
		return name, ok && strings.Contains(name, ":")
	}
	if i := strings.IndexByte(field, ':'); i >= 0 {
		if !validPort(field[i:]) {
			return "", false
		}
		host = field[:i]
	}
	return hostName(host)
}

// validPort accepts "", ":" and ":" with up to five digits (RFC 3986
// section 3.2.3).
func validPort(s string) bool {
	if s == "" {
		return true
	}
	if s[0] != ':' || len(s) > 6 {
		return false
	}
	for _, c := range s[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
