package token

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	pollEvery = 500 * time.Millisecond // a revocation is heard of within a second
	deafAfter = time.Minute            // tokens are refused if nothing was heard for so long
)

// revocations is what was revoked, as far as this replica has heard.
type revocations struct {
	store  Store
	now    func() time.Time
	change func() // called when something was added

	mu      sync.RWMutex
	m       map[revokedKey]Revocation
	heard   time.Time
	swept   time.Time
	err     error      // of the last look
	looking sync.Mutex // held by who looks
	cursor  string     // guarded by looking
}

// revoked reports whether a token was revoked. Issuer is empty for our own.
func (v *revocations) revoked(issuer string, c *Claims) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if len(v.m) == 0 {
		return false
	}
	if _, ok := v.m[revokedKey{OfToken, issuer, c.ID}]; ok && c.ID != "" {
		return true
	}
	if _, ok := v.m[revokedKey{OfSession, issuer, c.Session}]; ok && c.Session != "" {
		return true
	}
	r, ok := v.m[revokedKey{OfSubject, issuer, c.Subject}]
	return ok && !c.Issued.After(r.Before)
}

// deaf returns why revocations are not known, or nil.
func (v *revocations) deaf(now time.Time) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if now.Sub(v.heard) <= deafAfter {
		return nil
	}
	err := v.err
	if err == nil {
		err = errors.New("nobody asked: Run is not running")
	}
	return fmt.Errorf("nothing was heard of revocations since %s: %w", v.heard.UTC().Format(time.RFC3339), err)
}

// after returns a time to issue a token of ours at that is not revoked
// already: times in tokens are whole seconds, and somebody who logs in right
// after all older tokens were revoked does so within one.
func (v *revocations) after(subject string, now time.Time) time.Time {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if r, ok := v.m[revokedKey{OfSubject, "", subject}]; ok && !now.After(r.Before) && r.Before.Sub(now) < 2*time.Second {
		return r.Before.Add(time.Second)
	}
	return now
}

// look asks the store what was revoked since it was last asked.
func (v *revocations) look(ctx context.Context) error {
	v.looking.Lock()
	defer v.looking.Unlock()
	now := v.now()
	rs, next, err := v.store.Revocations(ctx, v.cursor, now)
	if err != nil {
		v.mu.Lock()
		v.err = err
		v.mu.Unlock()
		return err
	}
	v.cursor = next
	v.add(rs, now)
	v.mu.Lock()
	v.heard, v.err = now, nil
	v.mu.Unlock()
	return nil
}

// add takes revocations in, and forgets those that have expired.
func (v *revocations) add(rs []Revocation, now time.Time) {
	news := false
	v.mu.Lock()
	for _, r := range rs {
		k := revokedKey{r.Kind, r.Issuer, r.ID}
		old, ok := v.m[k]
		r.Before, r.Expires = later(r.Before, old.Before), later(r.Expires, old.Expires)
		if !ok || !r.Before.Equal(old.Before) {
			news = true
		}
		v.m[k] = r
	}
	if now.Sub(v.swept) > time.Minute {
		v.swept = now
		for k, r := range v.m {
			if !r.Expires.After(now) {
				delete(v.m, k)
			}
		}
	}
	v.mu.Unlock()
	if news {
		v.change()
	}
}

// revoke holds here at once, also if the store cannot be told.
func (v *revocations) revoke(ctx context.Context, r Revocation) error {
	now := v.now()
	v.add([]Revocation{r}, now)
	return v.store.Revoke(ctx, r, now)
}

// RevokeToken revokes one token, of ours or of a trusted issuer.
func (s *Service) RevokeToken(ctx context.Context, c *Claims) error {
	i := s.issuers[c.Issuer]
	switch {
	case i == nil:
		return fmt.Errorf("%q is no trusted issuer", c.Issuer)
	case c.ID == "":
		return errors.New("the token has no jti to revoke it by")
	}
	expires := c.Expires.Add(i.skew + time.Second)
	if expires.Before(s.now()) {
		return nil
	}
	return s.revocations.revoke(ctx, Revocation{Kind: OfToken, Issuer: i.revokes, ID: c.ID, Expires: expires})
}

// RevokeSubject revokes the tokens and refresh families that a subject was
// given until now. It is the subject of an identity, so that of another
// issuer has that issuer's name and "#" before it.
func (s *Service) RevokeSubject(ctx context.Context, subject string) error {
	if subject == "" {
		return errors.New("there is no subject to revoke")
	}
	before := s.now().Truncate(time.Second)
	revoke := func(issuer, sub string, longest time.Duration) error {
		return s.revocations.revoke(ctx, Revocation{
			Kind: OfSubject, Issuer: issuer, ID: sub, Before: before, Expires: before.Add(longest + 2*maxSkew + time.Minute),
		})
	}
	errs := []error{revoke("", subject, maxSigned), s.store.RevokeFamilies(ctx, subject, "")}
	if iss, sub, ok := strings.Cut(subject, "#"); ok {
		if i := s.issuers[iss]; i != nil && !i.own {
			errs = append(errs, revoke(iss, sub, i.lifetime))
		}
	}
	return errors.Join(errs...)
}

// RevokeSession revokes the tokens and refresh families of a session.
func (s *Service) RevokeSession(ctx context.Context, session string) error {
	if session == "" {
		return errors.New("there is no session to revoke")
	}
	r := Revocation{Kind: OfSession, ID: session}
	r.Expires = s.now().Truncate(time.Second).Add(maxSigned + 2*maxSkew + time.Minute)
	return errors.Join(s.revocations.revoke(ctx, r), s.store.RevokeFamilies(ctx, "", session))
}
