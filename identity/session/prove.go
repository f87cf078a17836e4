package session

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
)

var (
	errTwoCookies = &Error{Reason: TwoCookies}
	errBadCookie  = &Error{Reason: BadCookie}
	errEnded      = &Error{Reason: Ended}
	errElsewhere  = &Error{Reason: Elsewhere}
	errFromFuture = &Error{Reason: FromFuture}
)

// patience is how long stores may take to answer.
const patience = 2 * time.Second

// Prove returns who is logged in with r's cookie, and nothing else of r: an id
// in its URL is none. Every error but [merlon.ErrNoProof] is an [*Error].
//
// The identity's Done is closed within a second of the session's end, also of
// one on another replica, and when the account's groups or roles change, so
// that whoever holds a connection open asks again.
func (m *Manager) Prove(r *merlon.Request) (*merlon.Identity, error) {
	e, now, err := m.enter(r)
	if err != nil {
		return nil, err
	}
	touch := false
	if s := &e.s; !s.Retired && now.After(s.Seen) && (m.any || byPerson(r.Request)) {
		s.Seen = now.UTC().Truncate(time.Microsecond)
		e.ends = m.lasts(s)
		if touch = now.Sub(e.touched) >= m.step(s.Level); touch {
			e.touched = s.Seen // whoever comes next need not
		}
	}
	id, seen, ends := e.who, e.s.Seen, e.ends
	e.enter(r.Context().Done())
	e.mu.Unlock()
	if touch {
		if err := m.touch(r.Context(), e, seen, ends); err != nil {
			return nil, err
		}
	}
	return &id, nil
}

// Current returns the session of r, for the pages that show or change it.
func (m *Manager) Current(r *merlon.Request) (Session, error) {
	e, _, err := m.enter(r)
	if err != nil {
		return Session{}, err
	}
	defer e.mu.Unlock()
	return e.s, nil
}

// enter returns the locked entry of r's session, which holds for r at the
// time it also returns.
func (m *Manager) enter(r *merlon.Request) (*entry, time.Time, error) {
	now := m.now()
	h, err := hashOf(r.Header)
	if err != nil {
		return nil, now, err
	}
	e, err := m.hold(r.Context(), h)
	if err != nil {
		return nil, now, err
	}
	s := &e.s
	switch {
	case s.Created.After(now.Add(skew)) || s.Seen.After(now.Add(skew)):
		// The clock went back. How old the session is cannot be known, and a
		// limit that may never be reached is none.
		err = errFromFuture
	case !now.Before(e.ends):
		err = errEnded
	case s.Site != r.Site || m.network && !sameNetwork(s.Client, r.Client) || m.agent && e.agent != kindOf(r.UserAgent()):
		err = errElsewhere
	default:
		return e, now, nil
	}
	old := *s
	e.mu.Unlock()
	if err == errEnded {
		m.expire(r.Context(), &old)
	}
	return nil, now, err
}

// hold returns the entry of h, locked and read within the last second.
func (m *Manager) hold(ctx context.Context, h Hash) (*entry, error) {
	m.watching.Do(func() { go m.watch() })
	for range 4 {
		e := m.live.get(h)
		e.mu.Lock()
		if e.left {
			e.mu.Unlock()
			continue
		}
		if !e.read.IsZero() && time.Since(e.read) < maxAge {
			return e, nil
		}
		if err := m.refresh(ctx, e); err != nil {
			return nil, err
		}
	}
	return nil, &Error{Reason: Unavailable, Err: errors.New("it changes faster than it can be read")}
}

// refresh reads the session of a locked entry, which it unlocks, or waits for
// somebody who does.
func (m *Manager) refresh(ctx context.Context, e *entry) error {
	c, first := e.join()
	e.mu.Unlock()
	if first {
		m.read(ctx, e, c)
		return c.err
	}
	select {
	case <-c.over:
		return c.err
	case <-ctx.Done():
		return &Error{Reason: Unavailable, Err: ctx.Err()}
	}
}

// read does a call.
func (m *Manager) read(ctx context.Context, e *entry, c *call) {
	began := time.Now()
	c.err = &Error{Reason: Unavailable, Err: errors.New("the store failed")} // unless it says otherwise
	defer func() {
		if c.err == errEnded {
			m.live.forget([]Hash{e.hash})
		}
		e.mu.Lock()
		e.call = nil
		e.mu.Unlock()
		close(c.over)
	}()
	// Others wait for the answer too, whatever becomes of this request.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	s, a, err := m.load(ctx, e.hash)
	if err != nil {
		c.err = err
		return
	}
	c.err = nil
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.left {
		return // it ended while it was read: whoever waits looks again
	}
	m.learn(e, s, a)
	e.alive = began
	if e.changes == c.changes {
		e.read = began
	}
}

