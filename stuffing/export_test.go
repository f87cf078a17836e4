package stuffing

import (
	"context"
	"time"
)

// SetClock replaces the clock.
func (g *Guard) SetClock(now func() time.Time) { g.now = now }

// SetSleep replaces waiting.
func (g *Guard) SetSleep(sleep func(context.Context, time.Duration) error) { g.sleep = sleep }

// Fold is the one form of a name.
func (g *Guard) Fold(name string) string { return g.fold(name) }

// Underway is how many requests have tries that are not settled.
func (g *Guard) Underway() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.underway)
}

// Loosen, Matches and MaxDelayed are for tests.
var (
	Loosen  = loosen
	Matches = matches
)

const (
	MaxDelayed     = maxDelayed
	MaxDelayedEach = maxDelayedEach
)
