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

	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/internal/gateway"
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
func (b *browser) resume(at, action string) *answer {
	b.t.Helper()
	if !strings.HasPrefix(at, "/.merlon/resume?ticket=") {
		b.t.Fatalf("it leads to %s", at)
	}
	return b.get(at).want(http.StatusOK).send(action)
}

func TestAFormIsKeptWhileItsSenderLogsIn(t *testing.T) {
	w := settle(t, strings.Replace(forms, "OFF", "waf", 1))
	for _, f := range kinds(t) {
		t.Run(f.name, func(t *testing.T) {
			b := w.browser()
			before := len(w.backend.all())
			login := b.do("POST", "/orders?x=1&y=%20", f.body, "Content-Type", f.media).sentTo("/.merlon/login?resume=")
			if len(w.backend.all()) != before {
				t.Fatal("the form reached the backend of a stranger")
			}
			b.resume(b.signIn(login, "ann", annsPassword), "/orders?x=1&y=%20").want(200, "backend ANN-ID")
			got := w.backend.last(t)
			if got.method != "POST" || got.target != "/orders?x=1&y=%20" || got.body != f.body || got.header.Get("Content-Type") != f.media {
				t.Errorf("%+v", got)
			}
			if c := got.header["Cookie"]; len(c) > 0 {
				t.Errorf("the backend sees %q", c)
			}
			if got.header.Get("Content-Length") != fmt.Sprint(len(f.body)) {
				t.Errorf("Content-Length %s", got.header.Get("Content-Length"))
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
			b.do("POST", "/pay/now", "direct=1").want(200, "backend ANN-ID") // who has just proved it is not asked
			w.grow("ANN-ID")
			time.Sleep(1100 * time.Millisecond) // what was read of a session holds for a second
			prove := b.do("POST", "/pay/now?id=7", f.body, "Content-Type", f.media).sentTo("/.merlon/prove?resume=")
			old := b.cookies()
			next := b.get(prove).want(200).send("/.merlon/prove", "password", annsPassword).next()
			if b.cookies() == old {
				t.Error("the session is not another one after the step-up")
			}
			b.resume(next, "/pay/now?id=7").want(200, "backend ANN-ID")
			if got := w.backend.last(t); got.body != f.body || got.header.Get("Content-Type") != f.media || got.target != "/pay/now?id=7" {
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
	keep := func() (b *browser, at, ticket string) {
		b = w.browser()
		login := b.do("POST", "/orders", "to=mallory").sentTo("/.merlon/login?resume=")
		at = b.signIn(login, "ann", annsPassword)
		b.get(at).want(200)
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		return b, at, "merlon-resume=" + u.Query().Get("ticket")
	}
	var before int
	refused := func(name string, a *answer, status int) {
		t.Helper()
		if got := w.backend.all(); a.status != status || len(got) != before && strings.Contains(got[len(got)-1].body, "mallory") {
			t.Errorf("%s: %d, the backend got %+v", name, a.status, got[before:])
		}
		before = len(w.backend.all())
	}
	gone := func(name string, a *answer) { t.Helper(); refused(name, a, 403) }

	b, at, ticket := keep()
	b.do("POST", "/orders", ticket).want(200)
	before = len(w.backend.all())
	gone("the ticket twice", b.do("POST", "/orders", ticket))
	if a := b.get(at); a.status != 404 {
		t.Errorf("the page of a used ticket: %d", a.status)
	}

	_, _, ticket = keep()
	other := w.in("ann") // another browser, which was given a ticket of its own
	other.do("POST", "/open/x", "a=b").want(200)
	before = len(w.backend.all())
	refused("another browser without the cookie", other.do("POST", "/orders", ticket), 200) // an ordinary form
	if got := w.backend.last(t); got.body != ticket {
		t.Errorf("%+v", got)
	}
	w.grow("ANN-ID")
	time.Sleep(1100 * time.Millisecond)
	other.do("POST", "/pay/x", "own=1").sentTo("/.merlon/prove?resume=")
	gone("another browser of the same user", other.do("POST", "/orders", ticket))

	b, at, ticket = keep()
	b.get("/.merlon/logout").send("/.merlon/logout")
	b.signIn("/.merlon/login", "bob", bobsPassword)
	before = len(w.backend.all())
	gone("another user in the same browser", b.do("POST", "/orders", ticket))
	gone("and once more", b.do("POST", "/orders", ticket))
	_ = at

	b, _, ticket = keep()
	before = len(w.backend.all())
	gone("another path", b.do("POST", "/delete", ticket))

	b, _, ticket = keep()
	before = len(w.backend.all())
	gone("another query", b.do("POST", "/orders?x=1", ticket))

	b = w.browser()
	login := b.do("POST", "/orders", "to=mallory").sentTo("/.merlon/login?resume=")
	u, _ := url.Parse(login)
	before = len(w.backend.all())
	if a := b.do("POST", "/orders", "merlon-resume="+u.Query().Get("resume")); a.status == 200 || len(w.backend.all()) != before {
		t.Errorf("before anybody has proved anything: %d", a.status)
	}

	// Forms of other sites' pages are not kept for who falls for them.
	b = w.in("ann")
	before = len(w.backend.all())
	refused("another site's page", b.do("POST", "/pay/x", "to=mallory", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"), 403)
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
		got := b.do("POST", "/orders", c.body)
		if c.status == 403 && got.status == 403 {
			// It is refused before anything is kept, which is better still. What is kept
			// where the WAF is off for a moment is shown below.
			continue
		}
		b.resume(b.signIn(got.sentTo("/.merlon/login?resume="), "ann", annsPassword), "/orders").want(c.status)
		if got := w.backend.last(t); (got.body == c.body) != (c.status == 200) {
			t.Errorf("%s: %+v", name, got)
		}
	}

	// What was kept under rules that let it pass is judged by those of now.
	loose := strings.Replace(forms, "OFF", "waf", 1)
	strict := settle(t, loose)
	b := strict.browser()
	at := b.signIn(b.do("POST", "/orders", attack).sentTo("/.merlon/login?resume="), "ann", annsPassword)
	f := read(t, strings.Replace(loose, "off: [waf]", "off: [limit]", 1), strict.backend.URL)
	f.Data = strict.data
	if err := strict.Reload(f); err != nil {
		t.Fatal(err)
	}
	b.resume(at, "/orders").want(403)
	for _, s := range strict.backend.all() {
		if strings.Contains(s.body, "UNION") {
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
		if got := w.browser().do("POST", "/orders", c.body, c.head...); got.sentTo("/.merlon/login") != c.to {
			t.Errorf("%s: %s", name, got.header.Get("Location"))
		}
	}
	// A PUT has no page to come back to; a program gets its 401.
	if got := w.browser().do("PUT", "/orders", "a=b"); got.header.Get("Location") != "/.merlon/login" && got.status != 401 {
		t.Errorf("PUT: %d %s", got.status, got.header.Get("Location"))
	}
}
