package certs_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/certs"
)

// raw sends wire text and returns the answer.
func raw(t testing.TB, addr, wire string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	check(t, err)
	defer conn.Close()
	check(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
	_, err = io.WriteString(conn, strings.ReplaceAll(wire, "\n", "\r\n")+"\r\n\r\n")
	check(t, err)
	method, _, _ := strings.Cut(wire, " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	check(t, err)
	body, err := io.ReadAll(res.Body)
	check(t, err)
	res.Body = io.NopCloser(strings.NewReader(string(body)))
	return res
}

// plain is the listener for plain HTTP as the gateway has it.
func plain(cs *certs.Certs, https string, refused func(*merlon.Request, merlon.Decision)) http.Handler {
	return cs.HTTPChallenge(cs.Redirect(https, refused))
}

func TestRedirect(t *testing.T) {
	named := local(t, certs.Config{}, "shop.example.com", "*.example.org", "192.0.2.7", "2001:db8::1")
	every := local(t, certs.Config{}, "*")
	published := local(t, certs.Config{RedirectPort: 443}, "shop.example.com")
	for _, c := range []struct {
		name     string
		cs       *certs.Certs
		https    string
		request  string
		location string // of a 308
		status   int    // of a refusal
		reason   merlon.Reason
	}{
		{"a page", named, ":443", "GET / HTTP/1.1\nHost: shop.example.com", "https://shop.example.com/", 0, ""},
		{"HEAD", named, ":443", "HEAD /a HTTP/1.1\nHost: shop.example.com", "https://shop.example.com/a", 0, ""},
		{"HTTP/1.0", named, ":443", "GET /a HTTP/1.0\nHost: shop.example.com", "https://shop.example.com/a", 0, ""},
		{"path and query as they came", named, ":443", "GET /a%2Fb/../c;d//e?q=%0d%0a&r=%C3%A4&&x=a+b#f HTTP/1.1\nHost: shop.example.com",
			"https://shop.example.com/a%2Fb/../c;d//e?q=%0d%0a&r=%C3%A4&&x=a+b#f", 0, ""},
		{"a path that looks like a host", named, ":443", "GET //evil.example/%2e%2e HTTP/1.1\nHost: shop.example.com",
			"https://shop.example.com//evil.example/%2e%2e", 0, ""},
		{"the port of plain HTTP is dropped", named, ":443", "GET / HTTP/1.1\nHost: shop.example.com:80", "https://shop.example.com/", 0, ""},
		{"the port of https is put in", named, "127.0.0.1:8443", "GET / HTTP/1.1\nHost: shop.example.com:8080", "https://shop.example.com:8443/", 0, ""},
		{"a published port", published, ":8443", "GET / HTTP/1.1\nHost: shop.example.com", "https://shop.example.com/", 0, ""},
		{"a wildcard site", named, ":443", "GET / HTTP/1.1\nHost: A.Example.ORG.", "https://a.example.org/", 0, ""},
		{"an address served", named, ":443", "GET / HTTP/1.1\nHost: 192.0.2.7", "https://192.0.2.7/", 0, ""},
		{"an IPv6 address served", named, ":8443", "GET / HTTP/1.1\nHost: [2001:DB8::1]:80", "https://[2001:db8::1]:8443/", 0, ""},
		{"an absolute target", named, ":443", "GET http://shop.example.com/a?b HTTP/1.1\nHost: evil.example", "https://shop.example.com/a?b", 0, ""},
		{"an absolute target without path", named, ":443", "GET http://shop.example.com?b HTTP/1.1\nHost: shop.example.com", "https://shop.example.com/?b", 0, ""},
		{"a cookie", named, ":443", "GET / HTTP/1.1\nHost: shop.example.com\nCookie: theme=dark", "https://shop.example.com/", 0, ""},
		{"every host: localhost", every, ":8443", "GET /x HTTP/1.1\nHost: localhost:8080", "https://localhost:8443/x", 0, ""},
		{"every host: loopback", every, ":8443", "GET / HTTP/1.1\nHost: 127.0.0.1", "https://127.0.0.1:8443/", 0, ""},
		{"every host: IPv6 loopback", every, ":8443", "GET / HTTP/1.1\nHost: [::1]:8080", "https://[::1]:8443/", 0, ""},

		{"a foreign host", named, ":443", "GET / HTTP/1.1\nHost: evil.example", "", 421, certs.ForeignHost},
		{"a foreign absolute target", named, ":443", "GET http://evil.example/ HTTP/1.1\nHost: shop.example.com", "", 421, certs.ForeignHost},
		{"two labels below a wildcard", named, ":443", "GET / HTTP/1.1\nHost: a.b.example.org", "", 421, certs.ForeignHost},
		{"user before host", named, ":443", "GET / HTTP/1.1\nHost: shop.example.com@evil.example", "", 400, ""},
		{"host with a strange port", named, ":443", "GET / HTTP/1.1\nHost: shop.example.com:80@evil.example", "", 400, ""},
		{"host with a path", named, ":443", "GET / HTTP/1.1\nHost: shop.example.com/evil", "", 400, ""},
		{"no host", named, ":443", "GET / HTTP/1.0", "", 421, certs.ForeignHost},
		{"every host: one from outside", every, ":443", "GET / HTTP/1.1\nHost: evil.example", "", 421, certs.ForeignHost},
		{"every host: an address that is not ours", every, ":443", "GET / HTTP/1.1\nHost: 198.51.100.1", "", 421, certs.ForeignHost},
		{"a bearer token", named, ":443", "GET / HTTP/1.1\nHost: shop.example.com\nAuthorization: Bearer s3cret", "", 403, certs.TokenInClear},
		{"a token for a foreign host", named, ":443", "GET / HTTP/1.1\nHost: evil.example\nAuthorization: Basic s3cret", "", 403, certs.TokenInClear},
		{"an API key", named, ":443", "GET / HTTP/1.1\nHost: shop.example.com\nX-API-Key: s3cret", "", 403, certs.TokenInClear},
		{"a token in the query", named, ":443", "GET /?access_token=s3cret HTTP/1.1\nHost: shop.example.com", "", 403, certs.TokenInClear},
		{"POST", named, ":443", "POST / HTTP/1.1\nHost: shop.example.com\nContent-Length: 0", "", 403, certs.WriteInClear},
		{"OPTIONS", named, ":443", "OPTIONS / HTTP/1.1\nHost: shop.example.com", "", 403, certs.WriteInClear},
		{"a challenge that nobody asked for", named, ":443", "GET /.well-known/acme-challenge/abc HTTP/1.1\nHost: shop.example.com", "", 404, ""},
		{"challenges are not listed", named, ":443", "GET /.well-known/acme-challenge HTTP/1.1\nHost: shop.example.com", "", 404, ""},
		{"a neighbour of challenges", named, ":443", "GET /.well-known/acme-challenges HTTP/1.1\nHost: shop.example.com",
			"https://shop.example.com/.well-known/acme-challenges", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var told []merlon.Decision
			addr := serve(t, nil, plain(c.cs, c.https, func(_ *merlon.Request, d merlon.Decision) { told = append(told, d) }))
			res := raw(t, addr, c.request)
			if res.Header.Get("Strict-Transport-Security") != "" {
				t.Error("HSTS over plain HTTP")
			}
			if c.location != "" {
				if res.StatusCode != 308 || res.Header.Get("Location") != c.location || len(told) != 0 {
					t.Errorf("got %d %q (told %v), want 308 %q", res.StatusCode, res.Header.Get("Location"), told, c.location)
				}
				return
			}
			if res.StatusCode != c.status || res.Header.Get("Location") != "" {
				t.Errorf("got %d %q, want %d", res.StatusCode, res.Header.Get("Location"), c.status)
			}
			body, _ := io.ReadAll(res.Body)
			if strings.Contains(string(body), "evil") || strings.Contains(string(body), "s3cret") {
				t.Errorf("the answer reflects the request: %s", body)
			}
			if c.reason == "" {
				return
			}
			if len(told) != 1 || told[0].Reason != c.reason {
				t.Fatalf("told %v, want %s", told, c.reason)
			}
			for _, f := range told[0].Findings {
				if strings.Contains(f.Value+f.Message+f.Part, "s3cret") {
					t.Errorf("the token is in the record: %+v", f)
				}
			}
		})
	}
}

// The address that the connection came in on is as good as loopback.
func TestRedirectToTheListenersOwnAddress(t *testing.T) {
	every := local(t, certs.Config{}, "*")
	ln, err := net.Listen("tcp", "127.0.0.9:0")
	if err != nil {
		t.Skip("this system has no 127.0.0.9")
	}
	serveOn(t, ln, nil, plain(every, ":443", nil))
	if res := raw(t, ln.Addr().String(), "GET / HTTP/1.1\nHost: 127.0.0.9"); res.StatusCode != 308 {
		t.Errorf("status %d", res.StatusCode)
	}
}

// Nothing that stands behind can answer a challenge, whatever the listener.
func TestUpstreamCannotAnswerChallenges(t *testing.T) {
	cs := local(t, certs.Config{}, "shop.example.com")
	addr := serve(t, nil, cs.HTTPChallenge(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "token.thumbprint")
	})))
	for path, status := range map[string]int{
		"/.well-known/acme-challenge/token":     404,
		"/.well-known/acme-challenge/":          404,
		"/%2ewell-known/acme-challenge/token":   404,
		"/.well-known/acme%2dchallenge%2ftoken": 404,
		"/.well-known/security.txt":             200,
	} {
		if res := raw(t, addr, "GET "+path+" HTTP/1.1\nHost: shop.example.com"); res.StatusCode != status {
			t.Errorf("%s: status %d, want %d", path, res.StatusCode, status)
		}
	}
}

func TestBrowserFollowsToHTTPS(t *testing.T) {
	cs := local(t, certs.Config{}, "localhost")
	https := serve(t, cs.TLSConfig(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+" "+r.Host+" "+r.RequestURI)
	}))
	addr := serve(t, nil, plain(cs, https, nil))
	_, port, err := net.SplitHostPort(addr)
	check(t, err)
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: trusting(cs)}}
	res, err := client.Get("http://localhost:" + port + "/a?b=c")
	check(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	check(t, err)
	_, httpsPort, err := net.SplitHostPort(https)
	check(t, err)
	if want := "HTTP/2.0 localhost:" + httpsPort + " /a?b=c"; string(body) != want {
		t.Errorf("got %q, want %q", body, want)
	}
}
