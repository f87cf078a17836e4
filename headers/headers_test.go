package headers_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/headers"
	"github.com/merlon-dev/merlon/merlontest"
)

func policy(t testing.TB, c headers.Config) *headers.Policy {
	t.Helper()
	p, err := headers.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fields reads "Name: value" lines; a name may stand twice.
func fields(lines string) http.Header {
	h := http.Header{}
	for line := range strings.Lines(lines) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			h[name] = append(h[name], value)
		}
	}
	return h
}

// A row says what becomes of some fields; those not named may be anything.
type row struct {
	name    string
	config  headers.Config
	request string // "GET / HTTP/1.1" if empty
	prepare func(*merlon.Request)
	plain   bool // the client came without TLS
	answer  string
	want    string // "Name: value" lines
	gone    string // names, by spaces
}

func (c row) run(t *testing.T) {
	if c.request == "" {
		c.request = "GET /\n"
	}
	r := merlontest.Request(t, c.request)
	if c.prepare != nil {
		c.prepare(r)
	}
	p, h := policy(t, c.config), fields(c.answer)
	p.Apply(r, !c.plain, h)
	for name, want := range fields(c.want) {
		if !reflect.DeepEqual(h[name], want) {
			t.Errorf("%s is %q, want %q", name, h[name], want)
		}
	}
	for name := range strings.FieldsSeq(c.gone) {
		if v, ok := h[name]; ok {
			t.Errorf("%s is %q, want it gone", name, v)
		}
	}
	again := h.Clone()
	p.Apply(r, !c.plain, again)
	if !reflect.DeepEqual(h, again) {
		t.Errorf("applied twice:\n%q\nonce:\n%q", again, h)
	}
}

func runRows(t *testing.T, rows []row) {
	for _, c := range rows {
		t.Run(c.name, c.run)
	}
}

func signedIn(r *merlon.Request) { r.Identity = &merlon.Identity{Subject: "ann"} }

func TestHSTS(t *testing.T) {
	long := "Strict-Transport-Security: max-age=63072000"
	const gone = "Strict-Transport-Security"
	runRows(t, []row{
		{name: "two years over TLS", want: long},
		{name: "none without TLS", plain: true, gone: gone},
		{name: "an upstream's is removed without TLS", plain: true, answer: long, gone: gone},
		{name: "an upstream cannot switch it off", answer: "Strict-Transport-Security: max-age=0", want: long},
		{name: "nor in an answer that says it is gRPC", answer: "Content-Type: application/grpc\nStrict-Transport-Security: max-age=0", want: long},
		{name: "two of them become one", answer: "Strict-Transport-Security: max-age=0\nStrict-Transport-Security: max-age=1", want: long},
		{name: "never for localhost", request: "GET /\nHost: localhost:8443", answer: long, gone: gone},
		{name: "never below localhost", request: "GET /\nHost: app.LocalHost.", answer: long, gone: gone},
		{name: "never for an IPv4 address", request: "GET /\nHost: 192.0.2.1", answer: long, gone: gone},
		{name: "never for an IPv6 address", request: "GET /\nHost: [2001:db8::1]:443", answer: long, gone: gone},
		{name: "a name that only begins like an address", request: "GET /\nHost: 192.0.2.1.example.com", want: long},
		{name: "a name that only ends like localhost", request: "GET /\nHost: notlocalhost:443", want: long},
		{name: "a shorter time", config: headers.Config{HSTS: headers.HSTS{MaxAge: 300}}, want: "Strict-Transport-Security: max-age=300"},
		{name: "sub-domains and preload on request", config: headers.Config{HSTS: headers.HSTS{IncludeSubdomains: true, Preload: true}},
			want: "Strict-Transport-Security: max-age=63072000; includeSubDomains; preload"},
		{name: "off leaves it to the upstream", config: headers.Config{HSTS: headers.HSTS{Off: true}},
			answer: "Strict-Transport-Security: max-age=60", want: "Strict-Transport-Security: max-age=60"},
		{name: "off adds nothing", config: headers.Config{HSTS: headers.HSTS{Off: true}}, gone: gone},
		{name: "off, without TLS", config: headers.Config{HSTS: headers.HSTS{Off: true}}, plain: true, answer: long, gone: gone},
	})
}

