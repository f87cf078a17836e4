package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/token"
	"github.com/merlon-dev/merlon/internal/store"
)

func TestSigningKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Tokens()
		key := func(id string, from int) token.SigningKey {
			return token.SigningKey{ID: id, Algorithm: "RS256", Sealed: []byte("sealed"), Created: noon, SignFrom: noon.Add(time.Duration(from) * time.Hour)}
		}
		wants(t, "after one that is not there", s.AddKey(ctx, key("a", 0), "x"), token.ErrMoved)
		won := race(t, open, token.ErrMoved, func(db *store.DB, n int) error {
			return db.Tokens().AddKey(context.Background(), key(fmt.Sprint("first", n), 0), "")
		})
		keys, err := s.Keys(ctx)
		if err != nil || won != 1 || len(keys) != 1 {
			t.Fatalf("%d won, %d keys, %v", won, len(keys), err)
		}
		wants(t, "next", s.AddKey(ctx, key("next", 1), keys[0].ID), nil)
		wants(t, "next again", s.AddKey(ctx, key("again", 1), keys[0].ID), token.ErrMoved)
		want := append(keys, key("next", 1))
		keys, err = s.Keys(ctx)
		wants(t, "keys", err, nil)
		same(t, "keys", keys, want)
		wants(t, "drop", s.DropKey(ctx, want[0].ID), nil)
		wants(t, "drop again", s.DropKey(ctx, want[0].ID), nil)
		keys, err = s.Keys(ctx)
		wants(t, "keys", err, nil)
		same(t, "keys", keys, want[1:])
	})
}

func TestRevocations(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Tokens()
		list := func(after string, now time.Time) ([]token.Revocation, string) {
			t.Helper()
			rs, next, err := s.Revocations(ctx, after, now)
			wants(t, "revocations", err, nil)
			return rs, next
		}
		rs, cursor := list("", noon)
		if len(rs) > 0 {
			t.Errorf("got %v", rs)
		}
		of := token.Revocation{Kind: token.OfSubject, Issuer: "i", ID: "ann", Before: noon, Expires: noon.Add(time.Hour)}
		wants(t, "revoke", s.Revoke(ctx, of, noon), nil)
		rs, cursor = list(cursor, noon)
		same(t, "first", rs, []token.Revocation{of})
		one := token.Revocation{Kind: token.OfToken, Issuer: "i", ID: "ann", Expires: noon.Add(time.Minute)}
		wants(t, "revoke", s.Revoke(ctx, one, noon), nil)
		other := one
		other.Issuer = "j" // trap 54
		wants(t, "revoke", s.Revoke(ctx, other, noon), nil)
		rs, cursor = list(cursor, noon)
		same(t, "how many are new", len(rs), 2)
		// Widened, never narrowed.
		narrow := of
		narrow.Before, narrow.Expires = noon.Add(time.Minute), noon.Add(time.Minute)
		wants(t, "revoke", s.Revoke(ctx, narrow, noon), nil)
		rs, cursor = list(cursor, noon)
		of.Before = narrow.Before
		same(t, "widened", rs, []token.Revocation{of})
		rs, _ = list(cursor, noon)
		same(t, "nothing new", len(rs), 0)
		rs, _ = list("", noon.Add(time.Minute))
		same(t, "what has not expired", rs, []token.Revocation{of})
		for _, bad := range []string{"999999", "x"} { // of a database that was put back
			rs, next := list(bad, noon)
			same(t, "all again", len(rs), 3)
			same(t, "cursor", next, cursor)
		}
	})
}

// Whoever follows the cursor sees every revocation, in whatever order
// transactions end.
func TestNoRevocationIsSkipped(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx := t.Context()
		reader := open().Tokens()
		seen := map[string]bool{}
		done := make(chan struct{})
		var follow sync.WaitGroup
		follow.Go(func() {
			cursor := ""
			for last := false; ; {
				rs, next, err := reader.Revocations(ctx, cursor, noon)
				if err != nil {
					t.Error(err)
					return
				}
				cursor = next
				for _, r := range rs {
					seen[r.ID] = true
				}
				if last {
					return
				}
				select {
				case <-done:
					last = true
				default:
				}
			}
		})
		won := race(t, open, nil, func(db *store.DB, n int) error {
			for i := range 4 {
				r := token.Revocation{Kind: token.OfToken, ID: fmt.Sprint(n, "-", i), Expires: noon.Add(time.Hour)}
				if err := db.Tokens().Revoke(context.Background(), r, noon); err != nil {
					return err
				}
			}
			return nil
		})
		close(done)
		follow.Wait()
		if won != 50 || len(seen) != 200 {
			t.Errorf("%d writers, %d of 200 seen", won, len(seen))
		}
	})
}

