package identity

import (
	"context"
	"errors"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/session"
)

// Me returns the account of who is signed in; account.ErrNotFound if nobody is.
func (d *Desk) Me(v Visit) (account.Account, error) {
	a, _, err := d.me(v)
	return a, err
}

// me is who the guard has let in by a session.
func (d *Desk) me(v Visit) (account.Account, session.Session, error) {
	if v.Identity == nil || v.Identity.Session == "" {
		return account.Account{}, session.Session{}, account.ErrNotFound
	}
	s, err := d.env.Sessions.Current(v.Request)
	if errors.Is(err, merlon.ErrNoProof) {
		return account.Account{}, s, account.ErrNotFound
	}
	if e, ok := errors.AsType[*session.Error](err); ok && e.Reason != session.Unavailable {
		return account.Account{}, s, account.ErrNotFound
	}
	if err != nil {
		return account.Account{}, s, err
	}
	if s.ID != v.Identity.Session || s.Account != v.Identity.Subject {
		return account.Account{}, s, account.ErrNotFound
	}
	a, err := d.env.Accounts.Account(v.Context(), s.Account)
	return a, s, err
}

// A self is somebody who has just proved to be there.
type self struct {
	account account.Account
	session session.Session
	held    mfa.Held
}

// fresh returns who is signed in and has proved it lately, by all factors that
// the account has. A Step with a state says who has to do what first.
func (d *Desk) fresh(v Visit) (self, Step, error) {
	a, s, err := d.me(v)
	if errors.Is(err, account.ErrNotFound) {
		return self{}, Step{State: Anonymous}, nil
	} else if err != nil {
		return self{}, Step{}, err
	}
	held, err := d.env.Factors.Held(v.Context(), v.Origin, a.ID)
	if err != nil {
		return self{}, Step{}, err
	}
	must := account.Single
	if second(held) {
		must = account.Multi
	}
	if !s.Fresh(d.c.Fresh, d.now()) || account.StrengthOf(s.Methods) < must {
		return self{}, Step{State: Prove, Name: called(a), Account: a.ID}, nil
	}
	return self{a, s, held}, Step{}, nil
}

// ChangeEmail sends a link to a new address of who is signed in. Sent, Wrong
// (not an address), Wait, Prove, Closed or Anonymous.
func (d *Desk) ChangeEmail(v Visit, email string) (Step, error) {
	if d.env.Letters == nil {
		return Step{State: Closed}, nil
	}
	me, step, err := d.fresh(v)
	if step.State != "" || err != nil {
		return step, err
	}
	email, err = account.FoldEmail(email)
	if err != nil {
		return Step{State: Wrong}, nil
	}
	if step := d.askMail(v, email); step.State != "" {
		return step, nil
	}
	ctx, a := v.Context(), me.account
	l, secret := NewLink(account.EmailLink, a.ID, d.now().Add(emailLife))
	l.Data = email
	// One at a time: a link to an address that was mistyped before must not
	// overtake the right one.
	if err := d.env.Accounts.DropLinks(ctx, a.ID, account.EmailLink); err != nil {
		return Step{}, err
	}
	if err := d.env.Accounts.AddLink(ctx, l); err != nil {
		return Step{}, err
	}
	d.letter(v, a, Letter{Kind: VerifyEmailLetter, To: email, Secret: secret.Reveal(), Until: l.Expires})
	return Step{State: Sent}, nil
}

