package oidc_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/oidc"
)

func TestLogIn(t *testing.T) {
	l := newLiar(t)
	rp := party(t, settings(t, "corp", l.srv))
	l.claims["groups"] = []string{"eng", "ops", "other", "eng"}
	l.claims["auth_time"] = 1000
	q, a := l.begin(t, rp, oidc.Start{ReturnTo: "/cart?a=b&c=d", Hint: "ann"})
	for name, want := range map[string]string{
		"response_type": "code", "client_id": clientID, "redirect_uri": "https://shop.example/.merlon/oidc/callback/corp", "scope": "openid profile email",
		"code_challenge_method": "S256", "login_hint": "ann", "prompt": "", "max_age": "",
	} {
		if q.Get(name) != want {
			t.Errorf("%s is %q", name, q.Get(name))
		}
	}
	if len(q.Get("state")) < 43 || len(q.Get("nonce")) < 43 || len(q.Get("code_challenge")) != 43 {
		t.Errorf("%v", q)
	}
	p, err := rp.Callback(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(l.form.Get("code_verifier")))
	if l.form.Get("redirect_uri") != q.Get("redirect_uri") || l.form.Get("basic") != "merlon:the+secret+%26+more" || l.form.Has("client_secret") || base64.RawURLEncoding.EncodeToString(sum[:]) != q.Get("code_challenge") {
		t.Errorf("token request %v", l.form)
	}
	if p.Provider != "corp" || p.Issuer != l.issuer || p.Subject != "u1" || p.Name != "ann" || p.Email != "ann@corp.example" || !p.EmailVerified || !p.Authoritative ||
		!slices.Equal(p.Groups, []string{"dev"}) || !slices.Equal(p.Roles, []string{"admin"}) || !slices.Equal(p.Methods, []string{"oidc:corp"}) ||
		p.AuthTime.Unix() != 1000 || p.SID != "s1" || p.ReturnTo != "/cart?a=b&c=d" || p.Create {
		t.Errorf("%+v", p)
	}
	if text := fmt.Sprintf("%+v", p); strings.Contains(text, p.IDToken.Reveal()) || p.IDToken.Reveal() == "" {
		t.Error("the ID token can be printed")
	}
}

