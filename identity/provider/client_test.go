package provider_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/provider"
)

func TestClientAuthentication(t *testing.T) {
	w := newWorld(t)
	own := func(pairs ...string) url.Values {
		q := url.Values{"grant_type": {"client_credentials"}}
		for i := 0; i < len(pairs); i += 2 {
			q.Set(pairs[i], pairs[i+1])
		}
		return q
	}
	const job = "job-secret-0123456789-abcdef"
	for _, c := range []struct {
		name, client, secret string
		form                 url.Values
		status               int
		err                  string
	}{
		{"in the header", "job", job, own(), 200, ""},
		{"in the form", "", "", own("client_id", "job", "client_secret", job), 200, ""},
		{"in the header, named in the form too", "job", job, own("client_id", "job"), 200, ""},
		{"in both", "job", job, own("client_secret", job), 400, "invalid_request"},
		{"in the header, another name in the form", "job", job, own("client_id", "wiki"), 400, "invalid_request"},
		{"wrong", "job", job + "x", own(), 401, "invalid_client"},
		{"empty", "job", "", own(), 401, "invalid_client"},
		{"none", "", "", own("client_id", "job"), 401, "invalid_client"},
		{"nobody", "", "", own(), 401, "invalid_client"},
		{"an unknown client", "nobody", job, own(), 401, "invalid_client"},
		{"an unknown client without a secret", "", "", own("client_id", "nobody"), 401, "invalid_client"},
		{"another client's", "job", secretWiki, own(), 401, "invalid_client"},
		{"a public client with a secret", "spa", "x", own(), 401, "invalid_client"},
		{"an assertion, which is not offered", "", "", own("client_id", "job", "client_assertion", "x"), 400, "invalid_request"},
		{"trap 57: the password grant", "wiki", secretWiki, url.Values{"grant_type": {"password"}, "username": {"ann"}, "password": {"x"}}, 400, "unsupported_grant_type"},
		{"no grant", "wiki", secretWiki, url.Values{}, 400, "unsupported_grant_type"},
		{"a grant that is not the client's", "wiki", secretWiki, own(), 400, "unauthorized_client"},
		{"a public client for itself", "", "", own("client_id", "spa"), 400, "unauthorized_client"},
		{"a scope that is not the client's", "job", job, own("scope", "admin"), 400, "invalid_scope"},
		{"a scope about people", "job", job, own("scope", "openid"), 400, "invalid_scope"},
		{"a parameter twice", "job", job, url.Values{"grant_type": {"client_credentials"}, "scope": {"api", "api"}}, 400, "invalid_request"},
	} {
		res, v := w.post(t, provider.Token, c.client, c.secret, c.form)
		if e, _ := v["error"].(string); res.StatusCode != c.status || e != c.err {
			t.Errorf("%s: %s: %v", c.name, res.Status, v)
		}
		if res.StatusCode == 401 && res.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no challenge", c.name)
		}
	}
	_, v := w.post(t, provider.Token, "job", job, own())
	claims, err := signer{rsaKey()}.Verify(t.Context(), fmt.Sprint(v["access_token"]), "at+jwt")
	if err != nil || claims["sub"] != "client:job" || claims["scope"] != "api" || v["refresh_token"] != nil || v["id_token"] != nil {
		t.Errorf("%v, %v, %v", v, claims, err)
	}
	if status := w.userInfo(t, "Bearer "+fmt.Sprint(v["access_token"])); status != http.StatusForbidden {
		t.Errorf("user info for a program: %d", status)
	}

	// What stands in the URL, and in logs, does not count; nor does JSON.
	req, err := http.NewRequest("POST", w.issuer+provider.Token+"?"+own("client_id", "job", "client_secret", job).Encode(), strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if res := w.do(t, req); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a secret in the URL: %s", res.Status)
	}
	req, err = http.NewRequest("POST", w.issuer+provider.Token, strings.NewReader(`{"grant_type":"client_credentials"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth("job", job)
	if res := w.do(t, req); res.StatusCode != http.StatusBadRequest {
		t.Errorf("JSON: %s", res.Status)
	}
	if res := w.browse(t, "GET", provider.Token+"?"+exchange("x").Encode(), nil); res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %s", res.Status)
	}
}

// throttle lets nobody try a third time.
type throttle struct {
	tries map[string]int
	ok    []bool
}

func (h *throttle) Allow(_ context.Context, client string, _ netip.Addr) bool {
	h.tries[client]++
	return h.tries[client] < 3
}

func (h *throttle) Tried(_ context.Context, _ string, _ netip.Addr, ok bool) { h.ok = append(h.ok, ok) }

func TestThrottle(t *testing.T) {
	h := &throttle{tries: make(map[string]int)}
	w := newWorld(t, func(_ *provider.Config, d *provider.Deps) { d.Throttle = h })
	var got []int
	for _, secret := range []string{"wrong", "job-secret-0123456789-abcdef", "job-secret-0123456789-abcdef"} {
		res, _ := w.post(t, provider.Token, "job", secret, url.Values{"grant_type": {"client_credentials"}})
		got = append(got, res.StatusCode)
	}
	if !slices.Equal(got, []int{401, 200, 429}) || !slices.Equal(h.ok, []bool{false, true}) {
		t.Errorf("%v, %v", got, h.ok)
	}
}

func TestIntrospectAndRevoke(t *testing.T) {
	w := newWorld(t)
	v := w.tokens(t, "openid api")
	access, rt := fmt.Sprint(v["access_token"]), fmt.Sprint(v["refresh_token"])
	const api = "api-secret-0123456789-abcdef"
	ask := func(client, secret, token string) map[string]any {
		t.Helper()
		_, a := w.post(t, provider.Introspect, client, secret, url.Values{"token": {token}})
		return a
	}
	for _, c := range []struct {
		name, client, secret, token string
		want                        bool
	}{
		{"its own access token", "wiki", secretWiki, access, true},
		{"its own refresh token", "wiki", secretWiki, rt, true},
		{"another's access token, as it may", "api", api, access, true},
		{"another's refresh token", "api", api, rt, false},
		{"another's access token, as it may not", "shop", secretShop, access, false},
		{"trap 53: an ID token", "wiki", secretWiki, fmt.Sprint(v["id_token"]), false},
		{"nonsense", "wiki", secretWiki, "x.y.z", false},
		{"nothing", "wiki", secretWiki, "", false},
	} {
		a := ask(c.client, c.secret, c.token)
		if a["active"] != c.want || !c.want && len(a) != 1 || a["grant"] != nil {
			t.Errorf("%s: %v", c.name, a)
		}
	}
	if a := ask("wiki", secretWiki, access); a["sub"] != "ANN" || a["scope"] != "api openid" || a["client_id"] != "wiki" {
		t.Errorf("%v", a)
	}
	if res, _ := w.post(t, provider.Introspect, "", "", url.Values{"token": {access}, "client_id": {"spa"}}); res.StatusCode != http.StatusForbidden {
		t.Errorf("a public client asks: %s", res.Status)
	}
	claims, err := signer{rsaKey()}.Verify(t.Context(), access, "at+jwt")
	if err != nil {
		t.Fatal(err)
	}
	if ended, err := w.Ended(t.Context(), claims); ended || err != nil {
		t.Errorf("ended %v, %v", ended, err)
	}

	if res, e := w.post(t, provider.Revoke, "shop", secretShop, url.Values{"token": {rt}}); res.StatusCode != http.StatusBadRequest || !w.holds(t, v) {
		t.Errorf("another client revokes: %s, %v", res.Status, e)
	}
	if res, _ := w.post(t, provider.Revoke, "wiki", secretWiki, url.Values{"token": {"x"}}); res.StatusCode != http.StatusOK {
		t.Errorf("nonsense: %s", res.Status)
	}
	for _, token := range []string{"access_token", "refresh_token"} {
		v := w.tokens(t, "openid")
		if res, _ := w.post(t, provider.Revoke, "wiki", secretWiki, url.Values{"token": {fmt.Sprint(v[token])}}); res.StatusCode != http.StatusOK {
			t.Error(res.Status)
		}
		if w.holds(t, v) || w.userInfo(t, "Bearer "+fmt.Sprint(v["access_token"])) != http.StatusUnauthorized {
			t.Errorf("%s revoked: the access token holds", token)
		}
		if res, _ := w.post(t, provider.Token, "wiki", secretWiki, refresh(v)); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s revoked: the refresh token works", token)
		}
	}
}

func TestUserInfo(t *testing.T) {
	w := newWorld(t)
	v := w.tokens(t, "openid email")
	bearer := "Bearer " + fmt.Sprint(v["access_token"])
	for _, c := range []struct {
		name  string
		field []string
		want  int
	}{
		{"as it should be", []string{bearer}, 200},
		{"lower case", []string{"bearer" + bearer[6:]}, 200},
		{"none", nil, 401},
		{"two", []string{bearer, bearer}, 401},
		{"Basic", []string{"Basic d2lraTp4"}, 401},
		{"trap 53: an ID token", []string{"Bearer " + fmt.Sprint(v["id_token"])}, 401},
		{"cut", []string{bearer[:len(bearer)-3]}, 401},
		{"without openid", []string{"Bearer " + fmt.Sprint(w.tokens(t, "api")["access_token"])}, 403},
	} {
		if got := w.userInfo(t, c.field...); got != c.want {
			t.Errorf("%s: %d", c.name, got)
		}
	}
	if res := w.browse(t, "GET", provider.UserInfo+"?access_token="+bearer[7:], nil); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("trap 54: in the URL: %s", res.Status)
	}
	w.users.gone = true
	if got := w.userInfo(t, bearer); got != 401 {
		t.Errorf("the account is gone: %d", got)
	}
}

func TestPublicClients(t *testing.T) {
	w := newWorld(t)
	q := answer(t, w.browse(t, "GET", provider.Authorize+"?"+request("spa", "https://spa.example/", "openid").Encode(), nil))
	form := exchange(q.Get("code"))
	form.Set("redirect_uri", "https://spa.example/")
	form.Set("client_id", "spa")
	res, v := w.post(t, provider.Token, "", "", form)
	if res.StatusCode != 200 || v["refresh_token"] == nil {
		t.Fatalf("%s %v", res.Status, v)
	}
	for _, c := range []struct{ origin, want string }{
		{"https://spa.example", "https://spa.example"}, {"https://evil.example", ""}, {"https://wiki.example", ""},
		{"null", ""}, {"https://spa.example.evil.example", ""}, {"", ""},
	} {
		for _, method := range []string{"OPTIONS", "POST"} {
			req, err := http.NewRequest(method, w.issuer+provider.Token, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Origin", c.origin)
			res := w.do(t, req)
			if got := res.Header.Get("Access-Control-Allow-Origin"); got != c.want || res.Header.Get("Access-Control-Allow-Credentials") != "" || res.Header.Get("Vary") != "Origin" {
				t.Errorf("%s from %q: %q", method, c.origin, got)
			}
		}
	}
	req, err := http.NewRequest("GET", w.issuer+with(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "https://spa.example")
	if res := w.do(t, req); res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("pages may read the authorization endpoint")
	}
}

func TestMetadata(t *testing.T) {
	w := newWorld(t)
	req, err := http.NewRequest("GET", w.issuer+provider.Metadata, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "shop.example"
	if res := w.do(t, req); res.StatusCode != http.StatusNotFound {
		t.Errorf("on another host: %s", res.Status)
	}
	for _, path := range []string{provider.Metadata, provider.OAuthMetadata} {
		var m map[string]any
		res := w.browse(t, "GET", path, nil)
		if err := json.NewDecoder(res.Body).Decode(&m); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"issuer": w.issuer, "code_challenge_methods_supported": "[S256]", "response_types_supported": "[code]",
			"authorization_response_iss_parameter_supported": "true", "id_token_signing_alg_values_supported": "[RS256]",
			"grant_types_supported": "[authorization_code refresh_token client_credentials]", "jwks_uri": w.issuer + "/.merlon/jwks.json",
		} {
			if got := fmt.Sprint(m[name]); got != want {
				t.Errorf("%s: %s is %s", path, name, got)
			}
		}
		if res.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Error("pages may not read it")
		}
	}
}

// broken is a store that cannot tell any longer.
type broken struct {
	provider.Store
	full bool
}

var errFull = errors.New("the disk is full")

func (b *broken) Grant(ctx context.Context, id string, now time.Time) (provider.Grant, error) {
	if b.full {
		return provider.Grant{}, errFull
	}
	return b.Store.Grant(ctx, id, now)
}

func (b *broken) TakeCode(ctx context.Context, hash []byte) (provider.Code, error) {
	if b.full {
		return provider.Code{}, errFull
	}
	return b.Store.TakeCode(ctx, hash)
}

func (b *broken) Consents(ctx context.Context, subject string) ([]provider.Consent, error) {
	if b.full {
		return nil, errFull
	}
	return b.Store.Consents(ctx, subject)
}

func TestBrokenStoreLetsNobodyIn(t *testing.T) {
	s := &broken{}
	b := newWorld(t, func(_ *provider.Config, d *provider.Deps) { s.Store, d.Store = d.Store, s })
	v := b.tokens(t, "openid")
	s.full = true
	res, e := b.post(t, provider.Token, "wiki", secretWiki, exchange("x"))
	if res.StatusCode != http.StatusServiceUnavailable || strings.Contains(fmt.Sprint(e), "disk") {
		t.Errorf("%s %v", res.Status, e)
	}
	if res, e = b.post(t, provider.Introspect, "wiki", secretWiki, url.Values{"token": {fmt.Sprint(v["access_token"])}}); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%s %v", res.Status, e)
	}
	if got := b.userInfo(t, "Bearer "+fmt.Sprint(v["access_token"])); got != http.StatusServiceUnavailable {
		t.Error(got)
	}
	q := answer(t, b.browse(t, "GET", provider.Authorize+"?"+request("shop", "https://shop.example/callback", "openid").Encode(), nil))
	if q.Get("error") != "server_error" {
		t.Errorf("%v", q)
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(*provider.Config)
	}{
		{`issuer "http://a.example": must be https://`, func(c *provider.Config) { c.Issuer = "http://a.example" }},
		{`issuer "https://a.example/": must be https://`, func(c *provider.Config) { c.Issuer = "https://a.example/" }},
		{`issuer: must be https://`, func(c *provider.Config) { c.Issuer = "" }},
		{`access "20m0s": must be from 1m0s to 15m0s`, func(c *provider.Config) { c.Access = 20 * time.Minute }},
		{`refresh "1m0s": must be from 1h0m0s`, func(c *provider.Config) { c.Refresh = time.Minute }},
		{`clients[1].id "wiki": another client has it`, func(c *provider.Config) { c.Clients[1].ID = "wiki" }},
		{`clients[0].id "a b": must be 1 to 100 letters`, func(c *provider.Config) { c.Clients[0].ID = "a b" }},
		{`clients[0].secret "env:MERLON_UNSET": env:MERLON_UNSET is empty or not set`, func(c *provider.Config) { c.Clients[0].Secret = "env:MERLON_UNSET" }},
		{`clients[2].secret: a public client has none`, func(c *provider.Config) { c.Clients[2].Secret = c.Clients[0].Secret }},
		{`clients[0].redirect: must be set`, func(c *provider.Config) { c.Clients[0].Redirect = nil }},
		{`clients[0].redirect[0] "https://*.example/": must be an address without placeholders`, func(c *provider.Config) { c.Clients[0].Redirect = []string{"https://*.example/"} }},
		{`clients[0].redirect[0] "http://wiki.example/": must be https`, func(c *provider.Config) { c.Clients[0].Redirect = []string{"http://wiki.example/"} }},
		{`clients[0].redirect[0] "https://wiki.example/#a": must not have a fragment`, func(c *provider.Config) { c.Clients[0].Redirect = []string{"https://wiki.example/#a"} }},
		{`clients[0].redirect[0] "com.example.app:/cb": must be https`, func(c *provider.Config) { c.Clients[0].Redirect = []string{"com.example.app:/cb"} }},
		{`clients[2].redirect[0] "javascript:alert(1)": must be https`, func(c *provider.Config) { c.Clients[2].Redirect = []string{"javascript:alert(1)"} }},
		{`clients[0].grants[0] "password": must be authorization_code`, func(c *provider.Config) { c.Clients[0].Grants = []string{"password"} }},
		{`clients[2].grants "client_credentials": needs a secret`, func(c *provider.Config) { c.Clients[2].Grants = []string{"authorization_code", "client_credentials"} }},
		{`clients[0].scopes[0] "a b": must be 1 to 100 printable`, func(c *provider.Config) { c.Clients[0].Scopes = []string{"a b"} }},
		{`clients[0].logout[0] "//evil": must be an address`, func(c *provider.Config) { c.Clients[0].Logout = []string{"//evil"} }},
		{`clients[0].backchannel_logout "http://a.example/": must be https`, func(c *provider.Config) { c.Clients[0].BackchannelLogout = "http://a.example/" }},
	} {
		conf := config(t, "https://login.example.com")
		c.change(&conf)
		w := &world{}
		_, err := provider.New(conf, provider.Deps{Store: provider.NewMemory(), Signer: signer{rsaKey()}, JWKS: "/j", Users: &users{}, Pages: pages{w}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %s, got %v", c.want, err)
		}
	}
	if _, err := provider.New(provider.Config{}, provider.Deps{}); err == nil {
		t.Error("works with nothing")
	}
	if _, err := provider.New(provider.Config{}, provider.Deps{Store: provider.NewMemory(), Signer: signer{rsaKey()}, JWKS: "/j", Users: &users{}, Pages: pages{}}); err != nil {
		t.Errorf("the zero Config: %v", err)
	}
}

// oneStore is a store of accounts with one in it.
type oneStore struct {
	account.Store
	acc account.Account
}

func (o oneStore) Account(_ context.Context, id string) (account.Account, error) {
	if id != o.acc.ID {
		return account.Account{}, account.ErrNotFound
	}
	return o.acc, nil
}

func TestAccounts(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	acc := account.Account{ID: "ANN", Name: "ann", ValidFrom: since, Groups: []string{"dev"}}
	for _, c := range []struct {
		name, id string
		disabled bool
		at       time.Time
		want     error
	}{
		{"ann", "ANN", false, since, nil},
		{"logged in before everything ended", "ANN", false, since.Add(-time.Second), provider.ErrNotFound},
		{"disabled", "ANN", true, since, provider.ErrNotFound},
		{"nobody", "BOB", false, since, provider.ErrNotFound},
	} {
		acc.Disabled = c.disabled
		u, err := provider.Accounts(oneStore{acc: acc}).User(t.Context(), c.id, c.at)
		if !errors.Is(err, c.want) || err == nil && (u.Name != "ann" || !slices.Equal(u.Groups, acc.Groups)) {
			t.Errorf("%s: %+v, %v", c.name, u, err)
		}
	}
}
