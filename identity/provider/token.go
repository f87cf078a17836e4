package provider

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"hash"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
)

// The types of the JWTs that are issued here.
const (
	typAccess = "at+jwt" // RFC 9068
	typID     = "JWT"
	typLogout = "logout+jwt"
)

const maxForm = 64 << 10

// tokens is an answer of the token endpoint.
type tokens struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	RefreshToken string `json:"refresh_token,omitempty"`
	IDToken      string `json:"id_token,omitempty"`
	Scope        string `json:"scope"`
}

// token is the token endpoint.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.allowOrigin(w, r)
	noStore(w)
	c, ok := p.authenticate(w, r)
	if !ok {
		return
	}
	grant := r.PostForm.Get("grant_type")
	switch {
	case grant != codeGrant && grant != refreshGrant && grant != ownGrant:
		p.refuse(w, r, http.StatusBadRequest, BadRequest, "unsupported_grant_type", "unknown grant_type")
	case !c.may(grant):
		p.refuse(w, r, http.StatusBadRequest, BadRequest, "unauthorized_client", "this client may not use this grant_type")
	case grant == codeGrant:
		p.tokenForCode(w, r, c)
	case grant == refreshGrant:
		p.tokenForRefresh(w, r, c)
	default:
		p.tokenForClient(w, r, c)
	}
}

// readForm reads a form from the body; what stands in the URL, where logs keep
// it, does not count. It returns the error's code, too.
func readForm(w http.ResponseWriter, r *http.Request) (string, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return "invalid_request", errors.New("must be application/x-www-form-urlencoded")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return "invalid_request", errors.New("cannot be read as a form")
	}
	for name, values := range r.PostForm {
		if len(values) > 1 && name != "resource" {
			return "invalid_request", errors.New("a parameter comes more than once") // RFC 6749, 3.2
		}
	}
	return "", nil
}

