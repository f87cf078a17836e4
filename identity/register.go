package identity

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/secrets"
)

// AdminRole is the role of the first administrator.
const AdminRole = "admin"

// An invitation is what the Data of an invite link holds.
type invitation struct {
	Email  string   `json:"email"`
	Groups []string `json:"groups,omitempty"`
	Roles  []string `json:"roles,omitempty"`
}

// AskRegister sends an invitation to an address, if registration is open to
// it. Sent, Wrong (not an address), Wait or Closed.
func (d *Desk) AskRegister(v Visit, email string) (Step, error) {
	if d.c.Register != "open" || d.env.Letters == nil {
		return Step{State: Closed}, nil
	}
	email, err := account.FoldEmail(email)
	if err != nil {
		return Step{State: Wrong}, nil
	}
	_, domain, _ := strings.Cut(email, "@")
	if !slices.Contains(d.c.RegisterDomains, "*") && !slices.Contains(d.c.RegisterDomains, domain) {
		return Step{State: Closed}, nil
	}
	if step := d.askMail(v, email); step.State != "" {
		return step, nil
	}
	// Whether there is an account is found out behind the answer.
	d.later(func(ctx context.Context) {
		a, _, err := find(ctx, d.env.Accounts, email)
		if err == nil && a.ID != "" {
			d.letter(v, a, Letter{Kind: KnownLetter, To: email})
			return
		}
		if err == nil {
			_, err = d.invite(ctx, v, invitation{Email: email, Roles: d.c.RegisterRoles}, registerLife)
		}
		if err != nil {
			d.event(v, Event{Name: NotDone, Detail: "an invitation could not be made", Err: err})
		}
	})
	return Step{State: Sent}, nil
}

// Invite makes an invitation for an address, for administrators, and sends it
// if there are Letters. It returns the link's secret.
func (d *Desk) Invite(v Visit, email string, groups, roles []string, life time.Duration) (secrets.Secret, error) {
	a, _, err := find(v.Context(), d.env.Accounts, email)
	switch {
	case err != nil:
		return secrets.Secret{}, err
	case a.ID != "":
		return secrets.Secret{}, account.ErrTaken
	}
	return d.invite(v.Context(), v, invitation{email, groups, roles}, life)
}

func (d *Desk) invite(ctx context.Context, v Visit, i invitation, life time.Duration) (secrets.Secret, error) {
	l, secret, err := NewInvitation(i.Email, i.Groups, i.Roles, d.now().Add(life))
	if err != nil {
		return secrets.Secret{}, err
	}
	if err := d.env.Accounts.AddLink(ctx, l); err != nil {
		return secrets.Secret{}, err
	}
	d.letter(v, account.Account{}, Letter{Kind: RegisterLetter, To: i.Email, Secret: secret.Reveal(), Until: l.Expires})
	return secret, nil
}

// NewInvitation makes a link for [Desk.Register], to be added to the store by
// whoever administers it.
func NewInvitation(email string, groups, roles []string, until time.Time) (account.Link, secrets.Secret, error) {
	folded, err := account.FoldEmail(email)
	if err != nil {
		return account.Link{}, secrets.Secret{}, merlon.BadSetting("email", email, err.Error())
	}
	data, err := json.Marshal(invitation{folded, groups, roles})
	if err != nil {
		return account.Link{}, secrets.Secret{}, err
	}
	l, secret := NewLink(account.InviteLink, "", until)
	l.Data = string(data)
	return l, secret, nil
}

// NewLink makes a link for an account, such as one to recover it, to be added
// to the store by whoever administers it.
func NewLink(purpose, accountID string, until time.Time) (account.Link, secrets.Secret) {
	secret := newSecret()
	return account.Link{Hash: linkHash(secret), Purpose: purpose, Account: accountID, Expires: until}, secrets.New(secret)
}

// Register makes the account that an invitation is for; its log-in name is the
// address. SignedIn, Enrol, Weak, Wrong (it could not log in here), Busy, Wait,
// Taken, Closed or Stale.
func (d *Desk) Register(v Visit, secret, display, pass string) (Step, error) {
	if d.c.Register == "off" {
		return Step{State: Closed}, nil
	}
	l, step, err := d.link(v, account.InviteLink, secret)
	if step.State != "" || err != nil {
		return step, err
	}
	var i invitation
	if err := json.Unmarshal([]byte(l.Data), &i); err != nil {
		return Step{}, err
	}
	a := account.Account{
		ID: rand.Text(), Name: i.Email, Display: oneLine(display), Email: i.Email, EmailVerified: true,
		Groups: sorted(i.Groups), Roles: sorted(i.Roles), Created: d.now(),
	}
	return d.create(v, a, l, pass, Registered, d.env.Accounts.Create)
}

// create makes an account by a link.
func (d *Desk) create(v Visit, a account.Account, l account.Link, pass string, why reason, add func(context.Context, account.Account) error) (Step, error) {
	if !d.rules.allow(a.Name, a.Groups, v.Client, d.now()) {
		d.failed(v, account.Account{}, a.Name, "link", NotAllowedHere, nil)
		return Step{State: Wrong}, nil
	}
	hash, step, err := d.accept(v, a, mfa.Held{}, pass)
	if step.State != "" || err != nil {
		return step, err
	}
	a.Password, a.PasswordSince = hash, d.now()
	_, err = d.env.Accounts.TakeLink(v.Context(), l.Purpose, l.Hash, d.now())
	if errors.Is(err, account.ErrNotFound) {
		return Step{State: Stale}, nil
	} else if err != nil {
		return Step{}, err
	}
	err = add(v.Context(), a)
	if errors.Is(err, account.ErrTaken) {
		return Step{State: Taken}, nil
	} else if err != nil {
		return Step{}, err
	}
	d.event(v, Event{Name: UserCreated, Reason: why, Account: a.ID, User: a.Name})
	return d.next(v, &pending{Purpose: toLogIn, Methods: []string{account.ByPassword}}, a)
}

// FirstLink returns the secret of a link by which the first administrator is
// made; it is needed as long as there is no account.
func (d *Desk) FirstLink(ctx context.Context) (s secrets.Secret, until time.Time, needed bool, err error) {
	some, err := d.env.Accounts.Accounts(ctx, "", "", 1)
	if err != nil || len(some) > 0 {
		return secrets.Secret{}, time.Time{}, false, err
	}
	l, s := NewLink(account.FirstLink, "", d.now().Add(firstLife))
	return s, l.Expires, true, d.env.Accounts.AddLink(ctx, l)
}

// First makes the first administrator. SignedIn, Enrol, Weak, Busy, Wait,
// Taken (there is an account already), Wrong (this cannot be a log-in name, or
// not one that could log in here) or Stale.
func (d *Desk) First(v Visit, secret, name, pass string) (Step, error) {
	l, step, err := d.link(v, account.FirstLink, secret)
	if step.State != "" || err != nil {
		return step, err
	}
	name, err = account.Fold(name)
	if err != nil {
		return Step{State: Wrong}, nil
	}
	a := account.Account{ID: rand.Text(), Name: name, Roles: []string{AdminRole}, Created: d.now()}
	if strings.Contains(name, "@") {
		a.Email = name
	}
	return d.create(v, a, l, pass, FirstAdministrator, d.env.Accounts.First)
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

const maxDisplay = 80

// oneLine makes what people call themselves fit for pages and letters.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))), " ")
	return shorten(s, maxDisplay)
}
