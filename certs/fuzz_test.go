package certs_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/certs"
)

// A name from outside that is taken for one is safe to put into a URL, a
// certificate or a file name, and its normal form is its own normal form.
func FuzzHostName(f *testing.F) {
	for _, s := range []string{"shop.example.com", "SHOP.example.com.", "127.0.0.1", "::1", "[::1]:80", "a.b:80", "127.1", "0x7f.1",
		"::ffff:127.0.0.1", "fe80::1%eth0", "xn--bcher-kva.example", "a..b", "-a.b", "a-.b", "a b", "a\x00b", "ä.example", "..", "../../etc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, parse := range []func(string) (string, bool){certs.HostName, certs.RequestHost} {
			name, ok := parse(s)
			if !ok {
				continue
			}
			if again, ok := certs.HostName(name); !ok || again != name {
				t.Fatalf("%q becomes %q, and that %q", s, name, again)
			}
			if name == "" || len(name) > 253 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.:") != "" || strings.Contains(name, "..") || name != strings.ToLower(name) {
				t.Fatalf("%q becomes %q", s, name)
			}
			if _, err := netip.ParseAddr(name); err != nil && strings.Contains(name, ":") {
				t.Fatalf("%q becomes %q, which has a port", s, name)
			}
		}
	})
}

// However a request for plain HTTP is written, it is sent to a host that is
// served or nowhere.
func FuzzRedirect(f *testing.F) {
	cs := local(f, certs.Config{}, "shop.example.com", "*.example.org")
	every := local(f, certs.Config{}, "*")
	for _, s := range [][2]string{{"shop.example.com", "/"}, {"a.example.org:80", "//evil.example"}, {"evil.example", "/\\evil"},
		{"shop.example.com@evil.example", "/?"}, {"shop.example.com", "http://evil.example/"}, {"[::1]", "/"}, {"localhost", "*"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, host, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		for _, c := range []struct {
			cs *certs.Certs
			ok func(string) bool
		}{
			{cs, func(h string) bool { return h == "shop.example.com" || strings.HasSuffix(h, ".example.org") }},
			{every, func(h string) bool {
				return h == "localhost" || strings.HasSuffix(h, ".localhost") || net.ParseIP(h).IsLoopback()
			}},
		} {
			r := &http.Request{Method: "GET", Host: host, RequestURI: target, URL: u, Header: http.Header{}}
			if u.Host != "" {
				r.Host = u.Host
			}
			w := httptest.NewRecorder()
			c.cs.Redirect(":8443", nil).ServeHTTP(w, r)
			if w.Code != http.StatusPermanentRedirect {
				if w.Header().Get("Location") != "" {
					t.Fatal("a refusal with a Location")
				}
				continue
			}
			rest, ok := strings.CutPrefix(w.Header().Get("Location"), "https://")
			authority := rest[:strings.IndexAny(rest, "/?#\\")]
			h, port, err := net.SplitHostPort(authority)
			if !ok || err != nil || port != "8443" || !c.ok(h) {
				t.Fatalf("Host %q, target %q is sent to %q", host, target, w.Header().Get("Location"))
			}
		}
	})
}
