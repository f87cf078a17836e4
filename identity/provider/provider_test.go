package provider_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/secrets"
)

// signer signs by one key, as the gateway's issuer does by those it rotates.
type signer struct {
	key *rsa.PrivateKey
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func (s signer) Algorithm() string { return "RS256" }

func (s signer) Sign(_ context.Context, claims map[string]any, typ string) (string, error) {
	js, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: s.key},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("kid", "k1"))
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := js.Sign(b)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

func (s signer) Verify(_ context.Context, token, typ string) (map[string]any, error) {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, err
	}
	b, err := jws.Verify(&s.key.PublicKey)
	if err != nil {
		return nil, err
	}
	if jws.Signatures[0].Protected.ExtraHeaders["typ"] != typ {
		return nil, errors.New("another typ")
	}
	var claims map[string]any
	return claims, json.Unmarshal(b, &claims)
}

// users are the people of the tests: ann.
type users struct {
	mu   sync.Mutex
	gone bool
}

func (u *users) User(_ context.Context, subject string, _ time.Time) (provider.User, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone || subject != "ANN" {
		return provider.User{}, provider.ErrNotFound
	}
	return provider.User{Name: "ann", Display: "Ann", Email: "ann@example.com", EmailVerified: true, Groups: []string{"dev"}, Roles: []string{"member"}}, nil
}

// pages note what they are asked to show.
type pages struct {
	w *world
}

func (p pages) LogIn(w http.ResponseWriter, _ *http.Request, need provider.Need) {
	p.w.need = need
	w.WriteHeader(http.StatusUnauthorized)
}

func (p pages) Consent(w http.ResponseWriter, _ *http.Request, ask provider.Ask) {
	p.w.ask = ask
	w.WriteHeader(http.StatusOK)
}

func (p pages) ConfirmLogOut(w http.ResponseWriter, _ *http.Request, ask provider.Ask) {
	p.w.ask = ask
	w.WriteHeader(http.StatusOK)
}

func (p pages) EndSession(http.ResponseWriter, *http.Request) error {
	p.w.ended++
	p.w.identity = nil
	return nil
}

func (p pages) SignedOut(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }

func (p pages) Fail(w http.ResponseWriter, _ *http.Request, status int, reason merlon.Reason) {
	w.Header().Set("Reason", string(reason))
	w.WriteHeader(status)
}

// world is a provider behind TLS, and ann's browser in front of it.
type world struct {
	*provider.Provider
	store  *provider.Memory
	users  *users
	srv    *httptest.Server
	http   *http.Client // follows no redirect
	now    time.Time
	issuer string

	identity *merlon.Identity // who the browser is signed in as
	need     provider.Need
	ask      provider.Ask
	ended    int
}

const (
	secretWiki = "wiki-secret-0123456789-abcdef"
	secretShop = "shop-secret-0123456789-abcdef"
	callback   = "https://wiki.example/callback"
)

func no() *bool { b := false; return &b }

// config has one client of every kind.
func config(t testing.TB, issuer string) provider.Config {
	t.Helper()
	dir := t.TempDir()
	secret := func(name, text string) secrets.Ref {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return secrets.Ref("file:" + path)
	}
	all := []string{"openid", "profile", "email", "groups", "roles", "offline_access", "api"}
	return provider.Config{Issuer: issuer, Clients: []provider.Client{
		{ID: "wiki", Name: "The wiki", Secret: secret("wiki", secretWiki), Redirect: []string{callback, "https://wiki.example/cb?x=1"}, Scopes: all, Consent: no(),
			Logout: []string{"https://wiki.example/bye"}},
		{ID: "shop", Secret: secret("shop", secretShop), Redirect: []string{"https://shop.example/callback"}, Scopes: all},
		{ID: "spa", Public: true, Redirect: []string{"https://spa.example/"}, Consent: no()},
		{ID: "native", Public: true, Redirect: []string{"http://127.0.0.1/cb", "http://[::1]:7000/cb", "com.example.app:/cb"}, Consent: no()},
		{ID: "job", Secret: secret("job", "job-secret-0123456789-abcdef"), Grants: []string{"client_credentials"}, Scopes: []string{"api", "openid"}},
		{ID: "api", Secret: secret("api", "api-secret-0123456789-abcdef"), Grants: []string{"client_credentials"}, Scopes: []string{"x"}, Introspect: true},
		{ID: "plain", Secret: secret("plain", "plain-secret-0123456789-abcdef"), Redirect: []string{"https://plain.example/"}, Grants: []string{"authorization_code"}, Consent: no()},
	}}
}

