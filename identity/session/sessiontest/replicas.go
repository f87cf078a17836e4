package sessiontest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/session"
)

// ann is the one account that there is; her groups come and go.
type ann struct {
	mu     sync.Mutex
	groups []string
}

func (a *ann) Account(_ context.Context, id string) (account.Account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if id != "ann" {
		return account.Account{}, account.ErrNotFound
	}
	return account.Account{ID: "ann", Groups: a.groups}, nil
}

func (a *ann) setGroups(groups ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.groups = groups
}

// TestReplicas lets many do everything at once to one account's sessions on
// two replicas. Who logs out is out, everywhere and within a second, also with
// connections that are open; and there are never more than may be.
func TestReplicas(t *testing.T, open Open) {
	accounts := &ann{}
	one, other := open(t)
	var replicas []*session.Manager
	for _, store := range []session.Store{one, other} {
		m, err := session.New(session.Config{AtMost: 4}, store, accounts)
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
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			accounts.setGroups([]string{"staff"}[:n%2]...)
			replicas[n%2].Forget("ann")
			time.Sleep(10 * time.Millisecond)
		}
	})
	wg.Wait()
	if l, err := one.List(t.Context(), "ann", time.Now()); err != nil || len(l) > 4 {
		t.Errorf("%d sessions, want at most 4: %v", len(l), err)
	}
}

// request returns a request that is under way until the test ends.
func request(t *testing.T, c *http.Cookie) *merlon.Request {
	hr := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://shop.example/", nil)
	if c != nil {
		hr.AddCookie(c)
	}
	return merlon.NewRequest(hr)
}

// live logs in, does something and logs out.
func live(t *testing.T, rng *rand.Rand, replicas []*session.Manager) {
	some := func() *session.Manager { return replicas[rng.IntN(len(replicas))] }
	ended := func(err error) bool {
		e, ok := errors.AsType[*session.Error](err)
		return ok && e.Reason == session.Ended
	}
	s, c, err := some().Begin(request(t, nil), session.Proof{Account: "ann", Methods: []string{"password"}})
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
			if id, err = some().Prove(request(t, c)); err == nil {
				dones = append(dones, id.Done)
			}
		case 1:
			_, next, err = some().StepUp(request(t, c), session.Proof{Account: "ann", Methods: []string{"password"}})
		case 2:
			next, err = some().Renew(request(t, c))
		}
		if err != nil && !ended(err) {
			t.Error(err)
		}
		if next != nil {
			c = next
			cookies = append(cookies, c)
		}
	}
	if err := some().End(request(t, c)); err != nil {
		t.Error(err)
	}
	// A session that was one too many has nothing that logging out could find.
	if err := some().EndOne(t.Context(), "ann", s.ID); err != nil && !errors.Is(err, session.ErrNotFound) {
		t.Error(err)
	}
	// Who else ended it, because it was one too many, may still be telling.
	deadline := time.Now().Add(1500 * time.Millisecond)
	for i, c := range cookies {
		for _, m := range replicas {
			_, err := m.Prove(request(t, c))
			for ; err == nil && time.Now().Before(deadline); _, err = m.Prove(request(t, c)) {
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
