package headers_test

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/headers"
	"github.com/merlon-dev/merlon/merlontest"
)

func TestSetCookie(t *testing.T) {
	theme := headers.Config{ReadableCookies: []string{"theme"}}
	for _, c := range []struct {
		name   string
		config headers.Config
		plain  bool
		in     string
		want   string // empty: dropped
	}{
		{name: "a bare cookie", in: "sid=1", want: "sid=1; Secure; HttpOnly; SameSite=Lax"},
		{name: "without TLS it would be refused if Secure", plain: true, in: "sid=1", want: "sid=1; HttpOnly; SameSite=Lax"},
		{name: "a hardened cookie is left as it is", in: "sid=1; secure; httponly; samesite=strict", want: "sid=1; secure; httponly; samesite=strict"},
		{name: "domain, path and unknown attributes are kept", in: "a=1; Domain=example.com; Path=/x; Partitioned", want: "a=1; Domain=example.com; Path=/x; Partitioned; Secure; HttpOnly; SameSite=Lax"},
		{name: "a script's token stays readable", in: "XSRF-TOKEN=1; SameSite=Lax", want: "XSRF-TOKEN=1; SameSite=Lax; Secure"},
		{name: "Django's, too", in: "csrftoken=1; Secure", want: "csrftoken=1; Secure; SameSite=Lax"},
		{name: "a readable cookie of the operator's", config: theme, in: "theme=dark; Secure", want: "theme=dark; Secure; SameSite=Lax"},
		{name: "names differ by case", config: theme, in: "Theme=dark; Secure", want: "Theme=dark; Secure; HttpOnly; SameSite=Lax"},
		{name: "a readable name as another's value", config: theme, in: "sid=theme", want: "sid=theme; Secure; HttpOnly; SameSite=Lax"},
		{name: "for other sites' pages on purpose", in: "a=1; SameSite=None; Secure; HttpOnly", want: "a=1; SameSite=None; Secure; HttpOnly"},
		{name: "SameSite=None lacks Secure", in: "a=1; SameSite=None", want: "a=1; SameSite=None; Secure; HttpOnly"},
		{name: "SameSite that no browser knows", in: "a=1; SameSite=Yes; Secure; HttpOnly", want: "a=1; SameSite=Yes; Secure; HttpOnly; SameSite=Lax"},
		{name: "the last SameSite counts", in: "a=1; SameSite=Lax; SameSite; Secure; HttpOnly", want: "a=1; SameSite=Lax; SameSite; Secure; HttpOnly; SameSite=Lax"},
		{name: "attributes in the value are none", in: "a=HttpOnly Secure", want: "a=HttpOnly Secure; Secure; HttpOnly; SameSite=Lax"},
		{name: "attributes in another's value are none", in: "a=1; Path=/Secure, HttpOnly", want: "a=1; Path=/Secure, HttpOnly; Secure; HttpOnly; SameSite=Lax"},
		{name: "a letter that folds to s", in: "a=1; \u017fecure; HttpOnly; SameSite=Lax", want: "a=1; \u017fecure; HttpOnly; SameSite=Lax; Secure"},
		{name: "a value too long to be obeyed", in: "a=1; Secure=" + strings.Repeat("x", 1025) + "; HttpOnly; SameSite=Lax", want: "a=1; Secure=" + strings.Repeat("x", 1025) + "; HttpOnly; SameSite=Lax; Secure"},
		{name: "quoted values end at the semicolon, as in browsers", in: `a="x; HttpOnly"`, want: `a="x; HttpOnly"; Secure; HttpOnly; SameSite=Lax`},
		{name: "odd values keep their bytes", in: "a[b]=\"x, y\"\\=\xff ; Path=/", want: "a[b]=\"x, y\"\\=\xff ; Path=/; Secure; HttpOnly; SameSite=Lax"},
		{name: "a comma joins no second cookie", in: "a=1, b=2", want: "a=1, b=2; Secure; HttpOnly; SameSite=Lax"},
		{name: "a deletion still deletes", in: "__Host-a=; Path=/; Max-Age=0; Secure", want: "__Host-a=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"},
		{name: "a semicolon at the end", in: "a=1;", want: "a=1;; Secure; HttpOnly; SameSite=Lax"},
		{name: "no name", in: "=__Host-sid=evil"},
		{name: "no equals sign", in: "sid; HttpOnly"},
		{name: "only spaces for a name", in: " \t=1"},
		{name: "nothing", in: ""},
		{name: "a control character", in: "a=1\x08; HttpOnly"},
		{name: "DEL", in: "a=1\x7f"},
		{name: "the longest", in: "a=" + strings.Repeat("x", 8190), want: "a=" + strings.Repeat("x", 8190) + "; Secure; HttpOnly; SameSite=Lax"},
		{name: "longer than that", in: "a=" + strings.Repeat("x", 8191)},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{"Set-Cookie": {c.in, "other=1; Secure; HttpOnly; SameSite=Lax"}}
			policy(t, c.config).Apply(merlontest.Request(t, "GET /\n"), !c.plain, h)
			want := []string{c.want, "other=1; Secure; HttpOnly; SameSite=Lax"}
			if c.want == "" {
				want = want[1:]
			}
			if got := h["Set-Cookie"]; !reflect.DeepEqual(got, want) {
				t.Errorf("sent\n%q, want\n%q", got, want)
			}
		})
	}
}