func newWorld(t testing.TB, change ...func(*provider.Config, *provider.Deps)) *world {
	t.Helper()
	w := &world{store: provider.NewMemory(), users: &users{}, now: time.Now().Truncate(time.Second)}
	mux := http.NewServeMux()
	w.srv = httptest.NewTLSServer(mux)
	t.Cleanup(w.srv.Close)
	w.issuer = w.srv.URL
	w.http = w.srv.Client()
	w.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	key, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	s := signer{rsaKey()}
	c := config(t, w.issuer)
	d := provider.Deps{Store: w.store, Signer: s, JWKS: "/.merlon/jwks.json", Users: w.users, Pages: pages{w}, Key: key, HTTP: w.srv.Client()}
	for _, f := range change {
		f(&c, &d)
	}
	w.Provider, err = provider.New(c, d)
	if err != nil {
		t.Fatal(err)
	}
	w.SetNow(func() time.Time { return w.now })
	w.SetRetry(time.Millisecond)
	handler := w.Handler()
	mux.HandleFunc("/.merlon/jwks.json", func(rw http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(rw).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &s.key.PublicKey, KeyID: "k1", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("/", func(rw http.ResponseWriter, hr *http.Request) {
		r := merlon.NewRequest(hr)
		if hr.Header.Get("Browser") != "" {
			r.Identity = w.identity
		}
		handler.ServeHTTP(rw, r.Request)
	})
	w.logIn()
	return w
}

// logIn signs ann in now.
func (w *world) logIn() {
	w.identity = &merlon.Identity{Subject: "ANN", Name: "ann", Session: "s1", Methods: []string{account.ByPassword, account.TOTP}, When: w.now}
}

// browse is ann's browser.
func (w *world) browse(t testing.TB, method, path string, form url.Values) *http.Response {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, w.issuer+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Browser", "ann's")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return w.do(t, req)
}

func (w *world) do(t testing.TB, req *http.Request) *http.Response {
	t.Helper()
	res, err := w.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// answer is what the application's address is sent.
func answer(t testing.TB, res *http.Response) url.Values {
	t.Helper()
	u, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != http.StatusSeeOther {
		t.Fatalf("%s, Location %q, %v", res.Status, res.Header.Get("Location"), err)
	}
	return u.Query()
}

const testVerifier = "a-verifier-of-at-least-43-characters-0123456789"

func request(client, redirect, scope string) url.Values {
	return url.Values{
		"response_type": {"code"}, "client_id": {client}, "redirect_uri": {redirect}, "scope": {scope}, "state": {"st&te"}, "nonce": {"n1"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(testVerifier)}, "code_challenge_method": {"S256"},
	}
}

// code gets a code for the wiki.
func (w *world) code(t testing.TB, scope string) string {
	t.Helper()
	q := answer(t, w.browse(t, "GET", provider.Authorize+"?"+request("wiki", callback, scope).Encode(), nil))
	if q.Get("code") == "" || q.Get("state") != "st&te" || q.Get("iss") != w.issuer {
		t.Fatalf("answer %v", q)
	}
	return q.Get("code")
}

// post sends a form to an endpoint for programs, with a secret in the header.
func (w *world) post(t testing.TB, path, client, secret string, form url.Values) (*http.Response, map[string]any) {
	t.Helper()
	req, err := http.NewRequest("POST", w.issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if client != "" {
		req.SetBasicAuth(url.QueryEscape(client), url.QueryEscape(secret))
	}
	res := w.do(t, req)
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if len(b) > 0 {
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatalf("%s: %q", res.Status, b)
		}
	}
	if cc := res.Header.Get("Cache-Control"); cc != "no-store" {
		t.Errorf("%s may be stored: %q", path, cc)
	}
	return res, v
}

func exchange(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {testVerifier}}
}

// tokens gets tokens for the wiki.
func (w *world) tokens(t testing.TB, scope string) map[string]any {
	t.Helper()
	res, v := w.post(t, provider.Token, "wiki", secretWiki, exchange(w.code(t, scope)))
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", res.Status, v)
	}
	return v
}

func refresh(v map[string]any) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {fmt.Sprint(v["refresh_token"])}}
}

