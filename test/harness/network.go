package harness

import (
	"context"
	"encoding/hex"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ClientFrom is Client with another address of this machine, such as
// 127.0.0.2: all of 127.0.0.0/8 is loopback on Linux.
func (m *Merlon) ClientFrom(t testing.TB, addr string) *http.Client {
	t.Helper()
	c := m.Client(t)
	From(c, addr, m.HTTPS)
	return c
}

// From makes a client's connections come from addr and go to one place,
// whatever its URLs name.
func From(c *http.Client, addr, to string) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", to)
	}
}

// Held returns how many IPv4 connections from an address the listener at addr
// has accepted and not closed. What waits in the kernel's queue is not counted.
func Held(t testing.TB, addr, from string) int {
	t.Helper()
	local, peer := netip.MustParseAddrPort(addr), netip.MustParseAddr(from)
	n := 0
	// A listener of all addresses has IPv4 connections in the table of IPv6.
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue // a kernel without IPv6
		}
		for line := range strings.Lines(string(text)) {
			// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != established && f[3] != closeWait || f[9] == "0" {
				continue
			}
			if l, r := procAddr(f[1]), procAddr(f[2]); l.Port() == local.Port() && r.Addr() == peer {
				n++
			}
		}
	}
	return n
}

// States of a connection in the kernel's table: include/net/tcp_states.h.
const (
	established = "01"
	closeWait   = "08"
)

// procAddr reads "0100007F:20FB": words of 32 bits as this machine holds them,
// which has the lowest byte first.
func procAddr(text string) netip.AddrPort {
	host, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	a, _ := netip.AddrFromSlice(b)
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p))
}
