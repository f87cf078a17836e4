package mfa

import "time"

var (
	CleanCode     = cleanCode
	CleanRecovery = cleanRecovery
	Match         = match
)

func (f *Factors) SetNow(now func() time.Time) { f.now = now }
