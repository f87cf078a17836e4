package identity_test

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
)

func TestLogIn(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	for _, name := range []string{"ann", "ANN", " ann ", "ａｎｎ", "ann@example.com", "Ann@Example.COM"} {
		b := w.browser("192.0.2.1")
		s := b.want(b.password(name, annsPassword), identity.SignedIn)
		if s.Account != "ANN-ID" || s.Name != "ann" {
			t.Errorf("%q: %+v", name, s)
		}
		id := b.who()
		if id == nil || id.Subject != "ANN-ID" || !slices.Equal(id.Methods, []string{"password"}) || id.When.IsZero() {
			t.Errorf("%q: the guard sees %+v", name, id)
		}
		if _, ok := b.jar["__Host-merlon-try"]; ok {
			t.Error("what told the browser while the log-in was pending is still there")
		}
	}
	w.desk.Close()
	if h, err := w.store.History(ctx, "ANN-ID", 10); err != nil || len(h) != 6 || h[0].Result != "ok" || h[0].Method != "password" {
		t.Errorf("history %+v, %v", h, err)
	}
	if !w.event(identity.LoginSuccess, "") {
		t.Error("no event")
	}
}

// trap 41, F15: whatever is wrong looks the same, and is told apart in the log.
func TestWrongLooksTheSame(t *testing.T) {
	w := newWorld(t, identity.Config{Login: []identity.Rule{
		{Users: []string{"ann", "gone", "empty"}},
		{Users: []string{"bob", "bea", "new"}, From: []string{"10.8.0.0/16"}},
	}})
	w.add(account.Account{Name: "new", MustChange: true})
	w.add(account.Account{Name: "bea", ID: "BEA-ID"})
	if err := w.store.AddFactor(ctx, account.Factor{ID: "t.1", Account: "BEA-ID", Kind: account.TOTP, Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	w.ann()
	w.add(account.Account{Name: "bob"})
	w.add(account.Account{Name: "gone", Disabled: true})
	w.add(account.Account{Name: "empty", Password: "none"})
	w.add(account.Account{Name: "unlisted"})
	w.add(account.Account{Name: "broken", ID: "BROKEN-ID", Password: "$2y$99$x"})
	for i, row := range []struct {
		what, name, pass string
		why              merlon.Reason
	}{
		{"a wrong password", "ann", "wrong", identity.WrongPassword},
		{"an unknown name", "nobody", annsPassword, identity.NoAccount},
		{"the right one of a disabled account", "gone", annsPassword, identity.AccountDisabled},
		{"the right one from elsewhere", "bob", annsPassword, identity.NotAllowedHere},
		{"and of somebody with a second factor", "bea", annsPassword, identity.NotAllowedHere},
		{"and of somebody who must change it", "new", annsPassword, identity.NotAllowedHere},
		{"the right one of somebody in no rule", "unlisted", annsPassword, identity.NotAllowedHere},
		{"an account without a password", "empty", "", identity.WrongPassword},
		{"a damaged hash", "broken", annsPassword, identity.WrongPassword},
		{"no name", "", annsPassword, identity.NoAccount},
		{"a name that cannot be one", "a b\x00", annsPassword, identity.NoAccount},
		{"a long name", strings.Repeat("n", 100_000), annsPassword, identity.NoAccount},
		{"trap 43: a password of 1 MB", "ann", strings.Repeat("p", 1<<20), identity.WrongPassword},
		{"trap 43: and for nobody", "nobody", strings.Repeat("p", 1<<20), identity.NoAccount},
	} {
		b := w.browser(fmt.Sprintf("198.51.%d.1", i))
		v := b.visit()
		s, err := w.desk.Password(v, row.name, row.pass)
		if err != nil || !reflect.DeepEqual(s, identity.Step{State: identity.Wrong}) || len(v.Header) != 0 {
			t.Errorf("%s: %+v, %v, header %v", row.what, s, err, v.Header)
		}
		if !w.event(identity.LoginFail, row.why) {
			t.Errorf("%s: the log does not say %s", row.what, row.why)
		}
	}
	b := w.browser("10.8.3.4")
	b.want(b.password("bob", annsPassword), identity.SignedIn)
}

// A password that is typed into the field for the name does not reach the log,
// unless it could be a name.
func TestWhatCannotBeANameIsNotLogged(t *testing.T) {
	w := newWorld(t, identity.Config{})
	for range 9 {
		w.browser("198.51.100.1").password("my secret password", "x")
	}
	if !w.event(identity.LoginFail, identity.NoAccount) || !w.event(identity.LoginFailMax, identity.TooManyTries) {
		t.Error("nothing was logged")
	}
	if text := fmt.Sprintf("%+v", w.events); strings.Contains(text, "secret") {
		t.Error(text)
	}
}

// trap 41: having to wait, too, does not tell who exists.
func TestWaitingLooksTheSame(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	states := func(name, client string) (list []identity.State) {
		b := w.browser(client)
		for range 9 {
			list = append(list, b.password(name, "wrong").State)
		}
		return list
	}
	known, unknown := states("ann", "198.51.100.1"), states("nobody", "203.0.113.1")
	if !slices.Equal(known, unknown) || known[8] != identity.Wait {
		t.Errorf("known %v, unknown %v", known, unknown)
	}
}

// trap 41: nor does it tell that a name and an address are one person's.
func TestWaitingTellsNobodyWhoseAddressItIs(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("198.51.100.1")
	for i := range 7 {
		b.password("ann", fmt.Sprint("guess", i))
	}
	b.want(b.password("ann", "guess"), identity.Wait)
	b.want(b.password("Ann ", "guess"), identity.Wait) // another way to write it is no other name
	for _, email := range []string{"ann@example.com", "nobody@example.com"} {
		b.want(b.password(email, "one more guess"), identity.Wrong)
	}
}

// NIST SP 800-63B-4, 3.2.2: both of an account's names together are open to as
// many guesses as it may have, and what its owner does by one ends the row of
// the other.
func TestBothNamesHaveTheTriesOfOne(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	lax := attempts.Schedule{Free: 1000}
	var err error
	w.env.Throttle, err = attempts.New(attempts.Config{Failures: 20, Account: lax, Address: lax, Subnet: lax}, masterKey(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.remake()
	names := []string{"ann", "ann@example.com"}
	guess := func() (looked int) {
		for i := range 15 {
			for _, name := range names {
				b := w.browser(fmt.Sprintf("100.64.%d.1", i))
				if b.password(name, fmt.Sprint("guess", i)).State == identity.Wrong {
					looked++
				}
			}
		}
		return looked
	}
	open := func(why string) {
		t.Helper()
		for i, name := range names {
			b := w.browser(fmt.Sprintf("203.0.113.%d", i+1))
			if s := b.password(name, annsPassword); s.State != identity.SignedIn {
				t.Errorf("after %s: by %s: %s", why, name, s.State)
			}
		}
	}
	owner := w.browser("192.0.2.1").signIn("ann@example.com")
	if n := guess(); n != 20 {
		t.Errorf("%d guesses were looked at, want 20", n)
	}
	owner.want(owner.password("ann", annsPassword), identity.SignedIn)
	open("the owner's log-in")

	guess()
	stranger := w.browser("198.51.100.9")
	stranger.want(stranger.do(func(v identity.Visit) (identity.Step, error) { return w.desk.AskRecover(v, "ann") }), identity.Sent)
	secret := w.must(identity.RecoverLetter).Secret
	s := stranger.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Recover(v, secret) })
	s = stranger.do(func(v identity.Visit) (identity.Step, error) { return w.desk.SetPassword(v, s.Pending, newPassword) })
	stranger.want(s, identity.SignedIn)
	for i, name := range slices.Backward(names) { // the one that the link was not asked for by first
		b := w.browser(fmt.Sprintf("203.0.113.%d", i+10))
		b.want(b.password(name, newPassword), identity.SignedIn)
	}
}

// F17: the owner on a known device gets in while others attack the account.
func TestOwnerGetsIn(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	owner := w.browser("192.0.2.1").signIn("ann")
	delete(owner.jar, "__Host-merlon")
	for i := range 30 {
		b := w.browser(fmt.Sprintf("100.64.%d.1", i))
		b.password("ann", fmt.Sprint("guess", i))
	}
	other := w.browser("192.0.2.77")
	other.want(other.password("ann", annsPassword), identity.Wait)
	owner.client = "203.0.113.200" // she travels
	owner.signIn("ann")
}

// trap 47: the device cookie of another user is worth nothing, and none skips
// the second factor.
func TestDeviceCookieOfAnother(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	w.add(account.Account{Name: "mallory"})
	mallory := w.browser("192.0.2.66").signIn("mallory")
	for i := range 30 {
		b := w.browser(fmt.Sprintf("100.64.%d.1", i))
		b.password("ann", fmt.Sprint("guess", i))
	}
	mallory.want(mallory.password("ann", "guess"), identity.Wait)

	// A planted cookie does not become ann's.
	ann := w.browser("192.0.2.1")
	if err := w.env.Throttle.Forgive(ctx, "ann"); err != nil {
		t.Fatal(err)
	}
	planted := mallory.jar["__Host-merlon-device"]
	ann.jar["__Host-merlon-device"] = planted
	ann.signIn("ann")
	if first, _, _ := strings.Cut(ann.jar["__Host-merlon-device"], "."); first == planted {
		t.Error("a planted secret was taken over")
	}
	for i := range 30 {
		b := w.browser(fmt.Sprintf("100.65.%d.1", i))
		b.password("ann", fmt.Sprint("guess", i))
	}
	mallory.want(mallory.password("ann", "guess"), identity.Wait)
}

// trap 45: the session moves to where its owner may not log in from.
func TestSessionMoves(t *testing.T) {
	w := newWorld(t, identity.Config{Login: []identity.Rule{{Users: []string{"ann"}, From: []string{"10.8.0.0/16"}}}})
	w.ann()
	b := w.browser("10.8.0.1").signIn("ann")
	for client, in := range map[string]bool{
		"10.8.0.1": true, "::ffff:10.8.7.7": true, "10.9.0.1": false, "2001:db8::1": false, "64:ff9b::10.8.0.1": false,
	} {
		b.client = client
		if got := b.who() != nil; got != in {
			t.Errorf("%s: signed in %v", client, got)
		}
		if !in && b.last.Reason != identity.NotAllowedHere {
			t.Errorf("%s: %s", client, b.last.Reason)
		}
	}
	b.client = "10.8.0.1"
	if b.who() == nil {
		t.Error("back where she may be, the session is gone")
	}
}

func TestLogOut(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("192.0.2.1").signIn("ann")
	cookie := b.jar["__Host-merlon"]
	v := b.visit()
	if s, err := w.desk.LogOut(v); err != nil || s.State != identity.Done || v.Header.Get("Clear-Site-Data") == "" {
		t.Errorf("%+v, %v, %v", s, err, v.Header)
	}
	b.jar["__Host-merlon"] = cookie
	if b.who() != nil {
		t.Error("the cookie is still good")
	}
	if _, ok := b.jar["__Host-merlon"]; ok {
		t.Error("a cookie that proves nobody is not cleared")
	}
	var revoked []string
	w.env.Revoke = func(_ context.Context, account, session string) error {
		revoked = append(revoked, account+"/"+session)
		return nil
	}
	w.remake()
	one, two := w.browser("192.0.2.1").signIn("ann"), w.browser("192.0.2.2").signIn("ann")
	twos := two.who().Session
	one.want(one.do(func(v identity.Visit) (identity.Step, error) { return w.desk.EndSession(v, "") }), identity.Done)
	if one.who() == nil || two.who() != nil {
		t.Errorf("%v, %v", one.who(), two.who())
	}
	if !slices.Equal(revoked, []string{"ANN-ID/" + twos}) { // trap 49
		t.Errorf("tokens of %v were revoked", revoked)
	}
	one.want(one.do(func(v identity.Visit) (identity.Step, error) { return w.desk.EndSession(v, "nonsense") }), identity.Stale)
}

func TestNewDeviceIsTold(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("192.0.2.1").signIn("ann")
	delete(b.jar, "__Host-merlon")
	b.signIn("ann")
	if _, ok := w.letter(identity.NewDevice); ok {
		t.Error("her own browser is told as new")
	}
	w.browser("203.0.113.1").signIn("ann")
	if l := w.must(identity.NewDevice); l.Client != netip.MustParseAddr("203.0.113.1") {
		t.Errorf("%+v", l)
	}
}

func TestBadConfig(t *testing.T) {
	c := identity.Config{
		MFA:      identity.MFA{Required: []string{}, Level: account.Single, Grace: time.Second},
		Register: "yes", Fresh: time.Second, RegisterDomains: []string{"@x"},
		Login: []identity.Rule{
			{From: []string{"10.8.1.1/16", "x.example", "::ffff:10.0.0.0/104", "10.0.0.1/33", ""}},
			{Users: []string{}}, {Countries: []string{"de"}}, {When: "always"}, {Groups: []string{""}},
		},
	}
	for _, make := range []func() error{
		func() error { _, err := identity.New(c); return err },
	} {
		err := make()
		if err == nil {
			t.Fatal("accepted")
		}
		for _, want := range []string{"mfa.required", "mfa.level", "mfa.grace", "register \"yes\"", "fresh \"1s\"", "register_domains[0]"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not tell %s", err, want)
			}
		}
	}
	_, err := identity.New(identity.Config{Login: c.Login})
	for _, want := range []string{
		"login[0].from[0] \"10.8.1.1/16\"", "login[0].from[1]", "login[0].from[2]", "login[0].from[3]", "login[0].from[4]",
		"login[1].users", "login[2].countries[0]", "login[3].when", "login[4].groups[0]", "countries: must name a database",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell %s", err, want)
		}
	}
}

// A device ends with what ends sessions, and two accounts that share a browser
// know it by different hashes.
func TestDevices(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	w.add(account.Account{Name: "bob", ID: "BOB-ID"})
	b := w.browser("192.0.2.1").signIn("ann").signIn("bob")
	anns, err := w.store.Devices(ctx, "ANN-ID")
	bobs, err2 := w.store.Devices(ctx, "BOB-ID")
	if err != nil || err2 != nil || len(anns) != 1 || len(bobs) != 1 || slices.Equal(anns[0].Hash, bobs[0].Hash) {
		t.Fatalf("%v, %v, %v, %v", anns, bobs, err, err2)
	}
	b.signIn("ann") // the browser is still known to both
	if anns, err = w.store.Devices(ctx, "ANN-ID"); err != nil || len(anns) != 1 {
		t.Errorf("%v, %v", anns, err)
	}
	if _, err := w.store.Update(ctx, "ANN-ID", func(a *account.Account) error { a.ValidFrom = time.Now(); return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		other := w.browser(fmt.Sprintf("100.64.%d.1", i))
		other.password("ann", fmt.Sprint("guess", i))
	}
	b.want(b.password("ann", annsPassword), identity.Wait)
}
