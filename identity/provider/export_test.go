package provider

import "time"

// SetNow sets the provider's clock.
func (p *Provider) SetNow(now func() time.Time) { p.now = now }

// SetRetry sets how long to wait between two tries to deliver a log-out token.
func (p *Provider) SetRetry(d time.Duration) { p.retry = d }

var (
	SameRedirect = sameRedirect
	BadRedirect  = badRedirect
)
