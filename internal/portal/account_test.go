package portal_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/internal/portal"
	"github.com/merlon-dev/merlon/internal/portal/resume"
)

func TestChangePassword(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	other, b := w.in(), w.in()
	pg := b.get("/.merlon/account").want(http.StatusOK)
	pg = pg.send("/.merlon/account/password", "current", "wrong", "new", nextPassword).want(http.StatusForbidden, "The current password is not right", "<details open>")
	pg = pg.send("/.merlon/account/password", "current", annsPassword, "new", "ann").want(http.StatusUnprocessableEntity, "This password cannot be used", "too short")
	pg.send("/.merlon/account/password", "current", annsPassword, "new", nextPassword).want(http.StatusSeeOther, "/.merlon/account?done=password")
	b.get("/.merlon/account?done=password").want(http.StatusOK, "Your password is changed", `role="status"`)
	other.get("/.merlon/account").want(http.StatusSeeOther, "/.merlon/login")
	w.subject(t, "Your password at localhost was changed")
}

// subject fails if no letter has the subject.
func (w *world) subject(t *testing.T, subject string) {
	t.Helper()
	w.desk.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.letters {
		if l.Subject == subject {
			return
		}
	}
	t.Errorf("no letter says %q: %+v", subject, w.letters)
}

func TestSessionsEnd(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	one, two, b := w.in(), w.in(), w.in()
	pg := b.get("/.merlon/account").want(http.StatusOK, "Sign out there", "Sign out everywhere else", ">here<")
	if n := strings.Count(pg.body, "Sign out there"); n != 2 {
		t.Errorf("%d sessions can be ended", n)
	}
	pg.send("/.merlon/account/session").want(http.StatusSeeOther, "done=ended")
	if a, b := one.get("/.merlon/account").status, two.get("/.merlon/account").status; a+b != http.StatusOK+http.StatusSeeOther {
		t.Errorf("one should have ended: %d, %d", a, b)
	}
	form := pg.form("/.merlon/account/session")
	form.Set("id", "")
	b.do(http.MethodPost, "/.merlon/account/session", form).want(http.StatusForbidden) // which would mean all
	b.get("/.merlon/account").send("/.merlon/account/sessions").want(http.StatusSeeOther)
	one.get("/.merlon/account").want(http.StatusSeeOther)
	two.get("/.merlon/account").want(http.StatusSeeOther)
	b.get("/.merlon/account?done=ended").want(http.StatusOK, "Signed out there")
}

func TestLogOut(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	other, b := w.in(), w.in()
	pg := b.get("/.merlon/logout").want(http.StatusOK, "You are signed in as", "Sign out on all devices")
	b.get("/.merlon/account").want(http.StatusOK) // GET ends nothing
	pg = pg.send("/.merlon/logout", "everywhere", "").want(http.StatusOK, "You are signed out")
	if !strings.Contains(pg.header.Get("Clear-Site-Data"), "storage") {
		t.Errorf("Clear-Site-Data %q", pg.header.Get("Clear-Site-Data"))
	}
	b.get("/.merlon/account").want(http.StatusSeeOther)
	b.get("/.merlon/logout").want(http.StatusOK, "You are signed out")
	other.get("/.merlon/account").want(http.StatusOK)

	b = w.in()
	b.get("/.merlon/logout").send("/.merlon/logout", "everywhere", "yes").want(http.StatusOK, "You are signed out")
	other.get("/.merlon/account").want(http.StatusSeeOther)
}

func TestFactors(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	b := w.in()
	_, codes := b.addApp()
	pg := b.get("/.merlon/account").want(http.StatusOK, "Authenticator app", "Recovery codes: 10 left")
	for _, c := range codes { // trap 46: shown once
		if strings.Contains(pg.body, c) {
			t.Fatal("a recovery code is shown again")
		}
	}
	pg = pg.send("/.merlon/account/codes").want(http.StatusOK, "Keep your recovery codes")
	if strings.Contains(pg.body, codes[0]) {
		t.Error("the codes were not replaced")
	}
	b.get("/.merlon/account").send("/.merlon/account/factor").want(http.StatusSeeOther, "done=removed")
	b.get("/.merlon/account").want(http.StatusOK, "so that a stolen password is not enough")
}

// trap 47: what matters asks for a fresh proof, and goes on after it with what
// was sent.
func TestAFreshProofIsAskedForAndTheFormGoesOn(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	secret, _ := w.in().addApp()
	w.age(10 * time.Minute)
	b := w.browser()
	b.signIn("ann", annsPassword).send("/.merlon/code", "code", code(t, secret, 0)).want(http.StatusOK)
	pg := b.get("/.merlon/account").want(http.StatusOK)
	pg = pg.send("/.merlon/account/codes").want(http.StatusSeeOther, "/.merlon/prove?resume=")
	pg = b.get(pg.header.Get("Location")).want(http.StatusOK, "Prove it is you")
	for range 2 { // a session of two factors is proved again by two
		switch {
		case strings.Contains(pg.body, `action="/.merlon/prove"`):
			pg = pg.send("/.merlon/prove", "password", annsPassword).want(http.StatusOK)
		case strings.Contains(pg.body, `action="/.merlon/code"`):
			pg = pg.send("/.merlon/code", "code", code(t, secret, 1)).want(http.StatusOK)
		}
	}
	to := regexp.MustCompile(`url=(/\.merlon/resume[^"]*)"`).FindStringSubmatch(pg.body)
	if to == nil {
		t.Fatal(pg.body)
	}
	pg = b.get(to[1]).want(http.StatusOK, `action="/.merlon/account/codes"`)
	pg.send("/.merlon/account/codes").want(http.StatusOK, "Keep your recovery codes")
	pg.send("/.merlon/account/codes").want(http.StatusNotFound, "Please do it again") // good once
}

