package oidc_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/secrets"
)

// Trap 57: a metadata document that is not the issuer's, or leads elsewhere.
func TestTrap57Metadata(t *testing.T) {
	for name, meta := range map[string]map[string]any{
		"another issuer":          {"issuer": "https://evil.example"},
		"issuer with a slash":     {"issuer": "SLASH"},
		"no issuer":               {"issuer": nil},
		"token endpoint by http":  {"token_endpoint": "http://127.0.0.1/token"},
		"auth endpoint by script": {"authorization_endpoint": "javascript:alert(1)"},
		"no keys":                 {"jwks_uri": nil},
		"trap 55: keys by http":   {"jwks_uri": "http://127.0.0.1/keys"},
		"log-out by http":         {"end_session_endpoint": "http://evil.example"},
		"too long":                {"x": strings.Repeat("a", 1<<20)},
	} {
		t.Run("trap 57: "+name, func(t *testing.T) {
			l := newLiar(t)
			if l.meta = meta; meta["issuer"] == "SLASH" {
				meta["issuer"] = l.issuer + "/"
			}
			rp := party(t, settings(t, "corp", l.srv))
			if _, err := rp.Begin(t.Context(), "corp", oidc.Start{Host: host}); reason(err) != oidc.ProviderDown {
				t.Error(err)
			}
		})
	}
}

// A provider that is down does not stop the start, is not asked by everybody,
// and is found again.
func TestProviderDown(t *testing.T) {
	l := newLiar(t)
	l.down = true
	now := time.Now()
	rp := party(t, settings(t, "corp", l.srv))
	rp.SetNow(func() time.Time { return now })
	const path = "/.well-known/openid-configuration"
	if l.hits[path] != 0 {
		t.Error("asked before anybody wanted it")
	}
	for range 5 {
		if _, err := rp.Begin(t.Context(), "corp", oidc.Start{Host: host}); reason(err) != oidc.ProviderDown {
			t.Fatal(err)
		}
	}
	if l.hits[path] != 1 {
		t.Errorf("asked %d times", l.hits[path])
	}
	for range 3 {
		now = now.Add(time.Second)
		_, _ = rp.Begin(t.Context(), "corp", oidc.Start{Host: host})
	}
	if l.hits[path] != 3 { // after 1 s, and after 2 s more
		t.Errorf("asked %d times", l.hits[path])
	}
	l.down, now = false, now.Add(time.Minute)
	l.claims["iat"], l.claims["exp"] = now.Unix(), now.Unix()+60
	_, a := l.begin(t, rp, oidc.Start{})
	if _, err := rp.Callback(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	// What is known of it lasts a day, its keys too.
	l.down, now = true, now.Add(2*time.Hour)
	if _, err := rp.Begin(t.Context(), "corp", oidc.Start{Host: host}); err != nil {
		t.Error(err)
	}
	now = now.Add(24 * time.Hour)
	if _, err := rp.Begin(t.Context(), "corp", oidc.Start{Host: host}); reason(err) != oidc.ProviderDown {
		t.Error(err)
	}
}

// Trap 57: a redirect that would carry the code and the secret elsewhere.
func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, status := range []int{http.StatusTemporaryRedirect, http.StatusPermanentRedirect, http.StatusFound} {
		l, evil := newLiar(t), newLiar(t)
		l.token = func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, evil.issuer+"/token", status)
			return true
		}
		rp := party(t, settings(t, "corp", l.srv))
		_, a := l.begin(t, rp, oidc.Start{})
		if _, err := rp.Callback(t.Context(), a); reason(err) != oidc.CodeRefused || strings.Contains(err.Error(), secret) {
			t.Errorf("%d: %v", status, err)
		}
		if len(evil.hits) > 0 {
			t.Errorf("%d: sent on", status)
		}
	}
	// Not even on the same host.
	same := newLiar(t)
	same.meta["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
	same.token = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		return true
	}
	rp2 := party(t, settings(t, "corp", same.srv))
	_, answer := same.begin(t, rp2, oidc.Start{})
	if _, err := rp2.Callback(t.Context(), answer); reason(err) != oidc.CodeRefused || same.hits["/elsewhere"] > 0 {
		t.Error(err)
	}
	// Trap 55: keys poisoned by a redirect.
	evil := newLiar(t)
	l := newLiar(t)
	l.meta["jwks_uri"] = l.issuer + "/moved"
	mux := l.srv.Config.Handler
	l.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, evil.issuer+"/keys", http.StatusFound)
			return
		}
		mux.ServeHTTP(w, r)
	})
	rp := party(t, settings(t, "corp", l.srv))
	_, a := l.begin(t, rp, oidc.Start{})
	if _, err := rp.Callback(t.Context(), a); reason(err) != oidc.TokenRefused || evil.hits["/keys"] > 0 {
		t.Error(err)
	}
}

