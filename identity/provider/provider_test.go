package provider_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/merlon-dev/merlon/identity/provider"
)

// TestRoundTrip is an application made of go-oidc and x/oauth2.
func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	ctx := oidc.ClientContext(t.Context(), w.srv.Client())
	op, err := oidc.NewProvider(ctx, w.issuer)
	if err != nil {
		t.Fatal(err)
	}
	conf := oauth2.Config{ClientID: "wiki", ClientSecret: secretWiki, RedirectURL: callback, Endpoint: op.Endpoint(), Scopes: []string{"openid", "profile", "email", "groups", "offline_access"}}
	v := oauth2.GenerateVerifier()
	u, err := url.Parse(conf.AuthCodeURL("s", oidc.Nonce("n"), oauth2.S256ChallengeOption(v)))
	if err != nil {
		t.Fatal(err)
	}
	q := answer(t, w.browse(t, "GET", u.RequestURI(), nil))
	tok, err := conf.Exchange(ctx, q.Get("code"), oauth2.VerifierOption(v))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := tok.Extra("id_token").(string)
	id, err := op.Verifier(&oidc.Config{ClientID: "wiki"}).Verify(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.VerifyAccessToken(tok.AccessToken); err != nil || id.AccessTokenHash == "" {
		t.Errorf("at_hash: %v", err)
	}
	var claims struct {
		Nonce, Azp, Sid, Acr, Email string
		Amr, Groups                 []string
		AuthTime                    int64  `json:"auth_time"`
		Verified                    bool   `json:"email_verified"`
		User                        string `json:"preferred_username"`
	}
	if err := id.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	if claims.Nonce != "n" || claims.Azp != "wiki" || claims.Sid == "" || claims.Sid == "s1" || claims.Acr != "multi-factor" || claims.AuthTime != w.now.Unix() ||
		!slices.Equal(claims.Amr, []string{"mfa", "otp", "pwd"}) || !slices.Equal(claims.Groups, []string{"dev"}) || claims.User != "ann" || claims.Email != "ann@example.com" || !claims.Verified {
		t.Errorf("%+v", claims)
	}
	info, err := op.UserInfo(ctx, oauth2.StaticTokenSource(tok))
	if err != nil || info.Subject != "ANN" || info.Email != "ann@example.com" || !info.EmailVerified {
		t.Errorf("user info %+v, %v", info, err)
	}
	tok.Expiry = time.Now().Add(-time.Hour)
	next, err := conf.TokenSource(ctx, tok).Token()
	if err != nil || next.AccessToken == tok.AccessToken || next.RefreshToken == tok.RefreshToken || next.RefreshToken == "" {
		t.Errorf("refreshed: %v", err)
	}
}

func TestAccessToken(t *testing.T) {
	w := newWorld(t)
	v := w.tokens(t, "openid groups api")
	c, err := signer{rsaKey()}.Verify(t.Context(), fmt.Sprint(v["access_token"]), "at+jwt")
	if err != nil {
		t.Fatal(err)
	}
	if c["iss"] != w.issuer || c["sub"] != "ANN" || c["client_id"] != "wiki" || c["scope"] != "api groups openid" || c["jti"] == "" ||
		fmt.Sprint(c["aud"]) != "["+w.issuer+provider.UserInfo+"]" || c["exp"].(float64)-c["iat"].(float64) != 300 || fmt.Sprint(c["groups"]) != "[dev]" || c["roles"] != nil {
		t.Errorf("%v", c)
	}
	if v["token_type"] != "Bearer" || v["expires_in"] != 300.0 {
		t.Errorf("%v", v)
	}
	w.now = w.now.Add(5 * time.Minute)
	if w.holds(t, v) {
		t.Error("holds longer than it says")
	}
}

