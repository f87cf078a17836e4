package identity_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
)

func TestWindow(t *testing.T) {
	at := func(s string) time.Time {
		tm, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return tm
	}
	for _, row := range []struct {
		window, at string
		in         bool
	}{
		{"Mon-Fri 07:00-20:00 Europe/Berlin", "2026-11-27T06:00:00Z", true}, // a Friday, 07:00 there
		{"Mon-Fri 07:00-20:00 Europe/Berlin", "2026-11-27T05:59:59Z", false},
		{"Mon-Fri 07:00-20:00 Europe/Berlin", "2026-11-27T19:00:00Z", false}, // 20:00 there
		{"Mon-Fri 07:00-20:00 Europe/Berlin", "2026-11-28T10:00:00Z", false},
		{"Mon-Fri 07:00-20:00 Europe/Berlin", "2026-07-03T05:00:00Z", true}, // summer time
		{"Fri-Mon 00:00-24:00 UTC", "2026-11-29T23:59:59Z", true},
		{"Fri-Mon 00:00-24:00 UTC", "2026-12-01T00:00:00Z", false},
		{"Fri 22:00-06:00 UTC", "2026-11-28T05:59:00Z", true}, // Saturday morning belongs to Friday
		{"Fri 22:00-06:00 UTC", "2026-11-27T05:59:00Z", false},
		{"Sat,Sun 10:00-12:00 America/New_York", "2026-11-28T15:00:00Z", true},
		{"daily 10:00-12:00 UTC", "2026-11-28T11:00:00Z", true},
		{"10:00-12:00 UTC", "2026-11-28T12:00:00Z", false},
	} {
		if in, err := identity.ParseWindow(row.window, at(row.at)); err != nil || in != row.in {
			t.Errorf("%s at %s: %v, %v", row.window, row.at, in, err)
		}
	}
	for _, bad := range []string{"", "always", "Mon 10:00-12:00", "Mon 10:00-10:00 UTC", "Mon 24:00-10:00 UTC", "Mon 10:60-12:00 UTC", "Mon 25:00-26:00 UTC",
		"mon 10:00-12:00 UTC", "Mon- 10:00-12:00 UTC", "Mon,, 10:00-12:00 UTC", "Mon 10-12 UTC", "Mon 10:00-12:00 Mars/Base", "Mon 10:00-12:00 Local", "Mon 10:00-12:00 ../../etc/passwd", "Mon 10:00-12:00 UTC x"} {
		if _, err := identity.ParseWindow(bad, time.Now()); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestRules(t *testing.T) {
	rules, err := identity.NewRules(identity.Config{Login: []identity.Rule{
		{Groups: []string{"ops"}, From: []string{"10.8.0.0/16", "2001:db8:1::/48"}},
		{Users: []string{"Ann@Example.com"}, When: "daily 08:00-18:00 UTC"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name   string
		groups []string
		client string
		at     time.Time
		in     bool
	}{
		{"bob", []string{"staff", "ops"}, "10.8.1.1", noon, true},
		{"bob", []string{"ops"}, "::ffff:10.8.1.1", noon, true}, // trap 45
		{"bob", []string{"ops"}, "2001:db8:1:ffff::5", noon, true},
		{"bob", []string{"ops"}, "2001:db8:2::5", noon, false},
		{"bob", []string{"ops"}, "64:ff9b::10.8.1.1", noon, false}, // trap 45: NAT64 is not the network itself
		{"bob", []string{"staff"}, "10.8.1.1", noon, false},
		{"ann@example.com", nil, "198.51.100.1", noon, true},
		{"ann@example.com", nil, "198.51.100.1", noon.Add(6 * time.Hour), false},
	} {
		if in := identity.Allow(rules, row.name, row.groups, netip.MustParseAddr(row.client), row.at); in != row.in {
			t.Errorf("%+v: %v", row, in)
		}
	}
	if identity.Allow(rules, "bob", []string{"ops"}, netip.Addr{}, noon) {
		t.Error("without an address")
	}
	if w := rules.Weak(); len(w) != 1 {
		t.Errorf("%v", w)
	}
	if !rules.LocksOut([]account.Account{{Name: "eve"}, {Name: "bob", Groups: []string{"staff"}}}) || rules.LocksOut([]account.Account{{Name: "eve"}, {Name: "ann@example.com"}}) {
		t.Error("who is locked out")
	}
}

// A link to recover opens nothing where its owner may not log in, and is not
// used up there.
func TestRecoverWhereLogInIsNotAllowed(t *testing.T) {
	w := newWorld(t, identity.Config{Login: []identity.Rule{{Users: []string{"ann"}, From: []string{"10.8.0.0/16"}}}})
	w.ann()
	begin := func(b *browser, secret string) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Recover(v, secret) })
	}
	set := func(b *browser, s identity.Step) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.SetPassword(v, s.Pending, newPassword) })
	}
	away, here := w.browser("203.0.113.9"), w.browser("10.8.0.1")
	away.want(away.do(func(v identity.Visit) (identity.Step, error) { return w.desk.AskRecover(v, "ann") }), identity.Sent)
	secret := w.must(identity.RecoverLetter).Secret
	before := w.account("ANN-ID").Password
	away.want(begin(away, secret), identity.Wrong)

	s := here.want(begin(here, secret), identity.NewPassword)
	here.client = "203.0.113.9" // it moves
	here.want(set(here, s), identity.Wrong)
	if w.account("ANN-ID").Password != before || !w.event(identity.LoginFail, identity.NotAllowedHere) {
		t.Error("the password was changed, or nobody was told")
	}
	here.client = "10.8.0.1"
	here.want(set(here, s), identity.SignedIn)
}

// Nor does an invitation, which would make an account that cannot log in.
func TestRegisterWhereLogInIsNotAllowed(t *testing.T) {
	w := newWorld(t, identity.Config{
		Register: "open", RegisterDomains: []string{"example.com"}, Login: []identity.Rule{{From: []string{"10.8.0.0/16"}}},
	})
	away, here := w.browser("203.0.113.9"), w.browser("10.8.0.1")
	away.want(away.do(func(v identity.Visit) (identity.Step, error) { return w.desk.AskRegister(v, "new@example.com") }), identity.Sent)
	secret := w.must(identity.RegisterLetter).Secret
	join := func(v identity.Visit) (identity.Step, error) { return w.desk.Register(v, secret, "New", newPassword) }
	away.want(away.do(join), identity.Wrong)
	if _, err := w.store.ByName(ctx, "new@example.com"); err == nil {
		t.Error("the account was made")
	}
	here.want(here.do(join), identity.SignedIn)
}
