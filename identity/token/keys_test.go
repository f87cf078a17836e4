package token_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/merlon-dev/merlon/identity/token"
	"github.com/merlon-dev/merlon/secrets"
)

func kidOf(t testing.TB, tok string) string {
	t.Helper()
	jws, err := jose.ParseSignedCompact(tok, []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	return jws.Signatures[0].Protected.KeyID
}

// verifyElsewhere verifies a token as somebody else would, by the key set.
func verifyElsewhere(t testing.TB, set []byte, tok string) error {
	t.Helper()
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(set, &keys); err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(tok, []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA})
	if err != nil {
		return err
	}
	for _, k := range keys.Key(jws.Signatures[0].Protected.KeyID) {
		if string(jws.Signatures[0].Protected.Algorithm) == k.Algorithm {
			_, err := jws.Verify(k.Key)
			return err
		}
	}
	return errors.New("no such key")
}

func issue(t testing.TB, s *token.Service, c token.Claims) string {
	t.Helper()
	if c.Subject == "" {
		c.Subject = "ann"
	}
	tok, _, err := s.Issue(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func keysOf(t testing.TB, s *token.Service) []byte {
	t.Helper()
	set, _, err := s.JWKS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestOwnAlgorithms(t *testing.T) {
	for _, alg := range []string{"", "PS256", "ES256", "EdDSA"} {
		s, err := token.New(t.Context(), token.Config{Issuer: ours, Algorithm: alg}, masterKey(t), token.NewMemory())
		if err != nil {
			t.Fatal(err)
		}
		tok := issue(t, s, token.Claims{})
		if _, err := verify(s, tok); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		set, h, err := s.JWKS(t.Context())
		if err != nil || h.Get("Cache-Control") == "" || h.Get("Content-Type") != "application/jwk-set+json" {
			t.Errorf("%s: %v, %v", alg, h, err)
		}
		if err := verifyElsewhere(t, set, tok); err != nil {
			t.Errorf("%s: elsewhere: %v", alg, err)
		}
		for _, private := range []string{`"d"`, `"p"`, `"q"`, `"k"`} {
			if bytes.Contains(set, []byte(private)) {
				t.Errorf("%s: the key set has the member %s", alg, private)
			}
		}
		if alg == "" && !bytes.Contains(set, []byte(`"RS256"`)) {
			t.Errorf("the default is not RS256: %s", set)
		}
	}
}

// The life of keys through four rotations: whatever is signed can be verified
// by a key set that was fetched up to a day before, and by one that is fetched
// until it expires.
func TestRotation(t *testing.T) {
	w := newWorld(t, func(c *token.Config) { c.Rotate = 72 * time.Hour })
	type signed struct {
		token string
		until time.Time
	}
	var alive []signed
	kids := make(map[string]bool)
	old := keysOf(t, w.Service)
	fetched := w.clock.now()
	for step := range 12 * 24 * 3 {
		hour := step / 3
		w.clock.move(20 * time.Minute)
		if err := w.RefreshKeys(); err != nil {
			t.Fatal(err)
		}
		w.Poll(t.Context())
		now := w.clock.now()
		tok := issue(t, w.Service, token.Claims{})
		long, err := w.Sign(t.Context(), "JWT", map[string]any{"sub": "ann", "exp": now.Add(time.Hour).Unix()})
		if err != nil {
			t.Fatal(err)
		}
		kids[kidOf(t, tok)] = true
		if err := verifyElsewhere(t, old, tok); err != nil {
			t.Fatalf("hour %d: by keys fetched %s before: %v", hour, now.Sub(fetched), err)
		}
		if _, err := verify(w.Service, tok); err != nil {
			t.Fatalf("hour %d: %v", hour, err)
		}
		alive = append(alive, signed{long, now.Add(time.Hour)})
		set := keysOf(t, w.Service)
		alive = slices.DeleteFunc(alive, func(s signed) bool { return now.After(s.until) })
		for _, s := range alive {
			if err := verifyElsewhere(t, set, s.token); err != nil {
				t.Fatalf("hour %d: a token that is good until %s: %v", hour, s.until, err)
			}
		}
		if step%60 == 0 {
			old, fetched = set, now
		}
		if rows, _ := w.store.Keys(t.Context()); len(rows) > 3 {
			t.Fatalf("hour %d: %d keys are kept", hour, len(rows))
		}
	}
	if len(kids) < 4 {
		t.Errorf("only %d keys signed", len(kids))
	}
}

// A new algorithm comes with a new key, which is published first.
func TestAlgorithmChange(t *testing.T) {
	w := newWorld(t, nil)
	before := issue(t, w.Service, token.Claims{})
	s := w.open(t, token.Config{Issuer: ours, Algorithm: "ES256"})
	set := keysOf(t, s)
	if now := issue(t, s, token.Claims{}); kidOf(t, now) != kidOf(t, before) || !strings.Contains(string(set), "ES256") {
		t.Errorf("signed by %s; published %s", kidOf(t, now), set)
	}
	w.clock.move(25 * time.Hour)
	if err := s.RefreshKeys(); err != nil {
		t.Fatal(err)
	}
	if err := verifyElsewhere(t, set, issue(t, s, token.Claims{})); err != nil {
		t.Error(err)
	}
	if kidOf(t, issue(t, s, token.Claims{})) == kidOf(t, before) {
		t.Error("the old key still signs")
	}
}

// Replicas that start and rotate at the same moment agree on one key.
func TestReplicasAgree(t *testing.T) {
	store := token.NewMemory()
	var clock clock
	all := make([]*token.Service, 6)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			s, err := token.New(t.Context(), token.Config{Issuer: ours, Algorithm: "ES256", Rotate: 72 * time.Hour}, masterKey(t), store)
			if err != nil {
				t.Error(err)
				return
			}
			s.SetNow(clock.now)
			all[i] = s
		})
	}
	wg.Wait()
	for day := range 6 {
		for i, s := range all {
			wg.Go(func() {
				if err := s.RefreshKeys(); err != nil {
					t.Errorf("day %d, replica %d: %v", day, i, err)
				}
				s.Poll(t.Context())
			})
		}
		wg.Wait()
		tok := issue(t, all[rand.IntN(len(all))], token.Claims{})
		for i, s := range all {
			if !bytes.Equal(keysOf(t, s), keysOf(t, all[0])) {
				t.Errorf("day %d: replica %d publishes other keys", day, i)
			}
			if _, err := verify(s, tok); err != nil {
				t.Errorf("day %d: replica %d: %v", day, i, err)
			}
		}
		if rows, _ := store.Keys(t.Context()); len(rows) > 2 {
			t.Errorf("day %d: %d keys", day, len(rows))
		}
		clock.move(24 * time.Hour)
	}
}

