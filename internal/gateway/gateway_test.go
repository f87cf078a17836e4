package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/ledger"
)

// read parses a configuration in which BACKEND stands for a backend, and lays
// its data in a folder of the test's own.
func read(t testing.TB, text, backend string) *config.File {
	t.Helper()
	f, err := config.Parse("merlon.yaml", []byte(strings.ReplaceAll(text, "BACKEND", backend)))
	if err != nil {
		t.Fatal(err)
	}
	f.Data = t.TempDir()
	if err := f.Defaults(); err != nil {
		t.Fatal(err)
	}
	return f
}

// gate is a gateway with an event log in front of a backend that answers with
// the path and body it was sent.
type gate struct {
	*gateway.Gateway
	dir string
	log *ledger.Log
}

func newBackend(t testing.TB, name string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "old/1.0")
		w.Header().Set("Content-Type", "text/plain")
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, name+" "+r.URL.EscapedPath()+" "+string(body))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func open(t testing.TB, f *config.File) *gate {
	t.Helper()
	log, err := ledger.Open(f.Data, f.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler), Ledger: log})
	if err != nil {
		t.Fatal(f.Explain(err))
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		g.Close(ctx)
		_ = log.Close() // closed already where events were read
	})
	return &gate{g, f.Data, log}
}

func (g *gate) ask(method, target, host, body string) *http.Response {
	hr := httptest.NewRequest(method, target, strings.NewReader(body))
	hr.Host = host
	hr.Header.Set("User-Agent", "test/1.0")
	hr.Header.Set("Accept", "*/*")
	if body != "" {
		hr.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, hr)
	return w.Result()
}

func text(t testing.TB, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// events closes the log and returns what is in it.
func (g *gate) events(t testing.TB) (all []ledger.Event) {
	t.Helper()
	if err := g.log.Close(); err != nil {
		t.Fatal(err)
	}
	for e, err := range ledger.Query(g.dir, ledger.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Guard != "" || e.ID != "" {
			all = append(all, e)
		}
	}
	return all
}

const shop = `
sites:
  - host: shop.example.com
    upstream: BACKEND
`

func TestRefusalHasOneIdEverywhere(t *testing.T) {
	g := open(t, read(t, shop, newBackend(t, "app")))
	if res := g.ask("GET", "/?q=tea", "shop.example.com", ""); res.StatusCode != 200 || text(t, res) != "app / " {
		t.Fatalf("an ordinary request: %s", res.Status)
	}
	res := g.ask("GET", "/?q=1%27%20OR%20%271%27=%271%27%20UNION%20SELECT%20password%20FROM%20users--", "shop.example.com", "")
	var problem struct {
		Type, Title, ID string
		Status          int
	}
	if err := json.Unmarshal([]byte(text(t, res)), &problem); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 403 || problem.Status != 403 || problem.ID == "" || res.Header.Get("X-Request-Id") != problem.ID ||
		res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s %+v %v", res.Status, problem, res.Header)
	}
	events := g.events(t)
	if len(events) != 1 {
		t.Fatalf("%d events, want one: %+v", len(events), events)
	}
	if e := events[0]; e.ID != problem.ID || e.Guard != "waf" || e.Reason != "attack" || e.Status != 403 || e.Kind != ledger.Refusal {
		t.Errorf("%+v", e)
	}
	if e, err := ledger.Find(g.dir, problem.ID); err != nil || e.ID != problem.ID {
		t.Errorf("found by its id: %+v, %v", e, err)
	}
}

func TestBrowsersAreToldTheSameWithEveryAnswer(t *testing.T) {
	g := open(t, read(t, shop, newBackend(t, "app")))
	for name, res := range map[string]*http.Response{
		"an answer":      g.ask("GET", "/", "shop.example.com", ""),
		"a refusal":      g.ask("TRACE", "/", "shop.example.com", ""),
		"a stranger":     g.ask("GET", "/", "evil.example", ""),
		"a broken path":  g.ask("GET", "/a/%2e%2e/b", "shop.example.com", ""),
		"an odd address": g.ask("GET", "/", "shop_.-example", ""),
	} {
		for _, field := range []string{"X-Content-Type-Options", "Referrer-Policy", "X-Request-Id", "Cross-Origin-Opener-Policy"} {
			if len(res.Header.Values(field)) != 1 {
				t.Errorf("%s: %s is %q", name, field, res.Header.Values(field))
			}
		}
		if s := res.Header.Get("Server"); s != "" {
			t.Errorf("%s: Server is %q", name, s)
		}
	}
}

