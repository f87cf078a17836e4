package challenge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/count"
)

var easy = challenge.Config{When: challenge.Always, Bits: 8, Wait: 5 * time.Second, Pass: 6 * time.Hour}

func TestTheWayThrough(t *testing.T) {
	w := newWorld(t, easy, memory(t))
	b := w.browser()
	const target = "/a/b?x=1&y=%2F+%20&z=%22;"
	a := b.get(target)
	if a.status != http.StatusSeeOther {
		t.Fatalf("answered %d", a.status)
	}
	if got := b.prove(target); got != target {
		t.Errorf("led to %s", got)
	}
	if a = b.get(target); a.status != http.StatusOK || !strings.Contains(a.body, "seen") {
		t.Errorf("with a pass: %d\n%s", a.status, a.body)
	}
	if a = b.get("/api", "Accept", "application/json", "Sec-Fetch-Mode", "cors"); a.status != http.StatusOK {
		t.Errorf("a script's request with a pass: %d", a.status)
	}
	w.wait(6 * time.Hour)
	if a = b.get(target); a.status != http.StatusSeeOther {
		t.Errorf("the pass does not run out: %d", a.status)
	}
	if a = w.browser().get("/api", "Accept", "application/json"); a.status != http.StatusForbidden || !strings.Contains(a.body, "abnormal-usage-detected") || a.header.Get(challenge.Header) == "" {
		t.Errorf("a program without a pass: %d %v\n%s", a.status, a.header, a.body)
	}
}

func TestPass(t *testing.T) {
	w := newWorld(t, easy, memory(t))
	b := w.browser()
	where := b.get("/").header.Get("Location")
	token := find(t, tokenField, b.get(where).body)[1]
	c := b.send(where, token, solve(token, 8), "/").header.Get("Set-Cookie")
	for _, want := range []string{challenge.Cookie + "=", "; Path=/", "; HttpOnly", "; Secure", "; SameSite=None"} {
		if !strings.Contains(c, want) {
			t.Errorf("%s has no %s", c, want)
		}
	}
	if strings.Contains(c, "Domain") {
		t.Errorf("%s has a domain", c)
	}
}

// Another site's link to the page that sends on is sent on by the server: a
// script of ours would make it a navigation of this site.
func TestDoneFromElsewhere(t *testing.T) {
	w := newWorld(t, easy, memory(t))
	b := w.browser()
	b.prove("/")
	for _, from := range []string{"cross-site", "same-site"} {
		a := b.get(challenge.Prefix+"/done?to=%2Fdelete%3Fid%3D1", "Sec-Fetch-Site", from)
		if a.status != http.StatusSeeOther || a.header.Get("Location") != "/delete?id=1" {
			t.Errorf("%s: %d %q", from, a.status, a.header.Get("Location"))
		}
		if a = b.get(challenge.Prefix+"/done?to=%2F%2Fevil.example", "Sec-Fetch-Site", from); a.header.Get("Location") != "/" {
			t.Errorf("%s: led to %q", from, a.header.Get("Location"))
		}
	}
	if a := b.get(challenge.Prefix+"/done?to=%2Fx", "Sec-Fetch-Site", "same-origin"); a.status != http.StatusOK {
		t.Errorf("from the challenge itself: %d", a.status)
	}
}

