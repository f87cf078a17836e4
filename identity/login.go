package identity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/identity/session"
)

// Password begins a log-in with a name, or a verified address, and a password.
// SignedIn, Second, NewPassword, Enrol, EnrolOver, Wrong, Wait or Busy; Sent
// if the password is one that others have lost already and nothing but it
// tells who is there, so that a new one is set by a link sent to the owner.
func (d *Desk) Password(v Visit, name, pass string) (Step, error) {
	ctx := v.Context()
	a, user, err := find(ctx, d.env.Accounts, name)
	if err != nil {
		return Step{}, err
	}
	known, err := d.device(ctx, v, a)
	if err != nil {
		return Step{}, err
	}
	ticket, wait := d.env.Throttle.Begin(ctx, attempts.Try{
		Kind: attempts.Password, Account: user, Also: alias(a, user), Client: v.Client, Device: known, Password: pass,
	})
	if !wait.OK() {
		return d.wait(v, a, user, account.ByPassword, wait), nil
	}
	verify := d.env.Hasher.Verify
	if known != nil {
		verify = d.env.Hasher.VerifyKnown
	}
	ok, upgrade, err := verify(ctx, a.Password, pass)
	switch {
	case errors.Is(err, password.ErrBusy):
		ticket.Void()
		return Step{State: Busy}, nil
	case errors.Is(err, password.ErrBadHash):
		d.event(v, Event{Name: LoginFail, Reason: DamagedHash, Account: a.ID, User: user, Method: account.ByPassword, Err: err})
	case err != nil:
		ticket.Void()
		return Step{}, err
	}
	if why := d.judge(v, a, ok); why != "" {
		ticket.Failed()
		d.failed(v, a, user, account.ByPassword, why, nil)
		return Step{State: Wrong}, nil
	}
	ticket.Succeeded()
	if upgrade {
		a = d.upgrade(ctx, a, pass)
	}
	p := &pending{Purpose: toLogIn, Methods: []string{account.ByPassword}}
	if a.MustChange {
		p.Why = "must-change"
	}
	lost, err := d.env.Policy.Breached(ctx, pass)
	if err != nil {
		d.event(v, Event{Name: NotDone, Account: a.ID, Detail: "the list of breached passwords could not be asked", Err: err})
	}
	if lost {
		return d.breached(v, p, a, known != nil)
	}
	return d.next(v, p, a)
}

// find returns the account with a log-in name or verified address; the zero
// Account if there is none. user is what tries are counted by: what was typed,
// since whoever is told to wait at a name, and then at an address, would know
// that both are one person's.
func find(ctx context.Context, accounts account.Store, name string) (a account.Account, user string, err error) {
	user, err = account.Fold(name)
	if err != nil {
		return account.Account{}, noName + shorten(name, 64), nil // no name of anybody
	}
	a, err = accounts.ByName(ctx, user)
	if strings.Contains(user, "@") { // asked for in any case, so that it takes as long
		byEmail, other := accounts.ByEmail(ctx, user)
		if errors.Is(err, account.ErrNotFound) {
			a, err = byEmail, other
		}
	}
	switch {
	case errors.Is(err, account.ErrNotFound):
		return account.Account{}, user, nil
	case err != nil:
		return account.Account{}, "", err
	}
	return a, user, nil
}

// alias is the other name that an account can log in with, if it has one.
func alias(a account.Account, user string) string {
	switch {
	case user != a.Name:
		return a.Name
	case a.EmailVerified && a.Email != a.Name:
		return a.Email
	}
	return ""
}

// judge says why an account may not log in here and now; empty if it may.
func (d *Desk) judge(v Visit, a account.Account, proved bool) (why reason) {
	switch {
	case a.ID == "":
		return NoAccount
	case !proved:
		return WrongPassword
	case a.Disabled:
		return AccountDisabled
	case !d.rules.allow(a.Name, a.Groups, v.Client, d.now()):
		return NotAllowedHere
	}
	return ""
}

func (d *Desk) wait(v Visit, a account.Account, user, method string, w attempts.Wait) Step {
	d.event(v, Event{Name: waitName(w), Reason: TooManyTries, Account: a.ID, User: user, Method: method, Detail: w.By})
	return Step{State: Wait, Wait: w.For}
}

func waitName(w attempts.Wait) string {
	if w.Locked {
		return LoginLock
	}
	return LoginFailMax
}

