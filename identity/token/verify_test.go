package token_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/token"
)

// Honest tokens of every algorithm hold, so that the rows of TestAttacks fail
// for the reason that they name.
func TestHonest(t *testing.T) {
	w := newWorld(t, nil)
	for alg := range pair() {
		for range 2 { // the second time from the cache
			c, err := verify(w.Service, w.good(alg))
			if err != nil || c.Subject != "ann" || c.Client != "app" || !slices.Equal(c.Scopes, []string{"read", "write"}) {
				t.Errorf("%s: %+v, %v", alg, c, err)
			}
		}
	}
	key := pair()["ES256"]
	for name, tok := range map[string]string{
		"aud list":            mint("ES256", key, header("ES256", nil), w.claims(map[string]any{"aud": []string{"other", "shop-api"}})),
		"scope list":          mint("ES256", key, header("ES256", nil), w.claims(map[string]any{"scope": []string{"read", "write"}})),
		"no scope":            mint("ES256", key, header("ES256", nil), w.claims(map[string]any{"scope": drop{}})),
		"no jti":              mint("ES256", key, header("ES256", nil), w.claims(map[string]any{"jti": drop{}})),
		"typ application/":    mint("ES256", key, header("ES256", map[string]any{"typ": "application/AT+JWT"}), w.claims(nil)),
		"typ JWT":             mint("ES256", key, header("ES256", map[string]any{"typ": "JWT"}), w.claims(nil)),
		"no typ":              mint("ES256", key, header("ES256", map[string]any{"typ": drop{}}), w.claims(nil)),
		"no kid, one key":     mint("ES256", key, header("ES256", map[string]any{"kid": drop{}}), w.claims(nil)),
		"clock a minute slow": mint("ES256", key, header("ES256", nil), w.claims(map[string]any{"iat": w.clock.now().Add(50 * time.Second).Unix(), "nbf": w.clock.now().Add(50 * time.Second).Unix()})),
		// Issuers send these; nobody looks at them.
		"trap 53: jku of an honest issuer": mint("ES256", key, header("ES256", map[string]any{"jku": "https://id.example.com/keys", "x5t": "AAAA"}), w.claims(nil)),
	} {
		if _, err := verify(w.Service, tok); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Trap 52: both s and n-s verify, as ECDSA has it. Nothing here tells
	// tokens apart by their signature: the cache just holds both.
	k := key.(*ecdsa.PrivateKey)
	tok := w.good("ES256")
	input, sig, _ := cutLast(tok)
	b, _ := b64.DecodeString(sig)
	s := new(big.Int).SetBytes(b[32:])
	s.Sub(k.Params().N, s).FillBytes(b[32:])
	if _, err := verify(w.Service, input+"."+b64.EncodeToString(b)); err != nil {
		t.Errorf("trap 52: the other s: %v", err)
	}
}

func cutLast(tok string) (input, sig string, ok bool) {
	i := strings.LastIndexByte(tok, '.')
	return tok[:i], tok[i+1:], i >= 0
}

func TestAttacks(t *testing.T) {
	w := newWorld(t, nil)
	if _, err := verify(w.Service, w.good("ES256")); err != nil {
		t.Fatal(err)
	}
	for _, a := range attacks(w) {
		t.Run(a.name, func(t *testing.T) {
			for range 2 { // a refusal is not remembered as anything else
				c, err := verify(w.Service, a.token)
				if c != nil || reason(t, err) != a.want {
					t.Errorf("got %v, %v; want %s", c, err, a.want)
				}
			}
			if id, err := w.Prove(request("Bearer " + a.token)); err == nil || id != nil || errors.Is(err, merlon.ErrNoProof) {
				t.Errorf("as a request: %v, %v", id, err)
			}
		})
	}
	// Trap 53: all of the unknown kids, and the pages that tokens pointed to,
	// made one request beside the first.
	if n := w.hits.Load(); n > 2 {
		t.Errorf("trap 53: the issuer was asked %d times", n)
	}
}

func TestProve(t *testing.T) {
	w := newWorld(t, nil)
	own, _, err := w.Issue(t.Context(), token.Claims{
		Subject: "acct-1", Name: "ann", Groups: []string{"staff", "dev"}, Roles: []string{"member"},
		Scopes: []string{"read"}, Methods: []string{"password", "totp"}, AuthTime: w.clock.now(), Session: "s1",
	})
	if err != nil {
		t.Fatal(err)
	}
	id, err := w.Prove(request("Bearer " + own))
	if err != nil {
		t.Fatal(err)
	}
	if id.Subject != "acct-1" || id.Name != "ann" || id.Session != "s1" || !slices.Equal(id.Groups, []string{"dev", "staff"}) ||
		!slices.Equal(id.Methods, []string{"password", "totp", "token"}) || id.When.IsZero() || id.Done == nil {
		t.Errorf("got %+v", id)
	}
	other := mint("ES256", pair()["ES256"], header("ES256", nil), w.claims(map[string]any{
		"sub": "acct-1", "groups": []string{"g"}, "realm_access": map[string]any{"roles": []string{"r"}},
		"amr": []string{"pwd", "otp", "sms"}, "sid": "s1", "scope": drop{}, "preferred_username": "admin",
	}))
	id, err = w.Prove(request("bearer  " + other))
	if err != nil {
		t.Fatal(err)
	}
	// Trap 54: the same sub of another issuer is somebody else.
	if id.Subject != theirs+"#acct-1" || id.Name != id.Subject || id.Session != "" || !slices.Equal(id.Roles, []string{"r"}) ||
		!slices.Equal(id.Methods, []string{"password", "totp", "token"}) || id.Scopes == nil || len(id.Scopes) != 0 {
		t.Errorf("got %+v", id)
	}

	none := []*merlon.Request{
		request(), request("Basic YTpi"), request("Bearer mk_ABC"), request("Bearer"), request("DPoP " + own),
		request("Bearer" + own),
	}
	q := httptest.NewRequest("GET", ours+"/?access_token="+own, nil)
	none = append(none, merlon.NewRequest(q)) // trap 54: token in the query
	f := httptest.NewRequest("POST", ours+"/", strings.NewReader("access_token="+own))
	f.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	none = append(none, merlon.NewRequest(f))
	for i, r := range none {
		if id, err := w.Prove(r); id != nil || !errors.Is(err, merlon.ErrNoProof) {
			t.Errorf("request %d: %v, %v", i, id, err)
		}
	}
	for name, r := range map[string]*merlon.Request{
		"two fields":   request("Bearer "+own, "Bearer "+own),
		"two schemes":  request("Basic YTpi", "Bearer "+own),
		"two in one":   request("Bearer " + own + ", Bearer " + own),
		"refresh":      request("Bearer mr_AAAA_0_AAAA.AAAA"),
		"refresh bare": request("Bearer mr_AAAA"),
	} {
		if id, err := w.Prove(r); id != nil || err == nil || errors.Is(err, merlon.ErrNoProof) {
			t.Errorf("%s: %v, %v", name, id, err)
		}
	}
}

// Each issuer names its claims as it likes.
func TestClaimNames(t *testing.T) {
	w := newWorld(t, func(c *token.Config) {
		i := &c.Issuers[0]
		i.Name, i.Groups, i.Roles, i.Scopes = "email", "https://id.example.com/groups", "/a~1b/0~0", "scp"
	})
	prove := func(change map[string]any) (*merlon.Identity, error) {
		return w.Prove(request("Bearer " + mint("ES256", pair()["ES256"], header("ES256", nil), w.claims(change))))
	}
	id, err := prove(map[string]any{
		"email": "ann@example.com", "https://id.example.com/groups": []string{"b", "a", "b"},
		"a/b": map[string]any{"0~": []string{"admin"}}, "scp": []string{"x"}, "scope": "y", "roles": []string{"no"}, "groups": []string{"no"},
	})
	if err != nil || id.Name != "ann@example.com" || !slices.Equal(id.Groups, []string{"a", "b"}) ||
		!slices.Equal(id.Roles, []string{"admin"}) || !slices.Equal(id.Scopes, []string{"x"}) {
		t.Errorf("%+v, %v", id, err)
	}
	id, err = prove(map[string]any{"a/b": "text", "scp": ""})
	if err != nil || id.Name != id.Subject || len(id.Roles)+len(id.Groups)+len(id.Scopes) != 0 || id.Scopes == nil {
		t.Errorf("%+v, %v", id, err)
	}
	for name, change := range map[string]map[string]any{
		"email null":      {"email": nil},
		"email number":    {"email": 1},
		"scp with spaces": {"scp": []string{"a b"}},
		"scp numbers":     {"scp": []int{1}},
	} {
		if id, err := prove(change); reason(t, err) != token.TokenClaims {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
}

// A token that is bound to a certificate (RFC 8705) is good with it only.
func TestBoundToCertificate(t *testing.T) {
	w := newWorld(t, nil)
	cert := &x509.Certificate{Raw: []byte("a certificate")}
	sum := sha256.Sum256(cert.Raw)
	tok, _, err := w.Issue(t.Context(), token.Claims{Subject: "svc", Certificate: b64.EncodeToString(sum[:])})
	if err != nil {
		t.Fatal(err)
	}
	r := request("Bearer " + tok)
	for range 2 {
		if _, err := w.Prove(r); reason(t, err) != token.TokenBinding {
			t.Errorf("without: %v", err)
		}
	}
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("another")}}}
	if _, err := w.Prove(r); reason(t, err) != token.TokenBinding {
		t.Errorf("with another: %v", err)
	}
	r.TLS.PeerCertificates[0] = cert
	if id, err := w.Prove(r); err != nil || id.Subject != "svc" {
		t.Errorf("with it: %v, %v", id, err)
	}
}

