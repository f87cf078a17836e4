// Package apikey gives programs keys of their own: shown once, stored only as
// a hash, bounded by scopes, networks and time, and ended at once.
//
// A key says which program asks, not that a person is there; whoever has its
// text is that program. The hashes stand in a [Store]; a process asks it about
// the same key once a second at most.
package apikey

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/secrets"
)

// A Key is what is stored about one key.
type Key struct {
	ID       string // stands in the key; not secret
	Hash     []byte // SHA-256 of the whole text
	Account  string // the account that it acts for
	Name     string // what its owner calls it
	Scopes   []string
	Networks []netip.Prefix // where it may be used from; empty: anywhere
	Created  time.Time
	Expires  time.Time // zero: never
	Revoked  time.Time // zero: not revoked
	Used     time.Time // at the latest a minute before the last use; zero: never
	UsedFrom netip.Addr
}

// Prefix is the beginning of the key's text, to be shown and searched for.
func (k Key) Prefix() string { return prefix + k.ID }

// A Store remembers keys. Every method may be called from many goroutines and
// replicas at once.
type Store interface {
	// AddKey adds a key. [account.ErrTaken] if its id exists.
	AddKey(ctx context.Context, k Key) error
	// Key returns one key, also a revoked one; [account.ErrNotFound] if there
	// is none.
	Key(ctx context.Context, id string) (Key, error)
	// Keys returns an account's keys, the newest first; everybody's if account
	// is empty.
	Keys(ctx context.Context, account string) ([]Key, error)
	// RevokeKey ends a key; one that was revoked before stays so since then.
	// [account.ErrNotFound] if there is none.
	RevokeKey(ctx context.Context, id string, now time.Time) error
	// UseKey notes the last use.
	UseKey(ctx context.Context, id string, now time.Time, from netip.Addr) error
}

// Accounts is what keys need to know of whom they act for; [account.Store] has it.
type Accounts interface {
	// Account returns the account with an id.
	Account(ctx context.Context, id string) (account.Account, error)
}

// The reasons why a key does not hold. The client is told none of them.
const (
	// Malformed: what was sent is no key: a letter is missing or wrong, or two
	// fields carry different ones.
	Malformed merlon.Reason = "key-malformed"
	// Unknown: there is no such key.
	Unknown merlon.Reason = "key-unknown"
	// Expired: its time is over. Make a new one with `merlon key`.
	Expired merlon.Reason = "key-expired"
	// Revoked: it was ended by its owner or an administrator.
	Revoked merlon.Reason = "key-revoked"
	// WrongNetwork: it is not good from this address.
	WrongNetwork merlon.Reason = "key-wrong-network"
	// OwnerGone: its account was deleted or disabled.
	OwnerGone merlon.Reason = "key-owner-gone"
	// Unavailable: the store of keys or of accounts does not answer: 503. See
	// that it can be reached.
	Unavailable merlon.Reason = "key-store-unavailable"
)

// An Error says why a key is not accepted.
type Error struct {
	Why merlon.Reason // one of this package's
	ID  string        // the key's id, if the text had one; not secret
	Err error         // the cause; nil if there is no more to say
}

