package provider_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/provider"
)

// with returns the wiki's request, changed.
func with(pairs ...string) string {
	q := request("wiki", callback, "openid")
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return provider.Authorize + "?" + q.Encode()
}

func TestLogIn(t *testing.T) {
	hour := func(w *world) { w.now = w.now.Add(time.Hour) }
	for _, c := range []struct {
		name, path string
		do         func(*world)
		want       string // "code", an error, or "login"
		fresh      bool
	}{
		{name: "signed in", path: with(), want: "code"},
		{name: "not signed in", path: with(), do: func(w *world) { w.identity = nil }, want: "login"},
		{name: "not signed in, no page", path: with("prompt", "none"), do: func(w *world) { w.identity = nil }, want: "login_required"},
		{name: "no page", path: with("prompt", "none"), want: "code"},
		{name: "trap 47: by a key, which is no session", path: with(), do: func(w *world) { w.identity.Session, w.identity.When = "", time.Time{} }, want: "login"},
		{name: "trap 47: by a token of a session", path: with(), do: func(w *world) { w.identity.Methods = []string{account.ByPassword, account.TOTP, account.ByToken} }, want: "login"},
		{name: "trap 47: by Basic", path: with(), do: func(w *world) { w.identity.Methods = []string{account.ByBasic} }, want: "login"},
		{name: "trap 47: by what is bounded to scopes", path: with(), do: func(w *world) { w.identity.Scopes = []string{} }, want: "login"},
		{name: "again", path: with("prompt", "login"), do: hour, want: "login", fresh: true},
		{name: "young enough", path: with("max_age", "3600"), do: hour, want: "code"},
		{name: "too old", path: with("max_age", "3599"), do: hour, want: "login", fresh: true},
		{name: "too old, no page", path: with("max_age", "60", "prompt", "none"), do: hour, want: "login_required"},
		{name: "strong enough", path: with("acr_values", "multi-factor"), want: "code"},
		{name: "too weak", path: with("acr_values", "phishing-resistant other"), want: "login"},
		{name: "too weak, but the weaker will do", path: with("acr_values", "phishing-resistant single-factor"), want: "code"},
		{name: "too weak, no page: a wish is no condition", path: with("acr_values", "phishing-resistant", "prompt", "none"), want: "code"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			if c.do != nil {
				c.do(w)
			}
			res := w.browse(t, "GET", c.path, nil)
			if c.want == "login" {
				if res.StatusCode != http.StatusUnauthorized || w.need.ReturnTo == "" || w.need.Fresh != c.fresh || w.need.Client != "The wiki" {
					t.Fatalf("%s, %+v", res.Status, w.need)
				}
				if account.SafeReturn(w.need.ReturnTo) != w.need.ReturnTo {
					t.Errorf("the log-in page will not return to %q", w.need.ReturnTo)
				}
				// Whoever has logged in comes back and is let through, once.
				w.now = w.now.Add(time.Minute)
				w.logIn()
				w.now = w.now.Add(time.Second)
				if q := answer(t, w.browse(t, "GET", w.need.ReturnTo, nil)); q.Get("code") == "" {
					t.Errorf("after the log-in: %v", q)
				}
				return
			}
			q := answer(t, res)
			if c.want == "code" && q.Get("code") == "" || c.want != "code" && q.Get("error") != c.want {
				t.Errorf("%v", q)
			}
		})
	}
}

