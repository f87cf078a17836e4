package provider_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/identity/token"
	"github.com/merlon-dev/merlon/secrets"
)

// TestMerlonsOwnKeys signs with the keys of package token, whose verifier then
// takes the access tokens, and nothing else.
func TestMerlonsOwnKeys(t *testing.T) {
	key, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	var s *token.Service
	w := newWorld(t, func(c *provider.Config, d *provider.Deps) {
		c.Clients[0].Audience, c.Clients[4].Audience = []string{c.Issuer}, []string{c.Issuer}
		if s, err = token.New(t.Context(), token.Config{Issuer: c.Issuer, Algorithm: "ES256"}, key, token.NewMemory()); err != nil {
			t.Fatal(err)
		}
		if d.Signer, err = s.Signatures(); err != nil {
			t.Fatal(err)
		}
	})
	v := w.tokens(t, "openid profile groups roles api offline_access")
	c, err := s.Verify(t.Context(), fmt.Sprint(v["access_token"]))
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject != "ANN" || c.Client != "wiki" || !slices.Contains(c.Scopes, "api") || account.StrengthOf(c.Methods) != account.Multi || !c.AuthTime.Equal(w.now) {
		t.Errorf("%+v", c)
	}
	for _, name := range []string{"id_token", "refresh_token"} {
		if _, err := s.Verify(t.Context(), fmt.Sprint(v[name])); err == nil {
			t.Errorf("trap 53: an %s is taken for an access token", name)
		}
	}
	if !w.holds(t, v) || w.userInfo(t, "Bearer "+fmt.Sprint(v["access_token"])) != 200 {
		t.Error("the provider does not know its own token")
	}
	res := w.browse(t, "GET", provider.EndSession+"?id_token_hint="+fmt.Sprint(v["id_token"]), nil)
	if res.StatusCode != 200 || w.ended != 1 {
		t.Errorf("the ID token does not log out: %s", res.Status)
	}
	w.logIn()
	q := answer(t, w.browse(t, "GET", provider.Authorize+"?"+request("plain", "https://plain.example/", "openid").Encode(), nil))
	form := exchange(q.Get("code"))
	form.Set("redirect_uri", "https://plain.example/")
	_, p := w.post(t, provider.Token, "plain", "plain-secret-0123456789-abcdef", form)
	if _, err := s.Verify(t.Context(), fmt.Sprint(p["access_token"])); err == nil || w.userInfo(t, "Bearer "+fmt.Sprint(p["access_token"])) != 200 {
		t.Errorf("a token for user info only is taken elsewhere, or not there: %v", err)
	}
	_, p = w.post(t, provider.Token, "job", "job-secret-0123456789-abcdef", map[string][]string{"grant_type": {"client_credentials"}})
	if c, err := s.Verify(t.Context(), fmt.Sprint(p["access_token"])); err != nil || c.Subject != "client:job" {
		t.Errorf("%+v, %v", c, err)
	}
	if err := s.RevokeSubject(t.Context(), "ANN"); err != nil {
		t.Fatal(err)
	}
	if w.userInfo(t, "Bearer "+fmt.Sprint(v["access_token"])) != 401 {
		t.Error("what was revoked there holds here")
	}
}
