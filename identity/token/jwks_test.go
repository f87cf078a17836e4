package token_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/token"
)

func publicJWK(alg string, change map[string]any) map[string]any {
	b, err := json.Marshal(jose.JSONWebKey{Key: pair()[alg].Public(), KeyID: kid(alg), Algorithm: alg, Use: "sig"})
	if err != nil {
		panic(err)
	}
	m := make(map[string]any)
	if err := json.Unmarshal(b, &m); err != nil {
		panic(err)
	}
	for k, v := range change {
		if m[k] = v; v == (drop{}) {
			delete(m, k)
		}
	}
	return m
}

func keySet(keys ...any) any { return map[string]any{"keys": keys} }

// Trap 55, one row for each key set.
func TestKeySets(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	es := publicJWK("ES256", nil)
	for _, c := range []struct {
		name string
		set  any
		alg  string
		key  crypto.Signer
		want merlon.Reason
	}{
		{"two keys", keySet(es, publicJWK("RS256", nil)), "RS256", nil, ""},
		{"a key without alg, held to the first that fits", keySet(publicJWK("RS256", map[string]any{"alg": drop{}})), "RS256", nil, ""},
		{"and to no other: trap 52, PS/RS swap", keySet(publicJWK("PS256", map[string]any{"alg": drop{}})), "PS256", nil, token.TokenKey},
		{"a key without use", keySet(publicJWK("ES256", map[string]any{"use": drop{}})), "ES256", nil, ""},
		{"use:enc", keySet(publicJWK("ES256", map[string]any{"use": "enc"}), publicJWK("RS256", nil)), "ES256", nil, token.TokenKey},
		{"use:enc with the kid of the key that signs", keySet(publicJWK("RS256", map[string]any{"use": "enc", "kid": kid("ES256")}), es), "ES256", nil, ""},
		{"key_ops without verify", keySet(publicJWK("ES256", map[string]any{"key_ops": []string{"sign"}}), publicJWK("RS256", nil)), "ES256", nil, token.TokenKey},
		{"another alg", keySet(publicJWK("ES256", map[string]any{"alg": "ES384"}), publicJWK("RS256", nil)), "ES256", nil, token.TokenKey},
		{"alg of an encryption", keySet(publicJWK("RS256", map[string]any{"alg": "RSA-OAEP"}), es), "RS256", nil, token.TokenKey},
		{"duplicate kid", keySet(es, publicJWK("RS256", map[string]any{"kid": kid("ES256")})), "ES256", nil, token.TokenUnavailable},
		{"private key published", keySet(es, jose.JSONWebKey{Key: pair()["EdDSA"], KeyID: kid("EdDSA"), Algorithm: "EdDSA"}), "ES256", nil, token.TokenUnavailable},
		{"shared secret", keySet(es, map[string]any{"kty": "oct", "k": "AAAA", "kid": "x", "alg": "HS256"}), "ES256", nil, ""},
		{"unknown kinds", keySet(map[string]any{"kty": "LWE", "kid": "q"}, map[string]any{"kty": "OKP", "crv": "X25519", "x": "AAAA"}, es), "ES256", nil, ""},
		{"broken certificate beside the key", keySet(publicJWK("ES256", map[string]any{"x5c": []string{"AAAA"}})), "ES256", nil, ""},
		{"point not on the curve", keySet(publicJWK("ES256", map[string]any{"x": b64.EncodeToString(make([]byte, 32))}), publicJWK("RS256", nil)), "ES256", nil, token.TokenKey},
		{"RSA-2048, with a finding", keySet(jose.JSONWebKey{Key: small.Public(), KeyID: kid("RS256"), Algorithm: "RS256"}), "RS256", small, ""},
		{"RSA-1024", keySet(jose.JSONWebKey{Key: short(t), KeyID: kid("RS256"), Algorithm: "RS256"}, es), "RS256", nil, token.TokenKey},
		{"RSA with exponent 1", keySet(publicJWK("RS256", map[string]any{"e": "AQ"}), es), "RS256", nil, token.TokenKey},
		{"RSA with exponent 3", keySet(publicJWK("RS256", map[string]any{"e": "Aw"}), es), "RS256", nil, token.TokenKey},
		{"no keys", keySet(), "ES256", nil, token.TokenUnavailable},
		{"keys null", map[string]any{"keys": nil}, "ES256", nil, token.TokenUnavailable},
		{"not an object", []any{es}, "ES256", nil, token.TokenUnavailable},
		{"member twice", json.RawMessage(`{"keys":[],"keys":[` + text(es) + `]}`), "ES256", nil, token.TokenUnavailable},
		{"too many keys", keySet(make([]any, 100)...), "ES256", nil, token.TokenUnavailable},
		{"more than 256 KiB", map[string]any{"keys": []any{es}, "x": strings.Repeat("x", 257<<10)}, "ES256", nil, token.TokenUnavailable},
	} {
		t.Run("trap 55: "+c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.publish(t, c.set)
			key := c.key
			if key == nil {
				key = pair()[c.alg]
			}
			_, err := verify(w.Service, mint(c.alg, key, header(c.alg, nil), w.claims(nil)))
			if reason(t, err) != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if strings.HasPrefix(c.name, "use:enc") && len(w.Findings()) > 0 {
				t.Errorf("an ordinary key is found to be wrong: %v", w.Findings())
			}
			found := strings.Contains(fmt.Sprint(w.Findings()), "RSA-2048")
			if found != (key == small) {
				t.Errorf("findings: %v", w.Findings())
			}
		})
	}
}

