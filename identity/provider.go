package identity

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/oidc"
)

// Provider logs in whom an identity provider has proved, as package oidc has
// verified it. With a pending of [Desk.StepUp] it proves the session's owner
// again. SignedIn, Second, Enrol, EnrolOver, Unlinked, Taken, Stale or Wrong.
//
// An account that was there before is taken only if its owner has linked it
// (see [Desk.Link]), or if the provider is the one who decides about addresses
// of its domain: a verified address elsewhere proves who can read the mail, not
// whose account it is.
func (d *Desk) Provider(v Visit, pend string, proof oidc.Proof) (Step, error) {
	method := account.ByOIDC + proof.Provider
	p := &pending{Purpose: toLogIn}
	var want string // whose proof it must be
	if pend != "" {
		resumed, a, err := d.resume(v, pend, toStepUp)
		if errors.Is(err, errStale) {
			return Step{State: Stale}, nil
		} else if err != nil {
			return Step{}, err
		}
		p, want = resumed, a.ID
	}
	a, step, err := d.accountBehind(v, proof)
	if step.State != "" || err != nil {
		return step, err
	}
	if want != "" && a.ID != want {
		d.failed(v, account.Account{ID: want}, "", method, WrongPassword, errors.New("the provider has proved somebody else"))
		return Step{State: Wrong}, nil
	}
	if why := d.judge(v, a, true); why != "" {
		d.failed(v, a, a.Name, method, why, nil)
		return Step{State: Wrong}, nil
	}
	if a, err = d.mapped(v, a, proof); err != nil {
		return Step{}, err
	}
	p.Issuer, p.Subject, p.SID, p.IDToken = proof.Issuer, proof.Subject, proof.SID, ""
	if raw := proof.IDToken.Reveal(); len(raw) <= maxIDToken {
		p.IDToken = raw
	}
	p.Methods = append(p.Methods, method)
	for _, m := range proof.Methods {
		if !slices.Contains(p.Methods, m) {
			p.Methods = append(p.Methods, m)
		}
	}
	return d.next(v, p, a)
}

// accountBehind finds or makes the account behind a provider's.
func (d *Desk) accountBehind(v Visit, proof oidc.Proof) (account.Account, Step, error) {
	ctx := v.Context()
	none := account.Account{}
	ext, err := d.env.Accounts.External(ctx, proof.Issuer, proof.Subject)
	if err == nil {
		a, err := d.env.Accounts.Account(ctx, ext.Account)
		if errors.Is(err, account.ErrNotFound) {
			return none, Step{State: Unlinked}, nil
		}
		return a, Step{}, err
	}
	if !errors.Is(err, account.ErrNotFound) {
		return none, Step{}, err
	}
	if proof.Authoritative && proof.EmailVerified && proof.Email != "" {
		a, err := d.env.Accounts.ByEmail(ctx, proof.Email)
		if err == nil {
			return d.adopt(v, a, proof)
		}
		if !errors.Is(err, account.ErrNotFound) {
			return none, Step{}, err
		}
	}
	if !proof.Create {
		d.event(v, Event{Name: LoginFail, Reason: ProviderUnlinked, User: proof.Name, Method: account.ByOIDC + proof.Provider})
		return none, Step{State: Unlinked}, nil
	}
	return d.makeFor(v, proof)
}

// makeFor makes an account for who has none. Its log-in name is one that the
// provider cannot choose, unless it decides about the address: a name is what
// rules compare and people trust.
func (d *Desk) makeFor(v Visit, proof oidc.Proof) (account.Account, Step, error) {
	ctx := v.Context()
	a := account.Account{
		ID: rand.Text(), Display: oneLine(proof.Display), Created: d.now(),
		Groups: sorted(proof.Groups), Roles: sorted(proof.Roles),
	}
	if a.Display == "" {
		a.Display = oneLine(proof.Name)
	}
	a.Name = strings.ToLower(proof.Provider + "." + a.ID)
	if proof.Authoritative && proof.EmailVerified && proof.Email != "" {
		a.Name, a.Email, a.EmailVerified = proof.Email, proof.Email, true
	}
	err := d.env.Accounts.Create(ctx, a)
	if errors.Is(err, account.ErrTaken) {
		return a, Step{State: Taken}, nil
	} else if err != nil {
		return a, Step{}, err
	}
	d.event(v, Event{Name: UserCreated, Account: a.ID, User: a.Name, Method: account.ByOIDC + proof.Provider})
	return d.adopt(v, a, proof)
}

