package upstream_test

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/upstream"
)

// A front is a small gateway: a server with a pool behind it.
type front struct {
	*httptest.Server
	pool *upstream.Pool

	mu     sync.Mutex
	failed []failure
}

var discard = log.New(io.Discard, "", 0)

type failure struct {
	merlon.Decision
	begun bool
}

type setup struct {
	h2, tls bool
	prepare func(*merlon.Request)
	call    upstream.Call
	ctx     func(context.Context) context.Context
}

func newFront(t testing.TB, c upstream.Config, s setup) *front {
	t.Helper()
	pool, err := upstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	pool.Start()
	f := &front{pool: pool}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		if s.ctx != nil {
			hr = hr.WithContext(s.ctx(hr.Context()))
		}
		r := merlon.NewRequest(hr)
		if s.prepare != nil {
			s.prepare(r)
		}
		call := s.call
		call.Failed = func(d merlon.Decision, begun bool) {
			f.mu.Lock()
			f.failed = append(f.failed, failure{d, begun})
			f.mu.Unlock()
			if !begun {
				merlon.Respond(w, r, d)
			}
		}
		pool.Serve(w, r, call)
	}))
	f.Config.ErrorLog = discard
	if s.h2 || s.tls {
		f.EnableHTTP2 = s.h2
		f.StartTLS()
	} else {
		f.Server.Start()
	}
	f.Client().Transport.(*http.Transport).DisableCompression = true
	f.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t.Cleanup(func() {
		f.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		pool.Close(ctx)
	})
	return f
}

// last waits for the newest failure.
func (f *front) last(t testing.TB) failure {
	t.Helper()
	for range 200 {
		f.mu.Lock()
		n := len(f.failed)
		var d failure
		if n > 0 {
			d = f.failed[n-1]
		}
		f.mu.Unlock()
		if n > 0 {
			return d
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no failure was told")
	return failure{}
}

func backend(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func get(t testing.TB, f *front, path string, header ...string) (*http.Response, string) {
	t.Helper()
	return do(t, f, http.MethodGet, path, nil, header...)
}

func do(t testing.TB, f *front, method, path string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	hr, err := http.NewRequest(method, f.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		hr.Header.Add(header[i], header[i+1])
	}
	res, err := f.Client().Do(hr)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestWhatABackendIsTold(t *testing.T) {
	var got *http.Request
	b := backend(t, func(_ http.ResponseWriter, r *http.Request) { got = r })
	f := newFront(t, upstream.Config{To: []string{b.URL}, StripPrefix: "/api"}, setup{prepare: func(r *merlon.Request) {
		r.ID = "ID-1"
		r.Identity = &merlon.Identity{Subject: "ann\r\nX: é", Groups: []string{"staff", "a,admin"}, Roles: []string{"100%"}}
	}})
	hr, _ := http.NewRequest("GET", f.URL+"/api/x", nil)
	hr.Host = "shop.example.com"
	for _, name := range []string{"X-Forwarded-For", "x_forwarded_for", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-Forwarded-Port",
		"Forwarded", "X-Real-IP", "X_Real-IP", "X-Request-Id", "Merlon-Subject", "merlon_subject", "Merlon-Groups", "Merlon-Roles", "Merlon-Anything", "HTTP2-Settings", "True-Client-IP"} {
		hr.Header[name] = []string{"spoofed"}
	}
	hr.Header.Set("Connection", "X-Forwarded-For, Merlon-Subject, X-Secret")
	hr.Header.Set("X-Secret", "hop by hop")
	hr.Header.Set("X-Other", "kept")
	hr.Header.Set("Te", "trailers")
	hr.Header.Set("Proxy-Authorization", "spoofed")
	res, err := f.Client().Do(hr)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	for name, values := range got.Header {
		for _, v := range values {
			if strings.Contains(v, "spoofed") || v == "hop by hop" {
				t.Errorf("%s: %s reached the backend", name, v)
			}
		}
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop.example.com",
		"X-Forwarded-Prefix": "/api", "X-Request-Id": "ID-1", "X-Other": "kept", "Te": "trailers",
		"Merlon-Subject": "ann%0D%0AX:%20%C3%A9", "Merlon-Groups": "staff,a%2Cadmin", "Merlon-Roles": "100%25",
	} {
		if v := got.Header[name]; len(v) != 1 || v[0] != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if got.Host != "shop.example.com" || got.URL.Path != "/x" {
		t.Errorf("host %q path %q", got.Host, got.URL.Path)
	}
}

func TestAnonymousHasNoIdentityHeaders(t *testing.T) {
	var got *http.Request
	b := backend(t, func(_ http.ResponseWriter, r *http.Request) { got = r })
	f := newFront(t, upstream.Config{To: []string{b.URL}, Host: "upstream"}, setup{tls: true})
	get(t, f, "/", "Merlon-Subject", "root")
	if _, ok := got.Header["Merlon-Subject"]; ok || got.Header.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("header %v", got.Header)
	}
	if "http://"+got.Host != b.URL {
		t.Errorf("host %q, want the backend's own", got.Host)
	}
}

func TestPath(t *testing.T) {
	var got string
	b := backend(t, func(_ http.ResponseWriter, r *http.Request) { got = r.RequestURI })
	for _, c := range []struct{ name, strip, add, target, want string }{
		{"as it came", "", "", "/a/b?x=1", "/a/b?x=1"},
		{"escapes stay", "", "", "/a%2fb/%41;p=1//c", "/a%2fb/%41;p=1//c"},
		{"an escaped slash stays escaped beside bytes that need escapes", "", "", `/a%2fb"c`, `/a%2fb%22c`},
		{"two slashes in front stay", "", "", "//evil.example/x", "//evil.example/x"},
		{"a query keeps its semicolons and lone percent signs", "", "", "/?a=1;b=2&c=100%", "/?a=1;b=2&c=100%"},
		{"strip", "/api", "", "/api/x", "/x"},
		{"strip all", "/api", "", "/api", "/"},
		{"strip only at a segment's end", "/api", "", "/apix", "/apix"},
		{"strip what is escaped", "/api", "", "/%61pi/x%2fy", "/x%2fy"},
		{"strip keeps an escaped slash from ending the prefix", "/api", "", "/api%2fx", "/api%2fx"},
		{"add", "", "/v2", "/x", "/v2/x"},
		{"replace", "/api", "/v2", "/api/x?q", "/v2/x?q"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFront(t, upstream.Config{To: []string{b.URL}, StripPrefix: c.strip, AddPrefix: c.add}, setup{})
			if status := rawStatus(t, f, "GET "+c.target+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); status != 200 {
				t.Fatal(status)
			}
			if got != c.want {
				t.Errorf("the backend was asked for %q, want %q", got, c.want)
			}
		})
	}
}

func TestAnswersAreCleaned(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"X-Accel-Redirect", "X-Accel-Buffering", "X-Sendfile", "Alt-Svc", "Merlon-Subject", "Keep-Alive", "Proxy-Authenticate"} {
			w.Header().Set(name, "inner")
		}
		w.Header().Set("X-App", "kept")
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
	})
	f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{})
	res, _ := get(t, f, "/")
	for name, v := range res.Header {
		if v[0] == "inner" {
			t.Errorf("%s reached the client", name)
		}
	}
	if res.Header.Get("X-App") != "kept" || len(res.Header["Set-Cookie"]) != 2 {
		t.Errorf("header %v", res.Header)
	}
}