// ConfirmEmail puts the address in force to which a link was sent, and is for
// POST only. Links to recover that went to the old address end; those to a new
// address end with a new password and with what ends all sessions. Done, Taken,
// Wait or Stale. Nobody needs to be signed in.
func (d *Desk) ConfirmEmail(v Visit, secret string) (Step, error) {
	l, step, err := d.link(v, account.EmailLink, secret)
	if step.State != "" || err != nil {
		return step, err
	}
	l, err = d.env.Accounts.TakeLink(v.Context(), account.EmailLink, l.Hash, d.now())
	if errors.Is(err, account.ErrNotFound) {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	var old account.Account
	asked := l.Expires.Add(-emailLife)
	a, err := d.env.Accounts.Update(v.Context(), l.Account, func(a *account.Account) error {
		// trap 50: who knew the old password must not have left a way back in.
		if a.Disabled || asked.Before(a.PasswordSince) || asked.Before(a.ValidFrom) {
			return errStale
		}
		old = *a
		// Who logs in by an address goes on to, by the new one.
		if a.Name == a.Email && a.Name != "" {
			a.Name = l.Data
		}
		a.Email, a.EmailVerified = l.Data, true
		return nil
	})
	switch {
	case errors.Is(err, account.ErrTaken):
		return Step{State: Taken}, nil
	case errors.Is(err, errStale), errors.Is(err, account.ErrNotFound):
		return Step{State: Stale}, nil
	case err != nil:
		return Step{}, err
	}
	// trap 50: a link that went to the old address ends with it.
	if err := d.env.Accounts.DropLinks(v.Context(), a.ID, account.RecoverLink); err != nil {
		return Step{}, err
	}
	if old.Email != a.Email && old.EmailVerified {
		d.letter(v, old, Letter{Kind: EmailChanged, Detail: a.Email})
	}
	d.event(v, Event{Name: UserUpdated, Reason: EmailConfirmed, Account: a.ID, User: a.Name})
	return Step{State: Done, Name: called(a), Account: a.ID}, nil
}

// SetDisplay changes what pages and letters call who is signed in; an empty
// name takes it away. It becomes one short line. Done, Prove or Anonymous.
func (d *Desk) SetDisplay(v Visit, display string) (Step, error) {
	me, step, err := d.fresh(v)
	if step.State != "" || err != nil {
		return step, err
	}
	display = oneLine(display)
	a, err := d.env.Accounts.Update(v.Context(), me.account.ID, func(a *account.Account) error {
		a.Display = display
		return nil
	})
	if err != nil {
		return Step{}, err
	}
	d.env.Sessions.Forget(a.ID) // the very next page has the new name
	d.event(v, Event{Name: UserUpdated, Reason: DisplayChanged, Account: a.ID, User: a.Name, Detail: display})
	return Step{State: Done, Name: called(a), Account: a.ID}, nil
}

// ForgetDevices makes no browser known any longer to who is signed in, this
// one included: the next log-in from each is told of by a letter, and has to
// wait as a stranger's while somebody guesses. No session ends. Done, Prove or
// Anonymous.
func (d *Desk) ForgetDevices(v Visit) (Step, error) {
	me, step, err := d.fresh(v)
	if step.State != "" || err != nil {
		return step, err
	}
	a := me.account
	if err := d.env.Accounts.ForgetDevices(v.Context(), a.ID); err != nil {
		return Step{}, err
	}
	d.event(v, Event{Name: UserUpdated, Reason: DevicesForgotten, Account: a.ID, User: a.Name})
	return Step{State: Done, Name: called(a), Account: a.ID}, nil
}

// RemoveFactor removes a factor of who is signed in. All other sessions end.
// Done, LastFactor, Stale (there is no such factor), Prove or Anonymous.
func (d *Desk) RemoveFactor(v Visit, id string) (Step, error) {
	me, step, err := d.fresh(v)
	if step.State != "" || err != nil {
		return step, err
	}
	ctx, a := v.Context(), me.account
	f, err := d.env.Accounts.Factor(ctx, id)
	if errors.Is(err, account.ErrNotFound) || err == nil && (f.Account != a.ID || f.Kind == account.Recovery) {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	all, err := d.env.Accounts.Factors(ctx, a.ID)
	if err != nil {
		return Step{}, err
	}
	left, resistant := 0, 0
	for _, other := range all {
		if other.ID != f.ID && other.Kind != account.Recovery {
			left++
			if other.Kind == account.Passkey {
				resistant++
			}
		}
	}
	want := d.required(a.Roles)
	if want >= account.Multi && left == 0 || want >= account.PhishingResistant && resistant == 0 || left == 0 && a.Password == "" {
		return Step{State: LastFactor}, nil
	}
	err = d.env.Accounts.RemoveFactor(ctx, a.ID, f.ID)
	if errors.Is(err, account.ErrNotFound) {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	if left == 0 { // codes that stand for nothing
		if err := d.env.Accounts.ReplaceFactors(ctx, a.ID, account.Recovery, nil); err != nil {
			return Step{}, err
		}
	}
	d.letter(v, a, Letter{Kind: FactorRemoved, Detail: f.Name})
	d.event(v, Event{Name: UserUpdated, Reason: FactorTakenOff, Account: a.ID, User: a.Name, Method: f.Kind, Detail: f.Name})
	if err := d.endOthers(ctx, a.ID, me.session.ID); err != nil {
		return Step{}, err
	}
	return Step{State: Done, Name: called(a), Account: a.ID}, nil
}

// NewCodes replaces the recovery codes of who is signed in. Done with Codes,
// Stale (without another factor there is nothing to recover), Prove or
// Anonymous.
func (d *Desk) NewCodes(v Visit) (Step, error) {
	me, step, err := d.fresh(v)
	if step.State != "" || err != nil {
		return step, err
	}
	a := me.account
	if !second(me.held) {
		return Step{State: Stale}, nil
	}
	codes, err := d.env.Factors.NewRecoveryCodes(v.Context(), a.ID)
	if err != nil {
		return Step{}, err
	}
	d.letter(v, a, Letter{Kind: CodesReplaced})
	d.event(v, Event{Name: UserUpdated, Reason: CodesMade, Account: a.ID, User: a.Name})
	return Step{State: Done, Codes: codes, Name: called(a), Account: a.ID}, nil
}

// LogOut ends the session of who is signed in. The answer's header tells the
// browser to forget the site's cache and storage. Done.
func (d *Desk) LogOut(v Visit) (Step, error) {
	if err := d.env.Sessions.End(v.Request); err != nil {
		return Step{}, err
	}
	session.Clear(v.Header)
	if v.Identity != nil {
		if v.Identity.Session != "" {
			if err := d.revoke(v.Context(), v.Identity.Subject, v.Identity.Session); err != nil {
				return Step{}, err
			}
		}
		d.event(v, Event{Name: SessionExpired, Account: v.Identity.Subject, User: v.Identity.Name, Detail: "logged out"})
	}
	return Step{State: Done}, nil
}

// LogOutEverywhere ends all sessions of who is signed in, and all that
// applications were allowed in them, offline access included. Done.
func (d *Desk) LogOutEverywhere(v Visit) (Step, error) {
	a, _, err := d.me(v)
	if errors.Is(err, account.ErrNotFound) {
		return d.LogOut(v)
	} else if err != nil {
		return Step{}, err
	}
	if err := d.endOthers(v.Context(), a.ID, ""); err != nil {
		return Step{}, err
	}
	session.Clear(v.Header)
	d.event(v, Event{Name: SessionExpired, Account: a.ID, User: a.Name, Detail: "logged out everywhere"})
	return Step{State: Done}, nil
}

// EndSession ends one session of who is signed in; an empty id ends all
// others. Done, Stale (there is no such session) or Anonymous.
func (d *Desk) EndSession(v Visit, id string) (Step, error) {
	a, s, err := d.me(v)
	if errors.Is(err, account.ErrNotFound) {
		return Step{State: Anonymous}, nil
	} else if err != nil {
		return Step{}, err
	}
	if id == "" {
		err = d.endOthers(v.Context(), a.ID, s.ID)
	} else if err = d.env.Sessions.EndOne(v.Context(), a.ID, id); err == nil {
		err = d.revoke(v.Context(), a.ID, id)
	}
	if errors.Is(err, session.ErrNotFound) {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	d.event(v, Event{Name: SessionExpired, Account: a.ID, User: a.Name, Detail: "ended by its owner"})
	return Step{State: Done}, nil
}

// endOthers ends the sessions of an account but one, and what hangs on them;
// with an empty one, all that there is.
func (d *Desk) endOthers(ctx context.Context, accountID, except string) error {
	var others []session.Session
	if except != "" && d.env.Revoke != nil {
		var err error
		if others, err = d.env.Sessions.List(ctx, accountID); err != nil {
			return err
		}
	}
	if _, err := d.env.Sessions.EndAll(ctx, accountID, except); err != nil {
		return err
	}
	if except == "" {
		return d.revoke(ctx, accountID, "")
	}
	for _, s := range others {
		if s.ID != except {
			if err := d.revoke(ctx, accountID, s.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Desk) revoke(ctx context.Context, accountID, sessionID string) error {
	if d.env.Revoke == nil {
		return nil
	}
	return d.env.Revoke(ctx, accountID, sessionID)
}
