// Package resume keeps a request that cannot be let through yet, because who
// sent it must first prove again who they are, and gives it back once.
//
// What is kept belongs to one browser, by a cookie that no page can read, and
// to one host; a ticket alone is worth nothing. Bodies lie sealed in this
// process's memory: with several replicas, the one that kept a request must
// be the one that gives it back, or the page is filled in again.
package resume

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"sync"
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

// A Keeper keeps requests.
type Keeper struct {
	box *secrets.Box
	now func() time.Time

	mu     sync.Mutex
	kept   map[[32]byte]*entry // by hash of ticket and cookie
	total  int
	nobody int // of those not signed in
	owned  map[string]int
	swept  time.Time
}

type entry struct {
	sealed   []byte
	owner    string // whose room it takes
	subject  string // who sent it; empty if nobody was signed in
	released string // who may send it now; empty before Release
	until    time.Time
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

// New returns a Keeper whose bodies are sealed with a key derived from k.
func New(k secrets.Key) *Keeper {
	return &Keeper{box: k.Box("merlon resume"), now: time.Now, kept: map[[32]byte]*entry{}, owned: map[string]int{}}
}

// Keep takes the request and its whole body and returns a ticket for it. The
// cookie binds it to this browser and must be sent with the answer.
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
	e := &entry{owner: "address " + network(r.Client), until: k.now().Add(Lifetime)}
	if r.Identity != nil {
		what.Subject = r.Identity.Subject
		e.subject, e.owner = what.Subject, "account "+what.Subject
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
	e.sealed = k.box.Seal(plain, string(key[:]))
	if err := k.add(key, e); err != nil {
		return "", nil, err
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

func (k *Keeper) add(key [32]byte, e *entry) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweep()
	if k.owned[e.owner]+e.size() > maxOwner || k.total+e.size() > maxTotal {
		return ErrFull
	}
	if e.subject == "" {
		if k.nobody+e.size() > maxNobody {
			return ErrFull
		}
		k.nobody += e.size()
	}
	k.kept[key] = e
	k.total += e.size()
	k.owned[e.owner] += e.size()
	return nil
}

func (e *entry) size() int { return len(e.sealed) + perRequest }

func (k *Keeper) drop(key [32]byte, e *entry) {
	delete(k.kept, key)
	k.total -= e.size()
	if e.subject == "" {
		k.nobody -= e.size()
	}
	if k.owned[e.owner] -= e.size(); k.owned[e.owner] <= 0 {
		delete(k.owned, e.owner)
	}
}

// sweep forgets what is too old, at most once a second.
func (k *Keeper) sweep() {
	now := k.now()
	if d := now.Sub(k.swept); d >= 0 && d < time.Second {
		return
	}
	k.swept = now
	for key, e := range k.kept {
		if !now.Before(e.until) {
			k.drop(key, e)
		}
	}
}

// Release lets the request of a ticket through for subject, who has proved
// again, and returns what it is, without its body. It is sent within a
// minute or not at all.
func (k *Keeper) Release(r *merlon.Request, ticket, subject string) (Kept, error) {
	key := keyOf(ticket, browserSecret(r.Request), r.Host)
	k.mu.Lock()
	e := k.kept[key]
	switch {
	case subject == "" || e == nil || !k.now().Before(e.until),
		e.subject != "" && e.subject != subject,
		e.released != "" && e.released != subject:
		k.mu.Unlock()
		return Kept{}, ErrGone
	}
	if e.released == "" {
		e.released, e.until = subject, k.now().Add(window)
	}
	sealed := e.sealed
	k.mu.Unlock()
	what, err := k.open(sealed, key)
	what.Body, what.For = nil, subject
	return what, err
}

// Take gives the request of a released ticket back, once.
func (k *Keeper) Take(r *merlon.Request, ticket string) (Kept, error) {
	key := keyOf(ticket, browserSecret(r.Request), r.Host)
	k.mu.Lock()
	e := k.kept[key]
	if e == nil || e.released == "" || !k.now().Before(e.until) {
		k.mu.Unlock()
		return Kept{}, ErrGone
	}
	k.drop(key, e)
	k.mu.Unlock()
	what, err := k.open(e.sealed, key)
	what.For = e.released
	return what, err
}

func (k *Keeper) open(sealed []byte, key [32]byte) (Kept, error) {
	var what Kept
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
