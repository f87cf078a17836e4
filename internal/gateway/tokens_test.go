package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/test/harness"
)

const tokenTown = cheap + `  token: {issuer: "https://localhost", algorithm: EdDSA}
off: [waf]
sites:
  - {host: localhost, upstream: BACKEND, require: login}
`

// accessToken asks for a token as a page's script does.
func accessToken(t *testing.T, got *harness.Page) string {
	t.Helper()
	got.Want(200)
	var a struct {
		Token   string `json:"access_token"`
		Expires int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(got.Body), &a); err != nil || a.Token == "" || a.Expires < 200 || a.Expires > 300 {
		t.Fatalf("%v: %s", err, got.Body)
	}
	return a.Token
}

// script is what a browser sends with a fetch of the site's own page.
var script = []string{"Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", "Sec-Fetch-Site", "same-origin", "Accept", "*/*"}

func refreshCookie(b *harness.Person) string {
	for c := range strings.SplitSeq(b.Cookies(), "; ") {
		if v, ok := strings.CutPrefix(c, "__Host-merlon-refresh="); ok {
			return v
		}
	}
	return ""
}

func TestTokensForPages(t *testing.T) {
	w := settle(t, tokenTown)
	ann := w.in("ann")
	first := accessToken(t, ann.Do("POST", "/.merlon/token", "", script...))
	secret := refreshCookie(ann)
	if secret == "" {
		t.Fatal("there is no refresh cookie")
	}
	// A program lets itself in with it, and stays who it is.
	program := w.browser()
	program.Program("GET", "/orders", "Authorization", "Bearer "+first).Want(200, "ANN-ID")
	if auth := w.backend.last(t).Header.Get("Authorization"); auth != "" {
		t.Errorf("the backend was given the token: %q", auth)
	}
	// Again: by the refresh secret, which is replaced.
	accessToken(t, ann.Do("POST", "/.merlon/token", "", script...))
	if again := refreshCookie(ann); again == "" || again == secret {
		t.Error("the refresh secret was not replaced")
	}
	// An access token is worth five minutes, not a family of refresh secrets.
	got := program.Program("POST", "/.merlon/token", "Authorization", "Bearer "+first)
	if got.Status != 401 || refreshCookie(program) != "" {
		t.Errorf("an access token alone: %d %s %q", got.Status, got.Body, refreshCookie(program))
	}
	// Another site's page has no use for ann's cookies.
	for _, site := range []string{"cross-site", "same-site"} {
		if got := ann.Do("POST", "/.merlon/token", "", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Site", site, "Origin", "https://evil.example"); got.Status != 403 {
			t.Errorf("a %s page: %d %s", site, got.Status, got.Body)
		}
	}
	if got := ann.Do("GET", "/.merlon/token", "", script...); got.Status != 405 {
		t.Errorf("GET: %d", got.Status)
	}
	if got := w.browser().Do("POST", "/.merlon/token", "", script...); got.Status != 401 {
		t.Errorf("nobody: %d", got.Status)
	}
}

// Trap 56: a refresh secret that comes twice ends all that the copied cookies
// are good for, the session included.
func TestCopiedRefreshSecretEndsTheSession(t *testing.T) {
	w := settle(t, strings.Replace(tokenTown, "algorithm: EdDSA", "algorithm: EdDSA, refresh: {grace: 1s}", 1))
	ann := w.in("ann")
	text := accessToken(t, ann.Do("POST", "/.merlon/token", "", script...))
	copied := ann.Cookies()
	accessToken(t, ann.Do("POST", "/.merlon/token", "", script...))
	time.Sleep(1100 * time.Millisecond) // no tab is as slow
	if got := w.browser().Do("POST", "/.merlon/token", "", append(script, "Cookie", copied)...); got.Status != 401 {
		t.Errorf("the copy: %d %s", got.Status, got.Body)
	}
	for range 2 {
		if got := w.browser().Do("POST", "/.merlon/token", "", append(script, "Cookie", copied)...); got.Status != 401 {
			t.Errorf("the copy, again: %d", got.Status)
		}
	}
	if got := ann.Do("POST", "/.merlon/token", "", script...); got.Status != 401 {
		t.Errorf("its owner: %d", got.Status)
	}
	if got := w.browser().Program("GET", "/orders", "Authorization", "Bearer "+text); got.Status != 401 {
		t.Errorf("the access token: %d", got.Status)
	}
	w.in("ann") // and signs in again
}

