package portal_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/internal/portal"
)

func TestSignIn(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	b := w.browser()
	pg := b.get("/.merlon/login?return_to=%2Forders%3Fpage%3D2").want(http.StatusOK,
		`autocomplete="username webauthn"`, `autocomplete="current-password"`, `<label for="password">`)
	pg.send("/.merlon/login", "name", "ANN@example.com", "password", annsPassword).
		want(http.StatusOK, `<meta http-equiv="refresh" content="0; url=/orders?page=2">`)
	b.get("/").want(http.StatusOK, "<p id=who>ann</p>")
	b.get("/.merlon/login").want(http.StatusSeeOther, "/")
	b.get("/.merlon/").want(http.StatusSeeOther, "/.merlon/account")
	w.desk.Close() // what is noted behind answers
	b.get("/.merlon/account").want(http.StatusOK, "ann@example.com", "Ann Gull", "Signed in")
}

func TestWhereALogInEnds(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	for to, want := range map[string]string{
		"https://evil.example/": "/", "//evil.example": "/", `/\evil.example`: "/", "javascript:alert(1)": "/",
		"/%2f/evil.example": "/", "/a\nb": "/", "/ok?x=%22%3E": "/ok?x=%22%3E", "": "/", `/"><script>`: "/&#34;&gt;&lt;script&gt;",
		"/.merlon/oauth/authorize?client_id=x": "/.merlon/oauth/authorize?client_id=x",
	} {
		b := w.browser()
		pg := b.get("/.merlon/login?" + url.Values{"return_to": {to}}.Encode()).want(http.StatusOK)
		pg.send("/.merlon/login", "name", "ann", "password", annsPassword).want(http.StatusOK, `content="0; url=`+strings.ReplaceAll(want, "&#34;", "&#34;")+`"`)
	}
}

// trap 41: known or not, the answer is the same but for what was typed and
// what changes with every page.
func TestWrongLooksTheSame(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	var first string
	for _, c := range [][2]string{{"ann", "wrong password"}, {"nobody", "wrong password"}, {"ann@example.com", "x"}, {"n@o", "x"}, {"ann", strings.Repeat("x", 5000)}} {
		b := w.browser()
		pg := b.signIn(c[0], c[1]).want(http.StatusForbidden, "That did not work", `role="alert"`, `autofocus aria-invalid="true" aria-describedby="fail"`)
		text := blank(pg.body)
		text = strings.ReplaceAll(text, `value="`+c[0]+`"`, `value="NAME"`)
		if first == "" {
			first = text
		}
		if text != first {
			t.Errorf("%q can be told apart:\n%s\n%s", c[0], text, first)
		}
	}
	for _, c := range []string{"ann", "nobody", "", "n@o", strings.Repeat("x", 500)} { // trap 41, 50
		b := w.browser()
		pg := b.get("/.merlon/recover").send("/.merlon/recover", "name", c).want(http.StatusOK, "Look into your mail")
		if c == "ann" {
			first = blank(pg.body)
		} else if blank(pg.body) != first {
			t.Errorf("%q can be told apart: %s", c, pg.body)
		}
	}
}

