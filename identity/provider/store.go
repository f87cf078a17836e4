package provider

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrNotFound: there is no such thing, or it has ended.
	ErrNotFound = errors.New("not found")
	// ErrUsed: a code or refresh token was used before.
	ErrUsed = errors.New("was used before")
)

// A Grant is what somebody, or a client for itself, has allowed a client: all
// tokens that are made of it live at most as long as it does.
type Grant struct {
	ID      string // random
	Client  string
	Subject string   // who allowed it; empty if the client acts for itself
	Session string   // merlon.Identity.Session at that time; empty if there was none
	Scopes  []string // sorted
	// Offline: the grant survives the end of its session, because
	// offline_access was asked for and allowed.
	Offline  bool
	Methods  []string  // how the person was proved: merlon.Identity.Methods
	AuthTime time.Time // when that was
	Created  time.Time
	Expires  time.Time
}

// A Code is an authorization code, which is good once.
type Code struct {
	Hash      []byte // SHA-256 of the code, which is stored nowhere
	Grant     string // Grant.ID
	Client    string
	Redirect  string // the redirect URI exactly as it was asked for
	Challenge string // PKCE, S256
	Nonce     string
	Expires   time.Time
}

// A Refresh is a refresh token, which is good once too: using it makes the next.
type Refresh struct {
	Hash    []byte // SHA-256 of the token, which is stored nowhere
	Grant   string // Grant.ID: the family
	Client  string
	Scopes  []string // sorted; at most those of the grant
	Expires time.Time
}

// A Consent is what somebody has allowed a client, so that it is asked once.
type Consent struct {
	Subject string
	Client  string
	Scopes  []string // sorted
	Since   time.Time
}

// A Store remembers grants. Every method may be called from many goroutines
// and replicas at once, and is one indivisible step: of two that come with one
// code or refresh token, one has it.
type Store interface {
	// AddGrant adds a grant, with its code unless c is nil, and may drop what
	// has expired.
	AddGrant(ctx context.Context, g Grant, c *Code) error
	// Grant returns a grant that holds at the time. [ErrNotFound] otherwise.
	Grant(ctx context.Context, id string, now time.Time) (Grant, error)
	// Grants returns the grants of a subject that hold at the time, the oldest first.
	Grants(ctx context.Context, subject string, now time.Time) ([]Grant, error)
	// EndGrant removes a grant with its codes and refresh tokens. It is no
	// error if there is none.
	EndGrant(ctx context.Context, id string) error

	// TakeCode uses a code, also if it has expired. Of one that was used it
	// returns what it was, and [ErrUsed]; it is remembered for as long as its
	// grant is. [ErrNotFound] if there never was one, or its grant ended.
	TakeCode(ctx context.Context, hash []byte) (Code, error)

	// AddRefresh adds a grant's first refresh token. [ErrNotFound] if the
	// grant ended.
	AddRefresh(ctx context.Context, r Refresh) error
	// Refresh returns a refresh token. Of one that was used it returns what it
	// was, and [ErrUsed]. [ErrNotFound] if its grant ended.
	Refresh(ctx context.Context, hash []byte) (Refresh, error)
	// Rotate uses the refresh token old and adds next, or does neither:
	// [ErrUsed] if old was used, [ErrNotFound] if old or its grant is gone.
	Rotate(ctx context.Context, old []byte, next Refresh) error

	// SetConsent adds or replaces what a subject has allowed a client.
	SetConsent(ctx context.Context, c Consent) error
	// Consents returns what a subject has allowed, sorted by client.
	Consents(ctx context.Context, subject string) ([]Consent, error)
	// RemoveConsent takes it back, and ends the subject's grants to that client.
	RemoveConsent(ctx context.Context, subject, client string) error
}
