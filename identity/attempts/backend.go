package attempts

import (
	"context"
	"errors"
	"time"

	"github.com/merlon-dev/merlon/secrets"
)

// A BackendConfig is what a log-in that a backend owns is held to beside a
// [Config]. It has no other defaults than those of [NewBackend]'s caller.
type BackendConfig struct {
	Users     Schedule // one address trying many accounts, each counted once
	Addresses Schedule // one account tried from many addresses, each counted once
	All       Schedule // all browsers that are not known together, while Share is exceeded
	// Share is how many of a hundred tries may fail in one minute, if at least
	// Least of them do. Above it, and for ten minutes after, only a quarter of
	// what is free is free to browsers that are not known, and All holds.
	Share int
	Least int
	// Passes is how many tries may be made with one [Try.Pass].
	Passes int
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// strainLasts is for how long thresholds stay tight. Without that, a guesser
// who is held off would look like one who has gone.
const strainLasts = 10 * time.Minute

// NewBackend returns a Throttle for tries of kind [Backend] only. Several may
// share a store; their tries are told apart by [Try.Place].
func NewBackend(c Config, b BackendConfig, k secrets.Key, s Store, notify func(Notice)) (*Throttle, error) {
	t, err := New(c, k, s, notify)
	errs := append([]error{err}, b.Users.complete("users", Schedule{})...)
	errs = append(errs, b.Addresses.complete("addresses", Schedule{})...)
	errs = append(errs, b.All.complete("all", Schedule{})...)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	t.backend = &b
	if b.Now != nil {
		t.now = b.Now
	}
	return t, nil
}

// Strained reports whether more tries fail than is usual, all accounts together.
func (t *Throttle) Strained() bool { return t.strained(t.now()) }

// unusual notes it if too large a share of the tries of a backend's log-in
// fails; t.mu is held.
func (t *Throttle) unusual(now time.Time) bool {
	if t.backend == nil {
		return false
	}
	failed := t.perMinute(now)
	all := failed
	for _, w := range t.window {
		if w.minute >= now.Unix()/60-1 {
			all += w.succeeded // also all of the minute before: rather late than wrong
		}
	}
	if failed < t.backend.Least || failed*100 <= all*t.backend.Share {
		return false
	}
	t.strainTo = now.Add(strainLasts)
	return true
}

// perAddress is how many failures of one address say something about all: one
// guesser must not bring about what is meant for many.
const perAddress = 5

// telling reports whether a failed try counts for the share of those that fail.
func (t *Throttle) telling(k *Ticket) bool {
	if t.backend == nil {
		return true
	}
	for i, b := range k.buckets {
		if b.name == "address" && k.counts[i] > perAddress {
			return false
		}
	}
	return true
}

func (t *Throttle) succeeded(now time.Time) {
	if t.backend == nil {
		return
	}
	t.mu.Lock()
	t.minute(now).succeeded++
	t.mu.Unlock()
}

// Unsure says that nobody can tell what came of the try, since the backend
// broke. It is not counted, unless that happens to one account again and again:
// who can make a log-in break for wrong guesses only must not guess for free.
func (k *Ticket) Unsure() {
	t := k.throttle
	if k.try.Account != "" {
		b := []Bucket{{Key: t.tryKey(k.try, "unsure", k.try.Account), name: "unsure", Schedule: t.config.Account}}
		if r, err := k.store.Reserve(context.Background(), b, t.now()); err == nil && r.Wait > 0 {
			k.Failed()
			return
		}
	}
	k.Void()
}

// rights is for different passwords of one account that a backend's answers said
// were right. People change theirs, and some are good once only, but few so
// often.
var rights = Schedule{Free: 5, First: 15 * time.Minute, Longest: time.Hour, Forget: 15 * time.Minute}

// Right says that the try was right as far as the backend's answer tells, and
// reports whether that can be. Where many passwords of one account are, answers
// are misread: then it counts as a failure, so that guessing is not for free
// until somebody mends it.
func (k *Ticket) Right() bool {
	t, try := k.throttle, k.try
	if try.Account != "" && try.Password != "" {
		now, tag := t.now(), t.passwordTag(try.Password)
		try.Pass = ""
		b := []Bucket{{
			Key: t.tryKey(try, "right", try.Account, try.Host), Member: t.tryKey(try, "right password", tag, try.Account, try.Host), name: "right", Schedule: rights,
		}}
		if r, err := k.store.Reserve(context.Background(), b, now); err == nil && r.Wait > 0 {
			t.tell(Notice{Kind: AnswersMisread, Time: now, Account: try.Account, Client: try.Client, Count: int(r.Counts[0])}, "")
			k.Failed()
			return false
		}
	}
	k.Succeeded()
	return true
}

// canaryCounts is how many failures one try of a canary is worth, beside the try
// itself.
const canaryCounts = 9

// Canary says that somebody has tried an account that nobody has. It tells so
// at once, and counts heavily against the address alone: the account's own
// counts are as of any other, or the next try of it would tell that it is none.
func (t *Throttle) Canary(ctx context.Context, try Try) {
	now := t.now()
	t.tell(Notice{Kind: CanaryTried, Time: now, Account: try.Account, Client: try.Client, Count: 1}, try.Account+" "+try.Client.String())
	try.Device, try.Pass, try.Account, try.Password = nil, "", "", ""
	for range canaryCounts {
		k, w := t.Begin(ctx, try)
		if !w.OK() {
			return
		}
		k.Failed()
	}
}

// ForgiveAt forgets all failures of an account at a backend's log-in, as
// [Throttle.Forgive] does.
func (t *Throttle) ForgiveAt(ctx context.Context, place, account string) error {
	try := Try{Kind: Backend, Place: place}
	var refunds []Refund
	for _, pass := range []string{"", "any"} {
		try.Pass = pass
		for _, name := range []string{"account", "addresses", "unsure"} {
			refunds = append(refunds, Refund{Key: t.tryKey(try, name, account), All: true})
		}
	}
	err := t.store.Refund(ctx, refunds, t.now())
	return errors.Join(err, t.spare.Refund(ctx, refunds, t.now()))
}
