package gateway_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/test/harness"
)

const openTown = cheap + `
off: [waf]
sites:
  - host: localhost
    upstream: BACKEND
    require: login
    routes:
      - {path: /open/**, require: anyone}
      - {path: /team/**, require: {role: team}}
      - {path: /bob/**, require: {user: bob}}
      - {path: /here/**, require: {from: [10.0.0.0/8]}}
`

// What a site requires holds for its routes, unless one is for anyone; each
// route is shown to keep out and to let in.
func TestRequirementsAreInherited(t *testing.T) {
	w := settle(t, openTown)
	nobody, ann, bob := w.browser(), w.in("ann"), w.in("bob")
	for _, c := range []struct {
		path             string
		nobody, ann, bob int
	}{
		{"/", 303, 200, 200},
		{"/any/thing", 303, 200, 200},
		{"/open/x", 200, 200, 200},
		{"/open", 200, 200, 200},
		{"/opened", 303, 200, 200},
		{"/team/x", 303, 200, 403},
		{"/bob/x", 303, 403, 200},
		{"/here/x", 403, 403, 403},
	} {
		for who, want := range map[*harness.Person]int{nobody: c.nobody, ann: c.ann, bob: c.bob} {
			before := len(w.backend.all())
			got := who.Get(c.path)
			if got.Status != want {
				t.Errorf("%s: %d, want %d", c.path, got.Status, want)
			}
			if reached := len(w.backend.all()) > before; reached != (want == 200) {
				t.Errorf("%s: the backend was reached: %v", c.path, reached)
			}
		}
	}
}

func TestBrowsersAreSentToLogInAndComeBack(t *testing.T) {
	w := settle(t, openTown)
	for _, c := range []struct{ path, to string }{
		{"/", "/.merlon/login"},
		{"/orders?page=2&sort=a%20b", "/.merlon/login?return_to=" + url.QueryEscape("/orders?page=2&sort=a%20b")},
	} {
		b := w.browser()
		got := b.Get(c.path)
		if to := got.SentTo("/.merlon/login"); to != c.to {
			t.Errorf("%s: sent to %s, want %s", c.path, to, c.to)
		}
		if got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: a challenge may be kept by caches", c.path)
		}
		back := b.SignIn(c.to, "ann", annsPassword)
		if back != c.path {
			t.Errorf("%s: after the log-in it leads to %s", c.path, back)
		}
		b.Get(back).Want(200, "backend ANN-ID")
	}
	// Paths that a browser would take for another host are never a way back.
	b := w.browser()
	for _, path := range []string{"//evil.example/x", "/\\evil.example", "/%5cevil.example", "/%2f%2fevil.example"} {
		if to := raw(t, b, path).Header.Get("Location"); to != "" && to != "/.merlon/login" {
			u, err := url.Parse(to)
			back := ""
			if err == nil {
				back = u.Query().Get("return_to")
			}
			if err != nil || !strings.HasPrefix(to, "/.merlon/login?") || strings.HasPrefix(back, "//") || strings.HasPrefix(back, "/\\") {
				t.Errorf("%s: sent to %s", path, to)
			}
		}
	}
	for _, to := range []string{"https://evil.example/", "//evil.example", "/\\evil.example", "/.merlon/logout", "javascript:alert(1)"} {
		b := w.browser()
		if back := b.SignIn("/.merlon/login?return_to="+url.QueryEscape(to), "ann", annsPassword); strings.Contains(back, "evil") || strings.Contains(back, "script") {
			t.Errorf("return_to %s leads to %s", to, back)
		}
	}
}

