package gateway_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/stuffing"
)

// send sends what a head says, with header fields written "Name: value".
func (g *gate) send(method, target, body string, fields ...string) *http.Response {
	hr := httptest.NewRequest(method, "https://shop.example.com"+target, strings.NewReader(body))
	hr.Header.Set("User-Agent", "test/1.0")
	hr.Header.Set("Accept", "*/*")
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		hr.Header.Set(name, value)
	}
	if from := hr.Header.Get("X-From"); from != "" { // of the connection
		hr.RemoteAddr = from + ":4711"
		hr.Header.Del("X-From")
	}
	if host := hr.Header["Host"]; host != nil {
		hr.Host = host[0]
		hr.Header.Del("Host")
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, hr)
	return w.Result()
}

// echo is a backend that answers with the header it was sent.
func echo(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" && r.FormValue("password") != "right" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_ = r.Header.Write(w)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestDecoyBansItsClientAlone(t *testing.T) {
	g := open(t, read(t, shop, newBackend(t, "app")))
	if res := g.send("GET", "/.env", "", "X-From: 198.51.100.1"); res.StatusCode != 404 {
		t.Errorf("the decoy: %s", res.Status)
	}
	if res := g.send("GET", "/", "", "X-From: 198.51.100.1"); res.StatusCode != 403 || res.Header.Get("Retry-After") == "" {
		t.Errorf("its client: %s", res.Status)
	}
	if res := g.send("GET", "/", "", "X-From: 198.51.100.2"); res.StatusCode != 200 {
		t.Errorf("another: %s", res.Status)
	}
	reasons := ""
	for _, e := range g.events(t) {
		reasons += string(e.Reason) + " "
	}
	if reasons != "decoy-touched banned " {
		t.Errorf("events: %s", reasons)
	}
	allowed := open(t, read(t, shop+"    ban: {allow: [198.51.100.0/24]}\n", newBackend(t, "app")))
	allowed.send("GET", "/.env", "", "X-From: 198.51.100.1")
	if res := allowed.send("GET", "/", "", "X-From: 198.51.100.1"); res.StatusCode != 200 {
		t.Errorf("an address that is never banned: %s", res.Status)
	}
	off := open(t, read(t, "off: [ban]\n"+shop, newBackend(t, "app")))
	if res := off.send("GET", "/.env", ""); res.StatusCode != 404 {
		t.Errorf("the decoy, by itself: %s", res.Status)
	}
}

func TestChallengeLeadsToItsPage(t *testing.T) {
	g := open(t, read(t, shop+"    challenge: {when: always}\n", newBackend(t, "app")))
	const html = "Accept: text/html"
	res := g.send("GET", "/a?b=c", "", html)
	page := res.Header.Get("Location")
	if res.StatusCode != 303 || !strings.HasPrefix(page, challenge.Prefix+"?") || !strings.HasSuffix(page, "&to="+url.QueryEscape("/a?b=c")) {
		t.Fatalf("a page: %s, %s", res.Status, page)
	}
	if res := g.send("GET", page, "", html); res.StatusCode != 200 || !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("the page that gets a pass: %s, %s", res.Status, res.Header.Get("Content-Security-Policy"))
	}
	// A form is lost, but its sender is led back to where it was.
	back := g.send("POST", "/order", "x=1", html, "Content-Type: application/x-www-form-urlencoded", "Referer: https://shop.example.com/cart?id=7")
	if at := back.Header.Get("Location"); back.StatusCode != 303 || !strings.HasSuffix(at, "&to="+url.QueryEscape("/cart?id=7")) {
		t.Errorf("a form: %s, %s", back.Status, at)
	}
	foreign := g.send("POST", "/order", "x=1", html, "Content-Type: application/x-www-form-urlencoded", "Referer: https://evil.example/x")
	if at := foreign.Header.Get("Location"); strings.Contains(at, "evil") || foreign.StatusCode == 303 && !strings.HasSuffix(at, "&to=%2F") {
		t.Errorf("a form of another site: %s, %s", foreign.Status, at)
	}
	if res := g.send("GET", "/api", ""); res.StatusCode != 403 || !strings.HasPrefix(res.Header.Get(challenge.Header), challenge.Prefix) {
		t.Errorf("a program: %s, %v", res.Status, res.Header)
	}
	// A page's script goes back to its page, not to what it has asked for.
	script := g.send("GET", "/api", "", "Sec-Fetch-Mode: cors", "Referer: https://shop.example.com/cart?id=7")
	if at := script.Header.Get(challenge.Header); !strings.HasSuffix(at, "&to="+url.QueryEscape("/cart?id=7")) {
		t.Errorf("a script: %s, %s", script.Status, at)
	}
}