// Trap 57: accounts are not linked by an address that proves nothing.
func TestEmail(t *testing.T) {
	for _, c := range []struct {
		name                    string
		email, verified         any
		want                    string
		isVerified, isAuthority bool
	}{
		{"verified, its domain", "ann@corp.example", true, "ann@corp.example", true, true},
		{"verified, as a string", "ann@corp.example", "true", "ann@corp.example", true, true},
		{"trap 57: not verified", "ann@corp.example", false, "ann@corp.example", false, false},
		{"trap 57: nothing said", "ann@corp.example", nil, "ann@corp.example", false, false},
		{"trap 57: null", "ann@corp.example", json.RawMessage("null"), "ann@corp.example", false, false},
		{"trap 57: a number", "ann@corp.example", 1, "ann@corp.example", false, false},
		{"trap 57: another domain", "ann@gmail.example", true, "ann@gmail.example", true, false},
		{"trap 57: a sub-domain", "ann@x.corp.example", true, "ann@x.corp.example", true, false},
		{"trap 57: two at signs", "ann@corp.example@evil.example", true, "", false, false},
		{"none", nil, true, "", false, false},
	} {
		l := newLiar(t)
		l.claims["email"], l.claims["email_verified"] = c.email, c.verified
		rp := party(t, settings(t, "corp", l.srv))
		_, a := l.begin(t, rp, oidc.Start{})
		p, err := rp.Callback(t.Context(), a)
		if err != nil || p.Email != c.want || p.EmailVerified != c.isVerified || p.Authoritative != c.isAuthority {
			t.Errorf("%s: %+v, %v", c.name, p, err)
		}
	}
}

func TestReturnTo(t *testing.T) {
	l := newLiar(t)
	rp := party(t, settings(t, "corp", l.srv))
	long := "/" + strings.Repeat("&", 2000)
	for to, want := range map[string]string{"/a?b=c": "/a?b=c", "//evil.example": "/", "https://evil.example": "/", `/\evil.example`: "/", "": "/", long: long} {
		_, a := l.begin(t, rp, oidc.Start{ReturnTo: to})
		if p, err := rp.Callback(t.Context(), a); err != nil || p.ReturnTo != want {
			t.Errorf("trap 57: %q: to %q, %v", to, p.ReturnTo, err)
		}
		if c := oidc.Cookie(a.Cookie).String(); len(c) > 4096 || !strings.HasPrefix(c, "__Host-merlon-oidc=") || !strings.HasSuffix(c, "; Path=/; Max-Age=600; HttpOnly; Secure; SameSite=Lax") {
			t.Errorf("a cookie of %d bytes: %s", len(c), c)
		}
	}
	if c := oidc.Cookie("").String(); !strings.Contains(c, "Max-Age=0") {
		t.Error(c)
	}
	for _, h := range []string{"", "evil.example/", "a b", "evil.example@x", "x?y", "x#y", "x\\y", "x\r\ny"} {
		if _, err := rp.Begin(t.Context(), "corp", oidc.Start{Host: h}); err == nil {
			t.Errorf("host %q", h)
		}
	}
}

