// Package session keeps people logged in: a cookie with 256 random bits names
// a session, of which stores know only the hash, and which can be ended
// everywhere at once.
//
// A session says who logged in, how and when. What that account may is asked
// for again at least once a second, so that disabling it or changing its roles
// holds for sessions that exist. While a store does not answer, nobody is let
// in beyond that second, and connections that are open stay half a minute.
// Whoever steals the cookie from a browser is that browser, until the session
// ends or Config.Bind tells them apart.
package session

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
)

// Config configures a [Manager]. In the zero Config sessions are as long as
// NIST SP 800-63B-4 allows for their assurance level, and an account has ten.
type Config struct {
	// AAL1 limits sessions that one factor proved: a password, or an identity
	// provider that does not say more. Example:
	//
	//	aal1: {idle: 12h, absolute: 168h}
	AAL1 Limits `yaml:"aal1,omitempty"`
	// AAL2 limits sessions that two factors proved, or a passkey that asked for
	// its owner's finger, face or PIN. Example:
	//
	//	aal2: {idle: 30m, absolute: 10h}
	AAL2 Limits `yaml:"aal2,omitempty"`
	// AAL3 limits sessions proved by a key that cannot leave its hardware.
	// Example:
	//
	//	aal3: {idle: 10m, absolute: 8h}
	AAL3 Limits `yaml:"aal3,omitempty"`
	// AtMost is how many sessions one account may have: with one more, the
	// oldest ends. From 1 to 100 sessions. Default: 10. Example:
	//
	//	at_most: 1
	AtMost int `yaml:"at_most,omitempty"`
	// Bind holds a session to what it was last proved from, so that a stolen
	// cookie is worth less elsewhere: "network" is the client's IPv4 /24 or IPv6
	// /48, "agent" the browser's User-Agent without its version numbers. People
	// who move between networks have to log in again. Default: none, because
	// phones do. Example:
	//
	//	bind: [network, agent]
	Bind []string `yaml:"bind,omitempty"`
	// Activity says which requests show that somebody is there, so that the
	// idle limit begins anew. "person" are pages that people open, and whatever
	// is not GET, HEAD or OPTIONS; what a page fetches by itself, its polling,
	// does not count. An application that only fetches should send a POST now and
	// then while it is being used. "any" is every request, so that an open page
	// that polls is never idle. Default: person. Example:
	//
	//	activity: any
	Activity string `yaml:"activity,omitempty"`
	// Keep lets browsers keep the cookie when they are closed, until the
	// absolute limit. Default: false. Example:
	//
	//	keep: true
	Keep bool `yaml:"keep,omitempty"`
}

// Limits bound how long a session lasts.
type Limits struct {
	// Idle ends a session in which nobody has done anything for that long; up
	// to a thirtieth of it, at most a minute, sooner. From 1m to the absolute
	// limit. Default: 24h, 1h and 15m for aal1, aal2 and aal3. Example:
	//
	//	idle: 30m
	Idle time.Duration `yaml:"idle,omitempty"`
	// Absolute ends a session that long after the log-in, or after its level
	// was reached, whatever happens in it. From 1m to 720h, for aal3 to 12h.
	// Default: 720h, 24h and 12h for aal1, aal2 and aal3. Example:
	//
	//	absolute: 8h
	Absolute time.Duration `yaml:"absolute,omitempty"`
}

const (
	// Ended: the cookie names no session, or one that has ended: by its limits,
	// by logging out, because the account was disabled or its password changed,
	// or because the account has more than at_most of them. The client must log
	// in again.
	Ended merlon.Reason = "session-ended"
	// BadCookie: the session cookie is not one that was ever handed out.
	BadCookie merlon.Reason = "session-cookie-malformed"
	// TwoCookies: the request has more than one session cookie, as happens when
	// somebody plants one. Clear the site's cookies in the browser.
	TwoCookies merlon.Reason = "session-cookie-twice"
	// Elsewhere: the session is used from another network or browser than bind
	// allows, or on another site than it began on. If it is its owner, they have
	// to log in again there.
	Elsewhere merlon.Reason = "session-elsewhere"
	// FromFuture: the session began more than a minute after this machine's
	// clock. Set the clocks of all machines, by NTP for example.
	FromFuture merlon.Reason = "session-from-future"
	// Unavailable: the store of sessions or of accounts does not answer, so
	// nobody can be told to be logged in: 503. See that it can be reached.
	Unavailable merlon.Reason = "session-store-unavailable"
)

// An Error says why a cookie does not prove anybody.
type Error struct {
	Reason merlon.Reason // one of this package's
	Err    error         // the cause; nil if there is no more to say
}

