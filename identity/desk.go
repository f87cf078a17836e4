package identity

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/secrets"
)

// A Desk is where people prove who they are. It holds no state of a log-in
// between two requests: what must be carried over is in [Step.Pending], sealed,
// and good only for the browser, site and account that it was made for.
//
// Every method with an error besides a Step means by it that the desk cannot
// answer, whoever asks: 503.
type Desk struct {
	c     Config
	env   Env
	rules *Rules
	box   *secrets.Box
	now   func() time.Time

	slots  chan struct{} // for what is done behind answers
	behind sync.WaitGroup
}

// Env is what a Desk works with.
type Env struct {
	Key      secrets.Key
	Accounts account.Store
	Hasher   *password.Hasher
	Policy   *password.Policy
	Sessions *session.Manager
	Factors  *mfa.Factors
	Throttle *attempts.Throttle
	Letters  Letters     // nil: nobody is written to, and links cannot be asked for
	Event    func(Event) // told what happened, for the event log; may be nil
	// Revoke ends what hangs on a session of an account, or on all of them if
	// session is empty: tokens, and what applications were allowed, which must
	// not outlive a log-out. It may be nil.
	Revoke func(ctx context.Context, account, session string) error
	// Mapped says, by the provider's name, which of our groups and roles its
	// mapping can give. Who loses them there loses them here at the next
	// log-in, and keeps what was given here.
	Mapped map[string]Mapping
}

// A Mapping is what a provider decides about.
type Mapping struct{ Groups, Roles []string }

// A Visit is one request to the desk, and the header of the answer that is
// being made: the desk adds cookies to it.
type Visit struct {
	*merlon.Request
	Header http.Header
	// Origin is the scheme and host that people reach the site by, such as
	// "https://shop.example.com": from the configuration, never from the
	// request.
	Origin string
}

// A State says what comes next. What it tells about an account, it tells only
// to who has proved to be its owner.
type State string

const (
	// SignedIn: a session has begun, or was proved again; its cookie is in the
	// answer. [Step.Codes] may hold recovery codes to show once.
	SignedIn State = "signed-in"
	// Wrong: name, password, code, passkey or where it comes from is not
	// right, and nobody is told which. The Pending that was sent may be used
	// again; [Desk.Again] says what for.
	Wrong State = "wrong"
	// Wait: too many tries; after [Step.Wait] again (429). Looks the same
	// whether there is such an account.
	Wait State = "wait"
	// Busy: too many people are logging in; again in a second (503).
	Busy State = "busy"
	// Second: go on with one of [Step.Options] and Pending.
	Second State = "second"
	// NewPassword: [Desk.SetPassword] with Pending; [Step.Why] says why.
	NewPassword State = "new-password"
	// Enrol: a second factor must be enrolled first: [Desk.EnrolTOTP] or
	// [Desk.EnrolPasskey] with Pending, until [Step.EnrolBy].
	Enrol State = "enrol"
	// EnrolOver: the time to enrol is over; an administrator must open it again.
	EnrolOver State = "enrol-over"
	// Stale: what was begun took too long, was finished, or began in another
	// browser or for another site. Begin again.
	Stale State = "stale"
	// Weak: the new password is not accepted; [Step.Weak] says why. The Pending
	// that was sent may be used again.
	Weak State = "weak"
	// Sent: a letter is on its way, if there is anybody to write to.
	Sent State = "sent"
	// Prove: somebody is signed in, but must prove it again first:
	// [Desk.StepUp].
	Prove State = "prove"
	// Anonymous: nobody is signed in.
	Anonymous State = "anonymous"
	// Done: it is done; nobody's session has changed but as the method says.
	Done State = "done"
	// Unlinked: the provider's account belongs to nobody here, and may not
	// make itself one. Who has an account signs in and links it there.
	Unlinked State = "unlinked"
	// Taken: somebody else has it: the provider's account, the factor or, for
	// the first administrator, the name.
	Taken State = "taken"
	// TooMany: there are as many factors of this kind as may be.
	TooMany State = "too-many"
	// LastFactor: it is the last second factor of an account that must have one.
	LastFactor State = "last-factor"
	// Closed: this is not offered here: registration is off, say.
	Closed State = "closed"
)

