package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/netip"
	"time"
)

// A Hash is the SHA-256 of the id in a cookie. Stores know sessions by it
// alone, so that nobody who reads a store can use what is in there.
type Hash [sha256.Size]byte

// MarshalText writes the hash in hex.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads a hash in hex.
func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(h)) {
		return errors.New("must be a SHA-256 in hex")
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// String returns the hash in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// A Session is what is remembered about a browser that somebody has logged in
// with. Its JSON form is for stores; times are whole microseconds, in UTC.
type Session struct {
	Hash    Hash      `json:"hash"`    // SHA-256 of the cookie's id; changes when it is rotated
	ID      string    `json:"id"`      // names the session in lists and logs; no secret, and never changes
	Account string    `json:"account"` // who it is, and what they may, is asked for again and again
	Site    string    `json:"site,omitempty"`
	Methods []string  `json:"methods"` // how it was proved, as in merlon.Identity
	Level   int       `json:"level"`   // assurance: 1 to 3, as in NIST SP 800-63B
	Created time.Time `json:"created"` // the log-in
	Issued  time.Time `json:"issued"`  // when this id was handed out
	Proved  time.Time `json:"proved"`  // when a person last proved to be the account
	Raised  time.Time `json:"raised"`  // when Level was reached
	Seen    time.Time `json:"seen"`    // the last that a person did, about a minute exact
	Until   time.Time `json:"until"`   // the absolute end; nothing moves it to later
	// Expires is when it ends if nobody does anything: the idle limit after
	// Seen, at most Until. From then on a store may forget the session, does
	// not list it, and does not count it.
	Expires time.Time  `json:"expires"`
	Client  netip.Addr `json:"client"`          // where it was last proved from
	Agent   string     `json:"agent,omitempty"` // the browser's own words, shortened
	Rights  string     `json:"rights"`          // a digest of the account's groups and roles when the id was handed out
	// Retired: another id has taken its place. It is good until Expires, a few
	// seconds, for requests that were on their way; it is not listed, not
	// counted and cannot be used to get another id.
	Retired bool `json:"retired,omitempty"`

	// The identity provider that vouched for the account, for its log-outs;
	// empty if none did.
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"` // the provider's "sub"
	SID     string `json:"sid,omitempty"`     // the provider's "sid"; empty if it gave none
	// Hint is what the provider is shown when its session is to end as well: its
	// ID token, sealed by who began this session. No browser has it.
	Hint []byte `json:"hint,omitempty"`
}

// MaxHint is how many bytes a session's Hint may have.
const MaxHint = 4 << 10

// Fresh reports whether a person has proved to be the account within d before
// now. What was proved in the future was not.
func (s Session) Fresh(d time.Duration, now time.Time) bool {
	age := now.Sub(s.Proved)
	return age <= d && age >= -skew
}

// skew is how far apart the clocks of two replicas may be.
const skew = time.Minute

// ErrNotFound is a [Store]'s answer if there is no such session, or there is
// no longer.
var ErrNotFound = errors.New("session: not found")

// Where selects sessions to end: those with every field that is not empty. At
// least Account, SID or Subject is set, and Issuer with the latter two.
type Where struct {
	Account string
	ID      string // this one only
	Except  string // all but the one with this ID
	Issuer  string
	Subject string
	SID     string
}

// Match reports whether s is selected.
func (w Where) Match(s *Session) bool {
	if w.Account == "" && (w.Issuer == "" || w.Subject == "" && w.SID == "") {
		return false
	}
	return (w.Account == "" || w.Account == s.Account) &&
		(w.ID == "" || w.ID == s.ID) && (w.Except == "" || w.Except != s.ID) &&
		(w.Issuer == "" || w.Issuer == s.Issuer) &&
		(w.Subject == "" || w.Subject == s.Subject) && (w.SID == "" || w.SID == s.SID)
}

// A Store remembers sessions. Every method may be called from many goroutines
// and replicas at once, and each is one indivisible step. An error other than
// [ErrNotFound] means that the store cannot answer. What a store must promise
// is tested by package sessiontest.
type Store interface {
	// Put adds a session. If its account then has more than atMost of them that
	// are not retired and expire after s.Issued, the oldest by Created end, but
	// never s itself, until there are atMost. The hashes of those are returned.
	Put(ctx context.Context, s Session, atMost int) (ended []Hash, err error)
	// Get returns a session. One that has expired may still be found: whoever
	// asks judges that.
	Get(ctx context.Context, h Hash) (Session, error)
	// Touch moves Seen and Expires of a session to later, never to earlier and
	// Expires not beyond Until. [ErrNotFound] also if it is retired.
	Touch(ctx context.Context, h Hash, seen, expires time.Time) error
	// Rotate puts s in the place of old, which is retired and expires at grace
	// at the latest. Of two that rotate one session only one can: [ErrNotFound]
	// if old is gone or retired, or of another account or ID. Rotating counts
	// no sessions.
	Rotate(ctx context.Context, old Hash, grace time.Time, s Session) error
	// End removes what w selects, the retired among them, and returns their
	// hashes. To find none is no error.
	End(ctx context.Context, w Where) ([]Hash, error)
	// Find returns the sessions that w selects and that are not retired, in no
	// order. Some of them may have expired.
	Find(ctx context.Context, w Where) ([]Session, error)
	// List returns an account's sessions that are not retired and expire after
	// now, the newest by Created first.
	List(ctx context.Context, account string, now time.Time) ([]Session, error)
	// Gone returns those of the hashes that the store does not have (any
	// longer). It is asked about once a second for all connections that are
	// open, so it should take few round trips for a thousand.
	Gone(ctx context.Context, hashes []Hash) ([]Hash, error)
	// Watch calls ended for what any replica ends by Put or End, from the
	// moment on that it calls ready, until ctx is done or it loses sight of the
	// others, which is an error. ended does not block. A store that cannot
	// tell calls ready and waits for ctx: an end elsewhere is then noticed
	// within a second.
	Watch(ctx context.Context, ready func(), ended func([]Hash)) error
}