func TestTooManyTriesWait(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	b := w.browser()
	pg := b.get("/.merlon/login")
	for range 9 {
		pg = pg.send("/.merlon/login", "name", "ann", "password", "wrong")
	}
	pg.want(http.StatusTooManyRequests, "There were too many tries")
	if pg.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestSecondFactor(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	secret, codes := w.in().addApp()

	b := w.browser()
	pg := b.signIn("ann", annsPassword).want(http.StatusOK, "One more step", `autocomplete="one-time-code"`, `inputmode="numeric"`)
	// trap 47: the password alone opens nothing.
	b.get("/.merlon/account").want(http.StatusSeeOther, "/.merlon/login")
	pg = pg.send("/.merlon/code", "code", "000000").want(http.StatusForbidden, "That code did not work", "Use a recovery code")
	c := code(t, secret, 0)
	pg.send("/.merlon/code", "code", c).want(http.StatusOK, `http-equiv="refresh"`)
	b.get("/.merlon/account").want(http.StatusOK)

	// trap 46: a code is good once.
	other := w.browser()
	pg = other.signIn("ann", annsPassword)
	pg = pg.send("/.merlon/code", "code", c).want(http.StatusForbidden)
	pg = pg.send("/.merlon/code/recovery", "recovery", "AAAA-AAAA-AAAA-AAAA").want(http.StatusForbidden, "<details open>")
	pg.send("/.merlon/code/recovery", "recovery", strings.ToLower(codes[0])).want(http.StatusOK, `http-equiv="refresh"`)

	// trap 47: another browser cannot go on with what this one began.
	begun := w.browser().signIn("ann", annsPassword).form("/.merlon/code")
	thief := w.browser()
	form := thief.get("/.merlon/login").form("/.merlon/login")
	form.Set("pending", begun.Get("pending"))
	form.Set("code", code(t, secret, 1))
	thief.do(http.MethodPost, "/.merlon/code", form).want(http.StatusForbidden, "Begin again")
}

func TestMustChangeThePassword(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann(func(a *account.Account) { a.MustChange = true })
	pg := w.browser().signIn("ann", annsPassword).want(http.StatusOK, "Choose a new password", "set it for you", `autocomplete="new-password"`)
	pg = pg.send("/.merlon/password", "new", "short").want(http.StatusUnprocessableEntity, "It is too short", "at least 12 characters")
	pg.send("/.merlon/password", "new", nextPassword).want(http.StatusOK, `http-equiv="refresh"`)
	w.browser().signIn("ann", nextPassword).want(http.StatusOK, `http-equiv="refresh"`)
}

func TestEnrolmentIsDemanded(t *testing.T) {
	w := newWorld(t, identity.Config{MFA: identity.MFA{Required: []string{"all"}}}, portal.Config{})
	w.ann()
	b := w.browser()
	pg := b.get("/.merlon/login?return_to=/x").send("/.merlon/login", "name", "ann", "password", annsPassword).
		want(http.StatusOK, "Add a second way", "You have time until")
	b.get("/.merlon/account").want(http.StatusSeeOther, "/.merlon/login")
	pg = pg.send("/.merlon/enrol/totp").want(http.StatusOK, "data:image/png")
	secret := secretText.FindStringSubmatch(pg.body)[1]
	again := pg.send("/.merlon/enrol/totp/confirm", "code", "000000").want(http.StatusForbidden, "That code did not work")
	if strings.Contains(again.body, "data:image") || strings.Contains(again.body, secret) { // trap 46
		t.Error("the secret is shown again")
	}
	again.send("/.merlon/enrol/totp/confirm", "code", code(t, secret, 0)).want(http.StatusOK, "Keep your recovery codes", `href="/x"`)
	b.get("/.merlon/account").want(http.StatusOK)
}

func TestRecover(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	before := w.in()
	b := w.browser()
	b.get("/.merlon/recover", "Host", "evil.example").want(http.StatusOK)
	b.get("/.merlon/recover").send("/.merlon/recover", "name", "ann").want(http.StatusOK, "Look into your mail")
	link := w.link("recover/link")
	if !strings.HasPrefix(link, w.server.URL+"/.merlon/") { // trap 50: no host of the request's
		t.Errorf("the link is %s", link)
	}
	// trap 50: link scanners open it, twice; it is still good.
	w.browser().get(link).want(http.StatusOK, "Get back in")
	b = w.browser()
	pg := b.get(link).want(http.StatusOK)
	if p := pg.header.Get("Referrer-Policy"); p != "strict-origin" && p != "no-referrer" {
		t.Errorf("trap 50: the token would be in Referer: %q", p)
	}
	pg = pg.send("/.merlon/recover/link").want(http.StatusOK, "Choose a new password")
	pg.send("/.merlon/password", "new", nextPassword).want(http.StatusOK)
	w.browser().get(link).want(http.StatusNotFound, "This link is no longer good") // trap 50: used once
	before.get("/.merlon/account").want(http.StatusSeeOther)                       // trap 50: old sessions end
	w.browser().signIn("ann", annsPassword).want(http.StatusForbidden)
	w.browser().signIn("ann", nextPassword).want(http.StatusOK)
	w.browser().get("/.merlon/recover/link?token=" + strings.Repeat("A", 400)).want(http.StatusNotFound)
}

func TestRegister(t *testing.T) {
	w := newWorld(t, identity.Config{Register: "open", RegisterDomains: []string{"example.com"}}, portal.Config{Brand: portal.Brand{Name: "The Shop"}})
	w.ann()
	w.browser().get("/.merlon/login").want(http.StatusOK, "Make an account", "The Shop")
	var first string
	for _, address := range []string{"new@example.com", "ann@example.com", "x@elsewhere.example"} { // trap 41
		pg := w.browser().get("/.merlon/register").send("/.merlon/register", "email", address)
		if address == "x@elsewhere.example" && pg.status != http.StatusOK {
			continue // which domains may register is no secret
		}
		pg.want(http.StatusOK, "Look into your mail")
		if first == "" {
			first = blank(pg.body)
		} else if blank(pg.body) != first {
			t.Errorf("%s can be told apart", address)
		}
	}
	b := w.browser()
	pg := b.get(w.link("register/link")).want(http.StatusOK, "new@example.com")
	pg = pg.send("/.merlon/register/link", "display", "<script>", "new", "short").want(http.StatusUnprocessableEntity, "too short", `value="&lt;script&gt;"`)
	pg.send("/.merlon/register/link", "new", nextPassword, "display", "New").want(http.StatusOK, `http-equiv="refresh"`)
	b.get("/.merlon/account").want(http.StatusOK, "new@example.com")

	off := newWorld(t, identity.Config{}, portal.Config{})
	off.browser().get("/.merlon/register").want(http.StatusForbidden, "by invitation")
	if strings.Contains(off.browser().get("/.merlon/login").body, "/.merlon/register") {
		t.Error("the sign-in page offers what is off")
	}
	// Nor does an invitation's page ask for a password that would be refused.
	invited := func(w *world) *shown {
		l, secret, err := identity.NewInvitation("bob@example.com", nil, nil, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.AddLink(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		return w.browser().get("/.merlon/register/link?token=" + secret.Reveal())
	}
	invited(off).want(http.StatusForbidden, "by invitation")
	invited(newWorld(t, identity.Config{Register: "invite"}, portal.Config{})).want(http.StatusOK, "bob@example.com")
}

func TestTheFirstAdministrator(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	secret, _, needed, err := w.desk.FirstLink(t.Context())
	if err != nil || !needed {
		t.Fatal(needed, err)
	}
	w.browser().get("/.merlon/first?token=wrong").want(http.StatusNotFound, "no longer good")
	b := w.browser()
	pg := b.get("/.merlon/first?token="+secret.Reveal()).want(http.StatusOK, "The first administrator")
	pg = pg.send("/.merlon/first", "name", "two words", "new", nextPassword).want(http.StatusForbidden, "That name cannot be used")
	pg.send("/.merlon/first", "name", "root", "new", nextPassword).want(http.StatusOK)
	w.browser().get("/.merlon/first?token=" + secret.Reveal()).want(http.StatusNotFound)

	// Somebody was faster, on the command line.
	w = newWorld(t, identity.Config{}, portal.Config{})
	if secret, _, _, err = w.desk.FirstLink(t.Context()); err != nil {
		t.Fatal(err)
	}
	pg = w.browser().get("/.merlon/first?token=" + secret.Reveal()).want(http.StatusOK)
	w.ann()
	pg.send("/.merlon/first", "name", "root", "new", nextPassword).want(http.StatusNotFound, "no longer good")
}

// Who must have what cannot be phished is not offered an app, which would not
// let them in; not again after a mistake, either.
func TestOnlyWhatIsEnoughIsOffered(t *testing.T) {
	for level, app := range map[account.Strength]bool{account.Multi: true, account.PhishingResistant: false} {
		w := newWorld(t, identity.Config{MFA: identity.MFA{Required: []string{"all"}, Level: level}}, portal.Config{})
		w.ann()
		b := w.browser()
		pg := b.signIn("ann", annsPassword).want(http.StatusOK, "Add a second way")
		ask := b.do(http.MethodPost, "/.merlon/enrol/passkey/ask", pg.form("/.merlon/enrol/passkey"), "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty")
		var c struct{ Ticket string }
		if err := json.Unmarshal([]byte(ask.want(http.StatusOK).body), &c); err != nil {
			t.Fatal(err)
		}
		if stale := pg.send("/.merlon/enrol/passkey", "ticket", "x", "name", "My phone"); strings.Contains(stale.want(http.StatusForbidden, "Begin again").body, "My phone") {
			t.Error("a device is offered as a log-in name")
		}
		again := pg.send("/.merlon/enrol/passkey", "ticket", c.Ticket, "answer", "{}").want(http.StatusForbidden, "Add a second way")
		for name, pg := range map[string]*shown{"at first": pg, "again": again} {
			if strings.Contains(pg.body, `action="/.merlon/enrol/totp"`) != app {
				t.Errorf("%s, %s: %s", level, name, pg.body)
			}
		}
	}
}

func TestStepUpResumesAForm(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	w.age(10 * time.Minute)
	b := w.in()
	pg := b.do(http.MethodPost, "/pay?x=1", url.Values{"amount": {"5"}}).want(http.StatusSeeOther, "/.merlon/prove?resume=")
	pg = b.get(pg.header.Get("Location")).want(http.StatusOK, "Prove it is you")
	pg = pg.send("/.merlon/prove", "password", "wrong").want(http.StatusForbidden, "Prove it is you")
	pg = pg.send("/.merlon/prove", "password", annsPassword).want(http.StatusOK, "/.merlon/resume?ticket=")
	to := pg.body[strings.Index(pg.body, "url=/.merlon/resume")+4:]
	to = to[:strings.Index(to, `"`)]
	w.browser().get(to).want(http.StatusSeeOther, "/.merlon/login") // somebody else's browser
	pg = b.get(to).want(http.StatusOK, `action="/pay?x=1"`, "data-auto", "merlon-resume")
	pg.send("/pay?x=1").want(http.StatusOK, "amount=5")
	pg.send("/pay?x=1").want(http.StatusForbidden) // a ticket is good once
	if got := w.reached(); len(got) != 1 || got[0] != "POST /pay?x=1 amount=5" {
		t.Errorf("the backend got %q", got)
	}
	b.get("/.merlon/resume?ticket=x").want(http.StatusNotFound, "Please do it again")
}

// Whose session is over in the middle of a form signs in, and the form goes on;
// but nobody can have a form of his own sent by somebody else who signs in.
func TestSigningInResumesAForm(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	b := w.browser()
	pg := b.do(http.MethodPost, "/pay", url.Values{"amount": {"7"}}).want(http.StatusSeeOther, "/.merlon/login?resume=")
	login := pg.header.Get("Location")
	victim := w.browser()
	victim.get(login).send("/.merlon/login", "name", "ann", "password", annsPassword).want(http.StatusOK)
	ticket := mustParse(t, login).Query().Get("resume")
	victim.get("/.merlon/resume?ticket="+ticket).want(http.StatusNotFound, "Please do it again")
	b.get(login).send("/.merlon/login", "name", "ann", "password", annsPassword).want(http.StatusOK, "/.merlon/resume?ticket="+ticket)
	b.get("/.merlon/resume?ticket="+ticket).want(http.StatusOK).send("/pay").want(http.StatusOK, "amount=7")
}

// blank removes what differs on every page.
func blank(body string) string { return changing.ReplaceAllString(body, "…") }
