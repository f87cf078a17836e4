package demo_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/internal/demo"
)

func newShop(t *testing.T) *demo.Shop {
	t.Helper()
	shop, err := demo.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shop.Close() })
	return shop
}

// open serves a new shop on loopback.
func open(t *testing.T) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(newShop(t))
	t.Cleanup(srv.Close)
	return srv
}

func body(t *testing.T, address string) (int, string) {
	t.Helper()
	res, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestEveryPageOpens(t *testing.T) {
	srv := open(t)
	for path, want := range map[string]string{
		"/": "On the shelves", "/product/storm-teapot": "Storm teapot", "/search": "Everything",
		"/search?q=honey": "Heather honey", "/login": "Log in", "/register": "Open an account",
		"/tools": "Shop tools", "/import": "Import a picture", "/holes": "deliberate",
		"/account": "Log in", "/orders/1001": "Log in", "/transfer": "Log in",
		"/static/shop.css": "prefers-color-scheme", "/static/img/gull.svg": "<svg",
	} {
		if code, text := body(t, srv.URL+path); code != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%s: status %d, without %q:\n%.400s", path, code, want, text)
		}
	}
	for path, want := range map[string]int{
		"/product/none": http.StatusNotFound, "/nowhere": http.StatusNotFound, "/static/": http.StatusNotFound,
		"/static/img/": http.StatusNotFound, "/admin": http.StatusForbidden,
	} {
		if code, _ := body(t, srv.URL+path); code != want {
			t.Errorf("%s: status %d, want %d", path, code, want)
		}
	}
}

// The pages work under a policy that allows nothing but the shop's own files.
func TestPagesNeedNothingInline(t *testing.T) {
	inline := regexp.MustCompile(`(?i)<script|<style|\sstyle=|\son[a-z]+=|https?://|javascript:`)
	err := filepath.WalkDir("templates", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".html") {
			return err
		}
		text, err := os.ReadFile(path)
		if m := inline.FindString(strings.ReplaceAll(string(text), ">http://images.example", "")); m != "" {
			t.Errorf("%s holds %q", path, m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryProductHasItsPicture(t *testing.T) {
	srv := open(t)
	_, text := body(t, srv.URL+"/")
	pictures := regexp.MustCompile(`src="(/static/img/[^"]+)" alt="[^"]+"`).FindAllStringSubmatch(text, -1)
	if len(pictures) < 8 {
		t.Fatalf("%d pictures with a description, want at least 8", len(pictures))
	}
	for _, p := range pictures {
		if code, _ := body(t, srv.URL+p[1]); code != http.StatusOK {
			t.Errorf("%s: status %d", p[1], code)
		}
	}
}

type addr struct{ network, text string }

func (a addr) Network() string { return a.network }
func (a addr) String() string  { return a.text }

func TestAnswersOnLoopbackOnly(t *testing.T) {
	shop := newShop(t)
	for _, c := range []struct {
		local net.Addr
		want  int
	}{
		{addr{"tcp", "127.0.0.1:80"}, http.StatusOK},
		{addr{"tcp", "127.9.9.9:80"}, http.StatusOK},
		{addr{"tcp", "[::1]:80"}, http.StatusOK},
		{addr{"unix", "/run/shop.sock"}, http.StatusOK},
		{addr{"tcp", "192.0.2.7:80"}, http.StatusForbidden},
		{addr{"tcp", "[2001:db8::1]:80"}, http.StatusForbidden},
		{addr{"tcp", "0.0.0.0:80"}, http.StatusForbidden},
		{addr{"tcp", "nonsense"}, http.StatusForbidden},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, c.local))
		w := httptest.NewRecorder()
		shop.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("arrived on %v: status %d, want %d", c.local, w.Code, c.want)
		}
	}
}

// What injected SQL may do ends at the database in memory.
func TestInjectedSQLLeavesNoFile(t *testing.T) {
	srv := open(t)
	dir := t.TempDir()
	for _, statement := range []string{
		"ATTACH DATABASE '" + dir + "/a.db' AS x; CREATE TABLE x.t (a); INSERT INTO x.t VALUES (1)",
		"ATTACH DATABASE 'file:" + dir + "/u.db?vfs=unix' AS x; CREATE TABLE x.t (a); INSERT INTO x.t VALUES (1)",
		"VACUUM INTO '" + dir + "/v.db'",
		"VACUUM INTO 'file:" + dir + "/w.db?vfs=unix'",
		"PRAGMA temp_store_directory = '" + dir + "'; PRAGMA temp_store = FILE; CREATE TEMP TABLE t (a); INSERT INTO t VALUES (1)",
		"SELECT load_extension('" + dir + "/x.so')",
	} {
		body(t, srv.URL+"/search?q="+url.QueryEscape("x'; "+statement+" --"))
		body(t, srv.URL+"/api/stock?product="+url.QueryEscape("1; "+statement))
		body(t, srv.URL+"/api/stock?product="+url.QueryEscape("1; COMMIT; "+statement))
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		t.Errorf("injected SQL left %s", f.Name())
	}
	if code, _ := body(t, srv.URL+"/"); code != http.StatusOK {
		t.Errorf("the shop did not survive: status %d", code)
	}
}

