package demo_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/internal/demo"
)

// The attack by a link must see through what browsers see through.
func TestWhereLinksLead(t *testing.T) {
	for link, want := range map[string]string{
		"/":                      "shop.example",
		"":                       "shop.example",
		"account?x=//evil":       "shop.example",
		"https://evil.example/":  "evil.example",
		"//evil.example":         "evil.example",
		`/\evil.example`:         "evil.example",
		`\\evil.example`:         "evil.example",
		"https:evil.example":     "evil.example",
		"/\t/evil.example":       "evil.example",
		" //evil.example":        "evil.example",
		"/%2fevil.example":       "shop.example",
		"https://shop.example/x": "shop.example",
	} {
		if got := demo.Meant("https://shop.example", link); got != want {
			t.Errorf("%q leads to %s, want %s", link, got, want)
		}
	}
}

// Numbers that browsers bring do not fill the shop.
func TestPlantedSessionsAreBounded(t *testing.T) {
	srv := open(t)
	logIn := func(session string) string {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, srv.URL+"/login", strings.NewReader(url.Values{"username": {"ann"}, "password": {"sunshine"}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.AddCookie(&http.Cookie{Name: "shop_session", Value: session})
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		for _, c := range res.Cookies() {
			if c.Name == "shop_session" {
				return c.Value
			}
		}
		return ""
	}
	if got := logIn("planted"); got != "planted" {
		t.Errorf("the session is %q, so that the attack shows nothing", got)
	}
	if got := logIn(strings.Repeat("x", 65)); len(got) > 64 {
		t.Error("a session may have any length")
	}
	in := func(session string) bool {
		r, err := http.NewRequest(http.MethodGet, srv.URL+"/account", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.AddCookie(&http.Cookie{Name: "shop_session", Value: session})
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}
	for i := range 1000 {
		logIn(fmt.Sprintf("planted-%d", i))
	}
	if in("planted") || !in("planted-999") || !in("planted-100") {
		t.Error("the oldest session must go, and no other")
	}
}