// Traps 49 and 56: what was handed out ends with the session.
func TestTokensEndWithTheSession(t *testing.T) {
	w := settle(t, tokenTown)
	ann := w.in("ann")
	text := accessToken(t, ann.Do("POST", "/.merlon/token", "", script...))
	secret := refreshCookie(ann)
	ann.Get("/.merlon/logout").Send("/.merlon/logout")
	thief := w.browser()
	if got := thief.Do("POST", "/.merlon/token", "", append(script, "Cookie", "__Host-merlon-refresh="+secret)...); got.Status != 401 {
		t.Errorf("the refresh secret after the log-out: %d %s", got.Status, got.Body)
	}
	if got := thief.Program("GET", "/orders", "Authorization", "Bearer "+text); got.Status != 401 {
		t.Errorf("the access token after the log-out: %d", got.Status)
	}
}

// A refresh secret is no way around what a session is held to.
func TestRefreshSecretsAreGoodBesideTheirSessionOnly(t *testing.T) {
	t.Parallel()
	w := settle(t, strings.Replace(tokenTown, "identity:\n", "identity:\n  mfa: {required: [late]}\n", 1))
	bob := w.in("bob")
	accessToken(t, bob.Do("POST", "/.merlon/token", "", script...))
	secret := "__Host-merlon-refresh=" + refreshCookie(bob)
	thief := w.browser()
	if got := thief.Do("POST", "/.merlon/token", "", append(script, "Cookie", secret)...); got.Status != 401 {
		t.Errorf("without the session: %d %s", got.Status, got.Body)
	}
	ann := w.in("ann")
	if got := ann.Do("POST", "/.merlon/token", "", append(script, "Cookie", secret)...); strings.Contains(subjectOf(t, accessToken(t, got)), "BOB-ID") {
		t.Error("beside another's session it was good")
	}
	bob = w.in("bob")
	accessToken(t, bob.Do("POST", "/.merlon/token", "", script...))
	if _, err := w.Stores().Accounts.Update(t.Context(), "BOB-ID", func(a *account.Account) error {
		a.Roles = []string{"late"}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // what was read of a session holds for a second
	if got := bob.Do("POST", "/.merlon/token", "", script...); got.Status != 401 {
		t.Errorf("trap 47: with less than policy asks for since: %d %s", got.Status, got.Body)
	}
}

// subjectOf is what a token says, unverified.
func subjectOf(t *testing.T, text string) string {
	t.Helper()
	parts := strings.Split(text, ".")
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestNoTokensWithoutAnIssuer(t *testing.T) {
	w := settle(t, openTown)
	if got := w.in("ann").Do("POST", "/.merlon/token", "", script...); got.Status != 404 {
		t.Errorf("got %d", got.Status)
	}
}

// A reload that cannot be used leaves the tokens and what is open with them; so
// does one that changes other things.
func TestReloadsLeaveTokens(t *testing.T) {
	w := settle(t, tokenTown)
	text := accessToken(t, w.in("ann").Do("POST", "/.merlon/token", "", script...))
	program := w.browser()
	open := dialWebSocket(t, program, http.Header{"Authorization": {"Bearer " + text}})
	shorter := strings.Replace(tokenTown, "algorithm: EdDSA", "algorithm: EdDSA, lifetime: 4m", 1)
	for _, c := range []struct {
		name, text string
		good       bool
	}{
		{"other tokens and a mistake", strings.Replace(shorter, "require: login", "require: login, limit: {burst: -1}", 1), false},
		{"the same tokens", strings.Replace(tokenTown, "require: login", "require: login, limit: {burst: 300}", 1), true},
	} {
		f := read(t, c.text, w.backend.URL)
		f.Data = w.data
		if err := w.Reload(f); (err == nil) != c.good {
			t.Fatalf("%s: %v", c.name, err)
		}
		select {
		case <-open:
			t.Fatalf("%s: what was open with a token was closed", c.name)
		case <-time.After(700 * time.Millisecond):
		}
		program.Program("GET", "/orders", "Authorization", "Bearer "+text).Want(200)
	}
}
