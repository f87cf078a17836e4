package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/identity/token"
	"github.com/merlon-dev/merlon/internal/portal"
)

const (
	// tokenPath is where a page's script gets an access token for the person
	// who has signed in with its browser.
	tokenPath = portal.Prefix + "token"
	// refreshCookie keeps the refresh secret where no script can read it.
	refreshCookie = "__Host-merlon-refresh"
	// refreshClient is what the secrets of browsers are bound to.
	refreshClient = "browser"
)

// serveToken issues an access token to a script of the site's own pages: by
// the refresh secret in its cookie, which is replaced, or, the first time, by
// the session. The csrf guard has seen that it is one of the site's own. A
// session that has ended, or whose owner may not sign in any more, gets none.
func (p *people) serveToken(w http.ResponseWriter, r *merlon.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if p.tokens == nil || !p.issues {
		merlon.Respond(w, r, merlon.Refuse(http.StatusNotFound, NoTokens))
		return
	}
	if r.Method != http.MethodPost {
		h.Set("Allow", http.MethodPost)
		merlon.Respond(w, r, merlon.Refuse(http.StatusMethodNotAllowed, NoTokens))
		return
	}
	grant, next, err := p.grant(r)
	if err != nil {
		http.SetCookie(w, p.refresh(token.Refresh{}))
		p.noToken(w, r, err)
		return
	}
	http.SetCookie(w, p.refresh(next))
	a, err := p.stores.Accounts.Account(r.Context(), grant.Subject)
	if err != nil {
		p.noToken(w, r, err)
		return
	}
	text, expires, err := p.tokens.Issue(r.Context(), token.Claims{
		Subject: a.ID, Name: a.Name, Groups: a.Groups, Roles: a.Roles, Client: refreshClient, Session: grant.Session,
		Methods: grant.Methods, AuthTime: grant.AuthTime,
	})
	if err != nil {
		p.noToken(w, r, err)
		return
	}
	h.Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client may be gone
		"access_token": text, "token_type": "Bearer", "expires_in": int(time.Until(expires).Seconds()),
	})
}

// errNobody: neither the refresh secret nor the session is good for a token.
var errNobody = errors.New("nobody has signed in with this browser")

// grant returns whose token it is to be, and the next refresh secret. The
// secret is good only beside the session that it hangs on, and for as much as
// that may have here and now: what site, address and login rules hold a session
// to, and what policy asks of its owner, must not be passed by on the cookie
// next to it.
func (p *people) grant(r *merlon.Request) (token.Grant, token.Refresh, error) {
	s, err := p.mayHaveTokens(r)
	if err != nil {
		return token.Grant{}, token.Refresh{}, err
	}
	if c, err := r.Cookie(refreshCookie); err == nil && c.Value != "" {
		g, next, err := p.tokens.UseRefresh(r.Context(), c.Value, refreshClient)
		if err == nil {
			if g.Session != s.ID || g.Subject != s.Account {
				err = p.tokens.RevokeSession(r.Context(), g.Session)
			} else if account.StrengthOf(g.Methods) >= p.guard.Required(r.Identity) {
				return g, next, nil
			} // else the session has proved more since
			if err != nil {
				return token.Grant{}, token.Refresh{}, err
			}
		} else if e, ok := errors.AsType[*token.Error](err); !ok || e.Why == token.RefreshReused {
			if ok {
				err = errors.Join(err, p.endCopied(r.Context(), s))
			}
			return token.Grant{}, token.Refresh{}, err
		}
	}
	g := token.Grant{Subject: s.Account, Client: refreshClient, Session: s.ID, Methods: s.Methods, AuthTime: s.Proved}
	next, err := p.tokens.StartRefresh(r.Context(), g)
	return g, next, err
}

// endCopied ends the session beside which a refresh secret came a second time:
// whoever has a copy of the one cookie has it of the other, too, which would be
// good for a new family.
func (p *people) endCopied(ctx context.Context, s session.Session) error {
	err := p.sessions.EndOne(ctx, s.Account, s.ID)
	if errors.Is(err, session.ErrNotFound) { // its owner was faster
		err = nil
	}
	return errors.Join(err, p.revoke(ctx, s.Account, s.ID))
}

// mayHaveTokens returns the session of r's cookie, if it lets r in here. What
// else may prove who asks is for programs: an access token, above all, must not
// become something that lasts longer.
func (p *people) mayHaveTokens(r *merlon.Request) (session.Session, error) {
	s, err := p.sessions.Current(r)
	if e, ok := errors.AsType[*session.Error](err); errors.Is(err, merlon.ErrNoProof) || ok && e.Reason != session.Unavailable {
		return session.Session{}, errNobody
	} else if err != nil {
		return session.Session{}, err
	}
	id := r.Identity // what login rules do not let in has none
	if id == nil || id.Subject != s.Account || account.StrengthOf(s.Methods) < p.guard.Required(id) {
		return session.Session{}, errNobody
	}
	return s, nil
}

// refresh is the cookie of a refresh secret; an empty one takes it away.
func (p *people) refresh(s token.Refresh) *http.Cookie {
	c := &http.Cookie{Name: refreshCookie, Value: s.Secret, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode, Expires: s.Expires}
	if s.Secret == "" {
		c.MaxAge, c.Expires = -1, time.Time{}
	}
	return c
}

// noToken refuses, and records why.
func (p *people) noToken(w http.ResponseWriter, r *merlon.Request, err error) {
	d := merlon.Refuse(http.StatusUnauthorized, NoTokens)
	d.Effect, d.Err = merlon.Challenge, err
	if e, ok := errors.AsType[*token.Error](err); ok {
		d.Reason = e.Why
	} else if !errors.Is(err, errNobody) {
		d = merlon.Unable(err)
	}
	r.Record("identity", d)
	merlon.Respond(w, r, d)
}

// NoTokens: nobody has signed in with the browser that asks for a token, it
// asks in another way than by POST, or no tokens are issued here
// (token.issuer).
const NoTokens merlon.Reason = "no-token-here"
