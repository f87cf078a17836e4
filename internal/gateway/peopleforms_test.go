package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/test/harness"
)

const forms = cheap + `
off: [OFF]
sites:
  - host: localhost
    upstream: BACKEND
    require: login
    routes:
      - {path: /pay/**, require: {fresh: 10s}}
      - {path: /open/**, require: anyone}
`

// A form is what a page sends.
type form struct{ name, media, body string }

// kinds are forms that must arrive byte for byte.
func kinds(t *testing.T) []form {
	t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	part, err := m.CreateFormFile("photo", "a b.png")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = part.Write([]byte("\x89PNG\r\n\x1a\n\x00\xff\xfe binary \r\n--not-the-end"))
	_ = m.WriteField("text", "ü & = % + \r\n")
	_ = m.Close()
	return []form{
		{"urlencoded", "application/x-www-form-urlencoded", "to=%C3%BC+x&amount=5&amount=6&empty=&a%5Bb%5D=%26"},
		{"multipart", m.FormDataContentType(), b.String()},
		{"text", "text/plain", "a=1\r\nb=\r\n"},
		{"empty", "application/x-www-form-urlencoded", ""},
	}
}

// grow makes a browser's session one whose owner proved it a while ago.
func (w *town) grow(account string) {
	w.t.Helper()
	ctx := context.Background()
	store := w.Stores().Sessions
	list, err := store.List(ctx, account, time.Now())
	if err != nil || len(list) == 0 {
		w.t.Fatal(list, err)
	}
	for _, s := range list {
		if _, err := store.End(ctx, session.Where{Account: account, ID: s.ID}); err != nil {
			w.t.Fatal(err)
		}
		s.Proved = s.Proved.Add(-time.Minute)
		if _, err := store.Put(ctx, s, 10); err != nil {
			w.t.Fatal(err)
		}
	}
}

// resume presses the button of the page that sends a kept form again.
func resumeAt(b *harness.Person, t testing.TB, at, action string) *harness.Page {
	t.Helper()
	if !strings.HasPrefix(at, "/.merlon/resume?ticket=") {
		t.Fatalf("it leads to %s", at)
	}
	return b.Get(at).Want(http.StatusOK).Send(action)
}

func TestAFormIsKeptWhileItsSenderLogsIn(t *testing.T) {
	w := settle(t, strings.Replace(forms, "OFF", "waf", 1))
	for _, f := range kinds(t) {
		t.Run(f.name, func(t *testing.T) {
			b := w.browser()
			before := len(w.backend.all())
			login := b.Do("POST", "/orders?x=1&y=%20", f.body, "Content-Type", f.media).SentTo("/.merlon/login?resume=")
			if len(w.backend.all()) != before {
				t.Fatal("the form reached the backend of a stranger")
			}
			resumeAt(b, t, b.SignIn(login, "ann", annsPassword), "/orders?x=1&y=%20").Want(200, "backend ANN-ID")
			got := w.backend.last(t)
			if got.method != "POST" || got.target != "/orders?x=1&y=%20" || got.Body != f.body || got.Header.Get("Content-Type") != f.media {
				t.Errorf("%+v", got)
			}
			if c := got.Header["Cookie"]; len(c) > 0 {
				t.Errorf("the backend sees %q", c)
			}
			if got.Header.Get("Content-Length") != fmt.Sprint(len(f.body)) {
				t.Errorf("Content-Length %s", got.Header.Get("Content-Length"))
			}
		})
	}
}