func TestStrangersAreMisdirected(t *testing.T) {
	g := open(t, read(t, `
sites:
  - {host: [shop.example.com, "192.0.2.1"], upstream: BACKEND}
  - {host: "*.example.net", upstream: BACKEND}
`, newBackend(t, "app")))
	for _, c := range []struct {
		host string
		want int
	}{
		{"shop.example.com", 200},
		{"SHOP.example.com", 200},
		{"shop.example.com.", 200},
		{"shop.example.com:8443", 200},
		{"192.0.2.1", 200},
		{"a.example.net", 200},
		{"example.net", 421},
		{"a.b.example.net", 421},
		{"www.shop.example.com", 421},
		{"example.com", 421},
		{"shop.example.com@evil.example", 421},
		{"192.0.2.2", 421},
		{"", 421},
	} {
		if res := g.ask("GET", "/", c.host, ""); res.StatusCode != c.want {
			t.Errorf("%q: %s, want %d", c.host, res.Status, c.want)
		}
	}
	for _, e := range g.events(t) {
		if e.Guard != "origin" || e.Reason != "unknown-host" {
			t.Errorf("%+v", e)
		}
	}
}

func TestTheMostSpecificHostAndRouteWin(t *testing.T) {
	f := read(t, `
sites:
  - {host: "*", upstream: BACKEND}
  - {host: "*.example.com", upstream: BACKEND}
  - host: shop.example.com
    upstream: BACKEND
    routes:
      - {path: /**, upstream: BACKEND}
      - {path: /api/**, upstream: BACKEND}
      - {path: /api/admin/**, upstream: BACKEND}
      - {path: /api/*/photo, upstream: BACKEND}
      - {path: /api/health, upstream: BACKEND}
`, "http://127.0.0.1:1")
	f.Sites[0].Upstream.To = []string{newBackend(t, "any")}
	f.Sites[1].Upstream.To = []string{newBackend(t, "wild")}
	for i, name := range []string{"rest", "api", "admin", "photo", "health"} {
		f.Sites[2].Routes[i].Upstream.To = []string{newBackend(t, name)}
	}
	g := open(t, f)
	for _, c := range []struct{ host, path, want string }{
		{"other.example", "/api/x", "any"},
		{"a.example.com", "/api/x", "wild"},
		{"shop.example.com", "/", "rest"},
		{"shop.example.com", "/apis", "rest"},
		{"shop.example.com", "/api/x", "api"},
		{"shop.example.com", "/api", "api"},
		{"shop.example.com", "/api/admin/x", "admin"},
		{"shop.example.com", "/api/%61dmin/x", "admin"},
		{"shop.example.com", "/api/7/photo", "photo"},
		{"shop.example.com", "/api/health", "health"},
		{"shop.example.com", "/api/health/x", "api"},
	} {
		res := g.ask("GET", c.path, c.host, "")
		if got, _, _ := strings.Cut(text(t, res), " "); got != c.want {
			t.Errorf("%s%s: %s (%s), want %s", c.host, c.path, got, res.Status, c.want)
		}
	}
}

