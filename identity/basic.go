package identity

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/singleflight"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/password"
)

// Basic accepts a name and password in every request (RFC 7617), over TLS
// only. Accounts that have a second factor, or must have one, cannot use it:
// the password alone is not enough for them.
type Basic struct {
	// Htpasswd is a file with one "name:hash" a line, bcrypt or argon2id only
	// (htpasswd -B). It is read again when it changes. Default: none: the
	// accounts' own passwords are used. Example:
	//
	//	htpasswd: /etc/merlon/htpasswd
	Htpasswd string `yaml:"htpasswd,omitempty"`
	// Realm is the name that browsers show when they ask, up to 64 printable
	// ASCII characters. Default: the site's first host. Example:
	//
	//	realm: The archive
	Realm string `yaml:"realm,omitempty"`
	// Groups are those of everybody in the htpasswd file. Default: none.
	// Example:
	//
	//	groups: [scripts]
	Groups []string `yaml:"groups,omitempty"`
	// Roles are those of everybody in the htpasswd file. Default: none.
	// Example:
	//
	//	roles: [reader]
	Roles []string `yaml:"roles,omitempty"`
	// Ask invites browsers to ask for a password where somebody must be
	// known (WWW-Authenticate: Basic). A browser then sends it with every
	// request, also with those that other sites' pages cause, which only the
	// csrf guard tells apart. Default: false. Example:
	//
	//	ask: true
	Ask bool `yaml:"ask,omitempty"`
}

const (
	// BasicMalformed: the Authorization field is not what RFC 7617 says: there
	// are two, it is no base64, has no colon, is too long, or holds control
	// characters.
	BasicMalformed merlon.Reason = "basic-malformed"
	// BasicInClear: the password came over a connection without TLS, where
	// others may have read it. Change it, and let the client use https.
	BasicInClear merlon.Reason = "basic-in-clear"
	// BasicBusy: too many passwords are being verified. See password.at_once.
	BasicBusy merlon.Reason = "basic-busy"
	// BasicUnavailable: the store of accounts does not answer: 503.
	BasicUnavailable merlon.Reason = "basic-unavailable"
	// BasicNotEnough: the account has a second factor, or must have one, so
	// that its password alone proves nothing. Make it an API key.
	BasicNotEnough merlon.Reason = "basic-not-enough"
)

// A failure is the error of a prover of this package.
type failure struct {
	why    merlon.Reason
	status int // 401 if zero
	after  time.Duration
	err    error
}

func (f *failure) Error() string {
	if f.err != nil {
		return string(f.why) + ": " + f.err.Error()
	}
	return string(f.why)
}

func (f *failure) Unwrap() error             { return f.err }
func (f *failure) Reason() merlon.Reason     { return f.why }
func (f *failure) RetryAfter() time.Duration { return f.after }

func (f *failure) Status() int {
	if f.status == 0 {
		return http.StatusUnauthorized
	}
	return f.status
}

// A BasicProver proves by a password in the request. It is a [merlon.Prover].
type BasicProver struct {
	c      Basic
	mfa    MFA
	env    Env
	rules  *Rules
	secure func(*merlon.Request) bool
	file   *htpasswd // nil: accounts
	now    func() time.Time
	key    []byte // of this process, for what stands for passwords in memory

	flight singleflight.Group
	mu     sync.Mutex
	known  map[string]verified
	places map[place]time.Time
}

// A place is where a name was proved from. A program has no cookie to be known
// by, but it stays where it is: there it does not wait for what others try
// elsewhere.
type place struct {
	name   string
	client netip.Addr
}

// A verified is a name and password that were verified.
type verified struct {
	id     merlon.Identity
	stored string    // the hash that it was verified against
	at     time.Time // when
	looked time.Time // when the account was last looked at
}

const (
	verifiedLife = time.Minute
	placeLife    = 7 * 24 * time.Hour
	lookAgain    = time.Second
	maxVerified  = 4096
	verifyLife   = time.Minute
	maxBasic     = 4096 // bytes of the field
)

// NewBasic returns a prover of c.Basic, which must be set. secure says whether
// a request came over TLS all the way, as a trusted proxy in front may tell;
// nil means what the connection says.
func NewBasic(c Config, env Env, secure func(*merlon.Request) bool) (*BasicProver, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	rules, err := NewRules(c)
	if err != nil {
		return nil, err
	}
	if secure == nil {
		secure = func(r *merlon.Request) bool { return r.TLS != nil }
	}
	b := &BasicProver{c: *c.Basic, mfa: c.MFA, env: env, rules: rules, secure: secure, now: time.Now, key: make([]byte, 32), known: map[string]verified{}, places: map[place]time.Time{}}
	_, _ = rand.Read(b.key) // never fails
	if len(b.c.Realm) > 64 || strings.ContainsFunc(b.c.Realm, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, merlon.BadSetting("basic.realm", b.c.Realm, "must be up to 64 printable ASCII characters")
	}
	if b.c.Htpasswd == "" && len(b.c.Groups)+len(b.c.Roles) > 0 {
		return nil, merlon.BadSetting("basic.roles", "", "groups and roles are for the users of an htpasswd file; accounts have their own")
	}
	if b.c.Htpasswd != "" {
		if b.file, err = openHtpasswd(b.c.Htpasswd); err != nil {
			return nil, merlon.Within("basic.htpasswd", err)
		}
	}
	return b, nil
}

