package token_test

import (
	"context"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/token"
)

// A signer is what package provider wants of one.
type signer interface {
	Sign(ctx context.Context, claims map[string]any, typ string) (string, error)
	Verify(ctx context.Context, token, typ string) (map[string]any, error)
	Algorithm() string
}

func TestSignatures(t *testing.T) {
	w := newWorld(t, nil)
	var g signer
	g, err := w.Signatures()
	if err != nil {
		t.Fatal(err)
	}
	if g.Algorithm() != "EdDSA" {
		t.Error(g.Algorithm())
	}
	now := w.clock.now()
	access := func(change map[string]any) map[string]any {
		c := w.claims(map[string]any{"iss": ours, "aud": []string{ours}, "groups": []string(nil), "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()})
		for k, v := range change {
			c[k] = v
		}
		return c
	}
	tok, err := g.Sign(t.Context(), access(nil), "at+jwt")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := verify(w.Service, tok); err != nil || c.Subject != "ann" || c.Groups != nil {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := g.Verify(t.Context(), tok, "at+jwt"); err != nil || c["sub"] != "ann" {
		t.Errorf("%v, %v", c, err)
	}
	for name, change := range map[string]map[string]any{
		"another issuer": {"iss": theirs},
		"16 minutes":     {"exp": now.Add(16 * time.Minute).Unix()},
		"no end":         {"exp": nil},
		"no id":          {"jti": nil},
		"no subject":     {"sub": nil},
		"what has ended": {"iat": now.Add(-time.Hour).Unix(), "exp": now.Add(-50 * time.Minute).Unix()},
	} {
		if tok, err := g.Sign(t.Context(), access(change), "at+jwt"); err == nil {
			t.Errorf("%s: signed %s", name, tok)
		}
	}
	id, err := g.Sign(t.Context(), map[string]any{"iss": ours, "sub": "ann", "exp": now.Add(time.Minute).Unix()}, "JWT")
	if err != nil {
		t.Fatal(err)
	}
	// A hint at who is to be logged out may have expired.
	w.clock.move(10 * time.Minute)
	w.Poll(t.Context())
	if c, err := g.Verify(t.Context(), id, "JWT"); err != nil || c["sub"] != "ann" {
		t.Errorf("%v, %v", c, err)
	}
	for name, c := range map[string]struct{ token, typ string }{
		"another type": {id, "at+jwt"},
		"and back":     {tok, "JWT"},
		"another's":    {w.good("ES256"), "at+jwt"},
		"changed":      {id[:len(id)-4] + "AAAA", "JWT"},
		"nothing":      {"", "JWT"},
	} {
		if claims, err := g.Verify(t.Context(), c.token, c.typ); err == nil {
			t.Errorf("%s: %v", name, claims)
		}
	}
	if err := w.RevokeSubject(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Verify(t.Context(), tok, "at+jwt"); reason(t, err) != token.TokenRevoked {
		t.Errorf("revoked: %v", err)
	}
	now = w.clock.now()
	if tok, err = g.Sign(t.Context(), access(nil), "at+jwt"); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(w.Service, tok); err != nil {
		t.Errorf("a new one in the same second: %v", err)
	}
	if _, err := w.open(t, token.Config{}).Signatures(); err == nil {
		t.Error("signs without an issuer")
	}
}