func TestAttacksOnThePage(t *testing.T) {
	w := newWorld(t, easy, memory(t))
	b := w.browser()
	where := b.get("/").header.Get("Location")
	token := find(t, tokenField, b.get(where).body)[1]
	nonce := solve(token, 8)
	refused := func(name string, a answer, status int) {
		t.Helper()
		if a.status != status || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d, cookie %q", name, a.status, a.header.Get("Set-Cookie"))
		}
	}
	refused("no work", b.send(where, token, "", "/"), 403)
	refused("less work", b.send(where, token, lazy(token, 8), "/"), 403)
	refused("no number", b.send(where, token, nonce+"x", "/"), 403)
	refused("a long number", b.send(where, token, strings.Repeat("0", 17)+nonce, "/"), 403)
	refused("a sign", b.send(where, token, "+"+nonce, "/"), 403)
	refused("no token", b.send(where, "", "1", "/"), 403)
	for i := range token {
		bent := token[:i] + string(token[i]^1) + token[i+1:]
		if bent != token {
			refused("a bent token", b.send(where, bent, solve(bent, 8), "/"), 403)
		}
	}
	refused("a short token", b.send(where, token[1:], solve(token[1:], 8), "/"), 403)
	refused("a token with a line end", b.send(where, token[:70]+"\n"+token[70:], nonce, "/"), 403)
	w.from("192.0.2.2")
	refused("a token of another client", b.send(where, token, nonce, "/"), 403)
	w.from("192.0.2.1")
	w.at("wiki.example.com")
	refused("a token of another site", b.send(where, token, nonce, "/"), 403)
	w.at(site)
	refused("a form twice", b.do("POST", where, url.Values{"token": {token, token}, "nonce": {nonce}}.Encode()), 400)
	refused("another kind of form", b.do("POST", where, `{"token": "x"}`, "Content-Type", "application/json"), 400)
	refused("a form that is none", b.do("POST", where, "token=%zz"), 400)
	refused("a long form", b.do("POST", where, "token="+strings.Repeat("x", 9000)), 400)
	refused("another method", b.do("PUT", where, "token=x"), 405)
	refused("the wait's way by POST", b.do("POST", challenge.Prefix+"/wait?token="+token, "x=y"), 405)
	refused("what is not there", b.get(challenge.Prefix+"/../x"), 404)

	// A pass is no token, and a token no pass.
	pass := b.send(where, token, nonce, "/").header.Get("Set-Cookie")
	pass, _, _ = strings.Cut(strings.TrimPrefix(pass, challenge.Cookie+"="), ";")
	refused("a pass as a token", b.send(where, pass, solve(pass, 8), "/"), 403)
	if a := w.browser().get("/", "Cookie", challenge.Cookie+"="+token); a.status != http.StatusSeeOther {
		t.Errorf("a token as a pass: %d", a.status)
	}
	for i := range pass {
		bent := pass[:i] + string(pass[i]^1) + pass[i+1:]
		if a := w.browser().get("/", "Cookie", challenge.Cookie+"="+bent); a.status != http.StatusSeeOther {
			t.Errorf("a pass with byte %d changed: %d", i, a.status)
		}
	}
	if a := w.browser().get("/", "Cookie", challenge.Cookie+"="+pass); a.status != http.StatusOK {
		t.Errorf("the pass itself: %d", a.status)
	}
	w.wait(challenge.TokenLife)
	a := b.send(where, token, nonce, "/x")
	refused("an old token", a, 403)
	if fresh := find(t, tokenField, a.body)[1]; fresh == token || !strings.Contains(a.body, "data-auto") || find(t, toField, a.body)[1] != "/x" {
		t.Error("an old token brings no new page that goes on by itself")
	}
}

// Less work than the route asks for, by a page whose address was changed.
func TestLessWorkByAddress(t *testing.T) {
	c := easy
	c.Bits = 9
	w := newWorld(t, c, memory(t))
	b := w.browser()
	for _, where := range []string{challenge.Prefix + "?bits=8&wait=5&to=/", challenge.Prefix + "?bits=1&wait=0", challenge.Prefix + "?bits=x&wait=-5", challenge.Prefix} {
		body := b.get(where).body
		token, bits := find(t, tokenField, body)[1], find(t, regexp.MustCompile(`data-bits="(\d+)"`), body)[1]
		if bits != "8" {
			if bits != "18" {
				t.Errorf("%s asks for %s bits", where, bits)
			}
			continue
		}
		if a := b.send(where, token, solve(token, 8), "/"); a.status != http.StatusSeeOther {
			t.Fatalf("%d", a.status)
		}
		if a := b.get("/"); a.status != http.StatusSeeOther {
			t.Errorf("less work is enough: %d", a.status)
		}
	}
}

