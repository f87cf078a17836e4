package oidc_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/secrets"
)

func ellipticP256() elliptic.Curve { return elliptic.P256() }

func pkcs8(t testing.TB, k crypto.Signer) string {
	t.Helper()
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
}

// Trap 57: what is taken for a log-out token, and what is not.
func TestTrap57LogoutToken(t *testing.T) {
	now := time.Now().Unix()
	const event = "http://schemas.openid.net/event/backchannel-logout"
	for _, c := range []struct {
		name, typ string
		claims    map[string]any
		want      merlon.Reason
	}{
		{"as it should be", "logout+jwt", nil, ""},
		{"of a provider that says JWT", "JWT", nil, ""},
		{"for all of a subject's sessions", "logout+jwt", map[string]any{"sid": nil}, ""},
		{"for a session only", "logout+jwt", map[string]any{"sub": nil}, ""},
		{"for nobody", "logout+jwt", map[string]any{"sub": nil, "sid": nil}, oidc.LogoutRefused},
		{"with a nonce", "logout+jwt", map[string]any{"nonce": "n"}, oidc.LogoutRefused},
		{"with a nonce that is null", "logout+jwt", map[string]any{"nonce": json.RawMessage("null")}, oidc.LogoutRefused},
		{"without the event, such as an ID token", "JWT", map[string]any{"events": nil}, oidc.LogoutRefused},
		{"with another event", "logout+jwt", map[string]any{"events": map[string]any{"x": 1}}, oidc.LogoutRefused},
		{"an access token", "at+jwt", nil, oidc.LogoutRefused},
		{"a DPoP proof", "dpop+jwt", nil, oidc.LogoutRefused},
		{"without jti", "logout+jwt", map[string]any{"jti": nil}, oidc.LogoutRefused},
		{"without iat", "logout+jwt", map[string]any{"iat": nil}, oidc.LogoutRefused},
		{"too old", "logout+jwt", map[string]any{"iat": now - 301}, oidc.LogoutRefused},
		{"from the future", "logout+jwt", map[string]any{"iat": now + 120}, oidc.LogoutRefused},
		{"expired", "logout+jwt", map[string]any{"exp": now - 1}, oidc.LogoutRefused},
		{"without exp", "logout+jwt", map[string]any{"exp": nil}, oidc.LogoutRefused},
		{"for another client", "logout+jwt", map[string]any{"aud": "other"}, oidc.LogoutRefused},
		{"of another provider", "logout+jwt", map[string]any{"iss": "https://evil.example"}, oidc.LogoutRefused},
	} {
		t.Run("trap 57: "+c.name, func(t *testing.T) {
			l := newLiar(t)
			rp := party(t, settings(t, "corp", l.srv))
			claims := map[string]any{"iss": l.issuer, "sub": "u1", "sid": "s1", "aud": clientID, "iat": now, "exp": now + 60, "jti": "j1", "events": map[string]any{event: map[string]any{}}}
			override(claims, c.claims)
			raw := sign(t, jose.RS256, rsaKey(), "k1", c.typ, claims)
			out, err := rp.VerifyLogoutToken(t.Context(), "corp", raw)
			if reason(err) != c.want {
				t.Fatal(err)
			}
			if err != nil {
				return
			}
			sub, _ := claims["sub"].(string)
			sid, _ := claims["sid"].(string)
			if out != (oidc.Logout{Issuer: l.issuer, Subject: sub, SID: sid}) {
				t.Errorf("%+v", out)
			}
			if _, err := rp.VerifyLogoutToken(t.Context(), "corp", raw); reason(err) != oidc.LogoutRefused {
				t.Errorf("replayed: %v", err)
			}
		})
	}
}

// Trap 53: whoever sends tokens with made-up key ids does not make us fetch.
func TestUnknownKeysAreFetchedSeldom(t *testing.T) {
	l := newLiar(t)
	now := time.Now()
	rp := party(t, settings(t, "corp", l.srv))
	rp.SetNow(func() time.Time { return now })
	for range 20 {
		raw := sign(t, jose.RS256, rsaKey(), "made up", "logout+jwt", map[string]any{"iss": l.issuer})
		if _, err := rp.VerifyLogoutToken(t.Context(), "corp", raw); reason(err) != oidc.LogoutRefused {
			t.Fatal(err)
		}
	}
	if l.hits["/keys"] != 1 {
		t.Errorf("fetched %d times", l.hits["/keys"])
	}
	// Trap 55: a new key is found, half a minute later at most.
	l.keys = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &rsaKey().PublicKey, KeyID: "k2", Use: "sig"}}}
	l.sign = func(c map[string]any) string { return sign(t, jose.RS256, rsaKey(), "k2", "JWT", c) }
	now = now.Add(30 * time.Second)
	_, a := l.begin(t, rp, oidc.Start{})
	if _, err := rp.Callback(t.Context(), a); err != nil {
		t.Error(err)
	}
	for _, raw := range []string{"", "x", "a.b.c", strings.Repeat("a", 20<<10)} {
		if _, err := rp.VerifyLogoutToken(t.Context(), "corp", raw); reason(err) != oidc.LogoutRefused {
			t.Error(err)
		}
	}
}

