package identity

import (
	"errors"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/session"
)

// AskPasskey asks for a passkey: with an empty pending for one that logs in by
// itself, whoever it belongs to; otherwise for what Options has, a passkey or
// security key of the pending account. Second means that there is a ceremony;
// Stale that there is none.
func (d *Desk) AskPasskey(v Visit, pend string) (mfa.Ceremony, Step, error) {
	ctx := v.Context()
	if pend == "" {
		c, err := d.env.Factors.BeginLogIn(ctx, v.Origin, "", "")
		return c, Step{State: Second}, err
	}
	p, a, err := d.resume(v, pend, toLogIn, toStepUp, toRecover)
	if errors.Is(err, errStale) {
		return mfa.Ceremony{}, Step{State: Stale}, nil
	} else if err != nil {
		return mfa.Ceremony{}, Step{}, err
	}
	c, err := d.env.Factors.BeginSecond(ctx, v.Origin, a.ID)
	if errors.Is(err, account.ErrNotFound) {
		return c, Step{State: Stale}, nil
	}
	return c, Step{State: Second, Pending: d.seal(v, p, a), Name: called(a), Account: a.ID}, err
}

// Passkey goes on with what the browser answered, or logs in by it alone if
// pending is empty. As [Desk.Password].
func (d *Desk) Passkey(v Visit, pend, ticket string, answer []byte) (Step, error) {
	if pend == "" {
		return d.passkeyAlone(v, ticket, answer)
	}
	p, a, err := d.resume(v, pend, toLogIn, toStepUp, toRecover)
	if errors.Is(err, errStale) {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	proof, err := d.env.Factors.FinishSecond(v.Context(), v.Origin, a.ID, ticket, answer)
	step, err := d.answered(v, a, proof, err)
	if step.State != "" || err != nil {
		return step, err
	}
	return d.proved(v, p, a, proof.Method)
}

// passkeyAlone logs in whom a passkey proves. Nobody can guess one, so only
// the address is counted, to bound the work.
func (d *Desk) passkeyAlone(v Visit, ticket string, answer []byte) (Step, error) {
	ctx := v.Context()
	try, wait := d.env.Throttle.Begin(ctx, attempts.Try{Kind: account.Passkey, Client: v.Client})
	if !wait.OK() {
		return d.wait(v, account.Account{}, "", account.Passkey, wait), nil
	}
	proof, err := d.env.Factors.FinishLogIn(ctx, v.Origin, ticket, answer)
	a := account.Account{}
	if err == nil || errors.Is(err, mfa.ErrCloned) {
		var lookup error
		if a, lookup = d.env.Accounts.Account(ctx, proof.Account); lookup != nil && !errors.Is(lookup, account.ErrNotFound) {
			try.Void()
			return Step{}, lookup
		}
	}
	step, err := d.answered(v, a, proof, err)
	switch {
	case err != nil:
		try.Void()
		return Step{}, err
	case step.State != "":
		try.Failed()
		return step, nil
	}
	if why := d.judge(v, a, true); why != "" {
		try.Failed()
		d.failed(v, a, a.Name, account.Passkey, why, nil)
		return Step{State: Wrong}, nil
	}
	try.Succeeded()
	p := &pending{Purpose: toLogIn, Methods: []string{proof.Method}}
	return d.next(v, p, a)
}

// answered judges what the mfa package says of a browser's answer. A Step with
// a state says that it proves nothing.
func (d *Desk) answered(v Visit, a account.Account, proof mfa.Proof, err error) (Step, error) {
	switch {
	case err == nil:
		return Step{}, nil
	case errors.Is(err, mfa.ErrCloned):
		d.event(v, Event{Name: LoginFail, Reason: KeyMayBeCopied, Account: a.ID, User: a.Name, Method: proof.Method, Detail: proof.Factor.Name, Err: err})
		if a.ID != "" {
			d.note(v, a, proof.Method, string(KeyMayBeCopied))
			d.letter(v, a, Letter{Kind: KeyCloned, Detail: proof.Factor.Name})
		}
		return Step{State: Wrong}, nil
	case errors.Is(err, mfa.ErrWrong), errors.Is(err, account.ErrUsed), errors.Is(err, account.ErrNotFound):
		d.failed(v, a, a.Name, account.Passkey, WrongPasskey, err)
		return Step{State: Wrong}, nil
	case errors.Is(err, mfa.ErrStale):
		return Step{State: Stale}, nil
	}
	return Step{}, err
}

// An enroller is who may add a factor: somebody whose log-in asks for one, or
// who is signed in and fresh.
type enroller struct {
	account account.Account
	held    mfa.Held
	pending *pending // nil for who is signed in
	session session.Session
}

func (d *Desk) enroller(v Visit, pend string) (enroller, Step, error) {
	if pend == "" {
		me, step, err := d.fresh(v)
		return enroller{account: me.account, held: me.held, session: me.session}, step, err
	}
	p, a, err := d.resume(v, pend, toLogIn, toStepUp)
	if errors.Is(err, errStale) || err == nil && !p.Enrol {
		return enroller{}, Step{State: Stale}, nil
	} else if err != nil {
		return enroller{}, Step{}, err
	}
	held, err := d.env.Factors.Held(v.Context(), v.Origin, a.ID)
	if err != nil {
		return enroller{}, Step{}, err
	}
	// A factor that was enrolled since must be proved first.
	if second(held) && account.StrengthOf(p.Methods) < account.Multi {
		return enroller{}, Step{State: Stale}, nil
	}
	return enroller{account: a, held: held, pending: p}, Step{}, nil
}

// EnrolTOTP begins to enrol an authenticator app: for the pending account
// after Enrol, or, with an empty pending, for who is signed in and has proved
// it freshly. Enrol means that there is an enrolment to show; otherwise Prove,
// Anonymous, TooMany or Stale.
func (d *Desk) EnrolTOTP(v Visit, pend string) (mfa.Enrolment, Step, error) {
	who, step, err := d.enroller(v, pend)
	if step.State != "" || err != nil {
		return mfa.Enrolment{}, step, err
	}
	e, err := d.env.Factors.EnrolTOTP(v.Context(), who.account)
	if errors.Is(err, mfa.ErrTooMany) {
		return e, Step{State: TooMany}, nil
	}
	return e, Step{State: Enrol, Pending: pend, Name: called(who.account), Account: who.account.ID}, err
}

// ConfirmTOTP puts the app in force. With a pending log-in it goes on to
// SignedIn; otherwise Done, and all other sessions end. Wrong, Taken, TooMany,
// Prove, Anonymous or Stale. The first second factor of an account brings
// recovery codes.
func (d *Desk) ConfirmTOTP(v Visit, pend, ticket, code, name string) (Step, error) {
	who, step, err := d.enroller(v, pend)
	if step.State != "" || err != nil {
		return step, err
	}
	f, err := d.env.Factors.ConfirmTOTP(v.Context(), who.account.ID, ticket, code, name)
	return d.enrolled(v, who, pend, f, account.TOTP, err)
}

// EnrolPasskey is [Desk.EnrolTOTP] for a passkey (OptPasskey) or a security
// key (OptSecurityKey).
func (d *Desk) EnrolPasskey(v Visit, pend, kind string) (mfa.Ceremony, Step, error) {
	who, step, err := d.enroller(v, pend)
	if step.State != "" || err != nil {
		return mfa.Ceremony{}, step, err
	}
	c, err := d.env.Factors.BeginRegister(v.Context(), v.Origin, who.account, kind)
	if errors.Is(err, mfa.ErrTooMany) {
		return c, Step{State: TooMany}, nil
	}
	return c, Step{State: Enrol, Pending: pend, Name: called(who.account), Account: who.account.ID}, err
}

// ConfirmPasskey is [Desk.ConfirmTOTP] for a passkey or security key.
func (d *Desk) ConfirmPasskey(v Visit, pend, kind, ticket string, answer []byte, name string) (Step, error) {
	who, step, err := d.enroller(v, pend)
	if step.State != "" || err != nil {
		return step, err
	}
	f, err := d.env.Factors.FinishRegister(v.Context(), v.Origin, who.account.ID, kind, ticket, name, answer)
	return d.enrolled(v, who, pend, f, kind, err)
}

// enrolled goes on after a factor was added, or was not.
func (d *Desk) enrolled(v Visit, who enroller, pend string, f account.Factor, method string, err error) (Step, error) {
	switch {
	case errors.Is(err, mfa.ErrWrong):
		return Step{State: Wrong, Pending: pend}, nil
	case errors.Is(err, mfa.ErrStale), errors.Is(err, account.ErrUsed):
		return Step{State: Stale}, nil
	case errors.Is(err, mfa.ErrTooMany):
		return Step{State: TooMany}, nil
	case errors.Is(err, account.ErrTaken):
		return Step{State: Taken}, nil
	case err != nil:
		return Step{}, err
	}
	ctx, a := v.Context(), who.account
	d.letter(v, a, Letter{Kind: FactorAdded, Detail: f.Name})
	d.event(v, Event{Name: UserUpdated, Reason: FactorEnrolled, Account: a.ID, User: a.Name, Method: method, Detail: f.Name})
	var codes []string
	if !second(who.held) && who.held.Recovery == 0 {
		if codes, err = d.env.Factors.NewRecoveryCodes(ctx, a.ID); err != nil {
			return Step{}, err
		}
	}
	if who.pending != nil {
		who.pending.Enrol = false
		step, err := d.proved(v, who.pending, a, method)
		step.Codes = codes
		return step, err
	}
	// Sessions that have not proved the new factor end; this one has.
	if err := d.endOthers(ctx, a.ID, who.session.ID); err != nil {
		return Step{}, err
	}
	_, c, err := d.env.Sessions.StepUp(v.Request, session.Proof{Account: a.ID, Methods: []string{method}})
	if err != nil {
		return Step{}, err
	}
	v.Header.Add("Set-Cookie", c.String())
	return Step{State: Done, Codes: codes, Name: called(a), Account: a.ID}, nil
}
