package portal_test

import (
	"context"
	"encoding/pem"
	"html"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/identity/token"
	"github.com/merlon-dev/merlon/internal/portal"
	"github.com/merlon-dev/merlon/secrets"
	identitytest "github.com/merlon-dev/merlon/test/identity"
)

const clientSecret = "a secret of 24 characters & more"

// users answers the authorization server from the store.
type users struct{ w *world }

func (u users) User(ctx context.Context, subject string, _ time.Time) (provider.User, error) {
	a, err := u.w.store.Account(ctx, subject)
	return provider.User{Name: a.Name, Display: a.Display, Email: a.Email, EmailVerified: a.EmailVerified}, err
}

// twoMerlons are a shop whose people sign in at corp.
func twoMerlons(t *testing.T, create bool) (shop, corp *world) {
	t.Helper()
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var signer *token.Service
	corp = newWorldAt(t, "127.0.0.1", identity.Config{}, portal.Config{Brand: portal.Brand{Name: "Corp", Color: "#7a1f5c"}}, func(e *portal.Env) {
		e.JWKS = func(ctx context.Context) ([]byte, http.Header, error) { return signer.JWKS(ctx) }
	})
	corp.ann()
	dir := t.TempDir()
	secret, ca := filepath.Join(dir, "secret"), filepath.Join(dir, "ca.pem")
	fatal(os.WriteFile(secret, []byte(clientSecret), 0o600))
	fatal(os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: corp.server.Certificate().Raw}), 0o600))
	rp, err := oidc.New(oidc.Config{Providers: []oidc.Provider{{
		Name: "corp", Label: "Corp", Issuer: corp.server.URL, ClientID: "shop", ClientSecret: secrets.Ref("file:" + secret), CA: ca, Create: create,
	}, {Name: "git", Label: "Git", Issuer: "https://git.example", ClientID: "shop", ClientSecret: secrets.Ref("file:" + secret)}}}, masterKey(t), nil)
	fatal(err)
	shop = newWorld(t, identity.Config{}, portal.Config{Brand: portal.Brand{Name: "The Harbour Shop"}}, func(e *portal.Env) { e.OIDC = rp })

	signer, err = token.New(t.Context(), token.Config{Issuer: corp.server.URL, Algorithm: "ES256"}, masterKey(t), token.NewMemory())
	fatal(err)
	signatures, err := signer.Signatures()
	fatal(err)
	back := "https://127.0.0.1:" + port(shop.server) + oidc.LogoutPath("corp")
	as, err := provider.New(provider.Config{Issuer: corp.server.URL, Clients: []provider.Client{{
		ID: "shop", Name: "The Harbour Shop", Secret: secrets.Ref("file:" + secret), BackchannelLogout: back,
		Redirect: []string{shop.server.URL + oidc.CallbackPath("corp")}, Logout: []string{shop.server.URL + "/.merlon/logout"},
	}}}, provider.Deps{
		Store: provider.NewMemory(), Signer: signatures, JWKS: "/.merlon/jwks.json", Users: users{corp}, Pages: corp.portal.Pages(),
		Key: masterKey(t), HTTP: shop.server.Client(), Failed: func(client string, err error) { t.Errorf("%s could not be told: %v", client, err) },
	})
	fatal(err)
	corp.portal.SetProvider(as)
	corp.revoke = as.LoggedOut
	handler := as.Handler()
	corp.more = func(w http.ResponseWriter, r *merlon.Request) bool {
		switch {
		case strings.HasPrefix(r.URL.Path, "/.merlon/oauth/"), strings.HasPrefix(r.URL.Path, "/.well-known/"):
			handler.ServeHTTP(w, r.Request)
		default:
			return false
		}
		return true
	}
	corp.wait = func() error { return as.Wait(t.Context()) }
	return shop, corp
}