// Trap 57: what a browser brings that it was not sent for.
func TestTrap57Callback(t *testing.T) {
	for _, c := range []struct {
		name string
		sent bool // the provider says that it sends iss
		do   func(*oidc.Answer)
		want merlon.Reason
	}{
		{"as it should be", false, func(*oidc.Answer) {}, ""},
		{"with its issuer", false, func(a *oidc.Answer) { a.Query.Set("iss", "ISSUER") }, ""},
		{"state missing", false, func(a *oidc.Answer) { a.Query.Del("state") }, oidc.StateMismatch},
		{"state of another log-in", false, func(a *oidc.Answer) { a.Query.Set("state", "x"+a.Query.Get("state")[1:]) }, oidc.StateMismatch},
		{"state twice", false, func(a *oidc.Answer) { a.Query.Add("state", a.Query.Get("state")) }, oidc.StateMismatch},
		{"another browser, which has no cookie", false, func(a *oidc.Answer) { a.Cookie = "" }, oidc.StateMissing},
		{"a forged cookie", false, func(a *oidc.Answer) { a.Cookie = a.Cookie[:len(a.Cookie)-2] + "AA" }, oidc.StateMissing},
		{"another host", false, func(a *oidc.Answer) { a.Host = "evil.example" }, oidc.StateMismatch},
		{"mix-up: another provider's address", false, func(a *oidc.Answer) { a.Provider = "other" }, oidc.StateMismatch},
		{"an unknown provider", false, func(a *oidc.Answer) { a.Provider = "x" }, oidc.UnknownProvider},
		{"mix-up: iss of another", false, func(a *oidc.Answer) { a.Query.Set("iss", "https://evil.example") }, oidc.IssuerMismatch},
		{"mix-up: iss with a slash", false, func(a *oidc.Answer) { a.Query.Set("iss", "ISSUER/") }, oidc.IssuerMismatch},
		{"mix-up: iss empty", false, func(a *oidc.Answer) { a.Query.Set("iss", "") }, oidc.IssuerMismatch},
		{"mix-up: iss missing, which the provider sends", true, func(*oidc.Answer) {}, oidc.IssuerMismatch},
		{"mix-up: an error without iss", true, func(a *oidc.Answer) { a.Query.Set("error", "access_denied") }, oidc.IssuerMismatch},
		{"iss as the provider sends it", true, func(a *oidc.Answer) { a.Query.Set("iss", "ISSUER") }, ""},
		{"iss twice", false, func(a *oidc.Answer) { a.Query["iss"] = []string{"ISSUER", "https://evil.example"} }, oidc.StateMismatch},
		{"a refusal", false, func(a *oidc.Answer) { a.Query.Set("error", "access_denied") }, oidc.ProviderRefused},
		{"no code", false, func(a *oidc.Answer) { a.Query.Del("code") }, oidc.ProviderRefused},
	} {
		t.Run("trap 57: "+c.name, func(t *testing.T) {
			l, other := newLiar(t), newLiar(t)
			l.meta["authorization_response_iss_parameter_supported"] = c.sent
			rp := party(t, settings(t, "corp", l.srv), settings(t, "other", other.srv))
			_, a := l.begin(t, rp, oidc.Start{})
			c.do(&a)
			for i := range a.Query["iss"] {
				a.Query["iss"][i] = strings.Replace(a.Query["iss"][i], "ISSUER", l.issuer, 1)
			}
			_, err := rp.Callback(t.Context(), a)
			if reason(err) != c.want {
				t.Errorf("%v", err)
			}
			if sent := l.hits["/token"] + other.hits["/token"]; sent > 0 && c.want != "" {
				t.Error("the code was sent somewhere")
			}
		})
	}
	t.Run("trap 57: another client of ours at the same provider", func(t *testing.T) {
		l := newLiar(t)
		rp := party(t, settings(t, "corp", l.srv), settings(t, "partners", l.srv))
		_, a := l.begin(t, rp, oidc.Start{})
		a.Provider = "partners"
		if _, err := rp.Callback(t.Context(), a); reason(err) != oidc.StateMismatch {
			t.Error(err)
		}
	})
	t.Run("trap 57: state reused", func(t *testing.T) {
		l := newLiar(t)
		rp := party(t, settings(t, "corp", l.srv))
		_, a := l.begin(t, rp, oidc.Start{})
		for i, want := range []merlon.Reason{"", oidc.StateReused} {
			if _, err := rp.Callback(t.Context(), a); reason(err) != want {
				t.Errorf("%d: %v", i, err)
			}
		}
	})
	t.Run("trap 57: a code of the attacker's log-in in the victim's browser", func(t *testing.T) {
		l := newLiar(t)
		rp := party(t, settings(t, "corp", l.srv))
		_, victim := l.begin(t, rp, oidc.Start{})
		_, attacker := l.begin(t, rp, oidc.Start{})
		attacker.Cookie = victim.Cookie
		if _, err := rp.Callback(t.Context(), attacker); reason(err) != oidc.StateMismatch {
			t.Error(err)
		}
		// With the victim's state it is the nonce that gives it away.
		victim.Query.Set("code", "attacker's")
		if _, err := rp.Callback(t.Context(), victim); reason(err) != oidc.TokenRefused || !strings.Contains(err.Error(), "nonce") {
			t.Error(err)
		}
	})
	t.Run("too late", func(t *testing.T) {
		l := newLiar(t)
		rp := party(t, settings(t, "corp", l.srv))
		_, a := l.begin(t, rp, oidc.Start{})
		rp.SetNow(func() time.Time { return time.Now().Add(10 * time.Minute) })
		if _, err := rp.Callback(t.Context(), a); reason(err) != oidc.StateMissing {
			t.Error(err)
		}
	})
}

