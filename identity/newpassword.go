package identity

import (
	"errors"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/password"
)

// SamePassword is a [password.Problem] of the desk: the new password is the
// old one.
const SamePassword password.Rule = "same-as-before"

// SetPassword ends a pending log-in or recovery with a new password. All other
// sessions of the account end. SignedIn, Enrol, EnrolOver, Weak, Wrong, Busy or
// Stale.
func (d *Desk) SetPassword(v Visit, pend, pass string) (Step, error) {
	p, a, err := d.resume(v, pend, toLogIn, toRecover)
	if errors.Is(err, errStale) {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	held, err := d.env.Factors.Held(v.Context(), v.Origin, a.ID)
	if err != nil {
		return Step{}, err
	}
	// The second factor comes before the new password, whatever page was
	// called (trap 47).
	switch {
	case p.Why == "", p.Purpose == toRecover && second(held) && !p.Proved:
		return Step{State: Stale}, nil
	case p.Purpose == toLogIn && second(held) && account.StrengthOf(p.Methods) < account.Multi:
		return Step{State: Stale}, nil
	}
	if step := d.barred(v, a); step.State != "" {
		return step, nil
	}
	hash, step, err := d.accept(v, a, held, pass)
	if step.State != "" || err != nil {
		step.Pending, step.Why = pend, p.Why
		return step, err
	}
	if p.Purpose == toRecover {
		_, err := d.env.Accounts.TakeLink(v.Context(), account.RecoverLink, p.Link, d.now())
		if errors.Is(err, account.ErrNotFound) {
			return Step{State: Stale}, nil
		} else if err != nil {
			return Step{}, err
		}
	}
	a, err = d.replace(v, a, hash, d.now())
	if errors.Is(err, errStale) {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	if err := d.endOthers(v.Context(), a.ID, ""); err != nil {
		return Step{}, err
	}
	e := Event{Name: PasswordChange, Account: a.ID, User: a.Name, Detail: p.Why}
	if p.Purpose == toRecover {
		e.Reason = Recovered
		if err := d.env.Throttle.Forgive(v.Context(), a.Name, alias(a, a.Name)); err != nil {
			e.Err = err
		}
		p.Methods = append(p.Methods, account.ByPassword)
	}
	d.event(v, e)
	p.Purpose, p.Why, p.Link = toLogIn, "", nil
	return d.next(v, p, a)
}

// accept judges and hashes a new password. A Step with a state says why not.
func (d *Desk) accept(v Visit, a account.Account, h mfa.Held, pass string) (hash string, s Step, err error) {
	ctx := v.Context()
	both := second(h) || d.required(a.Roles) >= account.Multi
	problems, err := d.env.Policy.Check(ctx, pass, []string{a.Name, a.Display, a.Email, v.Site}, both)
	if err != nil {
		d.event(v, Event{Name: NotDone, Account: a.ID, Detail: "the list of breached passwords could not be asked", Err: err})
	}
	if len(problems) > 0 {
		return "", Step{State: Weak, Weak: problems}, nil
	}
	if a.Password != "" {
		same, _, err := d.env.Hasher.Verify(ctx, a.Password, pass)
		if errors.Is(err, password.ErrBusy) {
			return "", Step{State: Busy}, nil
		}
		if err != nil && !errors.Is(err, password.ErrBadHash) {
			return "", Step{}, err
		}
		if same {
			return "", Step{State: Weak, Weak: []password.Problem{{Rule: SamePassword}}}, nil
		}
	}
	hash, err = d.env.Hasher.Hash(ctx, pass)
	switch {
	case errors.Is(err, password.ErrBusy):
		return "", Step{State: Busy}, nil
	case errors.Is(err, password.ErrTooLong):
		return "", Step{State: Weak, Weak: []password.Problem{{Rule: password.TooLong, Bound: password.MaxBytes}}}, nil
	case errors.Is(err, password.ErrNUL):
		return "", Step{State: Weak, Weak: []password.Problem{{Rule: password.NotText}}}, nil
	}
	return hash, Step{}, err
}

// replace puts a new hash in force, unless the account has changed since it
// was looked at. What was proved before since ends.
func (d *Desk) replace(v Visit, a account.Account, hash string, since time.Time) (account.Account, error) {
	ctx := v.Context()
	before := string(epoch(a))
	changed, err := d.env.Accounts.Update(ctx, a.ID, func(now *account.Account) error {
		if string(epoch(*now)) != before {
			return errStale
		}
		now.Password, now.PasswordSince, now.MustChange = hash, d.now(), false
		if since.After(now.ValidFrom) {
			now.ValidFrom = since.Truncate(time.Microsecond)
		}
		return nil
	})
	if err != nil {
		return a, err
	}
	if err := d.env.Accounts.DropLinks(ctx, a.ID, account.RecoverLink); err != nil {
		return a, err
	}
	if err := d.env.Accounts.ForgetDevices(ctx, a.ID); err != nil {
		return a, err
	}
	d.letter(v, changed, Letter{Kind: PasswordChanged})
	return changed, nil
}

// ChangePassword changes the password of who is signed in. All other sessions
// end, and links to recover. Done, Wrong (the current one), Weak, Wait, Busy,
// Prove, Stale or Anonymous. Who has no password yet gives an empty current one.
func (d *Desk) ChangePassword(v Visit, current, pass string) (Step, error) {
	me, step, err := d.fresh(v)
	if step.State != "" || err != nil {
		return step, err
	}
	a := me.account
	if a.Password != "" {
		step, err := d.current(v, a, current)
		if step.State != "" || err != nil {
			return step, err
		}
	}
	hash, step, err := d.accept(v, a, me.held, pass)
	if step.State != "" || err != nil {
		if step.State == Weak {
			d.event(v, Event{Name: PasswordChangeFail, Account: a.ID, User: a.Name, Detail: string(step.Weak[0].Rule)})
		}
		return step, err
	}
	a, err = d.replace(v, a, hash, me.session.Proved)
	if errors.Is(err, errStale) {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	if err := d.endOthers(v.Context(), a.ID, me.session.ID); err != nil {
		return Step{}, err
	}
	if _, err := d.remember(v.Context(), v, a); err != nil {
		return Step{}, err
	}
	d.event(v, Event{Name: PasswordChange, Account: a.ID, User: a.Name, Detail: "by its owner"})
	return Step{State: Done, Name: called(a), Account: a.ID}, nil
}

// current checks the password of who is signed in. A Step with a state says
// that it does not hold.
func (d *Desk) current(v Visit, a account.Account, pass string) (Step, error) {
	known, err := d.device(v.Context(), v, a)
	if err != nil {
		return Step{}, err
	}
	ticket, wait := d.env.Throttle.Begin(v.Context(), attempts.Try{
		Kind: attempts.Password, Account: a.Name, Also: alias(a, a.Name), Client: v.Client, Device: known, Password: pass,
	})
	if !wait.OK() {
		return d.wait(v, a, a.Name, account.ByPassword, wait), nil
	}
	ok, _, err := d.env.Hasher.VerifyKnown(v.Context(), a.Password, pass)
	switch {
	case errors.Is(err, password.ErrBusy):
		ticket.Void()
		return Step{State: Busy}, nil
	case err != nil && !errors.Is(err, password.ErrBadHash):
		ticket.Void()
		return Step{}, err
	case !ok:
		ticket.Failed()
		d.event(v, Event{Name: PasswordChangeFail, Reason: WrongPassword, Account: a.ID, User: a.Name, Err: err})
		return Step{State: Wrong}, nil
	}
	ticket.Succeeded()
	return Step{}, nil
}