func TestTwoMerlonsInABrowser(t *testing.T) {
	shop, corp := twoMerlons(t, true)
	b := identitytest.Start(t, shop.server.URL)
	b.Open("/.merlon/login?return_to=/basket")
	b.Shots("login-provider")
	shop.age(10 * time.Minute)
	b.Press(`a[href^="/.merlon/oidc/begin/corp"]`)
	b.Shows("Corp")
	b.FillIn("ann", annsPassword)
	b.Shows("Let The Harbour Shop know who you are?")
	b.Press(`button[value="allow"]`)
	b.At("/basket")
	if who := b.Text("#who"); !strings.HasPrefix(who, "corp.") {
		t.Errorf("signed in as %q", who)
	}

	// A fresh proof is the provider's to give, and what was sent goes on.
	b.Press("#pay")
	b.Shows("Prove it is you")
	b.Shots("prove-provider")
	b.Press(`a[href^="/.merlon/oidc/begin/corp"]`)
	b.Shows("Prove it is you")
	b.Wait("location.hostname === '127.0.0.1'")
	b.Fill("#password", annsPassword)
	b.Press(`form[action="/.merlon/prove"] button`)
	b.At("/pay")
	if got := b.Text("#body"); got != "amount=5" {
		t.Errorf("the backend got %q", got)
	}

	b.Open("/.merlon/account")
	b.Shots("account-provider")
	b.Open(corp.server.URL + "/.merlon/account")
	b.Shows("Applications that know who you are")
	b.Shots("account-consent")

	b.Open(shop.server.URL + "/.merlon/account")
	b.LogOut(false)
	b.Shows("Also sign out at Corp")
	b.Shots("signed-out-provider")
	b.Open(shop.server.URL + "/.merlon/login")
	b.Press(`a[href^="/.merlon/oidc/begin/corp"]`)
	b.Wait("location.hostname === 'localhost' && location.pathname === '/'")

	// Log out everywhere works: the shop is told by corp.
	b.Base = corp.server.URL
	b.LogOut(false)
	if err := corp.wait(); err != nil {
		t.Fatal(err)
	}
	b.Open(shop.server.URL + "/.merlon/account")
	b.At("/.merlon/login")
	silent(t, b)
}

// throughCorp follows a link of the shop to corp, where ann signs in if she has
// to and lets the shop know, and back.
func (b *browser) throughCorp(corp *world, to string) *shown {
	b.w.t.Helper()
	pg := b.get(to).want(http.StatusSeeOther)
	at := &browser{w: corp, http: b.http, head: http.Header{}}
	pg = at.get(pg.header.Get("Location"))
	if pg.status == http.StatusSeeOther && strings.Contains(pg.header.Get("Location"), "/.merlon/login") {
		pg = at.get(pg.header.Get("Location")).send("/.merlon/login", "name", "ann", "password", annsPassword).want(http.StatusOK)
		next := pg.body[strings.Index(pg.body, "url=")+4:]
		pg = at.get(html.UnescapeString(next[:strings.Index(next, `"`)]))
	}
	if pg.status == http.StatusOK {
		pg = pg.send(provider.Authorize, "answer", "allow")
	}
	pg.want(http.StatusSeeOther, b.w.server.URL+oidc.CallbackPath("corp"))
	return b.get(pg.header.Get("Location"), "Sec-Fetch-Site", "cross-site")
}

var thereLink = regexp.MustCompile(`href="([^"]+)" referrerpolicy="no-referrer">Also sign out at Corp<`)

// Who signs out of the shop may sign out at corp as well, whose ID token the
// shop has kept, and comes back to the shop's own page.
func TestSigningOutAtTheProviderToo(t *testing.T) {
	shop, corp := twoMerlons(t, true)
	for _, everywhere := range []string{"", "yes"} {
		b := shop.browser()
		b.throughCorp(corp, "/.merlon/oidc/begin/corp").want(http.StatusOK)
		pg := b.get("/.merlon/logout").send("/.merlon/logout", "everywhere", everywhere).want(http.StatusOK, "You are signed out")
		link := thereLink.FindStringSubmatch(pg.body)
		if link == nil {
			t.Fatal(pg.body)
		}
		to := html.UnescapeString(link[1])
		u, err := url.Parse(to)
		if err != nil || !strings.HasPrefix(to, corp.server.URL+provider.EndSession+"?") || u.Query().Get("post_logout_redirect_uri") != shop.server.URL+"/.merlon/logout" {
			t.Fatal(to, err)
		}
		// Not forced: at corp ann is still signed in, until she follows the link.
		at := &browser{w: corp, http: b.http, head: http.Header{}}
		at.get("/.merlon/account").want(http.StatusOK)
		at.get(to, "Sec-Fetch-Site", "cross-site").want(http.StatusSeeOther, shop.server.URL+"/.merlon/logout")
		at.get("/.merlon/account").want(http.StatusSeeOther)
		pg = b.get("/.merlon/logout", "Sec-Fetch-Site", "cross-site").want(http.StatusOK, "You are signed out")
		if thereLink.MatchString(pg.body) {
			t.Error("it is offered again")
		}
	}
	if err := corp.wait(); err != nil {
		t.Fatal(err)
	}

	// A session that no provider stands behind offers nothing, and neither the
	// request nor the form can say where to go.
	shop.ann(func(a *account.Account) { a.ID, a.Name, a.Email = "SHOP-ANN", "annie", "annie@example.com" })
	b := shop.browser()
	b.signIn("annie", annsPassword).want(http.StatusOK)
	pg := b.get("/.merlon/logout").send("/.merlon/logout", "post_logout_redirect_uri", "https://evil.example", "return_to", "https://evil.example").want(http.StatusOK, "You are signed out")
	if strings.Contains(pg.body, "evil.example") || strings.Contains(pg.body, "Also sign out") {
		t.Error(pg.body)
	}
}

