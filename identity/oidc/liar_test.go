package oidc_test

import (
	"crypto/rand"
	"crypto/rsa"
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
			"id_token_signing_alg_values_supported": []string{"RS256", "PS256", "ES256", "HS256", "none"}, "end_session_endpoint": l.issuer + "/end?x=1",
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
