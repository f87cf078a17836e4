package csrf_test

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/csrf"
	"github.com/merlon-dev/merlon/merlontest"
)

func guard(t testing.TB, trusted ...string) *csrf.Guard {
	t.Helper()
	g, err := csrf.New(csrf.Config{TrustedOrigins: trusted})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func overTLS(r *merlon.Request) { r.TLS = &tls.ConnectionState{} }

const (
	refused = http.StatusForbidden
	ws      = "GET /live\nConnection: keep-alive, Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n"
)

func TestCheck(t *testing.T) {
	newGuard := func(t *testing.T) merlon.Guard {
		return guard(t, "https://partner.example", "https://pay.example:8443", "http://localhost:3000")
	}
	merlontest.Run(t, newGuard, merlontest.Options{}, []merlontest.Case{
		{Name: "reading from anywhere", Request: "GET /\nSec-Fetch-Site: cross-site\nOrigin: https://evil.example", Want: csrf.SafeMethod},
		{Name: "HEAD from anywhere", Request: "HEAD /\nSec-Fetch-Site: cross-site", Want: csrf.SafeMethod},
		{Name: "a CORS preflight", Request: "OPTIONS /\nSec-Fetch-Site: cross-site\nOrigin: https://evil.example\nAccess-Control-Request-Method: PUT", Want: csrf.SafeMethod},

		{Name: "the site's own form", Request: "POST /transfer\nSec-Fetch-Site: same-origin\nOrigin: https://shop.example.com\n\nto=1", Want: csrf.SameOrigin},
		{Name: "the site's own form, referrers off", Request: "POST /transfer\nSec-Fetch-Site: same-origin\nOrigin: null\n\nto=1", Want: csrf.SameOrigin},
		{Name: "reloading a posted page by hand", Request: "POST /transfer\nSec-Fetch-Site: none\nOrigin: null\n\nto=1", Want: csrf.SameOrigin},
		{Name: "the site's own script", Request: "DELETE /cart\nSec-Fetch-Site: same-origin\nOrigin: https://shop.example.com", Want: csrf.SameOrigin},
		{Name: "own page, browser of before 2023", Request: "POST /transfer\nOrigin: https://shop.example.com\n\nto=1", Prepare: overTLS, Want: csrf.SameOrigin},
		{Name: "own page behind a TLS terminator", Request: "POST /transfer\nOrigin: https://shop.example.com\n\nto=1", Want: csrf.SameOrigin},
		{Name: "own page on another port", Request: "POST /\nHost: localhost:8080\nOrigin: http://localhost:8080\n\nto=1", Want: csrf.SameOrigin},
		{Name: "a program", Request: "POST /api/orders\nAuthorization: Bearer x\nContent-Type: application/json\n\n{}", Want: csrf.NotBrowser},
		{Name: "a partner's page", Request: "POST /pay\nSec-Fetch-Site: cross-site\nOrigin: https://partner.example\n\na=1", Want: csrf.TrustedOrigin},
		{Name: "a partner's page, old browser", Request: "POST /pay\nOrigin: https://pay.example:8443\n\na=1", Want: csrf.TrustedOrigin},
		{Name: "the developer's front end", Request: "POST /pay\nOrigin: http://localhost:3000\n\na=1", Prepare: overTLS, Want: csrf.TrustedOrigin},

		{Name: "another site's form", Request: "POST /transfer\nSec-Fetch-Site: cross-site\nOrigin: https://evil.example\n\nto=6", Want: csrf.CrossSite, Status: refused},
		{Name: "another site's form, old browser", Request: "POST /transfer\nOrigin: https://evil.example\n\nto=6", Want: csrf.CrossSite, Status: refused},
		{Name: "JSON as text/plain", Request: "POST /api\nSec-Fetch-Site: cross-site\nOrigin: https://evil.example\nContent-Type: text/plain\n\n{\"to\":6}", Want: csrf.CrossSite, Status: refused},
		{Name: "a hostile sibling", Request: "POST /transfer\nSec-Fetch-Site: same-site\nOrigin: https://blog.example.com\n\nto=6", Want: csrf.CrossSite, Status: refused},
		{Name: "a sandboxed frame", Request: "POST /transfer\nSec-Fetch-Site: cross-site\nOrigin: null\n\nto=6", Want: csrf.CrossSite, Status: refused},
		{Name: "a sandboxed frame, old browser", Request: "POST /transfer\nOrigin: null\n\nto=6", Want: csrf.CrossSite, Status: refused},
		{Name: "a null origin and no host", Request: "POST /transfer HTTP/1.0\nHost: \nOrigin: null\n\nto=6", Want: csrf.CrossSite, Status: refused},
		{Name: "without Origin and Referer", Request: "POST /transfer\nSec-Fetch-Site: cross-site\n\nto=6", Want: csrf.CrossSite, Status: refused},
		{Name: "a value of Sec-Fetch-Site that is not known", Request: "POST /transfer\nSec-Fetch-Site: same-origin, cross-site\nOrigin: https://evil.example\n\nto=6", Want: csrf.CrossSite, Status: refused},
		{Name: "a sub-domain of the partner", Request: "POST /\nSec-Fetch-Site: cross-site\nOrigin: https://x.partner.example\n\na=1", Want: csrf.CrossSite, Status: refused},
		{Name: "the partner's name over http", Request: "POST /\nSec-Fetch-Site: cross-site\nOrigin: http://partner.example\n\na=1", Want: csrf.CrossSite, Status: refused},
		{Name: "the partner's other port", Request: "POST /\nSec-Fetch-Site: cross-site\nOrigin: https://pay.example\n\na=1", Want: csrf.CrossSite, Status: refused},
		{Name: "a name that begins like the site's", Request: "POST /\nOrigin: https://shop.example.com.evil.example\n\na=1", Want: csrf.CrossSite, Status: refused},
		{Name: "a name that ends like the site's", Request: "POST /\nOrigin: https://evilshop.example.com\n\na=1", Want: csrf.CrossSite, Status: refused},
		{Name: "the site's own name in the clear", Request: "POST /\nOrigin: http://shop.example.com\n\na=1", Prepare: overTLS, Want: csrf.CrossSite, Status: refused},
		{Name: "an app's scheme with the site's name", Request: "POST /\nOrigin: evil://shop.example.com\n\na=1", Want: csrf.CrossSite, Status: refused},
		{Name: "two origins, one good", Request: "POST /\nOrigin: https://shop.example.com\nOrigin: https://evil.example\n\na=1", Want: csrf.CrossSite, Status: refused},
		{Name: "two fetch sites, one good", Request: "POST /\nSec-Fetch-Site: same-origin\nSec-Fetch-Site: cross-site\n\na=1", Want: csrf.CrossSite, Status: refused},
		{Name: "a method of no known meaning", Request: "FROB /\nSec-Fetch-Site: cross-site", Want: csrf.CrossSite, Status: refused},
		{Name: "a method in small letters", Request: "get /\nSec-Fetch-Site: cross-site", Want: csrf.CrossSite, Status: refused},

		{Name: "the site's own WebSocket", Request: ws + "Origin: https://shop.example.com", Want: csrf.SameOrigin},
		{Name: "its own WebSocket, called cross-site by the browser", Request: ws + "Origin: https://shop.example.com\nSec-Fetch-Site: cross-site\nSec-Fetch-Mode: websocket", Want: csrf.SameOrigin},
		{Name: "its own WebSocket, host renamed on the way", Request: ws + "Host: backend.internal\nOrigin: https://shop.example.com\nSec-Fetch-Site: same-origin", Want: csrf.SameOrigin},
		{Name: "a program's WebSocket", Request: ws, Want: csrf.NotBrowser},
		{Name: "a partner's WebSocket", Request: ws + "Origin: https://partner.example\nSec-Fetch-Site: cross-site", Want: csrf.TrustedOrigin},
		{Name: "another site's WebSocket", Request: ws + "Origin: https://evil.example", Want: csrf.CrossSiteWebSocket, Status: refused},
		{Name: "a sibling's WebSocket", Request: ws + "Origin: https://blog.example.com\nSec-Fetch-Site: same-site", Want: csrf.CrossSiteWebSocket, Status: refused},
		{Name: "a sandboxed frame's WebSocket", Request: ws + "Origin: null", Want: csrf.CrossSiteWebSocket, Status: refused},
		{Name: "a WebSocket without Origin from another site", Request: ws + "Sec-Fetch-Site: cross-site", Want: csrf.CrossSiteWebSocket, Status: refused},
		{Name: "a WebSocket in capitals, second in the list", Request: "GET /live\nConnection: upgrade\nUpgrade: h2c, WebSocket\nOrigin: https://evil.example", Want: csrf.CrossSiteWebSocket, Status: refused},
		{Name: "a WebSocket named with a version", Request: "GET /live\nConnection: upgrade\nUpgrade: websocket/13\nOrigin: https://evil.example", Want: csrf.CrossSiteWebSocket, Status: refused},
		{Name: "a WebSocket over HTTP/2", Request: "CONNECT /live", Prepare: func(r *merlon.Request) {
			r.Header[":protocol"] = []string{"websocket"}
			r.Header.Set("Origin", "https://evil.example")
		}, Want: csrf.CrossSiteWebSocket, Status: refused},
	})
}

func TestRemedyLetsTheRequestPass(t *testing.T) {
	wire := "POST /\nSec-Fetch-Site: cross-site\nOrigin: https://partner.example\n\na=1"
	d := guard(t).Check(merlontest.Request(t, wire))
	if want := "csrf:\n  trusted_origins: [\"https://partner.example\"]"; d.Remedy != want {
		t.Fatalf("remedy %q, want %q", d.Remedy, want)
	}
	if d = guard(t, "https://partner.example").Check(merlontest.Request(t, wire)); !d.Passed() {
		t.Errorf("still refused with the remedy: %+v", d)
	}
	for _, origin := range []string{"null", "http://partner.example", "https://x\", \"*", "https://a.example/%0a", "https://" + strings.Repeat("a", 5000)} {
		d := guard(t).Check(merlontest.Request(t, "POST /\nSec-Fetch-Site: cross-site\nOrigin: "+origin+"\n\na=1"))
		if d.Passed() || d.Remedy != "" {
			t.Errorf("origin %.40q: passed %v, remedy %q; there is no setting for it", origin, d.Passed(), d.Remedy)
		}
		for _, f := range d.Findings {
			if len(f.Value) > 200 {
				t.Errorf("a finding repeats %d bytes", len(f.Value))
			}
		}
	}
}

func TestConfig(t *testing.T) {
	for _, good := range []string{
		"https://partner.example", "https://partner.example:443", "HTTPS://Partner.Example", "https://a_b.example:8443",
		"http://localhost", "http://app.localhost:3000", "http://127.0.0.1:5173", "http://[::1]:5173", "https://[2001:db8::1]", "https://192.0.2.1",
	} {
		if _, err := csrf.New(csrf.Config{TrustedOrigins: []string{good}}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	bad := []string{
		"", "partner.example", "https://", "https:partner.example", "//partner.example", "http://partner.example", "ftp://partner.example",
		"https://partner.example/", "https://partner.example/x", "https://partner.example?", "https://partner.example#",
		"https://u@partner.example", "https://*.partner.example", "*", "null", "https://partner.example:", "https://partner.example:0",
		"https://partner.example:70000", "https://bücher.example", "https://a b", "http://10.0.0.1", "https://[fe80::1%25eth0]", "https://.",
		"http://localhost.evil.example", "https://[0:0:0:0:0:0:0:1]",
	}
	for _, b := range bad {
		_, err := csrf.New(csrf.Config{TrustedOrigins: []string{"https://fine.example", b}})
		if err == nil || !strings.Contains(err.Error(), "trusted_origins[1]") {
			t.Errorf("%q: error %v, want one that names trusted_origins[1]", b, err)
		}
	}
	_, err := csrf.New(csrf.Config{TrustedOrigins: bad})
	if n := len(strings.Split(err.Error(), "\n")); n != len(bad) {
		t.Errorf("%d mistakes reported of %d", n, len(bad))
	}
}

// The canonical spelling is what browsers send, whatever the file says.
func TestTrustedOriginIsCanonical(t *testing.T) {
	g := guard(t, "HTTPS://Partner.Example:443")
	d := g.Check(merlontest.Request(t, "POST /\nSec-Fetch-Site: cross-site\nOrigin: https://partner.example\n\na=1"))
	if d.Reason != csrf.TrustedOrigin {
		t.Errorf("%+v", d)
	}
}

// A real handshake over a real server: another site's page gets 403 and no
// upgrade, the site's own page gets through.
func TestMiddlewareStopsWebSocketHijack(t *testing.T) {
	srv := httptest.NewServer(guard(t).Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusSwitchingProtocols)
	})))
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	for origin, want := range map[string]int{srv.URL: 101, "https://evil.example": 403, "null": 403} {
		c, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		req := strings.ReplaceAll("GET / HTTP/1.1\nHost: "+u.Host+"\nConnection: Upgrade\nUpgrade: websocket\nOrigin: "+origin+"\n\n", "\n", "\r\n")
		if _, err := c.Write([]byte(req)); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != want {
			t.Errorf("origin %s: %d, want %d", origin, res.StatusCode, want)
		}
		c.Close()
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("POST", "cross-site", "https://evil.example", "shop.example.com", "", true)
	f.Add("POST", "", "null", "", "", false)
	f.Add("GET", "same-site", "https://blog.example.com", "shop.example.com", "websocket", true)
	f.Add("DELETE", "", "https://shop.example.com", "shop.example.com", "", true)
	f.Add("POST", "cross-site", "https://partner.example", "shop.example.com", "", false)
	g := guard(f, "https://partner.example")
	f.Fuzz(func(t *testing.T, method, site, origin, host, upgrade string, secure bool) {
		hr := &http.Request{Method: method, Host: host, URL: &url.URL{Path: "/"}, Header: http.Header{}}
		for k, v := range map[string]string{"Sec-Fetch-Site": site, "Origin": origin, "Upgrade": upgrade} {
			if v != "" {
				hr.Header.Set(k, v)
			}
		}
		if secure {
			hr.TLS = &tls.ConnectionState{}
		}
		d := g.Check(merlon.NewRequest(hr))
		changes := method != "GET" && method != "HEAD" && method != "OPTIONS" || strings.EqualFold(upgrade, "websocket")
		if !changes || origin == "https://partner.example" {
			return
		}
		u, err := url.Parse(origin)
		own := err == nil && host != "" && u.Host == host && (u.Scheme == "https" || u.Scheme == "http" && !secure)
		byOrigin := site == "" || upgrade != "" && origin != ""
		may := site == "same-origin" || site == "none" && !byOrigin || byOrigin && own || origin == "" && (site == "" || site == "none")
		if d.Passed() && !may {
			t.Errorf("%s %s from %q (%q) to %q passed: %s", method, upgrade, origin, site, host, d.Reason)
		}
		if d.Remedy != "" && strings.ContainsAny(strings.TrimPrefix(d.Remedy, "csrf:\n"), "\n\r\\") {
			t.Errorf("remedy breaks out of its line: %q", d.Remedy)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	g := guard(b)
	r := merlontest.Request(b, "POST /transfer\nSec-Fetch-Site: same-origin\nOrigin: https://shop.example.com\n\nto=1")
	b.ReportAllocs()
	for b.Loop() {
		if !g.Check(r).Passed() {
			b.Fatal("refused")
		}
	}
}
