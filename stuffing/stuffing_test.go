package stuffing_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/stuffing"
)

func loginRequest(contentType, body string) *http.Request {
	hr := httptest.NewRequest("POST", "https://"+site+"/api/login", strings.NewReader(body))
	hr.Header.Set("Content-Type", contentType)
	return hr
}

func TestCheck(t *testing.T) {
	newGuard := func(t *testing.T) merlon.Guard {
		c := config()
		c.Path = stuffing.List{"/api/login", "/v?/users/*/login", "/wp-login.php"}
		c.UserField = stuffing.List{"email", "username"}
		c.Canaries = stuffing.List{"canary"}
		return newWorld(t, c, stuffing.Env{}).guard
	}
	post := func(path string) string {
		return "POST " + path + "\nContent-Type: " + form + "\n\nemail=ann%40example.com&password=x"
	}
	js := "POST /api/login\nContent-Type: application/json\n"
	merlontest.Run(t, newGuard, merlontest.Options{Stateful: true}, []merlontest.Case{
		{Name: "another page", Request: "GET /", Want: stuffing.NotLogin},
		{Name: "the log-in's form", Request: "GET /api/login", Want: stuffing.NotLogin},
		{Name: "a page below it", Request: post("/api/login/help"), Want: stuffing.NotLogin},
		{Name: "a form", Request: post("/api/login"), Want: stuffing.LoginTried},
		{Name: "JSON", Request: js + "\n{\"username\":\"ann\",\"password\":\"x\"}", Want: stuffing.LoginTried},
		{Name: "both fields, one empty", Request: "POST /api/login\nContent-Type: " + form + "\n\nemail=&username=ann&password=x", Want: stuffing.LoginTried},
		{Name: "no user", Request: js + "\n{}", Want: stuffing.LoginTried},
		{Name: "a password alone", Request: js + "\n{\"password\":\"x\"}", Want: stuffing.LoginUnreadable, Status: 400},
		{Name: "a password and an empty name", Request: js + "\n{\"password\":\"x\",\"email\":\"\"}", Want: stuffing.LoginTried},
		{Name: "no body", Request: "POST /api/login", Want: stuffing.LoginTried},
		{Name: "a pattern", Request: post("/v2/users/ann/login"), Want: stuffing.LoginTried},
		{Name: "a pattern, with an extension", Request: post("/v2/users/ann/login.json"), Want: stuffing.LoginTried},
		{Name: "a pattern, behind a script", Request: post("/index.php/v2/users/ann/login/"), Want: stuffing.LoginTried},
		{Name: "case", Request: post("/API/Login"), Want: stuffing.LoginTried},
		{Name: "a slash more", Request: post("/api//login/"), Want: stuffing.LoginTried},
		{Name: "a parameter", Request: post("/api;x=1/login;y"), Want: stuffing.LoginTried},
		{Name: "an extension", Request: post("/api/login.json"), Want: stuffing.LoginTried},
		{Name: "a slash that stayed encoded", Request: post("/api%252Flogin"), Want: stuffing.LoginTried},
		{Name: "a script with more behind it", Request: post("/wp-login.php/x/y"), Want: stuffing.LoginTried},
		{Name: "an extension with more behind it", Request: post("/api/login.php/x"), Want: stuffing.LoginTried},
		{Name: "behind a script for all paths", Request: post("/index.php/api/login"), Want: stuffing.LoginTried},
		{Name: "behind one further down", Request: post("/shop/app.php/api/login"), Want: stuffing.LoginTried},
		{Name: "behind what is no script", Request: post("/shop/api/login"), Want: stuffing.NotLogin},
		{Name: "a folder's page", Request: post("/api/login/index.php"), Want: stuffing.LoginTried},
		{Name: "a letter with the same capital", Request: post("/api/log%C4%B1n"), Want: stuffing.LoginTried},
		{Name: "a longer name", Request: post("/api/logins"), Want: stuffing.NotLogin},
		{Name: "a method in small letters", Request: "post /api/login\nContent-Type: " + form + "\n\nemail=ann&password=x", Want: stuffing.LoginTried},
		{Name: "a method in a method", Request: "PUT /api/login\nX-HTTP-Method-Override: post\nContent-Type: " + form + "\n\nemail=ann&password=x", Want: stuffing.LoginTried},
		{Name: "another method", Request: "PUT /api/login\nContent-Type: " + form + "\n\nemail=ann&password=x", Want: stuffing.LoginTried},
		{Name: "another method, for a password", Request: "PUT /api/login\nContent-Type: " + form + "\n\npassword=x", Want: stuffing.NotLogin},
		{Name: "another method, for an address", Request: "PATCH /api/login\nContent-Type: " + form + "\n\nemail=ann", Want: stuffing.NotLogin},
		{Name: "a password in the address", Request: "GET /api/login?email=ann&password=x", Want: stuffing.LoginTried},
		{Name: "and nothing but a status asked for", Request: "HEAD /api/login?email=ann&Password=x", Want: stuffing.LoginTried},
		{Name: "and what cannot be read beside it", Request: "GET /api/login?email=ann&password=x&a=%zz", Want: stuffing.LoginUnreadable, Status: 400},
		{Name: "a page's own address", Request: "GET /api/login?next=/a%20b;c&lang=de", Want: stuffing.NotLogin},
		{Name: "a canary", Request: js + "\n{\"username\":\"CANARY\",\"password\":\"x\"}", Want: stuffing.CanaryTried},
		{Name: "XML", Request: "POST /api/login\nContent-Type: text/xml\n\n<user>ann</user>", Want: stuffing.LoginUnreadable, Status: 400},
		{Name: "broken JSON", Request: js + "\n{\"username\":\"ann\"", Want: stuffing.LoginUnreadable, Status: 400},
		{Name: "UTF-16", Request: "POST /api/login\nContent-Type: application/json; charset=utf-16\n\n{}", Want: stuffing.LoginUnreadable, Status: 400},
		{Name: "a coding", Request: js + "Content-Encoding: gzip\n\n{\"username\":\"ann\"}", Want: stuffing.LoginUnreadable, Status: 400},
		{Name: "a long body", Request: js + "\n{\"pad\":\"" + strings.Repeat("x", 70_000) + "\",\"username\":\"ann\"}", Want: stuffing.LoginUnreadable, Status: 400},
		{Name: "two users, three passwords", Request: js + "\n{\"username\":[\"ann\",\"bob\"],\"password\":[\"1\",\"2\",\"3\"]}", Want: stuffing.LoginUnreadable, Status: 400},
		{Name: "six users", Request: js + "\n{\"username\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\"],\"password\":\"x\"}", Want: stuffing.LoginBatch, Status: 400},
		{Name: "the same user twice", Request: "POST /api/login?username=ann\nContent-Type: " + form + "\n\nusername=Ann&password=x", Want: stuffing.LoginTried},
	})
}

