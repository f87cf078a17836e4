package identity_test

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/identity/password"
)

// A device holds one passkey or security key.
type device struct {
	rp   virtualwebauthn.RelyingParty
	auth virtualwebauthn.Authenticator
	cred virtualwebauthn.Credential
}

func newDevice(host string) *device {
	d := &device{
		rp:   virtualwebauthn.RelyingParty{ID: host, Name: "Merlon", Origin: "https://" + host},
		auth: virtualwebauthn.NewAuthenticator(),
	}
	for { // the library writes coordinates without their leading zeros
		if d.cred = virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2); len(d.cred.Key.AttestationData()) == 77 {
			return d
		}
	}
}

func (d *device) create(t testing.TB, c mfa.Ceremony) []byte {
	t.Helper()
	o, err := virtualwebauthn.ParseAttestationOptions(string(c.Options))
	if err != nil {
		t.Fatal(err)
	}
	d.auth.Options.UserHandle = []byte(o.UserID)
	return []byte(virtualwebauthn.CreateAttestationResponse(d.rp, d.auth, d.cred, *o))
}

func (d *device) get(t testing.TB, c mfa.Ceremony) []byte {
	t.Helper()
	o, err := virtualwebauthn.ParseAssertionOptions(string(c.Options))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(virtualwebauthn.CreateAssertionResponse(d.rp, d.auth, d.cred, *o))
}

// enrolKey adds a passkey or security key.
func (b *browser) enrolKey(pending, kind string) (*device, identity.Step) {
	b.w.t.Helper()
	d := newDevice(b.site)
	d.auth.Options.UserNotVerified = kind == identity.OptSecurityKey
	var c mfa.Ceremony
	b.want(b.do(func(v identity.Visit) (s identity.Step, err error) {
		c, s, err = b.w.desk.EnrolPasskey(v, pending, kind)
		return s, err
	}), identity.Enrol)
	return d, b.do(func(v identity.Visit) (identity.Step, error) {
		return b.w.desk.ConfirmPasskey(v, pending, kind, c.Ticket, d.create(b.w.t, c), "my key")
	})
}

// key answers with a passkey or security key.
func (b *browser) key(pending string, d *device) identity.Step {
	b.w.t.Helper()
	var c mfa.Ceremony
	b.want(b.do(func(v identity.Visit) (s identity.Step, err error) {
		c, s, err = b.w.desk.AskPasskey(v, pending)
		return s, err
	}), identity.Second)
	return b.do(func(v identity.Visit) (identity.Step, error) {
		return b.w.desk.Passkey(v, pending, c.Ticket, d.get(b.w.t, c))
	})
}

