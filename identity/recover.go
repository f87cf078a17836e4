package identity

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
)

const (
	recoverLife  = 15 * time.Minute
	registerLife = 24 * time.Hour
	emailLife    = time.Hour
	firstLife    = time.Hour
)

func linkHash(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// AskRecover sends a link to set a new password to whom a name or address
// belongs. Sent, Wait or Closed (there is nobody to send letters).
func (d *Desk) AskRecover(v Visit, name string) (Step, error) {
	if d.env.Letters == nil {
		return Step{State: Closed}, nil
	}
	if step := d.askMail(v, name); step.State != "" {
		return step, nil
	}
	// Whether there is such an account is found out behind the answer.
	d.later(func(ctx context.Context) {
		a, _, err := find(ctx, d.env.Accounts, name)
		if err != nil {
			d.event(v, Event{Name: NotDone, Detail: "a link to recover could not be made", Err: err})
		} else if a.ID != "" && !a.Disabled && a.EmailVerified {
			d.sendRecoverNow(ctx, v, a)
		}
	})
	return Step{State: Sent}, nil
}

// askMail counts that a letter is asked for. A Step with a state says to wait.
func (d *Desk) askMail(v Visit, name string) Step {
	user, err := account.Fold(name)
	if err != nil {
		user = noName + shorten(name, 64)
	}
	_, wait := d.env.Throttle.Begin(v.Context(), attempts.Try{Kind: attempts.Mail, Account: user, Client: v.Client})
	if !wait.OK() {
		return d.wait(v, account.Account{}, user, "mail", wait)
	}
	return Step{}
}

func (d *Desk) sendRecover(v Visit, a account.Account) {
	if step := d.askMail(v, a.Name); step.State != "" {
		return // there are letters enough on their way
	}
	d.later(func(ctx context.Context) { d.sendRecoverNow(ctx, v, a) })
}

// sendRecoverNow makes a link, in the place of earlier ones, and sends it.
func (d *Desk) sendRecoverNow(ctx context.Context, v Visit, a account.Account) {
	l, secret := NewLink(account.RecoverLink, a.ID, d.now().Add(recoverLife))
	err := d.env.Accounts.DropLinks(ctx, a.ID, account.RecoverLink)
	if err == nil {
		err = d.env.Accounts.AddLink(ctx, l)
	}
	if err != nil {
		d.event(v, Event{Name: NotDone, Account: a.ID, Detail: "a link to recover could not be made", Err: err})
		return
	}
	d.letter(v, a, Letter{Kind: RecoverLetter, Secret: secret.Reveal(), Until: l.Expires})
}

// LinkHolds reports whether a link can still be used, without using it: link
// scanners of mail systems follow links, too. The purpose is one of
// account.RecoverLink and its like. For an invitation or a new address, email
// is the address that it was sent to.
func (d *Desk) LinkHolds(ctx context.Context, purpose, secret string) (email string, ok bool, err error) {
	if len(secret) != secretLen {
		return "", false, nil
	}
	l, err := d.env.Accounts.Link(ctx, purpose, linkHash(secret), d.now())
	if errors.Is(err, account.ErrNotFound) {
		return "", false, nil
	} else if err != nil {
		return "", false, err
	}
	switch purpose {
	case account.InviteLink:
		var i invitation
		if err := json.Unmarshal([]byte(l.Data), &i); err != nil {
			return "", false, err
		}
		email = i.Email
	case account.EmailLink:
		email = l.Data
	}
	return email, true, nil
}

// link looks at a link, counting who tries. A Step with a state says that
// there is none.
func (d *Desk) link(v Visit, purpose, secret string) (account.Link, Step, error) {
	ticket, wait := d.env.Throttle.Begin(v.Context(), attempts.Try{Kind: attempts.Reset, Client: v.Client})
	if !wait.OK() {
		return account.Link{}, d.wait(v, account.Account{}, "", "link", wait), nil
	}
	err := account.ErrNotFound
	var l account.Link
	if len(secret) == secretLen {
		l, err = d.env.Accounts.Link(v.Context(), purpose, linkHash(secret), d.now())
	}
	switch {
	case errors.Is(err, account.ErrNotFound):
		ticket.Failed()
		return l, Step{State: Stale}, nil
	case err != nil:
		ticket.Void()
		return l, Step{}, err
	}
	ticket.Succeeded()
	return l, Step{}, nil
}

// Recover begins to recover an account by a link's secret, and is for POST
// only. The link is used up by [Desk.SetPassword], and only where its owner may
// log in. Second, NewPassword, Wrong, Wait or Stale.
func (d *Desk) Recover(v Visit, secret string) (Step, error) {
	l, step, err := d.link(v, account.RecoverLink, secret)
	if step.State != "" || err != nil {
		return step, err
	}
	a, err := d.env.Accounts.Account(v.Context(), l.Account)
	if errors.Is(err, account.ErrNotFound) || err == nil && a.Disabled {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	if step := d.barred(v, a); step.State != "" {
		return step, nil
	}
	p := &pending{Purpose: toRecover, Link: l.Hash, Why: "recover", Expires: min(l.Expires.Unix(), d.now().Add(pendingLife).Unix())}
	return d.next(v, p, a)
}

// barred is Wrong where login rules do not let an account in: a password that
// is set there would be of no use to its owner.
func (d *Desk) barred(v Visit, a account.Account) Step {
	if d.rules.allow(a.Name, a.Groups, v.Client, d.now()) {
		return Step{}
	}
	d.failed(v, a, a.Name, "link", NotAllowedHere, nil)
	return Step{State: Wrong}
}