// A known browser may come from a banned address until it misbehaves, too.
func TestKnownBrowserOfAnAttacker(t *testing.T) {
	g := open(t, read(t, shop+"    backend_login: {path: /login, user_field: email}\n    ban: {strikes: 3, first: 1h}\n", echo(t)))
	res := g.send("POST", "/login", "email=eve@example.com&password=right", "Content-Type: application/x-www-form-urlencoded")
	known := ""
	for _, c := range res.Cookies() {
		if c.Name == stuffing.Cookie {
			known = "Cookie: " + c.Name + "=" + c.Value
		}
	}
	g.send("GET", "/.env", "", "X-From: 198.51.100.1") // somebody else there
	if res := g.send("GET", "/", "", known, "X-From: 198.51.100.1"); res.StatusCode != 200 {
		t.Fatalf("a known browser at a banned address: %s", res.Status)
	}
	for range 4 {
		g.send("GET", "/?q=1%27+UNION+SELECT+name,+password+FROM+users--", "", known, "X-From: 198.51.100.1")
	}
	if res := g.send("GET", "/", "", known, "X-From: 198.51.100.1"); res.StatusCode != 403 {
		t.Errorf("when it has attacked: %s", res.Status)
	}
}

// A session that is made up, and a token that is not for Merlon, do not have the
// WAF inspect what a challenge stops; a key that does not hold is told so.
func TestMadeUpProofsStopAtTheChallenge(t *testing.T) {
	g := open(t, read(t, "identity: {password: {argon2: {memory: 12MiB, time: 3}}}\n"+shop+"    challenge: {when: always}\n", newBackend(t, "app")))
	for proof, status := range map[string]int{
		"Cookie: __Host-merlon=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA": 403,
		"Authorization: Bearer a.b.c":                                       403,
		"X-Api-Key: mk_1":                                                   401,
	} {
		if res := g.send("GET", "/", "", proof); res.StatusCode != status {
			t.Errorf("%s: %s", proof, res.Status)
		}
		g.send("GET", "/?q=1+UNION+SELECT+password+FROM+users--", "", proof)
	}
	guards := map[string]int{}
	for _, e := range g.events(t) {
		guards[e.Guard]++
	}
	if guards["challenge"] != 4 || guards["waf"] != 1 || guards["identity"] != 1 {
		t.Errorf("refused by %v", guards)
	}
}

// The answer that tells a wrong try must come in a form that can be read.
func TestLoginAnswersAreReadable(t *testing.T) {
	coded := ""
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { coded = r.Header.Get("Accept-Encoding") }))
	t.Cleanup(s.Close)
	for failed, want := range map[string]string{"status: 200": "br, gzip", "body: wrong": ""} {
		g := open(t, read(t, "off: [waf]\n"+shop+"    backend_login: {path: /login, user_field: email, failed: {"+failed+"}}\n", s.URL))
		g.send("POST", "/login", "email=ann&password=x", "Content-Type: application/x-www-form-urlencoded", "Accept-Encoding: br, gzip")
		if coded != want && !(want == "" && !strings.Contains(coded, "br")) {
			t.Errorf("%s: the backend may answer in %q", failed, coded)
		}
	}
}