func TestPasskey(t *testing.T) {
	w := newWorld(t, identity.Config{MFA: identity.MFA{Required: []string{"team"}, Level: account.PhishingResistant}})
	w.add(account.Account{Name: "tom", ID: "TOM-ID", Roles: []string{"team"}})
	b := w.browser("192.0.2.1")
	s := b.want(b.password("tom", annsPassword), identity.Enrol)
	passkey, s := b.enrolKey(s.Pending, identity.OptPasskey)
	b.want(s, identity.SignedIn)
	if len(s.Codes) != 10 {
		t.Errorf("%d recovery codes", len(s.Codes))
	}

	t.Run("alone", func(t *testing.T) {
		b := w.browser("192.0.2.2")
		b.want(b.key("", passkey), identity.SignedIn)
		if id := b.who(); !slices.Equal(id.Methods, []string{"passkey"}) || id.Subject != "TOM-ID" {
			t.Errorf("%+v", id)
		}
	})
	t.Run("after the password", func(t *testing.T) {
		b := w.browser("192.0.2.3")
		s := b.want(b.password("tom", annsPassword), identity.Second)
		if s.Options[0] != identity.OptPasskey || slices.Contains(s.Options, identity.OptTOTP) {
			t.Errorf("%v", s.Options)
		}
		b.want(b.key(s.Pending, passkey), identity.SignedIn)
	})
	t.Run("trap 47: a weaker factor is no way in", func(t *testing.T) {
		b := w.browser("192.0.2.1")
		b.want(b.key("", passkey), identity.SignedIn)
		phone, done := b.enrol("")
		b.want(done, identity.Done)
		b = w.browser("192.0.2.4")
		s := b.want(b.password("tom", annsPassword), identity.Second)
		if slices.Contains(s.Options, identity.OptTOTP) {
			t.Errorf("offered: %v", s.Options)
		}
		b.want(b.totp(s.Pending, phone.code(t)), identity.Second) // one more is asked for
		if b.who() != nil {
			t.Error("signed in by a code")
		}
	})
	t.Run("step-up", func(t *testing.T) {
		b := w.browser("192.0.2.5")
		b.want(b.key("", passkey), identity.SignedIn)
		was := b.who().When
		s := b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.StepUp(v, account.None) }), identity.Second)
		b.want(b.key(s.Pending, passkey), identity.SignedIn)
		if !b.who().When.After(was) {
			t.Error("it is no fresher")
		}
	})
	t.Run("step-up by the provider's log-in is too little", func(t *testing.T) {
		if err := w.store.AddExternal(ctx, account.External{Issuer: "https://id.example", Subject: "t", Account: "TOM-ID", Created: time.Now()}); err != nil {
			t.Fatal(err)
		}
		b := w.browser("192.0.2.6")
		b.want(b.key("", passkey), identity.SignedIn)
		s := b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.StepUp(v, account.None) }), identity.Second)
		proof := oidc.Proof{Provider: "corp", Issuer: "https://id.example", Subject: "t", Methods: []string{"oidc:corp"}}
		b.want(b.do(func(v identity.Visit) (identity.Step, error) { return w.desk.Provider(v, s.Pending, proof) }), identity.Second)
	})
	t.Run("somebody else's", func(t *testing.T) {
		w.add(account.Account{Name: "eve", ID: "EVE-ID"})
		e := w.browser("192.0.2.7").signIn("eve")
		eves, s := e.enrolKey("", identity.OptPasskey)
		e.want(s, identity.Done)
		b := w.browser("192.0.2.8")
		s = b.want(b.password("tom", annsPassword), identity.Second)
		var c mfa.Ceremony
		b.want(b.do(func(v identity.Visit) (st identity.Step, err error) {
			c, st, err = w.desk.AskPasskey(v, s.Pending)
			return st, err
		}), identity.Second)
		b.want(b.do(func(v identity.Visit) (identity.Step, error) {
			return w.desk.Passkey(v, s.Pending, c.Ticket, eves.get(t, c))
		}), identity.Wrong)
	})
	t.Run("of a disabled account", func(t *testing.T) {
		if _, err := w.store.Update(ctx, "TOM-ID", func(a *account.Account) error { a.Disabled = true; return nil }); err != nil {
			t.Fatal(err)
		}
		b := w.browser("192.0.2.9")
		b.want(b.key("", passkey), identity.Wrong)
		if !w.event(identity.LoginFail, identity.AccountDisabled) {
			t.Error("the log does not say why")
		}
	})
}

func TestSecurityKey(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("192.0.2.1").signIn("ann")
	key, s := b.enrolKey("", identity.OptSecurityKey)
	b.want(s, identity.Done)
	b = w.browser("192.0.2.2")
	s = b.want(b.password("ann", annsPassword), identity.Second)
	if s.Options[0] != identity.OptSecurityKey {
		t.Errorf("%v", s.Options)
	}
	b.want(b.key(s.Pending, key), identity.SignedIn)
	if got := account.StrengthOf(b.who().Methods); got != account.PhishingResistant {
		t.Errorf("%v", b.who().Methods)
	}
	// On a site where the key is not known, the password is not enough either.
	b = w.browser("192.0.2.3")
	b.site = "wiki.example.com"
	s = b.want(b.password("ann", annsPassword), identity.Second)
	if slices.Contains(s.Options, identity.OptSecurityKey) || b.who() != nil {
		t.Errorf("%v, %v", s.Options, b.who())
	}
}