// holds reports whether an access token does.
func (w *world) holds(t testing.TB, v map[string]any) bool {
	t.Helper()
	_, a := w.post(t, provider.Introspect, "wiki", secretWiki, url.Values{"token": {fmt.Sprint(v["access_token"])}})
	active, _ := a["active"].(bool)
	return active
}

// TestRoundTrip is an application made of go-oidc and x/oauth2.
func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	ctx := oidc.ClientContext(t.Context(), w.srv.Client())
	op, err := oidc.NewProvider(ctx, w.issuer)
	if err != nil {
		t.Fatal(err)
	}
	conf := oauth2.Config{ClientID: "wiki", ClientSecret: secretWiki, RedirectURL: callback, Endpoint: op.Endpoint(), Scopes: []string{"openid", "profile", "email", "groups", "offline_access"}}
	v := oauth2.GenerateVerifier()
	u, err := url.Parse(conf.AuthCodeURL("s", oidc.Nonce("n"), oauth2.S256ChallengeOption(v)))
	if err != nil {
		t.Fatal(err)
	}
	q := answer(t, w.browse(t, "GET", u.RequestURI(), nil))
	tok, err := conf.Exchange(ctx, q.Get("code"), oauth2.VerifierOption(v))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := tok.Extra("id_token").(string)
	id, err := op.Verifier(&oidc.Config{ClientID: "wiki"}).Verify(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.VerifyAccessToken(tok.AccessToken); err != nil || id.AccessTokenHash == "" {
		t.Errorf("at_hash: %v", err)
	}
	var claims struct {
		Nonce, Azp, Sid, Acr, Email string
		Amr, Groups                 []string
		AuthTime                    int64  `json:"auth_time"`
		Verified                    bool   `json:"email_verified"`
		User                        string `json:"preferred_username"`
	}
	if err := id.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	if claims.Nonce != "n" || claims.Azp != "wiki" || claims.Sid == "" || claims.Sid == "s1" || claims.Acr != "multi-factor" || claims.AuthTime != w.now.Unix() ||
		!slices.Equal(claims.Amr, []string{"mfa", "otp", "pwd"}) || !slices.Equal(claims.Groups, []string{"dev"}) || claims.User != "ann" || claims.Email != "ann@example.com" || !claims.Verified {
		t.Errorf("%+v", claims)
	}
	info, err := op.UserInfo(ctx, oauth2.StaticTokenSource(tok))
	if err != nil || info.Subject != "ANN" || info.Email != "ann@example.com" || !info.EmailVerified {
		t.Errorf("user info %+v, %v", info, err)
	}
	tok.Expiry = time.Now().Add(-time.Hour)
	next, err := conf.TokenSource(ctx, tok).Token()
	if err != nil || next.AccessToken == tok.AccessToken || next.RefreshToken == tok.RefreshToken || next.RefreshToken == "" {
		t.Errorf("refreshed: %v", err)
	}
}

func TestAccessToken(t *testing.T) {
	w := newWorld(t)
	v := w.tokens(t, "openid groups api")
	c, err := signer{rsaKey()}.Verify(t.Context(), fmt.Sprint(v["access_token"]), "at+jwt")
	if err != nil {
		t.Fatal(err)
	}
	if c["iss"] != w.issuer || c["sub"] != "ANN" || c["client_id"] != "wiki" || c["scope"] != "api groups openid" || c["jti"] == "" ||
		fmt.Sprint(c["aud"]) != "["+w.issuer+"]" || c["exp"].(float64)-c["iat"].(float64) != 300 || fmt.Sprint(c["groups"]) != "[dev]" || c["roles"] != nil {
		t.Errorf("%v", c)
	}
	if v["token_type"] != "Bearer" || v["expires_in"] != 300.0 {
		t.Errorf("%v", v)
	}
	w.now = w.now.Add(5 * time.Minute)
	if w.holds(t, v) {
		t.Error("holds longer than it says")
	}
}