func TestWithoutScripts(t *testing.T) {
	w := newWorld(t, easy, memory(t))
	b := w.browser()
	start := func() (after string, way string) {
		m := find(t, refresh, b.get(b.get("/a?b=c&d='e").header.Get("Location")).body)
		return m[1], m[2]
	}
	after, way := start()
	if after != "6" {
		t.Errorf("it waits for %s seconds", after)
	}
	a := b.get(way)
	if a.status != http.StatusForbidden || a.header.Get("Set-Cookie") != "" {
		t.Errorf("too early: %d", a.status)
	}
	if m := find(t, refresh, a.body); m[2] != way {
		t.Errorf("the wait begins anew: %s, was %s", m[2], way)
	}
	w.wait(4 * time.Second)
	w.from("192.0.2.9")
	if a = b.get(way); a.status != http.StatusForbidden || strings.Contains(a.body, "early") {
		t.Errorf("another client: %d", a.status)
	}
	w.from("192.0.2.1")
	w.wait(2 * time.Second)
	a = b.get(way)
	if a.status != http.StatusSeeOther {
		t.Fatalf("waited: %d\n%s", a.status, a.body)
	}
	if got := find(t, refresh, b.get(a.header.Get("Location")).body)[2]; got != "/a?b=c&d=%27e" && got != "/a?b=c&d='e" {
		t.Errorf("led to %s", got)
	}
	if a = b.get("/"); a.status != http.StatusOK {
		t.Errorf("with the pass: %d", a.status)
	}
	w.wait(time.Hour)
	if a = b.get("/"); a.status != http.StatusSeeOther {
		t.Errorf("a pass for waiting is as long as one for work: %d", a.status)
	}
	// Only so many, whoever waits.
	for n := 1; ; n++ {
		_, way := start()
		w.wait(6 * time.Second)
		a := w.browser().get(way)
		if a.status == http.StatusTooManyRequests {
			if n > challenge.WaitBurst+1 || n < challenge.WaitBurst-1 || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, "minutes") {
				t.Errorf("after %d: %v\n%s", n, a.header, a.body)
			}
			break
		}
		if a.status != http.StatusSeeOther || n > challenge.WaitBurst+1 {
			t.Fatalf("pass %d for waiting: %d", n, a.status)
		}
	}
	w.from("192.0.2.77")
	_, way = start()
	w.wait(6 * time.Second)
	if a = b.get(way); a.status != http.StatusSeeOther {
		t.Errorf("somebody else: %d", a.status)
	}
	b = w.browser()
	_, way = start()
	w.wait(challenge.TokenLife)
	if a = b.get(way); a.status != http.StatusForbidden {
		t.Errorf("waited for too long: %d", a.status)
	}
}

// Who has many networks gets more passes for waiting, but not as many as that.
func TestManyNetworks(t *testing.T) {
	w := newWorld(t, easy, memory(t))
	got := 0
	for n := range 60 {
		w.from(fmt.Sprintf("2001:db8:1:%x::1", n))
		way := find(t, refresh, w.browser().get(challenge.Prefix+"?bits=8&wait=5").body)[2]
		w.wait(6 * time.Second)
		if a := w.browser().get(way); a.status == http.StatusSeeOther {
			got++
		}
	}
	if got < 36 || got > 40 {
		t.Errorf("%d passes for one /48", got)
	}
	w.from("2001:db8:2::1")
	way := find(t, refresh, w.browser().get(challenge.Prefix+"?bits=8&wait=5").body)[2]
	w.wait(6 * time.Second)
	if a := w.browser().get(way); a.status != http.StatusSeeOther {
		t.Errorf("another network: %d", a.status)
	}
}

// Less waiting than the route asks for is not enough.
func TestLessWaiting(t *testing.T) {
	c := easy
	c.Wait = 20 * time.Second
	w := newWorld(t, c, memory(t))
	b := w.browser()
	way := find(t, refresh, b.get(challenge.Prefix+"?bits=8&wait=5&to=/").body)[2]
	w.wait(6 * time.Second)
	if a := b.get(way); a.status != http.StatusSeeOther {
		t.Fatalf("%d", a.status)
	}
	if a := b.get("/"); a.status != http.StatusSeeOther {
		t.Errorf("less waiting is enough: %d", a.status)
	}
}

type broken struct{ count.Store }

func (broken) Take(context.Context, []count.Ask, []count.Result, time.Time) error {
	return errors.New("broken")
}

func TestNothingToCountIn(t *testing.T) {
	w := newWorld(t, easy, broken{})
	b := w.browser()
	way := find(t, refresh, b.get(b.get("/").header.Get("Location")).body)[2]
	w.wait(6 * time.Second)
	if a := b.get(way); a.status != http.StatusServiceUnavailable || a.header.Get("Set-Cookie") != "" {
		t.Errorf("%d", a.status)
	}
	if got := b.prove("/x"); got != "/x" {
		t.Errorf("work needs no counting, but led to %q", got)
	}
}