func TestBrowserPolicies(t *testing.T) {
	strict := "Referrer-Policy: strict-origin-when-cross-origin"
	runRows(t, []row{
		{name: "an upstream that says nothing", want: strict + `
			X-Content-Type-Options: nosniff
			Cross-Origin-Opener-Policy: same-origin-allow-popups
			Cross-Origin-Resource-Policy: same-site
			Permissions-Policy: camera=(self), microphone=(self), geolocation=(self), display-capture=(self), hid=(), midi=(), serial=(), usb=()`},
		{name: "sniffing cannot be allowed", answer: "X-Content-Type-Options: sniff\nX-Content-Type-Options: x", want: "X-Content-Type-Options: nosniff"},
		{name: "a stricter referrer policy is kept", answer: "Referrer-Policy: no-referrer", want: "Referrer-Policy: no-referrer"},
		{name: "a leaking one is not", answer: "Referrer-Policy: unsafe-url", want: strict},
		{name: "nor the old default", answer: "Referrer-Policy: No-Referrer-When-Downgrade", want: strict},
		{name: "nor one behind a strict one", answer: "Referrer-Policy: no-referrer, unsafe-url", want: strict},
		{name: "nor in a second field", answer: "Referrer-Policy: no-referrer\nReferrer-Policy: unsafe-url", want: strict},
		{name: "the last known word counts", answer: "Referrer-Policy: unsafe-url, Same-Origin, future", want: "Referrer-Policy: same-origin"},
		{name: "an unknown one is replaced", answer: "Referrer-Policy: nonsense", want: strict},
		{name: "another preset", config: headers.Config{ReferrerPolicy: "no-referrer"}, want: "Referrer-Policy: no-referrer"},
		{name: "off leaves even unsafe-url", config: headers.Config{ReferrerPolicy: "off"}, answer: "Referrer-Policy: unsafe-url", want: "Referrer-Policy: unsafe-url"},
		{name: "the upstream's own isolation is kept", answer: `Cross-Origin-Opener-Policy: same-origin; report-to="x"
			Cross-Origin-Resource-Policy: cross-origin
			Permissions-Policy: camera=*`, want: `Cross-Origin-Opener-Policy: same-origin; report-to="x"
			Cross-Origin-Resource-Policy: cross-origin
			Permissions-Policy: camera=*`},
		{name: "what browsers would not understand is replaced", answer: `Cross-Origin-Opener-Policy: same_origin
			Cross-Origin-Resource-Policy: same-origin
			Cross-Origin-Resource-Policy: same-origin`, want: `Cross-Origin-Opener-Policy: same-origin-allow-popups
			Cross-Origin-Resource-Policy: same-site`},
		{name: "off adds nothing", config: headers.Config{OpenerPolicy: "off", ResourcePolicy: "off", PermissionsPolicy: "off", ReferrerPolicy: "off", FrameAncestors: "off"},
			gone: "Cross-Origin-Opener-Policy Cross-Origin-Resource-Policy Permissions-Policy Referrer-Policy Content-Security-Policy X-Frame-Options"},
		{name: "other presets", config: headers.Config{OpenerPolicy: "same-origin", ResourcePolicy: "cross-origin", PermissionsPolicy: `camera=(), geolocation=(self "https://map.example")`},
			want: `Cross-Origin-Opener-Policy: same-origin
			Cross-Origin-Resource-Policy: cross-origin
			Permissions-Policy: camera=(), geolocation=(self "https://map.example")`},
	})
}

