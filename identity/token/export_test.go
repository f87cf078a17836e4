package token

import (
	"context"
	"crypto"
	"net/netip"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// SetNow sets the clock; not while Run is running.
func (s *Service) SetNow(now func() time.Time) { s.now = now }

// RefreshKeys does what Run does from time to time.
func (s *Service) RefreshKeys() error { return s.keys.refresh(context.Background()) }

// Public reports whether an address may be called without private being set.
func Public(a netip.Addr) bool { return public(a) }

// DialErr returns why an address may not be called, or nil.
func DialErr(private bool, address string) error { return control(private)("tcp", address, nil) }

// Cached is how many tokens are remembered.
func (s *Service) Cached() int {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	return len(s.cache.entries)
}

// Generate makes a private key.
var Generate = generate

// ReadSet returns the keys of a set by their kid, or an error.
func ReadSet(b []byte, algs ...jose.SignatureAlgorithm) (map[string]crypto.PublicKey, error) {
	keys, _, err := readSet(b, algs)
	out := make(map[string]crypto.PublicKey)
	for _, k := range keys {
		out[k.kid] = k.key
	}
	return out, err
}

// Forget empties the cache.
func (s *Service) Forget() { s.cache.dropIf(func(*entry) bool { return true }) }
