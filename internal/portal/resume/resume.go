// Package resume keeps a request that cannot be let through yet, because who
// sent it must first prove again who they are, and gives it back once.
//
// What is kept belongs to one browser, by a cookie that no page can read, and
// to one host; a ticket alone is worth nothing. Bodies lie sealed in a store:
// that of [New] is this process's memory, so that the replica that kept a
// request must be the one that gives it back, or the page is filled in again;
// with a common one, any replica with the same key gives it back.
package resume

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	// MaxBody is the longest body that is kept, in bytes.
	MaxBody = 1 << 20
	// Lifetime is how long a request is kept.
	Lifetime = 10 * time.Minute
	// Field is the form field that a ticket comes back in.
	Field = "merlon-resume"

	maxTotal   = 64 << 20 // bytes of all that is kept
	maxNobody  = 16 << 20 // bytes of what was sent by those not signed in
	maxOwner   = 4 << 20  // bytes of one account, or of one address or /64 if there is no account
	perRequest = 1 << 10  // what keeping costs beside the body
	window     = time.Minute
	maxTarget  = 8 << 10
)

var (
	// ErrTooLarge: the body is longer than [MaxBody].
	ErrTooLarge = errors.New("resume: the body is too long to be kept")
	// ErrNotForm: a page's form did not send this, so no page can send it again.
	ErrNotForm = errors.New("resume: only what a form sends is kept")
	// ErrFull: there is no room, for this owner or at all.
	ErrFull = errors.New("resume: there is no room for another request")
	// ErrGone: there is no such request for this browser, or no longer.
	ErrGone = errors.New("resume: the request is not kept, or no longer")
)

// A Store keeps what is sealed. It must be safe for many goroutines. What a
// request takes while it is kept is bounded by the Keeper.
type Store interface {
	// Put keeps sealed under an id that nobody else uses, for a time. It is
	// for subject only, or for anybody if that is empty.
	Put(ctx context.Context, id [32]byte, sealed []byte, subject string, lifetime time.Duration) error
	// Release lets subject take what is kept, and nobody else, within window
	// from the first time that it is called. It returns what is kept, or nil
	// if there is nothing, or it is not for subject.
	Release(ctx context.Context, id [32]byte, subject string, window time.Duration) (sealed []byte, err error)
	// Take forgets what was released and returns it, and for whom that was;
	// nil if there is nothing. Of all who take it at once one gets it.
	Take(ctx context.Context, id [32]byte) (sealed []byte, subject string, err error)
}

// A Keeper keeps requests.
type Keeper struct {
	box   *secrets.Box
	store Store
	now   func() time.Time
	room  room
}

// Kept is a request as it was.
type Kept struct {
	Method      string
	Host        string
	Target      string // path and query
	ContentType string
	Subject     string // who sent it first; empty if nobody was signed in
	For         string `json:"-"` // who proved again and lets it through
	Body        []byte
}

// New returns a Keeper whose bodies lie in this process's memory, sealed with
// a key derived from k.
func New(k secrets.Key) *Keeper { return NewIn(k, NewMemory()) }

// NewIn returns a Keeper whose bodies lie in s, sealed with a key derived from
// k. What one Keeper puts there is bounded as in memory; what another takes out
// counts until its lifetime is over.
func NewIn(k secrets.Key, s Store) *Keeper {
	return &Keeper{box: k.Box("merlon resume"), store: s, now: time.Now, room: newRoom()}
}

// Keep takes the request and its whole body and returns a ticket for it. The
// cookie binds it to this browser and must be sent with the answer. An error
// that is none of this package's is the store's: nothing is kept.
func (k *Keeper) Keep(r *merlon.Request) (ticket string, cookie *http.Cookie, err error) {
	if !IsForm(r) {
		return "", nil, ErrNotForm
	}
	if r.ContentLength > MaxBody {
		return "", nil, ErrTooLarge
	}
	target := r.URL.RequestURI()
	if len(target) > maxTarget || len(r.Header.Get("Content-Type")) > 256 {
		return "", nil, ErrTooLarge
	}
	body, whole, err := r.Peek(MaxBody)
	if err != nil {
		return "", nil, err
	}
	if !whole {
		return "", nil, ErrTooLarge
	}
	what := Kept{Method: r.Method, Host: r.Host, Target: target, ContentType: r.Header.Get("Content-Type"), Body: body}
	owner := "address " + network(r.Client)
	if r.Identity != nil {
		what.Subject = r.Identity.Subject
		owner = "account " + what.Subject
	}
	secret := browserSecret(r.Request)
	if secret == "" {
		secret = random()
	}
	ticket = random()
	key := keyOf(ticket, secret, r.Host)
	plain, err := json.Marshal(what)
	if err != nil {
		return "", nil, err
	}
	sealed := k.box.Seal(plain, string(key[:]))
	now := k.now()
	sh := share{size: len(sealed) + perRequest, owner: owner, nobody: what.Subject == "", until: now.Add(Lifetime)}
	if !k.room.take(key, sh, now) {
		return "", nil, ErrFull
	}
	if err := k.store.Put(r.Context(), key, sealed, what.Subject, Lifetime); err != nil {
		k.room.leave(key)
		return "", nil, fmt.Errorf("resume: %w", err)
	}
	return ticket, newCookie(r.Request, secret), nil
}

// network is whose an address is: with IPv6, one client has a /64.
func network(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a.String()
	}
	return netip.PrefixFrom(a, 64).Masked().String()
}

// Release lets the request of a ticket through for subject, who has proved
// again, and returns what it is, without its body. It is sent within a
// minute or not at all.
func (k *Keeper) Release(r *merlon.Request, ticket, subject string) (Kept, error) {
	if subject == "" {
		return Kept{}, ErrGone
	}
	key := keyOf(ticket, browserSecret(r.Request), r.Host)
	sealed, err := k.store.Release(r.Context(), key, subject, window)
	if err != nil {
		return Kept{}, fmt.Errorf("resume: %w", err)
	}
	what, err := k.open(sealed, key)
	what.Body, what.For = nil, subject
	return what, err
}

// Take gives the request of a released ticket back, once.
func (k *Keeper) Take(r *merlon.Request, ticket string) (Kept, error) {
	key := keyOf(ticket, browserSecret(r.Request), r.Host)
	sealed, subject, err := k.store.Take(r.Context(), key)
	if err != nil {
		return Kept{}, fmt.Errorf("resume: %w", err)
	}
	if sealed != nil {
		k.room.leave(key)
	}
	what, err := k.open(sealed, key)
	what.For = subject
	return what, err
}

func (k *Keeper) open(sealed []byte, key [32]byte) (Kept, error) {
	var what Kept
	if sealed == nil {
		return what, ErrGone
	}
	plain, err := k.box.Open(sealed, string(key[:]))
	if err != nil {
		return what, err
	}
	return what, json.Unmarshal(plain, &what)
}

// keyOf is what an entry is found by: neither a ticket nor a cookie alone is
// stored, nor is any use without the other.
func keyOf(ticket, secret, host string) [32]byte {
	h := sha256.New()
	for _, part := range [...]string{ticket, secret, host} {
		sum := sha256.Sum256([]byte(part))
		h.Write(sum[:])
	}
	return [32]byte(h.Sum(nil))
}

func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}
