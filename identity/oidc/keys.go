package oidc

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// keysEvery is how often keys are fetched at most, whatever key ids come in:
// log-out tokens are anybody's to send.
const keysEvery = 30 * time.Second

// keys are a provider's public keys: an oidc.KeySet that fetches them when
// there is a new one, not more often than every half minute, keeps the last
// ones when the provider is down, and not for longer than a day.
type keys struct {
	http *http.Client
	now  func() time.Time
	turn chan struct{} // held while fetching

	mu      sync.Mutex
	url     string
	set     []jose.JSONWebKey
	fetched time.Time // when set was
	tried   time.Time
}

// moved says where the keys are.
func (k *keys) moved(url string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.url != url {
		k.url, k.set, k.fetched, k.tried = url, nil, time.Time{}, time.Time{}
	}
}

// VerifySignature returns the payload of a JWT that one of the keys signed.
func (k *keys) VerifySignature(ctx context.Context, text string) ([]byte, error) {
	algs := make([]jose.SignatureAlgorithm, len(algorithms))
	for i, a := range algorithms {
		algs[i] = jose.SignatureAlgorithm(a)
	}
	jws, err := jose.ParseSignedCompact(text, algs)
	if err != nil {
		return nil, err
	}
	if set, fresh := k.current(); fresh {
		if payload, ok := verify(jws, set); ok {
			return payload, nil
		}
	}
	if err := k.fetch(ctx); err != nil {
		return nil, err
	}
	set, _ := k.current()
	if payload, ok := verify(jws, set); ok {
		return payload, nil
	}
	return nil, errors.New("no key of the provider's signed it")
}

// current returns the keys, and whether they need not be looked at again.
func (k *keys) current() (set []jose.JSONWebKey, fresh bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	age := k.now().Sub(k.fetched)
	if age >= staleAfter {
		return nil, false
	}
	return k.set, age < refreshEvery
}

// verify tries the keys that the header may mean: those of its id and, if they
// say so, algorithm.
func verify(jws *jose.JSONWebSignature, set []jose.JSONWebKey) ([]byte, bool) {
	h := jws.Signatures[0].Header
	for _, key := range set {
		if h.KeyID != "" && key.KeyID != h.KeyID || key.Algorithm != "" && key.Algorithm != h.Algorithm {
			continue
		}
		if payload, err := jws.Verify(key.Key); err == nil {
			return payload, true
		}
	}
	return nil, false
}

// fetch fetches the keys, unless that was tried a moment ago.
func (k *keys) fetch(ctx context.Context) error {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	now := k.now()
	k.mu.Lock()
	url, soon := k.url, now.Sub(k.tried) < keysEvery
	if !soon {
		k.tried = now
	}
	k.mu.Unlock()
	if soon || url == "" {
		return nil
	}
	set, err := get(context.WithoutCancel(ctx), k.http, url)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil && k.url == url {
		k.set, k.fetched = set, now
	}
	if err != nil && now.Sub(k.fetched) >= staleAfter {
		return fmt.Errorf("the provider's keys: %w", err)
	}
	return nil
}

func get(ctx context.Context, c *http.Client, url string) ([]jose.JSONWebKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, errors.New(res.Status)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	return parseKeys(body)
}

// parseKeys returns the public keys for signatures in a JWK set. What it does
// not know it skips (RFC 7517, 5); a set with two keys of one id and kind
// leaves open which is meant, so neither counts.
func parseKeys(body []byte) ([]jose.JSONWebKey, error) {
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, errors.New("is not a JWK set")
	}
	var set []jose.JSONWebKey
	seen := make(map[string]int)
	for _, text := range raw.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(text, &key) != nil || !key.IsPublic() || !key.Valid() || key.Use != "" && key.Use != "sig" {
			continue
		}
		if k, ok := key.Key.(*rsa.PublicKey); ok && k.N.BitLen() < 2048 {
			continue
		}
		if key.KeyID != "" {
			seen[key.KeyID+"\x00"+key.Algorithm]++
		}
		set = append(set, key)
	}
	only := set[:0]
	for _, key := range set {
		if key.KeyID == "" || seen[key.KeyID+"\x00"+key.Algorithm] == 1 {
			only = append(only, key)
		}
	}
	if len(only) == 0 {
		return nil, errors.New("has no public key for signatures")
	}
	return only, nil
}
