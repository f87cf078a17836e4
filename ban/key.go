package ban

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
)

// The kinds of keys: the words that they begin with.
const (
	ofClient  = "client "
	ofNetwork = "network "
	ofUser    = "user "
	ofKey     = "key "
	ofDevice  = "device "
)

const maxKey = 300 // bytes

// KeyOf returns the key by which an address is banned: "client 203.0.113.7", or
// the /64 network of an IPv6 address, which every home has.
func KeyOf(a netip.Addr) string {
	a = plain(a)
	if a.Is6() {
		p, err := a.Prefix(64)
		if err == nil {
			return ofNetwork + p.String()
		}
	}
	return ofClient + a.String()
}

// KeyOfNetwork returns the key by which a network is banned. That of a single
// IPv4 address is the client's.
func KeyOfNetwork(p netip.Prefix) string {
	if p = p.Masked(); p.IsSingleIP() && p.Addr().Is4() {
		return ofClient + p.Addr().String()
	}
	return ofNetwork + p.String()
}

// KeyOfUser returns the key by which a user is banned, by the subject of
// [merlon.Identity].
func KeyOfUser(subject string) string { return named(ofUser, subject) }

// KeyOfAPIKey returns the key by which an API key is banned, by its prefix.
func KeyOfAPIKey(prefix string) string { return named(ofKey, prefix) }

// named puts a digest in the place of a name that cannot be shown or stored.
func named(kind, name string) string {
	if k := kind + name; checkName(k, name) == nil {
		return k
	}
	sum := sha256.Sum256([]byte(name))
	return kind + "sha256:" + hex.EncodeToString(sum[:16])
}

func checkName(key, name string) error {
	if name == "" || len(key) > maxKey || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return errors.New("must name somebody in at most 290 bytes of printable text")
	}
	return nil
}

// ParseKey returns the one spelling of a key: "client 203.0.113.7", "network
// 203.0.113.0/24", "user SUBJECT", "key PREFIX" or "device ID". A client and a network may
// stand there without the word before.
func ParseKey(text string) (string, error) {
	for _, kind := range []string{ofUser, ofKey, ofDevice} {
		if name, ok := strings.CutPrefix(text, kind); ok {
			return text, checkName(text, name)
		}
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(text, ofNetwork), ofClient)
	p, rule := parseRange(rest)
	if rule == "" {
		rule = tooWide(p)
	}
	if rule != "" {
		return "", errors.New(rule)
	}
	if p.IsSingleIP() && !strings.Contains(rest, "/") {
		return KeyOf(p.Addr()), nil
	}
	return KeyOfNetwork(p), nil
}

// prefixOf returns the addresses that a key is of, if it is of any.
func prefixOf(key string) (netip.Prefix, bool) {
	if text, ok := strings.CutPrefix(key, ofClient); ok {
		a, err := netip.ParseAddr(text)
		return netip.PrefixFrom(a, a.BitLen()), err == nil && a.Zone() == ""
	}
	if text, ok := strings.CutPrefix(key, ofNetwork); ok {
		p, err := netip.ParsePrefix(text)
		return p.Masked(), err == nil
	}
	return netip.Prefix{}, false
}

// keyOfIdentity returns the key of who is asking: the API key, if it was one
// that proved them, or the user.
func keyOfIdentity(id *merlon.Identity) string {
	if byKey(id) {
		return KeyOfAPIKey(id.Session)
	}
	return KeyOfUser(id.Subject)
}

func byKey(id *merlon.Identity) bool {
	return id.Session != "" && slices.Contains(id.Methods, account.ByKey)
}

// plain returns an address as it is looked up: an IPv4 address that a
// translator has put into 64:ff9b::/96 (RFC 6052) is itself again, or the
// whole of IPv4 would be one client.
func plain(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Zone() != "" {
		a = a.WithZone("")
	}
	if a.Is6() {
		if b := a.As16(); [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b} {
			return netip.AddrFrom4([4]byte(b[12:]))
		}
	}
	return a
}

// parseRange reads an address or a network, or says what is wrong with it.
func parseRange(text string) (p netip.Prefix, rule string) {
	const form = "must be an address such as 192.0.2.7 or a network such as 10.8.0.0/16"
	if a, err := netip.ParseAddr(text); err == nil {
		if a.Zone() != "" {
			return p, "must have no zone"
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), ""
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, form
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, "must be written as an IPv4 or an IPv6 network"
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, ""
}

// tooWide says that a network is more than anybody means to ban: 0.0.0.0/0 is
// a slip.
func tooWide(p netip.Prefix) string {
	if p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16 {
		return "must be a /8 network of IPv4 or a /16 of IPv6, or a smaller one"
	}
	return ""
}
