package merlon

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// A Request is an HTTP request on its way through the gate. Each field has
// one writer, named beside it; everyone else only reads.
type Request struct {
	*http.Request

	ID       string     // the gateway: unique, safe to show and to log
	Received time.Time  // the gateway
	Client   netip.Addr // the gateway, by origin's trusted-proxy rule; unmapped, without zone
	JA4      string     // the gateway: what kind of TLS client sent it; empty if unknown
	Site     string     // the gateway: the site's first host; empty if no site serves this host
	Route    string     // the gateway: the route's path pattern; empty for the site itself
	Path     string     // the gateway: the decoded path that routes and policies are matched on
	Conflict bool       // the gateway: another reading of the path would reach another route
	Identity *Identity  // package identity; nil means anonymous
	Room     *Room      // the gateway: for what is held of bodies; nil for no bound

	body    *peekBody
	asking  *entry // the guard being asked, set by the Gate
	checked int    // how many guards of the Gate were asked

	peeked int64 // the most that a guard has asked to see of the body
	held   int64 // of Room

	mu       sync.Mutex // streaming bodies record verdicts from other goroutines
	verdicts []Verdict
	room     [12]Verdict // for verdicts, as many as most requests get
}

// An Identity is who is asking, as proved.
type Identity struct {
	Subject string    // never given to anybody else, also after the account is gone
	Name    string    // the log-in name, or what stands for it; for people
	Groups  []string  // as the account or the provider says
	Roles   []string  // what policies are about
	Tenant  string    // which customer they belong to; empty if nothing says so
	Scopes  []string  // what a key or token is good for; nil if it is not bounded
	Methods []string  // how it was proved: "password", "totp", "passkey"
	When    time.Time // when it was last proved by a person; zero if none was there
	Session string    // names the session, for lists and logs; not the secret in the cookie
	// Done is closed when the proof stops holding, for connections that stay
	// open; nil if nobody watches.
	Done <-chan struct{}
}

// A Prover looks for one kind of proof of identity in a request: a session's
// cookie, a key, a client certificate.
type Prover interface {
	// Name is the kind of proof: "session", "basic".
	Name() string
	// Prove returns who is asking. [ErrNoProof] means that there is none of
	// this kind; every other error, that there is one and it does not hold.
	Prove(r *Request) (*Identity, error)
}

// ErrNoProof is a [Prover]'s answer to a request that does not try to prove
// anything in the prover's way; the next one is asked.
var ErrNoProof = errors.New("no proof of this kind")

type contextKey struct{}

// NewRequest wraps hr, with a new ID and the connection's address as the
// client's. The Request is found again by [From] on its embedded request.
func NewRequest(hr *http.Request) *Request {
	r := &Request{ID: NewID(), Received: time.Now(), Path: hr.URL.Path}
	if ap, err := netip.ParseAddrPort(hr.RemoteAddr); err == nil {
		r.Client = ap.Addr().Unmap().WithZone("")
	}
	r.Request = hr.WithContext(context.WithValue(hr.Context(), contextKey{}, r))
	return r
}

// Subscriber returns what one subscriber can be told by: an IPv4 address, the
// first 64 bits of an IPv6 address, since every home has that many of them. An
// IPv4 address that a translator has put into 64:ff9b::/96 (RFC 6052) is
// itself again, or the whole of IPv4 would be one subscriber.
func Subscriber(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	b := a.As16()
	if [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b} {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	clear(b[8:])
	return netip.AddrFrom16(b)
}

// NewID returns a new request id: 130 random bits in upper-case letters and digits.
func NewID() string { return rand.Text() }

// From returns the Request that hr belongs to, or nil.
func From(hr *http.Request) *Request {
	r, _ := hr.Context().Value(contextKey{}).(*Request)
	return r
}

// Verdicts returns what the guards have answered so far, in order.
func (r *Request) Verdicts() []Verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.verdicts[:len(r.verdicts):len(r.verdicts)]
}

// AddHeader sets in h what the guards want the client to be told: the header
// of every verdict but those of shadows and of refusals that were only
// monitored, which the client must not notice.
func (r *Request) AddHeader(h http.Header) {
	for _, v := range r.Verdicts() {
		if !v.Decision.Shadow && (v.Decision.Effect == Allow || !v.Decision.Monitored) {
			AddHeader(h, v.Decision.Header)
		}
	}
}

// RefusedBy names the guard whose decision was obeyed, or is empty.
func (r *Request) RefusedBy() string {
	for _, v := range r.Verdicts() {
		if !v.Decision.Passed() {
			return v.Guard
		}
	}
	return ""
}

// Record adds a verdict that was reached outside the gate's loop, such as the
// upstream's failure to answer.
func (r *Request) Record(guard string, d Decision) {
	r.mu.Lock()
	if r.verdicts == nil {
		r.verdicts = r.room[:0]
	}
	r.verdicts = append(r.verdicts, Verdict{guard, d})
	r.mu.Unlock()
}