func TestBackendsAreToldNothingOfOurs(t *testing.T) {
	g := open(t, read(t, shop+"    throttle: {timeout: 7s}\n", echo(t)))
	res := g.send("GET", "/", "", "Cookie: a=1; "+challenge.Cookie+"=p; "+stuffing.Cookie+"=k; b=2", "Merlon-Timeout: 99", "Merlon-Tenant: evil")
	sent := text(t, res)
	if !strings.Contains(sent, "Cookie: a=1; b=2\r\n") || strings.Contains(sent, "merlon-pass") || strings.Contains(sent, "evil") {
		t.Errorf("%s", sent)
	}
	if !strings.Contains(sent, "Merlon-Timeout: 6.9") && !strings.Contains(sent, "Merlon-Timeout: 7.0") {
		t.Errorf("no deadline: %s", sent)
	}
}

func TestBackendLogin(t *testing.T) {
	g := open(t, read(t, shop+"    backend_login: {path: /login, user_field: email}\n", echo(t)))
	try := func(password string, fields ...string) *http.Response {
		return g.send("POST", "/login", "email=ann@example.com&password="+password, append(fields, "Content-Type: application/x-www-form-urlencoded")...)
	}
	res := try("right")
	known := ""
	for _, c := range res.Cookies() {
		if c.Name == stuffing.Cookie {
			known = c.Name + "=" + c.Value
		}
	}
	if res.StatusCode != 200 || known == "" {
		t.Fatalf("%s, %v", res.Status, res.Header)
	}
	asked := 0
	var last *http.Response
	for range 60 {
		if last = try("wrong", "X-From: 198.51.100.9"); last.StatusCode == 401 {
			asked++
		}
	}
	if asked > 10 || last.StatusCode != 429 || !strings.HasPrefix(last.Header.Get(challenge.Header), challenge.Prefix) {
		t.Errorf("%d of 60 guesses were asked, the last: %s, %v", asked, last.Status, last.Header)
	}
	if res := try("wrong", "X-From: 198.51.100.9", "Accept: text/html"); res.StatusCode != 303 || !strings.HasPrefix(res.Header.Get("Location"), challenge.Prefix) {
		t.Errorf("a guesser with a browser: %s", res.Status)
	}
	if res := try("right", "Cookie: "+known, "X-From: 192.0.2.77"); res.StatusCode != 200 {
		t.Errorf("the owner, where they were before: %s", res.Status)
	}
}

func TestTrafficMistakesHaveTheirPlaces(t *testing.T) {
	f := read(t, `
inspect_memory: 1MiB
geo: [/nowhere.mmdb]
lease: 5
class: {db-report: {at_once: -1}, Bad: {}}
sites:
  - host: shop.example.com
    upstream: BACKEND
    ban: {first: 2h, longest: 1h}
    decoy: {paths: [/.well-known/x]}
    challenge: {bits: 99}
    backend_login: {path: /login}
    routes:
      - {path: /a, limit: {by: [user, moon]}}
      - {path: /b, throttle: {class: db-rapport}}
`, "http://127.0.0.1:1")
	_, err := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Fatal("it is taken")
	}
	got := f.Explain(err).Error()
	for _, want := range []string{
		`merlon.yaml:2:17: inspect_memory "1MiB": must be from 16MiB`,
		`merlon.yaml:3:7: geo[0] "/nowhere.mmdb":`,
		`merlon.yaml:4:8: lease "5": needs redis`,
		`class.db-report.at_once "-1": must be from 1`,
		`class.Bad`,
		`ban.longest "1h0m0s"`,
		`decoy.paths[0] "/.well-known/x"`,
		`challenge.bits "99"`,
		`backend_login.user_field`,
		`sites[0].routes[0].limit.by "moon"`,
		`sites[0].routes[1].throttle.class "db-rapport": must be one of the classes`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not tell %s:\n%s", want, got)
		}
	}
}

func TestChallengePagesAreReserved(t *testing.T) {
	f := read(t, shop+"    routes: [{path: /.merlon/challenge/x}]\n", "http://127.0.0.1:1")
	if _, err := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), challenge.Prefix) {
		t.Errorf("%v", err)
	}
}

