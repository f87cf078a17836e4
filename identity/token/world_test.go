package token_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/token"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	ours   = "https://shop.example.com"
	theirs = "https://id.example.com/realms/shop"
)

var b64 = base64.RawURLEncoding

// pair is the other issuer's keys, made once: RSA takes its time.
var pair = sync.OnceValue(func() map[string]crypto.Signer {
	r, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		panic(err)
	}
	p, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		panic(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	_, d, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return map[string]crypto.Signer{"RS256": r, "PS256": p, "ES256": e, "EdDSA": d}
})

// kid is the name of the other issuer's key for an algorithm.
func kid(alg string) string { return "key-" + strings.ToLower(alg) }

// A world is a service and another issuer's server with its keys.
type world struct {
	*token.Service
	store *token.Memory
	clock *clock

	mu   sync.Mutex
	keys []byte // what the server answers
	code int
	loc  string
	hits atomic.Int64
	url  string
	ca   string
}

// A clock is one that tests move.
type clock struct{ off atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.off.Load())) }
func (c *clock) move(d time.Duration) { c.off.Add(int64(d)) }

func masterKey(t testing.TB) secrets.Key {
	t.Helper()
	k, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newWorld returns a world; change may change the configuration.
func newWorld(t testing.TB, change func(*token.Config)) *world {
	t.Helper()
	w := &world{store: token.NewMemory(), clock: new(clock), code: http.StatusOK}
	var set jose.JSONWebKeySet
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: pair()[alg].Public(), KeyID: kid(alg), Algorithm: alg, Use: "sig"})
	}
	w.publish(t, set)
	srv := httptest.NewTLSServer(http.HandlerFunc(w.serve))
	t.Cleanup(srv.Close)
	w.url = srv.URL
	w.ca = filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(w.ca, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	c := token.Config{
		Issuer: ours, Algorithm: "EdDSA",
		Issuers: []token.Issuer{{
			Issuer: theirs, Audience: []string{"shop-api"}, JWKS: srv.URL + "/jwks", CA: w.ca, Private: true,
			Types: []string{"at+jwt", "JWT", "none"}, Groups: "groups", Roles: "/realm_access/roles",
			Methods: map[string]string{"pwd": "password", "otp": "totp"},
		}},
	}
	if change != nil {
		change(&c)
	}
	w.Service = w.open(t, c)
	return w
}

// open returns a service, one replica more, over the world's store.
func (w *world) open(t testing.TB, c token.Config) *token.Service {
	t.Helper()
	s, err := token.New(t.Context(), c, masterKey(t), w.store)
	if err != nil {
		t.Fatal(err)
	}
	s.SetNow(w.clock.now)
	return s
}

func (w *world) publish(t testing.TB, set any) {
	t.Helper()
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.keys = b
	w.mu.Unlock()
}

// answer sets how the server answers.
func (w *world) answer(code int, loc string) {
	w.mu.Lock()
	w.code, w.loc = code, loc
	w.mu.Unlock()
}

func (w *world) serve(rw http.ResponseWriter, _ *http.Request) {
	w.hits.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.loc != "" {
		rw.Header().Set("Location", w.loc)
	}
	rw.WriteHeader(w.code)
	if w.code == http.StatusOK {
		_, _ = rw.Write(w.keys)
	}
}

// drop, as a value, removes a claim.
type drop struct{}

func (w *world) claims(change map[string]any) map[string]any {
	now := w.clock.now()
	c := map[string]any{
		"iss": theirs, "sub": "ann", "aud": "shop-api", "jti": "id-1",
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "client_id": "app", "scope": "read write",
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == drop{} })
	return c
}

func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// header returns a header for an algorithm, with members added.
func header(alg string, change map[string]any) map[string]any {
	h := map[string]any{"alg": alg, "kid": kid(alg), "typ": "at+jwt"}
	maps.Copy(h, change)
	maps.DeleteFunc(h, func(_ string, v any) bool { return v == drop{} })
	return h
}

// mint signs a token without go-jose, so that it can be as wrong as it likes.
// Header and payload are JSON text or values for it.
func mint(alg string, key any, header, payload any) string {
	input := b64.EncodeToString([]byte(text(header))) + "." + b64.EncodeToString([]byte(text(payload)))
	return input + "." + b64.EncodeToString(signature(alg, key, input))
}

func signature(alg string, key any, input string) []byte {
	sum := sha256.Sum256([]byte(input))
	var sig []byte
	var err error
	switch alg {
	case "RS256":
		sig, err = rsa.SignPKCS1v15(nil, key.(*rsa.PrivateKey), crypto.SHA256, sum[:])
	case "PS256":
		sig, err = rsa.SignPSS(rand.Reader, key.(*rsa.PrivateKey), crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: 32})
	case "ES256":
		var r, s *big.Int
		k := key.(*ecdsa.PrivateKey)
		if r, s, err = ecdsa.Sign(rand.Reader, k, sum[:]); err == nil {
			n := (k.Curve.Params().BitSize + 7) / 8
			sig = append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...)
		}
	case "EdDSA":
		sig = ed25519.Sign(key.(ed25519.PrivateKey), []byte(input))
	case "HS256":
		h := hmac.New(sha256.New, key.([]byte))
		h.Write([]byte(input))
		sig = h.Sum(nil)
	}
	if err != nil {
		panic(err)
	}
	return sig
}

// good returns a token that holds.
func (w *world) good(alg string) string {
	return mint(alg, pair()[alg], header(alg, nil), w.claims(nil))
}

// reason returns the reason of an error.
func reason(t testing.TB, err error) merlon.Reason {
	t.Helper()
	if err == nil {
		return ""
	}
	e, ok := errors.AsType[*token.Error](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	return e.Reason()
}

func request(fields ...string) *merlon.Request {
	r := httptest.NewRequest(http.MethodGet, ours+"/", nil)
	for _, f := range fields {
		r.Header.Add("Authorization", f)
	}
	return merlon.NewRequest(r)
}

func verify(s *token.Service, tok string) (*token.Claims, error) {
	return s.Verify(context.Background(), tok)
}

func ecKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// joseToken signs with go-jose.
func joseToken(t testing.TB, k jose.SigningKey, typ string, claims any) string {
	t.Helper()
	s, err := jose.NewSigner(k, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		t.Fatal(err)
	}
	jws, err := s.Sign([]byte(text(claims)))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