// TestDisguised: a method in a field.
func TestDisguised(t *testing.T) {
	c := config()
	c.Methods = stuffing.List{"PUT"}
	w := newWorld(t, c, stuffing.Env{})
	for body, want := range map[string]merlon.Reason{
		"_method=put&email=ann&password=x":    stuffing.LoginFailed,
		"_method=delete&email=ann&password=x": "",
		"email=ann&password=x":                "",
	} {
		if r := w.ask("203.0.113.9", loginRequest(form, body)); r.reason != want {
			t.Errorf("%s: %q, want %q", body, r.reason, want)
		}
	}
}

// TestOffice: 200 people behind one address log in between 8:00 and 8:05, none
// known yet, every eighth with a slip, some with three.
func TestOffice(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{Passed: func(*merlon.Request) (string, bool) { return "", false }})
	for i := range 200 {
		user := fmt.Sprintf("person%d@example.com", i)
		slips := 0
		switch {
		case i%40 == 3:
			slips = 3
		case i%8 == 0:
			slips = 1
		}
		for s := range slips {
			if r := w.try("203.0.113.50", user, fmt.Sprint("slip ", i, s)); r.status != 401 {
				t.Fatalf("person %d: %d %s", i, r.status, r.reason)
			}
			w.pass(200 * time.Millisecond)
		}
		if r := w.try("203.0.113.50", user, secret); r.status != 200 {
			t.Fatalf("person %d: %d %s", i, r.status, r.reason)
		}
		w.pass(1300 * time.Millisecond)
	}
	if d := w.waited(); d != 0 {
		t.Errorf("they were kept waiting for %v", d)
	}
	if n := len(w.notices); n != 0 {
		t.Errorf("an alarm: %+v", w.notices)
	}
}

