package identity_test

import (
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/merlontest"
)

func TestTenant(t *testing.T) {
	for name, c := range map[string]struct {
		prefix string
		id     merlon.Identity
		want   string
	}{
		"from a group":               {"customer/", merlon.Identity{Groups: []string{"staff", "customer/acme"}}, "acme"},
		"of several the first":       {"customer/", merlon.Identity{Groups: []string{"customer/zeta", "customer/acme"}}, "acme"},
		"a group that only begins":   {"customer/", merlon.Identity{Groups: []string{"customer", "customer/"}}, ""},
		"a token's claim before all": {"customer/", merlon.Identity{Groups: []string{"customer/acme"}, Tenant: "claimed"}, "claimed"},
		"nothing configured":         {"", merlon.Identity{Groups: []string{"customer/acme"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.id.Subject, c.id.Name = "ANN-ID", "ann"
			proved := c.id
			g, err := identity.New(identity.Config{Tenant: c.prefix}, holds{&proved})
			if err != nil {
				t.Fatal(err)
			}
			r := merlontest.Request(t, "GET /")
			if d := g.Check(r); !d.Passed() || r.Identity == nil || r.Identity.Tenant != c.want {
				t.Errorf("%+v, %+v", d, r.Identity)
			}
			if proved.Tenant != c.id.Tenant {
				t.Error("what the prover shares was changed")
			}
		})
	}
}

// holds is a prover that shares what it has proved between requests.
type holds struct{ id *merlon.Identity }

func (holds) Name() string                                      { return "holds" }
func (h holds) Prove(*merlon.Request) (*merlon.Identity, error) { return h.id, nil }

func TestTries(t *testing.T) {
	named := func(names ...string) *identity.Guard {
		var list []merlon.Prover
		for _, n := range names {
			list = append(list, says{n, nil, merlon.ErrNoProof})
		}
		g, err := identity.New(identity.Config{}, list...)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	g, more := named("key", "session"), named("key", "token", "basic", "session")
	for wire, want := range map[string]bool{
		"GET /\nAuthorization: Bearer of.the.backend": false,
		"GET /\nAuthorization: Basic YTpi":            false,
		"GET /\nAuthorization: x":                     false,
		"GET /\nX-Api-Key: of the backend":            false,
		"GET /":                                       false,
		"GET /\nCookie: a=b":                          false,
		"GET /\nCookie: __Host-merlon=short":          false,
		"GET /\nAuthorization: Bearer mk_1":           true,
		"GET /\nX-Api-Key: mk_1":                      true,
		"GET /\nCookie: __Host-merlon-device=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": false,
		"GET /\nCookie: x=1; __Host-merlon=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA":   true,
	} {
		if got := g.Tries(merlontest.Request(t, wire)); got != want {
			t.Errorf("%s: %v", wire, got)
		}
	}
	const cookie = "\nCookie: __Host-merlon=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for wire, session := range map[string]bool{
		"GET /\nAuthorization: bearer a.b.c":         false,
		"GET /\nAuthorization: basic YTpi":           false,
		"GET /" + cookie:                             true,
		"GET /\nAuthorization: Bearer mk_1" + cookie: false,
	} {
		if r := merlontest.Request(t, wire); !more.Tries(r) || more.TriesSession(r) != session {
			t.Errorf("%s: %v, only a session: %v", wire, more.Tries(r), more.TriesSession(r))
		}
	}
}
