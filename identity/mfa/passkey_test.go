package mfa_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
)

// logIn asks and answers, as the only proof.
func (w *world) logIn(t testing.TB, d *device, origin, name, accountID string) (mfa.Proof, error) {
	t.Helper()
	c, err := w.BeginLogIn(t.Context(), origin, name, accountID)
	if err != nil {
		t.Fatal(err)
	}
	return w.FinishLogIn(t.Context(), origin, c.Ticket, d.get(t, c))
}

func (w *world) second(t testing.TB, d *device, origin, accountID string) (mfa.Proof, error) {
	t.Helper()
	c, err := w.BeginSecond(t.Context(), origin, accountID)
	if err != nil {
		t.Fatal(err)
	}
	return w.FinishSecond(t.Context(), origin, accountID, c.Ticket, d.get(t, c))
}

func proves(t *testing.T, p mfa.Proof, err error, a account.Account, method string) {
	t.Helper()
	if err != nil || p.Account != a.ID || p.Factor.Account != a.ID || p.Method != method {
		t.Errorf("%+v, %v; want %s by %s", p, err, a.Name, method)
	}
}

func refused(t *testing.T, p mfa.Proof, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || p.Method != "" || p.Account != "" {
		t.Errorf("%+v, %v; want %v", p, err, want)
	}
}

func TestPasskey(t *testing.T) {
	for _, kind := range []virtualwebauthn.KeyType{virtualwebauthn.KeyTypeEC2, virtualwebauthn.KeyTypeRSA} {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t, mfa.Config{})
			d := newDevice(shop)
			if kind != virtualwebauthn.KeyTypeEC2 {
				d.cred = virtualwebauthn.NewCredential(kind)
			}
			w.register(t, d, w.ann, account.Passkey)
			p, err := w.logIn(t, d, shop, "ann", w.ann.ID)
			proves(t, p, err, w.ann, account.Passkey)
			p, err = w.logIn(t, d, shop, "", "")
			proves(t, p, err, w.ann, account.Passkey)
			p, err = w.second(t, d, shop, w.ann.ID)
			proves(t, p, err, w.ann, account.Passkey)
			if s := account.StrengthOf([]string{p.Method}); s != account.PhishingResistant {
				t.Errorf("a passkey alone is %v", s)
			}
			if h, err := w.Held(t.Context(), shop, w.ann.ID); err != nil || h != (mfa.Held{Passkeys: 1}) {
				t.Errorf("%+v, %v", h, err)
			}
		})
	}
}

func TestSecurityKey(t *testing.T) {
	w := newWorld(t, mfa.Config{})
	d := w.registered(t, shop, w.ann, account.BySecurityKey)
	d.cred.Counter = 1
	p, err := w.second(t, d, shop, w.ann.ID)
	proves(t, p, err, w.ann, account.BySecurityKey)
	if s := account.StrengthOf([]string{p.Method}); s != account.Single {
		t.Errorf("a security key alone is %v", s)
	}
	if h, err := w.Held(t.Context(), shop, w.ann.ID); err != nil || h != (mfa.Held{SecurityKeys: 1}) {
		t.Errorf("%+v, %v", h, err)
	}
	t.Run("it is no only proof", func(t *testing.T) {
		p, err := w.logIn(t, d, shop, "", "")
		refused(t, p, err, mfa.ErrWrong)
	})
	t.Run("also if somebody has given it a PIN since", func(t *testing.T) {
		d.auth.Options.UserNotVerified = false
		p, err := w.logIn(t, d, shop, "", "")
		refused(t, p, err, mfa.ErrWrong)
		p, err = w.second(t, d, shop, w.ann.ID)
		proves(t, p, err, w.ann, account.BySecurityKey)
	})
	t.Run("nor is it offered as one", func(t *testing.T) {
		c, err := w.BeginLogIn(t.Context(), shop, "ann", w.ann.ID)
		if err != nil {
			t.Fatal(err)
		}
		if ids := offered(t, c); len(ids) != 1 || ids[0] == base64.RawURLEncoding.EncodeToString(d.cred.ID) {
			t.Errorf("%v", ids)
		}
	})
	t.Run("an account without any cannot be asked", func(t *testing.T) {
		_, err := w.BeginSecond(t.Context(), shop, w.bob.ID)
		wants(t, err, account.ErrNotFound)
	})
}