func TestPolicy(t *testing.T) {
	t.Run("trap 47: policy asks for more than was proved", func(t *testing.T) {
		must := account.Multi
		w := newWorld(t, func(_ *provider.Config, d *provider.Deps) {
			d.Required = func(id *merlon.Identity) account.Strength { return must }
		})
		v := w.tokens(t, "openid")
		w.identity.Methods = []string{account.ByPassword}
		if res := w.browse(t, "GET", with(), nil); res.StatusCode != http.StatusUnauthorized || w.need.Strength != account.Multi {
			t.Errorf("%s, %+v", res.Status, w.need)
		}
		// Nor does it help to come back, or to ask for no page.
		if res := w.browse(t, "GET", w.need.ReturnTo, nil); res.StatusCode != http.StatusUnauthorized {
			t.Error(res.Status)
		}
		if q := answer(t, w.browse(t, "GET", with("prompt", "none"), nil)); q.Get("error") != "login_required" {
			t.Errorf("%v", q)
		}
		must = account.PhishingResistant
		if res, _ := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); res.StatusCode != http.StatusBadRequest {
			t.Error("a log-in from before the policy gets new tokens: " + res.Status)
		}
	})
	t.Run("the client asks for more than was proved", func(t *testing.T) {
		w := newWorld(t, func(c *provider.Config, _ *provider.Deps) { c.Clients[0].Strength = account.PhishingResistant })
		if res := w.browse(t, "GET", with(), nil); res.StatusCode != http.StatusUnauthorized || w.need.Strength != account.PhishingResistant {
			t.Errorf("%s, %+v", res.Status, w.need)
		}
		w.identity.Methods = []string{account.Passkey}
		if q := answer(t, w.browse(t, "GET", with(), nil)); q.Get("code") == "" {
			t.Errorf("%v", q)
		}
	})
}

func TestWayBack(t *testing.T) {
	t.Run("who only comes back has not logged in", func(t *testing.T) {
		w := newWorld(t)
		w.now = w.now.Add(time.Hour)
		w.browse(t, "GET", with("prompt", "login"), nil)
		if res := w.browse(t, "GET", w.need.ReturnTo, nil); res.StatusCode != http.StatusUnauthorized {
			t.Error(res.Status)
		}
	})
	t.Run("an old way back is none", func(t *testing.T) {
		w := newWorld(t)
		w.browse(t, "GET", with("prompt", "login", "max_age", "0"), nil)
		w.now = w.now.Add(11 * time.Minute)
		if res := w.browse(t, "GET", w.need.ReturnTo, nil); res.StatusCode != http.StatusUnauthorized {
			t.Error(res.Status)
		}
	})
}

