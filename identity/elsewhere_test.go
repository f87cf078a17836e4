package identity_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/secrets"
)

func TestDisplayAndDevices(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("192.0.2.1").signIn("ann")
	display := func(name string) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.SetDisplay(v, name) })
	}
	forget := func(v identity.Visit) (identity.Step, error) { return w.desk.ForgetDevices(v) }
	for typed, want := range map[string]string{
		" Ann\r\n  Gull\u202e ": "Ann Gull", strings.Repeat("ä", 80): strings.Repeat("ä", 40), "": "",
	} {
		b.want(display(typed), identity.Done)
		if got := w.account("ANN-ID").Display; got != want {
			t.Errorf("%q became %q", typed, got)
		}
	}
	b.want(display("Ann"), identity.Done)
	if name := b.who().Name; name != "ann" && name != "Ann" || !w.event(identity.UserUpdated, identity.DisplayChanged) {
		t.Errorf("%q, or no event", name)
	}

	// A browser that was forgotten is new again, and stays signed in.
	if list, _ := w.store.Devices(ctx, "ANN-ID"); len(list) != 1 {
		t.Fatalf("%d devices are known", len(list))
	}
	b.want(b.do(forget), identity.Done)
	if list, _ := w.store.Devices(ctx, "ANN-ID"); len(list) != 0 || b.who() == nil || !w.event(identity.UserUpdated, identity.DevicesForgotten) {
		t.Errorf("%d devices are known, or it was signed out, or there is no event", len(list))
	}
	b.signIn("ann")
	if list, _ := w.store.Devices(ctx, "ANN-ID"); len(list) != 1 {
		t.Errorf("%d devices are known", len(list))
	}

	// Both need a fresh proof, and somebody.
	w.later(time.Hour)
	b.want(display("Eve"), identity.Prove)
	b.want(b.do(forget), identity.Prove)
	b = w.browser("192.0.2.1")
	b.want(display("Eve"), identity.Anonymous)
	b.want(b.do(forget), identity.Anonymous)
	if w.account("ANN-ID").Display != "Ann" {
		t.Error("the name was changed")
	}
}

// A token is as long as real ones are.
var idToken = "e.y." + strings.Repeat("x", 2000)

func vouch(token string) oidc.Proof {
	return oidc.Proof{
		Provider: "corp", Issuer: "https://id.example", Subject: "s1", SID: "sid1", Methods: []string{"oidc:corp"}, IDToken: secrets.New(token),
	}
}

// linked is ann, whom corp vouches for as s1.
func linked(t *testing.T, w *world) {
	t.Helper()
	w.ann()
	if err := w.store.AddExternal(ctx, account.External{Issuer: "https://id.example", Subject: "s1", Account: "ANN-ID", Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

func (b *browser) behind() identity.Elsewhere {
	b.w.t.Helper()
	e, err := b.w.desk.Elsewhere(b.visit())
	if err != nil {
		b.w.t.Fatal(err)
	}
	return e
}

// The provider's ID token stays with the session, sealed, through a second
// factor, a step-up and a new id.
func TestElsewhere(t *testing.T) {
	w := newWorld(t, identity.Config{})
	linked(t, w)
	by := func(token, pend string) func(identity.Visit) (identity.Step, error) {
		return func(v identity.Visit) (identity.Step, error) { return w.desk.Provider(v, pend, vouch(token)) }
	}
	b := w.browser("192.0.2.1").signIn("ann")
	if e := b.behind(); e != (identity.Elsewhere{}) {
		t.Errorf("behind a password: %+v", e)
	}
	if e := w.browser("192.0.2.1").behind(); e != (identity.Elsewhere{}) {
		t.Errorf("behind nobody: %+v", e)
	}
	app, _ := b.enrol("")

	b = w.browser("192.0.2.1")
	s := b.want(b.do(by(idToken, "")), identity.Second)
	if strings.Contains(s.Pending, idToken[:60]) {
		t.Fatal("the token goes through the browser as it is")
	}
	b.want(b.totp(s.Pending, app.code(t)), identity.SignedIn)
	for name, value := range b.jar {
		if len(value) > 400 {
			t.Errorf("the cookie %s has %d bytes", name, len(value))
		}
	}
	e := b.behind()
	if e.Issuer != "https://id.example" || e.Provider != "corp" || e.IDToken.Reveal() != idToken {
		t.Errorf("%+v", e)
	}
	list, err := w.sessions.List(ctx, "ANN-ID")
	if err != nil || !slices.ContainsFunc(list, func(s session.Session) bool { return len(s.Hint) > 0 }) {
		t.Fatal("no session has a hint", err)
	}
	for _, s := range list {
		if strings.Contains(string(s.Hint), idToken[:60]) {
			t.Error("the store has the token as it is")
		}
	}

	// A newer one takes its place, and one that is too long none.
	s = b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.StepUp(v, account.Single) }), identity.Second)
	s = b.want(b.do(by(strings.Repeat("x", 10_000), s.Pending)), identity.Second)
	b.want(b.totp(s.Pending, app.code(t)), identity.SignedIn)
	if e := b.behind(); e.IDToken.Reveal() != "" || e.Issuer == "" {
		t.Errorf("%+v", e)
	}
}

// What a provider says is over ends here with what hangs on it: on the
// sessions it stands behind, and on no other.
func TestEndedElsewhere(t *testing.T) {
	w := newWorld(t, identity.Config{})
	linked(t, w)
	var revoked [][2]string
	w.env.Revoke = func(_ context.Context, account, session string) error {
		revoked = append(revoked, [2]string{account, session})
		return nil
	}
	w.remake()
	own := w.browser("192.0.2.1").signIn("ann")
	b := w.browser("192.0.2.2")
	in := func() {
		b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Provider(v, "", vouch("x")) }), identity.SignedIn)
	}
	for _, c := range []struct {
		issuer, subject, sid string
		ends                 bool
	}{
		{"https://id.example", "s1", "", true},
		{"https://id.example", "", "sid1", true},
		{"https://id.example", "s1", "sid2", false},
		{"https://other.example", "s1", "sid1", false},
	} {
		in()
		id := b.who().Session
		revoked = nil
		if err := w.desk.EndedElsewhere(own.visit(), c.issuer, c.subject, c.sid); err != nil {
			t.Fatal(err)
		}
		if over := b.visit().Identity == nil; over != c.ends || own.who() == nil {
			t.Errorf("%+v: over is %t", c, over)
		}
		if said := slices.Contains(revoked, [2]string{"ANN-ID", id}); said != c.ends || len(revoked) > 1 {
			t.Errorf("%+v: revoked %v, the session was %s", c, revoked, id)
		}
	}
	if !w.event(identity.SessionExpired, "") {
		t.Error("no event tells of it")
	}
	if err := w.desk.EndedElsewhere(own.visit(), "https://id.example", "", ""); err == nil {
		t.Error("everybody's sessions can be ended")
	}
}

func TestLogOutEverywhere(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	var revoked []string
	w.env.Revoke = func(_ context.Context, account, session string) error {
		revoked = append(revoked, account+"/"+session)
		return nil
	}
	w.remake()
	one, two := w.browser("192.0.2.1").signIn("ann"), w.browser("192.0.2.2").signIn("ann")
	all := func(v identity.Visit) (identity.Step, error) { return w.desk.LogOutEverywhere(v) }
	one.want(one.do(all), identity.Done)
	if one.who() != nil || two.visit().Identity != nil || !slices.Equal(revoked, []string{"ANN-ID/"}) {
		t.Errorf("somebody is still signed in, or %v", revoked)
	}
	one.want(one.do(all), identity.Done) // nobody any more
}