func (e *Error) Error() string {
	if e.Err == nil {
		return "session: " + string(e.Reason)
	}
	return "session: " + string(e.Reason) + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Accounts says who an account is now. An [account.Store] does.
type Accounts interface {
	// Account returns an account; [account.ErrNotFound] ends its sessions.
	Account(ctx context.Context, id string) (account.Account, error)
}

// A Proof is what a log-in or a step-up has shown.
type Proof struct {
	Account string
	Methods []string // as in merlon.Identity: "password", "totp"
	// Level is the assurance level, 1 to 3. 0: what [account.StrengthOf] says
	// of the methods, at most 2. Who knows more, that a key cannot leave its
	// hardware for example, says so.
	Level int

	// The identity provider that vouched for it, if one did.
	Issuer  string
	Subject string
	SID     string
	// Hint is for the session's; one of more than [MaxHint] bytes is left out.
	Hint []byte
}

// level returns the assurance that p gives by itself.
func (p Proof) level() int {
	if p.Level != 0 {
		return p.Level
	}
	return levelOf(p.Methods)
}

// levelOf returns the assurance level of methods that were proved together, as
// far as they tell: never 3.
func levelOf(methods []string) int {
	if account.StrengthOf(methods) >= account.Multi {
		return 2
	}
	return 1
}

// A Manager begins sessions, finds them again and ends them. It proves
// identities as a [merlon.Prover].
type Manager struct {
	limits   [4]Limits // by level
	atMost   int
	network  bool // bound to the client's network
	agent    bool // bound to the browser
	any      bool // every request is activity
	keep     bool
	store    Store
	accounts Accounts
	live     *live
	now      func() time.Time
	watching sync.Once
	closing  chan struct{}
	close    sync.Once
}

const (
	defaultAtMost = 10
	maxAtMost     = 100
	day           = 24 * time.Hour
)

// longest are the bounds of Absolute: SP 800-63B-4 sections 2.1.3 and 2.3.3
// demand 30 days and 12 hours; for AAL2 it only advises 24 hours.
var longest = [4]time.Duration{1: 30 * day, 2: 30 * day, 3: 12 * time.Hour}

var defaults = [4]Limits{
	1: {Idle: day, Absolute: 30 * day},
	2: {Idle: time.Hour, Absolute: day},
	3: {Idle: 15 * time.Minute, Absolute: 12 * time.Hour},
}

// New returns a Manager of the sessions in store. From the first of them that
// it is asked about it watches them, until [Manager.Close].
func New(c Config, store Store, accounts Accounts) (*Manager, error) {
	m := &Manager{
		atMost: c.AtMost, any: c.Activity == "any", keep: c.Keep, store: store, accounts: accounts,
		network: slices.Contains(c.Bind, "network"), agent: slices.Contains(c.Bind, "agent"),
		live: newLive(), now: time.Now, closing: make(chan struct{}),
	}
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	if store == nil || accounts == nil {
		bad("", "", "needs a store of sessions and one of accounts")
	}
	for level, l := range [...]Limits{1: c.AAL1, 2: c.AAL2, 3: c.AAL3} {
		if level == 0 {
			continue
		}
		given := l
		if l.Absolute == 0 {
			l.Absolute = defaults[level].Absolute
		}
		if l.Idle == 0 {
			l.Idle = min(defaults[level].Idle, l.Absolute)
		}
		m.limits[level] = l
		at := "aal" + strconv.Itoa(level)
		if l.Absolute < time.Minute || l.Absolute > longest[level] {
			bad(at+".absolute", given.Absolute.String(), "must be from 1m to "+longest[level].String())
		} else if l.Idle < time.Minute || l.Idle > l.Absolute {
			bad(at+".idle", given.Idle.String(), "must be from 1m to the absolute limit, "+l.Absolute.String())
		}
	}
	if c.AtMost < 0 || c.AtMost > maxAtMost {
		bad("at_most", strconv.Itoa(c.AtMost), "must be from 1 to 100")
	} else if c.AtMost == 0 {
		m.atMost = defaultAtMost
	}
	for i, b := range c.Bind {
		if b != "network" && b != "agent" {
			bad("bind["+strconv.Itoa(i)+"]", b, "must be network or agent")
		}
	}
	if c.Activity != "" && c.Activity != "person" && c.Activity != "any" {
		bad("activity", c.Activity, "must be person or any")
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return m, nil
}

// Name returns "session".
func (m *Manager) Name() string { return "session" }

// Close lets go of the sessions: once the last connection that was let in has
// closed, nobody watches any longer. It does not end sessions, nor does it
// close the store.
func (m *Manager) Close() { m.close.Do(func() { close(m.closing) }) }

// lasts returns when s ends if nobody does anything.
func (m *Manager) lasts(s *Session) time.Time {
	if s.Retired {
		return s.Expires
	}
	l := m.limits[s.Level]
	// What was configured at the log-in is in Until; what is now may be less.
	return earlier(s.Until, earlier(s.Raised.Add(l.Absolute), s.Seen.Add(l.Idle)))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// step is how far the store's Seen may be behind.
func (m *Manager) step(level int) time.Duration { return min(m.limits[level].Idle/30, time.Minute) }
