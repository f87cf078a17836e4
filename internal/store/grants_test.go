package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/internal/store"
)

func aGrant(id, subject string) provider.Grant {
	return provider.Grant{
		ID: id, Client: "app", Subject: subject, Session: "s", Scopes: []string{"email", "openid"}, Offline: true,
		Methods: []string{"totp"}, AuthTime: noon, Created: noon, Expires: noon.Add(time.Hour),
	}
}

func aCode(grant, code string) *provider.Code {
	h := hashOf(code)
	return &provider.Code{Hash: h[:], Grant: grant, Client: "app", Redirect: "https://app.example/cb", Challenge: "c", Nonce: "n", Expires: noon.Add(time.Minute)}
}

func aRefresh(grant, secret string) provider.Refresh {
	h := hashOf(secret)
	return provider.Refresh{Hash: h[:], Grant: grant, Client: "app", Scopes: []string{"openid"}, Expires: noon.Add(time.Hour)}
}

func TestGrants(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Grants()
		g, later := aGrant("g", "ann"), aGrant("h", "ann")
		later.Created, later.Offline, later.Session = noon.Add(time.Second), false, ""
		wants(t, "add", s.AddGrant(ctx, later, nil), nil)
		wants(t, "add", s.AddGrant(ctx, g, aCode("g", "code")), nil)
		got, err := s.Grant(ctx, "g", noon)
		wants(t, "grant", err, nil)
		same(t, "grant", got, g)
		_, err = s.Grant(ctx, "g", g.Expires)
		wants(t, "expired", err, provider.ErrNotFound)
		list, err := s.Grants(ctx, "ann", noon)
		wants(t, "grants", err, nil)
		same(t, "grants", list, []provider.Grant{g, later})
		wants(t, "end", s.EndGrant(ctx, "g"), nil)
		wants(t, "end again", s.EndGrant(ctx, "g"), nil)
		_, err = s.TakeCode(ctx, aCode("g", "code").Hash)
		wants(t, "its code", err, provider.ErrNotFound)
		wants(t, "a refresh token of it", s.AddRefresh(ctx, aRefresh("g", "r")), provider.ErrNotFound)
		new := aGrant("new", "bob")
		new.Created, new.Expires = noon.Add(2*time.Hour), noon.Add(3*time.Hour)
		wants(t, "add", s.AddGrant(ctx, new, nil), nil)
		_, err = s.Grant(ctx, "h", noon)
		wants(t, "what has expired is forgotten", err, provider.ErrNotFound)
	})
}

// Each visit to the authorization endpoint makes a grant. Those that nobody
// fetches do not add up.
func TestGrantsWhoseCodeNobodyFetches(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Grants()
		for i := range 5 {
			g := aGrant(fmt.Sprint("g", i), "ann")
			wants(t, "add", s.AddGrant(ctx, g, aCode(g.ID, g.ID)), nil)
		}
		_, err := s.TakeCode(ctx, aCode("g3", "g3").Hash)
		wants(t, "take", err, nil)
		next := aGrant("next", "ann")
		next.Created = noon.Add(59 * time.Second)
		wants(t, "add", s.AddGrant(ctx, next, nil), nil)
		if list, err := s.Grants(ctx, "ann", noon); err != nil || len(list) != 6 {
			t.Errorf("while the codes are good there are %d: %v", len(list), err)
		}
		last := aGrant("last", "ann")
		last.Created = noon.Add(time.Minute)
		wants(t, "add", s.AddGrant(ctx, last, nil), nil)
		list, err := s.Grants(ctx, "ann", noon)
		wants(t, "grants", err, nil)
		same(t, "grants", list, []provider.Grant{aGrant("g3", "ann"), next, last})
	})
}

