// Package account holds the words for people who can log in, and what must be
// remembered about them: the account, its factors, its one-time links, its
// devices and its history.
//
// It checks no password and opens no database. Where a promise needs one
// indivisible step, such as using a link once, the [Store] makes it, so that
// two replicas cannot both take it.
package account

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/text/secure/precis"
)

// An Account is one person or program that can log in.
type Account struct {
	ID            string   // the subject: random, never used again
	Name          string   // the log-in name, as [Fold] writes it
	Display       string   // what people are called on pages; may be empty
	Email         string   // as [FoldEmail] writes it; empty if there is none
	EmailVerified bool     // whether a link sent there was followed
	Groups        []string // sorted
	Roles         []string // sorted

	Password      string    // the hash in PHC or modular crypt form; empty if there is none
	PasswordSince time.Time // when it was set
	MustChange    bool      // the password is known to others, or was set by an administrator

	Created  time.Time
	Disabled bool
	// ValidFrom is when sessions, tokens and devices begin to hold: whatever
	// is older ended with it. It only ever grows.
	ValidFrom time.Time
	// EnrolBy is until when a second factor that policy asks for may still be
	// missing. Zero: no grace.
	EnrolBy time.Time
}

// The kinds of a [Factor].
const (
	TOTP     = "totp"
	Passkey  = "passkey"
	Recovery = "recovery" // one recovery code
)

// A Factor is one thing beside the password that proves an account.
type Factor struct {
	ID      string // random; a passkey's is its credential id in base64url
	Account string
	Kind    string
	Name    string // what its owner calls it
	Data    []byte // for the mfa package only; secrets in it are sealed
	Counter int64  // the last TOTP step or signature counter that was accepted
	Created time.Time
	Used    time.Time // zero if never
}

// The purposes of a [Link].
const (
	RecoverLink = "recover"      // set a new password
	InviteLink  = "invite"       // register; Data holds the invitation
	EmailLink   = "verify-email" // Data holds the address
	FirstLink   = "first"        // become the first administrator
)

// A Link is a secret that is good once.
type Link struct {
	Hash    []byte // SHA-256 of the secret, which is stored nowhere
	Purpose string
	Account string // empty if there is none yet
	Data    string
	Expires time.Time
}

// A Device is a browser that its owner has logged in from, told by a cookie.
type Device struct {
	Hash    []byte // SHA-256 of the cookie's secret
	Account string
	Agent   string // the browser's own words, shortened
	Created time.Time
	Used    time.Time
}

// A LogIn is one try to prove an account, for its owner to read.
type LogIn struct {
	Time    time.Time
	Account string
	Client  netip.Addr
	Agent   string
	Method  string // "password", "passkey", "oidc:corp"
	Result  string // "ok" or the reason why not
}

// An External is an account of an identity provider that stands for one of ours.
type External struct {
	Issuer  string // exactly as the provider's metadata says
	Subject string // the provider's "sub"
	Account string
	Created time.Time
}

var (
	// ErrNotFound: there is no such thing, or there is no longer.
	ErrNotFound = errors.New("not found")
	// ErrTaken: another account has this name, address, credential or
	// provider account already.
	ErrTaken = errors.New("is taken")
	// ErrUsed: a counter, code or link was used before.
	ErrUsed = errors.New("was used before")
)