// A password that others have lost is changed: by who has more than it, or by
// a link to the owner.
func TestBreachedPassword(t *testing.T) {
	w := newWorld(t, identity.Config{})
	sum := sha1.Sum([]byte(annsPassword))
	hexed := strings.ToUpper(hex.EncodeToString(sum[:]))
	api := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, hexed[:5]) {
			fmt.Fprintf(rw, "%s:42\r\n", hexed[5:])
		}
	}))
	t.Cleanup(api.Close)
	w.ann()
	owner := w.browser("192.0.2.1").signIn("ann") // before it was lost
	delete(owner.jar, "__Host-merlon")
	policy, err := password.NewPolicy(password.Config{RangeAPI: api.URL + "/range/"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = policy.Close() })
	w.env.Policy = policy
	w.remake()
	thief := w.browser("203.0.113.1")
	s := thief.want(thief.password("ann", annsPassword), identity.Sent)
	if s.Pending != "" || thief.who() != nil {
		t.Errorf("%+v", s)
	}
	secret := w.must(identity.RecoverLetter).Secret
	s = owner.want(owner.password("ann", annsPassword), identity.NewPassword)
	if s.Why != "breached" {
		t.Errorf("%+v", s)
	}
	owner.want(owner.do(func(v identity.Visit) (identity.Step, error) { return w.desk.SetPassword(v, s.Pending, newPassword) }), identity.SignedIn)
	if _, ok, err := w.desk.LinkHolds(ctx, account.RecoverLink, secret); ok || err != nil {
		t.Errorf("the link outlives the new password: %v", err)
	}
	if !w.event(identity.UserUpdated, identity.PasswordBreached) {
		t.Error("the log does not say it")
	}
}

func TestAttackedIsTold(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	w.desk.Attacked(attempts.Notice{Kind: attempts.AccountAttacked, Account: "ann", Count: 11, Time: time.Now()})
	w.desk.Attacked(attempts.Notice{Kind: attempts.AccountAttacked, Account: "nobody", Count: 11, Time: time.Now()})
	w.desk.Attacked(attempts.Notice{Kind: attempts.RateHigh, Count: 1000, Time: time.Now()})
	if l := w.must(identity.UnderAttack); l.To != "ann@example.com" {
		t.Errorf("%+v", l)
	}
	if len(w.letters) != 1 || !w.event(identity.LoginFailMax, "account-attacked") {
		t.Errorf("%d letters", len(w.letters))
	}
}

// trap 45: between two steps, too, the address may move.
func TestMovesBetweenTheSteps(t *testing.T) {
	w := newWorld(t, identity.Config{Login: []identity.Rule{{Users: []string{"ann"}, From: []string{"10.8.0.0/16"}}}})
	w.ann()
	b := w.browser("10.8.0.1").signIn("ann")
	phone, _ := b.enrol("")
	key, _ := b.enrolKey("", identity.OptSecurityKey)
	for name, second := range map[string]func(b *browser, pending string) identity.Step{
		"code": func(b *browser, pending string) identity.Step { return b.totp(pending, phone.code(t)) },
		"key":  func(b *browser, pending string) identity.Step { return b.key(pending, key) },
	} {
		b := w.browser("10.8.0.2")
		s := b.want(b.password("ann", annsPassword), identity.Second)
		b.client = "198.51.100.1"
		b.want(second(b, s.Pending), identity.Wrong)
		if b.client = "10.8.0.2"; b.who() != nil {
			t.Errorf("%s: a session has begun", name)
		}
	}
	if !w.event(identity.LoginFail, identity.NotAllowedHere) {
		t.Error("the log does not say why")
	}
}