func TestProgramsAreToldHowToProveThemselves(t *testing.T) {
	w := settle(t, openTown)
	b := w.browser()
	for name, got := range map[string]*harness.Page{
		"curl":    b.Program("GET", "/orders"),
		"a POST":  b.Program("POST", "/orders"),
		"a fetch": b.Get("/orders", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"),
		"JSON":    b.Get("/orders", "Accept", "application/json, text/html", "Sec-Fetch-Mode", ""),
	} {
		auth := got.Header.Values("Www-Authenticate")
		if got.Status != 401 || got.Header.Get("Content-Type") != "application/problem+json" || got.Header.Get("Location") != "" ||
			len(auth) != 1 || auth[0] != `Bearer realm="localhost"` {
			t.Errorf("%s: %d %q %s", name, got.Status, auth, got.Body)
		}
	}
	if got := w.in("ann").Program("GET", "/orders"); got.Status != 200 {
		t.Errorf("a program with ann's session: %d", got.Status)
	}
}

// Trap 51, and whatever else proves somebody: the backend sees who it is, and
// nothing by which it could be them.
func TestTheBackendLearnsWhoItIsAndNotHow(t *testing.T) {
	w := settle(t, openTown)
	ann := w.in("ann")
	spoofed := []string{"Merlon-Subject", "ROOT", "Merlon-Groups", "admin", "Merlon-Roles", "admin", "Merlon_Subject", "ROOT", "X-Remote-User", "root"}
	ann.Get("/team/x", append(spoofed, "Cookie", "shop=basket; a=b")...).Want(200)
	got := w.backend.last(t)
	for field, want := range map[string]string{"Merlon-Subject": "ANN-ID", "Merlon-Groups": "ops%2C and more,staff", "Merlon-Roles": "team"} {
		if v := got.Header.Values(field); len(v) != 1 || strings.ReplaceAll(v[0], "%20", " ") != want {
			t.Errorf("%s: %q, want %q", field, v, want)
		}
	}
	if c := strings.Join(got.Header.Values("Cookie"), "; "); strings.Contains(c, "merlon") || !strings.Contains(c, "shop=basket") || !strings.Contains(c, "a=b") {
		t.Errorf("the backend's cookies: %q", c)
	}
	if v := got.Header.Get("X-Remote-User") + got.Header.Get("Merlon_Subject"); v != "" {
		t.Errorf("a field that only a gateway may set passed: %q", v)
	}
	w.browser().Get("/open/x", spoofed...).Want(200)
	for field := range w.backend.last(t).Header {
		if strings.HasPrefix(strings.ToLower(strings.ReplaceAll(field, "_", "-")), "merlon-") {
			t.Errorf("nobody is signed in, and %s is %q", field, w.backend.last(t).Header[field])
		}
	}
	for _, c := range []struct {
		field string
		stays bool
	}{{"Bearer for-the-backend", true}, {"Digest username=x", true}} {
		w.browser().Get("/open/x", "Authorization", c.field)
		if got := w.backend.last(t).Header.Get("Authorization"); (got == c.field) != c.stays {
			t.Errorf("Authorization of the backend's own: %q", got)
		}
	}
}

func TestMonitoredAndOffPeopleGuards(t *testing.T) {
	for name, c := range map[string]struct {
		add      string
		status   int
		reason   string
		guards   string
		signedIn string // whom the backend sees when ann is signed in
	}{
		"in force":          {"", 303, "login-required", "identity csrf access", "ANN-ID"},
		"access monitored":  {"monitor: [access]\n", 200, "login-required", "identity csrf access (monitored)", "ANN-ID"},
		"access off":        {"", 200, "", "identity csrf", "ANN-ID"},
		"identity off":      {"", 303, "login-required", "csrf access", ""},
		"both monitored":    {"monitor: [identity, access]\n", 200, "login-required", "identity (monitored) csrf access (monitored)", "ANN-ID"},
		"everything is off": {"", 200, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			off := map[string]string{"access off": "[waf, access]", "identity off": "[waf, identity]", "everything is off": "[all]"}[name]
			if off == "" {
				off = "[waf]"
			}
			w := settle(t, c.add+strings.Replace(openTown, "[waf]", off, 1))
			got := w.browser().Get("/x")
			if got.Status != c.status {
				t.Errorf("nobody: %d, want %d", got.Status, c.status)
			}
			if s := w.Gateway().Sites()[0]; !strings.HasSuffix(strings.Join(s.Guards, " "), c.guards) {
				t.Errorf("guards: %q", s.Guards)
			}
			if c.reason != "" {
				kind := ledger.Challenge
				if c.status == 200 {
					kind = ledger.Monitored
				}
				if e := w.events(c.reason, 1); len(e) != 1 || e[0].Kind != kind || e[0].Guard != "access" && kind != ledger.Monitored {
					t.Errorf("%+v", e)
				}
			}
			if got := w.in("ann").Get("/x"); got.Status == 200 && got.Body != "backend "+c.signedIn || (got.Status == 200) != (name != "identity off") {
				t.Errorf("ann: %d %s, want to be %q", got.Status, got.Body, c.signedIn)
			}
			if c := w.backend.all(); len(c) > 0 && strings.Contains(strings.Join(c[len(c)-1].Header["Cookie"], ";"), "merlon") {
				t.Errorf("the backend sees %q", c[len(c)-1].Header["Cookie"])
			}
		})
	}
}

