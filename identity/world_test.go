package identity_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	annsPassword = "correct horse battery staple"
	newPassword  = "tractor lamp meadow violin 7"
)

var ctx = context.Background()

// A world is a desk over a real store, with a guard in front.
type world struct {
	t        testing.TB
	config   identity.Config
	env      identity.Env
	desk     *identity.Desk
	guard    *identity.Guard
	store    *store.Accounts
	sessions *session.Manager

	mu      sync.Mutex
	shift   time.Duration
	letters []identity.Letter
	events  []identity.Event
}

func (w *world) Letter(l identity.Letter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.letters = append(w.letters, l)
}

// letter returns the last letter of a kind, after what is done behind answers.
func (w *world) letter(kind string) (identity.Letter, bool) {
	w.desk.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range slices.Backward(w.letters) {
		if l.Kind == kind {
			return l, true
		}
	}
	return identity.Letter{}, false
}

func (w *world) must(kind string) identity.Letter {
	w.t.Helper()
	l, ok := w.letter(kind)
	if !ok {
		w.t.Fatalf("no letter %q was sent", kind)
	}
	return l
}

func (w *world) event(name string, why merlon.Reason) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.events, func(e identity.Event) bool { return e.Name == name && e.Reason == why })
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.shift)
}

// later moves the desk's clock.
func (w *world) later(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shift += d
}

// shared is made once: hashing is slow on purpose.
var shared struct {
	once   sync.Once
	hasher *password.Hasher
	hash   string
	err    error
}

