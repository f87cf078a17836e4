package oidc

import "time"

// SetNow sets the clock.
func (rp *RelyingParty) SetNow(now func() time.Time) { rp.now = now }

// ParseKeys returns the kinds of the keys in a JWK set that would be used.
func ParseKeys(body []byte) ([]any, error) {
	set, err := parseKeys(body)
	var keys []any
	for _, k := range set {
		keys = append(keys, k.Key)
	}
	return keys, err
}
