package origin_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/origin"
)

func TestClientAddress(t *testing.T) {
	trusted := origin.EdgeConfig{TrustedProxies: []string{"10.0.0.0/8", "2001:db8::/32", "127.0.0.1"}}
	rfc7239 := trusted
	rfc7239.ClientHeader = "forwarded"
	for _, c := range []struct {
		name   string
		config origin.EdgeConfig
		peer   string
		header http.Header
		want   string
		https  bool
	}{
		{name: "no proxy", peer: "192.0.2.1:5", want: "192.0.2.1"},
		{name: "nobody is trusted by default", peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"198.51.100.1"}, "X-Forwarded-Proto": {"https"}}, want: "10.0.0.1"},
		{name: "nor is loopback", peer: "127.0.0.1:5", header: http.Header{"X-Forwarded-For": {"198.51.100.1"}}, want: "127.0.0.1"},
		{name: "a stranger's header", config: trusted, peer: "192.0.2.1:5", header: http.Header{"X-Forwarded-For": {"198.51.100.1"}, "X-Forwarded-Proto": {"https"}}, want: "192.0.2.1"},
		{name: "a proxy's header", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"198.51.100.1"}, "X-Forwarded-Proto": {"https"}}, want: "198.51.100.1", https: true},
		{name: "values that the client put first", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"1.1.1.1, 2.2.2.2, 198.51.100.1"}, "X-Forwarded-Proto": {"https, http"}}, want: "198.51.100.1"},
		{name: "in another line", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"1.1.1.1", "198.51.100.1"}}, want: "198.51.100.1"},
		{name: "two proxies", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"1.1.1.1, 198.51.100.1,10.2.2.2"}}, want: "198.51.100.1"},
		{name: "proxies only", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"10.3.3.3, 10.2.2.2"}}, want: "10.3.3.3"},
		{name: "no header", config: trusted, peer: "10.0.0.1:5", want: "10.0.0.1"},
		{name: "empty header", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {""}}, want: "10.0.0.1"},
		{name: "mapped peer", config: trusted, peer: "[::ffff:10.0.0.1]:5", header: http.Header{"X-Forwarded-For": {"198.51.100.1"}}, want: "198.51.100.1"},
		{name: "mapped value", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"::ffff:198.51.100.1"}}, want: "198.51.100.1"},
		{name: "port", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"198.51.100.1:443"}}, want: "198.51.100.1"},
		{name: "brackets", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"[2001:db9::1]"}}, want: "2001:db9::1"},
		{name: "brackets and port", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"[2001:db9::1]:443"}}, want: "2001:db9::1"},
		{name: "bare IPv6", config: trusted, peer: "[2001:db8::5]:5", header: http.Header{"X-Forwarded-For": {"2001:DB9:0::1"}}, want: "2001:db9::1"},
		{name: "zone", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"fe80::1%eth0"}}, want: "fe80::1"},
		{name: "unknown", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"198.51.100.1, unknown"}}, want: "10.0.0.1"},
		{name: "garbage behind a proxy", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"198.51.100.1, <x>, 10.2.2.2"}}, want: "10.2.2.2"},
		{name: "endless list", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"198.51.100.1" + strings.Repeat(",10.2.2.2", 1000)}}, want: "10.2.2.2"},
		{name: "huge value", config: trusted, peer: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {strings.Repeat("1", 10<<10)}}, want: "10.0.0.1"},
		{name: "the other header is not read", config: trusted, peer: "10.0.0.1:5", header: http.Header{"Forwarded": {"for=198.51.100.1"}, "X-Real-Ip": {"198.51.100.2"}}, want: "10.0.0.1"},
		{name: "RFC 7239", config: rfc7239, peer: "10.0.0.1:5", header: http.Header{"Forwarded": {`for=1.1.1.1, for=198.51.100.1;proto=https;by=10.0.0.1`}}, want: "198.51.100.1", https: true},
		{name: "RFC 7239, IPv6", config: rfc7239, peer: "10.0.0.1:5", header: http.Header{"Forwarded": {`For="[2001:db9::17]:4711"; Proto=HTTP`}}, want: "2001:db9::17"},
		{name: "RFC 7239, quoted comma", config: rfc7239, peer: "10.0.0.1:5", header: http.Header{"Forwarded": {`for=1.1.1.1;x="a, for=2.2.2.2"`, `for="198.51.100.1"`}}, want: "198.51.100.1"},
		{name: "RFC 7239, unknown", config: rfc7239, peer: "10.0.0.1:5", header: http.Header{"Forwarded": {`for=198.51.100.1, for=unknown`}}, want: "10.0.0.1"},
		{name: "RFC 7239, obfuscated", config: rfc7239, peer: "10.0.0.1:5", header: http.Header{"Forwarded": {`for=_gazonk`}}, want: "10.0.0.1"},
		{name: "RFC 7239, open quote", config: rfc7239, peer: "10.0.0.1:5", header: http.Header{"Forwarded": {`for="198.51.100.1, for=2.2.2.2`}}, want: "10.0.0.1"},
		{name: "RFC 7239, two names in one hop", config: rfc7239, peer: "10.0.0.1:5", header: http.Header{"Forwarded": {`for=198.51.100.1;for=2.2.2.2`}}, want: "10.0.0.1"},
		{name: "RFC 7239, a stranger's", config: rfc7239, peer: "192.0.2.1:5", header: http.Header{"Forwarded": {`for=198.51.100.1;proto=https`}}, want: "192.0.2.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEdge(t, c.config)
			hr := &http.Request{RemoteAddr: c.peer, Header: c.header}
			if got := e.ClientAddr(hr); got != netip.MustParseAddr(c.want) {
				t.Errorf("client %s, want %s", got, c.want)
			}
			if got := e.IsHTTPS(hr); got != c.https {
				t.Errorf("https %t, want %t", got, c.https)
			}
		})
	}
}