func TestFraming(t *testing.T) {
	self := "Content-Security-Policy: frame-ancestors 'self'"
	partner := headers.Config{FrameAncestors: "'self' https://partner.example"}
	runRows(t, []row{
		{name: "only the site itself", want: self + "\nX-Frame-Options: SAMEORIGIN"},
		{name: "added beside the upstream's policy", answer: "Content-Security-Policy: default-src 'self'",
			want: "Content-Security-Policy: default-src 'self'\n" + self + "\nX-Frame-Options: SAMEORIGIN"},
		{name: "an unsafe-inline policy stays one of two", answer: "Content-Security-Policy: script-src 'unsafe-inline'",
			want: "Content-Security-Policy: script-src 'unsafe-inline'\n" + self},
		{name: "the upstream's own stays alone", answer: "Content-Security-Policy: default-src 'self';\tFrame-Ancestors https://a.example",
			want: "Content-Security-Policy: default-src 'self';\tFrame-Ancestors https://a.example", gone: "X-Frame-Options"},
		{name: "also in the second policy of one field", answer: "Content-Security-Policy: default-src 'self', frame-ancestors 'none'",
			want: "Content-Security-Policy: default-src 'self', frame-ancestors 'none'\nX-Frame-Options: DENY"},
		{name: "a path of that name is no directive", answer: "Content-Security-Policy: report-uri /frame-ancestors",
			want: "Content-Security-Policy: report-uri /frame-ancestors\n" + self},
		{name: "nor is a longer name", answer: "Content-Security-Policy: frame-ancestorsx *",
			want: "Content-Security-Policy: frame-ancestorsx *\n" + self},
		{name: "a policy that only reports forbids nothing", answer: "Content-Security-Policy-Report-Only: frame-ancestors 'none'", want: self},
		{name: "DENY is not widened by what overrides it", answer: "X-Frame-Options: deny",
			want: "Content-Security-Policy: frame-ancestors 'none'\nX-Frame-Options: DENY"},
		{name: "contradictions are DENY", answer: "X-Frame-Options: SAMEORIGIN, DENY",
			want: "Content-Security-Policy: frame-ancestors 'none'\nX-Frame-Options: DENY"},
		{name: "SAMEORIGIN stays", answer: "X-Frame-Options: SAMEORIGIN", want: self + "\nX-Frame-Options: SAMEORIGIN"},
		{name: "ALLOW-FROM is ignored as browsers do", answer: "X-Frame-Options: ALLOW-FROM https://evil.example", want: self + "\nX-Frame-Options: SAMEORIGIN"},
		{name: "a partner may frame the site", config: partner, answer: "X-Frame-Options: SAMEORIGIN",
			want: "Content-Security-Policy: frame-ancestors 'self' https://partner.example", gone: "X-Frame-Options"},
		{name: "but no page that forbids it by its own policy", config: partner, answer: "Content-Security-Policy: frame-ancestors 'none'",
			want: "Content-Security-Policy: frame-ancestors 'none'\nX-Frame-Options: DENY"},
		{name: "nobody", config: headers.Config{FrameAncestors: "'none'"}, want: "Content-Security-Policy: frame-ancestors 'none'\nX-Frame-Options: DENY"},
		{name: "off keeps the upstream's", config: headers.Config{FrameAncestors: "off"}, answer: "X-Frame-Options: ALLOWALL", want: "X-Frame-Options: ALLOWALL", gone: "Content-Security-Policy"},
	})
}

func TestStripping(t *testing.T) {
	runRows(t, []row{
		{name: "software's names", answer: "Server: nginx/1.2\nX-Powered-By: PHP/5\nX-AspNet-Version: 4\nX-AspNetMvc-Version: 5\nX-Generator: D\nX-Runtime: 0.1\nX-Drupal-Cache: HIT\nX-Drupals: 1\nEtag: \"a\"",
			want: "X-Drupals: 1\nEtag: \"a\"", gone: "Server X-Powered-By X-AspNet-Version X-AspNetMvc-Version X-Generator X-Runtime X-Drupal-Cache X-Aspnet-Version"},
		{name: "in lower case, too", answer: "server: nginx\nx-request-cost: 1", want: "X-Request-Cost: 1", gone: "server Server"},
		{name: "the operator's", config: headers.Config{Remove: []string{"x-backend", "X-Internal-*"}}, answer: "X-Backend: a\nX-Internal-Host: b\nX-Internally: c",
			want: "X-Internally: c", gone: "X-Backend X-Internal-Host"},
		{name: "set wins over all", config: headers.Config{Set: map[string]string{"server": "shop", "Cross-Origin-Opener-Policy": "unsafe-none"}},
			answer: "Server: nginx\nCross-Origin-Opener-Policy: same-origin", want: "Server: shop\nCross-Origin-Opener-Policy: unsafe-none"},
		{name: "a set policy does not replace the upstream's", config: headers.Config{Set: map[string]string{"Content-Security-Policy": "object-src 'none'"}},
			answer: "Content-Security-Policy: script-src 'self'; frame-ancestors 'none'",
			want:   "Content-Security-Policy: script-src 'self'; frame-ancestors 'none'\nContent-Security-Policy: object-src 'none'"},
		{name: "gRPC answers are only stripped", answer: "Content-Type: application/grpc+proto\nServer: x", want: "Content-Type: application/grpc+proto",
			gone: "Server Content-Security-Policy X-Frame-Options X-Content-Type-Options Referrer-Policy Permissions-Policy"},
		{name: "a page that claims to be gRPC first", answer: "Content-Type: application/grpc, text/html", want: "X-Content-Type-Options: nosniff"},
		{name: "also behind a parameter", answer: "Content-Type: application/grpc;a=b, text/html", want: "X-Content-Type-Options: nosniff"},
		{name: "or in a second field", answer: "Content-Type: application/grpc\nContent-Type: text/html", want: "X-Content-Type-Options: nosniff"},
		{name: "a page that claims to be nearly gRPC", answer: "Content-Type: application/grpcx", want: "X-Content-Type-Options: nosniff"},
		{name: "WebSocket answers are only stripped", request: "GET /\nConnection: Upgrade\nUpgrade: websocket", answer: "Connection: Upgrade\nUpgrade: WebSocket\nServer: x",
			want: "Connection: Upgrade\nUpgrade: WebSocket", gone: "Server Content-Security-Policy X-Content-Type-Options"},
		{name: "a page that advertises h2c is a page", answer: "Connection: Upgrade\nUpgrade: h2c", want: "X-Content-Type-Options: nosniff"},
	})
}