func TestNobodyTakesThePagesOver(t *testing.T) {
	w := settle(t, openTown)
	for name, pattern := range map[string]string{
		"all of them": "/.merlon/**", "one": "/.merlon/login", "behind a wildcard": "/.merlon/**/login", "by a choice": "/.merlon/{login,code}",
		"in capitals": "/.Merlon/login", "the folder": "/.merlon", "one level": "/.merlon/*",
	} {
		f := read(t, strings.Replace(openTown, "/open/**", "'"+pattern+"'", 1), w.backend.URL)
		_, err := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			t.Errorf("%s: a route %s is taken", name, pattern)
			continue
		}
		if text := f.Explain(err).Error(); !strings.Contains(text, `sites[0].routes[0].path "`+pattern+`": `) {
			t.Errorf("%s: %s", name, text)
		}
	}
	// A pattern that matches all sorts of things does not match the pages.
	wild := settle(t, strings.Replace(openTown, "/open/**", "'/{.merlon,x}/**'", 1))
	wild.browser().Get("/.merlon/login").Want(200, `action="/.merlon/login"`)
	before := len(w.backend.all())
	b := w.browser()
	for path, status := range map[string]int{
		"/.merlon/login":           200,
		"/.merlon/%6Cogin":         200,
		"/.merlon/nothing":         404,
		"/.merlon/login/":          404,
		"/.merlon/static/../x":     400,
		"/.merlon/..%2f":           400,
		"/.merlon/..%2fx":          400,
		"/.merlon/%2e%2e/x":        400,
		"/.MERLON/login":           400,
		"/%2emerlon/login":         200,
		"/.merlon%2flogin":         400,
		"//.merlon/login":          400,
		"/.merlon;x/login":         400,
		"/.merlon%5clogin":         400,
		"/.merlon/%252e%252e%252f": 400,
		"/x/..%2f.merlon/login":    400,
	} {
		if res := raw(t, b, path); res.StatusCode != status {
			t.Errorf("%s: %s, want %d", path, res.Status, status)
		}
	}
	for _, s := range w.backend.all()[before:] {
		t.Errorf("the backend was asked for %s", s.target)
	}
	b.Get("/.merlonx").SentTo("/.merlon/login") // the site's own, behind what it requires
	w.in("ann").Get("/.merlonx").Want(200, "backend ANN-ID")
}

func TestPagesAreOnEverySiteBehindItsGuards(t *testing.T) {
	w := settle(t, strings.Replace(openTown, "    require: login", "    require: login\n    address: {deny: [203.0.113.0/24]}", 1)+"  - {host: [other.example, b.example], upstream: BACKEND}\ntrusted_proxies: [127.0.0.1]\n")
	b := w.browser()
	b.Get("/.merlon/login").Want(200)
	b.Get("/.merlon/login", "X-Forwarded-For", "203.0.113.9").Want(403)
	res := b.Get("/.merlon/login")
	if res.Header.Get("X-Request-Id") == "" || res.Header.Get("Content-Security-Policy") == "" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v", res.Header)
	}
}

