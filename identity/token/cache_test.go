package token_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/token"
)

// However many tokens come, no more are remembered than that; each that is
// forgotten closes what is open with it, and holds if it comes again.
func TestCacheIsBounded(t *testing.T) {
	w := newWorld(t, func(c *token.Config) { c.Cache = 16 })
	var open []<-chan struct{}
	var first string
	for i := range 200 {
		tok := issue(t, w.Service, token.Claims{Subject: fmt.Sprint("u", i)})
		if i == 0 {
			first = tok
		}
		id, err := w.Prove(request("Bearer " + tok))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, id.Done)
		if n := w.Cached(); n > 16 {
			t.Fatalf("%d are remembered", n)
		}
	}
	closed := 0
	for _, done := range open {
		select {
		case <-done:
			closed++
		default:
		}
	}
	if closed != 200-16 {
		t.Errorf("%d were closed", closed)
	}
	if _, err := verify(w.Service, first); err != nil {
		t.Error(err)
	}
}

// Done is closed when the token expires, and the token is refused from then on.
func TestDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := token.New(t.Context(), token.Config{Issuer: ours, Algorithm: "EdDSA"}, masterKey(t), token.NewMemory())
		if err != nil {
			t.Fatal(err)
		}
		tok, expires, err := s.Issue(t.Context(), token.Claims{Subject: "ann", Expires: time.Now().Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		id, err := s.Prove(request("Bearer " + tok))
		if err != nil {
			t.Fatal(err)
		}
		<-id.Done
		if late := time.Since(expires); late < 0 || late > time.Minute {
			t.Errorf("closed %s after the end", late)
		}
		s.Poll(t.Context())
		if _, err := verify(s, tok); reason(t, err) != token.TokenExpired {
			t.Errorf("got %v", err)
		}
		if s.Cached() != 0 {
			t.Error("is still remembered")
		}
	})
}

// A token that is remembered expires by the clock, not by when it is forgotten.
func TestRememberedExpires(t *testing.T) {
	w := newWorld(t, nil)
	tok := issue(t, w.Service, token.Claims{})
	if _, err := verify(w.Service, tok); err != nil {
		t.Fatal(err)
	}
	w.clock.move(6*time.Minute + time.Second)
	w.Poll(t.Context())
	if _, err := verify(w.Service, tok); reason(t, err) != token.TokenExpired {
		t.Errorf("got %v", err)
	}
}

// Who proves and revokes at once sees no token hold after it was revoked.
func TestRaces(t *testing.T) {
	w := newWorld(t, func(c *token.Config) { c.Cache = 32 })
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 30 {
				sub := fmt.Sprint(g, "-", i)
				tok, _, err := w.Issue(t.Context(), token.Claims{Subject: sub})
				if err != nil {
					t.Error(err)
					return
				}
				r := request("Bearer " + tok)
				if _, err := w.Prove(r); err != nil {
					t.Error(err)
				}
				if err := w.RevokeSubject(t.Context(), sub); err != nil {
					t.Error(err)
				}
				if _, err := w.Prove(r); reason(t, err) != token.TokenRevoked {
					t.Errorf("got %v", err)
				}
				w.Poll(t.Context())
			}
		})
	}
	wg.Wait()
}

// An identity that one request was given can be changed without another's notice.
func TestIdentityIsOnesOwn(t *testing.T) {
	w := newWorld(t, nil)
	r := request("Bearer " + issue(t, w.Service, token.Claims{Subject: "ann"}))
	a, err := w.Prove(r)
	if err != nil {
		t.Fatal(err)
	}
	a.Subject = "mallory"
	if b, err := w.Prove(r); err != nil || b.Subject != "ann" {
		t.Errorf("%+v, %v", b, err)
	}
}

// The gate hears why, and no more than a word of it reaches the client.
func TestErrorText(t *testing.T) {
	w := newWorld(t, nil)
	tok := w.good("ES256")
	_, err := w.Prove(request("Bearer " + tok + "x"))
	if err == nil || strings.Contains(err.Error(), tok) {
		t.Errorf("got %v", err)
	}
	var _ merlon.Prover = w.Service
}
