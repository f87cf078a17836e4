package token

import (
	"fmt"
	"net/netip"
	"syscall"
)

// notPublic are networks that the public internet does not route, and those
// that carry such an address inside theirs (IANA special-purpose registries).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("224.0.0.0/3"), // multicast, reserved and broadcast
}

// publicV6 is all that is given out of IPv6; within it are a few exceptions.
var (
	publicV6    = netip.MustParsePrefix("2000::/3")
	notPublicV6 = []netip.Prefix{
		netip.MustParsePrefix("2001::/23"), // Teredo, ORCHID and others
		netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("2002::/16"), // 6to4
		netip.MustParsePrefix("3fff::/20"),
	}
)

func public(a netip.Addr) bool {
	a = a.Unmap()
	list := notPublic
	if a.Is6() {
		if !publicV6.Contains(a.WithZone("")) {
			return false
		}
		list = notPublicV6
	}
	for _, p := range list {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// control returns a check of the address that is really connected to, after
// names were resolved, so that no name can be made to lead inside (SSRF).
// Link-local addresses, where clouds keep their credentials, are never allowed.
func control(private bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		a := ap.Addr().Unmap()
		if nat64.Contains(a) {
			b := a.As16()
			a = netip.AddrFrom4([4]byte(b[12:]))
		}
		switch {
		case a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || a == metadataV6:
			return fmt.Errorf("%s is never called", a)
		case !private && !public(a):
			return fmt.Errorf("%s is a private address: set private if the issuer is to have one", a)
		}
		return nil
	}
}

var (
	// metadataV6 is where AWS answers with credentials over IPv6.
	metadataV6 = netip.MustParseAddr("fd00:ec2::254")
	// nat64 addresses lead to the IPv4 address in their last bytes (RFC 6052).
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
)
