package portal_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/internal/portal"
	identitytest "github.com/merlon-dev/merlon/test/identity"
)

func silent(t *testing.T, b *identitytest.Browser) {
	t.Helper()
	if c := b.Complaints(); len(c) > 0 {
		t.Errorf("the browser complains: %q", c)
	}
}

func TestInABrowser(t *testing.T) {
	w := newWorld(t, identity.Config{Register: "open", RegisterDomains: []string{"example.com"}}, portal.Config{Brand: portal.Brand{Name: "The Harbour Shop"}})
	b := identitytest.Start(t, w.server.URL)
	b.Authenticator()

	b.Open("/.merlon/register")
	b.Shots("register")
	b.Fill("#email", "ann@example.com")
	b.Press("main form button")
	b.Shows("Look into your mail")
	b.Shots("sent")
	b.Open(w.link("register/link"))
	b.Shots("join")
	b.Fill("#display", "Ann Gull")
	b.Fill("#new", "short")
	b.Press("main form button")
	b.Shows("too short")
	b.Shots("join-weak")
	b.Fill("#new", annsPassword)
	b.Press("main form button")
	b.At("/")

	secret, codes := b.AddApp()
	b.Shots("codes")
	if len(codes) != 10 {
		t.Fatalf("%d codes", len(codes))
	}
	b.Press("main a.button")
	b.At("/.merlon/account")
	b.LogOut(false)
	b.Shots("signed-out")

	b.Open("/.merlon/login?return_to=/basket")
	b.Shots("login")
	b.FillIn("ann@example.com", "wrong")
	b.Shows("That did not work")
	b.Wait("document.activeElement.id === 'password'") // autofocus comes with the first frame
	b.Shots("login-wrong")
	b.FillIn("ann@example.com", annsPassword)
	b.Shows("One more step")
	b.Shots("second")
	b.Fill("#code", identitytest.Code(t, secret, 0))
	b.Press(`form[action="/.merlon/code"] button`)
	b.At("/basket")

	b.AddPasskey()
	b.Shows("It is added")
	b.Shots("account")
	b.LogOut(true)
	b.SignInByPasskey()
	b.At("/")
	if got := b.Text("#who"); got != "ann@example.com" {
		t.Errorf("signed in as %q", got)
	}
	silent(t, b)
}

func TestStepUpInABrowser(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{Brand: portal.Brand{Name: "The Harbour Shop", Color: "#0b6e4f"}})
	w.ann()
	for _, script := range []bool{true, false} {
		b := identitytest.Start(t, w.server.URL)
		b.NoScript(!script)
		w.age(10 * time.Minute)
		b.SignIn("ann", annsPassword)
		b.At("/")
		b.Press("#pay")
		b.Shows("Prove it is you")
		b.Shots("prove")
		b.Fill("#password", annsPassword)
		b.Press("main form button")
		if !script {
			b.Shows("Thank you, it is you")
			b.Shots("resume")
			b.Press("main form button")
		}
		b.At("/pay")
		if got := b.Text("#body"); got != "amount=5" {
			t.Errorf("with scripts %v the backend got %q", script, got)
		}
		silent(t, b)
	}
	if got := w.reached(); len(got) < 2 || strings.Count(strings.Join(got, "\n"), "POST /pay?x=1 amount=5") != 2 {
		t.Errorf("the backend got %q", got)
	}
}

// Pages that the ways above do not lead to.
func TestMorePages(t *testing.T) {
	w := newWorld(t, identity.Config{MFA: identity.MFA{Required: []string{"team"}}}, portal.Config{Brand: portal.Brand{Name: "The Harbour Shop", Color: "#7a1f5c"}})
	w.ann(func(a *account.Account) { a.MustChange = true; a.Roles = []string{"team"} })
	b := identitytest.Start(t, w.server.URL)
	b.Authenticator()
	b.Open("/.merlon/recover")
	b.Shots("recover")
	b.Fill("#name", "ann")
	b.Press("main form button")
	b.Shows("Look into your mail")
	b.Open(w.link("recover/link"))
	b.Shots("recover-link")
	b.Open("/.merlon/recover/link?token=x")
	b.Shots("gone")
	b.Open("/.merlon/nothing")
	b.Shots("missing")
	b.SignIn("ann", annsPassword)
	b.Shows("Choose a new password")
	b.Shots("must-change")
	b.Fill("#new", nextPassword)
	b.Press("main form button")
	b.Shows("Add a second way")
	b.Shots("enrol")
	b.Press(`form[action="/.merlon/enrol/totp"] button`)
	b.Wait(`document.querySelector("img.qr")`)
	b.Shots("totp")
	b.Fill("#code", "000000")
	b.Press("main form button")
	b.Shows("That code did not work")
	b.Shots("totp-wrong")
	b.SignIn("ann", nextPassword)
	b.Shows("Add a second way")
	b.Press(`form[data-passkey="create"] button`)
	b.Shows("Keep your recovery codes")
	b.Open("/.merlon/logout")
	b.Shots("logout")
	silent(t, b)
}