func TestValuesThatSplitTheAnswerAreDropped(t *testing.T) {
	for _, bad := range []string{"/a\r\nSet-Cookie: sid=evil", "/a\nb", "/a\rb", "/a\x00b"} {
		h := http.Header{"Location": {bad}, "X-Two": {"good", bad}, "Set-Cookie": {"a=" + bad, "b=1"}}
		policy(t, headers.Config{}).Apply(merlontest.Request(t, "GET /\n"), false, h)
		if _, ok := h["Location"]; ok {
			t.Errorf("Location %q was sent", h["Location"])
		}
		if !reflect.DeepEqual(h["X-Two"], []string{"good"}) || len(h["Set-Cookie"]) != 1 {
			t.Errorf("of two, %q and %q were sent", h["X-Two"], h["Set-Cookie"])
		}
	}
}

func TestNoStore(t *testing.T) {
	token := "GET /\nAuthorization: Bearer x"
	no := "Cache-Control: no-store"
	rows := []row{
		{name: "anonymous answers are as cacheable as the upstream says", answer: "Cache-Control: public, max-age=60", want: "Cache-Control: public, max-age=60"},
		{name: "and get nothing added", gone: "Cache-Control"},
		{name: "somebody signed in", prepare: signedIn, want: no},
		{name: "somebody signed in, whatever the upstream says", prepare: signedIn, answer: "Cache-Control: public, max-age=60", want: no},
		{name: "an authorized request", request: token, want: no},
		{name: "an authorized request with a plain max-age", request: token, answer: "Cache-Control: max-age=60", want: no},
		{name: "no-cache for one field is no answer", request: token, answer: `Cache-Control: no-cache="x", max-age=60`, want: no},
		{name: "a word in another's place is no answer", request: token, answer: "Cache-Control: x-public", want: no},
	}
	for _, own := range []string{"public, max-age=60", "max-age=1, S-Maxage=60", "must-revalidate", "private", "no-cache", "no-store, max-age=0"} {
		rows = append(rows, row{name: "an authorized request, upstream knows: " + own, request: token, answer: "Cache-Control: " + own, want: "Cache-Control: " + own})
	}
	runRows(t, rows)
}

