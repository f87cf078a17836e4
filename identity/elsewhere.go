package identity

import (
	"context"
	"errors"
	"strings"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/secrets"
)

// hintPlace binds a sealed ID token to the account whose session it is in.
const hintPlace = "id token of "

// An Elsewhere is the session at an identity provider that stands behind one
// of ours.
type Elsewhere struct {
	Issuer   string
	Provider string         // its name at the log-in; it may be empty
	IDToken  secrets.Secret // empty if it was too long to be kept
}

// Elsewhere returns what stands behind the session of who is signed in; zero
// if no provider does, or nobody is. Ask before the session ends.
func (d *Desk) Elsewhere(v Visit) (Elsewhere, error) {
	a, s, err := d.me(v)
	if errors.Is(err, account.ErrNotFound) || err == nil && s.Issuer == "" {
		return Elsewhere{}, nil
	} else if err != nil {
		return Elsewhere{}, err
	}
	e := Elsewhere{Issuer: s.Issuer}
	for _, m := range s.Methods {
		if name, ok := strings.CutPrefix(m, account.ByOIDC); ok {
			e.Provider = name
		}
	}
	if len(s.Hint) > 0 {
		// Of another master key: as good as none.
		if raw, err := d.box.Open(s.Hint, hintPlace+a.ID); err == nil {
			e.IDToken = secrets.New(string(raw))
		}
	}
	return e, nil
}

// EndedElsewhere ends the sessions that a provider's log-out token is about,
// see package oidc, and what hangs on them: tokens, and what applications were
// allowed. Subject or sid may be empty.
func (d *Desk) EndedElsewhere(v Visit, issuer, subject, sid string) error {
	// The provider may hang up; half a log-out is worse than a late one.
	ctx := context.WithoutCancel(v.Context())
	over, err := d.env.Sessions.ByProvider(ctx, issuer, subject, sid)
	if err != nil {
		return err
	}
	if _, err := d.env.Sessions.EndByProvider(ctx, issuer, subject, sid); err != nil {
		return err
	}
	var errs []error
	for _, s := range over {
		errs = append(errs, d.revoke(ctx, s.Account, s.ID))
		d.event(v, Event{Name: SessionExpired, Account: s.Account, Detail: "ended by " + issuer})
	}
	return errors.Join(errs...)
}
