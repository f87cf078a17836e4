package challenge_test

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/challenge"
	identitytest "github.com/merlon-dev/merlon/test/identity"
)

// silent fails if the browser complains about a policy or a script.
func silent(t *testing.T, b *identitytest.Browser) {
	t.Helper()
	if c := b.Complaints(); len(c) > 0 {
		t.Errorf("the browser complains: %q", c)
	}
}

func TestInABrowser(t *testing.T) {
	w := newWorld(t, challenge.Config{When: challenge.Always, Bits: 14}, memory(t))
	b := identitytest.Start(t, w.server.URL)
	b.Open("/basket?x=1&y=%2F+%20&z=%C3%BC;#there")
	b.At("/basket")
	if got := b.Text("#seen"); got != "/basket?x=1&y=%2F+%20&z=%C3%BC;" {
		t.Errorf("it got to %s", got)
	}
	if got := b.Script("location.hash"); got != "#there" {
		t.Errorf("what stands behind the address is gone: %q", got)
	}
	if got := b.Script("fetch('/api').then((r) => document.title = 'status ' + r.status) && 1"); got != "1" {
		t.Error(got)
	}
	b.Wait("document.title === 'status 200'")
	b.Open("/next")
	if got := b.Text("#seen"); got != "/next" || w.last.Load().Reason != challenge.HasPassed {
		t.Errorf("with the pass: %q", got)
	}
	b.Forget()
	b.Script("fetch('/api').then((r) => document.title = r.status + ' ' + r.headers.get('Merlon-Challenge')) && 1")
	b.Wait("document.title === '403 /.merlon/challenge?bits=14&wait=10'")
	silent(t, b)
}

// A bank's page that sends the browser back by a form does not lose it.
func TestFormOfAnotherSiteInABrowser(t *testing.T) {
	w := newWorld(t, challenge.Config{When: challenge.Always, Bits: 8}, memory(t))
	bank := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(rw, `<form method="post" action="%s/paid"><input name="ref" value="17"></form><script>document.forms[0].submit()</script>`, w.server.URL)
	}))
	defer bank.Close()
	b := identitytest.Start(t, w.server.URL)
	b.Open("/basket")
	b.At("/basket")
	b.Script(fmt.Sprintf("location.href = %q", strings.Replace(bank.URL, "127.0.0.1", "localhost", 1)))
	b.At("/paid")
	if got := w.last.Load().Reason; got != challenge.HasPassed {
		t.Errorf("the form: %s", got)
	}
}

// The real work, at the default of 18 bits, says how it goes.
func TestWorkInABrowser(t *testing.T) {
	w := newWorld(t, challenge.Config{When: challenge.Always}, memory(t))
	b := identitytest.Start(t, w.server.URL)
	begin := time.Now()
	b.Open("/")
	b.Wait("location.pathname === '/'")
	t.Logf("18 bits took %s", time.Since(begin))
	silent(t, b)
}

func TestWithoutScriptsInABrowser(t *testing.T) {
	w := newWorld(t, challenge.Config{When: challenge.Always, Wait: 5 * time.Second}, memory(t))
	b := identitytest.Start(t, w.server.URL)
	b.NoScript(true)
	b.Open("/basket?x=1&y=2")
	b.Shows("runs no scripts")
	b.Shots("challenge-noscript")
	b.Press("main a.button") // too early
	b.Shows("too early")
	b.Shots("challenge-early")
	b.At("/basket")
	if got := b.Text("#seen"); got != "/basket?x=1&y=2" {
		t.Errorf("it got to %s", got)
	}
	silent(t, b)
}

// What the backend answers with after the challenge, such as a log-in
// elsewhere, is not held against the page's policy.
func TestElsewhereInABrowser(t *testing.T) {
	w := newWorld(t, challenge.Config{When: challenge.Always, Bits: 8}, memory(t))
	there := newWorld(t, challenge.Config{When: challenge.Never}, memory(t))
	elsewhere := strings.Replace(there.server.URL, "127.0.0.1", "localhost", 1)
	f := func(rw http.ResponseWriter, hr *http.Request) {
		http.Redirect(rw, hr, elsewhere+"/login?from=here", http.StatusFound)
	}
	w.served.Store(&f)
	b := identitytest.Start(t, w.server.URL)
	b.Open("/")
	b.At("/login")
	if got := b.Text("#seen"); got != "/login?from=here" {
		t.Errorf("it got to %s", got)
	}
	silent(t, b)
}

// Where no worker can be had, the browser waits.
func TestWithoutWorkersInABrowser(t *testing.T) {
	w := newWorld(t, challenge.Config{When: challenge.Always, Wait: 5 * time.Second}, memory(t))
	b := identitytest.Start(t, w.server.URL)
	w.noWorker.Store(true)
	b.Open("/basket?x=1")
	b.Shows("after a short wait")
	b.Shots("challenge-slow")
	b.At("/basket")
}

func TestTroubleInABrowser(t *testing.T) {
	w := newWorld(t, challenge.Config{When: challenge.Always, Bits: 8}, memory(t))
	b := identitytest.Start(t, w.server.URL)
	b.Open("/x?a=1&b=2")
	b.At("/x")
	b.Forget()
	b.Open(challenge.Prefix + "/done?bits=8&wait=10&to=%2Fx%3Fa%3D1%26b%3D2")
	b.Shows("Allow cookies")
	b.Shots("challenge-cookies")
	b.Press("main a.button")
	b.At("/x")
	if got := b.Text("#seen"); got != "/x?a=1&b=2" {
		t.Errorf("it got to %s", got)
	}

	// A wrong answer is not tried again by itself.
	b.Forget()
	b.Open("/next")
	b.At("/next")
	b.Forget()
	f := func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprintf(rw, `<!doctype html><title>x</title><form method="post" action="%s?bits=8&amp;wait=10"><input name="token" value="%s"><input name="nonce" value="%s"><input name="to" value="/y"><button>go</button></form>`,
			challenge.Prefix, html.EscapeString(w.aToken), html.EscapeString(w.aWrong))
	}
	w.aToken = find(t, tokenField, w.browser().get(challenge.Prefix+"?bits=8&wait=10&to=/y").body)[1]
	w.aWrong = lazy(w.aToken, 8)
	b.Open("/z")
	b.At("/z")
	w.served.Store(&f)
	b.Open("/form")
	b.Press("button")
	b.Shows("did not come out right")
	b.Shots("challenge-wrong")
	w.served.Store(nil)
	b.Forget()
	b.Press("main form button")
	b.At("/y")
	silent(t, b)
}

func TestGermanInABrowser(t *testing.T) {
	w := newWorld(t, challenge.Config{When: challenge.Always, Bits: 24}, memory(t))
	b := identitytest.Start(t, w.server.URL)
	b.Open("/")
	b.Shows("Your browser is calculating")
	if got := b.Script("document.querySelector('progress').labels[0].textContent"); got != "Calculation" {
		t.Errorf("the bar is called %q", got)
	}
	b.Shots("challenge")
	b.Speak("de")
	b.Open("/")
	b.Shows("Ihr Browser rechnet")
	b.Shots("challenge-de")
	b.NoScript(true)
	b.Open("/")
	b.Shows("keine Skripte")
	b.Shots("challenge-de-noscript")
	silent(t, b)
}
