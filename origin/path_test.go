package origin_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/origin"
)

func TestAmbiguousPathsAreRefused(t *testing.T) {
	for _, raw := range []string{
		"/a/../admin", "/a/..", "/..", "/.", "/./admin", "/a/./b", "/a/..;/admin", "/a/..;x=1/admin", "/a/.;/b", "/public/..;/admin",
		"/%2e%2e/a", "/a/%2e%2E/b", "/.%2e/a", "/%2e/a", "/..%2fadmin", "/a%2f..%2fadmin", "/a/..%2Fb", "/a/%2e%2e%3bx/b", "/a/..%3b/b",
		"/..%5cadmin", "/a\\b", "/a%5cb", "/a%5Cb", "/%255c", "/%252e%252e/a", "/%252E", "/a%252fb", "/a%25%32%66b", "/%25%32e%25%32e/b", "/%25%35c", "/a%250a", "/a%25250Ab", "/a%25252fb", "/a%2525252e", "/a%2500",
		"/%c0%ae%c0%ae/a", "/%c0%af", "/%c1%9c", "/%e0%80%af", "/%e0%80%ae", "/%f0%80%80%ae", "/%f8%80%80%80%ae", "/%25c0%25ae", "/a%25c0%25afb",
		"/admin%00.css", "/a%00", "/a%0d%0aSet-Cookie:x", "/a%0ab", "/a%09b", "/a%7fb", "/a%1fb",
		"/a/..%20/b", "/a/%20../b", "/a/.%20", "/%ef%bc%8e%ef%bc%8e/a", "/a/%ef%bc%8e%ef%bc%8e%ef%bc%8fb", "/%e2%80%a5/a", "/a%e2%88%95..%e2%88%95b",
	} {
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if p, err := origin.CanonicalPath(u); err == nil {
			t.Errorf("%s passed as %q", raw, p)
		}
	}
}

func TestOrdinaryPathsHaveOneSpelling(t *testing.T) {
	for raw, want := range map[string]string{
		"/": "/", "/a": "/a", "/a/b.css": "/a/b.css", "/%61dmin": "/admin", "/ADMIN": "/ADMIN", "//admin": "//admin", "/a//b": "/a//b",
		"/a;x=1/b": "/a;x=1/b", "/admin%2f": "/admin%2F", "/a%2Fb": "/a%2Fb", "/admin.": "/admin.", "/admin%20": "/admin ", "/a/": "/a/",
		"/caf%C3%A9": "/café", "/caf%e9": "/caf\xe9", "/%E6%97%A5%E6%9C%AC": "/日本", "/a%20b": "/a b", "/a+b": "/a+b", "/100%25": "/100%",
		"/a%25b": "/a%b", "/a%252": "/a%2", "/%2525": "/%25", "/.well-known/x": "/.well-known/x", "/..a": "/..a", "/a..": "/a..", "/a/...": "/a/...",
		"/...": "/...", "/a..b/c": "/a..b/c", "/~u/@me:x,y=z!$&'()*": "/~u/@me:x,y=z!$&'()*", "/a|b": "/a|b", "/À%C0x": "/À\xc0x", "*": "*", "http://h": "/",
		"http://h/a%2fb": "/a%2Fb", "/%EF%BC%BC%28%5Eo%5E%29%EF%BC%8F": "/＼(^o^)／", "/1%EF%BC%8F2": "/1／2",
	} {
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if got, err := origin.CanonicalPath(u); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", raw, got, err, want)
		}
	}
}

func TestReadings(t *testing.T) {
	for path, want := range map[string][]string{
		"/": nil, "/a/b.css": nil, "/.well-known/x": nil, "/a b": nil,
		"//admin": {"/admin"}, "/admin/": {"/admin"}, "/ADMIN": {"/admin"}, "/admin;x=1": {"/admin"}, "/admin%2F": {"/admin"}, "/admin.": {"/admin"},
		"/admin ": {"/admin"}, "/admin. .": {"/admin"}, "/a;x=1/b": {"/a/b"}, "//Admin;x/": {"/Admin", "/admin"}, "/a%2F%2FB ;x": {"/a/b", "/a/B"},
		"/admin.;x": {"/admin"}, "/a/;x/b": {"/a/b"}, "/A.%2Fb": {"/a/b", "/A/b"}, "/a/.;/b": {"/a/b"},
	} {
		got := origin.Readings(path)
		if want == nil && len(got) > 0 {
			t.Errorf("%q has readings %q, want none", path, got)
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("%q lacks the reading %q: %q", path, w, got)
			}
		}
		if len(got) > 31 || slices.Contains(got, path) {
			t.Errorf("%q: %d readings, or itself among them", path, len(got))
		}
	}
}