// A Store remembers accounts. Every method may be called from many goroutines
// and replicas at once.
type Store interface {
	// Create adds an account. [ErrTaken] if its name or its verified address
	// belongs to another.
	Create(ctx context.Context, a Account) error
	// First is Create, but only while there is no account at all; otherwise [ErrTaken].
	First(ctx context.Context, a Account) error
	// Account returns the account with an id.
	Account(ctx context.Context, id string) (Account, error)
	// ByName returns the account with a folded log-in name.
	ByName(ctx context.Context, name string) (Account, error)
	// ByEmail returns the account with a folded and verified address.
	ByEmail(ctx context.Context, email string) (Account, error)
	// Accounts returns up to limit accounts whose name comes after the given
	// one, sorted by name; with a filter, those whose name, display name or
	// address contains it.
	Accounts(ctx context.Context, filter, after string, limit int) ([]Account, error)
	// Update changes an account: change is called with the stored one inside a
	// transaction, perhaps more than once, and its error ends it.
	Update(ctx context.Context, id string, change func(*Account) error) (Account, error)
	// Delete removes an account and everything that belongs to it.
	Delete(ctx context.Context, id string) error

	// AddFactor adds a factor. [ErrTaken] if its id exists, whoever has it.
	AddFactor(ctx context.Context, f Factor) error
	// Factors returns an account's factors, the oldest first.
	Factors(ctx context.Context, account string) ([]Factor, error)
	// Factor returns one factor.
	Factor(ctx context.Context, id string) (Factor, error)
	// UseFactor sets the counter and Data of a factor if the stored counter is
	// still before, and otherwise answers [ErrUsed]: of two that come with one
	// code, one is let in. Data stays if it is nil.
	UseFactor(ctx context.Context, id string, before, counter int64, data []byte, now time.Time) error
	// RemoveFactor removes a factor of the account; that of a recovery code is
	// how it is used. [ErrNotFound] if it was gone, so that only one of two
	// can have used it.
	RemoveFactor(ctx context.Context, account, id string) error
	// ReplaceFactors removes the account's factors of a kind and adds others
	// in one step.
	ReplaceFactors(ctx context.Context, account, kind string, with []Factor) error

	// AddLink adds a one-time link and removes what has expired.
	AddLink(ctx context.Context, l Link) error
	// Link returns a link that holds at the time, without using it.
	Link(ctx context.Context, purpose string, hash []byte, now time.Time) (Link, error)
	// TakeLink removes a link and returns it: only one can have it.
	TakeLink(ctx context.Context, purpose string, hash []byte, now time.Time) (Link, error)
	// DropLinks removes every link of an account for a purpose.
	DropLinks(ctx context.Context, account, purpose string) error

	// KnowDevice adds a device or notes that it was used again.
	KnowDevice(ctx context.Context, d Device) error
	// Device returns an account's device.
	Device(ctx context.Context, account string, hash []byte) (Device, error)
	// Devices returns an account's devices, the last used first.
	Devices(ctx context.Context, account string) ([]Device, error)
	// ForgetDevices removes all devices of an account.
	ForgetDevices(ctx context.Context, account string) error

	// Note adds to an account's history, of which the last 100 are kept.
	Note(ctx context.Context, l LogIn) error
	// History returns the last tries, the newest first.
	History(ctx context.Context, account string, limit int) ([]LogIn, error)

	// Link external accounts: [ErrTaken] if it belongs to another account.
	AddExternal(ctx context.Context, e External) error
	// External returns the account behind a provider's.
	External(ctx context.Context, issuer, subject string) (External, error)
	// Externals returns an account's provider accounts.
	Externals(ctx context.Context, account string) ([]External, error)
	// RemoveExternal unlinks one.
	RemoveExternal(ctx context.Context, account, issuer, subject string) error
}

// maxName is how many bytes a log-in name or address may have.
const maxName = 254

// Fold returns the one form of a log-in name: "Ann", "ANN" and "ａｎｎ" are one
// account (RFC 8265, UsernameCaseMapped). An address is folded as one.
func Fold(name string) (string, error) {
	if strings.Contains(name, "@") {
		return FoldEmail(name)
	}
	s, err := precis.UsernameCaseMapped.String(strings.TrimSpace(name))
	switch {
	case err != nil || s == "":
		return "", errors.New("must be letters, digits and punctuation, without spaces in it")
	case len(s) > maxName:
		return "", errors.New("is too long")
	}
	return s, nil
}

// FoldEmail returns the one form of an address. Both halves are folded to
// lower case: no provider in use tells addresses apart by case, and two
// accounts that people cannot tell apart are worse than one address that
// cannot be used.
func FoldEmail(email string) (string, error) {
	email = strings.TrimSpace(email)
	local, domain, ok := strings.Cut(email, "@")
	if !ok || local == "" || domain == "" || strings.Contains(domain, "@") || len(email) > maxName {
		return "", errors.New("must be an address such as ann@example.com")
	}
	l, err := precis.UsernameCaseMapped.String(local)
	if err != nil {
		return "", errors.New("must be an address such as ann@example.com")
	}
	d, err := precis.UsernameCaseMapped.String(domain)
	if err != nil || !strings.Contains(d, ".") && d != "localhost" || strings.ContainsAny(d, "/:?#[]()<>,;\\\"") {
		return "", errors.New("must be an address such as ann@example.com")
	}
	return l + "@" + d, nil
}
