// Package geotest makes small databases in MaxMind's format for tests.
package geotest

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// Countries makes a database that knows a country as country_code for each of
// the IPv4 networks, and returns its path.
func Countries(t testing.TB, of map[string]string) string {
	return write(t, of, func(code string) []byte {
		return append([]byte{7<<5 | 1}, append(text("country_code"), text(code)...)...)
	})
}

// Nested is Countries in the form that MaxMind's own databases have.
func Nested(t testing.TB, of map[string]string) string {
	return write(t, of, func(code string) []byte {
		data := append([]byte{7<<5 | 1}, text("country")...)
		data = append(data, 7<<5|1)
		return append(append(data, text("iso_code")...), text(code)...)
	})
}

// ASNs makes a database of networks' numbers.
func ASNs(t testing.TB, of map[string]uint16) string {
	return write(t, of, func(n uint16) []byte {
		data := append([]byte{7<<5 | 1}, text("autonomous_system_number")...)
		return append(data, 5<<5|2, byte(n>>8), byte(n))
	})
}

func write[V any](t testing.TB, of map[string]V, data func(V) []byte) string {
	t.Helper()
	d := &database{}
	for network, v := range of {
		d.add(netip.MustParsePrefix(network), data(v))
	}
	path := filepath.Join(t.TempDir(), "test.mmdb")
	if err := os.WriteFile(path, d.bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A database is an .mmdb file in the making: a tree of bits, 24 bits a record.
type database struct {
	nodes [][2]int // a node's index + 1, or -(offset of data + 1); 0 for nothing
	data  []byte
}

func text(s string) []byte { return append([]byte{2<<5 | byte(len(s))}, s...) }

func (d *database) add(p netip.Prefix, data []byte) {
	at := -(len(d.data) + 1)
	d.data = append(d.data, data...)
	if d.nodes == nil {
		d.nodes = make([][2]int, 1)
	}
	ip, n := p.Addr().As4(), 0
	for i := range p.Bits() {
		bit := ip[i/8] >> (7 - i%8) & 1
		if i == p.Bits()-1 {
			d.nodes[n][bit] = at
			return
		}
		if d.nodes[n][bit] == 0 {
			d.nodes = append(d.nodes, [2]int{})
			d.nodes[n][bit] = len(d.nodes)
		}
		n = d.nodes[n][bit] - 1
	}
}

func (d *database) bytes() []byte {
	var out []byte
	for _, n := range d.nodes {
		for _, r := range n {
			v := len(d.nodes)
			if r > 0 {
				v = r - 1
			} else if r < 0 {
				v = len(d.nodes) + 16 - r - 1
			}
			out = append(out, byte(v>>16), byte(v>>8), byte(v))
		}
	}
	out = append(append(out, make([]byte, 16)...), d.data...)
	out = append(out, "\xab\xcd\xefMaxMind.com"...)
	field := func(name string, value ...byte) { out = append(append(out, text(name)...), value...) }
	u16 := func(v int) []byte { return []byte{5<<5 | 2, byte(v >> 8), byte(v)} }
	out = append(out, 7<<5|9)
	field("binary_format_major_version", u16(2)...)
	field("binary_format_minor_version", u16(0)...)
	field("build_epoch", 8, 2, 1, 2, 3, 4, 5, 6, 7, 8)
	field("database_type", text("Test")...)
	field("description", 7<<5)
	field("ip_version", u16(4)...)
	field("languages", 0, 4)
	field("node_count", 6<<5|4, 0, 0, byte(len(d.nodes)>>8), byte(len(d.nodes)))
	field("record_size", u16(24)...)
	return out
}
