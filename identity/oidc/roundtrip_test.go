package oidc_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/secrets"
)

// signer, people and pages are what Merlon's own provider needs.
type signer struct{ t testing.TB }

func (signer) Algorithm() string { return "RS256" }

func (s signer) Sign(_ context.Context, claims map[string]any, typ string) (string, error) {
	return sign(s.t, jose.RS256, rsaKey(), "k1", typ, claims), nil
}

func (signer) Verify(_ context.Context, token, typ string) (map[string]any, error) {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, err
	}
	b, err := jws.Verify(&rsaKey().PublicKey)
	if err != nil || jws.Signatures[0].Protected.ExtraHeaders["typ"] != typ {
		return nil, errors.New("does not hold")
	}
	var c map[string]any
	return c, json.Unmarshal(b, &c)
}

type people struct{}

func (people) User(context.Context, string, time.Time) (provider.User, error) {
	return provider.User{Name: "ann", Email: "ann@corp.example", EmailVerified: true, Groups: []string{"eng"}}, nil
}

// pages logs whoever has to log in in at once.
type pages struct {
	provider.Pages
	id *merlon.Identity
}

func (p pages) LogIn(w http.ResponseWriter, _ *http.Request, need provider.Need) {
	p.id.When, p.id.Methods = time.Now(), []string{account.ByPassword, account.TOTP}
	w.Header().Set("Location", need.ReturnTo)
	w.WriteHeader(http.StatusSeeOther)
}

func (p pages) EndSession(http.ResponseWriter, *http.Request) error { return nil }

// TestTwoMerlons is one Merlon that signs people in at another, through TLS.
func TestTwoMerlons(t *testing.T) {
	mux := http.NewServeMux()
	srv := httptest.NewTLSServer(mux)
	defer srv.Close()
	s := settings(t, "corp", srv)
	const clientSecret = "a secret of 24 characters & more"
	s.ClientSecret, s.Scopes, s.ACRValues = secrets.Ref("file:"+file(t, "s", clientSecret)), []string{"profile", "email", "groups"}, []string{"multi-factor"}
	rp := party(t, s)

	// The relying party is told of log-outs.
	var told []oidc.Logout
	back := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := rp.VerifyLogoutToken(r.Context(), "corp", r.PostFormValue("logout_token"))
		if err != nil {
			t.Error(err)
		}
		told = append(told, out)
	}))
	defer back.Close()

	id := &merlon.Identity{Subject: "ANN", Session: "s1", Methods: []string{account.ByPassword}, When: time.Now().Add(-time.Hour)}
	as, err := provider.New(provider.Config{Issuer: srv.URL, Clients: []provider.Client{{
		ID: clientID, Secret: s.ClientSecret, Consent: new(bool), Redirect: []string{"https://" + host + oidc.CallbackPath("corp")},
		Scopes: []string{"openid", "profile", "email", "groups"}, Logout: []string{"https://" + host + "/bye"}, BackchannelLogout: back.URL + oidc.LogoutPath("corp"),
	}}}, provider.Deps{Store: provider.NewMemory(), Signer: signer{t}, JWKS: "/jwks", Users: people{}, Pages: pages{id: id}, Key: key(t), HTTP: back.Client()})
	if err != nil {
		t.Fatal(err)
	}
	handler := as.Handler()
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		write(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &rsaKey().PublicKey, KeyID: "k1", Use: "sig", Algorithm: "RS256"}}})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, hr *http.Request) {
		r := merlon.NewRequest(hr)
		r.Identity = id
		handler.ServeHTTP(w, r.Request)
	})
	browser := srv.Client()
	browser.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if req.URL.Host == host {
			return http.ErrUseLastResponse
		}
		return nil
	}
	browse := func(to string) *url.URL {
		t.Helper()
		res, err := browser.Get(to)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		u, err := res.Location()
		if err != nil {
			t.Fatal(res.Status, err)
		}
		return u
	}
	var last oidc.Proof
	for _, start := range []oidc.Start{{}, {MFA: true}, {Fresh: true}, {Fresh: true, MFA: true}} {
		start.Host, start.ReturnTo = host, "/orders?page=2"
		to, err := rp.Begin(t.Context(), "corp", start)
		if err != nil {
			t.Fatal(err)
		}
		u := browse(to.URL)
		if u.Path != oidc.CallbackPath("corp") {
			t.Fatal(u)
		}
		p, err := rp.Callback(t.Context(), oidc.Answer{Provider: "corp", Host: host, Query: u.Query(), Cookie: to.Cookie})
		if err != nil {
			t.Fatal(err)
		}
		if p.Subject != "ANN" || p.Name != "ann" || !p.Authoritative || !slices.Equal(p.Groups, []string{"dev"}) || p.ReturnTo != "/orders?page=2" || p.SID == "" ||
			slices.Contains(p.Methods, "mfa") != (start.MFA || last.Subject != "") {
			t.Errorf("%+v: %+v", start, p)
		}
		last = p
	}
	out, err := rp.EndSessionURL(t.Context(), "corp", last.IDToken, host, "/bye")
	if err != nil {
		t.Fatal(err)
	}
	if u := browse(out); u.Path != "/bye" {
		t.Errorf("logged out to %v", u)
	}
	if err := as.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || told[0] != (oidc.Logout{Issuer: srv.URL, Subject: "ANN", SID: last.SID}) {
		t.Errorf("%+v", told)
	}
}