// TestSteps: a try is slowed down, then challenged, then refused.
func TestSteps(t *testing.T) {
	pass := ""
	w := newWorld(t, config(), stuffing.Env{Passed: func(*merlon.Request) (string, bool) { return pass, pass != "" }})
	w.guard.SetSleep(func(_ context.Context, d time.Duration) error {
		w.pass(d)
		w.mu.Lock()
		w.slept += d
		w.mu.Unlock()
		return nil
	})
	guess := func() reply { return w.try("203.0.113.9", "owner@example.com", "guess") }
	var waits []time.Duration
	var r reply
	for range 12 {
		if r = guess(); r.status != 401 {
			break
		}
		waits = append(waits, w.waited())
	}
	// What is forgotten in these seconds makes one of the waits come twice.
	if want := []time.Duration{0, 0, 0, 0, 0, 0, time.Second, 2 * time.Second, 4 * time.Second}; !slices.Equal(slices.Compact(waits[5:]), want[5:]) || len(waits) > len(want)+1 {
		t.Errorf("slowed down by %v, want %v", waits, want)
	}
	if r.status != tooMany || r.reason != stuffing.LoginChallenged || r.header.Get("Retry-After") != "8" {
		t.Fatalf("%d %s %v", r.status, r.reason, r.header)
	}
	pass = "first"
	for range 5 {
		if r := guess(); r.status != 401 {
			t.Fatalf("with a pass: %d %s", r.status, r.reason)
		}
	}
	pass = "second"
	if r := guess(); r.status != 401 {
		t.Fatalf("with another pass: %d %s", r.status, r.reason)
	}
	refused := false
	for i := range 20 {
		pass = fmt.Sprint("pass ", i)
		r = guess()
		refused = refused || r.reason == stuffing.LoginRefused
	}
	if !refused || r.status != tooMany {
		t.Errorf("passes without end help: %d %s", r.status, r.reason)
	}
	if seconds, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || seconds < 1 {
		t.Errorf("Retry-After %q", r.header.Get("Retry-After"))
	}
	w.pass(24 * time.Hour)
	pass = ""
	if r := guess(); r.status != 401 {
		t.Errorf("a day later: %d %s", r.status, r.reason)
	}
}

// TestPassIsUsedUp: one pass is good for few tries, from wherever it is used.
func TestPassIsUsedUp(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{Passed: func(*merlon.Request) (string, bool) { return "bought", true }})
	looked := func(from int) int64 {
		before := w.looked.Load()
		for i := range 200 {
			w.try(address(from+i), "owner@example.com", fmt.Sprint("guess", i))
		}
		return w.looked.Load() - before
	}
	n := looked(0)
	t.Logf("200 addresses with one pass: the backend looked at %d", n)
	if n > 6+6 { // addresses.free and passes, and one more each
		t.Errorf("looked at %d", n)
	}
	if r := w.try(address(999), "owner@example.com", "x"); r.reason != stuffing.LoginChallenged {
		t.Errorf("who has used up a pass needs another: %s", r.reason)
	}
}

