package provider

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// active is an access token that holds.
type active struct {
	claims map[string]any
	grant  Grant
	scopes []string
}

// accessToken returns an access token of ours that holds. [ErrNotFound] if it
// does not; every other error, that we cannot tell.
func (p *Provider) accessToken(ctx context.Context, token string) (active, error) {
	if token == "" || len(token) > 16<<10 {
		return active{}, ErrNotFound
	}
	claims, err := p.Signer.Verify(ctx, token, typAccess)
	if err != nil {
		return active{}, ErrNotFound
	}
	exp, ok := number(claims["exp"])
	if id, _ := claims["grant"].(string); ok && claims["iss"] == p.issuer && p.now().Unix() < exp && id != "" {
		g, err := p.Store.Grant(ctx, id, p.now())
		if err != nil {
			return active{}, err
		}
		scope, _ := claims["scope"].(string)
		return active{claims, g, strings.Fields(scope)}, nil
	}
	return active{}, ErrNotFound
}

// number returns a JSON number that is whole seconds.
func number(v any) (int64, bool) {
	switch n := v.(type) {
	case int64:
		return n, true
	case float64:
		return int64(n), n == float64(int64(n))
	case interface{ Int64() (int64, error) }: // json.Number
		i, err := n.Int64()
		return i, err == nil
	}
	return 0, false
}

// Ended reports whether the grant behind an access token's claims has ended,
// for who verifies such tokens beside us.
func (p *Provider) Ended(ctx context.Context, claims map[string]any) (bool, error) {
	id, _ := claims["grant"].(string)
	_, err := p.Store.Grant(ctx, id, p.now())
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	return err != nil, err
}

// introspect is the introspection endpoint (RFC 7662).
func (p *Provider) introspect(w http.ResponseWriter, r *http.Request) {
	noStore(w)
	c, ok := p.authenticate(w, r)
	if !ok {
		return
	}
	if c.Public {
		p.refuse(w, r, http.StatusForbidden, ClientNotProved, "unauthorized_client", "only clients with a secret may ask")
		return
	}
	token := r.PostForm.Get("token")
	answer := map[string]any{"active": false}
	a, err := p.accessToken(r.Context(), token)
	switch {
	case err == nil && (c.Introspect || a.grant.Client == c.ID):
		answer = maps.Clone(a.claims)
		delete(answer, "grant")
		answer["active"], answer["token_type"] = true, "Bearer"
	case errors.Is(err, ErrNotFound):
		if answer, err = p.introspectRefresh(r.Context(), c, token); err == nil {
			break
		}
		fallthrough
	case err != nil:
		p.unable(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// introspectRefresh answers about a refresh token, to its own client only.
func (p *Provider) introspectRefresh(ctx context.Context, c *client, token string) (map[string]any, error) {
	inactive := map[string]any{"active": false}
	rt, err := p.Store.Refresh(ctx, hashOf(token))
	if err == nil && rt.Client == c.ID && p.now().Before(rt.Expires) {
		var g Grant
		if g, err = p.Store.Grant(ctx, rt.Grant, p.now()); err == nil {
			return map[string]any{
				"active": true, "client_id": c.ID, "sub": g.Subject, "scope": strings.Join(rt.Scopes, " "),
				"exp": rt.Expires.Unix(), "iat": g.Created.Unix(), "iss": p.issuer, "token_type": "refresh_token",
			}, nil
		}
	}
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUsed) {
		return inactive, nil
	}
	return nil, err
}

// revoke is the revocation endpoint (RFC 7009). Either token ends the whole
// grant: what is left of it would be of no use to anybody honest.
func (p *Provider) revoke(w http.ResponseWriter, r *http.Request) {
	p.allowOrigin(w, r)
	noStore(w)
	c, ok := p.authenticate(w, r)
	if !ok {
		return
	}
	token := r.PostForm.Get("token")
	owner, grant := "", ""
	rt, err := p.Store.Refresh(r.Context(), hashOf(token))
	if err == nil || errors.Is(err, ErrUsed) {
		owner, grant, err = rt.Client, rt.Grant, nil
	} else if errors.Is(err, ErrNotFound) {
		var a active
		a, err = p.accessToken(r.Context(), token)
		owner, grant = a.grant.Client, a.grant.ID
	}
	switch {
	case errors.Is(err, ErrNotFound): // it is worth nothing already
	case err != nil:
		p.unable(w, r, err)
		return
	case owner != c.ID:
		p.refuse(w, r, http.StatusBadRequest, GrantInvalid, "invalid_grant", "was issued to another client")
		return
	default:
		if err := p.Store.EndGrant(r.Context(), grant); err != nil {
			p.unable(w, r, err)
			return
		}
	}
	w.WriteHeader(http.StatusOK)
}

// userInfo is the user info endpoint (OpenID Connect Core, 5.3). The token
// comes in the Authorization header only.
func (p *Provider) userInfo(w http.ResponseWriter, r *http.Request) {
	p.allowOrigin(w, r)
	noStore(w)
	deny := func(status int, code string) {
		challenge := `Bearer realm="merlon"`
		if code != "" {
			challenge += `, error="` + code + `"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		p.refuse(w, r, status, TokenInvalid, code, "")
	}
	fields := r.Header["Authorization"]
	if len(fields) == 0 {
		deny(http.StatusUnauthorized, "")
		return
	}
	scheme, token, _ := strings.Cut(fields[0], " ")
	if len(fields) > 1 || !strings.EqualFold(scheme, "Bearer") {
		deny(http.StatusUnauthorized, "invalid_request")
		return
	}
	a, err := p.accessToken(r.Context(), token)
	var u User
	if err == nil && a.grant.Subject != "" {
		u, err = p.Users.User(r.Context(), a.grant.Subject, a.grant.AuthTime)
	}
	switch {
	case errors.Is(err, ErrNotFound):
		deny(http.StatusUnauthorized, "invalid_token")
		return
	case err != nil:
		p.unable(w, r, err)
		return
	case a.grant.Subject == "" || !slices.Contains(a.scopes, scopeOpenID):
		deny(http.StatusForbidden, "insufficient_scope")
		return
	}
	claims := map[string]any{"sub": a.grant.Subject}
	about(claims, u, a.scopes)
	writeJSON(w, http.StatusOK, claims)
}
