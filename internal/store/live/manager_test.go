package live_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/session"
)

// people are the accounts that there are.
type people struct {
	mu  sync.Mutex
	are map[string]account.Account
}

func (p *people) Account(_ context.Context, id string) (account.Account, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.are[id]
	if !ok {
		return a, account.ErrNotFound
	}
	return a, nil
}

func manager(tb testing.TB, store session.Store) (*session.Manager, *people) {
	tb.Helper()
	accounts := &people{are: map[string]account.Account{"ann": {ID: "ann", Name: "ann"}}}
	m, err := session.New(session.Config{}, store, accounts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.Close)
	return m, accounts
}

func begin(tb testing.TB, m *session.Manager, _ *people, who string) (session.Session, *http.Cookie) {
	tb.Helper()
	s, c, err := m.Begin(request(nil), session.Proof{Account: who, Methods: []string{"password"}})
	if err != nil {
		tb.Fatal(err)
	}
	return s, c
}

func request(c *http.Cookie) *merlon.Request {
	hr := httptest.NewRequest(http.MethodGet, "https://shop.example/", nil)
	if c != nil {
		hr.AddCookie(c)
	}
	return merlon.NewRequest(hr)
}

// openRequest returns a request that is under way until leave is called.
func openRequest(c *http.Cookie) (r *merlon.Request, leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	r = request(c)
	r.Request = r.WithContext(ctx)
	return r, cancel
}

func decodeID(t *testing.T, text string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