// TestDelays: they are bounded, end with the client, and are for the impatient.
func TestDelays(t *testing.T) {
	c := config()
	c.Addresses.Free, c.Spray.Free = 10_000, 10_000
	w := newWorld(t, c, stuffing.Env{})
	hold := make(chan struct{})
	var waiting sync.WaitGroup
	w.guard.SetSleep(func(context.Context, time.Duration) error { waiting.Done(); <-hold; return nil })
	for i := range 11 {
		w.try(address(i), "owner@example.com", "x")
	}
	var all sync.WaitGroup
	hog := func(n int) {
		for range n {
			all.Go(func() { w.try("203.0.113.9", "owner@example.com", "x") })
		}
	}
	waiting.Add(stuffing.MaxDelayedEach)
	hog(stuffing.MaxDelayedEach)
	waiting.Wait()
	if r := w.try("203.0.113.9", "owner@example.com", "x"); r.reason != stuffing.LoginRefused {
		t.Errorf("one more of an address than may wait: %d %s", r.status, r.reason)
	}
	rest := stuffing.MaxDelayed - stuffing.MaxDelayedEach
	waiting.Add(rest)
	for i := range rest {
		all.Go(func() { w.try(address(1000+i), "owner@example.com", "x") })
	}
	waiting.Wait()
	if r := w.try("203.0.114.9", "owner@example.com", "x"); r.reason != stuffing.LoginRefused {
		t.Errorf("one more than may wait: %d %s", r.status, r.reason)
	}
	if r := w.try("192.0.2.1", "new@example.com", secret); r.status != 200 {
		t.Errorf("somebody else: %d %s", r.status, r.reason)
	}
	waiting.Add(stuffing.MaxDelayed * 8) // those who wait again
	close(hold)
	all.Wait()

	w = newWorld(t, config(), stuffing.Env{})
	w.guard.SetSleep(func(ctx context.Context, _ time.Duration) error { return ctx.Err() })
	for range 6 {
		w.try("203.0.113.9", "owner@example.com", "x")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if r := w.ask("203.0.113.9", loginRequest(form, "email=owner@example.com&password=x").WithContext(ctx)); r.reason != stuffing.LoginRefused {
		t.Errorf("a client that has gone: %s", r.reason)
	}

	w = newWorld(t, config(), stuffing.Env{Watch: true})
	for range 8 {
		w.try("203.0.113.9", "owner@example.com", "x")
	}
	if d := w.waited(); d != 0 {
		t.Errorf("who only watches keeps nobody waiting: %v", d)
	}
}

// TestSleep: the real wait ends with the client.
func TestSleep(t *testing.T) {
	g, err := stuffing.New(config(), stuffing.Env{Key: key(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	begin := time.Now()
	for i := range 7 {
		r := merlon.NewRequest(loginRequest(form, "email=ann&password="+strconv.Itoa(i)).WithContext(ctx))
		if d := g.Check(r); (i < 6) != d.Passed() {
			t.Errorf("%d: %s", i, d.Reason)
		} else if i == 6 && !errors.Is(d.Err, context.Canceled) {
			t.Errorf("%d: %v", i, d.Err)
		}
		g.Done(r, merlon.Outcome{Upstream: true})
	}
	if d := time.Since(begin); d > 900*time.Millisecond {
		t.Errorf("took %v", d)
	}
}

// TestAnswers: what the backend may answer, and what it means.
func TestAnswers(t *testing.T) {
	zipped := func(s string) string {
		var b bytes.Buffer
		zw := gzip.NewWriter(&b)
		io.WriteString(zw, s)
		zw.Close()
		return b.String()
	}
	for _, c := range []struct {
		what    string
		failed  stuffing.Failed
		success stuffing.Success
		status  int
		header  string // "Name: value"
		body    string
		want    merlon.Reason
	}{
		{what: "200", status: 200, want: stuffing.LoginSucceeded},
		{what: "204", status: 204, want: stuffing.LoginSucceeded},
		{what: "401", status: 401, want: stuffing.LoginFailed},
		{what: "422", status: 422, want: stuffing.LoginFailed},
		{what: "429", status: 429, want: stuffing.LoginFailed},
		{what: "500", status: 500, want: stuffing.LoginUnsure},
		{what: "503", status: 503, want: stuffing.LoginUnsure},
		{what: "the form again", failed: stuffing.Failed{Status: stuffing.Statuses{200}}, status: 200, want: stuffing.LoginFailed},
		{what: "on to the account", failed: stuffing.Failed{Status: stuffing.Statuses{200}}, status: 303, header: "Location: /", want: stuffing.LoginSucceeded},
		{what: "back to the form", failed: stuffing.Failed{Location: stuffing.List{"/login?error*"}}, status: 302, header: "Location: /login?error=1", want: stuffing.LoginFailed},
		{what: "back, with the host", failed: stuffing.Failed{Location: stuffing.List{"/login?error*"}}, status: 302, header: "Location: https://shop.example.com/login?error", want: stuffing.LoginFailed},
		{what: "back, with a host only", failed: stuffing.Failed{Location: stuffing.List{"/login*"}}, status: 302, header: "Location: //shop.example.com/login", want: stuffing.LoginFailed},
		{what: "back, relative", failed: stuffing.Failed{Location: stuffing.List{"/login*"}}, status: 302, header: "Location: login?again", want: stuffing.LoginFailed},
		{what: "a page where others are sent back", failed: stuffing.Failed{Location: stuffing.List{"/login?error*"}}, status: 200, body: "<form>", want: stuffing.LoginUnsure},
		{what: "a page and the cookie", failed: stuffing.Failed{Location: stuffing.List{"/login?error*"}}, success: stuffing.Success{Cookie: "sid"}, status: 200, header: "Set-Cookie: sid=1", want: stuffing.LoginSucceeded},
		{what: "nowhere", failed: stuffing.Failed{Location: stuffing.List{"/login*"}}, status: 302, want: stuffing.LoginFailed},
		{what: "on", failed: stuffing.Failed{Location: stuffing.List{"/login?error*"}}, status: 302, header: "Location: /account?from=/login?error", want: stuffing.LoginSucceeded},
		{what: "the path in another spelling", status: 308, header: "Location: /api/login/", want: stuffing.LoginUnsure},
		{what: "the same, as browsers do not send it again", status: 301, header: "Location: /api/login", want: stuffing.LoginUnsure},
		{what: "the same, for now", status: 307, header: "Location: https://shop.example.com/api/login", want: stuffing.LoginUnsure},
		{what: "a part of it", failed: stuffing.Failed{Body: stuffing.List{`"errors":`}}, status: 206, body: "rs", want: stuffing.LoginUnsure},
		{what: "nothing new", status: 304, want: stuffing.LoginUnsure},
		{what: "moved, and the operator knows", failed: stuffing.Failed{Status: stuffing.Statuses{307}}, status: 307, header: "Location: /x", want: stuffing.LoginFailed},
		{what: "moved, with the cookie", success: stuffing.Success{Cookie: "sid"}, status: 301, header: "Set-Cookie: sid=1; Path=/", want: stuffing.LoginSucceeded},
		{what: "back to itself", status: 302, header: "Location: /api/login?error=1", want: stuffing.LoginFailed},
		{what: "back to itself, relative", status: 303, header: "Location: login", want: stuffing.LoginFailed},
		{what: "back to itself, in full", status: 303, header: "Location: https://SHOP.example.com/Api/login/#again", want: stuffing.LoginFailed},
		{what: "on to what is called alike", status: 303, header: "Location: /api/login-history", want: stuffing.LoginSucceeded},
		{what: "a cookie", success: stuffing.Success{Cookie: "sid"}, status: 200, header: "Set-Cookie: sid=1; Path=/", want: stuffing.LoginSucceeded},
		{what: "no cookie", success: stuffing.Success{Cookie: "sid"}, status: 200, want: stuffing.LoginFailed},
		{what: "another cookie", success: stuffing.Success{Cookie: "sid"}, status: 200, header: "Set-Cookie: xsid=1", want: stuffing.LoginFailed},
		{what: "a cookie taken away", success: stuffing.Success{Cookie: "sid"}, status: 200, header: "Set-Cookie: sid=x; Max-Age=0", want: stuffing.LoginFailed},
		{what: "GraphQL, wrong", failed: stuffing.Failed{Body: stuffing.List{`"errors":`}}, status: 200, body: `{"errors":[{}]}`, want: stuffing.LoginFailed},
		{what: "GraphQL, right", failed: stuffing.Failed{Body: stuffing.List{`"errors":`}}, status: 200, body: `{"data":{}}`, want: stuffing.LoginSucceeded},
		{what: "GraphQL, wrong, gzip", failed: stuffing.Failed{Body: stuffing.List{`"errors":`}}, status: 200, header: "Content-Encoding: gzip", body: zipped(`{"errors":[{}]}`), want: stuffing.LoginFailed},
		{what: "GraphQL, right, gzip", failed: stuffing.Failed{Body: stuffing.List{`"errors":`}}, status: 200, header: "Content-Encoding: gzip", body: zipped(`{"data":{}}`), want: stuffing.LoginSucceeded},
		{what: "a coding nobody knows", failed: stuffing.Failed{Body: stuffing.List{`"errors":`}}, status: 200, header: "Content-Encoding: br", body: "x", want: stuffing.LoginFailed},
		{what: "a long answer", failed: stuffing.Failed{Body: stuffing.List{`"errors":`}}, status: 200, body: strings.Repeat("x", 200_000), want: stuffing.LoginSucceeded},
	} {
		t.Run(c.what, func(t *testing.T) {
			conf := config()
			conf.Failed, conf.Success = c.failed, c.success
			w := newWorld(t, conf, stuffing.Env{})
			r := merlon.NewRequest(loginRequest(form, "email=ann&password=x"))
			r.Site = site
			if d := w.gate.Check(r); !d.Passed() {
				t.Fatal(d.Reason)
			}
			res := &http.Response{StatusCode: c.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(c.body))}
			if name, value, ok := strings.Cut(c.header, ": "); ok {
				res.Header.Set(name, value)
			}
			d := w.gate.CheckResponse(r, res)
			w.gate.Done(r, merlon.Outcome{Status: c.status, Upstream: true})
			if d.Reason != c.want || !d.Passed() {
				t.Errorf("%s, want %s", d.Reason, c.want)
			}
			// That words are missing from a page is no proof.
			known := c.want == stuffing.LoginSucceeded && (len(c.failed.Body) == 0 || c.success.Cookie != "")
			if cookie := len(d.Header["Set-Cookie"]) > 0; cookie != known {
				t.Errorf("the browser is known: %v", cookie)
			}
			if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != c.body {
				t.Errorf("the answer was not left whole: %d bytes of %d, %v", len(rest), len(c.body), err)
			}
		})
	}
}

// TestMiddleware: where answers are not seen, their status is.
func TestMiddleware(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{})
	front := httptest.NewServer(w.guard.Middleware(w.backend))
	defer front.Close()
	try := func(password string) int {
		res, err := http.Post(front.URL+"/api/login", form, strings.NewReader("email=ann&password="+password))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for range 30 {
		if s := try("correct+horse"); s != 200 {
			t.Fatalf("right: %d", s)
		}
	}
	for range 30 {
		try("wrong")
	}
	if s := try("correct+horse"); s != tooMany {
		t.Errorf("after 30 wrong: %d", s)
	}
	if n := w.looked.Load(); n > 36 {
		t.Errorf("looked at %d", n)
	}
}

// TestLive: a form log-in that answers 302 both ways, over a real network.
func TestLive(t *testing.T) {
	c := config()
	c.Failed.Location = stuffing.List{"/login?error*"}
	w := newWorld(t, c, stuffing.Env{})
	w.backend = http.HandlerFunc(func(rw http.ResponseWriter, hr *http.Request) {
		w.looked.Add(1)
		if strings.Contains(hr.Header.Get("Cookie"), "merlon") {
			t.Error("the backend sees the cookie")
		}
		to := "/login?error=1"
		if hr.FormValue("password") == secret {
			to = "/account"
			http.SetCookie(rw, &http.Cookie{Name: "session", Value: "1"})
		}
		http.Redirect(rw, hr, to, http.StatusFound)
	})
	front := w.live(false)
	front.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := w.post(front, form, "email=owner@example.com&password=correct+horse")
	if err != nil || res.StatusCode != 302 || len(res.Cookies()) != 2 {
		t.Fatalf("%v %v", res, err)
	}
	browser := res.Cookies()
	for _, c := range browser {
		if c.Name == stuffing.Cookie && (!c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 365*24*3600) {
			t.Errorf("%+v", c)
		}
	}
	last := 0
	for i := range 20 {
		res, err := w.post(front, form, fmt.Sprintf("email=owner@example.com&password=guess%d", i))
		if err != nil {
			t.Fatal(err)
		}
		last = res.StatusCode
	}
	if last != tooMany || w.looked.Load() > 7 {
		t.Errorf("%d, looked at %d", last, w.looked.Load())
	}
	hr, _ := http.NewRequest("POST", front.URL+"/api/login", strings.NewReader("email=owner@example.com&password=correct+horse"))
	hr.Header.Set("Content-Type", form)
	for _, c := range browser {
		hr.AddCookie(c)
	}
	if res, err = front.Client().Do(hr); err != nil || res.StatusCode != 302 || res.Header.Get("Location") != "/account" {
		t.Errorf("the owner: %v %v", res, err)
	}
	res.Body.Close()
}

// TestReload: a new guard over the same store goes on counting, and one with a
// store that fails counts for itself.
func TestReload(t *testing.T) {
	store := attempts.NewMemory(1 << 12)
	w := newWorld(t, config(), stuffing.Env{Store: store})
	for range 6 {
		w.try("203.0.113.9", "owner@example.com", "x")
	}
	again := newWorld(t, config(), stuffing.Env{Store: store})
	if r := again.try("203.0.113.9", "owner@example.com", "x"); r.status != tooMany {
		t.Errorf("after a reload: %d", r.status)
	}
	if err := again.guard.Forgive(context.Background(), site, "Owner@example.com"); err != nil {
		t.Error(err)
	}
	if r := again.try("203.0.113.10", "owner@example.com", secret); r.status != 200 {
		t.Errorf("forgiven: %d %s", r.status, r.reason)
	}

	w = newWorld(t, config(), stuffing.Env{Store: failing{}})
	for range 20 {
		w.try("203.0.113.9", "owner@example.com", "x")
	}
	if n := w.looked.Load(); n == 0 || n > 6 {
		t.Errorf("without a store: looked at %d", n)
	}
	if w.told(attempts.StoreFailed) == 0 {
		t.Error("nobody was told of the store")
	}
}

type failing struct{}

func (failing) Reserve(context.Context, []attempts.Bucket, time.Time) (attempts.Result, error) {
	return attempts.Result{}, errors.New("down")
}
func (failing) Refund(context.Context, []attempts.Refund, time.Time) error { return errors.New("down") }

// TestSites: what is tried at one site counts for that site.
func TestSites(t *testing.T) {
	store := attempts.NewMemory(1 << 12)
	w := newWorld(t, config(), stuffing.Env{Store: store})
	for range 10 {
		w.try("203.0.113.9", "owner@example.com", "x")
	}
	r := merlon.NewRequest(loginRequest(form, "email=owner@example.com&password=x"))
	r.Site = "other.example.com"
	if d := w.gate.Check(r); !d.Passed() {
		t.Error(d.Reason)
	}
	w.gate.Done(r, merlon.Outcome{})
}

func TestShared(t *testing.T) {
	c := config()
	c.Shared = true
	w := newWorld(t, c, stuffing.Env{})
	if r := w.ask("203.0.113.9", loginRequest("application/json", `{"query":"{ products { id } }"}`)); r.reason == stuffing.LoginFailed {
		t.Errorf("no log-in: %s", r.reason)
	}
	if r := w.ask("203.0.113.9", loginRequest("application/json", `{"query":"mutation { login(email:\"ann\", password:\"x\") { t } }"}`)); r.reason != stuffing.LoginFailed {
		t.Errorf("a log-in: %s", r.reason)
	}
}

// TestNotObeyed: a guard that only watches counts as far as it can and stops
// nobody.
func TestNotObeyed(t *testing.T) {
	for what, wrap := range map[string]func(merlon.Guard) merlon.Guard{"monitored": merlon.Monitor, "a shadow": merlon.Shadow} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, config(), stuffing.Env{Watch: true})
			w.gate = merlon.NewGate(wrap(w.guard))
			for range 30 {
				if r := w.try("203.0.113.9", "owner@example.com", "x"); r.status != 401 {
					t.Fatalf("%d %s", r.status, r.reason)
				}
			}
			if r := w.try("203.0.113.9", "owner@example.com", secret); r.status != 200 {
				t.Errorf("%d %s", r.status, r.reason)
			}
			r := merlon.NewRequest(loginRequest(form, "email=owner@example.com&password=y"))
			r.Site, r.Client = site, netip.MustParseAddr("203.0.113.9")
			defer w.guard.Done(r, merlon.Outcome{})
			if d := w.guard.Check(r); d.Reason != stuffing.LoginRefused {
				t.Errorf("alone it would say %s", d.Reason)
			}
		})
	}
}
