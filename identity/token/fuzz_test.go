package token_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Nothing is accepted that does not verify, with go-jose alone, by the key
// that the other issuer has for that algorithm.
func FuzzVerify(f *testing.F) {
	w := newWorld(f, nil)
	for alg := range pair() {
		f.Add(w.good(alg))
	}
	for _, a := range attacks(w) {
		f.Add(a.token)
	}
	f.Fuzz(func(t *testing.T, tok string) {
		w.Poll(t.Context())
		c, err := verify(w.Service, tok)
		if err != nil {
			if c != nil || reason(t, err) == "" {
				t.Errorf("refused with %v, %v", c, err)
			}
			return
		}
		for alg, key := range pair() {
			jws, err := jose.ParseSignedCompact(tok, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
			if err != nil {
				continue
			}
			payload, err := jws.Verify(key.Public())
			if err != nil {
				continue
			}
			var p struct {
				Iss, Sub string
				Exp      int64
			}
			if json.Unmarshal(payload, &p) == nil && p.Iss == theirs && p.Sub == c.Subject && p.Exp == c.Expires.Unix() {
				return
			}
		}
		t.Errorf("accepted: %q", tok)
	})
}

// Claims that a genuine key signed are read as encoding/json reads them, and
// never let anybody in for longer, or for somebody else, than they say.
func FuzzClaims(f *testing.F) {
	w := newWorld(f, nil)
	key := pair()["EdDSA"]
	f.Add(text(header("EdDSA", nil)), text(w.claims(nil)))
	f.Add(text(header("EdDSA", map[string]any{"typ": "JWT"})), text(w.claims(map[string]any{"groups": []string{"a"}, "aud": []string{"shop-api"}})))
	for _, a := range attacks(w) {
		if h, p, ok := parts(a.token); ok {
			f.Add(h, p)
		}
	}
	f.Fuzz(func(t *testing.T, h, p string) {
		w.Poll(t.Context())
		c, err := verify(w.Service, mint("EdDSA", key, h, p))
		if err != nil {
			return
		}
		var head, claims map[string]any
		if err := json.Unmarshal([]byte(h), &head); err != nil || head["alg"] != "EdDSA" || head["crit"] != nil {
			t.Fatalf("header %q, %v", h, err)
		}
		if err := json.Unmarshal([]byte(p), &claims); err != nil {
			t.Fatalf("claims %q, %v", p, err)
		}
		exp, _ := claims["exp"].(float64)
		iat, _ := claims["iat"].(float64)
		now := float64(time.Now().Unix())
		if claims["iss"] != theirs || claims["sub"] != c.Subject || exp < now-61 || iat > now+61 || exp-iat > 3600 {
			t.Errorf("accepted %q", p)
		}
		aud, _ := claims["aud"].([]any)
		if claims["aud"] != "shop-api" && !slices.Contains(aud, any("shop-api")) {
			t.Errorf("accepted for %v", claims["aud"])
		}
	})
}

func parts(tok string) (header, payload string, ok bool) {
	list := strings.Split(tok, ".")
	if len(list) != 3 {
		return "", "", false
	}
	h, err := b64.DecodeString(list[0])
	p, err2 := b64.DecodeString(list[1])
	return strings.ReplaceAll(string(h), "ES256", "EdDSA"), string(p), err == nil && err2 == nil
}

// No key set gives a key that is too weak, whoever publishes it.
func FuzzKeySet(f *testing.F) {
	for alg := range pair() {
		f.Add([]byte(text(keySet(publicJWK(alg, nil)))))
		f.Add([]byte(text(keySet(publicJWK(alg, map[string]any{"alg": drop{}, "use": "enc"})))))
	}
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","kid":"x"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"x"},{"kty":"oct","k":"AA"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := readSetAll(b)
		if err != nil && len(keys) > 0 {
			t.Error("an error and keys")
		}
		for kid, key := range keys {
			switch k := key.(type) {
			case *rsa.PublicKey:
				if k.N.BitLen() < 2048 || k.E < 65537 {
					t.Errorf("%q: %d bits, exponent %d", kid, k.N.BitLen(), k.E)
				}
			case *ecdsa.PublicKey:
				if _, err := k.ECDH(); err != nil {
					t.Errorf("%q: %v", kid, err)
				}
			case ed25519.PublicKey:
				if len(k) != 32 {
					t.Errorf("%q: %d bytes", kid, len(k))
				}
			default:
				t.Errorf("%q: %T", kid, key)
			}
		}
	})
}

// The only refresh secret that is taken is the one that was given.
func FuzzRefresh(f *testing.F) {
	w := newWorld(f, nil)
	f.Add("mr_A_0_A.A", 0)
	f.Add("", 1)
	f.Fuzz(func(t *testing.T, s string, at int) {
		r := start(t, w)
		changed := r.Secret
		if at >= 0 && at < len(changed) {
			changed = changed[:at] + s + changed[at:]
		}
		for _, given := range []string{s, changed} {
			_, _, err := w.UseRefresh(t.Context(), given, "app")
			if err == nil && given != r.Secret {
				t.Errorf("%q was taken for %q", given, r.Secret)
			}
			if f, err := w.store.Family(t.Context(), r.Family); err != nil || f.Revoked {
				t.Errorf("%q revoked the family: %v", given, err)
			}
		}
	})
}
