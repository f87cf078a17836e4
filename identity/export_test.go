package identity

import "time"

// SetClock replaces the desk's clock.
func (d *Desk) SetClock(now func() time.Time) { d.now = now }

// SetClock replaces the guard's clock.
func (g *Guard) SetClock(now func() time.Time) { g.now = now }

// SetClock replaces the prover's clock.
func (b *BasicProver) SetClock(now func() time.Time) { b.now = now }

// SetClock replaces the prover's clock.
func (p *CertificateProver) SetClock(now func() time.Time) { p.now = now }

// For tests of parsers.
var (
	ParseBasic    = parseBasic
	ParseHtpasswd = parseHtpasswd
	ParseWindow   = func(text string, at time.Time) (bool, error) {
		w, err := parseWindow(text)
		if err != nil {
			return false, err
		}
		return w.contains(at), nil
	}
	Allow = (*Rules).allow
)
