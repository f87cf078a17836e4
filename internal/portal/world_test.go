package portal_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"golang.org/x/net/html"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/internal/portal"
	"github.com/merlon-dev/merlon/internal/portal/mail"
	"github.com/merlon-dev/merlon/internal/portal/resume"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	annsPassword = "correct horse battery staple"
	nextPassword = "tractor lamp meadow violin 7"
)

// A world is a site behind TLS whose pages under /.merlon/ are the portal's,
// over a real desk and a real store. Everything else is its backend's.
type world struct {
	t        testing.TB
	host     string
	server   *httptest.Server
	portal   *portal.Portal
	desk     *identity.Desk
	store    *store.Accounts
	sessions *session.Manager
	keeper   *resume.Keeper
	log      *bytes.Buffer
	db       *store.DB
	memory   *aged

	revoke func(ctx context.Context, account, session string) error // as the gateway's; may be nil

	wait func() error                                    // for what is told to applications behind answers; may be nil
	more func(http.ResponseWriter, *merlon.Request) bool // another handler; may be nil

	mu      sync.Mutex
	letters []mail.Letter
	backend []string // what reached the backend: method, target, body
}

// Send implements mail.Mailer.
func (w *world) Send(l mail.Letter) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.letters = append(w.letters, l)
	return nil
}

// link returns the link in the last letter, after what is done behind answers.
func (w *world) link(part string) string {
	w.t.Helper()
	w.desk.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range slices.Backward(w.letters) {
		if m := regexp.MustCompile(`https://\S+` + part + `\?token=\S+`).FindString(l.Text); m != "" {
			return m
		}
	}
	w.t.Fatalf("no letter has a link to %s: %v", part, w.letters)
	return ""
}

var shared struct {
	once   sync.Once
	hasher *password.Hasher
	hash   string
	err    error
}