// upgrade replaces a hash that is weaker than new ones, if it is still there.
func (d *Desk) upgrade(ctx context.Context, a account.Account, pass string) account.Account {
	hash, err := d.env.Hasher.Hash(ctx, pass)
	if err != nil {
		return a // at the next log-in, then
	}
	changed, err := d.env.Accounts.Update(ctx, a.ID, func(now *account.Account) error {
		if now.Password != a.Password {
			return errStale
		}
		now.Password = hash
		return nil
	})
	if err != nil {
		return a
	}
	return changed
}

// breached goes on with a password that others have lost. Who has nothing but
// it may be one of them, so that the owner is written to.
func (d *Desk) breached(v Visit, p *pending, a account.Account, known bool) (Step, error) {
	d.event(v, Event{Name: UserUpdated, Reason: PasswordBreached, Account: a.ID, User: a.Name, Method: account.ByPassword})
	if !a.MustChange {
		changed, err := d.env.Accounts.Update(v.Context(), a.ID, func(now *account.Account) error {
			now.MustChange = true
			return nil
		})
		if err != nil {
			return Step{}, err
		}
		a = changed
	}
	p.Why = "breached"
	held, err := d.env.Factors.Held(v.Context(), v.Origin, a.ID)
	if err != nil {
		return Step{}, err
	}
	if !known && !second(held) && a.EmailVerified && d.env.Letters != nil {
		d.sendRecover(v, a)
		return Step{State: Sent, Why: p.Why}, nil
	}
	return d.next(v, p, a)
}

// second reports whether an account has a second factor, here or on another
// site: one on another site must not make the password enough here.
func second(h mfa.Held) bool { return h.TOTP+h.Passkeys+h.SecurityKeys+h.Elsewhere > 0 }

// required is what policy asks of an account.
func (d *Desk) required(roles []string) account.Strength { return required(d.c.MFA, roles) }

func required(c MFA, roles []string) account.Strength {
	for _, r := range c.Required {
		if r == "all" || slices.Contains(roles, r) {
			return max(c.Level, account.Multi)
		}
	}
	return account.None
}

// reach is the most that an account's factors can prove here.
func reach(h mfa.Held, a account.Account, p *pending) account.Strength {
	knows := a.Password != "" || p.Issuer != ""
	switch {
	case h.Passkeys > 0, knows && h.SecurityKeys > 0:
		return account.PhishingResistant
	case knows && h.TOTP+h.Recovery > 0:
		return account.Multi
	}
	return account.Single
}

// next says what comes after what has been proved so far.
func (d *Desk) next(v Visit, p *pending, a account.Account) (Step, error) {
	held, err := d.env.Factors.Held(v.Context(), v.Origin, a.ID)
	if err != nil {
		return Step{}, err
	}
	if p.Purpose == toRecover {
		if second(held) && !p.Proved {
			return d.ask(v, p, a, held, account.Multi)
		}
		return d.newPassword(v, p, a)
	}
	have := account.StrengthOf(p.Methods)
	must := account.Single
	if second(held) {
		must = account.Multi // the owner wanted it so
	}
	want := max(must, p.Need, d.required(a.Roles))
	if have < must {
		return d.ask(v, p, a, held, min(want, max(must, reach(held, a, p))))
	}
	// A recovery code stands for a factor that is lost: what it cannot reach
	// must be enrolled again.
	if have < want && have < reach(held, a, p) && !slices.Contains(p.Methods, account.Recovery) {
		return d.ask(v, p, a, held, want)
	}
	if p.Why != "" {
		return d.newPassword(v, p, a)
	}
	if have < want {
		return d.mustEnrol(v, p, a)
	}
	return d.finish(v, p, a)
}

// ask says by what to go on. No options: what the account has is bound to
// another site.
func (d *Desk) ask(v Visit, p *pending, a account.Account, h mfa.Held, want account.Strength) (Step, error) {
	knows := slices.ContainsFunc(p.Methods, func(m string) bool {
		return m == account.ByPassword || strings.HasPrefix(m, account.ByOIDC)
	})
	recovering := p.Purpose == toRecover
	var options []string
	add := func(option string, ok bool) {
		if ok {
			options = append(options, option)
		}
	}
	add(OptPasskey, h.Passkeys > 0)
	add(OptSecurityKey, (knows || recovering) && h.SecurityKeys > 0)
	add(OptTOTP, (knows || recovering) && h.TOTP > 0 && (want <= account.Multi || reach(h, a, p) <= account.Multi))
	add(OptRecovery, (knows || recovering) && h.Recovery > 0 && p.Purpose != toStepUp)
	add(OptPassword, !knows && !recovering && a.Password != "")
	if !knows && !recovering && p.Purpose == toStepUp {
		linked, err := d.env.Accounts.Externals(v.Context(), a.ID)
		if err != nil {
			return Step{}, err
		}
		add(OptProvider, len(linked) > 0)
	}
	return Step{State: Second, Pending: d.seal(v, p, a), Options: options, Name: called(a), Account: a.ID}, nil
}