// load reads a session and its account, and ends it if it must.
func (m *Manager) load(ctx context.Context, h Hash) (Session, account.Account, error) {
	var none account.Account
	s, err := m.store.Get(ctx, h)
	if errors.Is(err, ErrNotFound) {
		return s, none, errEnded
	} else if err != nil {
		return s, none, &Error{Reason: Unavailable, Err: err}
	}
	if s.Hash != h || s.Level < 1 || s.Level > 3 {
		return s, none, &Error{Reason: Unavailable, Err: errors.New("the store gave back another session than was asked for")}
	}
	a, err := m.accounts.Account(ctx, s.Account)
	switch {
	case errors.Is(err, account.ErrNotFound) || err == nil && a.Disabled:
		// All of them, so that none comes to life again with the account.
		m.endNow(ctx, Where{Account: s.Account})
		return s, none, errEnded
	case err != nil:
		return s, none, &Error{Reason: Unavailable, Err: err}
	case s.Proved.Before(a.ValidFrom.Truncate(time.Microsecond)), !m.now().Before(m.lasts(&s)):
		m.expire(ctx, &s)
		return s, none, errEnded
	}
	return s, a, nil
}

// expire ends a session whose time has come: all of it, or only an id that
// another has replaced.
func (m *Manager) expire(ctx context.Context, s *Session) {
	if s.Retired {
		m.live.forget([]Hash{s.Hash})
		return // the store drops it by itself
	}
	m.endNow(ctx, Where{Account: s.Account, ID: s.ID})
}

// endNow ends sessions that do not hold any longer. If the store does not
// answer, the next who asks for them tries again.
func (m *Manager) endNow(ctx context.Context, w Where) {
	if hashes, err := m.store.End(ctx, w); err == nil {
		m.live.forget(hashes)
	}
}

// learn puts into an entry what was read; it needs e.mu.
func (m *Manager) learn(e *entry, s Session, a account.Account) {
	e.touched = s.Seen
	if e.s.Seen.After(s.Seen) && !s.Retired {
		s.Seen = e.s.Seen // not told the store yet
	}
	e.s, e.ends = s, m.lasts(&s)
	if m.agent {
		e.agent = kindOf(s.Agent)
	}
	rights := rightsOf(&a)
	if e.rights != "" && e.rights != rights {
		e.renew()
	}
	e.rights = rights
	e.who = merlon.Identity{
		Subject: a.ID, Name: a.Name, Groups: a.Groups, Roles: a.Roles,
		Methods: s.Methods, When: s.Proved, Session: s.ID, Done: e.done,
	}
}

// touch tells the store that somebody was there.
func (m *Manager) touch(ctx context.Context, e *entry, seen, expires time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := m.store.Touch(ctx, e.hash, seen, expires)
	if errors.Is(err, ErrNotFound) {
		// Ended, or replaced by another id: the store knows.
		e.mu.Lock()
		e.doubt()
		return m.refresh(ctx, e)
	}
	if err != nil {
		// What was read is not a second old, so r may pass. The next tries again.
		e.mu.Lock()
		e.touched = time.Time{}
		e.mu.Unlock()
	}
	return nil
}

// byPerson reports whether a request shows that somebody is there.
func byPerson(hr *http.Request) bool {
	switch hr.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		return true
	}
	h := hr.Header
	switch mode := h.Get("Sec-Fetch-Mode"); {
	case h.Get("Sec-Fetch-User") == "?1":
		return true // a link, a form or the address bar was used
	case mode == "":
		// A browser of before 2023, or a program: a page is for a person.
		return strings.Contains(h.Get("Accept"), "text/html")
	case mode == "navigate" && h.Get("Sec-Fetch-Dest") == "document":
		// A browser that sends Sec-Fetch-User has said that the page reloads
		// itself. Not every Safari sends it.
		agent := h.Get("User-Agent")
		return strings.Contains(agent, "Safari/") && !strings.Contains(agent, "Chrome/")
	}
	return false
}

// sameNetwork reports whether a and b are in one IPv4 /24 or IPv6 /48.
func sameNetwork(a, b netip.Addr) bool {
	a, b = a.Unmap().WithZone(""), b.Unmap().WithZone("")
	if !a.IsValid() || a.BitLen() != b.BitLen() {
		return false
	}
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, err := a.Prefix(bits)
	return err == nil && p.Contains(b)
}

// maxAgent is how many bytes of a User-Agent are kept.
const maxAgent = 256

func shorten(s string) string {
	if len(s) > maxAgent {
		s = s[:maxAgent]
	}
	return strings.ToValidUTF8(s, "")
}

// kindOf returns a User-Agent without its version numbers, which change while
// people are logged in.
func kindOf(agent string) string {
	return strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' || c == '.' || c == '_' {
			return -1
		}
		return c
	}, shorten(agent))
}