// Trap 57: what must not get a code is told to the person, not sent on.
func TestRedirectURI(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, client, uri string
		ok                bool
	}{
		{"the registered one", "wiki", callback, true},
		{"another registered one, with a query", "wiki", "https://wiki.example/cb?x=1", true},
		{"none", "wiki", "", false},
		{"trap 57: a prefix", "wiki", "https://wiki.example/call", false},
		{"trap 57: something after it", "wiki", callback + "/evil", false},
		{"trap 57: a slash after it", "wiki", callback + "/", false},
		{"trap 57: dots", "wiki", "https://wiki.example/callback/../evil", false},
		{"trap 57: dots that lead back", "wiki", "https://wiki.example/x/../callback", false},
		{"trap 57: encoded dots", "wiki", "https://wiki.example/callback/%2e%2e/evil", false},
		{"trap 57: a port", "wiki", "https://wiki.example:443/callback", false},
		{"trap 57: a fragment", "wiki", callback + "#x", false},
		{"trap 57: a parameter", "wiki", callback + "?a=b", false},
		{"trap 57: another value of its parameter", "wiki", "https://wiki.example/cb?x=2", false},
		{"trap 57: one more parameter", "wiki", "https://wiki.example/cb?x=1&y=2", false},
		{"upper case", "wiki", "https://WIKI.example/callback", false},
		{"http", "wiki", "http://wiki.example/callback", false},
		{"a user", "wiki", "https://wiki.example@evil.example/callback", false},
		{"a backslash", "wiki", `https://evil.example\wiki.example/callback`, false},
		{"a sub-domain", "wiki", "https://wiki.example.evil.example/callback", false},
		{"a space", "wiki", " " + callback, false},
		{"another client's", "wiki", "https://shop.example/callback", false},
		{"loopback, no port", "native", "http://127.0.0.1/cb", true},
		{"trap 57: loopback, any port", "native", "http://127.0.0.1:49152/cb", true},
		{"trap 57: IPv6 loopback, another port", "native", "http://[::1]:1/cb", true},
		{"loopback, another path", "native", "http://127.0.0.1:49152/cb2", false},
		{"loopback, a longer host", "native", "http://127.0.0.1.evil.example/cb", false},
		{"loopback, a user", "native", "http://127.0.0.1:80@evil.example/cb", false},
		{"loopback, no such port", "native", "http://127.0.0.1:65536/cb", false},
		{"loopback, port 0", "native", "http://127.0.0.1:0/cb", false},
		{"loopback, a port in other words", "native", "http://127.0.0.1:080/cb", false},
		{"loopback by name", "native", "http://localhost/cb", false},
		{"loopback, https", "native", "https://127.0.0.1/cb", false},
		{"another loopback address", "native", "http://127.0.0.2/cb", false},
		{"a scheme of its own", "native", "com.example.app:/cb", true},
		{"a scheme of its own, a host", "native", "com.example.app://cb", false},
		{"an unknown client", "nobody", callback, false},
		{"a client for itself", "job", callback, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := w.browse(t, "GET", provider.Authorize+"?"+request(c.client, c.uri, "openid").Encode(), nil)
			if to := res.Header.Get("Location"); (to != "") != c.ok || c.ok && (!strings.HasPrefix(to, c.uri) || answer(t, res).Get("code") == "") {
				t.Errorf("%s, Location %q", res.Status, to)
			}
			if !c.ok && res.StatusCode != http.StatusBadRequest {
				t.Error(res.Status)
			}
		})
	}
}