func TestEveryMistakeIsReported(t *testing.T) {
	_, err := headers.New(headers.Config{
		HSTS:              headers.HSTS{MaxAge: 300, Preload: true},
		ReferrerPolicy:    "unsafe-url",
		PermissionsPolicy: "camera 'none'",
		OpenerPolicy:      "same-site",
		ResourcePolicy:    "all",
		FrameAncestors:    "'self'; script-src *",
		ReadableCookies:   []string{"ok", "a=b"},
		Remove:            []string{"X-Ok", "a b", "Content-*", "strict-transport-security", "content-security-policy", "*"},
		Set:               map[string]string{"X-A": "a\r\nb", "Set-Cookie": "a=b", "x-frame-options": "DENY", "bad name": "x", "X-Dup": "1", "x-dup": "2"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`hsts.preload "true": needs hsts.max_age`, `hsts.preload "true": needs hsts.include_subdomains`, `referrer_policy "unsafe-url"`,
		"permissions_policy", "opener_policy", "resource_policy", "frame_ancestors", "readable_cookies[1]",
		"remove[1]", "remove[2]", "remove[3]", "remove[4]", "remove[5]", "set.X-A", "set.Set-Cookie", "set.x-frame-options", "set.bad name", "set.x-dup"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in the error", want)
		}
	}
	for _, not := range []string{"remove[0]", "readable_cookies[0]", "set.X-Dup"} {
		if strings.Contains(err.Error(), not) {
			t.Errorf("%q is in the error:\n%v", not, err)
		}
	}
	for _, bad := range []headers.HSTS{{MaxAge: -1}, {MaxAge: 3651 * 86400}, {Off: true, Preload: true}} {
		if _, err := headers.New(headers.Config{HSTS: bad}); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
	for _, bad := range []string{"*", "'none' 'self'", " ", "self", "https://a.example/\r\nx", "'self',default-src"} {
		if _, err := headers.New(headers.Config{FrameAncestors: bad}); err == nil {
			t.Errorf("frame_ancestors %q: no error", bad)
		}
	}
	for _, good := range []string{"'none'", "'self' https://*.example.com:8443 app.example", "https:"} {
		policy(t, headers.Config{FrameAncestors: good})
	}
}

func TestSeconds(t *testing.T) {
	for text, want := range map[string]headers.Seconds{"63072000": 63072000, "63072000s": 63072000, "17520h": 63072000, "730d": 63072000} {
		var s headers.Seconds
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "d", "-1", "1.5s", "1hd", "1e9", "9223372036854775807d", "two years"} {
		var s headers.Seconds
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %d, want an error", text, s)
		}
	}
}

func TestMiddleware(t *testing.T) {
	handlers := map[string]http.HandlerFunc{
		"writes":       func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") },
		"only returns": func(http.ResponseWriter, *http.Request) {},
		"redirects":    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) },
		"hints first":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(200) },
		"flushes":      func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() },
		"flushes through a controller": func(w http.ResponseWriter, _ *http.Request) {
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		},
		"sets a deadline": func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).EnableFullDuplex(); err != nil && r.ProtoMajor == 1 {
				t.Error("the writer below is not reached: ", err)
			}
		},
	}
	p := policy(t, headers.Config{})
	for name, handler := range handlers {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewTLSServer(p.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Server", "x")
				w.Header().Set("Set-Cookie", "sid=1")
				handler(w, r)
			})))
			defer s.Close()
			client := s.Client()
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			client.Transport.(*http.Transport).TLSClientConfig.MinVersion = tls.VersionTLS13
			hr, _ := http.NewRequest("GET", s.URL, nil)
			hr.Host = "shop.example.com"
			res, err := client.Do(hr)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Server": "", "Set-Cookie": "sid=1; Secure; HttpOnly; SameSite=Lax",
				"Strict-Transport-Security": "max-age=63072000", "Content-Security-Policy": "frame-ancestors 'self'"} {
				if got := strings.Join(res.Header[name], " | "); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestRefusalsKeepTheirOwnPolicy(t *testing.T) {
	w := httptest.NewRecorder()
	h := policy(t, headers.Config{}).Middleware(http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		merlon.Respond(w, merlon.From(hr), merlon.Refuse(http.StatusForbidden, "x"))
	}))
	h.ServeHTTP(w, merlontest.Request(t, "GET /\nAccept: text/html").Request)
	csp := w.Header()["Content-Security-Policy"]
	if len(csp) != 1 || !strings.Contains(csp[0], "frame-ancestors 'none'") || w.Header().Get("X-Frame-Options") != "DENY" {
		t.Errorf("%q %q", csp, w.Header()["X-Frame-Options"])
	}
}

// The values are shared by all answers, so nobody may be able to change them.
func TestAnswersDoNotShareWhatTheyAppend(t *testing.T) {
	p, r := policy(t, headers.Config{}), merlontest.Request(t, "GET /\n")
	first, second := http.Header{}, http.Header{}
	for _, h := range []http.Header{first, second} {
		p.Apply(r, true, h)
	}
	for name := range first {
		first.Add(name, "first")
		second.Add(name, "second")
	}
	for name, v := range first {
		if len(v) != 2 || v[1] != "first" {
			t.Errorf("%s: %q", name, v)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	p, r := policy(b, headers.Config{}), merlontest.Request(b, "GET /\n")
	values := map[string][]string{
		"Server": {"nginx"}, "Content-Type": {"text/html; charset=utf-8"}, "Content-Length": {"4711"}, "Date": {"Mon, 02 Jan 2006 15:04:05 GMT"},
		"Etag": {`"abcdef"`}, "Vary": {"Accept-Encoding"}, "Cache-Control": {"max-age=60"}, "Content-Security-Policy": {"default-src 'self'; img-src *; script-src 'self'"},
		"Set-Cookie": {"sid=0123456789abcdef; Path=/; Max-Age=3600"},
	}
	h := make(http.Header, 24)
	b.ReportAllocs()
	for b.Loop() {
		clear(h)
		for k, v := range values {
			h[k] = v
		}
		p.Apply(r, true, h)
	}
}
