package account_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/identity/account"
)

func TestSafeReturn(t *testing.T) {
	for _, to := range []string{
		"/", "/a", "/a/b?c=d&e=%0a%5c//", "/a;b=c", "/caf%C3%A9", "/?next=https://evil.example/", "/a/../b", "/:80/",
		"/" + strings.Repeat("a", account.MaxReturn-1),
	} {
		if got := account.SafeReturn(to); got != to {
			t.Errorf("%q became %q", to, got)
		}
	}
	// Trap 57: an open redirector at the client.
	for _, to := range []string{
		"", "a", "//evil.example", "///evil.example", `/\evil.example`, `\/evil.example`, `\\evil.example`,
		"https://evil.example", "https:evil.example", "http:/evil.example", "javascript:alert(1)", "data:text/html,x",
		"/\t/evil.example", "/\n/evil.example", "\t//evil.example", " /a", "/a b", "/a\x00", "/a\r\nSet-Cookie: a=b", "/\x7f",
		"/%2fevil.example", "/%2Fevil.example", "/%5cevil.example", "/%5Cevil.example", "/%09/evil.example", "/a%0d%0ab",
		"/a//b", "/.//evil.example", "/a/..//evil.example", "/a%", "/a#b", "/café", "?a", "@evil.example", "/%00", ".evil.example",
		"/" + strings.Repeat("a", account.MaxReturn),
	} {
		if got := account.SafeReturn(to); got != "/" {
			t.Errorf("%q became %q", to, got)
		}
	}
}

func FuzzSafeReturn(f *testing.F) {
	for _, s := range []string{"/", "/a?b=c", "//evil.example", `/\evil`, "/%2fevil", "/\t/evil", "/a/..//e"} {
		f.Add(s)
	}
	base, err := url.Parse("https://site.example/.merlon/login")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, to string) {
		got := account.SafeReturn(to)
		if got != "/" && got != to {
			t.Fatalf("%q became %q, which is neither", to, got)
		}
		// What browsers do before they look: drop these, take \ for /.
		seen := strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(strings.Trim(got, " \x00"))
		u, err := base.Parse(seen)
		if err != nil || u.Host != "site.example" || u.Scheme != "https" || u.User != nil || strings.HasPrefix(u.Path, "//") {
			t.Errorf("%q leads to %v, %v", got, u, err)
		}
	})
}
