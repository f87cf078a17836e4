package oidc

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/merlon-dev/merlon/identity/account"
)

const (
	stateTTL = 10 * time.Minute // how long somebody may take at the provider
	skew     = time.Minute      // between the provider's clock and ours
)

// A Start is a log-in that begins.
type Start struct {
	// Host is the host that the browser asked, with its port if there is one;
	// it must be one that is served, since the provider sends people there.
	Host string
	// ReturnTo is where to go in the end; see [account.SafeReturn].
	ReturnTo string
	// Fresh: the person has to prove who they are now, although they may be
	// signed in at the provider.
	Fresh bool
	// MFA: two factors are needed.
	MFA bool
	// Hint is the log-in name to fill in there. It may be empty.
	Hint string
}

// A Redirect is where to send the browser, and the value of its [Cookie].
type Redirect struct{ URL, Cookie string }

// state is what the cookie holds, sealed.
type state struct {
	Provider string `json:"p"`
	Issuer   string `json:"i"`
	Host     string `json:"h"`
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"`
	ReturnTo string `json:"r"`
	Fresh    bool   `json:"f,omitempty"`
	MFA      bool   `json:"m,omitempty"`
	Began    int64  `json:"b"`
}

const statePlace = "state"

// validHost is a host as it may stand in a redirect URI.
var validHost = regexp.MustCompile(`^([a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?$`)

// Begin sends somebody to a provider.
func (rp *RelyingParty) Begin(ctx context.Context, name string, s Start) (Redirect, error) {
	p := rp.providers[name]
	if p == nil {
		return Redirect{}, because(UnknownProvider, "%q", name)
	}
	host := strings.ToLower(s.Host)
	if !validHost.MatchString(host) {
		return Redirect{}, because(StateMissing, "the host %q cannot be returned to", s.Host)
	}
	m, err := p.discover(ctx)
	if err != nil {
		return Redirect{}, err
	}
	st := state{
		Provider: name, Issuer: p.Issuer, Host: host, State: rand.Text() + rand.Text(), Nonce: rand.Text() + rand.Text(),
		Verifier: oauth2.GenerateVerifier(), ReturnTo: account.SafeReturn(s.ReturnTo), Fresh: s.Fresh, MFA: s.MFA, Began: rp.now().Unix(),
	}
	opts := []oauth2.AuthCodeOption{oidc.Nonce(st.Nonce), oauth2.S256ChallengeOption(st.Verifier)}
	if s.Fresh {
		// max_age makes the provider say when somebody logged in.
		opts = append(opts, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
	}
	if s.MFA && len(p.ACRValues) > 0 {
		opts = append(opts, oauth2.SetAuthURLParam("acr_values", strings.Join(p.ACRValues, " ")))
	}
	if s.Hint != "" && len(s.Hint) <= 254 {
		opts = append(opts, oauth2.SetAuthURLParam("login_hint", s.Hint))
	}
	to := p.config(m, host).AuthCodeURL(st.State, opts...)
	if m.PAR != "" {
		if to, err = p.push(ctx, m, to); err != nil {
			return Redirect{}, &Error{ProviderDown, err}
		}
	}
	return Redirect{to, rp.seal(st)}, nil
}

func (rp *RelyingParty) seal(st state) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // "&" in six characters would not fit into the cookie
	if err := enc.Encode(st); err != nil {
		panic(err) // strings and numbers
	}
	return base64.RawURLEncoding.EncodeToString(rp.box.Seal(b.Bytes(), statePlace))
}

func (rp *RelyingParty) open(cookie string) (st state, ok bool) {
	sealed, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil {
		return state{}, false
	}
	plain, err := rp.box.Open(sealed, statePlace)
	if err != nil || json.Unmarshal(plain, &st) != nil {
		return state{}, false
	}
	age := rp.now().Unix() - st.Began
	return st, age >= 0 && age < int64(stateTTL/time.Second)
}

// An Answer is what a browser brings back.
type Answer struct {
	Provider string     // as in the path, see [CallbackPath]
	Host     string     // that the browser asked
	Query    url.Values // of the URL
	Cookie   string     // the value of [CookieName]; take the cookie away, whatever becomes of it
}

