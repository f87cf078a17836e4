package origin_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/origin"
)

func newGuard(c origin.Config) func(*testing.T) merlon.Guard {
	return func(t *testing.T) merlon.Guard {
		g, err := origin.New(c)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
}

func withSNI(name string) func(*merlon.Request) {
	return func(r *merlon.Request) { r.TLS = &tls.ConnectionState{ServerName: name} }
}

func TestGuard(t *testing.T) {
	merlontest.Run(t, newGuard(origin.Config{}), merlontest.Options{}, []merlontest.Case{
		{Name: "an ordinary request", Request: "GET /a/b.css?x=1", Want: origin.Accepted},
		{Name: "a request with a body", Request: "POST /a\n\nhello", Want: origin.Accepted},
		{Name: "a host that no site serves", Request: "GET /", Want: origin.UnknownHost, Status: 421,
			Prepare: func(r *merlon.Request) { r.Site = "" }},
		{Name: "TLS for the same host", Request: "GET /\nHost: Shop.example.com:443", Prepare: withSNI("shop.example.com"), Want: origin.Accepted},
		{Name: "TLS without a name", Request: "GET /", Prepare: withSNI(""), Want: origin.Accepted},
		{Name: "TLS for another host", Request: "GET /", Prepare: withSNI("admin.example.com"), Want: origin.WrongConnection, Status: 421},
		{Name: "a dot segment", Request: "GET /a/../admin", Want: origin.AmbiguousPath, Status: 400},
		{Name: "an address encoded twice", Request: "GET /go/https%253A%252F%252Fexample.com", Want: origin.AmbiguousPath, Status: 400},
		{Name: "a path that another route would get", Request: "GET /ADMIN", Want: origin.PathConflict, Status: 400,
			Prepare: func(r *merlon.Request) { r.Conflict = true }},
		{Name: "PATCH", Request: "PATCH /a", Want: origin.Accepted},
		{Name: "TRACE", Request: "TRACE /a", Want: origin.MethodRefused, Status: 405},
		{Name: "CONNECT", Request: "CONNECT /a", Want: origin.MethodRefused, Status: 405},
		{Name: "an unusual method", Request: "PROPFIND /a", Want: origin.MethodRefused, Status: 405},
		{Name: "a method in lower case", Request: "get /a", Want: origin.MethodRefused, Status: 405},
		{Name: "a sloppy query", Request: "GET /a?b=%zz&c=[1|2]", Want: origin.Accepted},
	})
	merlontest.Run(t, newGuard(origin.Config{AllowDoubleEncoding: true}), merlontest.Options{}, []merlontest.Case{
		{Name: "an address encoded twice, where it may be", Request: "GET /go/https%253A%252F%252Fexample.com%252Fa.html", Want: origin.Accepted},
		{Name: "dot segments encoded twice", Request: "GET /go/%252e%252e%252fadmin", Want: origin.AmbiguousPath, Status: 400},
		{Name: "dot segments encoded thrice", Request: "GET /go/..%25252fadmin", Want: origin.AmbiguousPath, Status: 400},
		{Name: "a backslash encoded twice", Request: "GET /go/%255cadmin", Want: origin.AmbiguousPath, Status: 400},
		{Name: "NUL encoded twice", Request: "GET /go/a%2500", Want: origin.AmbiguousPath, Status: 400},
	})
	merlontest.Run(t, newGuard(origin.Config{Methods: []string{"GET", "PROPFIND"}}), merlontest.Options{}, []merlontest.Case{
		{Name: "a method that is listed", Request: "PROPFIND /a", Want: origin.Accepted},
		{Name: "a method that is not", Request: "POST /a", Want: origin.MethodRefused, Status: 405},
	})
}

func TestAddressLists(t *testing.T) {
	merlontest.Run(t, newGuard(origin.Config{
		Allow: []string{"10.8.0.0/16", "2001:db8::/32", "192.0.2.7", "::ffff:198.51.100.0/120"},
		Deny:  []string{"10.8.6.0/24", "2001:db8:bad::/48"},
	}), merlontest.Options{}, []merlontest.Case{
		{Name: "in an allowed network", Request: "GET /", Client: "10.8.1.1", Want: origin.Accepted},
		{Name: "an allowed address", Request: "GET /", Client: "192.0.2.7", Want: origin.Accepted},
		{Name: "beside it", Request: "GET /", Client: "192.0.2.8", Want: origin.AddressDenied, Status: 403},
		{Name: "the mapped spelling of an allowed address", Request: "GET /", Client: "::ffff:10.8.1.1", Want: origin.Accepted},
		{Name: "in a network that was written mapped", Request: "GET /", Client: "198.51.100.9", Want: origin.Accepted},
		{Name: "denied within what is allowed", Request: "GET /", Client: "10.8.6.1", Want: origin.AddressDenied, Status: 403},
		{Name: "the mapped spelling of a denied address", Request: "GET /", Client: "::ffff:10.8.6.1", Want: origin.AddressDenied, Status: 403},
		{Name: "in an allowed IPv6 network", Request: "GET /", Client: "2001:db8::1", Want: origin.Accepted},
		{Name: "denied IPv6", Request: "GET /", Client: "2001:db8:bad::1", Want: origin.AddressDenied, Status: 403},
		{Name: "another IPv6", Request: "GET /", Client: "2001:db9::1", Want: origin.AddressDenied, Status: 403},
		{Name: "no address at all", Request: "GET /", Want: origin.AddressDenied, Status: 403,
			Prepare: func(r *merlon.Request) { r.Client = netip.Addr{} }},
		{Name: "a forwarding header changes nothing here", Request: "GET /\nX-Forwarded-For: 10.8.1.1", Client: "192.0.2.8", Want: origin.AddressDenied, Status: 403},
	})
	merlontest.Run(t, newGuard(origin.Config{Deny: []string{"203.0.113.0/24"}}), merlontest.Options{}, []merlontest.Case{
		{Name: "only denied ones are denied", Request: "GET /", Client: "203.0.113.5", Want: origin.AddressDenied, Status: 403},
		{Name: "everybody else is let in", Request: "GET /", Client: "203.0.114.5", Want: origin.Accepted},
	})
}

func TestRemediesLetExactlyThisPass(t *testing.T) {
	g := newGuard(origin.Config{Allow: []string{"10.0.0.0/8"}})(t)
	r := merlontest.Request(t, "PROPFIND /")
	r.Site = "shop.example.com"
	d := g.Check(r)
	if want := "address:\n  allow: [\"192.0.2.1\"]"; !strings.HasPrefix(d.Remedy, want) {
		t.Errorf("remedy %q, want %q", d.Remedy, want)
	}
	d = newGuard(origin.Config{Methods: []string{"GET"}})(t).Check(r)
	if d.Remedy != "address:\n  methods: [GET, PROPFIND]" || d.Header.Get("Allow") != "GET" {
		t.Errorf("remedy %q, Allow %q", d.Remedy, d.Header.Get("Allow"))
	}
}

func TestConnectionsAreSharedWithinASite(t *testing.T) {
	g, err := origin.New(origin.Config{})
	if err != nil {
		t.Fatal(err)
	}
	sites := map[string]string{"shop.example.com": "shop.example.com", "www.shop.example.com": "shop.example.com", "admin.example.com": "admin.example.com"}
	merlontest.Run(t, func(*testing.T) merlon.Guard { return g.ForSites(func(h string) string { return sites[h] }) }, merlontest.Options{}, []merlontest.Case{
		{Name: "another host of the site", Request: "GET /", Prepare: withSNI("www.shop.example.com"), Want: origin.Accepted},
		{Name: "another site", Request: "GET /", Prepare: withSNI("admin.example.com"), Want: origin.WrongConnection, Status: 421},
		{Name: "a name that no site has", Request: "GET /", Prepare: withSNI("localhost"), Want: origin.Accepted},
	})
}

func TestEveryMistakeIsReported(t *testing.T) {
	_, err := origin.New(origin.Config{
		Allow: []string{"10.0.0.1/8", "10.0.0.0/8", "x"}, Deny: []string{"fe80::1%eth0", "::ffff:0.0.0.0/90"},
		Methods: []string{"get", "TRACE", "A B"},
	})
	for _, want := range []string{`allow[0] "10.0.0.1/8": has bits beyond its length set; write 10.0.0.0/8`, `allow[2] "x"`, `deny[0]`, `deny[1]`, `methods[0]`, `methods[1]`, `methods[2]`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %s: %v", want, err)
		}
	}
	_, err = origin.NewEdge(origin.EdgeConfig{TrustedProxies: []string{"lo"}, ClientHeader: "x-real-ip", SlowGrace: 1, MaxHeader: 5, MaxHeaderFields: -1})
	for _, want := range []string{"trusted_proxies[0]", "client_header", "slow_grace", "max_header ", "max_header_fields"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %s: %v", want, err)
		}
	}
	if _, err = origin.NewEdge(origin.EdgeConfig{ProxyProtocol: true}); err == nil {
		t.Error("proxy_protocol without trusted proxies was accepted")
	}
}

