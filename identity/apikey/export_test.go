package apikey

import "time"

// SetClock replaces the clock.
func (m *Keys) SetClock(now func() time.Time) { m.now = now }

// Known is how many keys are remembered.
func (m *Keys) Known() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.known)
}

// MaxKnown is how many may be.
const MaxKnown = maxKnown

// Parse, Checksum and NewText are the form of a key.
var (
	Parse    = parse
	Checksum = checksum
	NewText  = newText
)
