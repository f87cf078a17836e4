package session_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/session"
)

// people are the accounts that there are.
type people struct {
	mu   sync.Mutex
	are  map[string]account.Account
	fail error
}

func (p *people) Account(_ context.Context, id string) (account.Account, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return account.Account{}, p.fail
	}
	a, ok := p.are[id]
	if !ok {
		return a, account.ErrNotFound
	}
	return a, nil
}

func (p *people) change(id string, change func(*account.Account)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.are[id]
	change(&a)
	p.are[id] = a
}

func (p *people) is(id string) account.Account {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.are[id]
}

func (p *people) remove(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.are, id)
}

// A broken store answers with an error while one is set, and counts how often
// it is asked for a session.
type broken struct {
	session.Store
	fail atomic.Pointer[error]
	gets atomic.Int64
	slow time.Duration

	panics, hangs atomic.Bool
}

func (b *broken) err() error {
	if p := b.fail.Load(); p != nil {
		return *p
	}
	return nil
}

func (b *broken) setErr(err error) {
	if err == nil {
		b.fail.Store(nil)
		return
	}
	b.fail.Store(&err)
}

func (b *broken) Get(ctx context.Context, h session.Hash) (session.Session, error) {
	b.gets.Add(1)
	time.Sleep(b.slow)
	if b.panics.Load() {
		panic("the store is broken")
	}
	if b.hangs.Load() {
		<-ctx.Done()
		return session.Session{}, ctx.Err()
	}
	if err := b.err(); err != nil {
		return session.Session{}, err
	}
	return b.Store.Get(ctx, h)
}

func (b *broken) Put(ctx context.Context, s session.Session, atMost int) ([]session.Hash, error) {
	if err := b.err(); err != nil {
		return nil, err
	}
	return b.Store.Put(ctx, s, atMost)
}

func (b *broken) Touch(ctx context.Context, h session.Hash, seen, expires time.Time) error {
	if err := b.err(); err != nil {
		return err
	}
	return b.Store.Touch(ctx, h, seen, expires)
}

func (b *broken) Gone(ctx context.Context, hashes []session.Hash) ([]session.Hash, error) {
	if err := b.err(); err != nil {
		return nil, err
	}
	return b.Store.Gone(ctx, hashes)
}

// Watch hears nothing, so that only asking helps.
func (b *broken) Watch(ctx context.Context, ready func(), _ func([]session.Hash)) error {
	ready()
	<-ctx.Done()
	return ctx.Err()
}

// A clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// A world has a manager, its accounts "ann" and "bob", and its store.
type world struct {
	*testing.T
	m      *session.Manager
	people *people
	store  *broken
	clock  *clock // nil: the real one
}

func newWorld(t *testing.T, c session.Config) *world {
	t.Helper()
	w := withRealClock(t, c)
	w.clock = &clock{now: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)}
	w.m.SetNow(w.clock.Now)
	return w
}

func withRealClock(t *testing.T, c session.Config) *world {
	t.Helper()
	w := &world{T: t, store: &broken{Store: session.NewMemory(0)}, people: &people{are: map[string]account.Account{
		"ann": {ID: "ann", Name: "ann@shop.example", Groups: []string{"staff"}, Roles: []string{"member"}},
		"bob": {ID: "bob", Name: "bob@shop.example"},
	}}}
	m, err := session.New(c, w.store, w.people)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	w.m = m
	return w
}

// request returns a person's request with cookies.
func request(cookies ...*http.Cookie) *merlon.Request {
	hr := httptest.NewRequest(http.MethodGet, "https://shop.example/", nil)
	hr.Header.Set("Sec-Fetch-User", "?1")
	hr.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0")
	for _, c := range cookies {
		hr.AddCookie(c)
	}
	r := merlon.NewRequest(hr)
	r.Site = "shop.example"
	r.Client = netip.MustParseAddr("192.0.2.7")
	return r
}

// polling returns a request that a page makes by itself.
func polling(c *http.Cookie) *merlon.Request {
	r := request(c)
	r.Header.Del("Sec-Fetch-User")
	r.Header.Set("Sec-Fetch-Mode", "cors")
	return r
}

// open returns a request that is under way until leave is called.
func open(c *http.Cookie) (r *merlon.Request, leave func()) {
	r = polling(c)
	ctx, cancel := context.WithCancel(context.Background())
	r.Request = r.WithContext(ctx)
	return r, cancel
}

func (w *world) begin(who string, methods ...string) (session.Session, *http.Cookie) {
	w.Helper()
	if len(methods) == 0 {
		methods = []string{"password"}
	}
	s, c, err := w.m.Begin(request(), session.Proof{Account: who, Methods: methods})
	if err != nil {
		w.Fatal(err)
	}
	return s, c
}

func (w *world) stepUp(c *http.Cookie, methods ...string) (session.Session, *http.Cookie) {
	w.Helper()
	s, next, err := w.m.StepUp(request(c), session.Proof{Account: "ann", Methods: methods})
	if err != nil {
		w.Fatal(err)
	}
	return s, next
}

// holds checks that a cookie proves somebody.
func (w *world) holds(why string, c *http.Cookie) *merlon.Identity {
	w.Helper()
	id, err := w.m.Prove(request(c))
	if err != nil {
		w.Fatalf("%s: %v", why, err)
	}
	return id
}

// refuses checks that r proves nobody, for a reason.
func (w *world) refuses(why string, r *merlon.Request, want merlon.Reason) {
	w.Helper()
	id, err := w.m.Prove(r)
	e, ok := errors.AsType[*session.Error](err)
	if !ok || e.Reason != want || id != nil {
		w.Errorf("%s: %v, want %s", why, err, want)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// shut ends the open requests and waits until nobody watches any longer, as
// synctest wants it.
func (w *world) shut(leave ...func()) {
	for _, l := range leave {
		l()
	}
	w.m.Close()
	time.Sleep(time.Second)
}
