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
	"strings"
	"sync"
	"testing"
	"time"

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
	mu    sync.Mutex
	gone  bool
	asked func() // while somebody waits for tokens
}

func (u *users) User(_ context.Context, subject string, _ time.Time) (provider.User, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.asked != nil {
		u.asked()
	}
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
