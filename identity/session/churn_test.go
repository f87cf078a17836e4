package session_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/session"
)

// Whatever many do at once to one account's sessions on two replicas: who logs
// out is out, everywhere, and there are never more than may be.
func TestChurn(t *testing.T) {
	people := &people{are: map[string]account.Account{"ann": {ID: "ann"}}}
	store := session.NewMemory(0)
	var replicas []*session.Manager
	for range 2 {
		m, err := session.New(session.Config{AtMost: 4}, store, people)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		replicas = append(replicas, m)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			for ctx.Err() == nil {
				live(t, rng, replicas)
			}
		})
	}
	wg.Go(func() { // groups that come and go
		for n := 0; ctx.Err() == nil; n++ {
			people.change("ann", func(a *account.Account) { a.Groups = []string{"staff"}[:n%2] })
			replicas[n%2].Forget("ann")
			time.Sleep(10 * time.Millisecond)
		}
	})
	wg.Wait()
	if l, err := store.List(t.Context(), "ann", time.Now()); err != nil || len(l) > 4 {
		t.Errorf("%d sessions, want at most 4: %v", len(l), err)
	}
}

// live logs in, does something and logs out.
func live(t *testing.T, rng *rand.Rand, replicas []*session.Manager) {
	any := func() *session.Manager { return replicas[rng.IntN(len(replicas))] }
	ended := func(err error) bool {
		e, ok := errors.AsType[*session.Error](err)
		return ok && e.Reason == session.Ended
	}
	s, c, err := any().Begin(request(), session.Proof{Account: "ann", Methods: []string{"password"}})
	if err != nil {
		t.Error(err)
		return
	}
	cookies := []*http.Cookie{c}
	var dones []<-chan struct{}
	for range rng.IntN(6) {
		var id *merlon.Identity
		var next *http.Cookie
		switch rng.IntN(3) {
		case 0:
			if id, err = any().Prove(request(c)); err == nil {
				dones = append(dones, id.Done)
			}
		case 1:
			_, next, err = any().StepUp(request(c), session.Proof{Account: "ann", Methods: []string{"password"}})
		case 2:
			next, err = any().Renew(request(c))
		}
		if err != nil && !ended(err) {
			t.Error(err)
		}
		if next != nil {
			c = next
			cookies = append(cookies, c)
		}
	}
	if err := any().End(request(c)); err != nil {
		t.Error(err)
	}
	// A session that was one too many has nothing that logging out could find.
	if err := any().EndOne(t.Context(), "ann", s.ID); err != nil && !errors.Is(err, session.ErrNotFound) {
		t.Error(err)
	}
	// Who else ended it, because it was one too many, may still be telling.
	deadline := time.Now().Add(1200 * time.Millisecond)
	for i, c := range cookies {
		for _, m := range replicas {
			_, err := m.Prove(request(c))
			for ; err == nil && time.Now().Before(deadline); _, err = m.Prove(request(c)) {
				time.Sleep(time.Millisecond)
			}
			if !ended(err) {
				t.Errorf("id %d of %d after the log-out: %v", i+1, len(cookies), err)
			}
		}
	}
	for _, done := range dones {
		select {
		case <-done:
		case <-time.After(2 * time.Second):
			t.Error("a connection does not know that it is over")
		}
	}
}
