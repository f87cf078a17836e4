package decoy_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/decoy"
	"github.com/merlon-dev/merlon/merlontest"
)

func guard(t testing.TB, c decoy.Config) *decoy.Guard {
	t.Helper()
	g, err := decoy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func path(p string) func(*merlon.Request) { return func(r *merlon.Request) { r.Path = p } }

func TestCheck(t *testing.T) {
	c := decoy.Config{Paths: []string{"/Backup.tar.gz", "/trap/**", "/alte-Bücher/**"}, Except: []string{"/.ENV"}}
	const no = http.StatusNotFound
	merlontest.Run(t, func(t *testing.T) merlon.Guard { return guard(t, c) }, merlontest.Options{}, []merlontest.Case{
		{Name: "a page", Request: "GET /", Want: decoy.NoDecoy},
		{Name: "a form", Request: "POST /order\n\na=1", Want: decoy.NoDecoy},
		{Name: "what certificates are proved by", Request: "GET /.well-known/acme-challenge/x", Want: decoy.NoDecoy},
		{Name: "security.txt", Request: "GET /.well-known/security.txt", Want: decoy.NoDecoy},
		{Name: "what crawlers read", Request: "GET /robots.txt", Want: decoy.NoDecoy},
		{Name: "what browsers read", Request: "GET /favicon.ico", Want: decoy.NoDecoy},
		{Name: "WordPress", Request: "GET /wp-login.php", Want: decoy.NoDecoy},
		{Name: "a clone of the site's repository", Request: "GET /.git/info/refs?service=git-upload-pack", Want: decoy.NoDecoy},
		{Name: "a page about one", Request: "GET /help/.git/config", Want: decoy.NoDecoy},
		{Name: "in the query", Request: "GET /search?q=/.git/config", Want: decoy.NoDecoy},
		{Name: "a longer name", Request: "GET /.git/configuration", Want: decoy.NoDecoy},
		{Name: "one that the application serves", Request: "GET /.env", Want: decoy.NoDecoy},
		{Name: "beside a trap", Request: "GET /trapper", Want: decoy.NoDecoy},

		{Name: "the repository", Request: "GET /.git/config", Want: decoy.DecoyTouched, Status: no},
		{Name: "in capitals", Request: "GET /.GIT/Config", Want: decoy.DecoyTouched, Status: no},
		{Name: "by another method", Request: "POST /.git/config\n\na=1", Want: decoy.DecoyTouched, Status: no},
		{Name: "a hidden letter", Request: "GET /", Prepare: path("/.git/config"), Want: decoy.DecoyTouched, Status: no}, // %67 is decoded before
		{Name: "the system's users", Request: "GET /etc/passwd", Want: decoy.DecoyTouched, Status: no},
		{Name: "a copy of WordPress's secrets", Request: "GET /wp-config.php.bak", Want: decoy.DecoyTouched, Status: no},
		{Name: "one of the site's own", Request: "GET /backup.TAR.gz", Want: decoy.DecoyTouched, Status: no},
		{Name: "a trap", Request: "GET /trap/a/b", Want: decoy.DecoyTouched, Status: no},
		{Name: "a trap's folder", Request: "GET /Trap", Want: decoy.DecoyTouched, Status: no},
		{Name: "a slash too many", Request: "GET //.git//config", Want: decoy.DecoyTouched, Status: no},
		{Name: "a slash at the end", Request: "GET /backup.tar.gz/", Want: decoy.DecoyTouched, Status: no},
		{Name: "a parameter", Request: "GET /.git;x=1/config;y", Want: decoy.DecoyTouched, Status: no},
		{Name: "an encoded slash", Request: "GET /", Prepare: path("/.git%2Fconfig"), Want: decoy.DecoyTouched, Status: no}, // as it stays
		{Name: "a dot at the end", Request: "GET /.git/config.", Want: decoy.DecoyTouched, Status: no},
		{Name: "a blank at the end", Request: "GET /", Prepare: path("/.git/config "), Want: decoy.DecoyTouched, Status: no},
		{Name: "below a trap, loosely", Request: "GET //trap;a/b/", Want: decoy.DecoyTouched, Status: no},
		{Name: "slashes only", Request: "GET ///", Want: decoy.NoDecoy},
		{Name: "a percent sign", Request: "GET /", Prepare: path("/100%/of.;it/"), Want: decoy.NoDecoy},
		{Name: "another alphabet", Request: "GET /", Prepare: path("/ALTE-BÜCHER/1"), Want: decoy.DecoyTouched, Status: no},
	})
}

// The client sees what it would see if there were nothing.
func TestLooksLikeNothing(t *testing.T) {
	mux := guard(t, decoy.Config{}).Middleware(http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		merlon.Respond(w, merlon.From(hr), merlon.Refuse(http.StatusNotFound, "nothing-there"))
	}))
	get := func(path string) (int, http.Header, string) {
		w := httptest.NewRecorder()
		hr := httptest.NewRequest("GET", path, nil)
		mux.ServeHTTP(w, hr)
		id := w.Header().Get("X-Request-Id")
		w.Header().Del("X-Request-Id")
		return w.Code, w.Header(), strings.ReplaceAll(w.Body.String(), id, "ID")
	}
	c1, h1, b1 := get("/.env")
	c2, h2, b2 := get("/not/there")
	ids := func(s string) string { // each has its own id
		i := strings.Index(s, `"instance"`)
		if i < 0 {
			i = len(s)
		}
		return s[:i]
	}
	if c1 != http.StatusNotFound || c1 != c2 || len(h1) != len(h2) || len(b1) != len(b2) || ids(b1) != ids(b2) {
		t.Errorf("%d %v %s\n%d %v %s", c1, h1, b1, c2, h2, b2)
	}
	if strings.Contains(b1, "decoy") {
		t.Errorf("the client is told: %s", b1)
	}
}