func TestStepUp(t *testing.T) {
	now := time.Now().Unix()
	for _, c := range []struct {
		name   string
		start  oidc.Start
		claims map[string]any
		want   merlon.Reason
		mfa    bool
	}{
		{"fresh", oidc.Start{Fresh: true}, map[string]any{"auth_time": now}, "", false},
		{"not fresh", oidc.Start{Fresh: true}, map[string]any{"auth_time": now - 120}, oidc.NotFresh, false},
		{"fresh, nothing said", oidc.Start{Fresh: true}, nil, oidc.NotFresh, false},
		{"two factors by amr", oidc.Start{MFA: true}, map[string]any{"amr": []string{"pwd", "mfa"}}, "", true},
		{"two factors by acr", oidc.Start{MFA: true}, map[string]any{"acr": "strong"}, "", true},
		{"one factor", oidc.Start{MFA: true}, map[string]any{"amr": []string{"pwd"}, "acr": "1"}, oidc.NotMFA, false},
		{"nothing said", oidc.Start{MFA: true}, nil, oidc.NotMFA, false},
		{"two factors without being asked", oidc.Start{}, map[string]any{"amr": []string{"mfa"}}, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLiar(t)
			if c.claims != nil {
				l.claims = c.claims
			}
			s := settings(t, "corp", l.srv)
			s.MFA, s.ACRValues = []string{"mfa", "strong"}, []string{"strong"}
			rp := party(t, s)
			q, a := l.begin(t, rp, c.start)
			if (q.Get("prompt") == "login" && q.Get("max_age") == "0") != c.start.Fresh || (q.Get("acr_values") == "strong") != c.start.MFA {
				t.Errorf("%v", q)
			}
			p, err := rp.Callback(t.Context(), a)
			if reason(err) != c.want || slices.Contains(p.Methods, "mfa") != c.mfa {
				t.Errorf("%v, %v", p.Methods, err)
			}
		})
	}
	t.Run("a provider that is not believed", func(t *testing.T) {
		l := newLiar(t)
		l.claims["amr"], l.claims["acr"] = []string{"mfa", "none"}, "none"
		s := settings(t, "corp", l.srv)
		s.MFA = []string{"none"}
		rp := party(t, s)
		_, a := l.begin(t, rp, oidc.Start{})
		if p, err := rp.Callback(t.Context(), a); err != nil || slices.Contains(p.Methods, "mfa") {
			t.Errorf("%v, %v", p.Methods, err)
		}
	})
}

func TestUserInfo(t *testing.T) {
	for _, c := range []struct {
		name   string
		info   map[string]any
		groups []string
		want   merlon.Reason
	}{
		{"what the token lacks", map[string]any{"sub": "u1", "groups": []string{"eng"}, "email": "bob@corp.example", "email_verified": true}, []string{"dev"}, ""},
		{"one group as a string", map[string]any{"sub": "u1", "groups": "eng"}, []string{"dev"}, ""},
		{"about somebody else", map[string]any{"sub": "u2", "groups": []string{"eng"}}, nil, oidc.TokenRefused},
		{"about nobody", map[string]any{"groups": []string{"eng"}}, nil, oidc.TokenRefused},
	} {
		l := newLiar(t)
		l.meta["userinfo_endpoint"] = l.issuer + "/info"
		l.info = c.info
		rp := party(t, settings(t, "corp", l.srv))
		_, a := l.begin(t, rp, oidc.Start{})
		p, err := rp.Callback(t.Context(), a)
		if reason(err) != c.want || !slices.Equal(p.Groups, c.groups) || err == nil && p.Email != "ann@corp.example" {
			t.Errorf("%s: %+v, %v", c.name, p, err)
		}
	}
}