func TestResponseHookDecides(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") })
	f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{call: upstream.Call{Response: func(res *http.Response) merlon.Decision {
		if res.Request.URL.Path == "/leak" {
			return merlon.Refuse(http.StatusForbidden, "leak")
		}
		res.Header.Set("X-Guard", "seen")
		return merlon.Pass("")
	}}})
	if res, body := get(t, f, "/"); res.Header.Get("X-Guard") != "seen" || body != "secret" {
		t.Error(res.Header, body)
	}
	if res, body := get(t, f, "/leak"); res.StatusCode != 403 || strings.Contains(body, "secret") || f.last(t).Reason != "leak" {
		t.Error(res.StatusCode, body)
	}
}

func TestInterimAnswers(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		n := 1
		if r.URL.Path == "/flood" {
			n = 100000
		}
		for range n {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.Header().Set("X-Accel-Redirect", "inner")
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.WriteHeader(200)
	})
	f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{})
	if got := raw(t, f, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK") {
		t.Errorf("%q", got)
	}
	res, _ := get(t, f, "/flood")
	if res.StatusCode != 502 || f.last(t).Reason != upstream.BadResponse {
		t.Errorf("status %d, %v", res.StatusCode, f.last(t))
	}
}

func TestZeroCall(t *testing.T) {
	p, err := upstream.New(upstream.Config{To: []string{"http://127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	p.Serve(w, merlon.NewRequest(httptest.NewRequest("GET", "/", nil)), upstream.Call{})
	if w.Code != 502 || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/problem+json") {
		t.Error(w.Code, w.Header())
	}
}

func TestConnectIsNotPassedOn(t *testing.T) {
	asked := false
	b := backend(t, func(http.ResponseWriter, *http.Request) { asked = true })
	f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{})
	if s := rawStatus(t, f, "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\nConnection: close\r\n\r\n"); s != 501 || asked {
		t.Error(s, asked)
	}
}

// Also where there is no http.Server to recover for.
func TestABrokenAnswerPanics(t *testing.T) {
	p, err := upstream.New(upstream.Config{To: []string{rawBackend(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\nhalf"))}})
	if err != nil {
		t.Fatal(err)
	}
	var told failure
	defer func() {
		if got := recover(); got != http.ErrAbortHandler {
			t.Errorf("panic: %v", got)
		}
		if told.Reason != upstream.Closed || !told.begun {
			t.Errorf("%+v", told)
		}
	}()
	p.Serve(httptest.NewRecorder(), merlon.NewRequest(httptest.NewRequest("GET", "/", nil)), upstream.Call{
		Failed: func(d merlon.Decision, begun bool) { told = failure{d, begun} },
	})
	t.Error("half an answer returned as a whole one")
}