// Trap 57: a code is good once, and a second use is told as one.
func TestCodes(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Grants()
		c := aCode("g", "code")
		wants(t, "add", s.AddGrant(ctx, aGrant("g", "ann"), c), nil)
		won := race(t, open, provider.ErrUsed, func(db *store.DB, _ int) error {
			got, err := db.Grants().TakeCode(context.Background(), c.Hash)
			if got.Grant != "g" {
				return fmt.Errorf("got %+v, %w", got, err)
			}
			return err
		})
		if won != 1 {
			t.Errorf("trap 57: %d have used one code", won)
		}
		got, err := s.TakeCode(ctx, c.Hash)
		wants(t, "again", err, provider.ErrUsed)
		same(t, "again", got, *c)
		_, err = s.TakeCode(ctx, []byte("x"))
		wants(t, "another", err, provider.ErrNotFound)
	})
}

// Trap 56, at the authorization server.
func TestRefreshTokens(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Grants()
		wants(t, "add", s.AddGrant(ctx, aGrant("g", "ann"), nil), nil)
		wants(t, "add", s.AddGrant(ctx, aGrant("other", "ann"), nil), nil)
		r := aRefresh("g", "r0")
		wants(t, "add", s.AddRefresh(ctx, r), nil)
		got, err := s.Refresh(ctx, r.Hash)
		wants(t, "refresh", err, nil)
		same(t, "refresh", got, r)
		wants(t, "into another grant", s.Rotate(ctx, r.Hash, aRefresh("other", "r1")), provider.ErrNotFound)
		won := race(t, open, provider.ErrUsed, func(db *store.DB, n int) error {
			return db.Grants().Rotate(context.Background(), r.Hash, aRefresh("g", fmt.Sprint("next", n)))
		})
		next := 0
		for n := range 50 {
			if _, err := s.Refresh(ctx, aRefresh("g", fmt.Sprint("next", n)).Hash); err == nil {
				next++
			} else if !errors.Is(err, provider.ErrNotFound) {
				t.Error(err)
			}
		}
		if won != 1 || next != 1 {
			t.Errorf("trap 56: %d have won, %d new ones", won, next)
		}
		got, err = s.Refresh(ctx, r.Hash)
		wants(t, "the old one", err, provider.ErrUsed)
		same(t, "the old one", got, r)
		wants(t, "end", s.EndGrant(ctx, "g"), nil)
		_, err = s.Refresh(ctx, r.Hash)
		wants(t, "its grant is gone", err, provider.ErrNotFound)
		wants(t, "its grant is gone", s.Rotate(ctx, r.Hash, aRefresh("g", "r9")), provider.ErrNotFound)
	})
}

func TestConsents(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Grants()
		b := provider.Consent{Subject: "ann", Client: "b", Scopes: []string{"openid"}, Since: noon}
		app := provider.Consent{Subject: "ann", Client: "app", Scopes: []string{"email", "openid"}, Since: noon}
		wants(t, "set", s.SetConsent(ctx, b), nil)
		wants(t, "set", s.SetConsent(ctx, provider.Consent{Subject: "ann", Client: "app", Since: noon}), nil)
		wants(t, "set again", s.SetConsent(ctx, app), nil)
		list, err := s.Consents(ctx, "ann")
		wants(t, "consents", err, nil)
		same(t, "consents", list, []provider.Consent{app, b})
		wants(t, "add", s.AddGrant(ctx, aGrant("g", "ann"), nil), nil)
		wants(t, "add", s.AddGrant(ctx, aGrant("bobs", "bob"), nil), nil)
		wants(t, "remove", s.RemoveConsent(ctx, "ann", "app"), nil)
		list, err = s.Consents(ctx, "ann")
		wants(t, "consents", err, nil)
		same(t, "consents", list, []provider.Consent{b})
		_, err = s.Grant(ctx, "g", noon)
		wants(t, "its grant", err, provider.ErrNotFound)
		_, err = s.Grant(ctx, "bobs", noon)
		wants(t, "another's grant", err, nil)
	})
}
