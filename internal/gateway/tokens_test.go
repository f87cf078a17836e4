package gateway_test

import (
	"encoding/json"
	"strings"
	"testing"
)

const tokenTown = cheap + `  token: {issuer: "https://localhost", algorithm: EdDSA}
off: [waf]
sites:
  - {host: localhost, upstream: BACKEND, require: login}
`

// accessToken asks for a token as a page's script does.
func accessToken(t *testing.T, got *answer) string {
	t.Helper()
	got.want(200)
	var a struct {
		Token   string `json:"access_token"`
		Expires int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(got.body), &a); err != nil || a.Token == "" || a.Expires < 200 || a.Expires > 300 {
		t.Fatalf("%v: %s", err, got.body)
	}
	return a.Token
}

// script is what a browser sends with a fetch of the site's own page.
var script = []string{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin", "Accept", "*/*"}

func refreshCookie(b *browser) string {
	for c := range strings.SplitSeq(b.cookies(), "; ") {
		if v, ok := strings.CutPrefix(c, "__Host-merlon-refresh="); ok {
			return v
		}
	}
	return ""
}

func TestTokensForPages(t *testing.T) {
	w := settle(t, tokenTown)
	ann := w.in("ann")
	first := accessToken(t, ann.do("POST", "/.merlon/token", "", script...))
	secret := refreshCookie(ann)
	if secret == "" {
		t.Fatal("there is no refresh cookie")
	}
	// A program lets itself in with it, and stays who it is.
	program := w.browser()
	program.program("GET", "/orders", "Authorization", "Bearer "+first).want(200, "ANN-ID")
	if auth := w.backend.last(t).header.Get("Authorization"); auth != "" {
		t.Errorf("the backend was given the token: %q", auth)
	}
	// Again: by the refresh secret, which is replaced.
	accessToken(t, ann.do("POST", "/.merlon/token", "", script...))
	if again := refreshCookie(ann); again == "" || again == secret {
		t.Error("the refresh secret was not replaced")
	}
	// An access token is worth five minutes, not a family of refresh secrets.
	got := program.program("POST", "/.merlon/token", "Authorization", "Bearer "+first)
	if got.status != 401 || refreshCookie(program) != "" {
		t.Errorf("an access token alone: %d %s %q", got.status, got.body, refreshCookie(program))
	}
	// Another site's page has no use for ann's cookies.
	for _, site := range []string{"cross-site", "same-site"} {
		if got := ann.do("POST", "/.merlon/token", "", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Site", site, "Origin", "https://evil.example"); got.status != 403 {
			t.Errorf("a %s page: %d %s", site, got.status, got.body)
		}
	}
	if got := ann.do("GET", "/.merlon/token", "", script...); got.status != 405 {
		t.Errorf("GET: %d", got.status)
	}
	if got := w.browser().do("POST", "/.merlon/token", "", script...); got.status != 401 {
		t.Errorf("nobody: %d", got.status)
	}
}

// Traps 49 and 56: what was handed out ends with the session.
func TestTokensEndWithTheSession(t *testing.T) {
	w := settle(t, tokenTown)
	ann := w.in("ann")
	text := accessToken(t, ann.do("POST", "/.merlon/token", "", script...))
	secret := refreshCookie(ann)
	ann.get("/.merlon/logout").send("/.merlon/logout")
	thief := w.browser()
	if got := thief.do("POST", "/.merlon/token", "", append(script, "Cookie", "__Host-merlon-refresh="+secret)...); got.status != 401 {
		t.Errorf("the refresh secret after the log-out: %d %s", got.status, got.body)
	}
	if got := thief.program("GET", "/orders", "Authorization", "Bearer "+text); got.status != 401 {
		t.Errorf("the access token after the log-out: %d", got.status)
	}
}

func TestNoTokensWithoutAnIssuer(t *testing.T) {
	w := settle(t, openTown)
	if got := w.in("ann").do("POST", "/.merlon/token", "", script...); got.status != 404 {
		t.Errorf("got %d", got.status)
	}
}
