package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
)

// grace is how long an id lives on after another has taken its place, so that
// requests that were on their way arrive. It proves no more than it did before.
const grace = 5 * time.Second

// Begin begins a session for whom p has shown to be there, and returns the
// cookie for the answer to r. The id is new whatever cookie r came with, and
// the session of that cookie ends: nobody can have planted it (fixation).
func (m *Manager) Begin(r *merlon.Request, p Proof) (Session, *http.Cookie, error) {
	if err := p.check(); err != nil {
		return Session{}, nil, err
	}
	ctx := r.Context()
	a, err := m.accounts.Account(ctx, p.Account)
	switch {
	case errors.Is(err, account.ErrNotFound) || err == nil && a.Disabled:
		return Session{}, nil, &Error{Reason: Ended, Err: errors.New("the account is disabled or gone")}
	case err != nil:
		return Session{}, nil, &Error{Reason: Unavailable, Err: err}
	}
	if err := m.End(r); err != nil {
		return Session{}, nil, err
	}
	now := m.now().UTC().Truncate(time.Microsecond)
	id, hash := newID()
	s := Session{
		Hash: hash, ID: rand.Text(), Account: a.ID, Site: r.Site,
		Methods: slices.Clone(p.Methods), Level: p.level(),
		Created: now, Issued: now, Proved: now, Raised: now, Seen: now,
		Client: r.Client, Agent: shorten(r.UserAgent()), Rights: rightsOf(&a),
		Issuer: p.Issuer, Subject: p.Subject, SID: p.SID, Hint: p.hint(),
	}
	s.Until = now.Add(m.limits[s.Level].Absolute)
	s.Expires = m.lasts(&s)
	ended, err := m.store.Put(ctx, s, m.atMost)
	m.live.forget(ended)
	if err != nil {
		return Session{}, nil, &Error{Reason: Unavailable, Err: err}
	}
	return s, m.cookie(id, &s, now), nil
}

// StepUp notes that the person behind r's session has proved again, with a new
// id. A proof of the session's level or a higher one takes the place of what
// was proved before, at this time. A weaker one, such as one more factor, is
// added to that, and the time stays that of the older: a session is as fresh
// as the oldest part of its proof. So ask for as much as the session has.
//
// The absolute end never moves to later. Connections that were open under the
// old id end with it, within seconds.
//
// Who changes their password steps up with it first; then the account's
// ValidFrom becomes the Proved of the session that is returned, which so
// outlives all others.
func (m *Manager) StepUp(r *merlon.Request, p Proof) (Session, *http.Cookie, error) {
	if err := p.check(); err != nil {
		return Session{}, nil, err
	}
	old, err := m.Current(r)
	if err != nil {
		return Session{}, nil, err
	}
	if old.Account != p.Account {
		return Session{}, nil, errors.New("session: the proof is another account's")
	}
	now := m.now().UTC().Truncate(time.Microsecond)
	s := old
	all := union(old.Methods, p.Methods)
	own, level := p.level(), max(levelOf(all), p.level(), old.Level)
	if own >= level {
		s.Methods, s.Proved = slices.Clone(p.Methods), now
		s.Client, s.Agent = r.Client, shorten(r.UserAgent())
	} else {
		s.Methods = all
	}
	if level > old.Level {
		s.Level, s.Raised = level, now
		s.Until = earlier(s.Until, now.Add(m.limits[level].Absolute))
	}
	if p.Issuer != "" {
		s.Issuer, s.Subject, s.SID, s.Hint = p.Issuer, p.Subject, p.SID, p.hint()
	}
	s.Seen = now
	return m.rotate(r, old, s, now)
}

// Renew returns a cookie with a new id if the groups or roles of the account
// have changed since the browser got its own, and nil otherwise. What the
// account may does not depend on it; an id that was known when it could do
// less should not be worth more.
func (m *Manager) Renew(r *merlon.Request) (*http.Cookie, error) {
	e, _, err := m.enter(r)
	if err != nil {
		return nil, err
	}
	old, rights := e.s, e.rights
	e.mu.Unlock()
	now := m.now().UTC().Truncate(time.Microsecond)
	// Replicas may hear of a change one after the other, and answers to
	// handshakes are not always looked at.
	if old.Rights == rights || old.Retired || now.Before(old.Issued.Add(grace)) || r.Header.Get("Upgrade") != "" {
		return nil, nil
	}
	s := old
	s.Rights = rights
	_, c, err := m.rotate(r, old, s, now)
	if errors.Is(err, error(errEnded)) {
		return nil, nil // another request got there first
	}
	return c, err
}