// Trap 57: what must not get a code is told to the person, not sent on.
func TestRedirectURI(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, client, uri string
		ok                bool
	}{
		{"the registered one", "wiki", callback, true},
		{"another registered one, with a query", "wiki", "https://wiki.example/cb?x=1", true},
		{"none", "wiki", "", false},
		{"trap 57: a prefix", "wiki", "https://wiki.example/call", false},
		{"trap 57: something after it", "wiki", callback + "/evil", false},
		{"trap 57: a slash after it", "wiki", callback + "/", false},
		{"trap 57: dots", "wiki", "https://wiki.example/callback/../evil", false},
		{"trap 57: dots that lead back", "wiki", "https://wiki.example/x/../callback", false},
		{"trap 57: encoded dots", "wiki", "https://wiki.example/callback/%2e%2e/evil", false},
		{"trap 57: a port", "wiki", "https://wiki.example:443/callback", false},
		{"trap 57: a fragment", "wiki", callback + "#x", false},
		{"trap 57: a parameter", "wiki", callback + "?a=b", false},
		{"trap 57: another value of its parameter", "wiki", "https://wiki.example/cb?x=2", false},
		{"trap 57: one more parameter", "wiki", "https://wiki.example/cb?x=1&y=2", false},
		{"upper case", "wiki", "https://WIKI.example/callback", false},
		{"http", "wiki", "http://wiki.example/callback", false},
		{"a user", "wiki", "https://wiki.example@evil.example/callback", false},
		{"a backslash", "wiki", `https://evil.example\wiki.example/callback`, false},
		{"a sub-domain", "wiki", "https://wiki.example.evil.example/callback", false},
		{"a space", "wiki", " " + callback, false},
		{"another client's", "wiki", "https://shop.example/callback", false},
		{"loopback, no port", "native", "http://127.0.0.1/cb", true},
		{"trap 57: loopback, any port", "native", "http://127.0.0.1:49152/cb", true},
		{"trap 57: IPv6 loopback, another port", "native", "http://[::1]:1/cb", true},
		{"loopback, another path", "native", "http://127.0.0.1:49152/cb2", false},
		{"loopback, a longer host", "native", "http://127.0.0.1.evil.example/cb", false},
		{"loopback, a user", "native", "http://127.0.0.1:80@evil.example/cb", false},
		{"loopback, no such port", "native", "http://127.0.0.1:65536/cb", false},
		{"loopback by name", "native", "http://localhost/cb", false},
		{"loopback, https", "native", "https://127.0.0.1/cb", false},
		{"another loopback address", "native", "http://127.0.0.2/cb", false},
		{"a scheme of its own", "native", "com.example.app:/cb", true},
		{"a scheme of its own, a host", "native", "com.example.app://cb", false},
		{"an unknown client", "nobody", callback, false},
		{"a client for itself", "job", callback, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := w.browse(t, "GET", provider.Authorize+"?"+request(c.client, c.uri, "openid").Encode(), nil)
			if to := res.Header.Get("Location"); (to != "") != c.ok || c.ok && (!strings.HasPrefix(to, c.uri) || answer(t, res).Get("code") == "") {
				t.Errorf("%s, Location %q", res.Status, to)
			}
			if !c.ok && res.StatusCode != http.StatusBadRequest {
				t.Error(res.Status)
			}
		})
	}
}