// A form that was kept goes on for who has sent it, in the session in which it
// was sent, to where it was meant for.
func TestAKeptFormIsItsSendersOwn(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	w.ann(func(a *account.Account) { a.ID, a.Name, a.Email = "BEN-ID", "ben", "ben@example.com" })
	begun := func() (b *browser, again *shown) {
		w.age(10 * time.Minute)
		b = w.in()
		pg := b.get("/.merlon/account").send("/.merlon/account/display", "display", "Changed").want(http.StatusSeeOther, "/.merlon/prove?resume=")
		pg = b.get(pg.header.Get("Location")).send("/.merlon/prove", "password", annsPassword).want(http.StatusOK)
		to := regexp.MustCompile(`url=(/\.merlon/resume[^"]*)"`).FindStringSubmatch(pg.body)
		return b, b.get(to[1]).want(http.StatusOK, `action="/.merlon/account/display"`)
	}
	display := func(id string) string {
		a, err := w.store.Account(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return a.Display
	}
	b, pg := begun()
	ticket := pg.form("/.merlon/account/display").Get(resume.Field)
	for name, ask := range map[string]func() *shown{
		"another path": func() *shown {
			return b.do(http.MethodPost, "/.merlon/account/sessions", url.Values{resume.Field: {ticket}})
		},
		"another browser": func() *shown {
			return w.in().do(http.MethodPost, "/.merlon/account/display", url.Values{resume.Field: {ticket}})
		},
	} {
		if got := ask(); got.status == http.StatusOK || got.status == http.StatusSeeOther {
			t.Errorf("%s: %d", name, got.status)
		}
	}
	if display("ANN-ID") == "Changed" {
		t.Error("it went on elsewhere")
	}
	// Whoever signs in at that browser meanwhile has not sent it.
	b, pg = begun()
	b.get("/.merlon/logout").send("/.merlon/logout").want(http.StatusOK)
	b.signIn("ben", annsPassword).want(http.StatusOK)
	pg.send("/.merlon/account/display")
	if display("BEN-ID") == "Changed" || display("ANN-ID") == "Changed" {
		t.Error("another account was changed")
	}
	_, pg = begun()
	pg.send("/.merlon/account/display").want(http.StatusSeeOther, "done=display")
	if display("ANN-ID") != "Changed" {
		t.Error("nothing was changed")
	}
}

func TestChangeEmail(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	b := w.in()
	b.get("/.merlon/account").send("/.merlon/account/email", "email", "no address").want(http.StatusForbidden, "not an e-mail address")
	b.get("/.merlon/account").send("/.merlon/account/email", "email", "gull@example.com").want(http.StatusSeeOther, "done=email")
	link := w.link("verify")
	w.browser().get(link).want(http.StatusOK, "Confirm your e-mail address")
	b.get("/.merlon/account").want(http.StatusOK, "ann@example.com") // to open it is not enough
	c := w.browser()
	c.get(link).send("/.merlon/verify").want(http.StatusOK, "Your address is confirmed")
	b.get("/.merlon/account").want(http.StatusOK, "gull@example.com")
	c.get(link).want(http.StatusNotFound)
}

func TestNameAndKnownBrowsers(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	b := w.in()
	b.get("/.merlon/account").send("/.merlon/account/display", "display", " Ann\t<b>of the</b> Gulls ").want(http.StatusSeeOther, "done=display")
	b.get("/.merlon/account?done=display").want(http.StatusOK, "Your name is changed", "Ann &lt;b&gt;of the&lt;/b&gt; Gulls", "Browsers known to be yours")
	b.get("/.merlon/account").send("/.merlon/account/devices").want(http.StatusSeeOther, "done=forgotten")
	pg := b.get("/.merlon/account?done=forgotten").want(http.StatusOK, "No browser is known to be yours")
	if strings.Contains(pg.body, `action="/.merlon/account/devices"`) {
		t.Error("what is forgotten is listed")
	}
	// trap 47: both ask for a fresh proof, and keep the form.
	w.age(10 * time.Minute)
	b = w.in()
	for _, action := range []string{"/.merlon/account/display", "/.merlon/account/devices"} {
		b.get("/.merlon/account").send(action).want(http.StatusSeeOther, "/.merlon/prove?resume=")
		form := b.get("/.merlon/account").form(action)
		form.Set("csrf", "x")
		b.do(http.MethodPost, action, form).want(http.StatusForbidden)
	}
}

func TestHistoryHasNoMarkup(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann(func(a *account.Account) { a.Display = `<img src=x onerror=alert(1)>` })
	b := w.browser()
	b.head.Set("User-Agent", `<script>alert(1)</script> Firefox/1 Linux`)
	b.signIn("ann", annsPassword).want(http.StatusOK)
	w.desk.Close()
	pg := b.get("/.merlon/account").want(http.StatusOK, "Firefox on Linux")
	if strings.Contains(pg.body, "<img src=x") || strings.Contains(pg.body, "<script>alert") {
		t.Error(pg.body)
	}
	if m := regexp.MustCompile(`<time datetime="[0-9TZ:-]+">`).FindString(pg.body); m == "" {
		t.Error("no time is written for machines")
	}
}

func TestALostStoreIsSaidPlainly(t *testing.T) {
	w := newWorld(t, identity.Config{}, portal.Config{})
	w.ann()
	b := w.browser()
	pg := b.get("/.merlon/login")
	w.closeStore()
	pg.send("/.merlon/login", "name", "ann", "password", annsPassword).want(http.StatusServiceUnavailable, "cannot be answered at the moment")
	if strings.Contains(w.log.String(), annsPassword) {
		t.Error("the log has the password")
	}
}