func hasher(t testing.TB) (*password.Hasher, string) {
	t.Helper()
	shared.once.Do(func() {
		shared.hasher, shared.err = password.New(password.Config{Argon2: password.Argon2{Memory: 12 << 20, Time: 3}, AtOnce: 2, Queue: 500, Wait: time.Minute})
		if shared.err == nil {
			shared.hash, shared.err = shared.hasher.Hash(ctx, annsPassword)
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.hasher, shared.hash
}

func masterKey(t testing.TB) secrets.Key {
	t.Helper()
	k, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newWorld(t testing.TB, c identity.Config) *world {
	t.Helper()
	db, err := store.Open(ctx, store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	w := &world{t: t, config: c, store: db.Accounts()}
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	h, _ := hasher(t)
	policy, err := password.NewPolicy(password.Config{Length: password.Length{Alone: 12}})
	fatal(err)
	t.Cleanup(func() { _ = policy.Close() })
	factors, err := mfa.New(c.MFA.Config, masterKey(t), w.store)
	fatal(err)
	throttle, err := attempts.New(attempts.Config{}, masterKey(t), nil, nil)
	fatal(err)
	w.sessions, err = session.New(session.Config{}, session.NewMemory(0), w.store)
	fatal(err)
	t.Cleanup(w.sessions.Close)
	w.env = identity.Env{
		Key: masterKey(t), Accounts: w.store, Hasher: h, Policy: policy, Sessions: w.sessions, Factors: factors,
		Throttle: throttle, Letters: w,
		Event: func(e identity.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		},
	}
	w.desk, err = identity.NewDesk(c, w.env)
	fatal(err)
	t.Cleanup(w.desk.Close)
	w.desk.SetClock(w.now)
	w.guard, err = identity.New(c, w.sessions)
	fatal(err)
	w.guard.SetClock(w.now)
	return w
}

// remake makes the desk anew from a changed env.
func (w *world) remake() {
	w.t.Helper()
	w.desk.Close()
	var err error
	if w.desk, err = identity.NewDesk(w.config, w.env); err != nil {
		w.t.Fatal(err)
	}
	w.desk.SetClock(w.now)
}

// add makes an account with ann's password.
func (w *world) add(a account.Account) account.Account {
	w.t.Helper()
	_, hash := hasher(w.t)
	if a.ID == "" {
		a.ID = strings.ToUpper(a.Name) + "-ID"
	}
	if a.Password == "" {
		a.Password = hash
	}
	if a.Password == "none" {
		a.Password = ""
	}
	a.Created = time.Now().Add(-time.Hour)
	if err := w.store.Create(ctx, a); err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) ann() account.Account {
	w.t.Helper()
	return w.add(account.Account{ID: "ANN-ID", Name: "ann", Email: "ann@example.com", EmailVerified: true})
}

func (w *world) account(id string) account.Account {
	w.t.Helper()
	a, err := w.store.Account(ctx, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// A browser keeps cookies.
type browser struct {
	w      *world
	jar    map[string]string
	client string
	site   string
	last   merlon.Decision
}

func (w *world) browser(client string) *browser {
	return &browser{w: w, jar: map[string]string{}, client: client, site: "shop.example.com"}
}

// visit is a request of the browser to the desk, after the guard.
func (b *browser) visit() identity.Visit {
	b.w.t.Helper()
	hr := httptest.NewRequest(http.MethodPost, "https://"+b.site+"/.merlon/x", nil)
	hr.Header.Set("User-Agent", "Firefox")
	for k, v := range b.jar {
		hr.AddCookie(&http.Cookie{Name: k, Value: v})
	}
	r := merlon.NewRequest(hr)
	r.Site, r.Client = b.site, netip.MustParseAddr(b.client)
	b.last = b.w.guard.Check(r)
	b.keep(b.last.Header)
	if !b.last.Passed() {
		b.w.t.Fatalf("the guard refused: %s %v", b.last.Reason, b.last.Err)
	}
	return identity.Visit{Request: r, Header: http.Header{}, Origin: "https://" + b.site}
}

func (b *browser) keep(h http.Header) {
	for _, c := range (&http.Response{Header: h}).Cookies() {
		if c.MaxAge < 0 {
			delete(b.jar, c.Name)
			continue
		}
		b.jar[c.Name] = c.Value
	}
}

// do asks the desk and keeps the cookies of its answer.
func (b *browser) do(ask func(v identity.Visit) (identity.Step, error)) identity.Step {
	b.w.t.Helper()
	v := b.visit()
	s, err := ask(v)
	if err != nil {
		b.w.t.Fatalf("the desk cannot answer: %v", err)
	}
	b.keep(v.Header)
	return s
}

func (b *browser) password(name, pass string) identity.Step {
	b.w.t.Helper()
	return b.do(func(v identity.Visit) (identity.Step, error) { return b.w.desk.Password(v, name, pass) })
}

// who is the identity that the guard sees.
func (b *browser) who() *merlon.Identity {
	b.w.t.Helper()
	return b.visit().Identity
}

func (b *browser) want(s identity.Step, state identity.State) identity.Step {
	b.w.t.Helper()
	if s.State != state {
		b.w.t.Fatalf("the state is %q (%+v), want %q", s.State, s, state)
	}
	return s
}

// signIn logs in with ann's password.
func (b *browser) signIn(name string) *browser {
	b.w.t.Helper()
	b.want(b.password(name, annsPassword), identity.SignedIn)
	return b
}

// An app makes codes; each step only once, beginning in the past.
type app struct {
	secret string
	step   int
}

func (a *app) code(t testing.TB) string {
	t.Helper()
	code, err := totp.GenerateCode(strings.ReplaceAll(a.secret, " ", ""), time.Now().Add(time.Duration(a.step-1)*30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	a.step++
	return code
}

// enrol adds an app to who is signed in.
func (b *browser) enrol(pending string) (*app, identity.Step) {
	b.w.t.Helper()
	a := &app{}
	var e mfa.Enrolment
	b.want(b.do(func(v identity.Visit) (s identity.Step, err error) {
		e, s, err = b.w.desk.EnrolTOTP(v, pending)
		return s, err
	}), identity.Enrol)
	a.secret = e.Secret
	return a, b.do(func(v identity.Visit) (identity.Step, error) {
		return b.w.desk.ConfirmTOTP(v, pending, e.Ticket, a.code(b.w.t), "phone")
	})
}

func (b *browser) totp(pending, code string) identity.Step {
	b.w.t.Helper()
	return b.do(func(v identity.Visit) (identity.Step, error) { return b.w.desk.TOTP(v, pending, code) })
}
