package traffic_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/ledger"
)

const ownLogin = `
off: [waf]
sites:
  - host: localhost
    upstream: BACKEND
    backend_login: {path: /api/login, user_field: email, canaries: [trap@example.com]}
`

// A shop is a backend with a log-in of its own, as they are: it looks a user up
// and says yes or no, as often as it is asked.
type shop struct {
	mu    sync.Mutex
	tries map[string]int // by user
}

func (s *shop) answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/login" {
		hello(w, r)
		return
	}
	var form struct{ Email, Password string }
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &form) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.tries[strings.ToLower(form.Email)]++
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if form.Password != "of "+form.Email {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error": "wrong"}`)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: "shop", Value: "signed-in", Path: "/"})
	_, _ = io.WriteString(w, `{"ok": true}`)
}

func (s *shop) tried(user string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tries[user]
}

func (s *shop) all() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, tries := range s.tries {
		n += tries
	}
	return n
}

// logIn sends the shop's own form.
func (a *asker) logIn(ctx context.Context, user, pass string, fields ...string) answer {
	body, err := json.Marshal(map[string]string{"email": user, "password": pass})
	if err != nil {
		return answer{Err: err}
	}
	return a.send(ctx, "POST", "/api/login", string(body), append([]string{"Content-Type", "application/json"}, fields...)...)
}

// deviceCookie is what a browser that has logged in sends from then on.
func deviceCookie(t testing.TB, got answer) string {
	t.Helper()
	res := http.Response{Header: got.Header}
	var cookies []string
	for _, c := range res.Cookies() {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	if len(cookies) < 2 {
		t.Errorf("beside the shop's own cookie there must be one of a known browser: %q", cookies)
	}
	return strings.Join(cookies, "; ")
}

// far is the n-th of many loopback addresses, each in a network of its own.
func far(n int) string { return fmt.Sprintf("127.%d.%d.7", 100+n/250, n%250) }

// Trap 44 and F17, where the backend owns the log-in: a user's password is
// guessed from everywhere, one password is tried on everybody, and one address
// tries what was stolen elsewhere. The backend sees few of them, and whoever
// has logged in before gets in all the while.
func TestStuffing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		n    int
		most int // tries that the backend may see
		try  func(i int) (addr, user, pass string)
	}{
		// free: 10 for an account, and what waits a moment for its turn.
		{"one user, from everywhere", 500, 40, func(i int) (string, string, string) {
			return far(i), "victim@example.com", fmt.Sprint("guess ", i)
		}},
		{"one user, from everywhere, in other spellings", 500, 40, func(i int) (string, string, string) {
			return far(i), []string{"victim@example.com", "Victim@Example.com", "VICTIM@EXAMPLE.COM"}[i%3], fmt.Sprint("guess ", i)
		}},
		{"one password, on everybody", 400, 40, func(i int) (string, string, string) {
			return far(i), fmt.Sprintf("user%d@example.com", i), "Summer2026!"
		}},
		{"stolen pairs, from one address", 500, 80, func(i int) (string, string, string) {
			return "127.0.40.1", fmt.Sprintf("user%d@example.com", i), fmt.Sprint("stolen ", i)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &shop{tries: map[string]int{}}
			p := serve(t, ownLogin, s.answer)
			const owner = "victim@example.com"
			home := p.from("127.0.41.1")
			first := home.logIn(t.Context(), owner, "of "+owner).want(t, "the owner, before", 200)
			cookie := deviceCookie(t, first)

			attack, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			logIns := 0
			wg.Go(func() {
				for attack.Err() == nil {
					// From elsewhere: it is the browser that is known.
					got := p.from(fmt.Sprintf("127.0.42.%d", 1+logIns%200)).logIn(t.Context(), owner, "of "+owner, "Cookie", cookie)
					if got.Status != 200 {
						t.Errorf("log-in %d of the owner, on a known browser: %d %v", logIns, got.Status, got.Err)
						return
					}
					logIns++
					time.Sleep(100 * time.Millisecond)
				}
			})
			var all tally
			began := time.Now()
			parallel(48, c.n, func(i int) {
				addr, user, pass := c.try(i)
				a := p.from(addr)
				got := a.logIn(t.Context(), user, pass)
				a.c.CloseIdleConnections()
				all.add(got.Status)
				if got.Err != nil {
					t.Error(got.Err)
				}
			})
			took := time.Since(began)
			stop()
			wg.Wait()
			seen := s.all() - 1 - logIns
			t.Logf("%d tries in %v: %v; the backend saw %d of them, and %d log-ins of the owner", c.n, took.Round(time.Millisecond), all.by, seen, logIns)
			if seen > c.most || seen != all.by[http.StatusUnauthorized] {
				t.Errorf("the backend saw %d tries, answered %d; want %d at most", seen, all.by[http.StatusUnauthorized], c.most)
			}
			if logIns == 0 {
				t.Error("the owner did not get in once")
			}
			for status := range all.by {
				if status != 401 && status != 429 && status != 403 {
					t.Errorf("a try was answered %d", status)
				}
			}
			// What an attacker knows of the owner is the name, and a cookie of their own.
			p.from("127.0.40.9").get("/").want(t, "other pages", 200)
			alarms := p.Events(t, 0, func(e ledger.Event) bool { return e.Kind == ledger.Alarm })
			for _, e := range alarms {
				if strings.Contains(fmt.Sprintf("%+v", e), "guess ") || strings.Contains(fmt.Sprintf("%+v", e), "Summer2026!") {
					t.Errorf("a password is in the event log: %+v", e)
				}
			}
			if len(alarms) == 0 {
				t.Log("no alarm was raised")
			}
		})
	}
}

