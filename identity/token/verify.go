package token

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/merlon-dev/merlon"
)

// A keySource has the keys of one issuer.
type keySource interface {
	// key returns the key with a kid for an algorithm, or an [*Error].
	key(ctx context.Context, kid string, alg jose.SignatureAlgorithm) (*publicKey, error)
	// has reports whether a key that was returned still counts.
	has(k *publicKey) bool
}

// An issuer is what must hold for the tokens of one.
type issuer struct {
	name     string // iss
	own      bool
	revokes  string // the issuer in revocations: empty for our own
	audience []string
	algs     []jose.SignatureAlgorithm
	types    []string
	lifetime time.Duration
	skew     time.Duration
	claims   claimNames
	methods  map[string]string
	keys     keySource
}

type claimNames struct{ name, groups, roles, tenant, scopes string }

// Verify returns the claims of an access token that holds; otherwise an
// [*Error]. It cannot check what a token is bound to: see Claims.Certificate.
// The claims are shared: do not change them.
func (s *Service) Verify(ctx context.Context, token string) (*Claims, error) {
	e, err := s.verify(ctx, token)
	if err != nil {
		return nil, err
	}
	return e.claims, nil
}

func (s *Service) verify(ctx context.Context, token string) (*entry, error) {
	if len(token) > maxToken {
		return nil, refuse(TokenTooLong, "has %d bytes", len(token))
	}
	now := s.now()
	if err := s.revocations.deaf(now); err != nil {
		return nil, &Error{Why: TokenUnavailable, Err: err}
	}
	d := s.cache.digest(token)
	if e := s.cache.get(d); e != nil {
		// In this order: what changes while the entry is judged is seen the
		// next time.
		state := s.state.Load()
		if now.Before(e.until) && (e.judged.Load() == state || s.holds(e)) {
			e.judged.Store(state)
			return e, nil
		}
		s.cache.drop(e) // and find out why
	}
	state := s.state.Load()
	e, err := s.judge(ctx, token, now)
	if err != nil {
		return nil, err
	}
	e.digest = d
	e.judged.Store(state)
	e = s.cache.put(e, now)
	if s.state.Load() != state && !s.holds(e) {
		s.cache.drop(e)
		return nil, &Error{Why: TokenRevoked, Subject: e.identity.Subject}
	}
	return e, nil
}

// holds reports whether an entry's token was not revoked and its key still counts.
func (s *Service) holds(e *entry) bool {
	return !s.revocations.revoked(e.issuer.revokes, e.claims) && e.issuer.keys.has(e.key)
}

// judge verifies a token from its first byte.
func (s *Service) judge(ctx context.Context, token string, now time.Time) (*entry, error) {
	r, err := parse(token)
	if err != nil {
		return nil, err
	}
	i := s.issuers[r.iss]
	if i == nil {
		return nil, refuse(TokenIssuer, "is issued by %q", r.iss)
	}
	alg := jose.SignatureAlgorithm(r.alg)
	if !slices.Contains(i.algs, alg) {
		return nil, refuse(TokenAlgorithm, "%s does not sign with %q", i.name, r.alg)
	}
	typ := mediaType(r.typ)
	switch {
	case !r.header.has("typ"):
		typ = noType
	case typ == noType:
		typ = ""
	}
	if !slices.Contains(i.types, typ) || typ != accessType && another(r.claims) {
		return nil, refuse(TokenType, "is of type %q, or has claims that are none of an access token's", r.typ)
	}
	k, err := i.keys.key(ctx, r.kid, alg)
	if err != nil {
		return nil, err
	}
	if err := k.verify(token); err != nil {
		return nil, &Error{Why: TokenSignature, Err: err}
	}
	c, err := i.read(r, now)
	if err != nil {
		return nil, err
	}
	e := &entry{issuer: i, key: k, claims: c, identity: i.identity(c), until: c.Expires.Add(i.skew)}
	if s.revocations.revoked(i.revokes, c) {
		return nil, &Error{Why: TokenRevoked, Subject: e.identity.Subject}
	}
	return e, nil
}

// Name returns "token".
func (s *Service) Name() string { return "token" }

// Prove returns who sent the Bearer token of the Authorization field. A token
// anywhere else, such as in the query, is none. An opaque one, without a dot,
// may be another prover's.
func (s *Service) Prove(r *merlon.Request) (*merlon.Identity, error) {
	fields := r.Header["Authorization"]
	token, ok := "", false
	for _, f := range fields {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(f), " ")
		if strings.EqualFold(scheme, "Bearer") {
			token, ok = strings.Trim(rest, " "), true
		}
	}
	switch {
	case !ok || len(s.issuers) == 0:
		return nil, merlon.ErrNoProof
	case strings.HasPrefix(token, refreshPrefix):
		return nil, refuse(TokenType, "is a refresh secret")
	case !strings.ContainsAny(token, ".{"):
		return nil, merlon.ErrNoProof
	case len(fields) > 1:
		return nil, refuse(TokenMalformed, "comes with another Authorization field")
	}
	e, err := s.verify(r.Context(), token)
	if err != nil {
		return nil, err
	}
	if e.claims.Certificate != "" && !bound(r, e.claims.Certificate) {
		return nil, &Error{Why: TokenBinding, Subject: e.identity.Subject}
	}
	id := e.identity
	return &id, nil
}

// bound reports whether the request came over TLS with the certificate.
func bound(r *merlon.Request, hash string) bool {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return false
	}
	sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
	return subtle.ConstantTimeCompare([]byte(base64url.EncodeToString(sum[:])), []byte(hash)) == 1
}