func TestPushedRequest(t *testing.T) {
	l := newLiar(t)
	l.meta["pushed_authorization_request_endpoint"] = l.issuer + "/par"
	rp := party(t, settings(t, "corp", l.srv))
	to, err := rp.Begin(t.Context(), "corp", oidc.Start{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	if to.URL != l.issuer+"/auth?client_id=merlon&request_uri=urn%3Ax" {
		t.Error(to.URL)
	}
	if l.pushed.Get("code_challenge_method") != "S256" || l.pushed.Get("state") == "" || l.pushed.Has("client_secret") {
		t.Errorf("%v", l.pushed)
	}
	l.nonce = l.pushed.Get("nonce")
	if _, err := rp.Callback(t.Context(), oidc.Answer{Provider: "corp", Host: host, Cookie: to.Cookie, Query: url.Values{"code": {"c"}, "state": {l.pushed.Get("state")}}}); err != nil {
		t.Error(err)
	}
}

func TestClientProof(t *testing.T) {
	l := newLiar(t)
	l.meta["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
	rp := party(t, settings(t, "corp", l.srv))
	_, a := l.begin(t, rp, oidc.Start{})
	if _, err := rp.Callback(t.Context(), a); err != nil || l.form.Get("client_secret") != secret || l.form.Has("basic") {
		t.Errorf("in the form: %v, %v", l.form, err)
	}

	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []crypto.Signer{rsaKey(), priv} {
		l := newLiar(t)
		s := settings(t, "corp", l.srv)
		s.ClientSecret, s.PrivateKey, s.KeyID = "", secrets.Ref("file:"+file(t, "key.pem", pkcs8(t, k))), "mine"
		rp := party(t, s)
		_, a := l.begin(t, rp, oidc.Start{})
		if _, err := rp.Callback(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		jws, err := jose.ParseSignedCompact(l.form.Get("client_assertion"), []jose.SignatureAlgorithm{jose.RS256, jose.EdDSA})
		if err != nil || l.form.Has("client_secret") || l.form.Has("basic") {
			t.Fatalf("%v, %v", l.form, err)
		}
		b, err := jws.Verify(k.Public())
		var c struct{ Iss, Sub, Aud, Jti string }
		if err != nil || json.Unmarshal(b, &c) != nil || c.Iss != clientID || c.Sub != clientID || c.Aud != l.issuer || c.Jti == "" || jws.Signatures[0].Header.KeyID != "mine" {
			t.Errorf("%s, %v", b, err)
		}
	}
}

func TestClientCertificate(t *testing.T) {
	dir, _ := certificate(t)
	l := newLiar(t)
	l.meta["mtls_endpoint_aliases"] = map[string]any{"token_endpoint": l.issuer + "/mtls/token"}
	s := settings(t, "corp", l.srv)
	s.ClientSecret, s.PrivateKey, s.ClientCertificate = "", secrets.Ref("file:"+dir+"/key.pem"), dir+"/cert.pem"
	next := l.srv.Config.Handler
	l.srv.TLS.ClientAuth = tls.RequestClientCert
	l.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path, ok := strings.CutPrefix(r.URL.Path, "/mtls"); ok && len(r.TLS.PeerCertificates) == 1 {
			r.URL.Path = path
		} else if path == "/token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
	rp := party(t, s)
	_, a := l.begin(t, rp, oidc.Start{})
	if _, err := rp.Callback(t.Context(), a); err != nil || l.form.Get("client_id") != clientID || l.form.Has("client_secret") || l.form.Has("client_assertion") || l.form.Has("basic") {
		t.Errorf("%v, %v", l.form, err)
	}
	l.meta["mtls_endpoint_aliases"] = map[string]any{"token_endpoint": "http://127.0.0.1/token"}
	if _, err := party(t, s).Begin(t.Context(), "corp", oidc.Start{Host: host}); reason(err) != oidc.ProviderDown {
		t.Errorf("an alias by http: %v", err)
	}
}