// A transaction that injected SQL leaves open must not lock others out.
func TestInjectedTransactionIsUndone(t *testing.T) {
	srv := open(t)
	body(t, srv.URL+"/search?q="+url.QueryEscape("x'; BEGIN EXCLUSIVE; DELETE FROM products --"))
	if code, text := body(t, srv.URL+"/"); code != http.StatusOK || !strings.Contains(text, "Harbour kettle") {
		t.Errorf("the shop afterwards: status %d", code)
	}
	res, err := http.PostForm(srv.URL+"/register", url.Values{"username": {"ida"}, "password": {"x"}})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.Request.URL.Path == "/register" {
		t.Errorf("no account can be opened afterwards: status %d", res.StatusCode)
	}
}

// A query that never ends must not end the shop.
func TestInjectedSQLIsBounded(t *testing.T) {
	srv := open(t)
	endless := "0 UNION ALL SELECT * FROM (WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n) SELECT count(*) FROM n)"
	if code, _ := body(t, srv.URL+"/api/stock?product="+url.QueryEscape(endless)); code != http.StatusInternalServerError {
		t.Errorf("an endless query: status %d, want it cut off with 500", code)
	}
	if code, text := body(t, srv.URL+"/"); code != http.StatusOK || !strings.Contains(text, "Harbour kettle") {
		t.Errorf("the shop afterwards: status %d", code)
	}
}

func TestCommandsStayOnThePretendMachine(t *testing.T) {
	srv := open(t)
	ping := func(host string) string {
		t.Helper()
		res, err := http.PostForm(srv.URL+"/tools/ping", url.Values{"host": {host}})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for host, want := range map[string]string{
		"x; id":                       "uid=33(www-data)",
		"x && cat /etc/hostname":      "shop-web-1",
		"x | ls /srv/shop":            "app.js\ndownloads\nshop.env",
		"x; rm -rf /; ls /etc":        "No such file or directory",
		"x; cat downloads/care.txt":   "Wash stoneware",
		"x; curl http://evil.example": "curl: not found",
		"x; touch " + t.TempDir():     "touch: not found",
		strings.Repeat("; id", 5000):  "uid=33",
	} {
		if got := ping(host); !strings.Contains(got, want) {
			t.Errorf("ping %.60s: without %q:\n%.900s", host, want, got[strings.Index(got, "<pre"):])
		}
	}
	if got := ping("x; cat /etc/passwd"); strings.Contains(got, os.Getenv("HOME")+":/bin/sh") || !strings.Contains(got, "keeper:x:1000") {
		t.Error("the machine's own /etc/passwd is shown, or the pretend one is not")
	}
}

func TestTheNetworkIsPretended(t *testing.T) {
	asked := false
	real := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer real.Close()
	srv := open(t)
	for _, address := range []string{real.URL, "http://localhost:" + real.URL[strings.LastIndexByte(real.URL, ':')+1:], "file:///etc/hosts", "http://", "%zz", ""} {
		body(t, srv.URL+"/import?url="+url.QueryEscape(address))
		body(t, srv.URL+"/import/picture?url="+url.QueryEscape(address))
	}
	if asked {
		t.Error("the shop reached a real server")
	}
	if _, text := body(t, srv.URL+"/import/picture?url="+url.QueryEscape("http://images.example/pic.svg")); !strings.HasPrefix(text, "<svg") {
		t.Errorf("the picture of images.example is %.40q", text)
	}
}

func TestPutEverythingBack(t *testing.T) {
	srv := open(t)
	body(t, srv.URL+"/search?q="+url.QueryEscape("x'; DROP TABLE products --"))
	if code, text := body(t, srv.URL+"/"); code != http.StatusInternalServerError || !strings.Contains(text, "no such table") {
		t.Fatalf("after DROP TABLE: status %d", code)
	}
	res, err := http.PostForm(srv.URL+"/tools/reset", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if code, _ := body(t, srv.URL+"/"); code != http.StatusOK {
		t.Errorf("after the reset: status %d", code)
	}
}

func TestThingsToTryWorkOnTheBareShop(t *testing.T) {
	shop := newShop(t)
	srv := httptest.NewServer(shop)
	defer srv.Close()
	for _, thing := range shop.Things() {
		if thing.Title == "" || thing.Look == "" {
			t.Errorf("%+v does not say what it is or what to look for", thing)
		}
		if thing.Body == "" {
			for _, path := range []string{thing.Path, thing.Then} {
				if code, _ := body(t, srv.URL+path); code != http.StatusOK {
					t.Errorf("%s: status %d", path, code)
				}
			}
			continue
		}
		res, err := http.Post(srv.URL+thing.Path, "application/json", strings.NewReader(thing.Body))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), thing.Look) {
			t.Errorf("%s: %s, without %s", thing.Title, b, thing.Look)
		}
	}
}

func TestCommandsToType(t *testing.T) {
	for want, thing := range map[string]demo.Thing{
		`https://h/x`: {Path: "/x"},
		`curl --cacert ca.pem -H 'Content-Type: application/json' -d '{"a": "it'\''s"}' https://h/x`:                           {Path: "/x", Body: `{"a": "it's"}`},
		`curl --cacert ca.pem --interface 127.0.0.66 -s https://h/x https://h/y`:                                               {Path: "/x", Then: "/y", From: demo.Scanner},
		`seq 3 | xargs -P 30 -I{} curl --cacert ca.pem -s -o /dev/null -w '%{http_code}\n' 'https://h/x?q=1' | sort | uniq -c`: {Path: "/x?q=1", Times: 3},
	} {
		if got := thing.At("https://h/", "--cacert ca.pem"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
