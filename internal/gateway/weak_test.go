package gateway_test

import (
	"strings"
	"testing"
)

func TestLimitsByNobodyAreWeak(t *testing.T) {
	const by = "limit: {by: [user, route], rate: 5/min, limits: [{by: tenant, rate: 9/min}]}\n"
	for text, want := range map[string]int{by: 2, by + "identity: {}\n": 0, "limit: {by: network}\n": 0} {
		g := open(t, read(t, text+shop, "http://127.0.0.1:1"))
		if all := strings.Join(g.Weak(), "\n"); strings.Count(all, "counts by client, since nobody can sign in") != want {
			t.Errorf("%s: %s", text, all)
		}
	}
}

func TestLimitsOfNobodysRolesAreWeak(t *testing.T) {
	const of = "limit: {limits: [{by: client, rate: 5/min, roles: [gold]}]}\n"
	for text, want := range map[string]int{of: 1, of + "identity: {}\n": 0} {
		g := open(t, read(t, text+shop, "http://127.0.0.1:1"))
		if all := strings.Join(g.Weak(), "\n"); strings.Count(all, "of role gold holds for nobody") != want {
			t.Errorf("%s: %s", text, all)
		}
	}
}
