package token_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/token"
)

func TestMemory(t *testing.T) {
	testStore(t, func(*testing.T) token.Store { return token.NewMemory() })
}

// testStore tests every promise of [token.Store] against a fresh store.
func testStore(t *testing.T, open func(*testing.T) token.Store) {
	now := time.Now().Truncate(time.Second)
	t.Run("of two next keys one is added", func(t *testing.T) {
		s := open(t)
		var added atomic.Int64
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				k := token.SigningKey{ID: fmt.Sprint(i), Algorithm: "ES256", Sealed: []byte{1, 0, 255}, Created: now, SignFrom: now}
				switch err := s.AddKey(t.Context(), k, ""); {
				case err == nil:
					added.Add(1)
				case !errors.Is(err, token.ErrMoved):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		keys, err := s.Keys(t.Context())
		if err != nil || added.Load() != 1 || len(keys) != 1 || !keys[0].SignFrom.Equal(now) || !bytes.Equal(keys[0].Sealed, []byte{1, 0, 255}) {
			t.Fatalf("%d added; %+v, %v", added.Load(), keys, err)
		}
		next := token.SigningKey{ID: "next", Algorithm: "RS256", Sealed: []byte{2}, Created: now, SignFrom: now.Add(time.Hour)}
		if err := s.AddKey(t.Context(), next, "nobody"); !errors.Is(err, token.ErrMoved) {
			t.Errorf("after another: %v", err)
		}
		if err := s.AddKey(t.Context(), next, keys[0].ID); err != nil {
			t.Error(err)
		}
		if keys, _ = s.Keys(t.Context()); len(keys) != 2 || keys[1].ID != "next" {
			t.Errorf("got %+v", keys)
		}
		for range 2 {
			if err := s.DropKey(t.Context(), keys[0].ID); err != nil {
				t.Error(err)
			}
		}
		if keys, _ = s.Keys(t.Context()); len(keys) != 1 {
			t.Errorf("got %+v", keys)
		}
	})
	t.Run("no revocation is skipped", func(t *testing.T) {
		s := open(t)
		seen := make(map[string]bool)
		var cursor string
		look := func() {
			rs, next, err := s.Revocations(t.Context(), cursor, now)
			if err != nil {
				t.Error(err)
			}
			cursor = next
			for _, r := range rs {
				seen[r.ID] = true
			}
		}
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 25 {
					r := token.Revocation{Kind: token.OfToken, ID: fmt.Sprint(g, i), Expires: now.Add(time.Hour)}
					if err := s.Revoke(t.Context(), r, now); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 20 {
			look()
		}
		wg.Wait()
		look()
		if len(seen) != 100 {
			t.Errorf("%d of 100 were seen", len(seen))
		}
	})
	t.Run("revocations are widened and expire", func(t *testing.T) { testRevocations(t, open(t), now) })
	t.Run("what has expired may be forgotten, nothing else", func(t *testing.T) {
		s := open(t)
		for _, f := range []token.Family{
			{ID: "old", Hash: []byte("a"), Started: now, Idle: now.Add(time.Hour), Expires: now.Add(time.Hour)},
			{ID: "long", Hash: []byte("b"), Started: now, Idle: now.Add(time.Hour), Expires: now.Add(9 * time.Hour)},
			{ID: "new", Hash: []byte("c"), Started: now.Add(2 * time.Hour), Idle: now.Add(3 * time.Hour), Expires: now.Add(4 * time.Hour)},
		} {
			if err := s.AddFamily(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range []string{"long", "new"} {
			if _, err := s.Family(t.Context(), id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
	t.Run("families", func(t *testing.T) { testFamilies(t, open(t), now) })
}

func testRevocations(t *testing.T, s token.Store, now time.Time) {
	subject := token.Revocation{Kind: token.OfSubject, Issuer: "i", ID: "ann", Before: now, Expires: now.Add(time.Hour)}
	if err := s.Revoke(t.Context(), subject, now); err != nil {
		t.Fatal(err)
	}
	rs, cursor, err := s.Revocations(t.Context(), "", now)
	if err != nil || len(rs) != 1 || !rs[0].Before.Equal(now) || rs[0].Issuer != "i" {
		t.Fatalf("%+v, %v", rs, err)
	}
	narrow, wide := subject, subject
	narrow.Before, narrow.Expires = now.Add(-time.Hour), now.Add(time.Minute)
	wide.Before, wide.Expires = now.Add(time.Second), now.Add(2*time.Hour)
	for _, r := range []token.Revocation{narrow, wide} {
		if err := s.Revoke(t.Context(), r, now); err != nil {
			t.Fatal(err)
		}
	}
	rs, _, err = s.Revocations(t.Context(), cursor, now)
	if err != nil || !slices.ContainsFunc(rs, func(r token.Revocation) bool {
		return r.Before.Equal(wide.Before) && r.Expires.Equal(wide.Expires)
	}) {
		t.Errorf("%+v, %v", rs, err)
	}
	if rs, _, err = s.Revocations(t.Context(), "", now.Add(3*time.Hour)); err != nil || len(rs) != 0 {
		t.Errorf("expired: %+v, %v", rs, err)
	}
}

func testFamilies(t *testing.T, s token.Store, now time.Time) {
	g := token.Grant{
		Subject: "ann", Client: "app", Session: "s1", Audience: []string{"a"}, Scopes: []string{"r", "w"},
		Methods: []string{"password"}, AuthTime: now,
	}
	f := token.Family{ID: "f1", Hash: []byte("h0"), Rotated: now, Started: now, Idle: now.Add(time.Hour), Expires: now.Add(2 * time.Hour), Grant: g}
	if _, err := s.Family(t.Context(), "f1"); !errors.Is(err, token.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	for _, id := range []string{"f1", "f2", "f3"} {
		f.ID = id
		if id == "f3" {
			f.Grant.Subject, f.Grant.Session = "bob", "s2"
		}
		if err := s.AddFamily(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			switch err := s.RotateFamily(t.Context(), "f1", []byte("h0"), fmt.Append(nil, "h1-", i), now.Add(time.Minute), now.Add(90*time.Minute)); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, token.ErrMoved):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := s.Family(t.Context(), "f1")
	if err != nil || won.Load() != 1 || got.Generation != 1 || string(got.Previous) != "h0" || !bytes.HasPrefix(got.Hash, []byte("h1-")) ||
		!got.Rotated.Equal(now.Add(time.Minute)) || !got.Idle.Equal(now.Add(90*time.Minute)) || !got.Expires.Equal(now.Add(2*time.Hour)) {
		t.Errorf("%d won; %+v, %v", won.Load(), got, err)
	}
	if !slices.Equal(got.Grant.Scopes, g.Scopes) || !slices.Equal(got.Grant.Methods, g.Methods) || !slices.Equal(got.Grant.Audience, g.Audience) ||
		!got.Grant.AuthTime.Equal(now) || got.Grant.Client != "app" {
		t.Errorf("grant %+v", got.Grant)
	}
	revoked := func(want ...bool) {
		t.Helper()
		for i, want := range want {
			if f, err := s.Family(t.Context(), fmt.Sprint("f", i+1)); err != nil || f.Revoked != want {
				t.Errorf("f%d: %v, %v", i+1, f.Revoked, err)
			}
		}
	}
	if err := s.RevokeFamily(t.Context(), "f1"); err != nil {
		t.Error(err)
	}
	revoked(true, false, false)
	if err := s.RotateFamily(t.Context(), "f1", got.Hash, []byte("h2"), now, now); !errors.Is(err, token.ErrMoved) {
		t.Errorf("a revoked family moves on: %v", err)
	}
	if err := s.RevokeFamilies(t.Context(), "ann", ""); err != nil {
		t.Error(err)
	}
	revoked(true, true, false)
	if err := s.RevokeFamilies(t.Context(), "", "s2"); err != nil {
		t.Error(err)
	}
	revoked(true, true, true)
	if err := errors.Join(s.RevokeFamily(t.Context(), "gone"), s.RevokeFamilies(t.Context(), "gone", "")); err != nil {
		t.Error(err)
	}
}