// Name returns "basic".
func (b *BasicProver) Name() string { return account.ByBasic }

// challenge is what a client that is refused, or asked, is told.
func (b *BasicProver) challenge(r *merlon.Request) string {
	if !b.secure(r) {
		return bearer(r) // nobody is asked to send a password in clear
	}
	realm := b.c.Realm
	if realm == "" {
		realm = realmOf(r)
	}
	return "Basic realm=" + quoted(realm) + `, charset="UTF-8"`
}

// basicScheme reports whether a field's value is of the Basic scheme.
func basicScheme(v string) bool {
	scheme, _, _ := strings.Cut(v, " ")
	return strings.EqualFold(scheme, "Basic")
}

// Prove checks the name and password of the request.
func (b *BasicProver) Prove(r *merlon.Request) (*merlon.Identity, error) {
	fields := r.Header["Authorization"]
	if !slices.ContainsFunc(fields, basicScheme) {
		return nil, merlon.ErrNoProof
	}
	if !b.secure(r) {
		return nil, &failure{why: BasicInClear, status: http.StatusForbidden}
	}
	if len(fields) != 1 {
		return nil, &failure{why: BasicMalformed}
	}
	user, pass, ok := parseBasic(fields[0])
	if !ok {
		return nil, &failure{why: BasicMalformed}
	}
	tag := b.tag(user, pass)
	if id, err := b.remembered(r, tag, user); id != nil || err != nil {
		return id, err
	}
	// A browser opens several connections at once: one of them verifies.
	got, err, _ := b.flight.Do(tag+"\x00"+r.Client.String(), func() (any, error) {
		return b.verify(r, tag, user, pass)
	})
	if err != nil {
		return nil, err
	}
	id := *got.(*merlon.Identity)
	return &id, nil
}

// parseBasic reads credentials. What is not UTF-8 is taken for Latin-1, as
// clients from before RFC 7617 write. The first colon ends the name.
func parseBasic(field string) (user, pass string, ok bool) {
	if len(field) > maxBasic {
		return "", "", false
	}
	_, text, _ := strings.Cut(field, " ")
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.Trim(text, " "))
	if err != nil {
		return "", "", false
	}
	s := string(raw)
	if !utf8.ValidString(s) {
		latin := make([]rune, len(raw))
		for i, c := range raw {
			latin[i] = rune(c)
		}
		s = string(latin)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", "", false
	}
	user, pass, ok = strings.Cut(s, ":")
	return user, pass, ok && user != ""
}

// tag stands for a name and password in memory.
func (b *BasicProver) tag(user, pass string) string {
	m := hmac.New(sha256.New, b.key)
	m.Write([]byte(user + ":" + pass)) // the name has no colon
	return string(m.Sum(nil))
}

// remembered returns who was verified within the last minute, if the password
// has not changed since.
func (b *BasicProver) remembered(r *merlon.Request, tag, user string) (*merlon.Identity, error) {
	now := b.now()
	b.mu.Lock()
	v, ok := b.known[tag]
	b.mu.Unlock()
	if !ok || now.Sub(v.at) >= verifiedLife || now.Before(v.at) {
		return nil, nil
	}
	if now.Sub(v.looked) >= lookAgain || now.Before(v.looked) {
		stored, id, why, err := b.find(r.Context(), user)
		if err != nil {
			return nil, &failure{why: BasicUnavailable, status: http.StatusServiceUnavailable, err: err}
		}
		if stored != v.stored || why != "" {
			b.forget(tag)
			return nil, nil // it is verified anew, and counted
		}
		v.id, v.looked = id, now
		b.remember(tag, v)
	}
	if !b.rules.allow(v.id.Name, v.id.Groups, r.Client, now) {
		return nil, nil
	}
	id := v.id
	return &id, nil
}

func (b *BasicProver) forget(tag string) {
	b.mu.Lock()
	delete(b.known, tag)
	b.mu.Unlock()
}

func (b *BasicProver) remember(tag string, v verified) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.known[tag]; !ok && len(b.known) >= maxVerified {
		for other := range b.known {
			delete(b.known, other)
			break
		}
	}
	b.known[tag] = v
}

