package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/merlon-dev/merlon"
)

// A publicKey verifies with one algorithm and no other.
type publicKey struct {
	kid string
	alg jose.SignatureAlgorithm
	key crypto.PublicKey
}

// verify verifies the signature of a token in compact serialisation.
func (k *publicKey) verify(token string) error {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{k.alg})
	if err != nil {
		return err
	}
	_, err = jws.Verify(k.key)
	return err
}

func (k *publicKey) equal(o *publicKey) bool {
	e, ok := k.key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.kid == o.kid && k.alg == o.alg && e.Equal(o.key)
}

const (
	minRSA    = 2048 // NIST SP 800-131A; less is refused from anywhere
	minOwnRSA = 3072 // 128 bits of strength, for keys that Merlon makes
	maxRSA    = 8192 // what is longer costs more than it gives
	maxKeys   = 64   // in one set
)

// algorithms are those that are known, in the order of preference.
var algorithms = []string{"RS256", "ES256", "EdDSA", "PS256", "RS384", "RS512", "PS384", "PS512", "ES384", "ES512"}

// fits returns why a key is not one for an algorithm, or nil.
func fits(key crypto.PublicKey, alg jose.SignatureAlgorithm) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		switch {
		case !strings.HasPrefix(string(alg), "RS") && !strings.HasPrefix(string(alg), "PS"):
			return errors.New("is an RSA key")
		case k.N.BitLen() < minRSA || k.N.BitLen() > maxRSA:
			return fmt.Errorf("is an RSA key of %d bits", k.N.BitLen())
		case k.E < 65537 || k.E%2 == 0 || k.N.Bit(0) == 0:
			return errors.New("is an RSA key that no sound program makes")
		}
		return nil
	case *ecdsa.PublicKey:
		curves := map[jose.SignatureAlgorithm]elliptic.Curve{
			jose.ES256: elliptic.P256(), jose.ES384: elliptic.P384(), jose.ES512: elliptic.P521(),
		}
		if curves[alg] == nil || k.Curve != curves[alg] {
			return errors.New("is on another curve")
		}
		_, err := k.ECDH() // refuses what is not on the curve
		return err
	case ed25519.PublicKey:
		if alg != jose.EdDSA || len(k) != ed25519.PublicKeySize {
			return errors.New("is an Ed25519 key")
		}
		return nil
	}
	return errors.New("is of a kind that signs nothing here")
}

// readSet reads a JSON Web Key Set. Keys that are for something else, too weak
// or of a kind that is not known are left out, as RFC 7517 wants, and told as
// findings; a set that names two keys alike, or holds secrets, is refused.
func readSet(b []byte, algs []jose.SignatureAlgorithm) ([]*publicKey, []merlon.Finding, error) {
	if _, err := readObject(b); err != nil {
		return nil, nil, fmt.Errorf("the key set %w", err)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, nil, err
	}
	if len(set.Keys) > maxKeys {
		return nil, nil, fmt.Errorf("the key set has more than %d keys", maxKeys)
	}
	var keys []*publicKey
	var findings []merlon.Finding
	for i, text := range set.Keys {
		k, finding, err := readKey(text, algs)
		if err != nil {
			return nil, nil, fmt.Errorf("key %d: %w", i, err)
		}
		if finding != "" {
			findings = append(findings, merlon.Finding{Part: fmt.Sprintf("key %d", i), Message: finding})
		}
		if k == nil {
			continue
		}
		if slices.ContainsFunc(keys, func(o *publicKey) bool { return o.kid == k.kid && k.kid != "" }) {
			return nil, nil, fmt.Errorf("two keys have the kid %q", k.kid)
		}
		findings = append(findings, weak(k)...)
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, findings, errors.New("the key set has no key that can be used")
	}
	return keys, findings, nil
}

// readKey reads one JWK. It returns none, and why, if the key is to be left out.
func readKey(text []byte, algs []jose.SignatureAlgorithm) (*publicKey, string, error) {
	m, err := readObject(text)
	if err != nil {
		return nil, "", err
	}
	for _, name := range [...]string{"d", "p", "q", "dp", "dq", "qi", "k", "priv"} {
		if m.has(name) && m["kty"] != "oct" {
			return nil, "", errors.New("the private key is published")
		}
	}
	switch use := m["use"]; {
	case m["kty"] == "oct":
		return nil, "is a shared secret", nil
	case use == "enc":
		return nil, "", nil // ordinary: left out without a word
	case use != nil && use != "sig":
		return nil, "is for another use", nil
	}
	if ops, ok := m["key_ops"].([]any); ok && !slices.Contains(ops, any("verify")) {
		return nil, "is for another operation", nil
	}
	// Certificates beside a key do not matter here, and may be broken.
	for _, name := range [...]string{"x5c", "x5u", "x5t", "x5t#S256"} {
		delete(m, name)
	}
	bare, err := json.Marshal(map[string]any(m))
	if err != nil {
		return nil, "", err
	}
	// Also refuses points that are not on the curve, and Ed25519 keys of small
	// order, under which anybody can sign.
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(bare); err != nil {
		return nil, err.Error(), nil
	}
	k := &publicKey{kid: jwk.KeyID, alg: jose.SignatureAlgorithm(jwk.Algorithm), key: jwk.Key}
	if k.alg == "" {
		// Held to one algorithm, so that none of two can be chosen by whoever
		// writes the token (RFC 8725, 3.1).
		for _, alg := range algs {
			if err = fits(k.key, alg); err == nil {
				k.alg = alg
				return k, "", nil
			}
		}
		return nil, "fits none of the issuer's algorithms: it " + err.Error(), nil
	}
	if !slices.Contains(algs, k.alg) {
		return nil, "is for " + string(k.alg) + ", which the issuer is not trusted with", nil
	}
	if err := fits(k.key, k.alg); err != nil {
		return nil, err.Error(), nil
	}
	return k, "", nil
}

// weak tells what may be used but should not be: RSA-2048 has 112 bits of
// strength, and ASVS 5.0, 11.2.3, wants 128.
func weak(k *publicKey) []merlon.Finding {
	if p, ok := k.key.(*rsa.PublicKey); ok && p.N.BitLen() < minOwnRSA {
		return []merlon.Finding{{
			Rule: "weak-key", Part: "key " + k.kid,
			Message: fmt.Sprintf("signs with RSA-%d, which has less than 128 bits of strength; ask the issuer for RSA-3072, ES256 or EdDSA", p.N.BitLen()),
		}}
	}
	return nil
}
