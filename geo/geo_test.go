package geo_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/merlon-dev/merlon/geo"
	"github.com/merlon-dev/merlon/geo/geotest"
)

func TestDB(t *testing.T) {
	db, _, err := geo.Open(
		geotest.Countries(t, map[string]string{"203.0.113.0/24": "DE"}),
		geotest.Nested(t, map[string]string{"203.0.113.0/24": "AT", "198.51.100.0/24": "FR"}),
		geotest.ASNs(t, map[string]uint16{"203.0.113.0/25": 64500}))
	if err != nil {
		t.Fatal(err)
	}
	for client, want := range map[string]struct {
		country string
		asn     uint
	}{
		"203.0.113.7":         {"DE", 64500}, // the first database counts
		"203.0.113.200":       {"DE", 0},
		"::ffff:198.51.100.1": {"FR", 0},
		"192.0.2.1":           {"", 0},
		"2001:db8::1":         {"", 0},
	} {
		a := netip.MustParseAddr(client)
		if c, n := db.Country(a), db.ASN(a); c != want.country || n != want.asn {
			t.Errorf("%s: %q, %d", client, c, n)
		}
	}
	var none *geo.DB
	if none.Country(netip.MustParseAddr("203.0.113.7")) != "" || db.Country(netip.Addr{}) != "" {
		t.Error("something is known of nothing")
	}
}

func TestOpenTellsWhichFileIsBad(t *testing.T) {
	good, bad := geotest.Countries(t, map[string]string{"203.0.113.0/24": "DE"}), filepath.Join(t.TempDir(), "x")
	if _, n, err := geo.Open(good, bad); err == nil || n != 1 {
		t.Error(n, err)
	}
	if err := os.WriteFile(bad, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, n, err := geo.Open(good, bad); err == nil || n != 1 {
		t.Error(n, err)
	}
}