// Trap 57 and RFC 9700: what an application may not ask for.
func TestAuthorizationRequest(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, want string
		set        url.Values // empty: not there
	}{
		{"trap 57: PKCE missing", "invalid_request", url.Values{"code_challenge": {}, "code_challenge_method": {}}},
		{"trap 57: PKCE plain", "invalid_request", url.Values{"code_challenge_method": {"plain"}}},
		{"trap 57: PKCE method missing, which means plain", "invalid_request", url.Values{"code_challenge_method": {}}},
		{"trap 57: PKCE challenge missing", "invalid_request", url.Values{"code_challenge": {}}},
		{"PKCE challenge too short", "invalid_request", url.Values{"code_challenge": {"abc"}}},
		{"trap 57: implicit", "unsupported_response_type", url.Values{"response_type": {"token"}}},
		{"trap 57: implicit with an ID token", "unsupported_response_type", url.Values{"response_type": {"id_token"}}},
		{"trap 57: hybrid", "unsupported_response_type", url.Values{"response_type": {"code id_token"}}},
		{"no response_type", "unsupported_response_type", url.Values{"response_type": {}}},
		{"fragment", "invalid_request", url.Values{"response_mode": {"fragment"}}},
		{"form_post", "invalid_request", url.Values{"response_mode": {"form_post"}}},
		{"a request object", "request_not_supported", url.Values{"request": {"x.y.z"}}},
		{"a request URI, which we would have to fetch", "request_uri_not_supported", url.Values{"request_uri": {"https://evil.example"}}},
		{"a scope of others", "invalid_scope", url.Values{"scope": {"openid admin"}}},
		{"no scope", "invalid_scope", url.Values{"scope": {}}},
		{"a parameter twice", "invalid_request", url.Values{"nonce": {"a", "b"}}},
		{"state twice", "invalid_request", url.Values{"state": {"a", "b"}}},
		{"unknown prompt", "invalid_request", url.Values{"prompt": {"create"}}},
		{"prompt none and login", "invalid_request", url.Values{"prompt": {"none login"}}},
		{"max_age that is none", "invalid_request", url.Values{"max_age": {"-1"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := request("wiki", callback, "openid")
			for k, v := range c.set {
				if q[k] = v; len(v) == 0 {
					delete(q, k)
				}
			}
			a := answer(t, w.browse(t, "GET", provider.Authorize+"?"+q.Encode(), nil))
			if a.Get("error") != c.want || a.Get("code") != "" || a.Get("iss") != w.issuer {
				t.Errorf("%v", a)
			}
		})
	}
	for name, query := range map[string]string{
		"client_id twice":    request("wiki", callback, "openid").Encode() + "&client_id=shop",
		"redirect_uri twice": request("wiki", callback, "openid").Encode() + "&redirect_uri=https://evil.example",
		"broken encoding":    request("wiki", callback, "openid").Encode() + "&a=%zz",
		"too long":           request("wiki", callback, "openid").Encode() + "&a=" + strings.Repeat("a", 2048),
	} {
		if res := w.browse(t, "GET", provider.Authorize+"?"+query, nil); res.StatusCode != http.StatusBadRequest || res.Header.Get("Location") != "" {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
}

// Trap 57: what does not get tokens for a code.
func TestCode(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, client, secret string
		set                  url.Values
		later                time.Duration
		ok                   bool
	}{
		{name: "as it should be", client: "wiki", secret: secretWiki, ok: true},
		{name: "within its minute", client: "wiki", secret: secretWiki, later: 59 * time.Second, ok: true},
		{name: "after its minute", client: "wiki", secret: secretWiki, later: time.Minute},
		{name: "trap 57: no verifier", client: "wiki", secret: secretWiki, set: url.Values{"code_verifier": {}}},
		{name: "trap 57: another verifier, as of an injected code", client: "wiki", secret: secretWiki, set: url.Values{"code_verifier": {"b" + testVerifier}}},
		{name: "trap 57: the challenge for a verifier", client: "wiki", secret: secretWiki, set: url.Values{"code_verifier": {oauth2.S256ChallengeFromVerifier(testVerifier)}}},
		{name: "another redirect URI", client: "wiki", secret: secretWiki, set: url.Values{"redirect_uri": {"https://wiki.example/cb?x=1"}}},
		{name: "no redirect URI", client: "wiki", secret: secretWiki, set: url.Values{"redirect_uri": {}}},
		{name: "trap 57: another client", client: "shop", secret: secretShop},
		{name: "no such code", client: "wiki", secret: secretWiki, set: url.Values{"code": {"x"}}},
		{name: "no code", client: "wiki", secret: secretWiki, set: url.Values{"code": {}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.logIn()
			code := w.code(t, "openid")
			form := exchange(code)
			for k, v := range c.set {
				form[k] = v
			}
			w.now = w.now.Add(c.later)
			res, v := w.post(t, provider.Token, c.client, c.secret, form)
			if ok := res.StatusCode == http.StatusOK && v["access_token"] != nil; ok != c.ok || !ok && v["error"] != "invalid_grant" {
				t.Errorf("%s: %v", res.Status, v)
			}
			if c.ok || c.set["code"] != nil {
				return
			}
			// A wrong try uses it up.
			if res, v := w.post(t, provider.Token, "wiki", secretWiki, exchange(code)); res.StatusCode != http.StatusBadRequest {
				t.Errorf("a second try: %s: %v", res.Status, v)
			}
		})
	}
}

func TestTrap57CodeReplay(t *testing.T) {
	w := newWorld(t)
	code := w.code(t, "openid")
	_, v := w.post(t, provider.Token, "wiki", secretWiki, exchange(code))
	_, v2 := w.post(t, provider.Token, "wiki", secretWiki, refresh(v))
	if !w.holds(t, v) || !w.holds(t, v2) {
		t.Fatal("tokens do not hold")
	}
	if res, e := w.post(t, provider.Token, "wiki", secretWiki, exchange(code)); res.StatusCode != http.StatusBadRequest || e["error"] != "invalid_grant" {
		t.Errorf("replayed: %s: %v", res.Status, e)
	}
	if w.holds(t, v) || w.holds(t, v2) {
		t.Error("access tokens hold after the code was replayed")
	}
	if res, _ := w.post(t, provider.Token, "wiki", secretWiki, refresh(v2)); res.StatusCode != http.StatusBadRequest {
		t.Error("the refresh token works after the code was replayed")
	}
}

// Of many that come at once with one code or refresh token at most one gets
// anything, and whatever it got has ended.
func TestTrap57Race(t *testing.T) {
	race := func(t *testing.T, w *world, form url.Values) (won []map[string]any) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if res, v := w.post(t, provider.Token, "wiki", secretWiki, form); res.StatusCode == http.StatusOK {
					mu.Lock()
					won = append(won, v)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return won
	}
	for range 5 {
		w := newWorld(t)
		won := race(t, w, exchange(w.code(t, "openid")))
		won = append(won, race(t, w, refresh(w.tokens(t, "openid")))...)
		if len(won) > 2 {
			t.Errorf("%d got tokens", len(won))
		}
		for _, v := range won {
			if w.holds(t, v) {
				t.Error("the winner's token holds although the code was replayed")
			}
			if res, _ := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); res.StatusCode == http.StatusOK {
				t.Error("the winner's refresh token works")
			}
		}
	}
}

