package access_test

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/access"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/merlontest"
)

func guard(c access.Config) func(*testing.T) merlon.Guard {
	return func(t *testing.T) merlon.Guard {
		t.Helper()
		g, err := access.New(c)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
}

func as(id merlon.Identity) func(*merlon.Request) {
	return func(r *merlon.Request) { r.Identity = &id }
}

func person(methods string, ago time.Duration, roles ...string) func(*merlon.Request) {
	return as(merlon.Identity{Subject: subject, Name: "ann", Roles: roles, Groups: []string{"staff"}, Session: "s",
		Methods: strings.Fields(methods), When: time.Now().Add(-ago)})
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

const subject = "ABCDEFGHIJKLMNOPQRSTUVWXY2"

const get = "GET /admin"

func TestNothingRequired(t *testing.T) {
	for _, c := range []access.Config{{}, {Anyone: true}} {
		merlontest.Run(t, guard(c), merlontest.Options{}, []merlontest.Case{
			{Name: "nobody", Request: get, Want: access.Met},
			{Name: "somebody", Request: get, Prepare: person("password", 0), Want: access.Met},
		})
	}
}

func TestWho(t *testing.T) {
	const no = http.StatusForbidden
	for _, c := range []struct {
		name string
		c    access.Config
		rows []merlontest.Case
	}{
		{"login", access.Config{Login: true}, []merlontest.Case{
			{Name: "nobody", Request: get, Want: access.LoginRequired, Status: 401},
			{Name: "somebody", Request: get, Prepare: person("password", time.Hour), Want: access.Met},
		}},
		{"role", access.Config{Role: access.List{"team", "admin"}}, []merlontest.Case{
			{Name: "nobody", Request: get, Want: access.LoginRequired, Status: 401},
			{Name: "without", Request: get, Prepare: person("password", 0, "member"), Want: access.NotForThisUser, Status: no},
			{Name: "another case is another role", Request: get, Prepare: person("password", 0, "Team"), Want: access.NotForThisUser, Status: no},
			{Name: "with one of them", Request: get, Prepare: person("password", 0, "member", "team"), Want: access.Met},
		}},
		{"group", access.Config{Group: access.List{"ops"}}, []merlontest.Case{
			{Name: "without", Request: get, Prepare: person("password", 0), Want: access.NotForThisUser, Status: no},
		}},
		{"user, however written", access.Config{User: access.List{"ＡＮＮ"}}, []merlontest.Case{
			{Name: "ann", Request: get, Prepare: person("password", 0), Want: access.Met},
			{Name: "bob", Request: get, Prepare: as(merlon.Identity{Subject: "ID2", Name: "bob"}), Want: access.NotForThisUser, Status: no},
		}},
		{"user by subject", access.Config{User: access.List{subject}}, []merlontest.Case{
			{Name: "ann", Request: get, Prepare: person("password", 0), Want: access.Met},
			{Name: "who calls himself so", Request: get, Prepare: as(merlon.Identity{Subject: "ID2", Name: strings.ToLower(subject)}), Want: access.NotForThisUser, Status: no},
		}},
		{"scope", access.Config{Scope: access.List{"orders:read"}}, []merlontest.Case{
			{Name: "a person", Request: get, Prepare: person("password", 0), Want: access.Met},
			{Name: "a key without", Request: get, Prepare: as(merlon.Identity{Subject: subject, Scopes: []string{}}), Want: access.ScopeMissing, Status: no},
			{Name: "a key for another", Request: get, Prepare: as(merlon.Identity{Subject: subject, Scopes: []string{"orders:write"}}), Want: access.ScopeMissing, Status: no},
			{Name: "a key for it", Request: get, Prepare: as(merlon.Identity{Subject: subject, Scopes: []string{"orders:read"}}), Want: access.Met},
		}},
		{"from", access.Config{From: prefixes("10.8.0.0/16", "2001:db8::/32")}, []merlontest.Case{
			{Name: "elsewhere", Request: get, Want: access.NotFromHere, Status: no},
			{Name: "elsewhere, signed in", Request: get, Prepare: person("passkey", 0, "admin"), Want: access.NotFromHere, Status: no},
			{Name: "here", Request: get, Client: "10.8.3.4", Want: access.Met},
			{Name: "here by IPv6", Request: get, Client: "2001:db8::1", Want: access.Met},
		}},
		{"from and role", access.Config{From: prefixes("10.8.0.0/16"), Role: access.List{"team"}}, []merlontest.Case{
			{Name: "nobody is asked to sign in from elsewhere", Request: get, Want: access.NotFromHere, Status: no},
			{Name: "nobody", Request: get, Client: "10.8.3.4", Want: access.LoginRequired, Status: 401},
		}},
	} {
		t.Run(c.name, func(t *testing.T) { merlontest.Run(t, guard(c.c), merlontest.Options{}, c.rows) })
	}
}

// Trap 47: what a session has proved counts, not that there is one.
func TestProof(t *testing.T) {
	any := access.Config{MFA: account.Multi}
	strong := access.Config{MFA: account.PhishingResistant, Fresh: 5 * time.Minute}
	merlontest.Run(t, guard(any), merlontest.Options{}, []merlontest.Case{
		{Name: "a password alone", Request: get, Prepare: person("password", 0), Want: access.StrongerProofRequired, Status: 401},
		{Name: "a key", Request: get, Prepare: as(merlon.Identity{Subject: subject, Methods: []string{"key"}}), Want: access.StrongerProofRequired, Status: 401},
		{Name: "a code, too", Request: get, Prepare: person("password totp", 0), Want: access.Met},
		{Name: "a passkey", Request: get, Prepare: person("passkey", 0), Want: access.Met},
	})
	merlontest.Run(t, guard(strong), merlontest.Options{}, []merlontest.Case{
		{Name: "a code can be phished", Request: get, Prepare: person("password totp", 0), Want: access.StrongerProofRequired, Status: 401},
		{Name: "a passkey of this morning", Request: get, Prepare: person("passkey", time.Hour), Want: access.FreshProofRequired, Status: 401},
		{Name: "a passkey of tomorrow", Request: get, Prepare: person("passkey", -time.Hour), Want: access.FreshProofRequired, Status: 401},
		{Name: "at a time that nobody knows", Request: get, Prepare: as(merlon.Identity{Subject: subject, Methods: []string{"passkey"}}), Want: access.FreshProofRequired, Status: 401},
		{Name: "a passkey of just now", Request: get, Prepare: person("passkey", time.Minute), Want: access.Met},
	})
}

// A program is told what is missing (RFC 9470).
func TestProgramsAreTold(t *testing.T) {
	g := guard(access.Config{Fresh: time.Minute})(t)
	r := &merlon.Request{Request: &http.Request{Header: http.Header{}}, Identity: &merlon.Identity{Subject: subject, Methods: []string{"token"}}}
	if got := g.Check(r).Header.Get("WWW-Authenticate"); got != `Bearer error="insufficient_user_authentication", max_age="60"` {
		t.Errorf("got %q", got)
	}
}

func TestUnder(t *testing.T) {
	site := access.Config{Login: true, Role: access.List{"member"}, Fresh: time.Hour, MFA: account.Multi, From: prefixes("10.0.0.0/8")}
	for _, c := range []struct {
		name string
		own  access.Config
		want access.Config
	}{
		{"nothing of its own", access.Config{}, site},
		{"anyone", access.Config{Anyone: true}, access.Config{Anyone: true}},
		{"another role", access.Config{Role: access.List{"team"}},
			access.Config{Login: true, Role: access.List{"team"}, Fresh: time.Hour, MFA: account.Multi, From: site.From}},
		{"what is weaker does not hold", access.Config{Fresh: 2 * time.Hour, MFA: account.Single, From: prefixes("0.0.0.0/0")}, site},
		{"what is stricter does", access.Config{Fresh: time.Minute, MFA: account.PhishingResistant, From: prefixes("10.1.0.0/16", "192.0.2.0/24")},
			access.Config{Login: true, Role: access.List{"member"}, Fresh: time.Minute, MFA: account.PhishingResistant, From: prefixes("10.1.0.0/16")}},
		{"nothing in common is nobody", access.Config{From: prefixes("192.0.2.0/24")},
			access.Config{Login: true, Role: access.List{"member"}, Fresh: time.Hour, MFA: account.Multi, From: prefixes("100::/128")}},
	} {
		got := c.own.Under(site)
		if got.Login != c.want.Login || got.Anyone != c.want.Anyone || !slices.Equal(got.Role, c.want.Role) || got.Fresh != c.want.Fresh ||
			got.MFA != c.want.MFA || !slices.Equal(got.From, c.want.From) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if got := (access.Config{Role: access.List{"team"}}).Under(access.Config{Anyone: true}); got.Anyone || len(got.Role) != 1 {
		t.Errorf("a route with a role in an open site: %+v", got)
	}
}

func TestBadSettings(t *testing.T) {
	for want, c := range map[string]access.Config{
		"anyone":       {Anyone: true, Role: access.List{"team"}},
		"fresh \"1s\"": {Fresh: time.Second},
		"role: ":       {Role: access.List{""}},
		"user \"a b\"": {User: access.List{"a b"}},
		"from ":        {From: prefixes("::ffff:10.0.0.0/104")},
	} {
		if _, err := access.New(c); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
