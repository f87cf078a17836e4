package challenge_test

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/secrets"
)

const site = "shop.example.com"

func key(t testing.TB) secrets.Key {
	t.Helper()
	k, err := secrets.NewKey(secrets.New("a key of the tests, which is long enough"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func guard(t testing.TB, c challenge.Config, more ...func(*challenge.Env)) *challenge.Guard {
	t.Helper()
	env := challenge.Env{Key: key(t), Load: challenge.NewLoad(), Crawlers: challenge.NewCrawlers(nobody{})}
	for _, m := range more {
		m(&env)
	}
	g, err := challenge.New(c, env)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func memory(t testing.TB) count.Store {
	t.Helper()
	return count.NewMemory(count.MemoryConfig{Keys: 1024})
}

// A world is a site behind the guard, with its pages, as the gateway would
// have it.
type world struct {
	t      *testing.T
	guard  *challenge.Guard
	pages  *challenge.Pages
	server *httptest.Server
	client atomic.Pointer[netip.Addr] // who everybody seems to be
	site   atomic.Pointer[string]
	later  atomic.Int64 // how much later it is than it is
	last   atomic.Pointer[merlon.Decision]
	served atomic.Pointer[func(http.ResponseWriter, *http.Request)]

	noWorker       atomic.Bool
	aToken, aWrong string // of a form that is not the page's
}

func newWorld(t *testing.T, c challenge.Config, store count.Store) *world {
	t.Helper()
	w := &world{t: t, guard: guard(t, c)}
	var err error
	if w.pages, err = challenge.NewPages(challenge.PagesEnv{Key: key(t), Count: store, Brand: "The Harbour Shop"}); err != nil {
		t.Fatal(err)
	}
	w.from("192.0.2.1")
	w.at(site)
	w.server = httptest.NewTLSServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.server.Close)
	return w
}

func (w *world) from(client string) { a := netip.MustParseAddr(client); w.client.Store(&a) }
func (w *world) at(site string)     { w.site.Store(&site) }
func (w *world) wait(d time.Duration) {
	w.later.Add(int64(d))
}

func (w *world) serve(rw http.ResponseWriter, hr *http.Request) {
	r := merlon.NewRequest(hr)
	r.Client, r.Site, r.Received = *w.client.Load(), *w.site.Load(), r.Received.Add(time.Duration(w.later.Load()))
	if w.noWorker.Load() && strings.HasPrefix(hr.URL.Path, challenge.Prefix+"/worker.") {
		http.NotFound(rw, hr)
		return
	}
	if strings.HasPrefix(hr.URL.Path, challenge.Prefix) {
		w.pages.ServeHTTP(rw, r.Request)
		return
	}
	gate := merlon.NewGate(w.guard)
	d := gate.Check(r)
	defer func() { gate.Done(r, merlon.Outcome{Status: http.StatusOK, Upstream: true}) }()
	w.last.Store(&d)
	if !d.Passed() {
		merlon.Respond(rw, r, d)
		return
	}
	if f := w.served.Load(); f != nil {
		(*f)(rw, hr)
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = fmt.Fprintf(rw, `<!doctype html><html lang="en"><title>shop</title><link rel="icon" href="data:,"><p id="seen">%s</p>`, html.EscapeString(hr.URL.RequestURI()))
}

// A browser is an HTTP client with a jar, which follows nothing by itself.
type browser struct {
	w *world
	c *http.Client
}

func (w *world) browser() *browser {
	jar, _ := cookiejar.New(nil) // never fails
	c := &http.Client{
		Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	w.t.Cleanup(c.CloseIdleConnections)
	return &browser{w, c}
}

// An answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

func (b *browser) do(method, target string, body string, fields ...string) answer {
	b.w.t.Helper()
	hr, err := http.NewRequest(method, b.w.server.URL+target, strings.NewReader(body))
	if err != nil {
		b.w.t.Fatal(err)
	}
	hr.Header.Set("Accept", "text/html,*/*")
	if body != "" {
		hr.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(fields); i += 2 {
		hr.Header.Set(fields[i], fields[i+1])
	}
	res, err := b.c.Do(hr)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(text)}
}

func (b *browser) get(target string, fields ...string) answer {
	return b.do("GET", target, "", fields...)
}

var (
	tokenField = regexp.MustCompile(`name="token" value="([^"]*)"`)
	toField    = regexp.MustCompile(`name="to" value="([^"]*)"`)
	refresh    = regexp.MustCompile(`http-equiv="refresh" content="(\d+); url=([^"]*)"`)
	goLink     = regexp.MustCompile(`href="([^"]*)" data-go`)
)

func find(t *testing.T, re *regexp.Regexp, in string) []string {
	t.Helper()
	m := re.FindStringSubmatch(in)
	if m == nil {
		t.Fatalf("no %s in\n%s", re, in)
	}
	for i := range m {
		m[i] = html.UnescapeString(m[i])
	}
	return m
}

// solve does the work as anybody could.
func solve(token string, bits int) string {
	for n := 0; ; n++ {
		sum := sha256.Sum256([]byte(token + strconv.Itoa(n)))
		zero := 0
		for _, b := range sum {
			if b == 0 {
				zero += 8
				continue
			}
			for ; b&0x80 == 0; b <<= 1 {
				zero++
			}
			break
		}
		if zero >= bits {
			return strconv.Itoa(n)
		}
	}
}

// lazy returns a number that is not work enough.
func lazy(token string, bits int) string {
	for n := 0; ; n++ {
		if !challenge.Solves(token, strconv.Itoa(n), bits) {
			return strconv.Itoa(n)
		}
	}
}

// send sends the page's form.
func (b *browser) send(page, token, nonce, to string) answer {
	b.w.t.Helper()
	return b.do("POST", page, url.Values{"token": {token}, "nonce": {nonce}, "to": {to}}.Encode())
}

// prove gets a pass as the page's script would, and returns where it leads.
func (b *browser) prove(target string) string {
	b.w.t.Helper()
	page := b.get(target).header.Get("Location")
	form := b.get(page).body
	token, to := find(b.w.t, tokenField, form)[1], find(b.w.t, toField, form)[1]
	bits, _ := strconv.Atoi(find(b.w.t, regexp.MustCompile(`data-bits="(\d+)"`), form)[1])
	done := b.send(page, token, solve(token, bits), to)
	if done.status != http.StatusSeeOther {
		b.w.t.Fatalf("the work was not taken: %d\n%s", done.status, done.body)
	}
	return find(b.w.t, goLink, b.get(done.header.Get("Location")).body)[1]
}