// What is stored gives nothing away, and whoever changes it brings no key in.
func TestSealedKeys(t *testing.T) {
	w := newWorld(t, func(c *token.Config) { c.Algorithm = "ES256" })
	rows, _ := w.store.Keys(t.Context())
	if _, err := x509.ParsePKCS8PrivateKey(rows[0].Sealed); err == nil {
		t.Error("the key can be read")
	}
	other, err := secrets.NewKey(secrets.New(strings.Repeat("x", 32)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.New(t.Context(), token.Config{Issuer: ours}, other, w.store); err == nil || !strings.Contains(err.Error(), "not sealed with this key") {
		t.Errorf("with another master key: %v", err)
	}
	for name, change := range map[string]func(*token.SigningKey){
		"kid":       func(k *token.SigningKey) { k.ID = "another" },
		"algorithm": func(k *token.SigningKey) { k.Algorithm = "EdDSA" },
		"sign from": func(k *token.SigningKey) { k.SignFrom = k.SignFrom.Add(time.Hour) },
		"key":       func(k *token.SigningKey) { k.Sealed = append([]byte{1}, k.Sealed[1:]...) },
	} {
		k := rows[0]
		k.Sealed = bytes.Clone(k.Sealed)
		change(&k)
		store := token.NewMemory()
		if err := store.AddKey(t.Context(), k, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := token.New(t.Context(), token.Config{Issuer: ours, Algorithm: "ES256"}, masterKey(t), store); err == nil {
			t.Errorf("%s was changed, and the key is used", name)
		}
	}
}

// RSA-2048 may come from others, but not from us, even if it is sealed as ours
// are; and what we make is longer.
func TestShortOwnKey(t *testing.T) {
	if k, err := token.Generate("RS256"); err != nil || k.Public().(*rsa.PublicKey).N.BitLen() != 3072 {
		t.Errorf("got %v", err)
	}
	for name, c := range map[string]struct {
		alg string
		key func() (any, error)
	}{
		"RSA-2048":       {"RS256", func() (any, error) { return rsa.GenerateKey(crand.Reader, 2048) }},
		"another's kind": {"RS256", func() (any, error) { return ecdsa.GenerateKey(elliptic.P256(), crand.Reader) }},
		"wrong curve":    {"ES256", func() (any, error) { return ecdsa.GenerateKey(elliptic.P384(), crand.Reader) }},
		"signs nothing":  {"ES256", func() (any, error) { return ecdh.X25519().GenerateKey(crand.Reader) }},
	} {
		key, err := c.key()
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		row := token.SigningKey{ID: "k", Algorithm: c.alg, Created: time.Unix(1, 0), SignFrom: time.Unix(2, 0)}
		row.Sealed = masterKey(t).Box("merlon token signing").Seal(der, "k "+c.alg+" 1 2")
		store := token.NewMemory()
		if err := store.AddKey(t.Context(), row, ""); err != nil {
			t.Fatal(err)
		}
		_, err = token.New(t.Context(), token.Config{Issuer: ours, Algorithm: c.alg}, masterKey(t), store)
		if err == nil || strings.Contains(err.Error(), "sealed") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Keys that nobody could read for an hour sign nothing, and say so.
func TestKeysAway(t *testing.T) {
	store := &broken{Memory: token.NewMemory()}
	s, err := token.New(t.Context(), token.Config{Issuer: ours, Algorithm: "EdDSA"}, masterKey(t), store)
	if err != nil {
		t.Fatal(err)
	}
	var clock clock
	s.SetNow(clock.now)
	store.fails.Store(true)
	for _, c := range []struct {
		after time.Duration
		works bool
	}{{50 * time.Minute, true}, {20 * time.Minute, false}} {
		clock.move(c.after)
		if err := s.RefreshKeys(); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		_, _, err := s.Issue(t.Context(), token.Claims{Subject: "ann"})
		_, _, err2 := s.JWKS(t.Context())
		if (err == nil) != c.works || (err2 == nil) != c.works {
			t.Errorf("after %s more: %v, %v", c.after, err, err2)
		}
	}
	if len(s.Findings()) == 0 {
		t.Error("nothing is found to be wrong")
	}
	store.fails.Store(false)
	if err := s.RefreshKeys(); err != nil {
		t.Fatal(err)
	}
	issue(t, s, token.Claims{})
}

func TestReplaceKeys(t *testing.T) {
	w := newWorld(t, nil)
	w2 := w.open(t, token.Config{Issuer: ours, Algorithm: "EdDSA"})
	w.clock.move(29*24*time.Hour + time.Minute) // the next key is published already
	for _, s := range []*token.Service{w.Service, w2} {
		if err := s.RefreshKeys(); err != nil {
			t.Fatal(err)
		}
		s.Poll(t.Context())
	}
	if rows, _ := w.store.Keys(t.Context()); len(rows) != 2 {
		t.Fatalf("%d keys before", len(rows))
	}
	before := issue(t, w.Service, token.Claims{})
	for _, s := range []*token.Service{w.Service, w2} {
		if _, err := verify(s, before); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.ReplaceKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := issue(t, w.Service, token.Claims{})
	if _, err := verify(w2, after); err != nil {
		t.Errorf("the other replica does not look for the new key: %v", err)
	}
	for i, s := range []*token.Service{w.Service, w2} {
		w.clock.move(3 * time.Second)
		if _, err := verify(s, before); reason(t, err) != token.TokenKey {
			t.Errorf("replica %d: a token of the old key: %v", i, err)
		}
		if _, err := verify(s, after); err != nil {
			t.Errorf("replica %d: %v", i, err)
		}
	}
	if rows, _ := w.store.Keys(t.Context()); len(rows) != 1 {
		t.Errorf("%d keys are left", len(rows))
	}
}

func TestIssue(t *testing.T) {
	w := newWorld(t, func(c *token.Config) { c.Audience = []string{"api", "web"} })
	tok := issue(t, w.Service, token.Claims{Subject: "ann", Scopes: []string{"read"}, Groups: []string{"g"}})
	head, rest, _ := strings.Cut(tok, ".")
	body, _, _ := strings.Cut(rest, ".")
	var h, c map[string]any
	for part, to := range map[string]*map[string]any{head: &h, body: &c} {
		b, err := b64.DecodeString(part)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, to); err != nil {
			t.Fatal(err)
		}
	}
	if h["typ"] != "at+jwt" || h["alg"] != "EdDSA" || h["kid"] == "" || len(h) != 3 {
		t.Errorf("header %v", h)
	}
	// RFC 9068, 2.2.
	for _, name := range []string{"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} {
		if c[name] == nil {
			t.Errorf("no %s in %v", name, c)
		}
	}
	if life := c["exp"].(float64) - c["iat"].(float64); life != 300 {
		t.Errorf("good for %v s", life)
	}
	if c["iss"] != ours || len(c["aud"].([]any)) != 2 {
		t.Errorf("claims %v", c)
	}
	for name, c := range map[string]token.Claims{
		"nobody":           {Client: "app"},
		"16 minutes":       {Subject: "ann", Expires: w.clock.now().Add(16 * time.Minute)},
		"the past":         {Subject: "ann", Expires: w.clock.now().Add(-time.Minute)},
		"a line end":       {Subject: "ann\n"},
		"two in one scope": {Subject: "ann", Scopes: []string{"a b"}},
		"empty role":       {Subject: "ann", Roles: []string{""}},
		"too much":         {Subject: "ann", Groups: slices.Repeat([]string{strings.Repeat("g", 1000)}, 20)},
	} {
		if tok, _, err := w.Issue(t.Context(), c); err == nil {
			t.Errorf("%s: issued %s", name, tok)
		}
	}
	for typ, claims := range map[string]any{
		"at+jwt":             map[string]any{"exp": w.clock.now().Unix()},
		"application/AT+jwt": map[string]any{"exp": w.clock.now().Unix()},
		"":                   map[string]any{"exp": w.clock.now().Unix()},
		"JWT":                map[string]any{"sub": "ann"},
		"logout+jwt":         map[string]any{"exp": w.clock.now().Add(2 * time.Hour).Unix()},
	} {
		if tok, err := w.Sign(t.Context(), typ, claims); err == nil {
			t.Errorf("%q: signed %s", typ, tok)
		}
	}
	// Trap 53: what is signed for another purpose is no access token.
	id, err := w.Sign(t.Context(), "JWT", map[string]any{
		"iss": ours, "sub": "ann", "aud": "api", "jti": "1", "iat": w.clock.now().Unix(), "exp": w.clock.now().Add(time.Minute).Unix(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify(w.Service, id); reason(t, err) != token.TokenType {
		t.Errorf("an ID token of ours: %v", err)
	}
	none := w.open(t, token.Config{})
	if _, _, err := none.Issue(t.Context(), token.Claims{Subject: "ann"}); err == nil {
		t.Error("issued without an issuer")
	}
	if set, _, err := none.JWKS(t.Context()); err != nil || string(set) != `{"keys":[]}` {
		t.Errorf("%s, %v", set, err)
	}
}

func TestChallenge(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.Prove(request("Bearer x.y.z"))
	if got := token.Challenge(err); got != `Bearer error="invalid_token"` {
		t.Error(got)
	}
	_, err = w.Prove(request())
	if got := token.Challenge(err); got != "Bearer" {
		t.Error(got)
	}
	if e, ok := errors.AsType[*token.Error](error(&token.Error{Why: token.TokenExpired})); !ok || e.Status() != http.StatusUnauthorized || e.Error() != "token-expired" {
		t.Errorf("got %v", e)
	}
}