func TestNoSpellingEscapesARoute(t *testing.T) {
	backend := newBackend(t, "app")
	routed := open(t, read(t, shop+"    routes:\n      - {path: /admin/**, address: {allow: [10.8.0.0/16]}}\n", backend))
	plain := open(t, read(t, shop, backend))
	for _, c := range []struct {
		path   string
		routed int
	}{
		{"/admin/x", 403},
		{"/%61dmin/x", 403},
		{"/admin", 403},
		{"//admin/x", 400},
		{"/ADMIN/x", 400},
		{"/adm%C4%B1n/x", 400}, // Unicode's small letters with the capital I
		{"/admin;x/y", 400},
		{"/admin%2fx", 400},
		{"/administer", 200},
		{"/shop/Admin", 200},
		{"/Other//x;y", 200},
	} {
		if res := routed.ask("GET", c.path, "shop.example.com", ""); res.StatusCode != c.routed {
			t.Errorf("%s where /admin/** is a route: %s, want %d", c.path, res.Status, c.routed)
		}
		if res := plain.ask("GET", c.path, "shop.example.com", ""); res.StatusCode != 200 {
			t.Errorf("%s where there are no routes: %s", c.path, res.Status)
		}
	}
	for _, e := range routed.events(t) {
		if want := map[int]string{400: "path-conflict", 403: "address-denied"}[e.Status]; string(e.Reason) != want {
			t.Errorf("%s %d: %s, want %s", e.Path, e.Status, e.Reason, want)
		}
	}
}

func TestGuardsAreAskedInOrder(t *testing.T) {
	g := open(t, read(t, "monitor: [all]\n"+shop, newBackend(t, "app")))
	hr := httptest.NewRequest("POST", "/?q=<script>alert(1)</script>", strings.NewReader("a=b"))
	hr.Host = "shop.example.com"
	hr.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	hr.Header.Set("Sec-Fetch-Site", "cross-site")
	hr.Header.Set("Origin", "https://evil.example")
	w := httptest.NewRecorder()
	g.ServeHTTP(w, hr)
	if w.Code != 200 || w.Body.String() != "app / a=b" {
		t.Errorf("a monitored request: %d %s", w.Code, w.Body)
	}
	events := g.events(t)
	if len(events) != 1 || events[0].Kind != ledger.Monitored {
		t.Fatalf("%+v", events)
	}
	var got []string
	for _, v := range events[0].Verdicts {
		got = append(got, v.Guard)
	}
	if want := "ban origin decoy limit challenge waf csrf"; !strings.HasPrefix(strings.Join(got, " "), want) {
		t.Errorf("asked %q, want %s", got, want)
	}
}

func TestOffAsksNobody(t *testing.T) {
	g := open(t, read(t, "off: [waf]\n"+shop, newBackend(t, "app")))
	if res := g.ask("GET", "/?q=<script>alert(1)</script>", "shop.example.com", ""); res.StatusCode != 200 {
		t.Error(res.Status)
	}
	if all := g.events(t); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	if s := g.Sites(); strings.Join(s[0].Guards, " ") != "ban origin decoy limit challenge csrf" || !s[0].Headers {
		t.Errorf("%+v", s)
	}
}

func TestNewTellsEveryMistake(t *testing.T) {
	f := read(t, `
idle_timeout: 1ns
ledger: {sync: sometimes}
off: [wuff]
waf: {exclude: [{name: q}]}
sites:
  - host: [a.example.com, a.example.com, "a b"]
    upstream: ftp://x
    waf: {exclude: [{rule: 942100}, {name: q}]}
    routes:
      - path: api
      - path: /x/**
      - path: /x/**
  - host: a.example.com
  - host: b.example.com
    routes:
      - {path: /y, upstream: BACKEND}
      - path: /z
`, "http://127.0.0.1:1")
	f.Listen = config.Listen{HTTPS: "127.0.0.1:1", HTTP: "127.0.0.1:1", Admin: "x"}
	_, err := gateway.New(f, gateway.Env{Log: slog.New(slog.DiscardHandler)})
	got := f.Explain(err).Error()
	for _, want := range []string{
		"merlon.yaml: listen.http \"127.0.0.1:1\": is the address of listen.https already",
		"listen.admin \"x\": must be an address",
		"merlon.yaml:2:15: idle_timeout \"1ns\": must be from",
		"merlon.yaml:3:16: ledger.sync \"sometimes\": must be",
		"merlon.yaml:4:7: off[0] \"wuff\": must be a guard",
		"merlon.yaml:5:18: waf.exclude[0]: must name",
		"merlon.yaml:9:38: sites[0].waf.exclude[1]: must name",
		"sites[0].host[1] \"a.example.com\": stands in this site already",
		"sites[0].host[2] \"a b\": must be a host name",
		"merlon.yaml:8:15: sites[0].upstream \"ftp://x\": must be https",
		"merlon.yaml:11:15: sites[0].routes[0].path \"api\": must begin with",
		"merlon.yaml:13:15: sites[0].routes[2].path \"/x/**\": stands in this site already",
		"merlon.yaml:14:11: sites[1].host \"a.example.com\": is served by another site already",
		"sites[1].upstream: must be set",
		"sites[2].upstream: must be set",
	} {
		if strings.Count(got, want) != 1 {
			t.Errorf("%d times: %s", strings.Count(got, want), want)
		}
	}
	if t.Failed() {
		t.Log("\n" + got)
	}
}