// FuzzCanonicalPath: what passes hides no dot segment from any number of
// further decodings, holds no control character or backslash, and means the
// same when it is sent on.
func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/a/b", "/a%2f..%2fb", "/%252e%252e", "/a;x/..;/b", "/caf%c3%a9", "/%c0%ae", "/a%25252f", "//x/ .. /", "/A%2FB;c. /"} {
		f.Add(s)
	}
	f.Add("/a%25%32%66b")
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			return
		}
		path, err := origin.CanonicalPath(u)
		if err != nil {
			return
		}
		again, err := url.ParseRequestURI(u.RequestURI())
		if err != nil {
			t.Fatalf("%q passed but cannot be sent on: %v", raw, err)
		}
		if p, err := origin.CanonicalPath(again); err != nil || p != path {
			t.Fatalf("%q is %q here, and %q for the next: %v", raw, path, p, err)
		}
		for range 4 {
			for _, s := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' }) {
				s, _, _ = strings.Cut(s, ";")
				if s == "." || s == ".." {
					t.Fatalf("%q hides a dot segment: %q", raw, path)
				}
			}
			if strings.ContainsAny(path, "\x00\\\n\r\x7f") {
				t.Fatalf("%q hides a control character or backslash: %q", raw, path)
			}
			next, err := url.PathUnescape(path)
			if err != nil || next == path {
				break
			}
			if strings.ContainsAny(next, "\x00\\") || strings.Count(next, "/") > strings.Count(strings.ReplaceAll(path, "%2F", "/"), "/") {
				t.Fatalf("%q hides syntax: %q becomes %q", raw, path, next)
			}
			path = next
		}
		if n := len(origin.Readings(path)); n > 31 {
			t.Fatalf("%d readings", n)
		}
	})
}

func TestCanonicalHost(t *testing.T) {
	for in, want := range map[string]string{
		"shop.example.com": "shop.example.com", "Shop.Example.COM": "shop.example.com", "shop.example.com.": "shop.example.com",
		"shop.example.com:8443": "shop.example.com", "shop.example.com.:80": "shop.example.com", "my_service": "my_service", "localhost": "localhost",
		"192.0.2.1": "192.0.2.1", "192.0.2.1:80": "192.0.2.1", "[2001:DB8::1]": "2001:db8::1", "[2001:db8::1]:443": "2001:db8::1", "::1": "::1",
		"[::ffff:192.0.2.1]": "192.0.2.1", "bücher.example": "xn--bcher-kva.example", "xn--bcher-kva.example": "xn--bcher-kva.example", "BÜCHER.example:80": "xn--bcher-kva.example",
	} {
		if got, err := origin.CanonicalHost(in); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", ".", "..", "a..b", ".a", "a.b..", "a@b", "u:p@a", "a/b", "a b", "a,b", "a\x00", "a:", "a:0", "a:65536", "a:-1", "a:+1", "a:8x", ":80", "-a.example", "a-.example",
		"[::1", "[::1]x", "[::1]:", "[::1%25eth0]", "[fe80::1%eth0]", "fe80::1%eth0", "[192.0.2.1]", "a%2eb", "a\\b", "xn--a.example", "*", strings.Repeat("a", 64) + ".b", strings.Repeat("a.", 130) + "b",
	} {
		if got, err := origin.CanonicalHost(in); err == nil {
			t.Errorf("%q passed as %q", in, got)
		}
	}
}

// FuzzCanonicalHost: the canonical spelling is its own canonical spelling.
func FuzzCanonicalHost(f *testing.F) {
	for _, s := range []string{"a.example:80", "[::1]:80", "bücher.example", "192.0.2.1.", "::ffff:1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		host, err := origin.CanonicalHost(in)
		if err != nil {
			return
		}
		if again, err := origin.CanonicalHost(host); err != nil || again != host {
			t.Fatalf("%q became %q, which became %q: %v", in, host, again, err)
		}
		if strings.ContainsAny(host, "@/\\ ,[]%") || strings.ToLower(host) != host {
			t.Fatalf("%q passed as %q", in, host)
		}
	})
}
