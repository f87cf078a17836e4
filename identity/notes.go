package identity

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
)

// The names of events, from the OWASP logging vocabulary.
const (
	LoginSuccess       = "authn_login_success"
	LoginFail          = "authn_login_fail"
	LoginFailMax       = "authn_login_fail_max" // has to wait
	LoginLock          = "authn_login_lock"     // waiting does not help
	PasswordChange     = "authn_password_change"
	PasswordChangeFail = "authn_password_change_fail"
	UserCreated        = "user_created"
	UserUpdated        = "user_updated"
	SessionExpired     = "session_expired" // ended by its owner
	NotDone            = "guard_failed"    // not OWASP's: something could not be done; Err says why
)

// Why a log-in failed. The client is told none of them.
const (
	// WrongPassword: the account has another password, or none.
	WrongPassword merlon.Reason = "wrong-password"
	// NoAccount: there is no account with this name.
	NoAccount merlon.Reason = "no-such-account"
	// AccountDisabled: an administrator has disabled the account.
	AccountDisabled merlon.Reason = "account-disabled"
	// NotAllowedHere: the password may be right, but no login rule lets this
	// user in from this address at this time. See `login`.
	NotAllowedHere merlon.Reason = "login-not-allowed-here"
	// TooManyTries: the account, the address, its network or the password was
	// tried too often. The owner gets in on a browser that logged in before.
	TooManyTries merlon.Reason = "too-many-tries"
	// WrongCode: the second factor is not right.
	WrongCode merlon.Reason = "wrong-code"
	// UsedCode: the second factor was right once. Somebody may be listening.
	UsedCode merlon.Reason = "used-code"
	// WrongPasskey: what the browser answered proves no passkey of the account.
	WrongPasskey merlon.Reason = "wrong-passkey"
	// PasswordBreached: the password was right, but others have lost it
	// already. It must be changed.
	PasswordBreached merlon.Reason = "password-breached"
	// DamagedHash: what is stored of the password cannot be verified. The
	// owner needs a new one.
	DamagedHash merlon.Reason = "password-hash-damaged"
	// FactorEnrolled: a second factor was added.
	FactorEnrolled merlon.Reason = "factor-enrolled"
	// FactorTakenOff: a second factor was removed.
	FactorTakenOff merlon.Reason = "factor-removed"
	// CodesMade: the recovery codes were replaced.
	CodesMade merlon.Reason = "recovery-codes-replaced"
	// CodeSpent: a recovery code was used.
	CodeSpent merlon.Reason = "recovery-code-used"
	// KeyMayBeCopied: a security key's counter went back.
	KeyMayBeCopied merlon.Reason = "security-key-may-be-copied"
	// EnrolmentOver: the time in which a second factor had to be enrolled is
	// over. Open it again with `merlon user reset`.
	EnrolmentOver merlon.Reason = "enrolment-over"
	// ProviderAdded: an identity provider's account was linked.
	ProviderAdded merlon.Reason = "provider-linked"
	// ProviderTakenOff: an identity provider's account was unlinked.
	ProviderTakenOff merlon.Reason = "provider-unlinked"
	// ProviderUnlinked: the identity provider's account belongs to nobody
	// here. Its owner must sign in and link it, or the provider be allowed to
	// make accounts.
	ProviderUnlinked merlon.Reason = "provider-account-unlinked"
	// DisplayChanged: somebody chose another name for pages to call them by.
	DisplayChanged merlon.Reason = "display-name-changed"
	// DevicesForgotten: somebody made no browser known to be theirs any longer.
	DevicesForgotten merlon.Reason = "devices-forgotten"
	// EmailConfirmed: a new address was confirmed.
	EmailConfirmed merlon.Reason = "email-confirmed"
	// Recovered: a password was set by a link.
	Recovered merlon.Reason = "recovered-by-link"
	// Registered: an account was made by an invitation.
	Registered merlon.Reason = "registered"
	// FirstAdministrator: the first account was made by the link that Merlon
	// printed.
	FirstAdministrator merlon.Reason = "first-administrator"
)