// Trap 55: which keys of a set are used.
func TestKeys(t *testing.T) {
	k := &rsaKey().PublicKey
	for _, c := range []struct {
		name string
		set  []jose.JSONWebKey
		want int
	}{
		{"for signatures", []jose.JSONWebKey{{Key: k, KeyID: "a", Use: "sig"}}, 1},
		{"for nothing named", []jose.JSONWebKey{{Key: k, KeyID: "a"}}, 1},
		{"trap 55: for encryption", []jose.JSONWebKey{{Key: k, KeyID: "a", Use: "enc"}}, 0},
		{"trap 55: two of one name", []jose.JSONWebKey{{Key: k, KeyID: "a"}, {Key: k, KeyID: "a"}, {Key: k, KeyID: "b"}}, 1},
		{"secret", []jose.JSONWebKey{{Key: []byte(strings.Repeat("k", 32)), KeyID: "a"}}, 0},
		{"private", []jose.JSONWebKey{{Key: rsaKey(), KeyID: "a"}}, 0},
		{"none", nil, 0},
	} {
		b, err := json.Marshal(jose.JSONWebKeySet{Keys: c.set})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := oidc.ParseKeys(b); len(got) != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA","kid":"a"},{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := oidc.ParseKeys(body)
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			switch k := k.(type) {
			case []byte:
				t.Error("a secret is taken for a public key")
			case interface{ Public() crypto.PublicKey }:
				t.Errorf("a private key: %T", k)
			case *rsa.PublicKey:
				if k.N.BitLen() < 2048 {
					t.Errorf("%d bits", k.N.BitLen())
				}
			}
		}
	})
}

func FuzzCallback(f *testing.F) {
	l := newLiar(f)
	rp := party(f, settings(f, "corp", l.srv))
	_, a := l.begin(f, rp, oidc.Start{})
	f.Add("code=c&state="+a.Query.Get("state"), "x")
	f.Add("code=c&state=&iss=x", a.Cookie)
	f.Add("error=x&state=x", a.Cookie+"A")
	f.Fuzz(func(t *testing.T, query, cookie string) {
		q, err := url.ParseQuery(query)
		if err != nil || q.Get("state") == a.Query.Get("state") && cookie == a.Cookie {
			return
		}
		if _, err := rp.Callback(t.Context(), oidc.Answer{Provider: "corp", Host: host, Query: q, Cookie: cookie}); reason(err) != oidc.StateMissing && reason(err) != oidc.StateMismatch {
			t.Errorf("%v", err)
		}
		if l.hits["/token"] > 0 {
			t.Error("the provider was asked")
		}
	})
}

func TestEndSessionURL(t *testing.T) {
	l := newLiar(t)
	rp := party(t, settings(t, "corp", l.srv))
	to, err := rp.EndSessionURL(t.Context(), "corp", secrets.New("a.b.c"), "Shop.example", "/.merlon/out")
	u, err2 := url.Parse(to)
	if err != nil || err2 != nil || !strings.HasPrefix(to, l.issuer+"/end?") {
		t.Fatal(to, err, err2)
	}
	q := u.Query()
	if q.Get("id_token_hint") != "a.b.c" || q.Get("post_logout_redirect_uri") != "https://shop.example/.merlon/out" || q.Get("client_id") != clientID || q.Get("x") != "1" {
		t.Errorf("%v", q)
	}
	l2 := newLiar(t)
	l2.meta["end_session_endpoint"] = nil
	rp = party(t, settings(t, "corp", l2.srv))
	if to, err := rp.EndSessionURL(t.Context(), "corp", secrets.Secret{}, host, "/"); to != "" || err != nil {
		t.Errorf("%q, %v", to, err)
	}
}

func TestSettings(t *testing.T) {
	l := newLiar(t)
	good := settings(t, "corp", l.srv)
	if rp := party(t, good); len(rp.Providers()) != 1 || rp.Providers()[0] != (oidc.Button{Name: "corp", Label: "corp", Issuer: good.Issuer}) {
		t.Errorf("%v", rp.Providers())
	}
	for _, c := range []struct {
		want   string
		change func(*oidc.Provider)
	}{
		{`providers[1].name "corp": another provider has it`, func(p *oidc.Provider) { p.Name = "corp" }},
		{`providers[1].name "A b": must be 1 to 32`, func(p *oidc.Provider) { p.Name = "A b" }},
		{`providers[1].issuer "http://a.example": must be https`, func(p *oidc.Provider) { p.Issuer = "http://a.example" }},
		{`providers[1].issuer "https://a.example?b": must be https`, func(p *oidc.Provider) { p.Issuer = "https://a.example?b" }},
		{`providers[1].client_id: must be set`, func(p *oidc.Provider) { p.ClientID = "" }},
		{`providers[1].client_secret: must be set, or private_key`, func(p *oidc.Provider) { p.ClientSecret = "" }},
		{`providers[1].client_secret: must be set, or private_key`, func(p *oidc.Provider) { p.PrivateKey = "env:X" }},
		{`providers[1].client_secret "env:MERLON_UNSET"`, func(p *oidc.Provider) { p.ClientSecret = "env:MERLON_UNSET" }},
		{`providers[1].client_certificate "/x": needs its private_key`, func(p *oidc.Provider) { p.ClientCertificate = "/x" }},
		{`is not in PEM`, func(p *oidc.Provider) { p.PrivateKey, p.ClientSecret = p.ClientSecret, "" }},
		{`providers[1].domains[0] "Corp.example": must be a domain in lower case`, func(p *oidc.Provider) { p.Domains = []string{"Corp.example"} }},
		{`providers[1].domains[0] "*": must be a domain`, func(p *oidc.Provider) { p.Domains = []string{"*"} }},
		{`providers[1].ca "/nowhere"`, func(p *oidc.Provider) { p.CA = "/nowhere" }},
	} {
		p := good
		p.Name = "b"
		c.change(&p)
		if _, err := oidc.New(oidc.Config{Providers: []oidc.Provider{good, p}}, key(t), nil); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("want %s, got %v", c.want, err)
		}
	}
}