// adopt links a provider's account.
func (d *Desk) adopt(v Visit, a account.Account, proof oidc.Proof) (account.Account, Step, error) {
	err := d.env.Accounts.AddExternal(v.Context(), account.External{
		Issuer: proof.Issuer, Subject: proof.Subject, Account: a.ID, Created: d.now(),
	})
	if errors.Is(err, account.ErrTaken) {
		return a, Step{State: Taken}, nil
	} else if err != nil {
		return a, Step{}, err
	}
	d.letter(v, a, Letter{Kind: ProviderLinked, Detail: proof.Provider})
	d.event(v, Event{Name: UserUpdated, Reason: ProviderAdded, Account: a.ID, User: a.Name, Detail: proof.Provider})
	return a, Step{}, nil
}

// mapped puts in force what the provider's mapping says of groups and roles,
// and takes away what it could say and does not any more.
func (d *Desk) mapped(v Visit, a account.Account, proof oidc.Proof) (account.Account, error) {
	m := d.env.Mapped[proof.Provider]
	groups := merged(a.Groups, m.Groups, proof.Groups)
	roles := merged(a.Roles, m.Roles, proof.Roles)
	if slices.Equal(groups, sorted(a.Groups)) && slices.Equal(roles, sorted(a.Roles)) {
		return a, nil
	}
	a, err := d.env.Accounts.Update(v.Context(), a.ID, func(a *account.Account) error {
		a.Groups = merged(a.Groups, m.Groups, proof.Groups)
		a.Roles = merged(a.Roles, m.Roles, proof.Roles)
		return nil
	})
	if err == nil {
		d.event(v, Event{Name: UserUpdated, Account: a.ID, User: a.Name, Method: account.ByOIDC + proof.Provider, Detail: "groups and roles"})
	}
	return a, err
}

// merged is what an account has, without what the provider decides about, and
// with what it says.
func merged(has, decides, says []string) []string {
	kept := slices.DeleteFunc(slices.Clone(has), func(s string) bool { return slices.Contains(decides, s) })
	return sorted(append(kept, says...))
}

// Link links a provider's account to the account that is signed in.
// Done, Taken, Prove or Anonymous.
func (d *Desk) Link(v Visit, proof oidc.Proof) (Step, error) {
	me, step, err := d.fresh(v)
	if step.State != "" || err != nil {
		return step, err
	}
	a, step, err := d.adopt(v, me.account, proof)
	if step.State != "" || err != nil {
		return step, err
	}
	return Step{State: Done, Name: called(a), Account: a.ID}, nil
}

// Unlink takes a provider's account off the one that is signed in. Done,
// Prove, LastFactor (nothing else would be left to log in with), Stale (it is
// not linked) or Anonymous.
func (d *Desk) Unlink(v Visit, issuer, subject string) (Step, error) {
	me, step, err := d.fresh(v)
	if step.State != "" || err != nil {
		return step, err
	}
	ctx, a := v.Context(), me.account
	linked, err := d.env.Accounts.Externals(ctx, a.ID)
	if err != nil {
		return Step{}, err
	}
	if len(linked) <= 1 && a.Password == "" && me.held.Passkeys == 0 {
		return Step{State: LastFactor}, nil
	}
	err = d.env.Accounts.RemoveExternal(ctx, a.ID, issuer, subject)
	if errors.Is(err, account.ErrNotFound) {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	if _, err := d.env.Sessions.EndByProvider(ctx, issuer, subject, ""); err != nil {
		return Step{}, err
	}
	if err := d.revoke(ctx, a.ID, ""); err != nil {
		return Step{}, err
	}
	d.event(v, Event{Name: UserUpdated, Reason: ProviderTakenOff, Account: a.ID, User: a.Name, Detail: issuer})
	return Step{State: Done, Name: called(a), Account: a.ID}, nil
}