// called is what pages call an account.
func called(a account.Account) string {
	if a.Display != "" {
		return a.Display
	}
	return a.Name
}

func (d *Desk) newPassword(v Visit, p *pending, a account.Account) (Step, error) {
	return Step{State: NewPassword, Pending: d.seal(v, p, a), Why: p.Why, Name: called(a), Account: a.ID}, nil
}

// mustEnrol lets an account enrol what policy asks for, within the grace that
// begins when that is first found missing. Afterwards the password alone does
// not do: whoever learned it would choose the second factor.
func (d *Desk) mustEnrol(v Visit, p *pending, a account.Account) (Step, error) {
	now := d.now()
	p.Enrol = true
	options := []string{OptPasskey, OptSecurityKey}
	if max(p.Need, d.required(a.Roles)) <= account.Multi {
		options = append(options, OptTOTP)
	}
	if account.StrengthOf(p.Methods) >= d.required(a.Roles) {
		// Only what the user wants to reach asks for it, and they could enrol
		// it on their account's page as well.
		text := d.seal(v, p, a)
		return Step{State: Enrol, Pending: text, Options: options, EnrolBy: time.Unix(p.Expires, 0), Name: called(a), Account: a.ID}, nil
	}
	if a.EnrolBy.IsZero() {
		changed, err := d.env.Accounts.Update(v.Context(), a.ID, func(a *account.Account) error {
			if a.EnrolBy.IsZero() {
				a.EnrolBy = now.Add(d.c.MFA.Grace)
			}
			return nil
		})
		if err != nil {
			return Step{}, err
		}
		a = changed
	}
	// Who has proved another second factor needs no grace.
	if !now.Before(a.EnrolBy) && account.StrengthOf(p.Methods) < account.Multi {
		d.failed(v, a, a.Name, p.method(), EnrolmentOver, nil)
		return Step{State: EnrolOver, Name: called(a), Account: a.ID}, nil
	}
	return Step{State: Enrol, Pending: d.seal(v, p, a), Options: options, EnrolBy: a.EnrolBy, Name: called(a), Account: a.ID}, nil
}

// method is the one word for the history.
func (p *pending) method() string { return strings.Join(p.Methods, "+") }

// finish begins the session, or renews it.
func (d *Desk) finish(v Visit, p *pending, a account.Account) (Step, error) {
	if !d.rules.allow(a.Name, a.Groups, v.Client, d.now()) {
		d.failed(v, a, a.Name, p.method(), NotAllowedHere, nil)
		return Step{State: Wrong}, nil
	}
	proof := session.Proof{Account: a.ID, Methods: p.Methods, Issuer: p.Issuer, Subject: p.Subject, SID: p.SID}
	if p.IDToken != "" {
		proof.Hint = d.box.Seal([]byte(p.IDToken), hintPlace+a.ID)
	}
	begin := d.env.Sessions.Begin
	if p.Purpose == toStepUp {
		begin = d.env.Sessions.StepUp
	}
	_, c, err := begin(v.Request, proof)
	if e, ok := errors.AsType[*session.Error](err); ok && e.Reason != session.Unavailable {
		return Step{State: Stale}, nil
	}
	if err != nil {
		return Step{}, err
	}
	v.Header.Add("Set-Cookie", c.String())
	setCookie(v.Header, tryCookie, "", -time.Second)
	step := Step{State: SignedIn, Name: called(a), Account: a.ID}
	d.event(v, Event{Name: LoginSuccess, Account: a.ID, User: a.Name, Method: p.method(), Detail: p.Purpose})
	if p.Purpose == toStepUp {
		return step, nil
	}
	d.note(v, a, p.method(), "ok")
	devices, err := d.env.Accounts.Devices(v.Context(), a.ID)
	if err != nil {
		return Step{}, err
	}
	known, err := d.remember(v.Context(), v, a)
	if err != nil {
		return Step{}, err
	}
	if !known && len(devices) > 0 {
		d.letter(v, a, Letter{Kind: NewDevice})
	}
	return step, nil
}
