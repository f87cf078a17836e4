package traffic_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"html"
	"math/bits"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/test/harness"
	identitytest "github.com/merlon-dev/merlon/test/identity"
)

const challenged = `
trusted_proxies: []
identity:
  password: {argon2: {memory: 12MiB, time: 3}}
sites:
  - host: localhost
    upstream: BACKEND
    challenge: {when: always, bits: 14, wait: 5s, allow: [{path: /hooks/**}, {from: 127.0.50.9}]}
`

// wanted is a page as a browser shows it.
func wanted(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte("<!doctype html><title>wanted</title><p>the page " + html.EscapeString(r.URL.RequestURI())))
}

// asBrowser are the fields by which a browser opens a page.
var asBrowser = []string{"Accept", "text/html,*/*;q=0.8", "Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document",
	"User-Agent", "Mozilla/5.0 Firefox/140.0"}

func TestChallengeInABrowser(t *testing.T) {
	t.Parallel()
	p := serve(t, challenged, wanted)
	b := identitytest.Start(t, p.base())
	b.Open("/wanted?x=1")
	b.At("/wanted")
	b.Shows("the page /wanted?x=1")
	b.Open("/another")
	if title := b.Script("document.title"); title != "wanted" {
		t.Errorf("the next page is %q", title)
	}
	// One that has forgotten its pass is asked again, and one without scripts
	// waits instead.
	b.Forget()
	b.NoScript(true)
	b.Open("/plain")
	b.At("/plain")
	b.NoScript(false)
	b.Shows("the page /plain")
	if n := len(p.Events(t, 2, func(e ledger.Event) bool { return e.Kind == ledger.Challenge })); n > 4 {
		t.Errorf("%d challenges for two pages", n)
	}
}

var (
	tokenField = regexp.MustCompile(`name="token" value="([^"]*)"`)
	formAction = regexp.MustCompile(`<form method="post" action="([^"]*)"`)
	bitsField  = regexp.MustCompile(`data-bits="(\d+)"`)
)

// solve does what the page's script does, if right, and returns the pass.
func (a *asker) solve(to string, right bool) (cookie string) {
	t := a.p.t
	t.Helper()
	sent := a.get(to, asBrowser...)
	page := a.get(sent.Header.Get("Location"), asBrowser...).want(t, "the challenge's page", 200)
	token, action, n := tokenField.FindStringSubmatch(page.Body), formAction.FindStringSubmatch(page.Body), bitsField.FindStringSubmatch(page.Body)
	if token == nil || action == nil || n == nil {
		t.Fatalf("no challenge: %d %s", page.Status, page.Body)
	}
	zeros, err := strconv.Atoi(n[1])
	if err != nil {
		t.Fatal(err)
	}
	nonce := 0
	for ; ; nonce++ {
		sum := sha256.Sum256([]byte(token[1] + strconv.Itoa(nonce)))
		if (bits.LeadingZeros32(binary.BigEndian.Uint32(sum[:])) >= zeros) == right {
			break
		}
	}
	form := url.Values{"token": {token[1]}, "nonce": {strconv.Itoa(nonce)}, "to": {to}}.Encode()
	got := a.send(t.Context(), "POST", html.UnescapeString(action[1]), form, append([]string{"Content-Type", "application/x-www-form-urlencoded",
		"Origin", a.p.base(), "Sec-Fetch-Site", "same-origin"}, asBrowser[:2]...)...)
	if right != (got.Status == http.StatusSeeOther) {
		t.Errorf("an answer that is right: %v, got %d %v\n%s", right, got.Status, got.Err, got.Body)
	}
	res := http.Response{Header: got.Header}
	for _, c := range res.Cookies() {
		cookie = c.Name + "=" + c.Value
		if !c.HttpOnly || !c.Secure {
			t.Errorf("the pass is a cookie that scripts read, or that goes in the clear: %v", c)
		}
	}
	return cookie
}

