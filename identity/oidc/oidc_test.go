package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/secrets"
)

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// liar is a provider that says what a test wants.
type liar struct {
	srv    *httptest.Server
	issuer string
	meta   map[string]any // of the metadata; nil: left out
	claims map[string]any // of the ID token; nil: left out
	info   map[string]any // of user info
	sign   func(claims map[string]any) string
	token  func(w http.ResponseWriter, r *http.Request) bool // answers instead
	keys   any
	down   bool

	mu     sync.Mutex
	nonce  string
	form   url.Values // what the token endpoint was sent
	pushed url.Values
	hits   map[string]int
}

const (
	clientID = "merlon"
	secret   = "the secret & more"
	host     = "shop.example"
)

func newLiar(t testing.TB) *liar {
	l := &liar{meta: map[string]any{}, claims: map[string]any{}, hits: map[string]int{}}
	l.sign = func(c map[string]any) string { return sign(t, jose.RS256, rsaKey(), "k1", "JWT", c) }
	l.keys = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &rsaKey().PublicKey, KeyID: "k1", Use: "sig", Algorithm: "RS256"}}}
	mux := http.NewServeMux()
	l.srv = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.hits[r.URL.Path]++
		if l.down {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(l.srv.Close)
	l.issuer = l.srv.URL
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		m := map[string]any{
			"issuer": l.issuer, "authorization_endpoint": l.issuer + "/auth", "token_endpoint": l.issuer + "/token", "jwks_uri": l.issuer + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256", "ES256", "HS256", "none"}, "end_session_endpoint": l.issuer + "/end?x=1",
		}
		override(m, l.meta)
		write(w, m)
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { write(w, l.keys) })
	mux.HandleFunc("/info", func(w http.ResponseWriter, _ *http.Request) { write(w, l.info) })
	mux.HandleFunc("/par", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		l.pushed = r.PostForm
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprint(w, `{"request_uri":"urn:x","expires_in":60}`)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		l.form = r.PostForm
		if user, pass, ok := r.BasicAuth(); ok {
			l.form.Set("basic", user+":"+pass)
		}
		if l.token != nil && l.token(w, r) {
			return
		}
		c := map[string]any{
			"iss": l.issuer, "sub": "u1", "aud": clientID, "exp": time.Now().Add(time.Minute).Unix(), "iat": time.Now().Unix(), "nonce": l.nonce,
			"email": "Ann@Corp.example", "email_verified": true, "preferred_username": "ann", "sid": "s1",
		}
		override(c, l.claims)
		write(w, map[string]any{"access_token": "at", "token_type": "Bearer", "expires_in": 60, "id_token": l.sign(c)})
	})
	return l
}

func override(m, by map[string]any) {
	maps.Copy(m, by)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, kid, typ string, claims any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("kid", kid))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := s.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// settings are a provider's settings that trust the server's certificate.
func settings(t testing.TB, name string, srv *httptest.Server) oidc.Provider {
	t.Helper()
	return oidc.Provider{
		Name: name, Issuer: srv.URL, ClientID: clientID, ClientSecret: secrets.Ref("file:" + file(t, "secret", secret)),
		CA:      file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))),
		Domains: []string{"corp.example"}, Groups: map[string]string{"eng": "dev"}, Roles: map[string]string{"ops": "admin"},
	}
}

func key(t testing.TB) secrets.Key {
	t.Helper()
	k, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func party(t testing.TB, ps ...oidc.Provider) *oidc.RelyingParty {
	t.Helper()
	rp, err := oidc.New(oidc.Config{Providers: ps}, key(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return rp
}

// begin begins a log-in and lets the liar know its nonce.
func (l *liar) begin(t testing.TB, rp *oidc.RelyingParty, s oidc.Start) (url.Values, oidc.Answer) {
	t.Helper()
	if s.Host == "" {
		s.Host = host
	}
	to, err := rp.Begin(t.Context(), "corp", s)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(to.URL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	l.mu.Lock()
	l.nonce = q.Get("nonce")
	l.mu.Unlock()
	return q, oidc.Answer{Provider: "corp", Host: s.Host, Query: url.Values{"code": {"c1"}, "state": {q.Get("state")}}, Cookie: to.Cookie}
}

func reason(err error) merlon.Reason {
	if e, ok := errors.AsType[*oidc.Error](err); ok {
		return e.Reason
	}
	if err != nil {
		return merlon.Reason(err.Error())
	}
	return ""
}

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
