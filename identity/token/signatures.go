package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/go-jose/go-jose/v4"
)

// Signatures signs with a [Service]'s keys what an authorization server makes
// up by itself, and knows it again: it is what package provider wants of one.
type Signatures struct{ s *Service }

// Signatures returns them. It needs Config.Issuer.
func (s *Service) Signatures() (Signatures, error) {
	if s.keys == nil {
		return Signatures{}, errNoIssuer
	}
	return Signatures{s}, nil
}

// Sign returns the claims as a JWT whose header says typ. Access tokens are
// held to what [Service.Issue] is held to: our own issuer, a subject, an id,
// and 15 minutes. A claim that is null is left out, since verifiers refuse it.
func (g Signatures) Sign(ctx context.Context, claims map[string]any, typ string) (string, error) {
	b, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	m, err := readObject(b)
	if err != nil {
		return "", fmt.Errorf("the claims: %w", err)
	}
	claims = maps.Clone(claims)
	for name, v := range m {
		if v == nil {
			delete(claims, name)
			delete(m, name)
		}
	}
	if mediaType(typ) != accessType {
		return g.s.Sign(ctx, typ, claims)
	}
	now := g.s.now()
	var c Claims
	if _, err := g.s.own.readTimes(&c, m, now); err != nil {
		return "", fmt.Errorf("no access token of ours: %w", err)
	}
	if err := c.readNames(m); err != nil {
		return "", fmt.Errorf("no access token of ours: %w", err)
	}
	if m["iss"] != g.s.own.name || c.Subject == "" || c.ID == "" {
		return "", errors.New("no access token of ours: it needs our iss, a sub and a jti")
	}
	// Not as old as what was revoked within this second: see after.
	claims["iat"] = g.s.revocations.after(c.Subject, c.Issued).Unix()
	if b, err = json.Marshal(claims); err != nil {
		return "", err
	}
	return g.s.sign(accessType, b, now)
}

// Verify returns the claims of a JWT that Sign made with this typ. It judges
// the signature, the issuer and typ, and whether an access token was revoked;
// times are for whoever asks.
func (g Signatures) Verify(ctx context.Context, token, typ string) (map[string]any, error) {
	r, err := parse(token)
	if err != nil {
		return nil, err
	}
	if r.iss != g.s.own.name {
		return nil, refuse(TokenIssuer, "is issued by %q", r.iss)
	}
	if mediaType(r.typ) != mediaType(typ) {
		return nil, refuse(TokenType, "is of type %q", r.typ)
	}
	k, err := g.s.keys.key(ctx, r.kid, jose.SignatureAlgorithm(r.alg))
	if err != nil {
		return nil, err
	}
	if err := k.verify(token); err != nil {
		return nil, &Error{Why: TokenSignature, Err: err}
	}
	if mediaType(typ) == accessType {
		var c Claims
		if err := c.readNames(r.claims); err != nil {
			return nil, &Error{Why: TokenClaims, Err: err}
		}
		if c.Issued, err = r.claims.time("iat"); err != nil {
			return nil, &Error{Why: TokenClaims, Err: err}
		}
		if err := g.s.revocations.deaf(g.s.now()); err != nil {
			return nil, &Error{Why: TokenUnavailable, Err: err}
		}
		if g.s.revocations.revoked("", &c) {
			return nil, &Error{Why: TokenRevoked, Subject: c.Subject}
		}
	}
	return r.claims, nil
}

// Algorithm is what Sign signs with now: "RS256".
func (g Signatures) Algorithm() string {
	r, err := g.s.keys.current()
	if err != nil {
		return g.s.keys.alg
	}
	return r.at(g.s.now()).Algorithm
}