// The methods that [Step.Options] may name.
const (
	OptPassword    = "password"
	OptTOTP        = account.TOTP
	OptRecovery    = account.Recovery
	OptPasskey     = account.Passkey       // proves two factors at once
	OptSecurityKey = account.BySecurityKey // beside a password
	OptProvider    = "provider"            // one of the account's identity providers
)

// A Step is the desk's answer.
type Step struct {
	State   State
	Pending string        // to be sent back with the next step, in a form's hidden field
	Options []string      // with Second: by what to go on, the best first; with Enrol: what would be enough
	Wait    time.Duration // with Wait
	// Why says why a new password is wanted: "must-change", "breached" or
	// "recover".
	Why     string
	Weak    []password.Problem // with Weak
	EnrolBy time.Time          // with Enrol
	Codes   []string           // new recovery codes, shown once
	Name    string             // whose log-in it is, once that is proved or comes from the session
	Account string             // the account's id, likewise
}

// The kinds of a [Letter].
const (
	RecoverLetter     = "recover"          // Secret is that of a link to recover
	RegisterLetter    = "register"         // Secret is that of a link to register
	KnownLetter       = "register-known"   // somebody tried to register with an address that has an account
	VerifyEmailLetter = "verify-email"     // Secret is that of a link to confirm the new address
	EmailChanged      = "email-changed"    // to the old address
	PasswordChanged   = "password-changed" //
	FactorAdded       = "factor-added"     // Detail is its name
	FactorRemoved     = "factor-removed"   // Detail is its name
	CodesReplaced     = "codes-replaced"   // recovery codes
	CodeUsed          = "code-used"        // a recovery code
	NewDevice         = "new-device"       // a log-in from a browser that was not known
	ProviderLinked    = "provider-linked"  // Detail is the provider's name
	UnderAttack       = "under-attack"     // many log-ins failed
	KeyCloned         = "key-cloned"       // a security key may have been copied
)

// A Letter is what somebody is to be told by mail.
type Letter struct {
	Kind    string
	To      string          // the address
	Account account.Account // zero if there is none
	Origin  string          // of the site, for links
	Site    string          // the site's name
	Secret  string          // of the link, if the letter has one
	Until   time.Time       // until when the link is good
	Time    time.Time       // when it happened
	Client  netip.Addr      // where it came from
	Agent   string          // the browser's own words
	// Languages is the Accept-Language of the browser where it began, which
	// most often is the reader's.
	Languages string
	Detail    string
}

// Letters brings letters to people. Letter must return at once, whether there
// is somebody to write to or not.
type Letters interface {
	// Letter takes one letter.
	Letter(l Letter)
}

// An Event is something that the event log should know, by the name that the
// OWASP logging vocabulary has for it.
type Event struct {
	Name    string        // "authn_login_fail"
	Reason  merlon.Reason // why; for the operator only
	Account string        // the account's id; empty if there is none
	User    string        // the log-in name that was tried; empty if it is not a name's form
	Method  string        // "password", "totp", "oidc:corp"
	Detail  string
	Request *merlon.Request
	Err     error
}

type reason = merlon.Reason

// NewDesk returns a Desk. Close must be called when it is not needed any more.
func NewDesk(c Config, env Env) (*Desk, error) {
	c, err := c.complete()
	rules, rerr := NewRules(c)
	if err := errors.Join(err, rerr); err != nil {
		return nil, err
	}
	return &Desk{
		c: c, env: env, rules: rules, box: env.Key.Box("merlon log-in"), now: time.Now,
		slots: make(chan struct{}, atOnceLater),
	}, nil
}
