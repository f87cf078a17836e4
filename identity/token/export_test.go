package token

import (
	"net/netip"
	"time"
)

// SetNow sets the clock; not while Run is running.
func (s *Service) SetNow(now func() time.Time) { s.now = now }

// RefreshKeys does what Run does from time to time.
func (s *Service) RefreshKeys() error { return s.keys.refresh(nil) } //nolint:staticcheck // no store here looks at it

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