func TestRefresh(t *testing.T) {
	w := newWorld(t)
	v := w.tokens(t, "openid email")
	_, v2 := w.post(t, provider.Token, "wiki", secretWiki, refresh(v))
	if !w.holds(t, v2) || v2["refresh_token"] == v["refresh_token"] || v2["id_token"] == nil {
		t.Fatalf("%v", v2)
	}
	// Trap 56: reuse ends the family.
	if res, e := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); res.StatusCode != http.StatusBadRequest || e["error"] != "invalid_grant" {
		t.Errorf("reused: %s: %v", res.Status, e)
	}
	if w.holds(t, v2) {
		t.Error("the access token holds")
	}
	if res, _ := w.post(t, provider.Token, "wiki", secretWiki, refresh(v2)); res.StatusCode != http.StatusBadRequest {
		t.Error("trap 56: the successor works although the family ended")
	}

	narrow := refresh(w.tokens(t, "openid email"))
	narrow.Set("scope", "openid")
	_, v = w.post(t, provider.Token, "wiki", secretWiki, narrow)
	if v["scope"] != "openid" {
		t.Errorf("%v", v)
	}
	wide := refresh(v)
	wide.Set("scope", "openid groups")
	if _, e := w.post(t, provider.Token, "wiki", secretWiki, wide); e["error"] != "invalid_scope" {
		t.Errorf("%v", e)
	}
	if _, v := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); v["scope"] != "email openid" {
		t.Errorf("what was not asked for once is lost: %v", v)
	}
}

func TestRefreshRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		scope string
		do    func(*testing.T, *world)
		ok    bool
	}{
		{"offline, after 6 days", "openid offline_access", func(_ *testing.T, w *world) { w.now = w.now.Add(6 * 24 * time.Hour) }, true},
		{"offline, unused for 7 days", "openid offline_access", func(_ *testing.T, w *world) { w.now = w.now.Add(7 * 24 * time.Hour) }, false},
		{"not offline, the next morning", "openid", func(_ *testing.T, w *world) { w.now = w.now.Add(23 * time.Hour) }, true},
		{"not offline, a day later", "openid", func(_ *testing.T, w *world) { w.now = w.now.Add(24 * time.Hour) }, false},
		{"trap 56: after the log-out", "openid", func(t *testing.T, w *world) { out(t, w, "s1") }, false},
		{"offline, after the log-out", "openid offline_access", func(t *testing.T, w *world) { out(t, w, "s1") }, true},
		{"after another session's log-out", "openid", func(t *testing.T, w *world) { out(t, w, "s2") }, true},
		{"offline, after all were logged out", "openid offline_access", func(t *testing.T, w *world) { out(t, w, "") }, false},
		{"after the account was disabled", "openid", func(_ *testing.T, w *world) { w.users.gone = true }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			v := w.tokens(t, c.scope)
			c.do(t, w)
			if res, e := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); (res.StatusCode == http.StatusOK) != c.ok {
				t.Errorf("%s: %v", res.Status, e)
			}
		})
	}
	t.Run("absolute expiry beats sliding", func(t *testing.T) {
		w := newWorld(t)
		v := w.tokens(t, "openid offline_access")
		for day := 0; ; day += 6 {
			w.now = w.now.Add(6 * 24 * time.Hour)
			res, next := w.post(t, provider.Token, "wiki", secretWiki, refresh(v))
			if res.StatusCode != http.StatusOK {
				if day+6 != 30 {
					t.Errorf("ended after %d days", day+6)
				}
				break
			}
			v = next
		}
	})
	t.Run("trap 56: another client's", func(t *testing.T) {
		w := newWorld(t)
		v := w.tokens(t, "openid")
		if res, _ := w.post(t, provider.Token, "shop", secretShop, refresh(v)); res.StatusCode != http.StatusBadRequest {
			t.Error(res.Status)
		}
		if w.holds(t, v) {
			t.Error("holds although it was stolen")
		}
	})
	t.Run("trap 56: it is no access token", func(t *testing.T) {
		w := newWorld(t)
		v := w.tokens(t, "openid")
		if status := w.userInfo(t, "Bearer "+fmt.Sprint(v["refresh_token"])); status != http.StatusUnauthorized {
			t.Error(status)
		}
	})
}