func TestCheckTellsEveryMistakeAboutPeople(t *testing.T) {
	f := read(t, `
key: env:MERLON_NO_SUCH_KEY
identity:
  register: sometimes
  fresh: 1s
  mfa: {grace: 1s, required: []}
  login: [{users: [ann], from: [10.8.0.1/16]}]
  password: {length: {alone: 3}, argon2: {memory: 1MiB}}
  session: {at_most: 1000}
  attempts: {failures: 5000}
  brand: {color: red}
  token: {lifetime: 1h}
sites:
  - host: a.example
    upstream: BACKEND
    origin: http://a.example
    require: {role: " x", fresh: 1s}
`, "http://127.0.0.1:1")
	_, err := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Fatal("it is taken")
	}
	got := f.Explain(err).Error()
	for _, want := range []string{
		"merlon.yaml:4:13: identity.register \"sometimes\":",
		"merlon.yaml:5:10: identity.fresh \"1s\":",
		"merlon.yaml:6:16: identity.mfa.grace \"1s\":",
		"identity.mfa.required",
		"identity.login[0].from[0] \"10.8.0.1/16\":",
		"identity.password.length.alone",
		"identity.password.argon2.memory",
		"merlon.yaml:9:22: identity.session.at_most \"1000\":",
		"merlon.yaml:10:24: identity.attempts.failures \"5000\":",
		"identity.brand.color \"red\":",
		"identity.token.issuer",
		"sites[0].origin \"http://a.example\":",
		"sites[0].require.role",
		"sites[0].require.fresh \"1s\":",
	} {
		if strings.Count(got, want) != 1 {
			t.Errorf("%d times: %s", strings.Count(got, want), want)
		}
	}
	if t.Failed() {
		t.Log("\n" + got)
	}
}

func TestCheckMakesNothing(t *testing.T) {
	f := read(t, openTown, "http://127.0.0.1:1")
	g, err := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(f.Explain(err))
	}
	g.Close(context.Background())
	entries, err := os.ReadDir(f.Data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
	// A mistake elsewhere in the file keeps a server from making anything, too.
	bad := read(t, strings.Replace(openTown, "/open/**", "open", 1), "http://127.0.0.1:1")
	if _, err := gateway.NewServer(context.Background(), bad, slog.New(slog.DiscardHandler), "test"); err == nil {
		t.Fatal("it is taken")
	}
	if entries, _ := os.ReadDir(bad.Data); len(entries) > 0 {
		t.Errorf("%v", entries)
	}
}