func TestConsent(t *testing.T) {
	w := newWorld(t)
	path := func(scope string, more ...string) string {
		q := request("shop", "https://shop.example/callback", scope)
		for i := 0; i < len(more); i += 2 {
			q.Set(more[i], more[i+1])
		}
		return provider.Authorize + "?" + q.Encode()
	}
	asked := func(path string) bool {
		t.Helper()
		w.ask = provider.Ask{}
		res := w.browse(t, "GET", path, nil)
		if w.ask.Ticket == "" && answer(t, res).Get("code") == "" {
			t.Fatalf("%s without a code", res.Status)
		}
		return w.ask.Ticket != ""
	}
	if q := answer(t, w.browse(t, "GET", path("openid", "prompt", "none"), nil)); q.Get("error") != "consent_required" {
		t.Errorf("%v", q)
	}
	if !asked(path("openid email")) || !slices.Equal(w.ask.Scopes, []string{"email", "openid"}) || w.ask.Client != "shop" || w.ask.Host != "shop.example" || w.ask.Action != provider.Authorize {
		t.Fatalf("%+v", w.ask)
	}
	ticket := w.ask.Ticket
	send := func(ticket, yes string) *http.Response {
		return w.browse(t, "POST", provider.Authorize, url.Values{"ticket": {ticket}, "answer": {yes}})
	}
	for name, refused := range map[string]func() *http.Response{
		"no ticket":       func() *http.Response { return send("", "allow") },
		"a forged ticket": func() *http.Response { return send(ticket[:len(ticket)-2]+"AA", "allow") },
		"CSRF: a ticket of another session": func() *http.Response {
			defer w.logIn()
			w.identity.Session = "s2"
			return send(ticket, "allow")
		},
		"CSRF: a ticket of another person": func() *http.Response {
			defer w.logIn()
			w.identity.Subject = "BOB"
			return send(ticket, "allow")
		},
		"nobody signed in": func() *http.Response {
			defer w.logIn()
			w.identity = nil
			return send(ticket, "allow")
		},
	} {
		if res := refused(); res.StatusCode != http.StatusBadRequest || res.Header.Get("Reason") != string(provider.StaleForm) {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
	if q := answer(t, send(ticket, "")); q.Get("error") != "access_denied" || q.Get("state") != "st&te" {
		t.Errorf("%v", q)
	}
	if !asked(path("openid email")) {
		t.Error("not asked again after a no")
	}
	if q := answer(t, send(w.ask.Ticket, "allow")); q.Get("code") == "" {
		t.Errorf("%v", q)
	}
	if asked(path("email openid")) || asked(path("openid")) {
		t.Error("asked twice")
	}
	if !asked(path("openid groups")) {
		t.Error("not asked for more")
	}
	answer(t, send(w.ask.Ticket, "allow"))
	if asked(path("openid groups email")) {
		t.Error("what was allowed before is forgotten")
	}
	if !asked(path("openid", "prompt", "consent")) {
		t.Error("not asked although the application wants it")
	}
	w.now = w.now.Add(10 * time.Minute)
	if res := send(w.ask.Ticket, "allow"); res.StatusCode != http.StatusBadRequest {
		t.Error("a page of ten minutes ago: " + res.Status)
	}

	w.logIn()
	q := answer(t, w.browse(t, "GET", path("openid"), nil))
	form := exchange(q.Get("code"))
	form.Set("redirect_uri", "https://shop.example/callback")
	_, v := w.post(t, provider.Token, "shop", secretShop, form)
	cs, err := w.Consents(t.Context(), "ANN")
	if err != nil || len(cs) != 1 || cs[0].Client != "shop" || !slices.Equal(cs[0].Scopes, []string{"email", "groups", "openid"}) {
		t.Errorf("%v, %v", cs, err)
	}
	if err := w.TakeBack(t.Context(), "ANN", "shop"); err != nil {
		t.Fatal(err)
	}
	if res, _ := w.post(t, provider.Token, "shop", secretShop, refresh(v)); res.StatusCode != http.StatusBadRequest {
		t.Error("the refresh token works after the consent was taken back")
	}
	if !asked(path("openid")) {
		t.Error("not asked after it was taken back")
	}
}

func TestLogOut(t *testing.T) {
	for _, c := range []struct {
		name   string
		query  func(hint string) url.Values
		do     func(*world)
		want   int // 303: logged out and sent on; 200 and a ticket: asked
		to     string
		reason merlon.Reason
	}{
		{name: "by a token of this session", query: func(h string) url.Values {
			return url.Values{"id_token_hint": {h}, "post_logout_redirect_uri": {"https://wiki.example/bye"}, "state": {"x&y"}}
		}, want: 303, to: "https://wiki.example/bye?state=x%26y"},
		{name: "by an expired one", query: func(h string) url.Values {
			return url.Values{"id_token_hint": {h}, "post_logout_redirect_uri": {"https://wiki.example/bye"}}
		}, do: func(w *world) { w.now = w.now.Add(time.Hour) }, want: 303, to: "https://wiki.example/bye"},
		{name: "by a token of another session", query: func(h string) url.Values { return url.Values{"id_token_hint": {h}} },
			do: func(w *world) { w.identity.Session = "s2" }, want: 200},
		{name: "by nothing", query: func(string) url.Values { return url.Values{} }, want: 200},
		{name: "by a name", query: func(string) url.Values {
			return url.Values{"client_id": {"wiki"}, "post_logout_redirect_uri": {"https://wiki.example/bye"}}
		}, want: 200},
		{name: "trap 57: an unregistered address", query: func(h string) url.Values {
			return url.Values{"id_token_hint": {h}, "post_logout_redirect_uri": {"https://wiki.example/bye2"}}
		}, want: 400, reason: provider.RedirectMismatch},
		{name: "trap 57: an address without a client", query: func(string) url.Values {
			return url.Values{"post_logout_redirect_uri": {"https://wiki.example/bye"}}
		}, want: 400, reason: provider.RedirectMismatch},
		{name: "another client's name", query: func(h string) url.Values { return url.Values{"id_token_hint": {h}, "client_id": {"shop"}} },
			want: 400, reason: provider.UnknownClient},
		{name: "by a forged token", query: func(h string) url.Values {
			return url.Values{"id_token_hint": {h[:len(h)-8] + "AAAAAAAA"}, "post_logout_redirect_uri": {"https://wiki.example/bye"}}
		}, want: 200},
		{name: "by a forged token and a name", query: func(h string) url.Values {
			return url.Values{"id_token_hint": {h[:len(h)-8] + "AAAAAAAA"}, "client_id": {"wiki"}, "post_logout_redirect_uri": {"https://wiki.example/bye"}}
		}, want: 200},
		{name: "an unknown name", query: func(string) url.Values { return url.Values{"client_id": {"nobody"}} }, want: 400, reason: provider.UnknownClient},
		{name: "twice a token", query: func(h string) url.Values { return url.Values{"id_token_hint": {h, h}} }, want: 400, reason: provider.BadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			v := w.tokens(t, "openid")
			if c.do != nil {
				c.do(w)
			}
			res := w.browse(t, "GET", provider.EndSession+"?"+c.query(fmt.Sprint(v["id_token"])).Encode(), nil)
			if res.StatusCode != c.want || res.Header.Get("Location") != c.to || res.Header.Get("Reason") != string(c.reason) {
				t.Fatalf("%s to %q, %q", res.Status, res.Header.Get("Location"), res.Header.Get("Reason"))
			}
			if c.want != 200 {
				if w.ended != map[bool]int{true: 1}[c.want == 303] {
					t.Errorf("ended %d sessions", w.ended)
				}
				return
			}
			if w.ended != 0 || w.ask.Ticket == "" {
				t.Fatal("not asked")
			}
			ticket := w.ask.Ticket
			w.browse(t, "POST", provider.EndSession, url.Values{"ticket": {ticket}, "answer": {"deny"}})
			if w.ended != 0 {
				t.Error("ended by a no")
			}
			w.browse(t, "POST", provider.EndSession, url.Values{"ticket": {ticket}, "answer": {"allow"}})
			if w.ended != 1 {
				t.Error("not ended by a yes")
			}
		})
	}
	t.Run("by a form of another site", func(t *testing.T) {
		w := newWorld(t)
		v := w.tokens(t, "openid")
		res := w.browse(t, "POST", provider.EndSession, url.Values{"id_token_hint": {fmt.Sprint(v["id_token"])}})
		if res.StatusCode != http.StatusSeeOther || w.ended != 0 {
			t.Fatalf("%s", res.Status)
		}
		w.browse(t, "GET", res.Header.Get("Location"), nil)
		if w.ended != 1 {
			t.Error("not ended")
		}
		if res, _ := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); res.StatusCode != http.StatusBadRequest {
			t.Error("the refresh token works after the log-out")
		}
	})
}