func aFamily(id string) token.Family {
	return token.Family{
		ID: id, Hash: []byte("0"), Started: noon, Idle: noon.Add(time.Hour), Expires: noon.Add(24 * time.Hour),
		Grant: token.Grant{Subject: "ann", Client: "app", Session: "s1", Audience: []string{"api"}, Scopes: []string{"a", "b"}, Methods: []string{"totp"}, AuthTime: noon},
	}
}

func TestFamilies(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Tokens()
		f := aFamily("f")
		wants(t, "add", s.AddFamily(ctx, f), nil)
		got, err := s.Family(ctx, "f")
		wants(t, "family", err, nil)
		same(t, "family", got, f)
		_, err = s.Family(ctx, "x")
		wants(t, "another", err, token.ErrNotFound)

		// Trap 56: of two tabs one is heard.
		won := race(t, open, token.ErrMoved, func(db *store.DB, n int) error {
			return db.Tokens().RotateFamily(context.Background(), "f", []byte("0"), []byte{1, byte(n)}, noon.Add(time.Minute), noon.Add(2*time.Hour))
		})
		got, err = s.Family(ctx, "f")
		if err != nil || won != 1 || got.Generation != 1 || string(got.Previous) != "0" || got.Hash[0] != 1 ||
			!got.Rotated.Equal(noon.Add(time.Minute)) || !got.Idle.Equal(noon.Add(2*time.Hour)) {
			t.Errorf("%d won: %+v, %v", won, got, err)
		}
		wants(t, "revoke", s.RevokeFamily(ctx, "f"), nil)
		wants(t, "revoke one that is gone", s.RevokeFamily(ctx, "x"), nil)
		wants(t, "trap 56: rotating what is revoked", s.RotateFamily(ctx, "f", got.Hash, []byte("2"), noon, noon), token.ErrMoved)
		wants(t, "rotating what is gone", s.RotateFamily(ctx, "x", got.Hash, []byte("2"), noon, noon), token.ErrMoved)

		others := aFamily("bob")
		others.Grant.Subject, others.Grant.Session = "bob", "s2"
		anns := aFamily("g")
		wants(t, "add", s.AddFamily(ctx, others), nil)
		wants(t, "add", s.AddFamily(ctx, anns), nil)
		revoked := func(id string) bool {
			f, err := s.Family(ctx, id)
			wants(t, id, err, nil)
			return f.Revoked
		}
		wants(t, "revoke nobody's", s.RevokeFamilies(ctx, "", ""), nil)
		if revoked("g") || revoked("bob") {
			t.Error("nobody's were everybody's")
		}
		wants(t, "revoke ann's", s.RevokeFamilies(ctx, "ann", ""), nil)
		if !revoked("g") || revoked("bob") {
			t.Error("not ann's alone")
		}
		wants(t, "revoke a session's", s.RevokeFamilies(ctx, "", "s2"), nil)
		if !revoked("bob") {
			t.Error("the session's goes on")
		}
		late := aFamily("late")
		late.Started = f.Expires
		wants(t, "add", s.AddFamily(ctx, late), nil)
		_, err = s.Family(ctx, "f")
		wants(t, "what has expired", err, token.ErrNotFound)
	})
}

func TestReplicasAreWoken(t *testing.T) {
	open := inServer(t)
	one, other := open().Tokens(), open().Tokens()
	woken := make(chan struct{}, 10)
	go func() { _ = other.OnRevoke(t.Context(), func() { woken <- struct{}{} }) }()
	wait := func() {
		t.Helper()
		select {
		case <-woken:
		case <-time.After(10 * time.Second):
			t.Fatal("not woken")
		}
	}
	wait() // once it listens
	wants(t, "revoke", one.Revoke(t.Context(), token.Revocation{Kind: token.OfToken, ID: "x", Expires: noon.Add(time.Hour)}, noon), nil)
	wait()
}