// Nobody is sent anywhere else.
func TestOpenRedirect(t *testing.T) {
	w := newWorld(t, easy, memory(t))
	for _, to := range []string{"//evil.example/", "https://evil.example/", `/\evil.example`, "/%2f%2fevil.example/", "javascript:alert(1)", "/\t/evil.example", "", "x", "/" + strings.Repeat("x", 3000), "/a\r\nSet-Cookie: x=y"} {
		b := w.browser()
		where := challenge.Prefix + "?bits=8&wait=5&to=" + url.QueryEscape(to)
		body := b.get(where).body
		if got := find(t, toField, body)[1]; got != "/" {
			t.Errorf("%q: the form has %q", to, got)
		}
		token := find(t, tokenField, body)[1]
		a := b.send(where, token, solve(token, 8), to)
		if l := a.header.Get("Location"); !strings.HasPrefix(l, challenge.Prefix+"/done?") || !strings.HasSuffix(l, "&to=%2F") {
			t.Errorf("%q: sent to %s", to, l)
		}
		if got := find(t, goLink, b.get(challenge.Prefix+"/done?to="+url.QueryEscape(to)).body)[1]; got != "/" {
			t.Errorf("%q: led to %s", to, got)
		}
	}
}

// A browser that keeps no cookies is told so, and not sent in a circle.
func TestNoCookies(t *testing.T) {
	w := newWorld(t, easy, memory(t))
	b := w.browser()
	b.c.Jar = nil
	where := b.get("/x?y=1&z=2").header.Get("Location")
	token := find(t, tokenField, b.get(where).body)[1]
	a := b.get(b.send(where, token, solve(token, 8), "/x?y=1&z=2").header.Get("Location"))
	if a.status != http.StatusForbidden || !strings.Contains(a.body, "Allow cookies") || strings.Contains(a.body, "<script") || refresh.MatchString(a.body) {
		t.Errorf("%d\n%s", a.status, a.body)
	}
	if again := find(t, regexp.MustCompile(`href="([^"]*bits=8[^"]*)"`), a.body)[1]; again != where {
		t.Errorf("again at %s, not %s", again, where)
	}
}

func TestWhatThePageSays(t *testing.T) {
	w := newWorld(t, easy, memory(t))
	b := w.browser()
	a := b.get(challenge.Prefix+"?to=/", "Accept-Language", "de-CH, en;q=0.5")
	if !strings.Contains(a.body, `<html lang="de">`) || !strings.Contains(a.body, "Einen Moment bitte") {
		t.Errorf("no German\n%s", a.body)
	}
	if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") {
		t.Errorf("policy %s", csp)
	}
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Vary": "Accept-Language", "X-Robots-Tag": "noindex"} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, ref := range regexp.MustCompile(`(?:src|href|worker)="(/[^"]*\.(?:js|css))"`).FindAllStringSubmatch(a.body, -1) {
		f := b.get(ref[1])
		if f.status != http.StatusOK || !strings.Contains(f.header.Get("Cache-Control"), "immutable") || f.body == "" {
			t.Errorf("%s: %d", ref[1], f.status)
		}
	}
	a = b.get(challenge.Prefix+`?to=/"><script>alert(1)</script>`, "Host", "x")
	if strings.Contains(a.body, "<script>") {
		t.Errorf("a script of somebody else's\n%s", a.body)
	}
	if h := b.do("HEAD", challenge.Prefix, ""); h.status != http.StatusOK || h.body != "" || h.header.Get("Content-Length") == "" {
		t.Errorf("HEAD: %d %v", h.status, h.header)
	}
	long := b.get(challenge.Prefix, "Accept-Language", strings.Repeat("de,", 200))
	if !strings.Contains(long.body, `<html lang="en">`) {
		t.Error("a long list of languages is read")
	}
}

// Every text is there in every language, and every text that the code names.
func TestTexts(t *testing.T) {
	read := func(name string) map[string]string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]string{}
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	en, de := read("text/en.json"), read("text/de.json")
	for k := range en {
		if de[k] == "" || strings.Contains(en[k], "{0}") != strings.Contains(de[k], "{0}") {
			t.Errorf("German: %q", k)
		}
	}
	if len(de) != len(en) {
		t.Errorf("%d German texts, %d English", len(de), len(en))
	}
	var used []string
	for _, name := range []string{"pages.go", "pages/challenge.html"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:get\(|fail: +)"([a-z.]+)"|\[\[\.([a-z]+)\]\]`).FindAllStringSubmatch(string(b), -1) {
			if used = append(used, m[1]+m[2]); en[m[1]+m[2]] == "" {
				t.Errorf("%s: no text %q", name, m[1]+m[2])
			}
		}
	}
	for k := range en {
		if !slices.Contains(used, k) {
			t.Errorf("text %q is not used", k)
		}
	}
}