func TestFinding(t *testing.T) {
	d := guard(t, decoy.Config{}).Check(merlontest.Request(t, "GET /.ENV"))
	if len(d.Findings) != 1 || d.Findings[0].Rule != "/.env" || d.Findings[0].Value != "/.ENV" || d.Remedy != "decoy:\n  except: [\"/.env\"]" {
		t.Errorf("%+v", d)
	}
	if d := guard(t, decoy.Config{Except: []string{"/.env"}}).Check(merlontest.Request(t, "GET /.ENV")); !d.Passed() {
		t.Error("the remedy is none")
	}
	own := guard(t, decoy.Config{Paths: []string{"/trap/**"}})
	if d := own.Check(merlontest.Request(t, "GET /trap/"+strings.Repeat("ä", 4000))); d.Remedy != "" || d.Findings[0].Rule != "/trap/**" || len(d.Findings[0].Value) > 200 {
		t.Errorf("%+v", d)
	}
}

func TestConfig(t *testing.T) {
	for _, good := range []string{"/a", "/backup.zip", "/old/**", "/.well-known.txt", "/ä b"} {
		if _, err := decoy.New(decoy.Config{Paths: []string{good}}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	bad := []string{"", "a", "/", "/**", "/*", "/a*", "/a/*/b", "/a/**/b", "/%2e", "/a?b", "/a#b", `/a\b`, "/[a]", "/{a}", "/robots.txt", "/Favicon.ico",
		"/.well-known/**", "/.WELL-known/x", "/.merlon/**", "/.merlon/sign-in", "/\xff"}
	_, err := decoy.New(decoy.Config{Paths: bad, Except: []string{"/.env", "/index.html"}})
	if err == nil {
		t.Fatal("taken")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(bad)+1 || !strings.HasPrefix(lines[0], `except[1] "/index.html": must be a built-in decoy: /.aws/credentials, `) {
		t.Errorf("%d lines for %d mistakes:\n%v", len(lines), len(bad)+1, err)
	}
	for i, l := range lines[1:] {
		if !strings.HasPrefix(l, "paths[") || !strings.Contains(l, "must") {
			t.Errorf("%q: %s", bad[i], l)
		}
	}
	if _, err := decoy.New(decoy.Config{Paths: make([]string, 1001)}); err == nil || !strings.Contains(err.Error(), "at most 1000") {
		t.Errorf("%v", err)
	}
}

func FuzzNew(f *testing.F) {
	f.Add("/trap/**", "/trap/x")
	f.Add("/A", "/a")
	f.Fuzz(func(t *testing.T, decoyed, asked string) {
		g, err := decoy.New(decoy.Config{Paths: []string{decoyed}})
		if err != nil {
			return
		}
		r := merlontest.Request(t, "GET /")
		for _, never := range []string{"/", "/robots.txt", "/favicon.ico", "/.well-known/acme-challenge/x", "/.merlon/sign-in"} {
			if r.Path = never; !g.Check(r).Passed() {
				t.Errorf("%q takes %s", decoyed, never)
			}
		}
		folder, below := strings.CutSuffix(decoyed, "/**")
		r.Path = folder
		if g.Check(r).Passed() {
			t.Errorf("%q lets itself pass", decoyed)
		}
		r.Path = asked
		one, other := strings.ToLower(asked), strings.ToLower(decoyed)
		if refused := !g.Check(r).Passed(); refused && !below && one != other {
			if plain, err := decoy.New(decoy.Config{}); err == nil && plain.Check(r).Passed() {
				t.Errorf("%q takes %q", decoyed, asked)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	g := guard(b, decoy.Config{})
	r := merlontest.Request(b, "GET /products/42")
	b.ReportAllocs()
	for b.Loop() {
		if !g.Check(r).Passed() {
			b.Fatal()
		}
	}
}