// hasher is made once: hashing is slow on purpose.
func hasher(t testing.TB) (*password.Hasher, string) {
	t.Helper()
	shared.once.Do(func() {
		shared.hasher, shared.err = password.New(password.Config{Argon2: password.Argon2{Memory: 12 << 20, Time: 3}, AtOnce: 2, Queue: 500, Wait: time.Minute})
		if shared.err == nil {
			shared.hash, shared.err = shared.hasher.Hash(context.Background(), annsPassword)
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

func newWorld(t testing.TB, c identity.Config, pc portal.Config, more ...func(*portal.Env)) *world {
	t.Helper()
	return newWorldAt(t, "localhost", c, pc, more...)
}

func newWorldAt(t testing.TB, host string, c identity.Config, pc portal.Config, more ...func(*portal.Env)) *world {
	t.Helper()
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := store.Open(context.Background(), store.Config{Dir: t.TempDir()})
	fatal(err)
	t.Cleanup(func() { _ = db.Close() })
	w := &world{t: t, host: host, db: db, memory: &aged{Memory: session.NewMemory(0)}, store: db.Accounts(), keeper: resume.New(masterKey(t)), log: &bytes.Buffer{}}
	log := slog.New(slog.NewTextHandler(&locked{w: w.log}, nil))
	h, _ := hasher(t)
	policy, err := password.NewPolicy(password.Config{Length: password.Length{Alone: 12}})
	fatal(err)
	t.Cleanup(func() { _ = policy.Close() })
	factors, err := mfa.New(c.MFA.Config, masterKey(t), w.store)
	fatal(err)
	throttle, err := attempts.New(attempts.Config{}, masterKey(t), nil, nil)
	fatal(err)
	w.sessions, err = session.New(session.Config{}, w.memory, w.store)
	fatal(err)
	t.Cleanup(w.sessions.Close)
	letters, err := portal.NewLetters(pc.Brand, w, log)
	fatal(err)
	w.desk, err = identity.NewDesk(c, identity.Env{
		Key: masterKey(t), Accounts: w.store, Hasher: h, Policy: policy, Sessions: w.sessions, Factors: factors,
		Throttle: throttle, Letters: letters,
		Revoke: func(ctx context.Context, account, session string) error {
			if w.revoke == nil {
				return nil
			}
			return w.revoke(ctx, account, session)
		},
	})
	fatal(err)
	t.Cleanup(w.desk.Close)
	guard, err := identity.New(c, w.sessions)
	fatal(err)

	w.server = httptest.NewUnstartedServer(nil)
	origin := "https://" + host + ":" + port(w.server)
	env := portal.Env{
		Desk: w.desk, Sessions: w.sessions, Accounts: w.store, Resume: w.keeper, Register: c.Register, Key: masterKey(t), Log: log,
		Origin: func(string) string { return origin },
	}
	for _, f := range more {
		f(&env)
	}
	w.portal, err = portal.New(pc, env)
	fatal(err)
	w.server.Config.Handler = w.gateway(guard)
	w.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	w.server.StartTLS()
	w.server.URL = origin
	t.Cleanup(w.server.Close)
	return w
}

// aged is a store of sessions of which the next one was proved a while ago.
type aged struct {
	*session.Memory
	by atomic.Int64
}

func (a *aged) Put(ctx context.Context, s session.Session, atMost int) ([]session.Hash, error) {
	s.Proved = s.Proved.Add(-time.Duration(a.by.Swap(0)))
	return a.Memory.Put(ctx, s, atMost)
}

// age makes the next session's proof older.
func (w *world) age(d time.Duration) { w.memory.by.Store(int64(d)) }

func port(s *httptest.Server) string {
	a := s.Listener.Addr().String()
	return a[strings.LastIndexByte(a, ':')+1:]
}

type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// gateway does what the real one does around the portal: a request of its own,
// a kept one put back unless it is for the portal, the identity guard, and a
// fresh proof for /pay.
func (w *world) gateway(guard *identity.Guard) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, hr *http.Request) {
		r := merlon.NewRequest(hr)
		r.Site = w.host
		own := strings.HasPrefix(r.URL.Path, portal.Prefix)
		var kept resume.Kept
		var swapped bool
		var err error
		if !own {
			kept, swapped, err = w.keeper.Swap(r)
		}
		if err != nil {
			merlon.Respond(rw, r, merlon.Refuse(http.StatusForbidden, "gone"))
			return
		}
		if d := guard.Check(r); !d.Passed() {
			merlon.Respond(rw, r, d)
			return
		}
		if swapped && (r.Identity == nil || r.Identity.Subject != kept.For) {
			merlon.Respond(rw, r, merlon.Refuse(http.StatusForbidden, "not-theirs"))
			return
		}
		if w.more != nil && w.more(rw, r) {
			return
		}
		if own {
			w.portal.ServeHTTP(rw, r.Request)
			return
		}
		w.answer(rw, r)
	})
}

// answer is the backend; /pay wants a proof of the last minute.
func (w *world) answer(rw http.ResponseWriter, r *merlon.Request) {
	if r.URL.Path == "/pay" && (r.Identity == nil || time.Since(r.Identity.When) > time.Minute) {
		to := portal.LogInPath(r.URL.RequestURI(), "")
		ticket, cookie, err := w.keeper.Keep(r)
		if err == nil {
			http.SetCookie(rw, cookie)
			to = portal.LogInPath("/", ticket)
		}
		if r.Identity != nil {
			to = portal.ProvePath(account.None, r.URL.RequestURI(), ticket)
		}
		http.Redirect(rw, r.Request, to, http.StatusSeeOther)
		return
	}
	body, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	w.backend = append(w.backend, r.Method+" "+r.URL.RequestURI()+" "+string(body))
	w.mu.Unlock()
	who := "nobody"
	if r.Identity != nil {
		who = r.Identity.Name
	}
	_, _ = fmt.Fprintf(rw, "<!doctype html><title>shop</title><p id=who>%s</p><form method=post action='/pay?x=1'><input name=amount value=5><button id=pay>pay</button></form><p id=body>%s</p>", who, html.EscapeString(string(body)))
}

func (w *world) reached() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.backend)
}

// closeStore makes the store of accounts fail.
func (w *world) closeStore() { _ = w.db.Close() }

// ann is an account with a password.
func (w *world) ann(more ...func(*account.Account)) account.Account {
	w.t.Helper()
	_, hash := hasher(w.t)
	a := account.Account{ID: "ANN-ID", Name: "ann", Display: "Ann Gull", Email: "ann@example.com", EmailVerified: true, Password: hash, Created: time.Now().Add(-time.Hour)}
	for _, f := range more {
		f(&a)
	}
	if err := w.store.Create(context.Background(), a); err != nil {
		w.t.Fatal(err)
	}
	return a
}

// A browser keeps cookies, follows no redirect and fills in forms.
type browser struct {
	w    *world
	http *http.Client
	head http.Header // sent with every request
}

