package token_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/token"
)

func start(t testing.TB, w *world) token.Refresh {
	t.Helper()
	r, err := w.StartRefresh(t.Context(), token.Grant{Subject: "ann", Client: "app", Session: "s1", Scopes: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func use(t testing.TB, s *token.Service, secret string) token.Refresh {
	t.Helper()
	g, r, err := s.UseRefresh(t.Context(), secret, "app")
	if err != nil {
		t.Fatal(err)
	}
	if g.Subject != "ann" || g.Session != "s1" || r.Secret == secret {
		t.Fatalf("%+v, %+v", g, r)
	}
	return r
}

func useReason(t testing.TB, s *token.Service, secret, client string) merlon.Reason {
	t.Helper()
	g, r, err := s.UseRefresh(t.Context(), secret, client)
	if err != nil && (r.Secret != "" || g.Subject != "") {
		t.Errorf("refused with something in hand: %+v, %+v", g, r)
	}
	return reason(t, err)
}

func TestRefresh(t *testing.T) {
	w := newWorld(t, nil)
	r := start(t, w)
	for range 5 {
		r = use(t, w.Service, r.Secret)
		w.clock.move(10 * time.Minute)
	}
	for name, g := range map[string]token.Grant{"no subject": {Client: "app"}, "no client": {Subject: "ann"}} {
		if _, err := w.StartRefresh(t.Context(), g); err == nil {
			t.Error(name)
		}
	}
}

// Trap 56: a secret that comes back ends the family, with an event for its owner.
func TestReuse(t *testing.T) {
	for name, after := range map[string]int{"the one before": 1, "an old one": 3} {
		w := newWorld(t, nil)
		first := start(t, w)
		r := first
		for range after {
			w.clock.move(11 * time.Second)
			r = use(t, w.Service, r.Secret)
		}
		w.clock.move(11 * time.Second)
		_, _, err := w.UseRefresh(t.Context(), first.Secret, "app")
		e, ok := errors.AsType[*token.Error](err)
		if !ok || e.Why != token.RefreshReused || e.Family != first.Family || e.Subject != "ann" {
			t.Errorf("%s: %+v", name, e)
		}
		if got := useReason(t, w.Service, r.Secret, "app"); got != token.RefreshUnknown {
			t.Errorf("%s: the thief's, or the victim's: %s", name, got)
		}
	}
}

// Trap 56: the thief is first, the victim second: both are out.
func TestStolen(t *testing.T) {
	w := newWorld(t, nil)
	stolen := start(t, w).Secret
	thief := use(t, w.Service, stolen)
	w.clock.move(time.Minute)
	if got := useReason(t, w.Service, stolen, "app"); got != token.RefreshReused {
		t.Errorf("the victim: %s", got)
	}
	if got := useReason(t, w.Service, thief.Secret, "app"); got != token.RefreshUnknown {
		t.Errorf("the thief: %s", got)
	}
}

// Trap 56: two tabs that refresh at once get the same successor, on whatever
// replica they arrive, and go on from it together.
func TestTwoTabs(t *testing.T) {
	w := newWorld(t, nil)
	other := w.open(t, token.Config{Issuer: ours, Algorithm: "EdDSA"})
	r := start(t, w)
	for round := range 5 {
		got := make([]string, 16)
		var wg sync.WaitGroup
		for i := range got {
			s := w.Service
			if i%2 == 1 {
				s = other
			}
			wg.Go(func() {
				_, next, err := s.UseRefresh(context.Background(), r.Secret, "app")
				if err != nil {
					t.Error(err)
				}
				got[i] = next.Secret
			})
		}
		wg.Wait()
		for i := range got {
			if got[i] != got[0] {
				t.Fatalf("round %d: a fork", round)
			}
		}
		r.Secret = got[0]
	}
	f, err := w.store.Family(t.Context(), r.Family)
	if err != nil || f.Generation != 5 {
		t.Errorf("%+v, %v", f, err)
	}
	// The one before the one before has no grace, however fast it comes.
	a := use(t, w.Service, r.Secret)
	use(t, w.Service, a.Secret)
	if got := useReason(t, w.Service, r.Secret, "app"); got != token.RefreshReused {
		t.Errorf("two behind: %s", got)
	}
}

// Trap 56: the absolute end beats the sliding one.
func TestExpiry(t *testing.T) {
	w := newWorld(t, func(c *token.Config) {
		c.Refresh = token.RefreshConfig{Absolute: 2 * time.Hour, Idle: 50 * time.Minute}
	})
	begin := w.clock.now()
	r := start(t, w)
	for range 2 {
		w.clock.move(45 * time.Minute)
		r = use(t, w.Service, r.Secret)
	}
	if end := begin.Add(2 * time.Hour); r.Expires.After(end.Add(time.Second)) {
		t.Errorf("ends %s, after %s", r.Expires, end)
	}
	w.clock.move(31 * time.Minute)
	if got := useReason(t, w.Service, r.Secret, "app"); got != token.RefreshExpired {
		t.Errorf("after the absolute end: %s", got)
	}
	idle := start(t, w)
	w.clock.move(51 * time.Minute)
	if got := useReason(t, w.Service, idle.Secret, "app"); got != token.RefreshExpired {
		t.Errorf("idle: %s", got)
	}
	// Within the grace, but after the end.
	last := start(t, w)
	w.clock.move(45 * time.Minute)
	b := use(t, w.Service, last.Secret)
	w.clock.move(45 * time.Minute)
	c := use(t, w.Service, b.Secret)
	w.clock.move(30*time.Minute - 3*time.Second)
	use(t, w.Service, c.Secret)
	w.clock.move(4 * time.Second)
	if got := useReason(t, w.Service, c.Secret, "app"); got != token.RefreshExpired {
		t.Errorf("grace after the end: %s", got)
	}
}

// Trap 56: what ends a session ends its refresh secrets, in the grace also.
func TestRefreshAfterLogout(t *testing.T) {
	for name, end := range map[string]func(*world, token.Refresh) error{
		"session": func(w *world, _ token.Refresh) error { return w.RevokeSession(t.Context(), "s1") },
		"subject": func(w *world, _ token.Refresh) error { return w.RevokeSubject(t.Context(), "ann") },
		"client":  func(w *world, r token.Refresh) error { return w.EndRefresh(t.Context(), r.Secret, "app") },
	} {
		w := newWorld(t, nil)
		first := start(t, w)
		second := use(t, w.Service, first.Secret)
		if err := w.EndRefresh(t.Context(), second.Secret, "another"); err != nil {
			t.Error(err)
		}
		if f, err := w.store.Family(t.Context(), first.Family); err != nil || f.Revoked {
			t.Errorf("another client ended it: %v", err)
		}
		if err := end(w, second); err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{first.Secret, second.Secret} {
			if got := useReason(t, w.Service, secret, "app"); got != token.RefreshUnknown {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
	w := newWorld(t, nil)
	if err := w.EndRefresh(t.Context(), "mr_nonsense", "app"); err != nil {
		t.Error(err)
	}
}

// Trap 56: bound to the client; whoever else has it has stolen it.
func TestOtherClient(t *testing.T) {
	w := newWorld(t, nil)
	r := start(t, w)
	if got := useReason(t, w.Service, r.Secret, "evil"); got != token.RefreshClient {
		t.Error(got)
	}
	if got := useReason(t, w.Service, r.Secret, "app"); got != token.RefreshUnknown {
		t.Error(got)
	}
}

// Trap 56: a guess, or a changed secret, neither holds nor revokes anything.
func TestGuesses(t *testing.T) {
	w := newWorld(t, nil)
	r := start(t, w)
	head, seal, _ := strings.Cut(r.Secret, ".")
	parts := strings.SplitN(head, "_", 4)
	for _, guess := range []string{
		"", "mr_", "mr_.", r.Secret + "A", r.Secret[:len(r.Secret)-1], head, head + ".",
		"mr_" + parts[1] + "_1_" + parts[3] + "." + seal,
		"mr_" + parts[1] + "_0_" + strings.Repeat("A", 43) + "." + seal,
		"mr_AAAA_0_" + parts[3] + "." + seal,
		head + "." + strings.Repeat("A", 43),
		strings.Repeat("mr_", 100_000),
	} {
		if got := useReason(t, w.Service, guess, "app"); got != token.RefreshUnknown {
			t.Errorf("%.80s: %s", guess, got)
		}
	}
	use(t, w.Service, r.Secret)
	// Trap 56: not accepted as an access token.
	if _, err := verify(w.Service, r.Secret); reason(t, err) != token.TokenType {
		t.Errorf("as an access token: %v", err)
	}
	if _, err := w.Prove(request("Bearer " + r.Secret)); reason(t, err) != token.TokenType {
		t.Errorf("as an access token: %v", err)
	}
	// And an access token is no refresh secret.
	if got := useReason(t, w.Service, issue(t, w.Service, token.Claims{}), "app"); got != token.RefreshUnknown {
		t.Error(got)
	}
}

// Trap 56: nothing that is stored is a secret, or a step to one.
func TestStoredHashed(t *testing.T) {
	w := newWorld(t, nil)
	r := start(t, w)
	next := use(t, w.Service, r.Secret)
	f, err := w.store.Family(t.Context(), r.Family)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{r.Secret, next.Secret} {
		head, seal, _ := strings.Cut(s, ".")
		_, secret, _ := strings.Cut(strings.TrimPrefix(head, "mr_"+r.Family+"_"), "_")
		raw, err := b64.DecodeString(secret)
		if err != nil || len(raw) != 32 {
			t.Fatalf("%q: %v", secret, err)
		}
		if bytes.Contains(b, []byte(secret)) || bytes.Contains(b, []byte(seal)) {
			t.Error("a secret is stored")
		}
	}
	sum := sha256.Sum256([]byte(next.Secret))
	if !bytes.Equal(f.Hash, sum[:]) {
		t.Error("the hash is another")
	}
}

// Trap 56: a store that lost a rotation, or is away, lets nobody go on.
func TestStoreLosesRotation(t *testing.T) {
	w := newWorld(t, nil)
	r := start(t, w)
	before, err := w.store.Family(t.Context(), r.Family)
	if err != nil {
		t.Fatal(err)
	}
	a := use(t, w.Service, r.Secret)
	b := use(t, w.Service, a.Secret)
	if err := w.store.AddFamily(t.Context(), before); err != nil { // the failover
		t.Fatal(err)
	}
	_, _, err = w.UseRefresh(t.Context(), b.Secret, "app")
	if got := reason(t, err); got != token.RefreshLost {
		t.Errorf("got %v", err)
	}
	for _, s := range []string{r.Secret, a.Secret, b.Secret} {
		if got := useReason(t, w.Service, s, "app"); got != token.RefreshUnknown {
			t.Error(got)
		}
	}

	store := &broken{Memory: token.NewMemory()}
	s, err := token.New(t.Context(), token.Config{}, masterKey(t), store)
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.StartRefresh(t.Context(), token.Grant{Subject: "ann", Client: "app", Session: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	store.fails.Store(true)
	if g, next, err := s.UseRefresh(t.Context(), first.Secret, "app"); !errors.Is(err, errBroken) || next.Secret != "" || g.Subject != "" {
		t.Errorf("%+v, %+v, %v", g, next, err)
	}
	store.fails.Store(false)
	use(t, s, first.Secret)
	// Found as reused, but the store cannot be told: refused all the same, and said.
	later := &stuck{Store: store}
	s2, err := token.New(t.Context(), token.Config{}, masterKey(t), later)
	if err != nil {
		t.Fatal(err)
	}
	s2.SetNow(func() time.Time { return time.Now().Add(time.Minute) })
	_, _, err = s2.UseRefresh(t.Context(), first.Secret, "app")
	if reason(t, err) != token.RefreshReused || !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

// stuck is a store that cannot revoke a family.
type stuck struct{ token.Store }

func (stuck) RevokeFamily(context.Context, string) error { return errBroken }