// Behind a proxy that ends TLS, cookies are as good as over TLS, and what the
// proxy says counts only from where it is.
func TestSignInBehindAProxyThatEndsTLS(t *testing.T) {
	text := strings.Replace(openTown, "https: '127.0.0.1:0'", "https: off, insecure_http: '127.0.0.1:0'", 1)
	text = strings.Replace(text, "host: localhost", "host: [shop.example.com, www.example.com]", 1) + "trusted_proxies: [127.0.0.1]\n"
	w := settle(t, text)
	b := w.browser()
	page := b.Get("/x")
	page.SentTo("/.merlon/login")
	b.SignIn("/.merlon/login?return_to=/x", "ann", annsPassword)
	b.Get("/x").Want(200, "backend ANN-ID")
	if c := w.backend.last(t).Header.Values("Cookie"); len(c) > 0 {
		t.Errorf("the backend sees %q", c)
	}
	for part := range strings.SplitSeq(b.Cookies(), "; ") {
		if !strings.HasPrefix(part, "__Host-") {
			t.Errorf("a cookie that a sub-domain could plant: %s", part)
		}
	}
	// The site's other name, by which nobody set anything.
	other := w.browser()
	other.Base = "https://www.example.com"
	other.SignIn("/.merlon/login", "bob", bobsPassword)
	other.Get("/x").Want(200, "backend BOB-ID")

	// Without the proxy's word nobody is asked for a password, and what others
	// say about TLS is not believed. On this machine there is nobody in between.
	for name, c := range map[string]struct {
		from, proto string
		status      int
	}{
		"a stranger":                {"192.0.2.1:1234", "", 403},
		"a stranger who says https": {"192.0.2.1:1234", "https", 403},
		"the proxy":                 {"127.0.0.1:1234", "https", 200},
		"this machine":              {"127.0.0.1:1234", "", 200},
	} {
		clear := httptest.NewRequest("GET", "http://shop.example.com/.merlon/login", nil)
		clear.RemoteAddr = c.from
		clear.Header.Set("X-Forwarded-Proto", c.proto)
		clear.Header.Set("Accept", "text/html")
		rec := httptest.NewRecorder()
		w.Gateway().ServeHTTP(rec, clear)
		if rec.Code != c.status || strings.Contains(rec.Body.String(), `type="password"`) != (c.status == 200) {
			t.Errorf("%s: %d", name, rec.Code)
		}
	}
	if e := w.events(string(gateway.PagesInClear), 2); len(e) != 2 || e[0].Guard != "identity" {
		t.Errorf("%+v", e)
	}
}

// serving is a town that signs people in to another application.
const serving = `
off: [waf]
identity:
  server:
    issuer: ISSUER
    clients: [{id: wiki, public: true, redirect: ["https://wiki.example.com/back"], scopes: [openid]}]
sites:
  - {host: localhost, upstream: BACKEND, require: login}
  - {host: other.example.com, upstream: BACKEND}
`

func TestApplicationsFindTheServer(t *testing.T) {
	addr := harness.FreeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	issuer := "https://localhost:" + port
	w := settle(t, strings.Replace(local, "127.0.0.1:0", addr, 1)+strings.Replace(serving, "ISSUER", issuer, 1))
	b := w.browser()
	metadata := []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"}
	for _, path := range metadata {
		b.Program("GET", path).Want(200, `"issuer":"`+issuer+`"`, issuer+"/.merlon/jwks.json")
	}
	b.Program("GET", "/.merlon/jwks.json").Want(200, `"kid":`)
	if n := len(w.backend.all()); n > 0 {
		t.Errorf("the backend was asked %d times", n)
	}
	// Another site's backend may be an issuer itself.
	for _, path := range metadata {
		rec := httptest.NewRecorder()
		w.Gateway().ServeHTTP(rec, httptest.NewRequest("GET", "https://other.example.com"+path, nil))
		if rec.Code != 200 || rec.Body.String() != "backend " {
			t.Errorf("another site's %s: %d %s", path, rec.Code, rec.Body)
		}
	}
}

// What is half configured is a mistake that is told, whatever is missing.
func TestHalfConfiguredApplications(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"no issuer":          {"    issuer: https://localhost\n", "", "identity.server.issuer"},
		"no issuer but more": {"    issuer: https://localhost\n", "    access: 5m\n", "identity."},
		"wrong tokens":       {"identity:\n", "identity:\n  token: {lifetime: 10h}\n", "identity.token.lifetime"},
		"wrong sessions":     {"identity:\n", "identity:\n  session: {at_most: 1000}\n", "identity.session.at_most"},
		"wrong certificates": {"identity:\n", "identity:\n  certificates: {name: shoe}\n", "identity.certificates.name"},
		"no authority":       {"identity:\n", "identity:\n  certificates: {}\n", "identity.certificates: needs tls.client_ca"},
		"a route of theirs":  {"require: login}", "require: login, routes: [{path: /.well-known/openid-configuration}]}", "Merlon's own pages"},
	} {
		f := read(t, strings.Replace(local+strings.Replace(serving, "ISSUER", "https://localhost", 1), c.old, c.new, 1), "http://127.0.0.1:1")
		_, err := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(f.Explain(err).Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
