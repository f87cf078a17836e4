package identity_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/oidc"
)

func TestRegister(t *testing.T) {
	w := newWorld(t, identity.Config{Register: "open", RegisterDomains: []string{"example.com"}, RegisterRoles: []string{"member"}})
	w.ann()
	ask := func(email string) identity.Step {
		b := w.browser("192.0.2.1")
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.AskRegister(v, email) })
	}
	// trap 41: known and unknown addresses.
	for _, email := range []string{"ann@example.com", "Eve@example.com"} {
		if s := ask(email); !reflect.DeepEqual(s, identity.Step{State: identity.Sent}) {
			t.Errorf("%s: %+v", email, s)
		}
	}
	if l := w.must(identity.KnownLetter); l.To != "ann@example.com" || l.Secret != "" {
		t.Errorf("%+v", l)
	}
	l := w.must(identity.RegisterLetter)
	if email, ok, err := w.desk.LinkHolds(ctx, account.InviteLink, l.Secret); email != "eve@example.com" || !ok || err != nil {
		t.Errorf("%s, %v, %v", email, ok, err)
	}
	if s := ask("eve@elsewhere.example"); s.State != identity.Closed {
		t.Errorf("%+v", s)
	}
	if s := ask("nonsense"); s.State != identity.Wrong {
		t.Errorf("%+v", s)
	}
	b := w.browser("192.0.2.1")
	register := func(pass string) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) {
			return w.desk.Register(v, l.Secret, "Eve\r\nBcc: x\u202e", pass)
		})
	}
	b.want(register("short"), identity.Weak)
	s := b.want(register(newPassword), identity.SignedIn)
	if a := w.account(s.Account); a.Name != "eve@example.com" || !a.EmailVerified || !slices.Equal(a.Roles, []string{"member"}) || a.Display != "Eve Bcc: x" {
		t.Errorf("%+v", a)
	}
	b.want(register(newPassword), identity.Stale)

	off := newWorld(t, identity.Config{})
	ob := off.browser("192.0.2.1")
	ob.want(ob.do(func(v identity.Visit) (identity.Step, error) { return off.desk.AskRegister(v, "x@example.com") }), identity.Closed)
	ob.want(ob.do(func(v identity.Visit) (identity.Step, error) { return off.desk.Register(v, l.Secret, "", newPassword) }), identity.Closed)
}

func TestInvite(t *testing.T) {
	w := newWorld(t, identity.Config{Register: "invite"})
	b := w.browser("192.0.2.1")
	b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.AskRegister(v, "x@example.com") }), identity.Closed)
	secret, err := w.desk.Invite(b.visit(), "eve@example.com", []string{"ops"}, []string{"team"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	s := b.want(b.do(func(v identity.Visit) (identity.Step, error) {
		return w.desk.Register(v, secret.Reveal(), "Eve", newPassword)
	}), identity.SignedIn)
	if a := w.account(s.Account); !slices.Equal(a.Groups, []string{"ops"}) || !slices.Equal(a.Roles, []string{"team"}) {
		t.Errorf("%+v", a)
	}
}

func TestFirstAdministrator(t *testing.T) {
	w := newWorld(t, identity.Config{})
	secret, until, needed, err := w.desk.FirstLink(ctx)
	if err != nil || !needed || time.Until(until) > time.Hour {
		t.Fatalf("%v, %v, %v", until, needed, err)
	}
	again, _, _, err := w.desk.FirstLink(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b := w.browser("192.0.2.1")
	first := func(secret, name string) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.First(v, secret, name, newPassword) })
	}
	b.want(first(secret.Reveal(), "no name"), identity.Wrong)
	s := b.want(first(secret.Reveal(), "root@example.com"), identity.SignedIn)
	if a := w.account(s.Account); !slices.Equal(a.Roles, []string{identity.AdminRole}) || a.EmailVerified {
		t.Errorf("%+v", a)
	}
	b.want(first(secret.Reveal(), "second"), identity.Stale)
	b.want(first(again.Reveal(), "second"), identity.Taken)
	if _, _, needed, err := w.desk.FirstLink(ctx); err != nil || needed {
		t.Errorf("%v, %v", needed, err)
	}
}

// trap 57: linking by an address that is not verified, or by who does not
// decide about it.
func TestProvider(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	proof := oidc.Proof{
		Provider: "corp", Issuer: "https://id.example", Subject: "s1", Name: "ann", Email: "ann@example.com",
		Methods: []string{"oidc:corp"},
	}
	in := func(b *browser, p oidc.Proof) identity.Step {
		return b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Provider(v, "", p) })
	}
	b := w.browser("192.0.2.1")
	b.want(in(b, proof), identity.Unlinked)
	proof.EmailVerified = true
	b.want(in(b, proof), identity.Unlinked)
	proof.Create = true
	s := b.want(in(b, proof), identity.SignedIn)
	if s.Account == "ANN-ID" {
		t.Fatal("ann's account was taken over by a provider that does not decide about her address")
	}
	if a := w.account(s.Account); a.Email != "" || a.Name == "ann" {
		t.Errorf("%+v", a)
	}
	if id := b.who(); !slices.Equal(id.Methods, []string{"oidc:corp"}) {
		t.Errorf("%v", id.Methods)
	}

	b = w.browser("192.0.2.1")
	proof.Subject, proof.Authoritative = "s2", true
	proof.Groups = []string{"staff"}
	w.env.Mapped = map[string]identity.Mapping{"corp": {Groups: []string{"staff", "ops"}}}
	if _, err := w.store.Update(ctx, "ANN-ID", func(a *account.Account) error { a.Groups = []string{"chess", "ops"}; return nil }); err != nil {
		t.Fatal(err)
	}
	w.remake()
	s = b.want(in(b, proof), identity.SignedIn)
	if s.Account != "ANN-ID" || !slices.Equal(w.account("ANN-ID").Groups, []string{"chess", "staff"}) {
		t.Errorf("%+v", s)
	}
	w.must(identity.ProviderLinked)

	// By a signed-in owner.
	owner := w.browser("192.0.2.1").signIn("ann")
	other := oidc.Proof{Provider: "git", Issuer: "https://git.example", Subject: "7", Methods: []string{"oidc:git"}}
	link := func(p oidc.Proof) identity.Step {
		return owner.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Link(v, p) })
	}
	owner.want(link(other), identity.Done)
	w.later(6 * time.Minute)
	owner.want(link(oidc.Proof{Provider: "git", Issuer: "https://git.example", Subject: "8"}), identity.Prove)
	w.later(-6 * time.Minute)
	proof.Subject = "s1"
	owner.want(link(proof), identity.Taken)
	b = w.browser("192.0.2.2")
	if s := b.want(in(b, other), identity.SignedIn); s.Account != "ANN-ID" {
		t.Errorf("%+v", s)
	}
	owner.want(owner.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Unlink(v, other.Issuer, other.Subject) }), identity.Done)
	if b.who() != nil {
		t.Error("the session by the unlinked account lives on")
	}

	// trap 47: the provider is no way around the second factor.
	phone, _ := owner.enrol("")
	b = w.browser("192.0.2.3")
	proof.Subject = "s2"
	s = b.want(in(b, proof), identity.Second)
	b.want(b.totp(s.Pending, phone.code(t)), identity.SignedIn)
	proof.Methods = []string{"oidc:corp", account.ByMFA} // it has asked for two itself
	b = w.browser("192.0.2.4")
	b.want(in(b, proof), identity.SignedIn)
}