func (e *Error) Error() string {
	s := "API key"
	if e.ID != "" {
		s += " " + prefix + e.ID
	}
	s += ": " + string(e.Why)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Reason returns the stable word for the cause.
func (e *Error) Reason() merlon.Reason { return e.Why }

// Status returns the HTTP status that fits: 401, or 503 if the fault is not
// the key's.
func (e *Error) Status() int {
	if e.Why == Unavailable {
		return http.StatusServiceUnavailable
	}
	return http.StatusUnauthorized
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Keys issues and verifies keys. It is a [merlon.Prover].
type Keys struct {
	store    Store
	accounts Accounts
	now      func() time.Time

	mu    sync.Mutex
	known map[[sha256.Size]byte]proved
}

// proved is what was found out about a text.
type proved struct {
	key      Key
	identity merlon.Identity
	at       time.Time
	written  time.Time // when the last use was written
}

const (
	fresh    = time.Second // how old what is known may be
	maxKnown = 4096        // about 1 KiB each
	useEvery = time.Minute
)

// New returns Keys over a store.
func New(s Store, a Accounts) *Keys {
	return &Keys{store: s, accounts: a, now: time.Now, known: map[[sha256.Size]byte]proved{}}
}

// maxFieldCount bounds lists of a key, maxText its texts.
const (
	maxFieldCount = 64
	maxText       = 128
)

// Issue makes a key like k, of which Account, Name, Scopes, Networks and
// Expires count, and returns its text, which is not to be had again.
func (m *Keys) Issue(ctx context.Context, k Key) (secrets.Secret, Key, error) {
	if err := sound(k, m.now()); err != nil {
		return secrets.Secret{}, Key{}, err
	}
	if _, err := m.accounts.Account(ctx, k.Account); err != nil {
		return secrets.Secret{}, Key{}, fmt.Errorf("account %s: %w", k.Account, err)
	}
	text, id := newText()
	sum := sha256.Sum256([]byte(text))
	k = Key{
		ID: id, Hash: sum[:], Account: k.Account, Name: k.Name, Scopes: slices.Clone(k.Scopes),
		Networks: slices.Clone(k.Networks), Created: m.now(), Expires: k.Expires,
	}
	if err := m.store.AddKey(ctx, k); err != nil {
		return secrets.Secret{}, Key{}, err
	}
	return secrets.New(text), k, nil
}

// sound says what is wrong with a key to be.
func sound(k Key, now time.Time) error {
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	if strings.TrimSpace(k.Name) == "" || len(k.Name) > maxText {
		bad("name", k.Name, fmt.Sprintf("must say what the key is for, in at most %d bytes", maxText))
	}
	if !k.Expires.IsZero() && !k.Expires.After(now) {
		bad("expires", k.Expires.Format(time.RFC3339), "must be in the future")
	}
	if len(k.Scopes) > maxFieldCount || len(k.Networks) > maxFieldCount {
		bad("scopes", "", fmt.Sprintf("at most %d scopes and networks", maxFieldCount))
	}
	for _, s := range k.Scopes {
		if !scopeToken(s) {
			bad("scopes", s, "must be printable ASCII without space, quote and backslash (RFC 6749, 3.3)")
		}
	}
	for _, p := range k.Networks {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			bad("networks", p.String(), "must be a network such as 10.8.0.0/16")
		}
	}
	return errors.Join(errs...)
}

// scopeToken is RFC 6749, 3.3.
func scopeToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c == '\\' || c > '~' {
			return false
		}
	}
	return s != "" && len(s) <= maxText
}

// List returns an account's keys, the newest first; everybody's if account is
// empty.
func (m *Keys) List(ctx context.Context, account string) ([]Key, error) {
	return m.store.Keys(ctx, account)
}

// Revoke ends a key: at once here, within a second in other replicas.
func (m *Keys) Revoke(ctx context.Context, id string) error {
	err := m.store.RevokeKey(ctx, id, m.now())
	m.mu.Lock()
	defer m.mu.Unlock()
	for sum, p := range m.known {
		if p.key.ID == id {
			delete(m.known, sum)
		}
	}
	return err
}

// Name returns "key".
func (m *Keys) Name() string { return account.ByKey }

// Prove looks for a key in Authorization and X-API-Key. What does not begin
// as our keys do is somebody else's and no proof. Its other errors are an [*Error].
func (m *Keys) Prove(r *merlon.Request) (*merlon.Identity, error) {
	text, err := find(r.Header)
	if err != nil {
		return nil, err
	}
	return m.verify(r.Context(), text, r.Client)
}

// find returns the one key that the request has.
func find(h http.Header) (string, error) {
	found := ""
	for _, v := range h["Authorization"] {
		if scheme, rest, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "Bearer") {
			if rest = strings.Trim(rest, " "); strings.HasPrefix(rest, prefix) {
				if found != "" && found != rest {
					return "", &Error{Why: Malformed}
				}
				found = rest
			}
		}
	}
	for _, v := range h["X-Api-Key"] {
		if v = strings.TrimSpace(v); strings.HasPrefix(v, prefix) {
			if found != "" && found != v {
				return "", &Error{Why: Malformed}
			}
			found = v
		}
	}
	if found == "" {
		return "", merlon.ErrNoProof
	}
	return found, nil
}