func TestMiddlewareStandsAlone(t *testing.T) {
	g, err := origin.New(origin.Config{Allow: []string{"192.0.2.0/24"}})
	if err != nil {
		t.Fatal(err)
	}
	h := g.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for target, want := range map[string]int{"/a": 200, "/a/../b": 400} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", target, w.Code, want)
		}
	}
}

// The recorded browser requests and API calls must not notice the guard.
func TestBenignCorpus(t *testing.T) {
	const file = "../../shared/data/benign.jsonl"
	f, err := os.Open(file)
	if err != nil {
		t.Skip("the corpus is not here: " + file)
	}
	defer f.Close()
	g := newGuard(origin.Config{AllowDoubleEncoding: true})(t)
	strict, twice := newGuard(origin.Config{})(t), 0
	n, refused := 0, map[string]int{}
	for dec := json.NewDecoder(f); ; n++ {
		var row struct{ Source, Method, Path string }
		if dec.Decode(&row) != nil {
			break
		}
		hr, err := http.NewRequest(row.Method, "http://shop.example.com"+row.Path, nil)
		if err != nil {
			continue
		}
		r := merlon.NewRequest(hr)
		r.Site, r.Client = "shop.example.com", netip.MustParseAddr("192.0.2.1")
		if !strict.Check(r).Passed() {
			twice++
		}
		if d := g.Check(r); !d.Passed() {
			refused[fmt.Sprint(row.Source, " ", d.Reason)]++
			if refused[fmt.Sprint(row.Source, " ", d.Reason)] < 4 {
				t.Logf("%s: %s %.200s: %+v", row.Source, row.Method, row.Path, d.Findings)
			}
		}
	}
	t.Logf("%d of %d need allow_double_encoding", twice, n)
	if len(refused) > 0 || n == 0 || twice > 5 {
		t.Errorf("of %d benign requests were refused: %v", n, refused)
	}
}

func BenchmarkCheck(b *testing.B) {
	allow := make([]string, 0, 100000)
	for i := range 100000 {
		allow = append(allow, fmt.Sprintf("%d.%d.%d.%d", 11+i>>16, i>>8&255, i&255, 7))
	}
	g, err := origin.New(origin.Config{Allow: append(allow, "192.0.2.0/24")})
	if err != nil {
		b.Fatal(err)
	}
	r := merlontest.Request(b, "GET /products/42/reviews.json?page=2")
	r.Site = "shop.example.com"
	b.ReportAllocs()
	for b.Loop() {
		if !g.Check(r).Passed() {
			b.Fatal("refused")
		}
	}
}
