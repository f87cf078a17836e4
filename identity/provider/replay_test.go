package provider_test

import (
	"context"
	"errors"
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
	"github.com/merlon-dev/merlon/identity/provider"
)

func TestTrap57CodeReplay(t *testing.T) {
	w := newWorld(t)
	code := w.code(t, "openid")
	_, v := w.post(t, provider.Token, "wiki", secretWiki, exchange(code))
	_, v2 := w.post(t, provider.Token, "wiki", secretWiki, refresh(v))
	if !w.holds(t, v) || !w.holds(t, v2) {
		t.Fatal("tokens do not hold")
	}
	if res, e := w.post(t, provider.Token, "wiki", secretWiki, exchange(code)); res.StatusCode != http.StatusBadRequest || e["error"] != "invalid_grant" {
		t.Errorf("replayed: %s: %v", res.Status, e)
	}
	if w.holds(t, v) || w.holds(t, v2) {
		t.Error("access tokens hold after the code was replayed")
	}
	if res, _ := w.post(t, provider.Token, "wiki", secretWiki, refresh(v2)); res.StatusCode != http.StatusBadRequest {
		t.Error("the refresh token works after the code was replayed")
	}
}

// A code that comes again while its first exchange is under way ends that too.
func TestTrap57CodeReplayMeanwhile(t *testing.T) {
	for client, c := range map[string]struct{ redirect, secret string }{
		"plain": {"https://plain.example/", "plain-secret-0123456789-abcdef"}, "wiki": {callback, secretWiki},
	} {
		w := newWorld(t)
		q := answer(t, w.browse(t, "GET", provider.Authorize+"?"+request(client, c.redirect, "openid").Encode(), nil))
		form := exchange(q.Get("code"))
		form.Set("redirect_uri", c.redirect)
		w.users.asked = func() {
			w.users.asked = nil
			gs, err := w.store.Grants(t.Context(), "ANN", w.now)
			if err != nil || len(gs) != 1 {
				t.Fatal(gs, err)
			}
			if err := w.store.EndGrant(t.Context(), gs[0].ID); err != nil {
				t.Fatal(err)
			}
		}
		if res, v := w.post(t, provider.Token, client, c.secret, form); res.StatusCode != http.StatusBadRequest || v["error"] != "invalid_grant" {
			t.Errorf("%s: %s: %v", client, res.Status, v)
		}
	}
}

// Of many that come at once with one code or refresh token at most one gets
// anything, and whatever it got has ended.
func TestTrap57Race(t *testing.T) {
	race := func(t *testing.T, w *world, form url.Values) (won []map[string]any) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if res, v := w.post(t, provider.Token, "wiki", secretWiki, form); res.StatusCode == http.StatusOK {
					mu.Lock()
					won = append(won, v)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return won
	}
	for range 5 {
		w := newWorld(t)
		won := race(t, w, exchange(w.code(t, "openid")))
		won = append(won, race(t, w, refresh(w.tokens(t, "openid")))...)
		if len(won) > 2 {
			t.Errorf("%d got tokens", len(won))
		}
		for _, v := range won {
			if w.holds(t, v) {
				t.Error("the winner's token holds although the code was replayed")
			}
			if res, _ := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); res.StatusCode == http.StatusOK {
				t.Error("the winner's refresh token works")
			}
		}
	}
}

func TestRefresh(t *testing.T) {
	w := newWorld(t)
	v := w.tokens(t, "openid email")
	_, v2 := w.post(t, provider.Token, "wiki", secretWiki, refresh(v))
	if !w.holds(t, v2) || v2["refresh_token"] == v["refresh_token"] || v2["id_token"] == nil {
		t.Fatalf("%v", v2)
	}
	// Trap 56: reuse ends the family.
	if res, e := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); res.StatusCode != http.StatusBadRequest || e["error"] != "invalid_grant" {
		t.Errorf("reused: %s: %v", res.Status, e)
	}
	if w.holds(t, v2) {
		t.Error("the access token holds")
	}
	if res, _ := w.post(t, provider.Token, "wiki", secretWiki, refresh(v2)); res.StatusCode != http.StatusBadRequest {
		t.Error("trap 56: the successor works although the family ended")
	}

	narrow := refresh(w.tokens(t, "openid email"))
	narrow.Set("scope", "openid")
	_, v = w.post(t, provider.Token, "wiki", secretWiki, narrow)
	if v["scope"] != "openid" {
		t.Errorf("%v", v)
	}
	wide := refresh(v)
	wide.Set("scope", "openid groups")
	if _, e := w.post(t, provider.Token, "wiki", secretWiki, wide); e["error"] != "invalid_scope" {
		t.Errorf("%v", e)
	}
	if _, v := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); v["scope"] != "email openid" {
		t.Errorf("what was not asked for once is lost: %v", v)
	}
}

func TestRefreshRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		scope string
		do    func(*testing.T, *world)
		ok    bool
	}{
		{"offline, after 6 days", "openid offline_access", func(_ *testing.T, w *world) { w.now = w.now.Add(6 * 24 * time.Hour) }, true},
		{"offline, unused for 7 days", "openid offline_access", func(_ *testing.T, w *world) { w.now = w.now.Add(7 * 24 * time.Hour) }, false},
		{"not offline, the next morning", "openid", func(_ *testing.T, w *world) { w.now = w.now.Add(23 * time.Hour) }, true},
		{"not offline, a day later", "openid", func(_ *testing.T, w *world) { w.now = w.now.Add(24 * time.Hour) }, false},
		{"trap 56: after the log-out", "openid", func(t *testing.T, w *world) { out(t, w, "s1") }, false},
		{"offline, after the log-out", "openid offline_access", func(t *testing.T, w *world) { out(t, w, "s1") }, true},
		{"after another session's log-out", "openid", func(t *testing.T, w *world) { out(t, w, "s2") }, true},
		{"offline, after all were logged out", "openid offline_access", func(t *testing.T, w *world) { out(t, w, "") }, false},
		{"after the account was disabled", "openid", func(_ *testing.T, w *world) { w.users.gone = true }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			v := w.tokens(t, c.scope)
			c.do(t, w)
			if res, e := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); (res.StatusCode == http.StatusOK) != c.ok {
				t.Errorf("%s: %v", res.Status, e)
			}
		})
	}
	t.Run("absolute expiry beats sliding", func(t *testing.T) {
		w := newWorld(t)
		v := w.tokens(t, "openid offline_access")
		for day := 0; ; day += 6 {
			w.now = w.now.Add(6 * 24 * time.Hour)
			res, next := w.post(t, provider.Token, "wiki", secretWiki, refresh(v))
			if res.StatusCode != http.StatusOK {
				if day+6 != 30 {
					t.Errorf("ended after %d days", day+6)
				}
				break
			}
			v = next
		}
	})
	t.Run("trap 56: another client's", func(t *testing.T) {
		w := newWorld(t)
		v := w.tokens(t, "openid")
		if res, _ := w.post(t, provider.Token, "shop", secretShop, refresh(v)); res.StatusCode != http.StatusBadRequest {
			t.Error(res.Status)
		}
		if w.holds(t, v) {
			t.Error("holds although it was stolen")
		}
	})
	t.Run("trap 56: it is no access token", func(t *testing.T) {
		w := newWorld(t)
		v := w.tokens(t, "openid")
		if status := w.userInfo(t, "Bearer "+fmt.Sprint(v["refresh_token"])); status != http.StatusUnauthorized {
			t.Error(status)
		}
	})
}

func out(t *testing.T, w *world, session string) {
	t.Helper()
	if err := w.LoggedOut(t.Context(), "ANN", session); err != nil {
		t.Fatal(err)
	}
}

func (w *world) userInfo(t testing.TB, authorization ...string) int {
	t.Helper()
	req, err := http.NewRequest("GET", w.issuer+provider.UserInfo, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range authorization {
		req.Header.Add("Authorization", a)
	}
	res := w.do(t, req)
	if res.StatusCode == http.StatusUnauthorized && !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Bearer") {
		t.Error("no challenge")
	}
	return res.StatusCode
}