func TestVerificationAsked(t *testing.T) {
	w := newWorld(t, mfa.Config{})
	d := w.registered(t, shop, w.ann, account.Passkey)
	w.registered(t, shop, w.bob, account.BySecurityKey)
	for _, c := range []struct {
		want  string
		begin func() (mfa.Ceremony, error)
	}{
		{"required", func() (mfa.Ceremony, error) { return w.BeginLogIn(t.Context(), shop, "", "") }},
		{"required", func() (mfa.Ceremony, error) { return w.BeginLogIn(t.Context(), shop, "ann", w.ann.ID) }},
		{"preferred", func() (mfa.Ceremony, error) { return w.BeginSecond(t.Context(), shop, w.ann.ID) }},
		{"discouraged", func() (mfa.Ceremony, error) { return w.BeginSecond(t.Context(), shop, w.bob.ID) }},
	} {
		if q, err := c.begin(); err != nil || !strings.Contains(string(q.Options), `"userVerification":"`+c.want+`"`) {
			t.Errorf("%s, %v; want %s", q.Options, err, c.want)
		}
	}
	t.Run("trap 48: UV flag missing beside another proof is no passkey", func(t *testing.T) {
		d.auth.Options.UserNotVerified = true
		p, err := w.second(t, d, shop, w.ann.ID)
		proves(t, p, err, w.ann, account.BySecurityKey)
	})
}

func TestRegisterOptions(t *testing.T) {
	w := newWorld(t, mfa.Config{Issuer: "Example Shop"})
	d := w.registered(t, shop, w.ann, account.Passkey)
	w.at(time.Second)
	w.registered(t, wiki, w.ann, account.Passkey)
	c, err := w.BeginRegister(t.Context(), shop, w.ann, account.Passkey)
	if err != nil {
		t.Fatal(err)
	}
	var o struct {
		PublicKey struct {
			RP                     struct{ ID, Name string }
			User                   struct{ ID, Name, DisplayName string }
			Challenge              string
			Timeout                int
			Attestation            string
			ExcludeCredentials     []struct{ ID string }
			AuthenticatorSelection struct{ ResidentKey, UserVerification string }
		}
	}
	if err := json.Unmarshal(c.Options, &o); err != nil {
		t.Fatal(err)
	}
	pk := o.PublicKey
	if pk.RP.ID != "shop.example.com" || pk.RP.Name != "Example Shop" || pk.User.Name != "ann" || pk.User.DisplayName != "Ann" ||
		pk.Timeout != 300_000 || pk.Attestation != "none" || len(pk.Challenge) != 43 ||
		pk.AuthenticatorSelection.ResidentKey != "required" || pk.AuthenticatorSelection.UserVerification != "required" {
		t.Errorf("%s", c.Options)
	}
	if len(pk.ExcludeCredentials) != 1 || pk.ExcludeCredentials[0].ID != base64.RawURLEncoding.EncodeToString(d.cred.ID) {
		t.Errorf("excluded: %v", pk.ExcludeCredentials)
	}
	if handle, err := base64.RawURLEncoding.DecodeString(pk.User.ID); err != nil || len(handle) != 32 || bytes.Contains(handle, []byte(w.ann.ID)) {
		t.Errorf("the handle %q says who it is: %v", handle, err)
	}
	if _, err := w.BeginRegister(t.Context(), shop, w.ann, account.TOTP); err == nil {
		t.Error("a kind that is none was taken")
	}
	t.Run("what is stored says nothing to who cannot open it", func(t *testing.T) {
		all, err := w.store.Factors(t.Context(), w.ann.ID)
		if err != nil || len(all) != 2 || bytes.Contains(all[0].Data, []byte("shop.example.com")) || all[0].Name != "Passkey" {
			t.Fatalf("%v, %v", all, err)
		}
		for i, want := range []string{"shop.example.com", "wiki.example.com"} {
			if host, passkey, synced, err := w.Describe(all[i]); err != nil || host != want || !passkey || synced {
				t.Errorf("%s %v %v, %v", host, passkey, synced, err)
			}
		}
		if h, err := w.Held(t.Context(), shop, w.ann.ID); err != nil || h != (mfa.Held{Passkeys: 1, Elsewhere: 1}) {
			t.Errorf("%+v, %v", h, err)
		}
		if h, err := w.Held(t.Context(), "https://192.0.2.1", w.ann.ID); err != nil || h != (mfa.Held{Elsewhere: 2}) {
			t.Errorf("%+v, %v", h, err)
		}
	})
}