// FuzzClientAddr: whatever the header says, the client is the peer, or an
// address that the header holds; and what a client puts in front changes
// nothing.
func FuzzClientAddr(f *testing.F) {
	for _, s := range []string{"1.1.1.1, 10.0.0.2", `for="[2001:db9::1]:80";proto=https`, "unknown", `for=_x, for="1.1.1.1`, "::ffff:1.1.1.1"} {
		f.Add(s, s)
	}
	x := newEdge(f, origin.EdgeConfig{TrustedProxies: []string{"10.0.0.0/8"}})
	fw := newEdge(f, origin.EdgeConfig{TrustedProxies: []string{"10.0.0.0/8"}, ClientHeader: "forwarded"})
	f.Fuzz(func(t *testing.T, spoof, value string) {
		for _, e := range []*origin.Edge{x, fw} {
			last := value
			if e == fw {
				last = "for=198.51.100.1"
			} else {
				last += ", 198.51.100.1"
			}
			hr := &http.Request{RemoteAddr: "10.0.0.1:5", Header: http.Header{"X-Forwarded-For": {spoof, last}, "Forwarded": {spoof, last}}}
			if got := e.ClientAddr(hr).String(); got != "198.51.100.1" {
				t.Errorf("%q, %q make the client %s", spoof, value, got)
			}
			hr.Header = http.Header{"X-Forwarded-For": {value}, "Forwarded": {value}}
			if a := e.ClientAddr(hr); !a.IsValid() || a.Is4In6() || a.Zone() != "" {
				t.Errorf("%q makes the client %s", value, a)
			}
		}
	})
}

func TestStripHeaders(t *testing.T) {
	gone := http.Header{}
	for _, name := range []string{
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Anything", "Forwarded", "X-Real-Ip", "X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override",
		"X-Http-Method", "X-Method-Override", "X-Forwarded-Client-Cert", "Remote-User", "X-Remote-User", "X-User-Id", "Proxy", "Merlon-Subject", "Merlon-Groups", "True-Client-Ip",
		"Cf-Connecting-Ip", "X_forwarded_for", "X_User_Id", "X-User_id", "Remote_user", "Merlon_subject", "X_Original_URL", "x-forwarded-for", "Content_length", "Transfer_encoding",
		"X-Auth-Request-User", "X-Ms-Client-Principal", "X-Middleware-Subrequest", "X-Ssl-Client-Dn", "X-Hop", "Te-Listed", "Keep-Alive",
		"Merlon.Subject", "Merlon!Roles", "X.Forwarded.For", "X-Remote'User", "Content.Length", "Transfer~Encoding",
	} {
		gone[name] = []string{"x"}
	}
	kept := http.Header{
		"Accept": {"*/*"}, "Authorization": {"Bearer x"}, "Cookie": {"a=b"}, "Content-Type": {"text/plain"}, "X-Api-Key": {"x"}, "X-Auth-Token": {"x"}, "X-Requested-With": {"XMLHttpRequest"},
		"X-Csrf-Token": {"x"}, "User-Agent": {"x"}, "X-Custom_name": {"x"}, "X.Custom": {"x"}, "Origin": {"https://a"}, "X-Request-Id": {"x"}, "Proxy-Authorization": {"x"}, "X-Forwarded": nil,
		"Upgrade": {"websocket"}, "Connection": {"upgrade, X-Hop, ,connection", "te-listed,keep-alive"}, "X-Goog-Api-Key": {"x"}, "X-Amz-Date": {"x"}, "X-Github-Event": {"push"},
	}
	delete(kept, "X-Forwarded")
	all := gone.Clone()
	for k, v := range kept {
		all[k] = v
	}
	origin.StripHeaders(all)
	for k := range gone {
		if _, ok := all[k]; ok {
			t.Errorf("%s was kept", k)
		}
	}
	for k := range kept {
		if _, ok := all[k]; !ok {
			t.Errorf("%s was removed", k)
		}
	}
}

func BenchmarkStripHeaders(b *testing.B) {
	h := http.Header{}
	for _, k := range []string{"Accept", "Accept-Encoding", "Accept-Language", "Cookie", "User-Agent", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Referer", "Connection", "Upgrade-Insecure-Requests"} {
		h[k] = []string{"keep-alive"}
	}
	b.ReportAllocs()
	for b.Loop() {
		origin.StripHeaders(h)
	}
}
