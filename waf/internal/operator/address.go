package operator

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

// addresses is @ipMatch: an address in any of some networks. An IPv4 address
// written as IPv6 is one of IPv4.
type addresses struct {
	v4, v6 []netip.Prefix
}

func newAddresses(list []string) (Operator, error) {
	a := &addresses{}
	for _, text := range list {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		p, err := network(text)
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a network", text)
		}
		if p.Addr().Is4() {
			a.v4 = append(a.v4, p)
		} else {
			a.v6 = append(a.v6, p)
		}
	}
	return a, nil
}

// network reads a network, or an address as a network of one.
func network(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		if strings.Contains(text, ":") {
			text += "/128"
		} else {
			text += "/32"
		}
	}
	_, n, err := net.ParseCIDR(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	bits, size := n.Mask.Size()
	addr, _ := netip.AddrFromSlice(n.IP)
	if addr.Is4In6() {
		addr = addr.Unmap()
		bits -= size - 32
	}
	return netip.PrefixFrom(addr, bits), nil
}

func (a *addresses) Match(value, _ string) bool {
	addr, err := netip.ParseAddr(value)
	if err != nil || addr.Zone() != "" {
		return false
	}
	addr = addr.Unmap()
	list := a.v6
	if addr.Is4() {
		list = a.v4
	}
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func (a *addresses) Required() match.Requirement { return needs(setOf(".:")) }