// A log-out at corp goes on to what hangs on the session here: the gateway's
// own tokens and applications.
func TestALogOutAtTheProviderIsPassedOn(t *testing.T) {
	shop, corp := twoMerlons(t, true)
	ended := make(chan string, 10)
	shop.revoke = func(_ context.Context, account, session string) error {
		ended <- session
		return nil
	}
	b := shop.browser()
	b.throughCorp(corp, "/.merlon/oidc/begin/corp").want(http.StatusOK)
	list, err := shop.sessions.List(t.Context(), shop.only(t).ID)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	at := &browser{w: corp, http: b.http, head: http.Header{}}
	at.get("/.merlon/logout").send("/.merlon/logout").want(http.StatusOK, "You are signed out")
	if err := corp.wait(); err != nil {
		t.Fatal(err)
	}
	select {
	case session := <-ended:
		if session != list[0].ID {
			t.Errorf("%q ended, want %q", session, list[0].ID)
		}
	default:
		t.Error("what hangs on the session was not ended")
	}
	b.get("/.merlon/account").want(http.StatusSeeOther, "/.merlon/login")
}

// only is the one account that there is.
func (w *world) only(t *testing.T) account.Account {
	t.Helper()
	list, err := w.store.Accounts(t.Context(), "", "", 2)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	return list[0]
}

func TestAccountsElsewhereAreLinked(t *testing.T) {
	shop, corp := twoMerlons(t, false)
	shop.ann(func(a *account.Account) { a.ID, a.Name, a.Email = "SHOP-ANN", "annie", "annie@example.com" })
	follow := func(b *browser, to string) *shown {
		t.Helper()
		return b.throughCorp(corp, to)
	}
	b := shop.browser()
	follow(b, "/.merlon/oidc/begin/corp").want(http.StatusForbidden, "Nobody here is known by that account")
	b.signIn("annie", annsPassword).want(http.StatusOK)
	follow(b, "/.merlon/oidc/begin/corp?link=1").want(http.StatusSeeOther, "done=linked")
	pg := b.get("/.merlon/account?done=linked").want(http.StatusOK, `<span class="what">Corp<span`, "The account is linked", `aria-label="Remove Corp"`)
	if strings.Contains(pg.body, "corp?link=1") || !strings.Contains(pg.body, "git?link=1") {
		t.Error("what is linked can be linked again, or what is not cannot")
	}
	if pg = b.get("/.merlon/prove").want(http.StatusOK, "/.merlon/oidc/begin/corp?"); strings.Contains(pg.body, "/begin/git") {
		t.Error("a provider may prove somebody whom it does not know")
	}
	c := shop.browser()
	follow(c, "/.merlon/oidc/begin/corp?return_to=/x").want(http.StatusOK, "url=/x")
	c.get("/").want(http.StatusOK, "<p id=who>annie</p>")
	c.get("/.merlon/account").send("/.merlon/account/unlink").want(http.StatusSeeOther)
	b.get("/.merlon/account").want(http.StatusOK, "/.merlon/oidc/begin/corp?link=1")

	at := &browser{w: corp, http: b.http, head: http.Header{}}
	at.get("/.merlon/account").want(http.StatusOK, "The Harbour Shop").send("/.merlon/account/consent").want(http.StatusSeeOther)
	if pg := at.get("/.merlon/account"); strings.Contains(pg.body, "Applications that know") {
		t.Error("the consent was not taken back")
	}
}