func (d *Desk) event(v Visit, e Event) {
	if d.env.Event != nil {
		e.Request, e.User = v.Request, Loggable(e.User)
		d.env.Event(e)
	}
}

// noName begins what tries are counted by if it cannot be a log-in name.
const noName = "\x00"

// Loggable is a log-in name for the log. What cannot be one has not seldom been
// a password, typed into the wrong field.
func Loggable(user string) string {
	if strings.HasPrefix(user, noName) {
		return ""
	}
	return user
}

// failed notes a try that failed: for the log, and for the account's owner if
// there is one. The latter is done behind the answer, so that its time does
// not tell whether there is an account.
func (d *Desk) failed(v Visit, a account.Account, user, method string, why merlon.Reason, err error) {
	name := LoginFail
	if why == TooManyTries {
		name = LoginFailMax
	}
	d.event(v, Event{Name: name, Reason: why, Account: a.ID, User: user, Method: method, Err: err})
	if a.ID == "" || why == TooManyTries {
		return // a flood must not wash away the history
	}
	d.note(v, a, method, string(why))
}

func (d *Desk) note(v Visit, a account.Account, method, result string) {
	l := account.LogIn{
		Time: d.now(), Account: a.ID, Client: v.Client, Agent: shorten(v.UserAgent(), maxAgent), Method: method, Result: result,
	}
	d.later(func(ctx context.Context) { _ = d.env.Accounts.Note(ctx, l) }) // the event log has it, too
}

// letter writes to an account's owner, if there is a verified address.
func (d *Desk) letter(v Visit, a account.Account, l Letter) {
	if d.env.Letters == nil || l.To == "" && (a.Email == "" || !a.EmailVerified) {
		return
	}
	if l.To == "" {
		l.To = a.Email
	}
	l.Account, l.Origin, l.Site = a, v.Origin, v.Site
	l.Time, l.Client, l.Agent = d.now(), v.Client, shorten(v.UserAgent(), maxAgent)
	l.Languages = v.Request.Header.Get("Accept-Language")
	d.env.Letters.Letter(l)
}

// Attacked passes on what package attempts has noticed: it is for
// attempts.New. The owner of an account that others try to get into is told.
func (d *Desk) Attacked(n attempts.Notice) {
	if d.env.Event != nil {
		name := LoginFailMax
		if n.Kind == attempts.AccountLocked {
			name = LoginLock
		}
		d.env.Event(Event{Name: name, Reason: merlon.Reason(n.Kind), User: Loggable(n.Account), Detail: strconv.Itoa(n.Count) + " failures", Err: n.Err})
	}
	if n.Account == "" || d.env.Letters == nil || n.Kind != attempts.AccountAttacked && n.Kind != attempts.AccountLocked {
		return
	}
	d.later(func(ctx context.Context) {
		a, _, err := find(ctx, d.env.Accounts, n.Account)
		if err == nil && a.ID != "" && a.EmailVerified {
			d.env.Letters.Letter(Letter{Kind: UnderAttack, To: a.Email, Account: a, Time: n.Time, Client: n.Client, Detail: n.Kind})
		}
	})
}

const (
	atOnceLater = 256
	laterLife   = 10 * time.Second
)

// behindAnswers is how long what is done behind an answer waits for it to be on
// its way: what there is to do only for people with an account must not take
// the processor from their answer (traps 41, 42 and 50).
const behindAnswers = 50 * time.Millisecond

// later does f behind the answer. Under a flood it is not done.
func (d *Desk) later(f func(ctx context.Context)) {
	select {
	case d.slots <- struct{}{}:
	default:
		return
	}
	d.behind.Go(func() {
		defer func() { <-d.slots }()
		time.Sleep(behindAnswers)
		ctx, cancel := context.WithTimeout(context.Background(), laterLife)
		defer cancel()
		f(ctx)
	})
}

// Close waits for what is done behind answers.
func (d *Desk) Close() { d.behind.Wait() }
