package identity_test

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/geo/geotest"
	"github.com/merlon-dev/merlon/identity"
)

func TestCountries(t *testing.T) {
	path := geotest.Countries(t, map[string]string{"203.0.113.0/24": "DE", "198.51.100.0/24": "FR"})
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
