// Package password keeps passwords: it hashes them, verifies what other
// systems have hashed, and says which are too easy to guess.
//
// A password is put into Unicode's NFC (RFC 8265 does, too) and otherwise
// taken as it was typed: not trimmed, not folded, never cut. It promises that
// a stored hash cannot make a log-in cost more than a fixed bound, that a flood
// of log-ins cannot fill the memory, and that an account without a password or
// with a damaged one takes as long as any other. It cannot see who asks: how
// often one may guess is for package attempts.
package password

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/text/unicode/norm"
)

// MaxBytes is how long a password may be.
const MaxBytes = 1024

var (
	// ErrBusy: as many passwords are being hashed as may be, and as many wait.
	// Answer 503 with Retry-After: 1, whoever asks.
	ErrBusy = errors.New("too many passwords are being verified")
	// ErrTooLong: the password cannot be hashed because it has more than
	// [MaxBytes], or with bcrypt and no pepper more than 72.
	ErrTooLong = errors.New("the password is too long")
	// ErrNUL: bcrypt without a pepper ends passwords at a NUL character.
	ErrNUL = errors.New("the password contains a NUL character")
	// ErrBadHash: a stored hash cannot be verified. Its owner needs a new password.
	ErrBadHash = errors.New("the stored hash cannot be verified")
)

// A Hasher hashes and verifies passwords, a bounded number at once. Its
// methods may be called from many goroutines.
type Hasher struct {
	own     hash // what new hashes are like, without salt and sum
	pepper  *pepper
	peppers map[string]*pepper // by their ids, the old ones too
	turns   *turns
	pace    pace
}

// prepare returns what of a password is hashed, and false if it is too long
// for any kind of hash.
func prepare(password string) ([]byte, bool) {
	if len(password) > MaxBytes {
		return nil, false
	}
	return norm.NFC.Bytes([]byte(password)), true
}

// fit is prepare for the kind of hash that is configured.
func (h *Hasher) fit(password string) ([]byte, error) {
	in, ok := prepare(password)
	switch {
	case !ok:
		return nil, ErrTooLong
	case h.own.takes(in):
		return in, nil
	case len(in) > bcryptMax:
		return nil, ErrTooLong
	}
	return nil, ErrNUL
}

// New returns a Hasher. Unless the cost is set, it measures what this machine
// can afford, in about a tenth of a second.
func New(c Config) (*Hasher, error) { return newHasher(c) }

// Hash returns what to store for a password: a PHC string of argon2id, or a
// bcrypt hash. With a pepper its id is the parameter keyid, and the input of
// the hash is base64(HMAC-SHA-384(key, password)); bcrypt then has the form
// "$merlon$keyid=…$2b$…".
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	in, err := h.fit(password)
	if err != nil {
		return "", err
	}
	defer clear(in)
	leave, err := h.turns.take(ctx, h.own.needs(), false)
	if err != nil {
		return "", err
	}
	defer leave()
	return h.own.make(in, h.pepper)
}

// Verify reports whether stored was made of password, and whether it should be
// replaced by what [Hasher.Hash] makes of it, because it is weaker or of
// another kind.
//
// Whatever stored holds, Verify takes as long: an empty one stands for an
// unknown account or one without a password; a damaged one is a wrong password
// with an [ErrBadHash] for the operator. Other errors, [ErrBusy] and those of
// ctx, say that nothing was verified.
func (h *Hasher) Verify(ctx context.Context, stored, password string) (ok, upgrade bool, err error) {
	return h.verify(ctx, stored, password, false)
}

// VerifyKnown is [Hasher.Verify] for who is known to have been right before, by
// their session or their browser. They do not wait behind strangers.
func (h *Hasher) VerifyKnown(ctx context.Context, stored, password string) (ok, upgrade bool, err error) {
	return h.verify(ctx, stored, password, true)
}

func (h *Hasher) verify(ctx context.Context, stored, password string, known bool) (ok, upgrade bool, err error) {
	want, bad := h.read(stored)
	in, fits := prepare(password)
	if !fits || !want.takes(in) {
		// Refused, but after as much work as for any other.
		in, fits = []byte("x"), false
	}
	defer clear(in)
	leave, err := h.turns.take(ctx, want.needs(), known)
	if err != nil {
		return false, false, err
	}
	start := time.Now()
	ok = want.check(in, h.peppers) && fits && bad == nil && stored != ""
	took := time.Since(start)
	leave()
	h.pace.note(want.class(), took)
	if err := sleep(ctx, h.pace.rest(took)); err != nil {
		return false, false, err
	}
	if !ok {
		return false, false, bad
	}
	return true, h.own.takes(in) && h.outdated(want), nil
}

// Dummy does what [Hasher.Verify] does for an account that does not exist.
func (h *Hasher) Dummy(ctx context.Context, password string) error {
	_, _, err := h.Verify(ctx, "", password)
	return err
}

// Rehearse measures how long a stored hash of another kind takes, and one of
// the own kind, so that from the first log-in on unknown accounts take as long
// as those that still have one. Without it that is known only once somebody
// with such a hash, and somebody without, has tried to log in.
func (h *Hasher) Rehearse(ctx context.Context, stored string) error {
	for range 3 { // the least counts: a machine that is starting is busy
		_, _, err := h.Verify(ctx, stored, "")
		if err = errors.Join(err, h.Dummy(ctx, "")); err != nil {
			return err
		}
	}
	return nil
}

// sleep waits, or less if ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pace lets every verification take as long as the slowest kind of hash that
// is about. Where passwords were imported, some accounts still have bcrypt,
// say, and others argon2id: by the time alone one could tell which accounts
// exist, since unknown ones are all of the configured kind.
type pace struct {
	mu    sync.Mutex
	least map[string]time.Duration // by class, the shortest time seen
}

const (
	maxClasses = 64
	maxPace    = time.Second
)

// note remembers how long a hash of a class took.
func (p *pace) note(class string, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.least == nil {
		p.least = make(map[string]time.Duration)
	}
	if d, ok := p.least[class]; ok && d <= took || !ok && len(p.least) >= maxClasses {
		return
	}
	p.least[class] = took
}

// rest returns how much longer something has to take that has taken so long.
// With one class about there is nothing to hide. Otherwise a quarter is added
// to the slowest, which covers how much its own time varies.
func (p *pace) rest(took time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.least) < 2 {
		return 0
	}
	var most time.Duration
	for _, d := range p.least {
		most = max(most, d)
	}
	return min(most+most/4, maxPace) - took
}