// short returns a public RSA key of 1024 bits, which crypto/rsa does not make.
func short(t *testing.T) *rsa.PublicKey {
	t.Helper()
	p, err := rand.Prime(rand.Reader, 512)
	if err != nil {
		t.Fatal(err)
	}
	q, err := rand.Prime(rand.Reader, 512)
	if err != nil {
		t.Fatal(err)
	}
	return &rsa.PublicKey{N: p.Mul(p, q), E: 65537}
}

// Trap 53: however many tokens name keys that nobody has, the issuer is asked
// for its keys once in a while; and a new key is found that way.
func TestUnknownKid(t *testing.T) {
	w := newWorld(t, nil)
	w.publish(t, keySet(publicJWK("ES256", nil)))
	if _, err := verify(w.Service, w.good("ES256")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	flood := func() {
		for g := range 8 {
			wg.Go(func() {
				for n := range 50 {
					h := header("ES256", map[string]any{"kid": fmt.Sprint(g, n)})
					if _, err := verify(w.Service, mint("", nil, h, w.claims(nil))+"AA"); reason(t, err) != token.TokenKey {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	flood()
	if n := w.hits.Load(); n > 2 {
		t.Errorf("the issuer was asked %d times at once", n)
	}
	w.publish(t, keySet(publicJWK("RS256", nil), publicJWK("ES256", nil)))
	if _, err := verify(w.Service, w.good("RS256")); reason(t, err) != token.TokenKey {
		t.Errorf("asked again too early: %v", err)
	}
	w.clock.move(31 * time.Second)
	before := w.hits.Load()
	if _, err := verify(w.Service, w.good("RS256")); err != nil {
		t.Errorf("the new key: %v", err)
	}
	flood()
	if n := w.hits.Load() - before; n != 1 {
		t.Errorf("the issuer was asked %d times after a while", n)
	}
}

// Trap 55: what was fetched is good while the issuer is away, but not for ever.
func TestOutage(t *testing.T) {
	w := newWorld(t, func(c *token.Config) { c.Issuers[0].MaxAge = time.Hour })
	if _, err := verify(w.Service, w.good("ES256")); err != nil {
		t.Fatal(err)
	}
	w.answer(http.StatusServiceUnavailable, "")
	for _, c := range []struct {
		after time.Duration
		want  merlon.Reason
	}{{20 * time.Minute, ""}, {35 * time.Minute, ""}, {6 * time.Minute, token.TokenUnavailable}} {
		w.clock.move(c.after)
		w.Poll(t.Context())
		if _, err := verify(w.Service, w.good("ES256")); reason(t, err) != c.want {
			t.Errorf("after %s more: %v", c.after, err)
		}
	}
	if e, ok := errors.AsType[*token.Error](func() error { _, err := verify(w.Service, w.good("ES256")); return err }()); !ok || e.Status() != http.StatusServiceUnavailable {
		t.Errorf("got %v", e)
	}
	w.answer(http.StatusOK, "")
	w.clock.move(31 * time.Second)
	w.Poll(t.Context())
	if _, err := verify(w.Service, w.good("ES256")); err != nil {
		t.Errorf("back again: %v", err)
	}
}

// A key that an issuer withdraws takes its tokens with it, the remembered ones too.
func TestWithdrawnKey(t *testing.T) {
	w := newWorld(t, nil)
	tok := w.good("ES256")
	if _, err := verify(w.Service, tok); err != nil {
		t.Fatal(err)
	}
	w.publish(t, keySet(publicJWK("RS256", nil)))
	w.clock.move(time.Minute)
	w.Poll(t.Context())
	_, _ = verify(w.Service, mint("ES256", pair()["ES256"], header("ES256", map[string]any{"kid": "unknown"}), w.claims(nil)))
	if _, err := verify(w.Service, tok); reason(t, err) != token.TokenKey {
		t.Errorf("got %v", err)
	}
}

// A key that comes under the name of an older one takes its place.
func TestKeyUnderOldName(t *testing.T) {
	w := newWorld(t, nil)
	w.publish(t, keySet(publicJWK("ES256", nil)))
	before := w.good("ES256")
	if _, err := verify(w.Service, before); err != nil {
		t.Fatal(err)
	}
	key := ecKey(t, elliptic.P256())
	w.publish(t, keySet(jose.JSONWebKey{Key: key.Public(), KeyID: kid("ES256"), Algorithm: "ES256"}))
	w.clock.move(time.Minute)
	w.Poll(t.Context())
	_, _ = verify(w.Service, w.good("RS256")) // unknown, so the keys are fetched
	if _, err := verify(w.Service, mint("ES256", key, header("ES256", nil), w.claims(nil))); err != nil {
		t.Errorf("of the new key: %v", err)
	}
	if _, err := verify(w.Service, before); reason(t, err) != token.TokenSignature {
		t.Errorf("of the old key: %v", err)
	}
}

// Trap 55: no redirect is followed, wherever it leads.
func TestRedirect(t *testing.T) {
	evil, keys := ed25519Server(t)
	w := newWorld(t, nil)
	w.answer(http.StatusFound, evil.URL)
	if _, err := verify(w.Service, w.good("ES256")); reason(t, err) != token.TokenUnavailable {
		t.Errorf("got %v", err)
	}
	if *keys > 0 {
		t.Error("the redirect was followed")
	}
}

func ed25519Server(t *testing.T) (*httptest.Server, *int) {
	t.Helper()
	n := 0
	pub, _, _ := ed25519.GenerateKey(rand.Reader)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n++
		_ = json.NewEncoder(w).Encode(keySet(jose.JSONWebKey{Key: pub, KeyID: "x", Algorithm: "EdDSA"}))
	}))
	t.Cleanup(srv.Close)
	return srv, &n
}

// Trap 55: a configured URL does not lead inside, whatever its name resolves
// to, unless the operator says that it may.
func TestPrivateIssuer(t *testing.T) {
	w := newWorld(t, func(c *token.Config) { c.Issuers[0].Private = false })
	_, err := verify(w.Service, w.good("ES256"))
	if reason(t, err) != token.TokenUnavailable || !strings.Contains(err.Error(), "private") || w.hits.Load() > 0 {
		t.Errorf("got %v after %d requests", err, w.hits.Load())
	}
	for addr, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "::ffff:8.8.8.8": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.31.0.1": false, "192.168.1.1": false, "100.64.0.1": false,
		"169.254.169.254": false, "0.0.0.0": false, "255.255.255.255": false, "224.0.0.1": false,
		"::1": false, "::": false, "fe80::1": false, "fd00::1": false, "ff02::1": false, "::ffff:127.0.0.1": false,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false, "2001::1": false, "::7f00:1": false,
	} {
		if got := token.Public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	for addr, want := range map[string]bool{
		"10.0.0.1:443": true, "[fd00::1]:443": true, "127.0.0.1:443": true, "8.8.8.8:443": true,
		"169.254.169.254:80": false, "[fe80::1]:443": false, "[64:ff9b::a9fe:a9fe]:80": false, "[fd00:ec2::254]:80": false,
		"[::ffff:169.254.169.254]:80": false, "0.0.0.0:443": false,
	} {
		if err := token.DialErr(true, addr); (err == nil) != want {
			t.Errorf("private, %s: %v", addr, err)
		}
	}
}

// The issuer's metadata is believed only if it names the very same issuer,
// and https keys.
func TestDiscovery(t *testing.T) {
	set, _ := json.Marshal(keySet(publicJWK("ES256", nil)))
	clear := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) }))
	t.Cleanup(clear.Close)
	for _, c := range []struct {
		name         string
		issuer, jwks string
		want         merlon.Reason
	}{
		{"as it should be", "%s/realm", "%s/keys", ""},
		{"another issuer", "%s/other", "%s/keys", token.TokenUnavailable},
		{"trap 54: slash", "%s/realm/", "%s/keys", token.TokenUnavailable},
		{"trap 55: http keys", "%s/realm", clear.URL + "/keys", token.TokenUnavailable},
		{"file keys", "%s/realm", "file:///etc/passwd", token.TokenUnavailable},
		{"no keys", "%s/realm", "", token.TokenUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			var url string
			mux := http.NewServeMux()
			mux.HandleFunc("/realm/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(w).Encode(map[string]string{
					"issuer": strings.Replace(c.issuer, "%s", url, 1), "jwks_uri": strings.Replace(c.jwks, "%s", url, 1),
				})
			})
			mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) })
			srv := httptest.NewTLSServer(mux)
			t.Cleanup(srv.Close)
			url = srv.URL
			w := newWorld(t, func(cfg *token.Config) {
				cfg.Issuers[0].Issuer, cfg.Issuers[0].JWKS = url+"/realm", ""
			})
			tok := mint("ES256", pair()["ES256"], header("ES256", nil), w.claims(map[string]any{"iss": url + "/realm"}))
			if _, err := verify(w.Service, tok); reason(t, err) != c.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	trusted := func(change func(*token.Issuer)) token.Config {
		i := token.Issuer{Issuer: theirs, Audience: []string{"a"}}
		change(&i)
		return token.Config{Issuers: []token.Issuer{i}}
	}
	for _, c := range []struct {
		name   string
		config token.Config
		want   string // empty: it is right
	}{
		{"zero", token.Config{}, ""},
		{"one issuer", trusted(func(*token.Issuer) {}), ""},
		{"trap 55: issuer over http", token.Config{Issuer: "http://shop.example.com"}, `issuer "http://shop.example.com": must be an https URL`},
		{"issuer with a query", token.Config{Issuer: ours + "?x"}, "must have no query"},
		{"issuer with a fragment", token.Config{Issuer: ours + "#"}, "must have no fragment"},
		{"issuer with a password", token.Config{Issuer: "https://a:b@shop.example.com"}, "must have no password in it"},
		{"HS256", token.Config{Algorithm: "HS256"}, "algorithm"},
		{"16 minutes", token.Config{Lifetime: 16 * time.Minute}, "lifetime"},
		{"a second", token.Config{Lifetime: time.Second}, "lifetime"},
		{"rotate within the lead", token.Config{Rotate: time.Hour}, "rotate"},
		{"refresh for ever", token.Config{Refresh: token.RefreshConfig{Absolute: 9000 * time.Hour}}, "refresh.absolute"},
		{"idle beyond absolute", token.Config{Refresh: token.RefreshConfig{Absolute: time.Hour, Idle: 2 * time.Hour}}, "refresh.idle"},
		{"short absolute", token.Config{Refresh: token.RefreshConfig{Absolute: 10 * time.Minute}}, ""},
		{"a minute of grace", token.Config{Refresh: token.RefreshConfig{Grace: time.Minute}}, "refresh.grace"},
		{"cache", token.Config{Cache: 1}, "cache"},
		{"no audience", trusted(func(i *token.Issuer) { i.Audience = nil }), "issuers[0].audience"},
		{"empty audience", trusted(func(i *token.Issuer) { i.Audience = []string{""} }), "issuers[0].audience[0]"},
		{"trap 55: keys over http", trusted(func(i *token.Issuer) { i.JWKS = "http://id.example.com/jwks" }), "issuers[0].jwks"},
		{"trap 52: none", trusted(func(i *token.Issuer) { i.Algorithms = []string{"none"} }), "issuers[0].algorithms[0]"},
		{"trap 52: HS256 of an issuer", trusted(func(i *token.Issuer) { i.Algorithms = []string{"ES256", "HS256"} }), "issuers[0].algorithms[1]"},
		{"trap 53: DPoP proofs as tokens", trusted(func(i *token.Issuer) { i.Types = []string{"dpop+jwt"} }), "issuers[0].types[0]"},
		{"trap 54: skew", trusted(func(i *token.Issuer) { i.Skew = 2 * time.Minute }), "issuers[0].skew"},
		{"lifetime of an issuer", trusted(func(i *token.Issuer) { i.Lifetime = 48 * time.Hour }), "issuers[0].lifetime"},
		{"method", trusted(func(i *token.Issuer) { i.Methods = map[string]string{"pwd": "certificate"} }), "issuers[0].methods.pwd"},
		{"ca", trusted(func(i *token.Issuer) { i.CA = "/nowhere" }), "issuers[0].ca"},
		{"ourselves", token.Config{Issuer: theirs, Issuers: []token.Issuer{{Issuer: theirs, Audience: []string{"a"}}}}, "must not be there twice"},
	} {
		c.config.Algorithm = fallback(c.config.Algorithm, "EdDSA")
		_, err := token.New(t.Context(), c.config, masterKey(t), token.NewMemory())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func fallback(s, std string) string {
	if s == "" {
		return std
	}
	return s
}

// The other curves are as good where an issuer has them.
func TestOtherAlgorithms(t *testing.T) {
	for alg, curve := range map[string]elliptic.Curve{"ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		key := ecKey(t, curve)
		w := newWorld(t, func(c *token.Config) {
			c.Issuers[0].Algorithms = []string{"RS384", "RS512", "PS384", "PS512", "ES384", "ES512"}
		})
		w.publish(t, keySet(
			jose.JSONWebKey{Key: key.Public(), KeyID: "k", Algorithm: alg},
			jose.JSONWebKey{Key: pair()["RS256"].Public(), KeyID: "r", Algorithm: "PS512"},
			jose.JSONWebKey{Key: pair()["ES256"].Public(), KeyID: "wrong", Algorithm: "ES384"},
		))
		for _, c := range []struct {
			alg  jose.SignatureAlgorithm
			key  crypto.Signer
			kid  string
			want merlon.Reason
		}{
			{jose.SignatureAlgorithm(alg), key, "k", ""},
			{jose.PS512, pair()["RS256"], "r", ""},
			{jose.RS512, pair()["RS256"], "r", token.TokenKey},
			{jose.ES256, pair()["ES256"], "k", token.TokenAlgorithm},
			{jose.ES384, pair()["ES256"], "wrong", token.TokenKey}, // trap 52: wrong curve
		} {
			var tok string
			if c.kid == "wrong" {
				tok = mint("ES256", c.key, header("ES384", map[string]any{"kid": c.kid}), w.claims(nil))
			} else {
				k := jose.SigningKey{Algorithm: c.alg, Key: jose.JSONWebKey{Key: c.key, KeyID: c.kid}}
				tok = joseToken(t, k, "at+jwt", w.claims(nil))
			}
			if _, err := verify(w.Service, tok); reason(t, err) != c.want {
				t.Errorf("%s: %v", c.alg, err)
			}
		}
	}
}

func readSetAll(b []byte) (map[string]crypto.PublicKey, error) {
	return token.ReadSet(b, jose.RS256, jose.PS256, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA)
}