// Peek returns up to limit bytes from the start of the body, and whether that
// is all of it. What was read stays in place for the next guard and for the
// upstream. The slice must not be changed; it stays as it is as long as the
// request lives. An error is one of reading; turn it into a decision with
// [BodyFailed].
func (r *Request) Peek(limit int64) (head []byte, whole bool, err error) {
	if r.Request.Body == nil || r.Request.Body == http.NoBody {
		return nil, true, nil
	}
	if r.body == nil || r.Request.Body != io.ReadCloser(r.body) {
		r.body = &peekBody{src: r.Request.Body, length: r.Request.ContentLength, grow: r.hold}
		r.Request.Body = r.body
	}
	head, whole, err = r.body.peek(limit)
	r.peeked = max(r.peeked, int64(len(head)))
	return head, whole, err
}

// hold takes room for n bytes more of the body.
func (r *Request) hold(n int64) error {
	if r.Room == nil {
		return nil
	}
	if !r.Room.take(n) {
		return ErrNoRoom
	}
	r.held += n
	return nil
}

// Release gives back the room that the request's body took. Whoever has set
// Room calls it once, when nothing reads the body any more.
func (r *Request) Release() {
	if r.Room != nil {
		r.Room.left.Add(r.held)
		r.held = 0
	}
}

// Peeked returns how many bytes of the body guards have looked at.
func (r *Request) Peeked() int64 { return r.peeked }

// WrapBody lets a guard watch the body as it streams to the upstream. wrap
// gets the body from its first byte on, and a function that refuses the rest:
// its error must be returned from Read. While the guard is only monitored that
// error is nil, and the body must go on. What wrap returns must deliver the
// same bytes. It may only be called from a guard's Check; for a [Shadow] it
// does nothing.
func (r *Request) WrapBody(wrap func(body io.ReadCloser, refuse func(Decision) error) io.ReadCloser) {
	if r.Request.Body == nil || r.Request.Body == http.NoBody {
		return
	}
	if e := r.asking; e != nil && e.shadow {
		return
	}
	r.Request.Body = wrap(r.Request.Body, r.refusal())
	r.body = nil
}

// WrapAnswer is [Request.WrapBody] for the upstream's answer, and may only be
// called from a guard's CheckResponse. What is refused after the client has
// been told that there is an answer breaks off, so that the client cannot take
// the part for the whole.
func (r *Request) WrapAnswer(res *http.Response, wrap func(body io.ReadCloser, refuse func(Decision) error) io.ReadCloser) {
	res.Body = wrap(res.Body, r.refusal())
}

// refusal returns the function by which the guard that is being asked refuses
// what streams later.
func (r *Request) refusal() func(Decision) error {
	e := r.asking
	return func(d Decision) error {
		name := ""
		if e != nil {
			name = e.guard.Name()
			d.Monitored = d.Monitored || e.monitored
		}
		r.Record(name, d)
		if d.Passed() {
			return nil
		}
		return &LateRefusal{Verdict{name, d}}
	}
}

// A peekBody is a body of which the first bytes may have been read already.
type peekBody struct {
	src io.ReadCloser
	buf []byte // read from src; [off:] not yet delivered
	off int
	err error // what ended src

	length int64 // as declared; negative if it is not known
	grow   func(n int64) error
}

const (
	firstPeek = 4 << 10 // if the length is not known
	peekStep  = 32 << 10
)

func (b *peekBody) peek(max int64) (head []byte, whole bool, err error) {
	for int64(len(b.buf)) <= max && b.err == nil {
		// One byte more than asked tells whether there is more.
		n := len(b.buf)
		if n == cap(b.buf) {
			more := min(max+1-int64(n), b.step())
			if err := b.grow(more); err != nil {
				return b.buf, false, err
			}
			bigger := make([]byte, n, int64(n)+more) // not a byte that is not accounted for
			copy(bigger, b.buf)
			b.buf = bigger
		}
		m, err := b.src.Read(b.buf[n:min(int64(cap(b.buf)), max+1)])
		b.buf = b.buf[:n+m]
		b.err = err
	}
	if b.err != nil && b.err != io.EOF {
		return b.buf[:min(int64(len(b.buf)), max)], false, b.err
	}
	if int64(len(b.buf)) > max {
		return b.buf[:max], false, nil
	}
	return b.buf, true, nil
}

// step is how much more to make room for.
func (b *peekBody) step() int64 {
	switch n := int64(len(b.buf)); {
	case n > 0:
		return max(min(n, peekStep), n/4)
	case b.length >= 0:
		return min(b.length+1, peekStep)
	default:
		return firstPeek
	}
}

func (b *peekBody) Read(p []byte) (int, error) {
	if b.off < len(b.buf) {
		n := copy(p, b.buf[b.off:])
		b.off += n
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	b.buf, b.off = nil, 0 // the head has gone on: do not hold it for a long upload
	return b.src.Read(p)
}

func (b *peekBody) Close() error { return b.src.Close() }
