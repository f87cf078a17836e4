package upstream_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/upstream"
)

// FuzzTarget: whatever path and query are asked for, the backend reads the
// path that the guards did, and gets one request.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/", "/a%2fb", `/a%2fb"c`, "//x/y", "/a;b=c?d=e;f", "/%61pi/x", "/?a b HTTP/1.1", "/a\x7f", "/é", "/#x", "/%", "/a?%", "/a%00b", "/[x]{y}|^`", "*", "/?#/../admin"} {
		f.Add(s)
	}
	var got []*http.Request
	b := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = append(got, r) }))
	f.Cleanup(b.Close)
	p, err := upstream.New(upstream.Config{To: []string{b.URL}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Scheme != "" || !strings.HasPrefix(target, "/") {
			return
		}
		got = nil
		hr := httptest.NewRequest("GET", "/", nil)
		hr.URL, hr.RequestURI = u, target // as HTTP/2 gives it: h2 targets may hold more than h1's
		w := httptest.NewRecorder()
		p.Serve(w, merlon.NewRequest(hr), upstream.Call{})
		if w.Code != 200 || len(got) != 1 {
			t.Fatalf("%q: status %d, %d requests", target, w.Code, len(got))
		}
		if got[0].URL.Path != u.Path {
			t.Errorf("%q: the guards read %q, the backend %q", target, u.Path, got[0].URL.Path)
		}
		if want := strings.ToLower(u.EscapedPath()); strings.Count(want, "%2f") != strings.Count(strings.ToLower(got[0].URL.EscapedPath()), "%2f") && u.RawPath == "" {
			t.Errorf("%q: escaped slashes changed: %q", target, got[0].RequestURI)
		}
		if strings.ContainsAny(got[0].URL.RawQuery, " #\r\n") {
			t.Errorf("%q: query %q", target, got[0].URL.RawQuery)
		}
	})
}

// FuzzAddress: no address that New takes without insecure_cleartext is asked
// in cleartext anywhere but here.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"http://127.0.0.1", "http://localhost:80", "https://a", "http://127.1", "http://[::1%25lo]", "http://LOCALHOST", "unix:/x", "h2c://a", "http://127.0.0.1@evil.example", "http://127.0.0.1\\.evil.example", "http://localhost."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := upstream.New(upstream.Config{To: []string{s}})
		if err != nil {
			return
		}
		_ = p
		if strings.HasPrefix(s, "unix:/") || strings.HasPrefix(s, "h2c+unix:/") {
			return
		}
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(s)
		}
		name := strings.ToLower(u.Hostname())
		if u.Scheme != "https" && name != "localhost" && !strings.HasPrefix(name, "127.") && !strings.Contains(name, ":") {
			t.Errorf("%q leaves the machine in cleartext", s)
		}
		if u.User != nil || u.RawQuery != "" {
			t.Errorf("%q was taken", s)
		}
	})
}

// FuzzAcceptEncoding: a client is never sent a coding that it did not name or
// that it forbade.
func FuzzAcceptEncoding(f *testing.F) {
	for _, s := range []string{"gzip", "br;q=0, *", "zstd;q=0.5,gzip", "*;q=0", "gzip;q=nan", "x-gzip", ";q=1", strings.Repeat("br,", 1000)} {
		f.Add(s)
	}
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(page))
	}))
	f.Cleanup(b.Close)
	p, err := upstream.New(upstream.Config{To: []string{b.URL}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		hr := httptest.NewRequest("GET", "/", nil)
		hr.Header.Set("Accept-Encoding", accept)
		w := httptest.NewRecorder()
		p.Serve(w, merlon.NewRequest(hr), upstream.Call{Plain: true})
		coding, asked := w.Header().Get("Content-Encoding"), strings.ToLower(accept)
		if coding == "" {
			return
		}
		if !strings.Contains(asked, coding) && !strings.Contains(asked, "*") {
			t.Errorf("%q was answered with %s", accept, coding)
		}
		if strings.ReplaceAll(asked, " ", "") == coding+";q=0" {
			t.Errorf("%q was answered with the forbidden %s", accept, coding)
		}
		if decode(t, coding, w.Body.String()) != page {
			t.Errorf("%q: not the same page", accept)
		}
	})
}