// trap 57: what a browser brings back is believed only where it was sent from.
func TestWhatComesBackFromAProvider(t *testing.T) {
	shop, _ := twoMerlons(t, true)
	b := shop.browser()
	for _, q := range []string{"", "?code=x&state=y", "?error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E"} {
		pg := b.get("/.merlon/oidc/callback/corp"+q, "Sec-Fetch-Site", "cross-site").want(http.StatusForbidden, "Signing in there did not work")
		if strings.Contains(pg.body, "alert(1)") {
			t.Error("what the provider says is on the page")
		}
	}
	b.get("/.merlon/oidc/begin/other").want(http.StatusNotFound)
	b.get("/.merlon/oidc/begin/corp", "Sec-Fetch-Site", "cross-site").want(http.StatusForbidden)
	b.get("/.merlon/oidc/begin/corp?link=1").want(http.StatusSeeOther, "/.merlon/login")
	// Nobody can have a stranger's proof taken for a step-up or a link.
	for _, to := range []string{"/.merlon/account/link", "/.merlon/prove?pending=x"} {
		pg := b.get("/.merlon/oidc/begin/corp?" + url.Values{"return_to": {to}}.Encode()).want(http.StatusSeeOther)
		if pg.header.Get("Location") == "" || !strings.HasPrefix(pg.header.Get("Set-Cookie"), oidc.CookieName+"=") {
			t.Errorf("%v", pg.header)
		}
	}
	for _, token := range []string{"", "x", "a.b.c"} {
		pg := b.do(http.MethodPost, "/.merlon/oidc/logout/corp", url.Values{"logout_token": {token}}, "Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", "", "Origin", "")
		pg.want(http.StatusBadRequest, `"error":"invalid_request"`)
	}
}

func TestWhereAConsentMayLead(t *testing.T) {
	for host, want := range map[string]string{
		"wiki.example.com": "https: wiki.example.com:", "wiki.example.com:8443": "https:", "[2001:db8::1]": "https:",
		"127.0.0.1:5000": "http: https:", "localhost": "http: https:", "[::1]:5000": "http: https:", "[::1]": "http: https:",
		"com.example.app": "https: com.example.app:", "": "", "evil; script-src *": "", "a'b": "", "a b": "",
	} {
		if got := portal.Sources(host); got != want {
			t.Errorf("%q: %q", host, got)
		}
	}
}

// What the authorization server says to people.
func TestPagesOfTheAuthorizationServer(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	pages := w.portal.Pages()
	need := provider.Need{ReturnTo: provider.Authorize + "?client_id=x", Hint: "ann & co", Strength: account.PhishingResistant, Fresh: true}
	w.more = func(rw http.ResponseWriter, r *merlon.Request) bool {
		switch r.URL.Path {
		case "/need":
			pages.LogIn(rw, r.Request, need)
		case "/fail":
			pages.Fail(rw, r.Request, http.StatusBadRequest, provider.RedirectMismatch)
		case "/confirm":
			pages.ConfirmLogOut(rw, r.Request, provider.Ask{Client: "<b>", Action: provider.EndSession, Ticket: "T"})
		case "/end":
			if err := pages.EndSession(rw, r.Request); err != nil {
				t.Error(err)
			}
			pages.SignedOut(rw, r.Request)
		case "/over":
			pages.SignedOut(rw, r.Request)
		default:
			return false
		}
		return true
	}
	b := w.browser()
	pg := b.get("/need").want(http.StatusSeeOther, "/.merlon/login?return_to=%2F.merlon%2Foauth%2Fauthorize%3Fclient_id%3Dx&name=ann+%26+co")
	b.get(pg.header.Get("Location")).want(http.StatusOK, `value="ann &amp; co"`)
	b.get("/fail").want(http.StatusBadRequest, "oauth-redirect-mismatch")
	b.get("/over").want(http.StatusOK, "You are signed out")
	in := w.in()
	in.get("/need").want(http.StatusSeeOther, "/.merlon/prove?need=phishing-resistant&return_to=")
	in.get("/confirm").want(http.StatusOK, "&lt;b&gt; asks you to sign out here", `value="deny"`)
	in.get("/over").want(http.StatusOK, "You are still signed in")
	in.get("/end").want(http.StatusOK, "You are signed out")
	in.get("/.merlon/account").want(http.StatusSeeOther)
}