// rotate gives s, which was old, a new id.
func (m *Manager) rotate(r *merlon.Request, old, s Session, now time.Time) (Session, *http.Cookie, error) {
	id, hash := newID()
	s.Hash, s.Issued = hash, now
	s.Expires = m.lasts(&s)
	err := m.store.Rotate(r.Context(), old.Hash, now.Add(grace), s)
	m.live.doubtOne(old.Hash)
	if errors.Is(err, ErrNotFound) {
		return Session{}, nil, errEnded
	} else if err != nil {
		return Session{}, nil, &Error{Reason: Unavailable, Err: err}
	}
	return s, m.cookie(id, &s, now), nil
}

// mostCookies is how many session cookies of one request are looked at.
// Browsers have one.
const mostCookies = 4

// End logs out: every session that r has a cookie of ends, on all replicas. It
// is no error if there is none. [Clear] tells the browser.
func (m *Manager) End(r *merlon.Request) error {
	for _, h := range allHashes(r.Header, mostCookies) {
		s, err := m.store.Get(r.Context(), h)
		if errors.Is(err, ErrNotFound) {
			m.live.forget([]Hash{h}) // somebody else was faster, and may not have told yet
			continue
		} else if err != nil {
			return &Error{Reason: Unavailable, Err: err}
		}
		if _, err := m.end(r.Context(), Where{Account: s.Account, ID: s.ID}); err != nil {
			return err
		}
	}
	return nil
}

// EndOne ends the account's session with an ID from [Manager.List];
// [ErrNotFound] if it has none.
func (m *Manager) EndOne(ctx context.Context, account, id string) error {
	if account == "" || id == "" {
		return ErrNotFound
	}
	n, err := m.end(ctx, Where{Account: account, ID: id})
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

// EndAll ends an account's sessions, except the one with that ID if it is not
// empty, and returns how many ids that were.
func (m *Manager) EndAll(ctx context.Context, account, except string) (int, error) {
	return m.end(ctx, Where{Account: account, Except: except})
}

// EndByProvider ends the sessions that an identity provider vouched for: those
// of its session sid, of its subject, or, if both are given, of both (OpenID
// Connect Back-Channel Logout 1.0, section 2.6).
func (m *Manager) EndByProvider(ctx context.Context, issuer, subject, sid string) (int, error) {
	if issuer == "" || subject == "" && sid == "" {
		return 0, errors.New("session: needs an issuer and a subject or session of it")
	}
	return m.end(ctx, Where{Issuer: issuer, Subject: subject, SID: sid})
}

// ByProvider returns the sessions that [Manager.EndByProvider] would end.
func (m *Manager) ByProvider(ctx context.Context, issuer, subject, sid string) ([]Session, error) {
	list, err := m.store.Find(ctx, Where{Issuer: issuer, Subject: subject, SID: sid})
	if err != nil {
		return nil, &Error{Reason: Unavailable, Err: err}
	}
	return list, nil
}

func (m *Manager) end(ctx context.Context, w Where) (int, error) {
	hashes, err := m.store.End(ctx, w)
	m.live.forget(hashes)
	if err != nil {
		return len(hashes), &Error{Reason: Unavailable, Err: err}
	}
	return len(hashes), nil
}

// List returns an account's sessions, the newest first.
func (m *Manager) List(ctx context.Context, account string) ([]Session, error) {
	now := m.now()
	list, err := m.store.List(ctx, account, now)
	if err != nil {
		return nil, &Error{Reason: Unavailable, Err: err}
	}
	return slices.DeleteFunc(list, func(s Session) bool { return !now.Before(m.lasts(&s)) }), nil
}

// Holds reports whether the account's session with an ID still holds, for
// tokens that were issued in it and must not outlive it.
func (m *Manager) Holds(ctx context.Context, account, id string) (bool, error) {
	list, err := m.List(ctx, account)
	return slices.ContainsFunc(list, func(s Session) bool { return s.ID == id }), err
}

// Forget makes an account be asked for again before its sessions are next
// believed. Call it where an account was changed, so that its sessions need
// not wait the second that it takes elsewhere.
func (m *Manager) Forget(account string) {
	m.live.doubt(func(e *entry) bool { return e.s.Account == account })
}

// rightsOf returns a digest of what the account may.
func rightsOf(a *account.Account) string {
	h := sha256.New()
	for _, list := range [...][]string{a.Groups, a.Roles} {
		for _, name := range list {
			_, _ = io.WriteString(h, name+"\x00")
		}
		_, _ = io.WriteString(h, "\x00")
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12])
}

// check says what is wrong with how a caller uses p.
func (p Proof) check() error {
	switch {
	case p.Account == "":
		return errors.New("session: a proof needs an account")
	case len(p.Methods) == 0:
		return errors.New("session: a proof needs methods")
	case p.Level < 0 || p.Level > 3:
		return errors.New("session: a proof's level is 1, 2 or 3")
	}
	return nil
}

// hint is what is kept of p's.
func (p Proof) hint() []byte {
	if len(p.Hint) > MaxHint {
		return nil
	}
	return slices.Clone(p.Hint)
}

func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, m := range b {
		if !slices.Contains(all, m) {
			all = append(all, m)
		}
	}
	return all
}