var verifier = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`) // RFC 7636, 4.1

// tokenForCode exchanges a code. Whoever presents one, right or wrong, has
// used it: nobody gets a second try at the verifier.
func (p *Provider) tokenForCode(w http.ResponseWriter, r *http.Request, c *client) {
	code, err := p.Store.TakeCode(r.Context(), hashOf(r.PostForm.Get("code")))
	switch {
	case errors.Is(err, ErrUsed):
		// Also if another client presents it: it should not have it.
		p.endReplayed(w, r, code.Grant, CodeReplayed)
		return
	case errors.Is(err, ErrNotFound):
		p.refuseGrant(w, r, "")
		return
	case err != nil:
		p.unable(w, r, err)
		return
	}
	v := r.PostForm.Get("code_verifier")
	sum := sha256.Sum256([]byte(v))
	fits := subtle.ConstantTimeCompare([]byte(encoding.EncodeToString(sum[:])), []byte(code.Challenge)) == 1
	if code.Client != c.ID || code.Redirect != r.PostForm.Get("redirect_uri") || !fits || !verifier.MatchString(v) || !p.now().Before(code.Expires) {
		p.refuseGrant(w, r, code.Grant)
		return
	}
	g, u, ok := p.live(w, r, c, code.Grant, true)
	if !ok {
		return
	}
	t, err := p.issue(r.Context(), c, g, u, g.Scopes, code.Nonce)
	if err != nil {
		p.unable(w, r, err)
		return
	}
	if c.may(refreshGrant) {
		t.RefreshToken = newSecret()
		err := p.Store.AddRefresh(r.Context(), p.newRefresh(t.RefreshToken, g, g.Scopes))
		if errors.Is(err, ErrNotFound) {
			p.refuseGrant(w, r, "")
			return
		} else if err != nil {
			p.unable(w, r, err)
			return
		}
	} else if _, err := p.Store.Grant(r.Context(), g.ID, p.now()); err != nil {
		// The code came again while this was under way.
		p.refuseGrant(w, r, "")
		return
	}
	writeJSON(w, http.StatusOK, t)
}

// tokenForRefresh rotates a refresh token.
func (p *Provider) tokenForRefresh(w http.ResponseWriter, r *http.Request, c *client) {
	old := hashOf(r.PostForm.Get("refresh_token"))
	rt, err := p.Store.Refresh(r.Context(), old)
	switch {
	case errors.Is(err, ErrUsed):
		p.endReplayed(w, r, rt.Grant, RefreshReplayed)
		return
	case errors.Is(err, ErrNotFound):
		p.refuseGrant(w, r, "")
		return
	case err != nil:
		p.unable(w, r, err)
		return
	case rt.Client != c.ID:
		p.refuseGrant(w, r, rt.Grant) // it is stolen from another client
		return
	case !p.now().Before(rt.Expires):
		p.refuseGrant(w, r, "")
		return
	}
	scopes := rt.Scopes
	if asked := sorted(strings.Fields(r.PostForm.Get("scope"))); len(asked) > 0 {
		if slices.ContainsFunc(asked, func(s string) bool { return !slices.Contains(rt.Scopes, s) }) {
			p.refuse(w, r, http.StatusBadRequest, BadRequest, "invalid_scope", "more than was allowed")
			return
		}
		scopes = asked
	}
	g, u, ok := p.live(w, r, c, rt.Grant, false)
	if !ok {
		return
	}
	// Signing comes before rotating: what fails there costs nobody their token.
	t, err := p.issue(r.Context(), c, g, u, scopes, "")
	if err != nil {
		p.unable(w, r, err)
		return
	}
	t.RefreshToken = newSecret()
	// The new one keeps what was allowed, not what was asked for this time
	// (RFC 6749, 6).
	switch err := p.Store.Rotate(r.Context(), old, p.newRefresh(t.RefreshToken, g, rt.Scopes)); {
	case errors.Is(err, ErrUsed):
		p.endReplayed(w, r, g.ID, RefreshReplayed)
	case errors.Is(err, ErrNotFound):
		p.refuseGrant(w, r, "")
	case err != nil:
		p.unable(w, r, err)
	default:
		writeJSON(w, http.StatusOK, t)
	}
}

// tokenForClient gives a program a token for itself.
func (p *Provider) tokenForClient(w http.ResponseWriter, r *http.Request, c *client) {
	scopes := sorted(strings.Fields(r.PostForm.Get("scope")))
	if len(scopes) == 0 {
		scopes = slices.DeleteFunc(sorted(c.Scopes), aboutPeople)
	}
	for _, s := range scopes {
		if !slices.Contains(c.Scopes, s) || aboutPeople(s) {
			p.refuse(w, r, http.StatusBadRequest, BadRequest, "invalid_scope", "a scope that this client may not ask for")
			return
		}
	}
	now := p.now()
	g := Grant{ID: rand.Text(), Client: c.ID, Scopes: scopes, Created: now, Expires: now.Add(p.access)}
	if err := p.Store.AddGrant(r.Context(), g, nil); err != nil {
		p.unable(w, r, err)
		return
	}
	t, err := p.issue(r.Context(), c, g, User{}, scopes, "")
	if err != nil {
		p.unable(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, t)
}

// aboutPeople reports whether a scope is about the person who is signed in.
func aboutPeople(scope string) bool {
	switch scope {
	case scopeOpenID, scopeProfile, scopeEmail, scopeGroups, scopeRoles, scopeOffline:
		return true
	}
	return false
}

// live returns a grant that holds and the person behind it, or writes that
// there is none. What policy asks of them now counts, not what it did when they
// logged in. What begins needs its session also for offline access.
func (p *Provider) live(w http.ResponseWriter, r *http.Request, c *client, grant string, begins bool) (Grant, User, bool) {
	g, u, err := p.person(r.Context(), c, grant, begins)
	switch {
	case errors.Is(err, ErrNotFound):
		p.refuseGrant(w, r, grant)
	case err != nil:
		p.unable(w, r, err)
	}
	return g, u, err == nil
}

func (p *Provider) person(ctx context.Context, c *client, grant string, begins bool) (Grant, User, error) {
	g, err := p.Store.Grant(ctx, grant, p.now())
	if err != nil {
		return Grant{}, User{}, err
	}
	// trap 49, 56: nothing is made of a session that is over.
	if p.Holds != nil && g.Session != "" && (begins || !g.Offline) {
		if ok, err := p.Holds(ctx, g.Subject, g.Session); err != nil {
			return Grant{}, User{}, err
		} else if !ok {
			return Grant{}, User{}, ErrNotFound
		}
	}
	u, err := p.Users.User(ctx, g.Subject, g.AuthTime)
	if err != nil {
		return Grant{}, User{}, err
	}
	id := &merlon.Identity{Subject: g.Subject, Name: u.Name, Groups: u.Groups, Roles: u.Roles, Methods: g.Methods, When: g.AuthTime, Session: g.Session}
	if account.StrengthOf(g.Methods) < p.required(c, id) {
		return Grant{}, User{}, ErrNotFound
	}
	return g, u, nil
}

// issue makes the tokens of a grant, but for the refresh token.
func (p *Provider) issue(ctx context.Context, c *client, g Grant, u User, scopes []string, nonce string) (tokens, error) {
	now := p.now()
	ttl := min(p.access, g.Expires.Sub(now))
	t := tokens{TokenType: "Bearer", ExpiresIn: int64(ttl / time.Second), Scope: strings.Join(scopes, " ")}
	claims := map[string]any{
		"iss": p.issuer, "aud": c.Audience, "iat": now.Unix(), "exp": now.Add(ttl).Unix(), "jti": rand.Text(),
		"client_id": c.ID, "scope": t.Scope, "grant": g.ID,
		// A program's name never equals that of a person (RFC 9068, 5).
		"sub": "client:" + c.ID,
	}
	if g.Subject != "" {
		claims["sub"] = g.Subject
		describe(claims, g)
		// Merlon's own words beside the registered ones: routes that are
		// reached with the token are about those.
		claims["amr"] = sorted(slices.Concat(amr(g.Methods, account.StrengthOf(g.Methods)), g.Methods))
		for _, s := range scopes {
			switch s {
			case scopeGroups:
				claims["groups"] = u.Groups
			case scopeRoles:
				claims["roles"] = u.Roles
			}
		}
	}
	var err error
	if t.AccessToken, err = p.Signer.Sign(ctx, claims, typAccess); err != nil {
		return tokens{}, err
	}
	if g.Subject == "" || !slices.Contains(scopes, scopeOpenID) {
		return t, nil
	}
	claims = map[string]any{
		"iss": p.issuer, "aud": c.ID, "azp": c.ID, "sub": g.Subject, "iat": now.Unix(), "exp": now.Add(idTokenTTL).Unix(),
		"at_hash": leftHash(p.Signer.Algorithm(), t.AccessToken), "sid": p.sid(c.ID, g.Session),
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	describe(claims, g)
	about(claims, u, scopes)
	t.IDToken, err = p.Signer.Sign(ctx, claims, typID)
	return t, err
}

// describe adds how and when the person was proved.
func describe(claims map[string]any, g Grant) {
	claims["auth_time"] = g.AuthTime.Unix()
	strength := account.StrengthOf(g.Methods)
	claims["acr"] = strength.String()
	if a := amr(g.Methods, strength); len(a) > 0 {
		claims["amr"] = a
	}
}

// amr returns methods in the words of RFC 8176.
func amr(methods []string, strength account.Strength) []string {
	var words []string
	for _, m := range methods {
		switch m {
		case account.ByPassword, account.ByBasic:
			words = append(words, "pwd")
		case account.TOTP, account.Recovery:
			words = append(words, "otp")
		case account.Passkey:
			words = append(words, "pop", "user")
		case account.BySecurityKey:
			words = append(words, "pop", "hwk")
		case account.ByCertificate:
			words = append(words, "pop")
		}
	}
	if strength >= account.Multi {
		words = append(words, "mfa")
	}
	return sorted(words)
}

// about adds what the scopes open of what is known about the person.
func about(claims map[string]any, u User, scopes []string) {
	for _, s := range scopes {
		switch s {
		case scopeProfile:
			claims["preferred_username"] = u.Name
			if u.Display != "" {
				claims["name"] = u.Display
			}
		case scopeEmail:
			if u.Email != "" {
				claims["email"], claims["email_verified"] = u.Email, u.EmailVerified
			}
		case scopeGroups:
			claims["groups"] = u.Groups
		case scopeRoles:
			claims["roles"] = u.Roles
		}
	}
}

// leftHash is at_hash: the left half of the hash that the signature's
// algorithm uses (OpenID Connect Core, 3.1.3.6).
func leftHash(alg, token string) string {
	var h hash.Hash
	switch {
	case strings.HasSuffix(alg, "384"):
		h = sha512.New384()
	case strings.HasSuffix(alg, "512"), alg == "EdDSA":
		h = sha512.New()
	default:
		h = sha256.New()
	}
	h.Write([]byte(token))
	sum := h.Sum(nil)
	return encoding.EncodeToString(sum[:len(sum)/2])
}

// newSecret returns 260 random bits.
func newSecret() string { return rand.Text() + rand.Text() }

func (p *Provider) newRefresh(secret string, g Grant, scopes []string) Refresh {
	expires := p.now().Add(p.idle)
	if g.Expires.Before(expires) {
		expires = g.Expires
	}
	return Refresh{Hash: hashOf(secret), Grant: g.ID, Client: g.Client, Scopes: scopes, Expires: expires}
}

// endReplayed ends a grant whose code or refresh token came twice.
func (p *Provider) endReplayed(w http.ResponseWriter, r *http.Request, grant string, reason merlon.Reason) {
	// Also if the client hangs up meanwhile.
	if err := p.Store.EndGrant(context.WithoutCancel(r.Context()), grant); err != nil {
		p.unable(w, r, err)
		return
	}
	p.refuse(w, r, http.StatusBadRequest, reason, "invalid_grant", "was used before; everything made of it has ended")
}

// refuseGrant refuses a code or refresh token and ends what it belongs to, if
// that is known.
func (p *Provider) refuseGrant(w http.ResponseWriter, r *http.Request, grant string) {
	if grant != "" {
		if err := p.Store.EndGrant(context.WithoutCancel(r.Context()), grant); err != nil {
			p.unable(w, r, err)
			return
		}
	}
	p.refuse(w, r, http.StatusBadRequest, GrantInvalid, "invalid_grant", "unknown, expired, ended or not for this request")
}

// unable says that we cannot tell, which lets nobody in.
func (p *Provider) unable(w http.ResponseWriter, r *http.Request, err error) {
	if mr := merlon.From(r); mr != nil {
		mr.Record("provider", merlon.Unable(err))
	}
	writeJSON(w, http.StatusServiceUnavailable, map[string]string{"error": "server_error", "error_description": "try again"})
}

// refuse writes an error of the protocol (RFC 6749, 5.2).
func (p *Provider) refuse(w http.ResponseWriter, r *http.Request, status int, reason merlon.Reason, code, description string) {
	p.record(r, status, reason, description)
	writeJSON(w, status, map[string]string{"error": code, "error_description": description})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if w.Header().Get("Cache-Control") == "" {
		noStore(w)
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client hung up
}

// allowOrigin lets the pages of public clients read the answer. No cookie
// counts here, so none is allowed.
func (p *Provider) allowOrigin(w http.ResponseWriter, r *http.Request) bool {
	w.Header().Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !p.origins[origin] {
		return false
	}
	w.Header().Set("Access-Control-Allow-Origin", origin)
	return true
}

// preflight answers a browser that asks before it lets a page call us.
func (p *Provider) preflight(w http.ResponseWriter, r *http.Request) {
	if p.allowOrigin(w, r) {
		w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
		w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
		w.Header().Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
}

// metadata is the discovery document (OpenID Connect Discovery 1.0, RFC 8414).
func (p *Provider) metadata(w http.ResponseWriter, _ *http.Request) {
	at := func(path string) string { return p.issuer + path }
	auth := []string{"client_secret_basic", "client_secret_post"}
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                         p.issuer,
		"authorization_endpoint":                         at(Authorize),
		"token_endpoint":                                 at(Token),
		"jwks_uri":                                       at(p.JWKS),
		"userinfo_endpoint":                              at(UserInfo),
		"revocation_endpoint":                            at(Revoke),
		"introspection_endpoint":                         at(Introspect),
		"end_session_endpoint":                           at(EndSession),
		"scopes_supported":                               []string{scopeOpenID, scopeProfile, scopeEmail, scopeGroups, scopeRoles, scopeOffline},
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query"},
		"grant_types_supported":                          []string{codeGrant, refreshGrant, ownGrant},
		"code_challenge_methods_supported":               []string{"S256"},
		"subject_types_supported":                        []string{"public"},
		"id_token_signing_alg_values_supported":          []string{p.Signer.Algorithm()},
		"token_endpoint_auth_methods_supported":          append(auth, "none"),
		"revocation_endpoint_auth_methods_supported":     append(auth, "none"),
		"introspection_endpoint_auth_methods_supported":  auth,
		"authorization_response_iss_parameter_supported": true,
		"backchannel_logout_supported":                   true,
		"backchannel_logout_session_supported":           true,
		"request_parameter_supported":                    false,
		"request_uri_parameter_supported":                false,
		"claims_parameter_supported":                     false,
		"prompt_values_supported":                        []string{"none", "login", "consent", "select_account"},
		"acr_values_supported":                           []string{account.Single.String(), account.Multi.String(), account.PhishingResistant.String()},
		"claims_supported": []string{"iss", "sub", "aud", "azp", "exp", "iat", "auth_time", "nonce", "at_hash", "sid", "acr", "amr",
			"preferred_username", "name", "email", "email_verified", "groups", "roles"},
	})
}