func TestOrigins(t *testing.T) {
	w := newWorld(t, mfa.Config{PasskeyDomain: "example.com"})
	for _, c := range []struct{ origin, want string }{
		{"https://shop.example.com", "example.com"},
		{"https://example.com:8443", "example.com"},
		{"https://SHOP.example.com:443", "example.com"},
		{"https://notexample.com", "notexample.com"},
		{"https://shop.example.org", "shop.example.org"},
		{"http://localhost:8080", "localhost"},
		{"https://localhost", "localhost"},
		{"http://a.localhost:8080", "a.localhost"},
		{"https://intranet", ""},
		{"http://shop.example.com", ""},
		{"https://192.0.2.1", ""},
		{"https://[2001:db8::1]", ""},
		{"https://shop.example.com.", ""},
		{"https://jörg.example.com", ""},
		{"https://shop.example.com/", ""},
		{"https://ann@shop.example.com", ""},
		{"https://shop.example.com?", ""},
		{"https://shop.example.com#a", ""},
		{"shop.example.com", ""},
		{"https:", ""},
		{"", ""},
		{"null", ""},
	} {
		q, err := w.BeginRegister(t.Context(), c.origin, w.ann, account.Passkey)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: taken", c.origin)
			}
			continue
		}
		if err != nil || !strings.Contains(string(q.Options), `"id":"`+c.want+`"`) {
			t.Errorf("%s: %s, %v; want %s", c.origin, q.Options, err, c.want)
		}
	}
}

// With passkey_domain, one passkey serves several sites, each answer only the
// one that asked.
func TestPasskeyDomain(t *testing.T) {
	w := newWorld(t, mfa.Config{PasskeyDomain: "example.com"})
	d := newDevice(shop)
	d.rp.ID = "example.com"
	w.register(t, d, w.ann, account.Passkey)
	d.rp.Origin = wiki
	p, err := w.logIn(t, d, wiki, "", "")
	proves(t, p, err, w.ann, account.Passkey)
	t.Run("trap 48: a question of one site is not answered to another", func(t *testing.T) {
		c, err := w.BeginLogIn(t.Context(), shop, "", "")
		if err != nil {
			t.Fatal(err)
		}
		p, err := w.FinishLogIn(t.Context(), wiki, c.Ticket, d.get(t, c))
		refused(t, p, err, mfa.ErrStale)
	})
	t.Run("trap 48: a sub-domain that was taken over cannot pass an answer on", func(t *testing.T) {
		d.rp.Origin = "https://old.example.com"
		p, err := w.logIn(t, d, wiki, "", "")
		refused(t, p, err, mfa.ErrWrong)
	})
}

func offered(t *testing.T, c mfa.Ceremony) []string {
	t.Helper()
	o, err := virtualwebauthn.ParseAssertionOptions(string(c.Options))
	if err != nil {
		t.Fatal(err)
	}
	return o.AllowCredentials
}

