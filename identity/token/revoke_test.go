package token_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/token"
)

func TestRevoke(t *testing.T) {
	for name, c := range map[string]struct {
		revoke func(*world, *token.Claims) error
		left   string // which of the other tokens still holds
	}{
		"by jti":     {func(w *world, c *token.Claims) error { return w.RevokeToken(t.Context(), c) }, "both"},
		"by subject": {func(w *world, c *token.Claims) error { return w.RevokeSubject(t.Context(), c.Subject) }, "bob"},
		"by session": {func(w *world, c *token.Claims) error { return w.RevokeSession(t.Context(), c.Session) }, "both"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			ann := issue(t, w.Service, token.Claims{Subject: "ann", Session: "s1"})
			again := issue(t, w.Service, token.Claims{Subject: "ann", Session: "s2"})
			bob := issue(t, w.Service, token.Claims{Subject: "bob", Session: "s3"})
			claims, err := verify(w.Service, ann)
			if err != nil {
				t.Fatal(err)
			}
			id, err := w.Prove(request("Bearer " + ann))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.revoke(w, claims); err != nil {
				t.Fatal(err)
			}
			if _, err := verify(w.Service, ann); reason(t, err) != token.TokenRevoked {
				t.Errorf("at once: %v", err)
			}
			w.Poll(t.Context())
			select {
			case <-id.Done:
			default:
				t.Error("open connections stay")
			}
			if _, err := verify(w.Service, again); (err == nil) != (c.left == "both") {
				t.Errorf("another token of the subject: %v", err)
			}
			if _, err := verify(w.Service, bob); err != nil {
				t.Errorf("another subject: %v", err)
			}
			// Who logs in again in the same second is let in.
			if _, err := verify(w.Service, issue(t, w.Service, token.Claims{Subject: "ann", Session: "s4"})); err != nil {
				t.Errorf("a new token: %v", err)
			}
		})
	}
}

// Trap 54: to revoke what one issuer says about a subject does not touch the
// same text of another.
func TestRevokeAcrossIssuers(t *testing.T) {
	w := newWorld(t, nil)
	own, other := issue(t, w.Service, token.Claims{Subject: "ann", ID: "id-1", Session: "s"}), w.good("ES256")
	if _, err := verify(w.Service, other); err != nil {
		t.Fatal(err)
	}
	if err := w.RevokeSubject(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	if err := w.RevokeToken(t.Context(), &token.Claims{Issuer: ours, ID: "id-1", Expires: w.clock.now().Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(w.Service, own); reason(t, err) != token.TokenRevoked {
		t.Errorf("ours: %v", err)
	}
	if _, err := verify(w.Service, other); err != nil {
		t.Errorf("theirs: %v", err)
	}
	if err := w.RevokeSubject(t.Context(), theirs+"#ann"); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(w.Service, other); reason(t, err) != token.TokenRevoked {
		t.Errorf("theirs, revoked: %v", err)
	}
}

// Every other replica hears of a revocation within a second, whether the store
// can wake it or not.
func TestRevokeOnReplicas(t *testing.T) {
	for name, store := range map[string]token.Store{"woken": token.NewMemory(), "polling": quiet{token.NewMemory()}} {
		t.Run(name, func(t *testing.T) {
			c := token.Config{Issuer: ours, Algorithm: "EdDSA"}
			one, err := token.New(t.Context(), c, masterKey(t), store)
			if err != nil {
				t.Fatal(err)
			}
			two, err := token.New(t.Context(), c, masterKey(t), store)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- two.Run(ctx) }()
			id, err := two.Prove(request("Bearer " + issue(t, one, token.Claims{Subject: "ann"})))
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if err := one.RevokeSubject(t.Context(), "ann"); err != nil {
				t.Fatal(err)
			}
			select {
			case <-id.Done:
				t.Logf("after %s", time.Since(begin).Round(time.Millisecond))
			case <-time.After(time.Second):
				t.Error("not within a second")
			}
			if id, err = two.Prove(request("Bearer " + issue(t, one, token.Claims{Subject: "bob"}))); err != nil {
				t.Fatal(err)
			}
			stop()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			select {
			case <-id.Done: // nobody listens any longer
			default:
				t.Error("what is open stays when Run has ended")
			}
		})
	}
}

// quiet is a store that wakes nobody.
type quiet struct{ token.Store }

// broken is a store that fails when it is told to.
type broken struct {
	*token.Memory
	fails atomic.Bool
}

var errBroken = errors.New("the store is away")

func (b *broken) err() error {
	if b.fails.Load() {
		return errBroken
	}
	return nil
}

func (b *broken) Keys(ctx context.Context) ([]token.SigningKey, error) {
	if err := b.err(); err != nil {
		return nil, err
	}
	return b.Memory.Keys(ctx)
}

func (b *broken) Revoke(ctx context.Context, r token.Revocation, now time.Time) error {
	if err := b.err(); err != nil {
		return err
	}
	return b.Memory.Revoke(ctx, r, now)
}

func (b *broken) Revocations(ctx context.Context, after string, now time.Time) ([]token.Revocation, string, error) {
	if err := b.err(); err != nil {
		return nil, "", err
	}
	return b.Memory.Revocations(ctx, after, now)
}

func (b *broken) Family(ctx context.Context, id string) (token.Family, error) {
	if err := b.err(); err != nil {
		return token.Family{}, err
	}
	return b.Memory.Family(ctx, id)
}

func (b *broken) RotateFamily(ctx context.Context, id string, from, to []byte, now, idle time.Time) error {
	if err := b.err(); err != nil {
		return err
	}
	return b.Memory.RotateFamily(ctx, id, from, to, now, idle)
}

func (b *broken) RevokeFamily(ctx context.Context, id string) error {
	if err := b.err(); err != nil {
		return err
	}
	return b.Memory.RevokeFamily(ctx, id)
}

// Who does not hear what was revoked lets nobody in any longer after a minute.
func TestStoreAway(t *testing.T) {
	store := &broken{Memory: token.NewMemory()}
	s, err := token.New(t.Context(), token.Config{Issuer: ours, Algorithm: "EdDSA"}, masterKey(t), store)
	if err != nil {
		t.Fatal(err)
	}
	var clock clock
	s.SetNow(clock.now)
	tok := issue(t, s, token.Claims{Subject: "ann"})
	other := issue(t, s, token.Claims{Subject: "bob"})
	store.fails.Store(true)
	clock.move(50 * time.Second)
	s.Poll(t.Context())
	if _, err := verify(s, tok); err != nil {
		t.Errorf("after 50 s: %v", err)
	}
	// It holds here at once all the same.
	if err := s.RevokeSubject(t.Context(), "bob"); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
	if _, err := verify(s, other); reason(t, err) != token.TokenRevoked {
		t.Errorf("revoked while the store is away: %v", err)
	}
	clock.move(20 * time.Second)
	s.Poll(t.Context())
	if _, err := verify(s, tok); reason(t, err) != token.TokenUnavailable || !errors.Is(err, errBroken) {
		t.Errorf("after 70 s: %v", err)
	}
	if len(s.Findings()) == 0 {
		t.Error("nothing is found to be wrong")
	}
	store.fails.Store(false)
	s.Poll(t.Context())
	if _, err := verify(s, tok); err != nil {
		t.Errorf("back again: %v", err)
	}
	store.fails.Store(true)
	if _, err := token.New(t.Context(), token.Config{}, masterKey(t), store); !errors.Is(err, errBroken) {
		t.Errorf("started without a store: %v", err)
	}
}
