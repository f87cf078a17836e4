package stuffing_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/stuffing"
)

const (
	site    = "shop.example.com"
	form    = "application/x-www-form-urlencoded"
	secret  = "correct horse"
	tooMany = http.StatusTooManyRequests
)

func key(t testing.TB) secrets.Key {
	t.Helper()
	k, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A world is a backend with a log-in, a guard before it, and a clock.
type world struct {
	t       testing.TB
	guard   *stuffing.Guard
	gate    *merlon.Gate
	backend http.Handler

	mu      sync.Mutex
	now     time.Time
	notices []attempts.Notice
	slept   time.Duration
	looked  atomic.Int64 // tries that the backend has looked at
}

func config() stuffing.Config {
	return stuffing.Config{Path: stuffing.List{"/api/login"}, UserField: stuffing.List{"email"}}
}

func newWorld(t testing.TB, c stuffing.Config, env stuffing.Env) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC)}
	env.Key = key(t)
	if env.Notify == nil {
		env.Notify = func(n attempts.Notice) {
			w.mu.Lock()
			w.notices = append(w.notices, n)
			w.mu.Unlock()
		}
	}
	g, err := stuffing.New(c, env)
	if err != nil {
		t.Fatal(err)
	}
	g.SetClock(w.clock)
	g.SetSleep(func(_ context.Context, d time.Duration) error {
		w.mu.Lock()
		w.slept += d
		w.mu.Unlock()
		return nil
	})
	w.guard, w.gate, w.backend = g, merlon.NewGate(g), w.json()
	t.Cleanup(func() {
		if n := g.Underway(); n > 0 {
			t.Errorf("%d requests were never settled", n)
		}
	})
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	w.now = w.now.Add(d)
	w.mu.Unlock()
}

func (w *world) waited() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.slept
	w.slept = 0
	return d
}

func (w *world) told(kind string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, notice := range w.notices {
		if notice.Kind == kind {
			n++
		}
	}
	return n
}

// json is a log-in that answers 200 or 401. Everybody's password is the same;
// password "boom" breaks it.
func (w *world) json() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, hr *http.Request) {
		w.looked.Add(1)
		switch password := hr.FormValue("password"); password {
		case secret:
			http.SetCookie(rw, &http.Cookie{Name: "session", Value: "1"})
			fmt.Fprint(rw, "{}")
		case "boom":
			rw.WriteHeader(500)
		default:
			rw.WriteHeader(401)
		}
	})
}

// A reply is what the client sees.
type reply struct {
	status int
	header http.Header
	reason merlon.Reason
}

// ask sends a request through the gate to the backend, without a network.
func (w *world) ask(client string, hr *http.Request) reply {
	w.t.Helper()
	r := merlon.NewRequest(hr)
	r.Site, r.Client = site, netip.MustParseAddr(client)
	o := merlon.Outcome{}
	defer func() { w.gate.Done(r, o) }()
	d := w.gate.Check(r)
	if !d.Passed() {
		rec := httptest.NewRecorder()
		r.AddHeader(rec.Header())
		merlon.Respond(rec, r, d)
		o.Status, o.Guard = d.Code(), r.RefusedBy()
		return reply{rec.Code, rec.Header(), d.Reason}
	}
	o.Upstream = true
	rec := httptest.NewRecorder()
	session.StripCookies(r.Header)
	w.backend.ServeHTTP(rec, r.Request)
	res := rec.Result()
	d = w.gate.CheckResponse(r, res)
	if !d.Passed() {
		rec = httptest.NewRecorder()
		merlon.Respond(rec, r, d)
		o.Status, o.Guard = d.Code(), r.RefusedBy()
		return reply{rec.Code, rec.Header(), d.Reason}
	}
	session.StripAnswer(res.Header)
	r.AddHeader(res.Header)
	o.Status = res.StatusCode
	return reply{res.StatusCode, res.Header, d.Reason}
}

// try logs in with a form; cookies are those of the browser.
func (w *world) try(client, user, password string, cookies ...string) reply {
	w.t.Helper()
	hr := httptest.NewRequest("POST", "https://"+site+"/api/login", strings.NewReader(url.Values{"email": {user}, "password": {password}}.Encode()))
	hr.Header.Set("Content-Type", form)
	if len(cookies) > 0 {
		hr.Header.Set("Cookie", strings.Join(cookies, "; "))
	}
	return w.ask(client, hr)
}

// known returns the cookie of a browser in which a user has logged in.
func (w *world) known(user string, before ...string) string {
	w.t.Helper()
	r := w.try("198.51.100.7", user, secret, before...)
	if r.status != 200 {
		w.t.Fatalf("%s could not log in: %d %s", user, r.status, r.reason)
	}
	return r.cookie()
}

func (r reply) cookie() string {
	for _, line := range r.header["Set-Cookie"] {
		if strings.HasPrefix(line, stuffing.Cookie+"=") {
			c, _, _ := strings.Cut(line, ";")
			return c
		}
	}
	return ""
}

// address is the n-th of many, each in a network of its own.
func address(n int) string {
	return netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 1}).String()
}

// live puts the guard before a real server, with a real one in front.
func (w *world) live(h2 bool) *httptest.Server {
	w.t.Helper()
	back := httptest.NewServer(w.backend)
	w.t.Cleanup(back.Close)
	to, err := url.Parse(back.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, hr *http.Request) {
		r := merlon.NewRequest(hr)
		r.Site = site
		o := merlon.Outcome{}
		defer func() { w.gate.Done(r, o) }()
		if d := w.gate.Check(r); !d.Passed() {
			o.Status, o.Guard = d.Code(), r.RefusedBy()
			merlon.Respond(rw, r, d)
			return
		}
		o.Upstream = true
		proxy := httputil.ReverseProxy{
			Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to); session.StripCookies(p.Out.Header) },
			ModifyResponse: func(res *http.Response) error {
				w.gate.CheckResponse(r, res)
				r.AddHeader(res.Header)
				o.Status = res.StatusCode
				return nil
			},
			ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		}
		proxy.ServeHTTP(rw, r.Request)
	}))
	front.EnableHTTP2 = h2
	front.StartTLS()
	w.t.Cleanup(front.Close)
	return front
}

func (w *world) post(front *httptest.Server, contentType, body string) (*http.Response, error) {
	res, err := front.Client().Post(front.URL+"/api/login", contentType, strings.NewReader(body))
	if err == nil {
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	return res, err
}