func TestUnknownNames(t *testing.T) {
	w := newWorld(t, mfa.Config{})
	d := w.registered(t, shop, w.ann, account.Passkey)
	ask := func(origin, name, id string) mfa.Ceremony {
		t.Helper()
		c, err := w.BeginLogIn(t.Context(), origin, name, id)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	t.Run("trap 41: nobody's name gets an answer of the same form", func(t *testing.T) {
		known, unknown, without := ask(shop, "ann", w.ann.ID), ask(shop, "carl", ""), ask(shop, "bob", w.bob.ID)
		for _, c := range []mfa.Ceremony{unknown, without} {
			if len(c.Ticket) != len(known.Ticket) || len(offered(t, c)) != 1 || form(t, c) != form(t, known) {
				t.Errorf("%s\n%s", c.Options, known.Options)
			}
		}
	})
	t.Run("trap 41: the same name gets the same made-up credential, another name another", func(t *testing.T) {
		first := offered(t, ask(shop, "carl", ""))[0]
		if again := offered(t, ask(shop, "carl", ""))[0]; again != first {
			t.Errorf("%s, then %s", first, again)
		}
		if other := offered(t, ask(shop, "dora", ""))[0]; other == first {
			t.Error("two names have one credential")
		}
		if other := offered(t, ask(wiki, "carl", ""))[0]; other == first {
			t.Error("two sites have one credential")
		}
		other := open(t, mfa.Config{}, w.store, strings.Repeat("x", 32))
		if c, err := other.BeginLogIn(t.Context(), shop, "carl", ""); err != nil || offered(t, c)[0] == first {
			t.Errorf("it can be computed without the key: %v", err)
		}
	})
	t.Run("trap 41: ids have the lengths of real ones", func(t *testing.T) {
		for n := range 64 {
			id, err := base64.RawURLEncoding.DecodeString(offered(t, ask(shop, strings.Repeat("n", n+1), ""))[0])
			if err != nil || len(id) < 16 || len(id) > 64 {
				t.Errorf("%d bytes, %v", len(id), err)
			}
		}
	})
	t.Run("trap 47: a passkey of one account does not answer for another name", func(t *testing.T) {
		for _, c := range []struct{ name, id string }{{"carl", ""}, {"bob", w.bob.ID}} {
			p, err := w.logIn(t, d, shop, c.name, c.id)
			refused(t, p, err, mfa.ErrWrong)
		}
	})
	t.Run("nobody's credential proves nobody", func(t *testing.T) {
		stranger := newDevice(shop)
		stranger.auth.Options.UserHandle = d.auth.Options.UserHandle
		p, err := w.logIn(t, stranger, shop, "", "")
		refused(t, p, err, mfa.ErrWrong)
	})
	if _, err := w.BeginLogIn(t.Context(), shop, "", w.ann.ID); err == nil {
		t.Error("an account without a name was taken")
	}
}

// form is the options without what is random, or the account's own.
func form(t *testing.T, c mfa.Ceremony) string {
	t.Helper()
	var o struct {
		PublicKey map[string]any `json:"publicKey"`
	}
	if err := json.Unmarshal(c.Options, &o); err != nil {
		t.Fatal(err)
	}
	o.PublicKey["challenge"] = ""
	for _, a := range o.PublicKey["allowCredentials"].([]any) {
		a.(map[string]any)["id"] = ""
	}
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTooManyPasskeys(t *testing.T) {
	w := newWorld(t, mfa.Config{})
	late, err := w.BeginRegister(t.Context(), shop, w.ann, account.Passkey)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		w.registered(t, shop, w.ann, account.Passkey)
	}
	_, err = w.BeginRegister(t.Context(), shop, w.ann, account.Passkey)
	wants(t, err, mfa.ErrTooMany)
	_, err = w.FinishRegister(t.Context(), shop, w.ann.ID, account.Passkey, late.Ticket, "", newDevice(shop).create(t, late))
	wants(t, err, mfa.ErrTooMany)
}

// A browser that was left open for a while begins again.
func TestCeremonyEnds(t *testing.T) {
	w := newWorld(t, mfa.Config{})
	d := w.registered(t, shop, w.ann, account.Passkey)
	c, err := w.BeginLogIn(t.Context(), shop, "", "")
	if err != nil {
		t.Fatal(err)
	}
	w.at(5 * time.Minute)
	p, err := w.FinishLogIn(t.Context(), shop, c.Ticket, d.get(t, c))
	refused(t, p, err, mfa.ErrStale)
	w.at(5*time.Minute - time.Second)
	p, err = w.FinishLogIn(t.Context(), shop, c.Ticket, d.get(t, c))
	proves(t, p, err, w.ann, account.Passkey)
}