// Bans and limits of a configuration outlive a reload.
func TestBansOutliveAReload(t *testing.T) {
	f := read(t, shop, newBackend(t, "app"))
	f.Listen = config.Listen{InsecureHTTP: "127.0.0.1:0"}
	s, err := gateway.NewServer(t.Context(), f, slog.New(slog.DiscardHandler), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(t.Context()) })
	ask := func(path string) int {
		hr, err := http.NewRequest("GET", "http://"+s.Addr("insecure_http")+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		hr.Host = "shop.example.com"
		res, err := http.DefaultClient.Do(hr)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	if got := ask("/.env"); got != 404 {
		t.Fatal(got)
	}
	if err := s.Reload(f); err != nil {
		t.Fatal(err)
	}
	if got := ask("/"); got != 403 {
		t.Errorf("after a reload: %d", got)
	}
}

// A limit by who is asking holds also where nobody can sign in: by client.
func TestLimitByUserWithoutPeople(t *testing.T) {
	g := open(t, read(t, shop+"    limit: {rate: 3/h, by: user}\n", newBackend(t, "app")))
	passed := map[string]int{}
	for range 5 {
		for _, from := range []string{"198.51.100.1", "198.51.100.2"} {
			if g.send("GET", "/", "", "X-From: "+from).StatusCode == 200 {
				passed[from]++
			}
		}
	}
	if passed["198.51.100.1"] != 3 || passed["198.51.100.2"] != 3 {
		t.Errorf("let through: %v, want 3 of each", passed)
	}
}

// Scanners ask by address, and for hosts that nobody serves. What they do there
// bans them at the sites, too.
func TestStrangersAreBanned(t *testing.T) {
	const scanner, office = "X-From: 198.51.100.1", "X-From: 198.51.100.2"
	file := "limit: {burst: 40, rate: 1/s}\nban: {errors: 20, within: 1h, first: 1h, allow: [198.51.100.9]}\n" + shop
	at := func(g *gate, host, path, from string, fields ...string) int {
		return g.send("GET", path, "", append(fields, "Host: "+host, from)...).StatusCode
	}
	for name, attack := range map[string]func(g *gate, from string){
		"a decoy":                  func(g *gate, from string) { at(g, "192.0.2.80", "/.env", from) },
		"a decoy in other letters": func(g *gate, from string) { at(g, "192.0.2.80", "/%2e%65nv", from) },
		"no host at all":           func(g *gate, from string) { at(g, "", "/.git/config", from) },
		"looking around": func(g *gate, from string) {
			for i := range 25 {
				at(g, "192.0.2.80", "/admin"+strconv.Itoa(i), from)
			}
		},
		"a flood": func(g *gate, from string) {
			for range 700 {
				at(g, "unknown.example", "/", from)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := open(t, read(t, file, newBackend(t, "app")))
			attack(g, scanner)
			if got := at(g, "shop.example.com", "/", scanner); got != 403 {
				t.Errorf("the scanner at a site: %d", got)
			}
			if got := at(g, "192.0.2.80", "/", scanner); got != 403 {
				t.Errorf("the scanner again: %d", got)
			}
			if got := at(g, "shop.example.com", "/", office); got != 200 {
				t.Errorf("somebody else: %d", got)
			}
			g = open(t, read(t, file, newBackend(t, "app")))
			attack(g, "X-From: 198.51.100.9")
			if got := at(g, "shop.example.com", "/", "X-From: 198.51.100.9"); got != 200 {
				t.Errorf("an address that is never banned: %d", got)
			}
		})
	}
	t.Run("what is no scanner", func(t *testing.T) {
		g := open(t, read(t, file, newBackend(t, "app")))
		for range 30 { // a balancer's health check
			if got := at(g, "192.0.2.80", "/", office); got != 421 {
				t.Fatalf("no site: %d", got)
			}
		}
		// A page that wants its visitors banned.
		at(g, "old.example.com", "/.env", office, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors")
		if got := at(g, "shop.example.com", "/", office); got != 200 {
			t.Errorf("at the site: %d", got)
		}
	})
	t.Run("monitored", func(t *testing.T) {
		g := open(t, read(t, "monitor: [all]\n"+file, newBackend(t, "app")))
		for _, path := range []string{"/.env", "/"} {
			if got := at(g, "192.0.2.80", path, scanner); got != 421 {
				t.Errorf("%s: %d, want 421 whatever is monitored", path, got)
			}
		}
	})
}