// Callback takes what a browser brings back and returns who it is, or an
// [Error]. Every check that does not need the provider comes before it is asked.
func (rp *RelyingParty) Callback(ctx context.Context, a Answer) (Proof, error) {
	p := rp.providers[a.Provider]
	if p == nil {
		return Proof{}, because(UnknownProvider, "%q", a.Provider)
	}
	st, ok := rp.open(a.Cookie)
	if !ok {
		return Proof{}, &Error{Reason: StateMissing}
	}
	for name, values := range a.Query {
		if len(values) > 1 {
			return Proof{}, because(StateMismatch, "%s comes more than once", name)
		}
	}
	// The redirect URI is another one for each provider, so that what one
	// sends cannot be taken for another's (RFC 9700, 4.4.2.2).
	if st.Provider != a.Provider || st.Issuer != p.Issuer || st.Host != strings.ToLower(a.Host) {
		return Proof{}, because(StateMismatch, "the log-in began at %q on %q", st.Provider, st.Host)
	}
	if subtle.ConstantTimeCompare([]byte(a.Query.Get("state")), []byte(st.State)) != 1 {
		return Proof{}, &Error{Reason: StateMismatch}
	}
	first, err := rp.seen.First(ctx, "oidc state "+st.State, time.Unix(st.Began, 0).Add(stateTTL+skew))
	if err != nil {
		return Proof{}, err
	}
	if !first {
		return Proof{}, &Error{Reason: StateReused}
	}
	m, err := p.discover(ctx)
	if err != nil {
		return Proof{}, err
	}
	// RFC 9207, 2.4: exactly the issuer, and there if the provider sends it.
	if iss := a.Query.Get("iss"); a.Query.Has("iss") && iss != p.Issuer || !a.Query.Has("iss") && m.SendsIssuer {
		return Proof{}, because(IssuerMismatch, "asked %q, %q answered", p.Issuer, iss)
	}
	if code := a.Query.Get("error"); code != "" {
		return Proof{}, because(ProviderRefused, "%q: %q", cut(code), cut(a.Query.Get("error_description")))
	}
	if a.Query.Get("code") == "" {
		return Proof{}, because(ProviderRefused, "there is no code")
	}
	return rp.exchange(ctx, p, m, st, a.Query.Get("code"))
}

// exchange exchanges the code and looks at the tokens.
func (rp *RelyingParty) exchange(ctx context.Context, p *provider, m *metadata, st state, code string) (Proof, error) {
	ctx = oidc.ClientContext(ctx, p.http)
	opts := []oauth2.AuthCodeOption{oauth2.VerifierOption(st.Verifier)}
	proof, err := p.assertion()
	if err != nil {
		return Proof{}, &Error{CodeRefused, err}
	}
	for k := range proof {
		opts = append(opts, oauth2.SetAuthURLParam(k, proof.Get(k)))
	}
	tokens, err := p.config(m, st.Host).Exchange(ctx, code, opts...)
	if err != nil {
		// x/oauth2 puts the whole answer into the text; the code is enough.
		if re, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
			err = fmt.Errorf("%s: %q", re.Response.Status, cut(re.ErrorCode))
		}
		return Proof{}, &Error{CodeRefused, err}
	}
	raw, _ := tokens.Extra("id_token").(string)
	if raw == "" || !strings.EqualFold(tokens.Type(), "Bearer") {
		return Proof{}, because(TokenRefused, "there is no ID token, or no Bearer token")
	}
	c, err := p.verify(ctx, m, raw, st.Nonce, tokens.AccessToken)
	if err != nil {
		return Proof{}, &Error{TokenRefused, err}
	}
	if m.UserInfo != "" && c.lacks(p) {
		if err := c.ask(ctx, m, tokens); err != nil {
			return Proof{}, &Error{TokenRefused, err}
		}
	}
	pr := c.proof(p, raw)
	pr.ReturnTo = st.ReturnTo
	if st.Fresh && pr.AuthTime.Before(time.Unix(st.Began, 0).Add(-skew)) {
		return Proof{}, because(NotFresh, "auth_time is %v", pr.AuthTime)
	}
	if st.MFA && !pr.mfa() {
		return Proof{}, because(NotMFA, "amr %q, acr %q", c.AMR, c.ACR)
	}
	return pr, nil
}

// cut shortens what a provider says for the record.
func cut(s string) string {
	if len(s) > 100 {
		s = strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}