func TestBackendLogin(t *testing.T) {
	t.Parallel()
	s := &shop{tries: map[string]int{}}
	p := serve(t, ownLogin, s.answer)
	// Honest people: a wrong password now and then, many users behind one address.
	office := p.from("127.0.43.1")
	for i := range 25 {
		user := fmt.Sprintf("colleague%d@example.com", i)
		if i%3 == 0 {
			office.logIn(t.Context(), user, "typo").want(t, "a typing mistake", 401)
		}
		office.logIn(t.Context(), user, "of "+user).want(t, "a colleague", 200)
	}
	// A user that nobody is looks like one that there is not, and nobody gets in.
	thief := p.from("127.0.43.2")
	got, other := thief.logIn(t.Context(), "trap@example.com", "whatever"), p.from("127.0.43.4").logIn(t.Context(), "nobody@example.com", "whatever")
	for _, a := range []answer{got, other} {
		a.Header.Del("X-Request-Id")
		a.Header.Del("Date")
	}
	if got.Status != 401 || other.Status != 401 || got.Body != other.Body || fmt.Sprint(got.Header) != fmt.Sprint(other.Header) {
		t.Errorf("a canary: %d %v %q\nanother: %d %v %q", got.Status, got.Header, got.Body, other.Status, other.Header, other.Body)
	}
	if got := thief.logIn(t.Context(), "trap@example.com", "of trap@example.com"); got.Status != 429 || got.Header["Set-Cookie"] != nil {
		t.Errorf("a canary's password: %d %v", got.Status, got.Header)
	}
	if n := s.tried("trap@example.com"); n != 2 {
		t.Errorf("the backend was asked %d times about a canary, want 2", n)
	}
	p.Events(t, 1, func(e ledger.Event) bool {
		return e.Kind == ledger.Alarm && e.Message == "canary-tried" && e.Client != ""
	})
	// What cannot be read for certain does not reach the backend.
	before := s.all()
	for name, body := range map[string]string{
		"the name twice": `{"email": "a@example.com", "email": "b@example.com", "password": "x"}`,
		"no JSON":        `{"email": "a@example.com", "password": `,
		"no name":        `{"password": "x"}`,
	} {
		got := p.from("127.0.43.3").send(t.Context(), "POST", "/api/login", body, "Content-Type", "application/json")
		t.Logf("%s: %d", name, got.Status)
		if got.Status == 200 {
			t.Errorf("%s: %d", name, got.Status)
		}
	}
	t.Logf("%d of 3 unreadable log-ins reached the backend", s.all()-before)
}