func TestBackchannelLogout(t *testing.T) {
	var mu sync.Mutex
	var got []string
	tries, status := 0, http.StatusOK
	app := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		tries++
		if r.Method == "POST" && r.URL.Path == "/out" {
			got = append(got, r.PostFormValue("logout_token"))
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}))
	defer app.Close()
	var failed []string
	w := newWorld(t, func(c *provider.Config, d *provider.Deps) {
		c.Clients[0].BackchannelLogout = app.URL + "/out"
		d.HTTP = app.Client()
		d.Failed = func(client string, err error) {
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, client+": "+err.Error())
		}
	})
	w.tokens(t, "openid")
	w.tokens(t, "openid offline_access") // of the same session
	w.identity.Session = "s2"
	w.tokens(t, "openid")
	out(t, w, "s1")
	if err := w.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 {
		t.Fatalf("told %d times", len(got))
	}
	c, err := signer{rsaKey()}.Verify(t.Context(), got[0], "logout+jwt")
	if err != nil {
		t.Fatal(err)
	}
	events, _ := c["events"].(map[string]any)
	if _, ok := events["http://schemas.openid.net/event/backchannel-logout"]; !ok || c["iss"] != w.issuer || c["aud"] != "wiki" || c["sub"] != "ANN" || c["sid"] == "" || c["jti"] == "" || c["nonce"] != nil {
		t.Errorf("%v", c)
	}
	mu.Lock()
	tries, status, got = 0, http.StatusTemporaryRedirect, nil
	mu.Unlock()
	out(t, w, "")
	if err := w.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The offline grant of s1 is told of again, now that it ended too.
	if tries != 6 || len(failed) != 2 || !strings.HasPrefix(failed[0], "wiki: answered 307") {
		t.Errorf("RFC 9700, 4.12: a redirect: %d tries, %q", tries, failed)
	}
}
