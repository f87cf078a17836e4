// Package stuffing keeps guessers from a log-in that a site's backend owns:
// whoever tries many passwords on one user, leaked pairs of many users, or one
// password on all of them is slowed down, then challenged, then refused, while
// a user gets in on a browser that logged in before.
//
// It knows a log-in by its path and fields, and what came of a try by the
// backend's answer; both have to be told right. While leaked pairs come one each
// from very many addresses, users on new browsers wait along with the guessers
// unless there is a challenge. A log-in by WebSocket, gRPC or HTTP Basic is not
// seen, nor is it looked up whether a password has leaked.
package stuffing

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	// NotLogin: the request is no log-in.
	NotLogin merlon.Reason = "not-login"
	// LoginTried: the try may go on to the backend.
	LoginTried merlon.Reason = "login-tried"
	// LoginSucceeded: the backend's answer says that the try was right.
	LoginSucceeded merlon.Reason = "login-succeeded"
	// LoginFailed: the backend's answer says that the try was wrong. If it was
	// right, set failed and success to what the backend answers.
	LoginFailed merlon.Reason = "login-failed"
	// LoginMisread: the backend's answer says that the try was right, as it did
	// for several other passwords of this user just before, so that it says so of
	// any. The try counts as wrong. Set failed and success to what the backend
	// answers.
	LoginMisread merlon.Reason = "login-misread"
	// LoginUnsure: the backend's answer, such as 500, says neither; the try is
	// not counted.
	LoginUnsure merlon.Reason = "login-unsure"
	// LoginChallenged: too many tries failed, of this user, from this address,
	// with this password or altogether. Who solves the challenge may go on;
	// programs cannot, so raise free or share for a log-in that only they use.
	LoginChallenged merlon.Reason = "login-challenged"
	// LoginRefused: too many tries failed, and a challenge does not help or
	// there is none. The finding says what was counted; if these are your own
	// users, raise free there.
	LoginRefused merlon.Reason = "login-refused"
	// LoginUnreadable: the request is for the log-in, but whom it is about
	// cannot be told for certain, and the backend might read it otherwise. Send
	// a form or JSON in UTF-8 without a content coding.
	LoginUnreadable merlon.Reason = "login-unreadable"
	// LoginBatch: one request makes more tries than at_once allows.
	LoginBatch merlon.Reason = "login-batch"
	// CanaryTried: one of the canaries was tried; if the try was refused for it,
	// with the right password. Nobody does that by mistake: find out where the
	// name was found, and what else came from there.
	CanaryTried merlon.Reason = "canary-tried"
)

const quotaExceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded"

// maxDelayed is how many tries are kept waiting at once; more are answered at
// once. Each holds a connection and its request, nothing else.
const maxDelayed = 1000

// maxDelayedEach is how many of one address are: nobody alone may take all the
// places, and an office needs few.
const maxDelayedEach = 20

// An Env is what a [Guard] uses and does not own.
type Env struct {
	// Key is what names and passwords are hashed with, and what known browsers
	// are told by. The same on all replicas and after a restart.
	Key secrets.Key
	// Store counts. It may be shared between guards and replicas, and should
	// outlive a reload; a guard's shadow needs another one. nil: the guard's own.
	Store attempts.Store
	// Passed reports whether a request has passed the challenge, and names that
	// pass. nil: there is no challenge, and who would get one is refused.
	Passed func(*merlon.Request) (id string, ok bool)
	// Notify is told what somebody should know, the same at most once an hour.
	// It must return soon. nil: nobody is told.
	Notify func(attempts.Notice)
	// Watch says that the guard's answers are recorded and not obeyed, so that
	// it must not keep anybody waiting either.
	Watch bool
}

// A Guard protects the log-in of one site.
type Guard struct {
	c        Config
	env      Env
	paths    []pattern
	canaries map[string]bool
	throttle *attempts.Throttle
	devices  *devices
	names    []byte // key for names that are no names

	now     func() time.Time
	sleep   func(context.Context, time.Duration) error
	delayed atomic.Int64

	mu       sync.Mutex
	underway map[*merlon.Request]*login
	waiting  map[netip.Addr]int // tries that are kept waiting, by address or /64
}

// New returns a Guard.
func New(c Config, env Env) (*Guard, error) {
	c, err := c.complete()
	c.defaults()
	g := &Guard{
		c: c, env: env, paths: patterns(c.Path), now: time.Now, sleep: sleep,
		canaries: make(map[string]bool, len(c.Canaries)), underway: make(map[*merlon.Request]*login), waiting: make(map[netip.Addr]int),
	}
	if env.Key == (secrets.Key{}) {
		return nil, errors.Join(err, merlon.BadSetting("", "", "needs a key"))
	}
	g.names = env.Key.Derive("merlon stuffing names")
	for _, name := range c.Canaries {
		g.canaries[g.fold(name)] = true
	}
	clock := func() time.Time { return g.now() }
	g.devices = newDevices(env.Key, clock)
	t, terr := attempts.NewBackend(attempts.Config{
		Failures: c.Failures, Pair: c.Pair, Account: c.Account, Address: c.Address,
		Subnet: c.Subnet, Device: c.Device, Spray: c.Spray, Alarm: c.Alarm,
	}, attempts.BackendConfig{
		Users: c.Users, Addresses: c.Addresses, All: c.All, Share: c.Share, Least: leastFailures, Passes: c.Passes, Now: clock,
	}, env.Key, env.Store, env.Notify)
	if err := errors.Join(err, terr); err != nil {
		return nil, err
	}
	g.throttle = t
	return g, nil
}

// leastFailures in a minute say something about their share.
const leastFailures = 20

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Name returns "stuffing".
func (g *Guard) Name() string { return "stuffing" }

// Middleware puts the guard in front of next. What came of a try is told by
// the answer's status alone there; a wrong try that is told in another way is
// not given back.
func (g *Guard) Middleware(next http.Handler) http.Handler { return merlon.Middleware(g)(next) }

// Forgive forgets the failures of a user, for administrators.
func (g *Guard) Forgive(ctx context.Context, site, user string) error {
	return g.throttle.ForgiveAt(ctx, site, g.fold(user))
}