func FuzzRedirectURI(f *testing.F) {
	for _, s := range [][2]string{
		{callback, callback}, {"http://127.0.0.1/cb", "http://127.0.0.1:1/cb"}, {"http://[::1]:2/cb?a=b", "http://[::1]:3/cb?a=b"},
		{"http://127.0.0.1", "http://127.0.0.1:80@evil/"}, {"http://127.0.0.1/", "http://127.0.0.1.evil/"}, {"com.a.b:/c", "com.a.b:/c"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, registered, uri string) {
		if provider.BadRedirect(registered, true) != "" || !provider.SameRedirect(registered, uri) {
			return
		}
		r, err1 := url.Parse(registered)
		u, err2 := url.Parse(uri)
		if err1 != nil || err2 != nil {
			t.Fatalf("%q, %q: %v, %v", registered, uri, err1, err2)
		}
		if registered == uri {
			return
		}
		if u.Scheme != "http" || u.Hostname() != "127.0.0.1" && u.Hostname() != "::1" || u.User != nil || u.Fragment != "" {
			t.Errorf("%q is taken for %q", uri, registered)
		}
		r.Host, u.Host = r.Hostname(), u.Hostname()
		if *r != *u {
			t.Errorf("%q is taken for %q: more than the port differs", uri, registered)
		}
	})
}

func FuzzAuthorize(f *testing.F) {
	w := newWorld(f)
	f.Add(request("wiki", callback, "openid").Encode())
	f.Add(request("native", "http://127.0.0.1:99/cb", "openid").Encode())
	f.Add(request("wiki", callback, "openid").Encode() + "&prompt=none&merlon_after=1&max_age=0")
	handler := w.Handler()
	f.Fuzz(func(t *testing.T, query string) {
		hr := httptest.NewRequest("GET", w.issuer+provider.Authorize, nil)
		hr.URL.RawQuery = query
		r := merlon.NewRequest(hr)
		r.Identity = w.identity
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r.Request)
		to := rec.Header().Get("Location")
		if to == "" {
			return
		}
		u, err := url.Parse(to)
		if err != nil || rec.Code != http.StatusSeeOther {
			t.Fatalf("%d to %q, %v", rec.Code, to, err)
		}
		if !slices.Contains([]string{"wiki.example", "shop.example", "spa.example", "plain.example", "127.0.0.1", "::1", ""}, u.Hostname()) || u.Hostname() == "" && u.Scheme != "com.example.app" {
			t.Errorf("sent to %q", to)
		}
		if q := u.Query(); q.Get("iss") != w.issuer || (q.Get("code") == "") == (q.Get("error") == "") {
			t.Errorf("answer %v", q)
		}
	})
}

// trap 49, 56: whatever ended a session, nothing more is made of what was
// granted in it, and offline access only begins while it holds.
func TestGrantsEndWithTheirSession(t *testing.T) {
	for _, c := range []struct {
		scope string
		ok    bool
	}{{"openid", false}, {"openid offline_access", true}} {
		t.Run(c.scope, func(t *testing.T) {
			over, fail := false, error(nil)
			w := newWorld(t, func(_ *provider.Config, d *provider.Deps) {
				d.Holds = func(_ context.Context, subject, session string) (bool, error) {
					return subject == "ANN" && session != "" && !over, fail
				}
			})
			v := w.tokens(t, c.scope)
			fail = errors.New("the store is down")
			if !c.ok {
				if res, _ := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); res.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("while nobody can tell: %s", res.Status)
				}
			}
			fail = nil
			code := w.code(t, c.scope)
			over = true
			if res, _ := w.post(t, provider.Token, "wiki", secretWiki, exchange(code)); res.StatusCode != http.StatusBadRequest {
				t.Errorf("a code of a session that is over: %s", res.Status)
			}
			if res, e := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); (res.StatusCode == http.StatusOK) != c.ok {
				t.Errorf("%s: %v", res.Status, e)
			}
			over = false
			if res, _ := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); res.StatusCode == http.StatusOK {
				t.Error("what was refused, or used, is good again")
			}
		})
	}
}