func out(t *testing.T, w *world, session string) {
	t.Helper()
	if err := w.LoggedOut(t.Context(), "ANN", session); err != nil {
		t.Fatal(err)
	}
}

func (w *world) userInfo(t testing.TB, authorization ...string) int {
	t.Helper()
	req, err := http.NewRequest("GET", w.issuer+provider.UserInfo, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range authorization {
		req.Header.Add("Authorization", a)
	}
	res := w.do(t, req)
	if res.StatusCode == http.StatusUnauthorized && !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Bearer") {
		t.Error("no challenge")
	}
	return res.StatusCode
}

func FuzzRedirectURI(f *testing.F) {
	for _, s := range [][2]string{
		{callback, callback}, {"http://127.0.0.1/cb", "http://127.0.0.1:1/cb"}, {"http://[::1]:2/cb?a=b", "http://[::1]:3/cb?a=b"},
		{"http://127.0.0.1", "http://127.0.0.1:80@evil/"}, {"http://127.0.0.1/", "http://127.0.0.1.evil/"}, {"com.a.b:/c", "com.a.b:/c"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, registered, uri string) {
		if provider.BadRedirect(registered, true) != "" || !provider.SameRedirect(registered, uri) {
			return
		}
		r, err1 := url.Parse(registered)
		u, err2 := url.Parse(uri)
		if err1 != nil || err2 != nil {
			t.Fatalf("%q, %q: %v, %v", registered, uri, err1, err2)
		}
		if registered == uri {
			return
		}
		if u.Scheme != "http" || u.Hostname() != "127.0.0.1" && u.Hostname() != "::1" || u.User != nil || u.Fragment != "" {
			t.Errorf("%q is taken for %q", uri, registered)
		}
		r.Host, u.Host = r.Hostname(), u.Hostname()
		if *r != *u {
			t.Errorf("%q is taken for %q: more than the port differs", uri, registered)
		}
	})
}

func FuzzAuthorize(f *testing.F) {
	w := newWorld(f)
	f.Add(request("wiki", callback, "openid").Encode())
	f.Add(request("native", "http://127.0.0.1:99/cb", "openid").Encode())
	f.Add(request("wiki", callback, "openid").Encode() + "&prompt=none&merlon_after=1&max_age=0")
	handler := w.Handler()
	f.Fuzz(func(t *testing.T, query string) {
		hr := httptest.NewRequest("GET", provider.Authorize, nil)
		hr.URL.RawQuery = query
		r := merlon.NewRequest(hr)
		r.Identity = w.identity
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r.Request)
		to := rec.Header().Get("Location")
		if to == "" {
			return
		}
		u, err := url.Parse(to)
		if err != nil || rec.Code != http.StatusSeeOther {
			t.Fatalf("%d to %q, %v", rec.Code, to, err)
		}
		if !slices.Contains([]string{"wiki.example", "shop.example", "spa.example", "plain.example", "127.0.0.1", "::1", ""}, u.Hostname()) || u.Hostname() == "" && u.Scheme != "com.example.app" {
			t.Errorf("sent to %q", to)
		}
		if q := u.Query(); q.Get("iss") != w.issuer || (q.Get("code") == "") == (q.Get("error") == "") {
			t.Errorf("answer %v", q)
		}
	})
}
