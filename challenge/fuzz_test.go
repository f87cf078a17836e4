package challenge_test

import (
	"crypto/sha256"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/merlontest"
)

// What is not exactly the text that was sealed, for the site and client that it
// was sealed for, opens nothing.
func FuzzPass(f *testing.F) {
	k, client := key(f), netip.MustParseAddr("192.0.2.1")
	good := challenge.Pass(k, site, client, 18, time.Unix(1_800_000_000, 0))
	f.Add(0, good, site, "192.0.2.1")
	f.Add(1, "", site, "192.0.2.1")
	f.Add(2, good+"=", site, "192.0.2.1")
	f.Add(70, "\n"+good[1:], "shop.example.con", "192.0.2.9")
	f.Add(3, good[:74]+"_", site, "::1")
	f.Fuzz(func(t *testing.T, cut int, text, where, from string) {
		a, err := netip.ParseAddr(from)
		if err != nil {
			return
		}
		if challenge.OpensAs(k, text, where, a) && (text != good || where != site || a.Unmap() != client && !strings.HasPrefix(a.String(), "64:ff9b::")) {
			t.Errorf("%q opens at %q for %s", text, where, a)
		}
		if cut < 0 || cut >= len(good) || len(text) == 0 {
			return
		}
		bent := good[:cut] + text[:1] + good[cut+1:]
		if challenge.OpensAs(k, bent, site, client) != (bent == good) {
			t.Errorf("%q, changed at %d", bent, cut)
		}
	})
}

// A cookie is found only where a browser would have put it, once.
func FuzzCookie(f *testing.F) {
	for _, s := range []string{"", "a=b", challenge.Cookie + "=x", "a=b; " + challenge.Cookie + "=x; c=d", challenge.Cookie + "=x;" + challenge.Cookie + "=y", challenge.Cookie, "x" + challenge.Cookie + "=x", "=;;=", challenge.Cookie + "=a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		r := &merlon.Request{Request: merlontest.Request(t, "GET /").Request}
		r.Header["Cookie"] = []string{field}
		text, found := challenge.PassText(r)
		if most := strings.Count(field, challenge.Cookie); found > most || found == 0 && text != "" || strings.Contains(text, ";") {
			t.Errorf("%q: %d, %q", field, found, text)
		}
		if found == 1 && !strings.Contains(field, challenge.Cookie+"="+text) {
			t.Errorf("%q: %q", field, text)
		}
	})
}

// Work is what SHA-256 says, in a form that has one way of being written.
func FuzzSolves(f *testing.F) {
	f.Add("token", "12", 4)
	f.Add("", "0", 0)
	f.Add(strings.Repeat("x", 75), "9007199254740992", 1)
	f.Add("t", "-1", 0)
	f.Fuzz(func(t *testing.T, token, nonce string, want int) {
		if len(token) > 75 || want < 0 || want > 24 {
			return // open has looked at its length
		}
		if !challenge.Solves(token, nonce, want) {
			return
		}
		sum := sha256.Sum256([]byte(token + nonce))
		for i := range want {
			if sum[i/8]&(0x80>>(i%8)) != 0 {
				t.Fatalf("%q %q: bit %d of %d is set", token, nonce, i, want)
			}
		}
		if strings.Trim(nonce, "0123456789") != "" || nonce == "" || len(nonce) > 16 {
			t.Errorf("%q is taken for a number", nonce)
		}
	})
}

// What is read is written as it was read.
func FuzzSettings(f *testing.F) {
	for _, s := range []string{"2000/s", "600/min", "off", "30%", "0%", "100%", "-1/s", "99999999999/s", "007/s", "10.0.0.0/8", "::/0", "10.0.0.1", "::ffff:1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r, r2 challenge.Rate
		if r.UnmarshalText([]byte(text)) == nil && (r2.UnmarshalText([]byte(r.String())) != nil || r2 != r || !r.Off && r.Count <= 0) {
			t.Errorf("rate %q: %+v, %+v", text, r, r2)
		}
		var s, s2 challenge.Share
		if s.UnmarshalText([]byte(text)) == nil && (s2.UnmarshalText([]byte(s.String())) != nil || s2 != s || !s.Off && (s.Percent < 1 || s.Percent > 99)) {
			t.Errorf("share %q: %+v, %+v", text, s, s2)
		}
		if p, err := challenge.Network(text); err == nil {
			if q, err := challenge.Network(p.String()); err != nil || q != p || p.Addr().Is4In6() || p.Addr().Zone() != "" {
				t.Errorf("network %q: %s, %s", text, p, q)
			}
		}
	})
}

// Whatever is asked for, a stranger without a pass gets only what a rule says,
// and is never sent anywhere but to the page.
func FuzzStranger(f *testing.F) {
	g := guard(f, challenge.Config{When: challenge.Always, Allow: []challenge.Allow{{Kind: "no-defaults"}, {Kind: "git"}, {Kind: "packages"}, {Kind: "feeds"}, {Kind: "well-known"}}})
	for _, p := range []string{"/", "/info/refs", "/1/a", "/3/a/abc", "/ab/cd/abcd", "/x/@v/list", "/dists/x/Release", "/v2/", "/v2/a/b/c", "@", "/feed/", "//", ""} {
		f.Add("GET", p, "service=git-upload-pack", "text/html")
	}
	f.Fuzz(func(t *testing.T, method, path, query, accept string) {
		r := merlontest.Request(t, "GET /x?y")
		r.Site, r.Path, r.Method, r.URL.Path, r.URL.RawQuery = site, path, method, path, query
		r.Header.Set("Accept", accept)
		d := g.Check(r)
		if d.Effect == merlon.Deny {
			t.Fatalf("%+v", d)
		}
		if d.Location != "" && !strings.HasPrefix(d.Location, challenge.Prefix+"?bits=18&wait=10&to=") {
			t.Errorf("sent to %q", d.Location)
		}
		// With a query of one's own choice, nothing that could be a page is exempt.
		if d.Reason == challenge.Exempt && strings.Contains(accept, "text/html") && query != "" && method == "GET" &&
			!strings.HasPrefix(query, "service=git-") && !strings.Contains(accept, "pypi") && !strings.HasPrefix(path, "/.well-known/") {
			last := strings.TrimSuffix(path, "/")
			last = last[strings.LastIndexByte(last, '/')+1:]
			if !strings.Contains("robots.txt favicon.ico sitemap.xml feed rss atom feed.xml rss.xml atom.xml index.xml feed.json", last) && !strings.HasSuffix(last, ".rss") && !strings.HasSuffix(last, ".atom") {
				t.Errorf("%q %q %q passes", path, query, accept)
			}
		}
	})
}