// device is what a place is counted by that the name was proved from before.
func (b *BasicProver) device(at place) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if since, ok := b.places[at]; ok && b.now().Sub(since) < placeLife {
		return []byte("basic " + at.client.String())
	}
	return nil
}

func (b *BasicProver) provedAt(at place, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.places[at]; !ok && len(b.places) >= maxVerified {
		for other := range b.places {
			delete(b.places, other)
			break
		}
	}
	b.places[at] = now
}

// find returns what a name stands for: its hash, and why the hash alone would
// not be enough. An empty hash is that of nobody.
func (b *BasicProver) find(ctx context.Context, user string) (stored string, id merlon.Identity, why merlon.Reason, err error) {
	id = merlon.Identity{Methods: []string{account.ByBasic}}
	if b.file != nil {
		hash, changed := b.file.lookup(user, b.now())
		if changed != nil && b.env.Event != nil {
			b.env.Event(Event{Name: NotDone, Method: account.ByBasic, Detail: "the htpasswd file cannot be used as it is now; what it held before holds", Err: changed})
		}
		if hash == "" {
			return "", id, NoAccount, nil
		}
		id.Subject, id.Name, id.Groups, id.Roles = "htpasswd:"+user, user, b.c.Groups, b.c.Roles
		return hash, id, "", nil
	}
	name, bad := account.Fold(user)
	if bad != nil {
		return "", id, NoAccount, nil
	}
	a, _, err := find(ctx, b.env.Accounts, name)
	if err != nil {
		return "", id, "", err
	}
	factors, err := b.env.Accounts.Factors(ctx, cmp.Or(a.ID, nobody))
	if err != nil {
		return "", id, "", err
	}
	if a.ID == "" {
		return "", id, NoAccount, nil
	}
	id.Subject, id.Name, id.Groups, id.Roles = a.ID, a.Name, a.Groups, a.Roles
	switch {
	case a.Disabled:
		why = AccountDisabled
	case a.MustChange, required(b.mfa, a.Roles) > account.None,
		slices.ContainsFunc(factors, func(f account.Factor) bool { return f.Kind != account.Recovery }):
		why = BasicNotEnough // trap 47
	}
	return a.Password, id, why, nil
}

// verify counts the try and checks the password. Whatever is wrong takes as
// long and looks the same.
func (b *BasicProver) verify(r *merlon.Request, tag, user, pass string) (*merlon.Identity, error) {
	// Others may wait for the answer, too, whatever becomes of this request.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), verifyLife)
	defer cancel()
	stored, id, why, err := b.find(ctx, user)
	if err != nil {
		return nil, &failure{why: BasicUnavailable, status: http.StatusServiceUnavailable, err: err}
	}
	name, bad := account.Fold(user) // as it was sent, whoever it stands for: see find
	if bad != nil {
		name = noName + shorten(user, 64)
	}
	at := place{name, r.Client}
	known := b.device(at)
	ticket, wait := b.env.Throttle.Begin(ctx, attempts.Try{
		Kind: attempts.Password, Account: name, Client: r.Client, Password: pass, Device: known,
	})
	if !wait.OK() {
		b.event(r, Event{Name: waitName(wait), Reason: TooManyTries, Account: id.Subject, User: name, Detail: wait.By})
		return nil, &failure{why: TooManyTries, status: http.StatusTooManyRequests, after: wait.For}
	}
	check := b.env.Hasher.Verify
	if known != nil {
		check = b.env.Hasher.VerifyKnown
	}
	ok, _, err := check(ctx, stored, pass)
	switch {
	case errors.Is(err, password.ErrBadHash):
		b.event(r, Event{Name: LoginFail, Reason: DamagedHash, Account: id.Subject, User: name, Err: err})
	case errors.Is(err, password.ErrBusy):
		ticket.Void()
		return nil, &failure{why: BasicBusy, status: http.StatusServiceUnavailable}
	case err != nil:
		ticket.Void()
		return nil, &failure{why: BasicUnavailable, status: http.StatusServiceUnavailable, err: err}
	}
	switch {
	case why != "":
	case !ok:
		why = WrongPassword
	case !b.rules.allow(id.Name, id.Groups, r.Client, b.now()):
		why = NotAllowedHere
	}
	if why != "" {
		ticket.Failed()
		b.event(r, Event{Name: LoginFail, Reason: why, Account: id.Subject, User: name})
		return nil, &failure{why: why}
	}
	ticket.Succeeded()
	now := b.now()
	b.remember(tag, verified{id: id, stored: stored, at: now, looked: now})
	b.provedAt(at, now)
	b.event(r, Event{Name: LoginSuccess, Account: id.Subject, User: name})
	return &id, nil
}

func (b *BasicProver) event(r *merlon.Request, e Event) {
	if b.env.Event != nil {
		e.Method, e.Request, e.User = account.ByBasic, r, Loggable(e.User)
		b.env.Event(e)
	}
}
