package identity

import (
	"errors"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/password"
)

// TOTP goes on with a code of an authenticator app. SignedIn, Second,
// NewPassword, Enrol, EnrolOver, Wrong, Wait or Stale.
func (d *Desk) TOTP(v Visit, pend, code string) (Step, error) {
	return d.prove(v, pend, attempts.TOTP, account.TOTP, func(a account.Account) (reason, error) {
		_, err := d.env.Factors.CheckTOTP(v.Context(), a.ID, code)
		switch {
		case errors.Is(err, account.ErrUsed):
			return UsedCode, nil
		case errors.Is(err, mfa.ErrWrong), errors.Is(err, account.ErrNotFound):
			return WrongCode, nil
		}
		return "", err
	})
}

// Recovery goes on with a recovery code, which is used up. As [Desk.TOTP].
func (d *Desk) Recovery(v Visit, pend, code string) (Step, error) {
	return d.prove(v, pend, attempts.Recovery, account.Recovery, func(a account.Account) (reason, error) {
		err := d.env.Factors.UseRecoveryCode(v.Context(), a.ID, code)
		if errors.Is(err, mfa.ErrWrong) {
			return WrongCode, nil
		}
		if err == nil {
			d.letter(v, a, Letter{Kind: CodeUsed})
			d.event(v, Event{Name: UserUpdated, Reason: CodeSpent, Account: a.ID, User: a.Name})
		}
		return "", err
	})
}

// Prove goes on with the password of the pending account, if Options has it.
// As [Desk.TOTP], or Busy.
func (d *Desk) Prove(v Visit, pend, pass string) (Step, error) {
	busy := false
	step, err := d.prove(v, pend, attempts.Password, account.ByPassword, func(a account.Account) (reason, error) {
		ok, _, err := d.env.Hasher.VerifyKnown(v.Context(), a.Password, pass) // their session is open
		switch {
		case errors.Is(err, password.ErrBusy):
			busy = true
			return "", err
		case err != nil && !errors.Is(err, password.ErrBadHash):
			return "", err
		case !ok:
			return WrongPassword, nil
		}
		return "", nil
	})
	if busy {
		return Step{State: Busy}, nil
	}
	return step, err
}

// prove counts a try, lets check judge it, and goes on.
func (d *Desk) prove(v Visit, pend, kind, method string, check func(account.Account) (reason, error)) (Step, error) {
	p, a, err := d.resume(v, pend, toLogIn, toStepUp, toRecover)
	if errors.Is(err, errStale) {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	if method == account.ByPassword && p.Purpose != toStepUp {
		return Step{State: Stale}, nil // a log-in with a password has a door of its own
	}
	known, err := d.device(v.Context(), v, a)
	if err != nil {
		return Step{}, err
	}
	ticket, wait := d.env.Throttle.Begin(v.Context(), attempts.Try{Kind: kind, Account: a.Name, Client: v.Client, Device: known})
	if !wait.OK() {
		return d.wait(v, a, a.Name, method, wait), nil
	}
	why, err := check(a)
	if err != nil {
		ticket.Void()
		return Step{}, err
	}
	if why == "" && !d.rules.allow(a.Name, a.Groups, v.Client, d.now()) {
		why = NotAllowedHere
	}
	if why != "" {
		ticket.Failed()
		d.failed(v, a, a.Name, method, why, nil)
		return Step{State: Wrong}, nil
	}
	ticket.Succeeded()
	return d.proved(v, p, a, method)
}

// proved adds a method and goes on.
func (d *Desk) proved(v Visit, p *pending, a account.Account, method string) (Step, error) {
	p.Methods = append(p.Methods, method)
	if method != account.ByPassword {
		p.Proved = true
	}
	return d.next(v, p, a)
}

// Again says once more what a pending asks for, so that its page can be shown
// again: after Wrong, say. As the step that handed it out.
func (d *Desk) Again(v Visit, pend string) (Step, error) {
	p, a, err := d.resume(v, pend, toLogIn, toStepUp, toRecover)
	if errors.Is(err, errStale) {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	return d.next(v, p, a)
}

// StepUp begins to prove again who is signed in, as strongly as the session
// was proved or as need says, whichever is more. Second with Options (all of
// them may have to be proved one after the other) and Pending, or Anonymous.
// If need asks for a factor that the account does not have, Enrol or EnrolOver
// follow on the proof. The session stays and gets a new cookie.
func (d *Desk) StepUp(v Visit, need account.Strength) (Step, error) {
	a, s, err := d.me(v)
	if errors.Is(err, account.ErrNotFound) {
		return Step{State: Anonymous}, nil
	} else if err != nil {
		return Step{}, err
	}
	held, err := d.env.Factors.Held(v.Context(), v.Origin, a.ID)
	if err != nil {
		return Step{}, err
	}
	p := &pending{Purpose: toStepUp, Session: s.ID, Need: max(need, account.StrengthOf(s.Methods))}
	return d.ask(v, p, a, held, p.Need)
}
