package identity_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity"
)

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

func TestCountries(t *testing.T) {
	d := &database{}
	flat := append([]byte{7<<5 | 1}, append(text("country_code"), text("DE")...)...)
	nested := append([]byte{7<<5 | 1}, text("country")...)
	nested = append(nested, 7<<5|1)
	nested = append(append(nested, text("iso_code")...), text("FR")...)
	d.add(netip.MustParsePrefix("203.0.113.0/24"), flat)
	d.add(netip.MustParsePrefix("198.51.100.0/24"), nested)
	path := filepath.Join(t.TempDir(), "country.mmdb")
	if err := os.WriteFile(path, d.bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := identity.NewRules(identity.Config{Countries: path, Login: []identity.Rule{
		{Users: []string{"ann"}, Countries: []string{"DE"}}, {Users: []string{"bob"}, Countries: []string{"DE", "FR"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, client string
		in           bool
	}{
		{"ann", "203.0.113.7", true}, {"ann", "::ffff:203.0.113.7", true}, {"ann", "198.51.100.7", false},
		{"bob", "198.51.100.7", true}, {"ann", "192.0.2.1", false}, {"ann", "2001:db8::1", false}, {"ann", "10.0.0.1", false},
	} {
		if in := identity.Allow(rules, row.name, nil, netip.MustParseAddr(row.client), time.Now()); in != row.in {
			t.Errorf("%s from %s: %v", row.name, row.client, in)
		}
	}
	if err := os.WriteFile(path, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.NewRules(identity.Config{Countries: path}); err == nil {
		t.Error("a file that is no database was accepted")
	}
}