// Trap 57 and RFC 9700: what an application may not ask for.
func TestAuthorizationRequest(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, want string
		set        url.Values // empty: not there
	}{
		{"trap 57: PKCE missing", "invalid_request", url.Values{"code_challenge": {}, "code_challenge_method": {}}},
		{"trap 57: PKCE plain", "invalid_request", url.Values{"code_challenge_method": {"plain"}}},
		{"trap 57: PKCE method missing, which means plain", "invalid_request", url.Values{"code_challenge_method": {}}},
		{"trap 57: PKCE challenge missing", "invalid_request", url.Values{"code_challenge": {}}},
		{"PKCE challenge too short", "invalid_request", url.Values{"code_challenge": {"abc"}}},
		{"trap 57: implicit", "unsupported_response_type", url.Values{"response_type": {"token"}}},
		{"trap 57: implicit with an ID token", "unsupported_response_type", url.Values{"response_type": {"id_token"}}},
		{"trap 57: hybrid", "unsupported_response_type", url.Values{"response_type": {"code id_token"}}},
		{"no response_type", "unsupported_response_type", url.Values{"response_type": {}}},
		{"fragment", "invalid_request", url.Values{"response_mode": {"fragment"}}},
		{"form_post", "invalid_request", url.Values{"response_mode": {"form_post"}}},
		{"a request object", "request_not_supported", url.Values{"request": {"x.y.z"}}},
		{"a request URI, which we would have to fetch", "request_uri_not_supported", url.Values{"request_uri": {"https://evil.example"}}},
		{"a scope of others", "invalid_scope", url.Values{"scope": {"openid admin"}}},
		{"no scope", "invalid_scope", url.Values{"scope": {}}},
		{"a parameter twice", "invalid_request", url.Values{"nonce": {"a", "b"}}},
		{"state twice", "invalid_request", url.Values{"state": {"a", "b"}}},
		{"unknown prompt", "invalid_request", url.Values{"prompt": {"create"}}},
		{"prompt none and login", "invalid_request", url.Values{"prompt": {"none login"}}},
		{"max_age that is none", "invalid_request", url.Values{"max_age": {"-1"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := request("wiki", callback, "openid")
			for k, v := range c.set {
				if q[k] = v; len(v) == 0 {
					delete(q, k)
				}
			}
			a := answer(t, w.browse(t, "GET", provider.Authorize+"?"+q.Encode(), nil))
			if a.Get("error") != c.want || a.Get("code") != "" || a.Get("iss") != w.issuer {
				t.Errorf("%v", a)
			}
		})
	}
	for name, query := range map[string]string{
		"client_id twice":    request("wiki", callback, "openid").Encode() + "&client_id=shop",
		"redirect_uri twice": request("wiki", callback, "openid").Encode() + "&redirect_uri=https://evil.example",
		"broken encoding":    request("wiki", callback, "openid").Encode() + "&a=%zz",
		"too long":           request("wiki", callback, "openid").Encode() + "&a=" + strings.Repeat("a", 2048),
	} {
		if res := w.browse(t, "GET", provider.Authorize+"?"+query, nil); res.StatusCode != http.StatusBadRequest || res.Header.Get("Location") != "" {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
}

// Trap 57: what does not get tokens for a code.
func TestCode(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, client, secret string
		set                  url.Values
		later                time.Duration
		ok                   bool
	}{
		{name: "as it should be", client: "wiki", secret: secretWiki, ok: true},
		{name: "within its minute", client: "wiki", secret: secretWiki, later: 59 * time.Second, ok: true},
		{name: "after its minute", client: "wiki", secret: secretWiki, later: time.Minute},
		{name: "trap 57: no verifier", client: "wiki", secret: secretWiki, set: url.Values{"code_verifier": {}}},
		{name: "trap 57: another verifier, as of an injected code", client: "wiki", secret: secretWiki, set: url.Values{"code_verifier": {"b" + testVerifier}}},
		{name: "trap 57: the challenge for a verifier", client: "wiki", secret: secretWiki, set: url.Values{"code_verifier": {oauth2.S256ChallengeFromVerifier(testVerifier)}}},
		{name: "another redirect URI", client: "wiki", secret: secretWiki, set: url.Values{"redirect_uri": {"https://wiki.example/cb?x=1"}}},
		{name: "no redirect URI", client: "wiki", secret: secretWiki, set: url.Values{"redirect_uri": {}}},
		{name: "trap 57: another client", client: "shop", secret: secretShop},
		{name: "no such code", client: "wiki", secret: secretWiki, set: url.Values{"code": {"x"}}},
		{name: "no code", client: "wiki", secret: secretWiki, set: url.Values{"code": {}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.logIn()
			code := w.code(t, "openid")
			form := exchange(code)
			for k, v := range c.set {
				form[k] = v
			}
			w.now = w.now.Add(c.later)
			res, v := w.post(t, provider.Token, c.client, c.secret, form)
			if ok := res.StatusCode == http.StatusOK && v["access_token"] != nil; ok != c.ok || !ok && v["error"] != "invalid_grant" {
				t.Errorf("%s: %v", res.Status, v)
			}
			if c.ok || c.set["code"] != nil {
				return
			}
			// A wrong try uses it up.
			if res, v := w.post(t, provider.Token, "wiki", secretWiki, exchange(code)); res.StatusCode != http.StatusBadRequest {
				t.Errorf("a second try: %s: %v", res.Status, v)
			}
		})
	}
}
