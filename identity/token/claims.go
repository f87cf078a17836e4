package token

import (
	"slices"
	"time"

	"github.com/merlon-dev/merlon"
)

// byToken is the method of a proof by token: account.ByToken.
const byToken = "token"

// read turns a raw token whose signature was verified into claims, if all of
// them have the form that i's must have at the time.
func (i *issuer) read(r *raw, now time.Time) (*Claims, error) {
	m := r.claims
	c := &Claims{Issuer: r.iss}
	if why, err := i.readTimes(c, m, now); err != nil {
		return nil, &Error{Why: why, Err: err}
	}
	fail := func(err error) (*Claims, error) { return nil, &Error{Why: TokenClaims, Err: err} }
	var err error
	if c.Audience, err = m.audience(); err != nil {
		return fail(err)
	}
	if !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(i.audience, a) }) {
		return nil, refuse(TokenAudience, "is for %q", c.Audience)
	}
	if err := c.readNames(m); err != nil {
		return fail(err)
	}
	if i.claims.name != "" {
		if c.Name, err = m.text(i.claims.name); err != nil {
			return fail(err)
		}
	}
	if i.claims.tenant != "" {
		if c.Tenant, err = m.text(i.claims.tenant); err != nil {
			return fail(err)
		}
	}
	if c.Subject == "" || i.own && c.ID == "" {
		return fail(errMissing("sub or jti"))
	}
	if c.Scopes, err = m.scopes(i.claims.scopes, !i.own); err != nil {
		return fail(err)
	}
	for _, l := range []struct {
		claim string
		to    *[]string
	}{{"amr", &c.Methods}, {i.claims.groups, &c.Groups}, {i.claims.roles, &c.Roles}} {
		if l.claim == "" {
			continue
		}
		if *l.to, err = m.list(l.claim); err != nil {
			return fail(err)
		}
	}
	if c.Certificate, err = readBinding(m); err != nil {
		return nil, &Error{Why: TokenBinding, Err: err}
	}
	return c, nil
}

// readNames reads who and what a token is about.
func (c *Claims) readNames(m members) (err error) {
	for name, p := range map[string]*string{
		"sub": &c.Subject, "jti": &c.ID, "client_id": &c.Client, "sid": &c.Session,
	} {
		if *p, err = m.text(name); err != nil {
			return err
		}
		if m.has(name) && *p == "" {
			return errEmpty(name)
		}
	}
	return nil
}

// readTimes reads and judges the times of a token. Each may be off by as much
// as clocks differ, but never more than that.
func (i *issuer) readTimes(c *Claims, m members, now time.Time) (merlon.Reason, error) {
	var nbf time.Time
	for name, p := range map[string]*time.Time{
		"exp": &c.Expires, "iat": &c.Issued, "nbf": &nbf, "auth_time": &c.AuthTime,
	} {
		var err error
		if *p, err = m.time(name); err != nil {
			return TokenClaims, err
		}
	}
	switch {
	case c.Expires.IsZero() || c.Issued.IsZero():
		return TokenClaims, errMissing("exp or iat")
	case !now.Before(c.Expires.Add(i.skew)):
		return TokenExpired, errAt("exp", c.Expires)
	case c.Issued.After(now.Add(i.skew)):
		return TokenEarly, errAt("iat", c.Issued)
	case nbf.After(now.Add(i.skew)):
		return TokenEarly, errAt("nbf", nbf)
	case c.AuthTime.After(now.Add(i.skew)):
		return TokenEarly, errAt("auth_time", c.AuthTime)
	case c.Expires.Sub(c.Issued) > i.lifetime || !c.Expires.After(c.Issued):
		return TokenLifetime, errAt("from "+c.Issued.UTC().Format(time.RFC3339)+" to", c.Expires)
	}
	return "", nil
}

// readBinding returns the certificate that a token is bound to. What is bound
// to anything else must not pass for a bearer token.
func readBinding(m members) (string, error) {
	v, ok := m["cnf"]
	if !ok {
		return "", nil
	}
	cnf, _ := v.(map[string]any)
	hash, _ := cnf["x5t#S256"].(string)
	if b, err := base64url.DecodeString(hash); err != nil || len(b) != 32 || len(cnf) != 1 {
		return "", errBound
	}
	return hash, nil
}

// marks are claims that an ID token, a logout token or a DPoP proof has and an
// access token has not, for issuers that give all of them one type.
var marks = [...]string{"nonce", "at_hash", "c_hash", "s_hash", "events", "htm", "htu", "ath"}

// another reports that a token of a common type is not an access token.
func another(m members) bool {
	for _, name := range marks {
		if m.has(name) {
			return true
		}
	}
	// Keycloak and Cognito say it in a claim.
	if v, ok := m["typ"]; ok && v != "Bearer" {
		return true
	}
	v, ok := m["token_use"]
	return ok && v != "access"
}

// identity returns who a token says that its sender is.
func (i *issuer) identity(c *Claims) merlon.Identity {
	id := merlon.Identity{
		Subject: c.Subject, Name: c.Name, When: c.AuthTime,
		Groups: sorted(c.Groups), Roles: sorted(c.Roles), Tenant: c.Tenant, Scopes: c.Scopes,
	}
	if i.own {
		id.Session = c.Session
		id.Methods = append(slices.Clone(c.Methods), byToken)
	} else {
		// Another issuer's subject may be the same text as one of ours.
		id.Subject = c.Issuer + "#" + c.Subject
		for _, amr := range c.Methods {
			if method, ok := i.methods[amr]; ok && !slices.Contains(id.Methods, method) {
				id.Methods = append(id.Methods, method)
			}
		}
		id.Methods = append(id.Methods, byToken)
		if id.Scopes == nil {
			id.Scopes = []string{}
		}
	}
	if id.Name == "" {
		id.Name = id.Subject
	}
	// Shared by all requests with the token: whoever appends gets a copy.
	id.Methods, id.Scopes = slices.Clip(id.Methods), slices.Clip(id.Scopes)
	return id
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Clip(slices.Compact(s))
}
