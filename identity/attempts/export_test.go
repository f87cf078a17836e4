package attempts

import "time"

// SetClock replaces the clock.
func (t *Throttle) SetClock(now func() time.Time) { t.now = now }

// Tag is what stands for a password.
func (t *Throttle) Tag(password string) string { return t.passwordTag(password) }

// Resident is how many places a store has made.
func (m *Memory) Resident() int {
	n := 0
	for i := range m.shards {
		n += len(m.shards[i].places)
	}
	return n
}