// German words are long, and fit all the same.
func TestGermanInABrowser(t *testing.T) {
	w := newWorld(t, identity.Config{MFA: identity.MFA{Required: []string{"team"}}}, portal.Config{Brand: portal.Brand{Name: "Der Hafenladen"}})
	w.ann(func(a *account.Account) { a.MustChange = true; a.Roles = []string{"team"} })
	b := identitytest.Start(t, w.server.URL)
	b.Speak("de")
	b.Open("/.merlon/login")
	b.Shows("Passwort vergessen?")
	b.Shots("de-login")
	b.FillIn("ann", annsPassword)
	b.Shows("Neues Passwort wählen")
	b.Fill("#new", "short")
	b.Press("main form button")
	b.Shows("Es ist zu kurz")
	b.Shots("de-must-change")
	b.Fill("#new", nextPassword)
	b.Press("main form button")
	b.Shows("Zweiten Weg hinzufügen")
	b.Shots("de-enrol")
	b.Press(`form[action="/.merlon/enrol/totp"] button`)
	b.Wait(`document.querySelector("img.qr")`)
	b.Shots("de-totp")
	secret, _ := b.ConfirmApp()
	b.Shows("Bewahren Sie Ihre Ersatzcodes auf")
	b.Shots("de-codes")
	b.Forget()
	b.SignIn("ann", nextPassword)
	b.Shows("Noch ein Schritt")
	b.Shots("de-second")
	b.Fill("#code", identitytest.Code(t, secret, 0))
	b.Press(`form[action="/.merlon/code"] button`)
	b.At("/")
	b.Open("/.merlon/account")
	b.Shows("Browser, die als Ihre bekannt sind")
	b.Shots("de-account")
	b.Open("/.merlon/logout")
	b.Shots("de-logout")
	silent(t, b)
}

func TestRecoveryInABrowser(t *testing.T) {
	w := newWorld(t, identity.Config{Register: "open", RegisterDomains: []string{"*"}}, portal.Config{})
	b := identitytest.Start(t, w.server.URL)
	b.Register("bob@example.com", "Bob", annsPassword, func() string { return w.link("register/link") })
	b.LogOut(false)
	b.Recover("bob@example.com", nextPassword, "", func() string { return w.link("recover/link") })
	secret, _ := b.AddApp()
	b.LogOut(true)
	// trap 47: a link alone does not pass by the second factor.
	b.Recover("bob@example.com", annsPassword+" 2", identitytest.Code(t, secret, 0), func() string { return w.link("recover/link") })
	if got := b.Text("#who"); got != "bob@example.com" {
		t.Errorf("signed in as %q", got)
	}
	silent(t, b)
}

// A form's answer leads to another host: the application that somebody lets
// know who they are, and on to where that sends them.
func TestConsentInABrowser(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{Brand: portal.Brand{Name: "The Harbour Shop"}})
	w.ann()
	start := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = rw.Write([]byte("<title>app</title>back at the application"))
	}))
	defer start.Close()
	elsewhere := httptest.NewTLSServer(http.RedirectHandler(start.URL, http.StatusFound))
	defer elsewhere.Close()
	host := "127.0.0.1:" + port(elsewhere)
	w.more = func(rw http.ResponseWriter, r *merlon.Request) bool {
		if r.URL.Path != provider.Authorize {
			return false
		}
		if r.Method == http.MethodPost {
			http.Redirect(rw, r.Request, "https://"+host+"/callback", http.StatusSeeOther)
			return true
		}
		w.portal.Pages().Consent(rw, r.Request, provider.Ask{Client: "The wiki", Host: host, Scopes: []string{"email", "openid", "printer"}, Action: provider.Authorize, Ticket: "T"})
		return true
	}
	b := identitytest.Start(t, w.server.URL)
	b.SignIn("ann", annsPassword)
	b.At("/")
	b.Open(provider.Authorize)
	b.Shots("consent")
	b.Press(`button[value="allow"]`)
	b.Shows("back at the application")
	silent(t, b)
}