func serve(t *testing.T, f *config.File) *gateway.Server {
	t.Helper()
	s, err := gateway.NewServer(context.Background(), f, slog.New(slog.DiscardHandler), "test")
	if err != nil {
		t.Fatal(f.Explain(err))
	}
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

const local = "listen: {https: '127.0.0.1:0', http: off, admin: '127.0.0.1:0'}\n"

func TestReloadKeepsTheOldGatewayOnAMistake(t *testing.T) {
	backend := newBackend(t, "app")
	f := read(t, local+shop, backend)
	s := serve(t, f)
	old := s.Gateway()
	again := func(text string) *config.File {
		next := read(t, text, backend)
		next.Data = f.Data
		return next
	}
	for name, c := range map[string]struct{ text, want string }{
		"a mistake":       {local + "waf: {paranoia: 9}\n" + shop, "sites[0].waf.paranoia"},
		"another address": {"listen: {https: '127.0.0.1:1', http: off, admin: '127.0.0.1:0'}\n" + shop, "listen.https"},
	} {
		err := s.Reload(again(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || s.Gateway() != old {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	moved := again(local + shop)
	moved.Data = t.TempDir()
	if err := s.Reload(moved); err == nil || !strings.Contains(err.Error(), "data") || s.Gateway() != old {
		t.Errorf("another data folder: %v", err)
	}
	if err := s.Reload(again(local + "off: [waf]\n" + shop)); err != nil || s.Gateway() == old {
		t.Errorf("a good file: %v", err)
	}
}

func TestATakenPortIsNamed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f := read(t, local+shop, "http://127.0.0.1:1")
	f.Listen.HTTPS = ln.Addr().String()
	_, err = gateway.NewServer(context.Background(), f, slog.New(slog.DiscardHandler), "test")
	if err == nil || !strings.Contains(err.Error(), `listen.https "`+ln.Addr().String()+`": `) || !strings.Contains(err.Error(), "address already in use") {
		t.Error(err)
	}
}

func TestAdminAnswersByAddressOnly(t *testing.T) {
	s := serve(t, read(t, local+shop, newBackend(t, "app")))
	for _, c := range []struct {
		path, host string
		want       int
		body       string
	}{
		{"/healthz", "", 200, `"ok"`},
		{"/readyz", "localhost", 200, `"ready"`},
		{"/metrics", "", 200, "merlon_build_info"},
		{"/metrics", "evil.example", 421, "by its address"},
		{"/debug/pprof/", "", 404, ""},
	} {
		hr, err := http.NewRequest("GET", "http://"+s.Addr("admin")+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		hr.Host = c.host
		res, err := http.DefaultClient.Do(hr)
		if err != nil {
			t.Fatal(err)
		}
		if body := text(t, res); res.StatusCode != c.want || !strings.Contains(body, c.body) {
			t.Errorf("%s as %q: %s %s", c.path, c.host, res.Status, body)
		}
		_ = res.Body.Close()
	}
}

func TestMistakesMakeNothingOnDisk(t *testing.T) {
	f := read(t, local+"sites: [{host: a}]", "")
	var made bytes.Buffer
	_, err := gateway.NewServer(context.Background(), f, slog.New(slog.NewTextHandler(&made, nil)), "test")
	if err == nil {
		t.Fatal("a site without an upstream is served")
	}
	if _, err := ledger.Find(f.Data, "X"); !errors.Is(err, ledger.ErrNotFound) || made.Len() > 0 {
		t.Errorf("%v %s", err, &made)
	}
}