func TestAFormIsKeptWhileItsSenderProvesItAgain(t *testing.T) {
	t.Parallel()
	w := settle(t, strings.Replace(forms, "OFF", "waf", 1))
	for _, f := range kinds(t)[:2] {
		t.Run(f.name, func(t *testing.T) {
			b := w.in("ann")
			b.Do("POST", "/pay/now", "direct=1").Want(200, "backend ANN-ID") // who has just proved it is not asked
			w.grow("ANN-ID")
			time.Sleep(1100 * time.Millisecond) // what was read of a session holds for a second
			prove := b.Do("POST", "/pay/now?id=7", f.body, "Content-Type", f.media).SentTo("/.merlon/prove?resume=")
			old := b.Cookies()
			next := b.Get(prove).Want(200).Send("/.merlon/prove", "password", annsPassword).Next()
			if b.Cookies() == old {
				t.Error("the session is not another one after the step-up")
			}
			resumeAt(b, t, next, "/pay/now?id=7").Want(200, "backend ANN-ID")
			if got := w.backend.last(t); got.Body != f.body || got.Header.Get("Content-Type") != f.media || got.target != "/pay/now?id=7" {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A ticket is good once, in one browser, for who has proved it, for the
// target it was kept for.
func TestAKeptFormBelongsToWhoProvedIt(t *testing.T) {
	t.Parallel()
	w := settle(t, strings.Replace(forms, "OFF", "waf", 1))
	keep := func() (b *harness.Person, at, ticket string) {
		b = w.browser()
		login := b.Do("POST", "/orders", "to=mallory").SentTo("/.merlon/login?resume=")
		at = b.SignIn(login, "ann", annsPassword)
		b.Get(at).Want(200)
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		return b, at, "merlon-resume=" + u.Query().Get("ticket")
	}
	var before int
	refused := func(name string, a *harness.Page, status int) {
		t.Helper()
		if got := w.backend.all(); a.Status != status || len(got) != before && strings.Contains(got[len(got)-1].Body, "mallory") {
			t.Errorf("%s: %d, the backend got %+v", name, a.Status, got[before:])
		}
		before = len(w.backend.all())
	}
	gone := func(name string, a *harness.Page) { t.Helper(); refused(name, a, 403) }

	b, at, ticket := keep()
	b.Do("POST", "/orders", ticket).Want(200)
	before = len(w.backend.all())
	gone("the ticket twice", b.Do("POST", "/orders", ticket))
	if a := b.Get(at); a.Status != 404 {
		t.Errorf("the page of a used ticket: %d", a.Status)
	}

	_, _, ticket = keep()
	other := w.in("ann") // another browser, which was given a ticket of its own
	other.Do("POST", "/open/x", "a=b").Want(200)
	before = len(w.backend.all())
	refused("another browser without the cookie", other.Do("POST", "/orders", ticket), 200) // an ordinary form
	if got := w.backend.last(t); got.Body != ticket {
		t.Errorf("%+v", got)
	}
	w.grow("ANN-ID")
	time.Sleep(1100 * time.Millisecond)
	other.Do("POST", "/pay/x", "own=1").SentTo("/.merlon/prove?resume=")
	gone("another browser of the same user", other.Do("POST", "/orders", ticket))

	b, at, ticket = keep()
	b.Get("/.merlon/logout").Send("/.merlon/logout")
	b.SignIn("/.merlon/login", "bob", bobsPassword)
	before = len(w.backend.all())
	gone("another user in the same browser", b.Do("POST", "/orders", ticket))
	gone("and once more", b.Do("POST", "/orders", ticket))
	_ = at

	b, _, ticket = keep()
	before = len(w.backend.all())
	gone("another path", b.Do("POST", "/delete", ticket))

	b, _, ticket = keep()
	before = len(w.backend.all())
	gone("another query", b.Do("POST", "/orders?x=1", ticket))

	b = w.browser()
	login := b.Do("POST", "/orders", "to=mallory").SentTo("/.merlon/login?resume=")
	u, _ := url.Parse(login)
	before = len(w.backend.all())
	if a := b.Do("POST", "/orders", "merlon-resume="+u.Query().Get("resume")); a.Status == 200 || len(w.backend.all()) != before {
		t.Errorf("before anybody has proved anything: %d", a.Status)
	}

	// Forms of other sites' pages are not kept for who falls for them.
	b = w.in("ann")
	before = len(w.backend.all())
	refused("another site's page", b.Do("POST", "/pay/x", "to=mallory", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"), 403)
	if e := w.events(string(gateway.ResumeGone), 7); len(e) != 7 || e[0].Guard != "identity" {
		t.Errorf("%+v", e)
	}
}

func TestTheWAFJudgesWhatIsResumed(t *testing.T) {
	t.Parallel()
	w := settle(t, strings.Replace(forms, "[OFF]", "[limit]", 1))
	attack := url.Values{"q": {"1' OR '1'='1' UNION SELECT name, password FROM users--"}}.Encode()
	for name, c := range map[string]struct {
		body   string
		status int
	}{"an attack": {attack, 403}, "a form": {"q=" + url.QueryEscape("O'Brien & sons"), 200}} {
		b := w.browser()
		got := b.Do("POST", "/orders", c.body)
		if c.status == 403 && got.Status == 403 {
			// It is refused before anything is kept, which is better still. What is kept
			// where the WAF is off for a moment is shown below.
			continue
		}
		resumeAt(b, t, b.SignIn(got.SentTo("/.merlon/login?resume="), "ann", annsPassword), "/orders").Want(c.status)
		if got := w.backend.last(t); (got.Body == c.body) != (c.status == 200) {
			t.Errorf("%s: %+v", name, got)
		}
	}

	// What was kept under rules that let it pass is judged by those of now.
	loose := strings.Replace(forms, "OFF", "waf", 1)
	strict := settle(t, loose)
	b := strict.browser()
	at := b.SignIn(b.Do("POST", "/orders", attack).SentTo("/.merlon/login?resume="), "ann", annsPassword)
	f := read(t, strings.Replace(loose, "off: [waf]", "off: [limit]", 1), strict.backend.URL)
	f.Data = strict.data
	if err := strict.Reload(f); err != nil {
		t.Fatal(err)
	}
	resumeAt(b, t, at, "/orders").Want(403)
	for _, s := range strict.backend.all() {
		if strings.Contains(s.Body, "UNION") {
			t.Errorf("%+v", s)
		}
	}
	if e := strict.events("attack", 1); len(e) != 1 || e[0].Guard != "waf" || e[0].Path != "/orders" {
		t.Errorf("%+v", e)
	}
}

// What no page can send again is not kept.
func TestWhatIsNotKept(t *testing.T) {
	w := settle(t, strings.Replace(forms, "OFF", "waf", 1))
	big := strings.Repeat("a", 1<<20+1)
	for name, c := range map[string]struct {
		body string
		head []string
		to   string
	}{
		"too long":       {"a=" + big, nil, "/.merlon/login"},
		"JSON":           {"{}", []string{"Content-Type", "application/json"}, "/.merlon/login"},
		"without a type": {"x", []string{"Content-Type", ""}, "/.merlon/login"},
	} {
		if got := w.browser().Do("POST", "/orders", c.body, c.head...); got.SentTo("/.merlon/login") != c.to {
			t.Errorf("%s: %s", name, got.Header.Get("Location"))
		}
	}
	// A PUT has no page to come back to; a program gets its 401.
	if got := w.browser().Do("PUT", "/orders", "a=b"); got.Header.Get("Location") != "/.merlon/login" && got.Status != 401 {
		t.Errorf("PUT: %d %s", got.Status, got.Header.Get("Location"))
	}
}

// Merlon's own page sends a kept form again, as one of this site and with the
// session: what another site's page has sent must not become that.
func TestWhatOtherSitesHaveSentIsNotKept(t *testing.T) {
	t.Parallel()
	elsewhere := []string{"Origin", "https://shop.localhost", "Sec-Fetch-Site", "same-site"}
	t.Run("the csrf guard is off, and SameSite holds the session back", func(t *testing.T) {
		t.Parallel()
		w := settle(t, strings.Replace(forms, "OFF", "waf, csrf", 1))
		a := w.browser().Do("POST", "/orders", "to=mallory", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
		if to := a.SentTo("/.merlon/login"); strings.Contains(to, "resume") || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("it was kept: %s %q", to, a.Header["Set-Cookie"])
		}
		w.browser().Do("POST", "/orders", "to=bob").SentTo("/.merlon/login?resume=")
	})
	t.Run("the csrf guard is not asked of who lacks a factor", func(t *testing.T) {
		t.Parallel()
		w := settle(t, strings.Replace(strings.Replace(forms, "OFF", "waf", 1), "identity:\n", "identity:\n  mfa: {required: [late]}\n", 1))
		b := w.in("bob")
		if _, err := w.Stores().Accounts.Update(t.Context(), "BOB-ID", func(a *account.Account) error {
			a.Roles = []string{"late"}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond) // what was read of a session holds for a second
		if a := b.Do("POST", "/orders", "to=mallory", elsewhere...); strings.Contains(a.Header.Get("Location"), "resume") {
			t.Errorf("it was kept: %d %s", a.Status, a.Header.Get("Location"))
		}
		if to := b.Do("POST", "/orders", "to=ann").SentTo("/.merlon/prove?"); !strings.Contains(to, "resume=") {
			t.Errorf("a form of the site's own leads to %s", to)
		}
	})
}

// Trap 49: a backend does not plant sessions, nor take them away.
func TestBackendsSetNoCookiesOfOurs(t *testing.T) {
	t.Parallel()
	w := settle(t, strings.Replace(forms, "OFF", "waf", 1))
	thief, b := w.in("bob"), w.in("ann")
	planted := url.Values{"set": {
		"app=1; Path=/", thief.Cookies() + "; Path=/; Secure; HttpOnly", "__Host-merlon=; Path=/; Max-Age=0; Secure",
		" __Host-merlon-device =x; Path=/; Secure", "__Host-merlon-refresh=x; Path=/; Secure", "=__Host-merlon=x; Path=/; Secure", "__Host-other=2; Path=/; Secure",
	}}
	page := b.Get("/plant?" + planted.Encode()).Want(200)
	if got := page.Header["Set-Cookie"]; len(got) != 2 || !strings.HasPrefix(got[0], "app=1") || !strings.HasPrefix(got[1], "__Host-other=2") {
		t.Errorf("the backend has set %q", got)
	}
	b.Get("/orders").Want(200, "backend ANN-ID")
}
