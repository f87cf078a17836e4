package token

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// accessType is the "typ" of access tokens (RFC 9068, 2.1).
const accessType = "at+jwt"

// defaultClient is who a token is for if nobody is named: Merlon's own pages.
const defaultClient = "merlon"

var errNoIssuer = errors.New("no tokens are issued: issuer is not set")

// payload is the claims of an access token as it is written (RFC 9068, 2.2).
type payload struct {
	Issuer      string   `json:"iss"`
	Subject     string   `json:"sub"`
	Audience    []string `json:"aud"`
	Expires     int64    `json:"exp"`
	Issued      int64    `json:"iat"`
	NotBefore   int64    `json:"nbf"`
	ID          string   `json:"jti"`
	Client      string   `json:"client_id"`
	Scopes      *string  `json:"scope,omitempty"`
	Groups      []string `json:"groups,omitempty"`
	Roles       []string `json:"roles,omitempty"`
	Name        string   `json:"name,omitempty"`
	Methods     []string `json:"amr,omitempty"`
	AuthTime    int64    `json:"auth_time,omitempty"`
	Session     string   `json:"sid,omitempty"`
	Certificate *binding `json:"cnf,omitempty"`
}

type binding struct {
	Certificate string `json:"x5t#S256"`
}

// Issue returns a signed access token (RFC 9068) with the claims.
func (s *Service) Issue(_ context.Context, c Claims) (token string, expires time.Time, err error) {
	if s.keys == nil {
		return "", time.Time{}, errNoIssuer
	}
	now := s.now()
	issued := s.revocations.after(c.Subject, now.Truncate(time.Second))
	expires = c.Expires.Truncate(time.Second)
	if c.Expires.IsZero() {
		expires = issued.Add(s.lifetime)
	}
	if life := expires.Sub(issued); life <= 0 || life > maxLifetime {
		return "", time.Time{}, fmt.Errorf("an access token may be good for up to %s, not for %s", maxLifetime, life)
	}
	p := payload{
		Issuer: s.own.name, Subject: c.Subject, Audience: c.Audience, Client: c.Client, ID: c.ID,
		Expires: expires.Unix(), Issued: issued.Unix(), NotBefore: issued.Unix(),
		Groups: c.Groups, Roles: c.Roles, Name: c.Name, Session: c.Session,
		Methods: slices.DeleteFunc(slices.Clone(c.Methods), func(m string) bool { return m == byToken }),
	}
	if !c.AuthTime.IsZero() {
		p.AuthTime = c.AuthTime.Unix()
	}
	if c.Certificate != "" {
		p.Certificate = &binding{c.Certificate}
	}
	if c.Scopes != nil {
		scope := strings.Join(c.Scopes, " ")
		p.Scopes = &scope
	}
	if len(p.Audience) == 0 {
		p.Audience = s.own.audience
	}
	if p.Client == "" {
		p.Client = defaultClient
	}
	if p.ID == "" {
		p.ID = rand.Text()
	}
	if err := p.valid(c.Scopes); err != nil {
		return "", time.Time{}, err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return "", time.Time{}, err
	}
	token, err = s.sign(accessType, b, now)
	return token, expires, err
}

// valid keeps Issue from writing what no verifier would read.
func (p *payload) valid(scopes []string) error {
	if p.Subject == "" {
		return errors.New("a token needs a subject")
	}
	texts := slices.Concat([]string{p.Subject, p.Client, p.ID, p.Name, p.Session}, p.Audience, p.Groups, p.Roles, p.Methods)
	for _, t := range texts {
		if !plain(t) {
			return fmt.Errorf("%q has characters that nobody can see, or is too long", t)
		}
	}
	for _, l := range [][]string{p.Audience, p.Groups, p.Roles, p.Methods} {
		if slices.Contains(l, "") || len(l) > maxList {
			return errors.New("a list in a token has nothing in one place, or is too long")
		}
	}
	if i := slices.IndexFunc(scopes, func(s string) bool { return !validScope(s) }); i >= 0 {
		return fmt.Errorf("%q is no scope", scopes[i])
	}
	return nil
}

// Sign returns claims as a signed JWT of another type: "JWT" for an ID token,
// "logout+jwt". They are written as JSON and must have an "exp" that is no
// further away than an hour, since keys are published for that long after
// their last signature. Access tokens are made by Issue only.
func (s *Service) Sign(_ context.Context, typ string, claims any) (string, error) {
	if s.keys == nil {
		return "", errNoIssuer
	}
	if t := mediaType(typ); t == "" || t == accessType {
		return "", fmt.Errorf("a type that is none of access tokens is needed, not %q", typ)
	}
	b, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	m, err := readObject(b)
	if err != nil {
		return "", fmt.Errorf("the claims: %w", err)
	}
	exp, err := m.time("exp")
	if err != nil {
		return "", err
	}
	now := s.now()
	if exp.IsZero() || exp.After(now.Add(maxSigned)) {
		return "", fmt.Errorf("the claims need an exp within %s", maxSigned)
	}
	return s.sign(typ, b, now)
}

func (s *Service) sign(typ string, payload []byte, now time.Time) (string, error) {
	r, err := s.keys.current()
	if err != nil {
		return "", err
	}
	token, err := r.at(now).sign(typ, payload)
	if err == nil && len(token) > maxToken {
		return "", fmt.Errorf("the token would have %d bytes, more than %d", len(token), maxToken)
	}
	return token, err
}

// JWKS returns the JSON Web Key Set of the keys that sign and those that will
// or did a moment ago, and the header to serve it with. Everybody may read it.
func (s *Service) JWKS(context.Context) ([]byte, http.Header, error) {
	h := http.Header{
		"Content-Type": {"application/jwk-set+json"},
		// Far less than the day that a key is published before it signs.
		"Cache-Control":               {"public, max-age=300"},
		"Access-Control-Allow-Origin": {"*"},
		"X-Content-Type-Options":      {"nosniff"},
	}
	if s.keys == nil {
		b, err := jwks(nil)
		return b, h, err
	}
	r, err := s.keys.current()
	if err != nil {
		return nil, nil, err
	}
	b, err := jwks(r.published(s.now()))
	return b, h, err
}

// ReplaceKeys makes a new signing key that signs at once, and drops all others:
// for when a key may have become known. Every token that was signed before
// stops holding, within half a minute on other replicas.
func (s *Service) ReplaceKeys(ctx context.Context) error {
	if s.keys == nil {
		return errNoIssuer
	}
	return s.keys.replace(ctx)
}