// Trap 57: what an ID token must say.
func TestTrap57IDToken(t *testing.T) {
	ec, err := ecdsa.GenerateKey(ellipticP256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	half := sha256.Sum256([]byte("at"))
	for _, c := range []struct {
		name   string
		claims map[string]any
		sign   func(map[string]any) string
		want   merlon.Reason
	}{
		{"nonce wrong", map[string]any{"nonce": "x"}, nil, oidc.TokenRefused},
		{"nonce missing", map[string]any{"nonce": nil}, nil, oidc.TokenRefused},
		{"nonce empty", map[string]any{"nonce": ""}, nil, oidc.TokenRefused},
		{"azp of another client", map[string]any{"azp": "other"}, nil, oidc.TokenRefused},
		{"azp ours", map[string]any{"azp": clientID}, nil, ""},
		{"several audiences without azp", map[string]any{"aud": []string{clientID, "other"}}, nil, oidc.TokenRefused},
		{"several audiences with azp", map[string]any{"aud": []string{clientID, "other"}, "azp": clientID}, nil, ""},
		{"another audience", map[string]any{"aud": "other"}, nil, oidc.TokenRefused},
		{"an audience that begins like us", map[string]any{"aud": clientID + "x"}, nil, oidc.TokenRefused},
		{"another issuer", map[string]any{"iss": "https://evil.example"}, nil, oidc.TokenRefused},
		{"at_hash wrong", map[string]any{"at_hash": "x"}, nil, oidc.TokenRefused},
		{"at_hash right", map[string]any{"at_hash": base64.RawURLEncoding.EncodeToString(half[:16])}, nil, ""},
		{"expired", map[string]any{"exp": now - 1}, nil, oidc.TokenRefused},
		{"exp missing", map[string]any{"exp": nil}, nil, oidc.TokenRefused},
		{"iat missing", map[string]any{"iat": nil}, nil, oidc.TokenRefused},
		{"iat in the future", map[string]any{"iat": now + 120}, nil, oidc.TokenRefused},
		{"iat a minute off", map[string]any{"iat": now + 50}, nil, ""},
		{"iat long ago", map[string]any{"iat": now - 3600}, nil, oidc.TokenRefused},
		{"auth_time in the future", map[string]any{"auth_time": now + 3600}, nil, oidc.TokenRefused},
		{"sub missing", map[string]any{"sub": nil}, nil, oidc.TokenRefused},
		{"sub too long", map[string]any{"sub": strings.Repeat("a", 256)}, nil, oidc.TokenRefused},
		{"trap 52: none", nil, func(c map[string]any) string {
			b, _ := json.Marshal(c)
			return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(b) + "."
		}, oidc.TokenRefused},
		{"trap 52: HS256 by the client's secret", nil, func(c map[string]any) string {
			return sign(t, jose.HS256, []byte(secret+secret+secret), "k1", "JWT", c)
		}, oidc.TokenRefused},
		{"trap 52: an algorithm that is not the key's", nil, func(c map[string]any) string { return sign(t, jose.PS256, rsaKey(), "k1", "JWT", c) }, oidc.TokenRefused},
		{"another key", nil, func(c map[string]any) string { return sign(t, jose.ES256, ec, "k1", "JWT", c) }, oidc.TokenRefused},
		{"an unknown key", nil, func(c map[string]any) string { return sign(t, jose.RS256, rsaKey(), "k9", "JWT", c) }, oidc.TokenRefused},
		{"no token", nil, func(map[string]any) string { return "" }, oidc.TokenRefused},
		{"nonsense", nil, func(map[string]any) string { return "x.y.z" }, oidc.TokenRefused},
		{"trap 54: 64 kB", map[string]any{"x": strings.Repeat("a", 64<<10)}, nil, oidc.TokenRefused},
	} {
		t.Run("trap 57: "+c.name, func(t *testing.T) {
			l := newLiar(t)
			rp := party(t, settings(t, "corp", l.srv))
			if c.claims != nil {
				l.claims = c.claims
			}
			if c.sign != nil {
				l.sign = c.sign
			}
			_, a := l.begin(t, rp, oidc.Start{})
			if _, err := rp.Callback(t.Context(), a); reason(err) != c.want {
				t.Errorf("%v", err)
			}
		})
	}
}