func TestCookiesOfWebSocketAnswersAreHardened(t *testing.T) {
	h := http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Set-Cookie": {"sid=1"}}
	policy(t, headers.Config{}).Apply(merlontest.Request(t, "GET /\nConnection: Upgrade\nUpgrade: websocket"), true, h)
	if got := h.Get("Set-Cookie"); got != "sid=1; Secure; HttpOnly; SameSite=Lax" {
		t.Errorf("sent %q", got)
	}
}

// The upstream's list may be shared with others, such as a cache.
func TestTheUpstreamsListIsNotWrittenTo(t *testing.T) {
	for _, list := range [][]string{{"a=1", "b=2\n", "c=3"}, {"a=1", "no cookie", "c=3"}} {
		shared := slices.Clone(list)
		h := http.Header{"Set-Cookie": shared, "X-A": shared}
		policy(t, headers.Config{}).Apply(merlontest.Request(t, "GET /\n"), true, h)
		if !slices.Equal(shared, list) {
			t.Errorf("became %q", shared)
		}
	}
}

// FuzzSetCookie: one cookie stays that one cookie, or is dropped; and browsers'
// rules find in it what it must have.
func FuzzSetCookie(f *testing.F) {
	for _, s := range []string{"sid=1", "a=1; Secure", "a=\"x;y\"; samesite=none", "a=b=c; Expires=Mon, 02 Jan 2006 15:04:05 GMT", "=x", "a", "a=1;HttpOnly=;secure= ", "a=1; \u017fecure", "a=1\r\nB: c"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	p := policy(f, headers.Config{})
	r := merlontest.Request(f, "GET /\n")
	f.Fuzz(func(t *testing.T, in string, secure bool) {
		h := http.Header{"Set-Cookie": {in}}
		p.Apply(r, secure, h)
		out := h["Set-Cookie"]
		was, wasErr := http.ParseSetCookie(in)
		if len(out) == 0 {
			if wasErr == nil && len(in) <= 8<<10 && !strings.ContainsFunc(in, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
				t.Errorf("%q was dropped", in)
			}
			return
		}
		pair, _, _ := strings.Cut(in, ";")
		gotPair, attributes, _ := strings.Cut(out[0], ";")
		if len(out) != 1 || gotPair != pair || strings.ContainsAny(out[0], "\r\n\x00") {
			t.Fatalf("%q became %q", in, out)
		}
		has := map[string]string{}
		for a := range strings.SplitSeq(attributes, ";") {
			k, v, _ := strings.Cut(a, "=")
			has[asciiLower(strings.Trim(k, " \t"))] = asciiLower(strings.Trim(v, " \t"))
		}
		_, isSecure := has["secure"]
		_, httpOnly := has["httponly"]
		name, _, _ := strings.Cut(pair, "=")
		name = strings.Trim(name, " \t")
		if secure && !isSecure || !httpOnly && name != "XSRF-TOKEN" && name != "csrftoken" {
			t.Errorf("%q became %q", in, out)
		}
		if s := has["samesite"]; s != "lax" && s != "strict" && s != "none" {
			t.Errorf("%q has SameSite %q", out, s)
		}
		if wasErr != nil {
			return // Go reads fewer cookies than browsers do
		}
		is, err := http.ParseSetCookie(out[0])
		if err != nil || is.Name != was.Name || is.Value != was.Value || is.Domain != was.Domain || secure && !is.Secure {
			t.Errorf("%q became %q: %v", in, out, err)
		}
	})
}

func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