// smallOrders are the y of the points of order 1, 2, 4 and 8, and those of them
// that are written in another form, as p and p+1.
var smallOrders = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// Trap 52: keys under which anybody can sign are not taken from a key set, in
// whichever of their forms they come.
func TestSmallOrderKeys(t *testing.T) {
	nothing := make([]byte, 64)
	nothing[0] = 1 // R is the neutral element, S is 0
	forged := 0
	for _, y := range smallOrders {
		for _, sign := range []byte{0, 0x80} {
			key, err := hex.DecodeString(y)
			if err != nil {
				t.Fatal(err)
			}
			key[31] |= sign
			for n := range 100 {
				if ed25519.Verify(key, []byte{byte(n)}, nothing) {
					forged++
					break
				}
			}
			set := keySet(map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64.EncodeToString(key), "kid": "x", "alg": "EdDSA"})
			if keys, err := readSetAll([]byte(text(set))); err == nil || len(keys) > 0 {
				t.Errorf("%x was taken", key)
			}
		}
	}
	if forged < 8 {
		t.Errorf("only %d of the keys are as bad as they should be", forged)
	}

	neutral := make(ed25519.PublicKey, 32)
	neutral[0] = 1
	w := newWorld(t, nil)
	w.publish(t, keySet(
		map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64.EncodeToString(neutral), "kid": kid("EdDSA"), "alg": "EdDSA"},
		publicJWK("ES256", nil),
	))
	tok := smallOrderToken(header("EdDSA", nil), w.claims(nil))
	input, sig, _ := cutLast(tok)
	if b, err := b64.DecodeString(sig); err != nil || !ed25519.Verify(neutral, []byte(input), b) {
		t.Fatal("the attack does not work without a guard, and shows nothing")
	}
	if _, err := verify(w.Service, tok); reason(t, err) != token.TokenKey {
		t.Error(err)
	}
	if _, err := verify(w.Service, w.good("ES256")); err != nil {
		t.Errorf("the other key: %v", err)
	}
}