func TestChallengeForPrograms(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	seed(t, store.Config{Dir: data}, people(t)...)
	p := serveIn(t, data, challenged, wanted)
	a := p.from("127.0.50.1")
	got := a.get("/x", "User-Agent", "curl/8", "Accept", "*/*").want(t, "a program", 403)
	if !strings.HasPrefix(got.Header.Get("Content-Type"), "application/problem+json") || got.Header.Get("Merlon-Challenge") == "" {
		t.Errorf("a program is told %q", got.Header)
	}
	a.send(t.Context(), "POST", "/x", "{}", "Content-Type", "application/json").want(t, "a program that posts", 403)
	a.get("/x", asBrowser...).want(t, "a browser is sent to the page", 303)

	// Those that are welcome by rule, and those that are known.
	a.get("/hooks/payment").want(t, "a webhook", 200)
	p.from("127.0.50.9").get("/x").want(t, "an allowed address", 200)
	a.get("/repo/info/refs?service=git-upload-pack", "User-Agent", "git/2.47").want(t, "git", 200)
	a.get("/robots.txt").want(t, "robots.txt", 200)
	key := p.key("a program", 0)
	a.get("/x", "Authorization", key).want(t, "an API key", 200)
	if got := a.get("/x", "Authorization", key[:len(key)-2]+"xx"); got.Status == 200 {
		t.Error("a wrong API key is as good as a pass")
	}
	if got := a.get("/x", "User-Agent", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"); got.Status == 200 {
		t.Error("who only says to be a crawler is let through")
	}

	// The right answer is worth something, to who has found it.
	if c := a.solve("/x", false); c != "" {
		t.Errorf("a wrong answer brings a cookie: %s", c)
	}
	pass := a.solve("/x", true)
	a.get("/x", "Cookie", pass).want(t, "with a pass", 200)
	p.from("127.0.51.1").get("/x", "Cookie", pass).want(t, "another client with it", 403)
	a.get("/x", "Cookie", pass[:len(pass)-3]+"AAA").want(t, "a forged one", 403)
}

// serveIn is serve with a data folder that has something in it.
func serveIn(t testing.TB, data, text string, h http.HandlerFunc) *place {
	t.Helper()
	p := &place{t: t, config: t.TempDir() + "/merlon.yaml"}
	write(t, p.config, strings.ReplaceAll(text, "BACKEND", backend(t, h).URL))
	p.Merlon = harness.Serve(t, harness.Options{Data: data}, "-c", p.config)
	return p
}

// While there is a flood everybody has to prove that they are worth it, and
// when it is over nobody has: nobody switches anything.
func TestChallengeUnderLoad(t *testing.T) {
	t.Parallel()
	p := serve(t, "off: [waf]\nsites:\n  - {host: localhost, upstream: BACKEND, challenge: {when: load, over: {rate: 20/s}, calm: 10s, bits: 8}}\n", wanted)
	visitor := p.from("127.0.60.1")
	visitor.get("/x", asBrowser...).want(t, "before the flood", 200)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var served, refused atomic.Int64
	for i := range 5 { // more than three times the budget together
		a := p.from("127.0.61." + strconv.Itoa(i+1))
		go func() {
			tick := time.NewTicker(70 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				switch got := a.send(ctx, "GET", "/x", ""); got.Status {
				case 200:
					served.Add(1)
				case 0:
				default:
					refused.Add(1)
				}
				<-tick.C
			}
		}()
	}
	began := time.Now()
	status := func() int { return visitor.get("/x", asBrowser...).Status }
	waitFor(t, "it goes on", 60*time.Second, func() bool { return status() == 303 })
	on := time.Since(began)
	pass := visitor.solve("/x", true)
	visitor.get("/x", append([]string{"Cookie", pass}, asBrowser...)...).want(t, "a visitor with a pass, in the flood", 200)
	before := served.Load()
	time.Sleep(time.Second)
	if n := served.Load() - before; n > 10 { // those that were under way
		t.Errorf("%d requests of the flood were served in a second", n)
	}
	stop()
	over := time.Now()
	waitFor(t, "it goes off", 60*time.Second, func() bool { return status() == 200 })
	t.Logf("on after %v, off %v after the flood; %d of it served, %d not", on.Round(time.Second), time.Since(over).Round(time.Second), served.Load(), refused.Load())
	if refused.Load() == 0 {
		t.Error("nothing of the flood was refused")
	}
	p.Events(t, 1, func(e ledger.Event) bool { return e.Kind == ledger.Challenge && e.Reason == "work-required-under-load" })
}

// waitFor looks once in a while, so as to be no load itself.
func waitFor(t testing.TB, what string, most time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(most); !ok(); time.Sleep(500 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, most)
		}
	}
}