func (w *world) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &browser{w: w, head: http.Header{}, http: &http.Client{
		Jar:           jar,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// A shown page is what a browser was answered.
type shown struct {
	b      *browser
	status int
	header http.Header
	body   string
}

func (b *browser) do(method, path string, form url.Values, head ...string) *shown {
	b.w.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	target := path
	if strings.HasPrefix(path, "/") {
		target = b.w.server.URL + path
	}
	r, err := http.NewRequest(method, target, body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	for k, v := range b.head {
		r.Header[k] = v
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", b.w.server.URL)
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	for i := 0; i+1 < len(head); i += 2 {
		r.Header.Set(head[i], head[i+1])
		if head[i+1] == "" {
			r.Header.Del(head[i])
		}
	}
	res, err := b.http.Do(r)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return &shown{b, res.StatusCode, res.Header, string(text)}
}

func (b *browser) get(path string, head ...string) *shown {
	b.w.t.Helper()
	return b.do(http.MethodGet, path, nil, head...)
}

// want ends the test if the page has another status, or not the texts.
func (s *shown) want(status int, texts ...string) *shown {
	s.b.w.t.Helper()
	if s.status != status {
		s.b.w.t.Fatalf("status %d, want %d\n%s\n%s", s.status, status, s.header.Get("Location"), s.body)
	}
	for _, text := range texts {
		if !strings.Contains(s.body+s.header.Get("Location"), text) {
			s.b.w.t.Fatalf("%q is not on the page: %s\n%s", text, s.header.Get("Location"), s.body)
		}
	}
	return s
}

// form returns the hidden and preset fields of the form with an action.
func (s *shown) form(action string) url.Values {
	s.b.w.t.Helper()
	doc, err := html.Parse(strings.NewReader(s.body))
	if err != nil {
		s.b.w.t.Fatal(err)
	}
	for n := range doc.Descendants() {
		if n.Data == "form" && attr(n, "action") == action {
			v := url.Values{}
			for in := range n.Descendants() {
				if in.Data == "input" && attr(in, "name") != "" && attr(in, "type") != "checkbox" {
					v.Set(attr(in, "name"), attr(in, "value"))
				}
			}
			return v
		}
	}
	s.b.w.t.Fatalf("there is no form for %s\n%s", action, s.body)
	return nil
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// send fills in a form and sends it.
func (s *shown) send(action string, fields ...string) *shown {
	s.b.w.t.Helper()
	v := s.form(action)
	for i := 0; i+1 < len(fields); i += 2 {
		v.Set(fields[i], fields[i+1])
	}
	return s.b.do(http.MethodPost, action, v)
}

// signIn signs in with a password.
func (b *browser) signIn(name, pass string) *shown {
	b.w.t.Helper()
	return b.get("/.merlon/login").send("/.merlon/login", "name", name, "password", pass)
}

// in is a browser that is signed in as ann.
func (w *world) in() *browser {
	w.t.Helper()
	b := w.browser()
	b.signIn("ann", annsPassword).want(http.StatusOK, `http-equiv="refresh"`)
	return b
}

var changing = regexp.MustCompile(`nonce="[^"]*"|name="csrf" value="[^"]*"`)

func code(t testing.TB, secret string, step int) string {
	t.Helper()
	c, err := totp.GenerateCode(strings.ReplaceAll(secret, " ", ""), time.Now().Add(time.Duration(step)*30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var secretText = regexp.MustCompile(`<p class="secret">([A-Z2-7 ]+)</p>`)

// addApp adds an authenticator app on the account page and returns its secret
// and the recovery codes.
func (b *browser) addApp() (secret string, codes []string) {
	b.w.t.Helper()
	pg := b.get("/.merlon/account").send("/.merlon/enrol/totp").want(http.StatusOK, "data:image/png;base64,")
	secret = secretText.FindStringSubmatch(pg.body)[1]
	pg = pg.send("/.merlon/enrol/totp/confirm", "code", code(b.w.t, secret, -1)).want(http.StatusOK, "Keep your recovery codes")
	for _, m := range regexp.MustCompile(`<li>([0-9A-Z-]{10,})</li>`).FindAllStringSubmatch(pg.body, -1) {
		codes = append(codes, m[1])
	}
	if len(codes) != 10 {
		b.w.t.Fatalf("%d recovery codes", len(codes))
	}
	return secret, codes
}