func (m *Keys) verify(ctx context.Context, text string, from netip.Addr) (*merlon.Identity, error) {
	id, ok := parse(text)
	if !ok {
		return nil, &Error{Why: Malformed}
	}
	sum := sha256.Sum256([]byte(text))
	now := m.now()
	m.mu.Lock()
	p, ok := m.known[sum]
	m.mu.Unlock()
	if age := now.Sub(p.at); !ok || age >= fresh || age < 0 {
		var err error
		written := p.written
		if p, err = m.load(ctx, id, sum, now); err != nil {
			m.forget(sum)
			return nil, err
		}
		p.written = written
		m.remember(sum, p)
	}
	if reason := p.refuses(now, from); reason != "" {
		return nil, &Error{Why: reason, ID: id}
	}
	m.used(ctx, sum, p, now, from)
	identity := p.identity
	return &identity, nil
}

// load asks the store.
func (m *Keys) load(ctx context.Context, id string, sum [sha256.Size]byte, now time.Time) (proved, error) {
	k, err := m.store.Key(ctx, id)
	if errors.Is(err, account.ErrNotFound) {
		// As much work as for a key that exists.
		subtle.ConstantTimeCompare(sum[:], make([]byte, sha256.Size))
		return proved{}, &Error{Why: Unknown, ID: id}
	}
	if err != nil {
		return proved{}, &Error{Why: Unavailable, ID: id, Err: err}
	}
	if subtle.ConstantTimeCompare(sum[:], k.Hash) != 1 {
		return proved{}, &Error{Why: Unknown, ID: id}
	}
	a, err := m.accounts.Account(ctx, k.Account)
	if errors.Is(err, account.ErrNotFound) || err == nil && a.Disabled {
		return proved{}, &Error{Why: OwnerGone, ID: id}
	}
	if err != nil {
		return proved{}, &Error{Why: Unavailable, ID: id, Err: err}
	}
	// Never nil, which stands for a person, who may do all that scopes are
	// asked for.
	return proved{key: k, at: now, identity: merlon.Identity{
		Subject: a.ID, Name: a.Name, Groups: a.Groups, Roles: a.Roles,
		Scopes: append([]string{}, k.Scopes...), Methods: []string{account.ByKey}, Session: k.Prefix(),
	}}, nil
}

// refuses says why the key does not hold here and now.
func (p *proved) refuses(now time.Time, from netip.Addr) merlon.Reason {
	switch {
	case !p.key.Revoked.IsZero():
		return Revoked
	case !p.key.Expires.IsZero() && !now.Before(p.key.Expires):
		return Expired
	case len(p.key.Networks) > 0 && !slices.ContainsFunc(p.key.Networks, func(n netip.Prefix) bool { return n.Contains(from.Unmap().WithZone("")) }):
		return WrongNetwork
	}
	return ""
}

func (m *Keys) forget(sum [sha256.Size]byte) {
	m.mu.Lock()
	delete(m.known, sum)
	m.mu.Unlock()
}

func (m *Keys) remember(sum [sha256.Size]byte, p proved) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.known[sum]; !ok && len(m.known) >= maxKnown {
		for other := range m.known { // any: a wrong guess costs a look-up
			delete(m.known, other)
			break
		}
	}
	m.known[sum] = p
}

// used notes a use, once a minute at most. That it cannot be written is no
// reason to refuse.
func (m *Keys) used(ctx context.Context, sum [sha256.Size]byte, p proved, now time.Time, from netip.Addr) {
	last := p.key.Used
	if p.written.After(last) {
		last = p.written
	}
	if now.Sub(last) < useEvery && now.Sub(last) >= 0 {
		return
	}
	m.mu.Lock()
	if k, ok := m.known[sum]; ok {
		if !k.written.Equal(p.written) { // another request does it
			m.mu.Unlock()
			return
		}
		k.written = now
		m.known[sum] = k
	}
	m.mu.Unlock()
	_ = m.store.UseKey(ctx, p.key.ID, now, from) // only a note
}
