package token

import (
	"context"
	"errors"
	"time"
)

// A SigningKey is a private key as the store has it.
type SigningKey struct {
	ID        string    // the kid: random
	Algorithm string    // what it signs with: "RS256"
	Sealed    []byte    // the private key, which only the master key opens
	Created   time.Time // to the second
	SignFrom  time.Time // to the second; it signs from then until the next key does
}

// The kinds of a [Revocation].
const (
	OfToken   = "token"   // ID is its jti
	OfSubject = "subject" // ID is the subject; whatever was issued before Before
	OfSession = "session" // ID is the sid
)

// A Revocation says that tokens no longer hold.
type Revocation struct {
	Kind    string
	Issuer  string // whose tokens; with a token or subject of another issuer the same ID is another
	ID      string
	Before  time.Time // to the second; only for OfSubject
	Expires time.Time // to the second; no token it is about can hold any longer
}

// A Family is a chain of refresh secrets, each of which replaces the one
// before it.
type Family struct {
	ID         string // random
	Generation int    // how often a secret was replaced
	Hash       []byte // SHA-256 of the secret that holds
	Previous   []byte // SHA-256 of the secret before it; nil in generation 0
	Rotated    time.Time
	Started    time.Time
	Idle       time.Time // when it ends if it is not used
	Expires    time.Time // when it ends however often it is used
	Revoked    bool      // for good
	Grant      Grant
}

var (
	// ErrNotFound: the store has no such thing.
	ErrNotFound = errors.New("not found")
	// ErrMoved: another replica was first.
	ErrMoved = errors.New("was changed meanwhile")
)

// A Store remembers signing keys, revocations and refresh families. Every
// method may be called from many goroutines and replicas at once. Times are
// kept to the microsecond at least, where nothing coarser is said.
type Store interface {
	// Keys returns every signing key, the one with the earliest SignFrom first;
	// of two with the same, the one that was added first.
	Keys(ctx context.Context) ([]SigningKey, error)
	// AddKey adds a key if the last of Keys is still the one with the id after
	// (if it is empty, if there is none), and otherwise answers
	// [ErrMoved]: of two replicas that make the next key at once, one is heard.
	AddKey(ctx context.Context, k SigningKey, after string) error
	// DropKey removes a key. It is no error if it is gone.
	DropKey(ctx context.Context, id string) error

	// Revoke adds a revocation, or widens the one with the same Kind, Issuer
	// and ID: the later Before and the later Expires are kept. It may remove
	// what has expired.
	Revoke(ctx context.Context, r Revocation, now time.Time) error
	// Revocations returns what was added or widened after a cursor, and the
	// cursor to go on from; with an empty cursor, all that has not expired.
	// None may ever be skipped, also if transactions end in another order than
	// they began; giving some twice is allowed.
	Revocations(ctx context.Context, after string, now time.Time) (rs []Revocation, next string, err error)

	// AddFamily adds a family, and may remove what has expired.
	AddFamily(ctx context.Context, f Family) error
	// Family returns a family; [ErrNotFound] if there is none.
	Family(ctx context.Context, id string) (Family, error)
	// RotateFamily replaces, in one step, the Hash of a family by to, makes
	// from its Previous, counts its Generation up and sets Rotated to now and
	// Idle, if its Hash is still from and it is not revoked; otherwise [ErrMoved].
	RotateFamily(ctx context.Context, id string, from, to []byte, now, idle time.Time) error
	// RevokeFamily marks a family as revoked. It is no error if it is gone.
	RevokeFamily(ctx context.Context, id string) error
	// RevokeFamilies marks every family of a subject, or of a session, as
	// revoked; the other one is empty.
	RevokeFamilies(ctx context.Context, subject, session string) error
}

// A Waker is a [Store] that can tell when something was revoked, so that
// replicas need not wait for their next look.
type Waker interface {
	// OnRevoke calls wake after revocations, the other replicas' among them,
	// until ctx ends. It may miss some and call without need.
	OnRevoke(ctx context.Context, wake func()) error
}
