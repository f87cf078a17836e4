package stuffing_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/stuffing"
)

// An attack sends its i-th try.
type attack struct {
	what  string
	tries int           // altogether
	over  time.Duration // evenly spread
	try   func(w *world, i int)
	most  int // that the backend may look at in an hour
	told  string
}

var attacks = []attack{
	{"100,000 pairs from one address", 100_000, time.Hour, func(w *world, i int) {
		w.try("203.0.113.9", fmt.Sprintf("user%d@example.com", i), fmt.Sprint("leaked ", i))
	}, 120, attempts.AddressBlocked},
	{"one try each from 10,000 addresses on one user", 10_000, time.Hour, func(w *world, i int) {
		w.try(address(i), "owner@example.com", fmt.Sprint("guess ", i))
	}, 20, attempts.AccountAttacked},
	{"one user from one address", 10_000, time.Hour, func(w *world, i int) {
		w.try("203.0.113.9", "owner@example.com", fmt.Sprint("guess ", i))
	}, 20, attempts.AccountAttacked},
	{"one password on 5,000 users, each from an address of its own", 5_000, time.Hour, func(w *world, i int) {
		w.try(address(i), fmt.Sprintf("user%d@example.com", i), "Winter2026!")
	}, 20, attempts.PasswordSprayed},
	{"the same, with the owner's name in every spelling", 10_000, time.Hour, func(w *world, i int) {
		spellings := []string{"owner@example.com", "OWNER@example.com", " owner@EXAMPLE.com ", "ｏｗｎｅｒ@example.com", "ówner@example.com", "ow\u200bner@example.com", "owner@example.com\x00"}
		w.try(address(i), spellings[i%len(spellings)], fmt.Sprint("guess ", i))
	}, 20, attempts.AccountAttacked},
	{"an own account in between", 10_000, time.Hour, func(w *world, i int) {
		if i%2 == 0 {
			w.try("203.0.113.9", "eve@example.com", secret)
		} else {
			w.try("203.0.113.9", fmt.Sprintf("user%d@example.com", i), fmt.Sprint("guess ", i))
		}
	}, 120, attempts.AddressBlocked},
	{"one try an hour, for 60 days", 60 * 24, 60 * 24 * time.Hour, func(w *world, i int) {
		w.try(address(i%7), "owner@example.com", fmt.Sprint("guess ", i))
	}, 1, attempts.AccountAttacked},
}

// TestAttacks tells how many guesses of each attack the backend looks at. All
// the while the owner gets in on the browser of before, at once and also after
// a slip.
func TestAttacks(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.what, func(t *testing.T) {
			w := newWorld(t, config(), stuffing.Env{})
			browser := w.known("owner@example.com")
			if a.tries >= 5000 {
				a.tries /= thin
			}
			step := a.over / time.Duration(a.tries)
			visits := max(1, a.tries/20)
			guesses, own := int64(0), int64(0)
			for i := range a.tries {
				before := w.looked.Load()
				a.try(w, i)
				guesses += w.looked.Load() - before
				if strings.HasPrefix(a.what, "an own") && i%2 == 0 {
					own += w.looked.Load() - before
				}
				w.pass(step)
				if i%visits != 0 {
					continue
				}
				w.waited()
				if r := w.try(address(i+77), "owner@example.com", "a slip", browser); r.status != 401 {
					t.Fatalf("try %d: the owner's slip: %d %s", i, r.status, r.reason)
				}
				r := w.try(address(i+77), "Owner@Example.com", secret, browser)
				if r.status != 200 || w.waited() != 0 {
					t.Fatalf("try %d: the owner does not get in, or not at once: %d %s", i, r.status, r.reason)
				}
				browser = r.cookie()
			}
			guesses -= own
			hours := a.over.Hours()
			t.Logf("%d tries in %v: the backend looked at %d, %.1f an hour", a.tries, a.over, guesses, float64(guesses)/hours)
			if float64(guesses) > float64(a.most)*hours {
				t.Errorf("want at most %d an hour", a.most)
			}
			if guesses == 0 {
				t.Error("nothing was let through, so that nothing is shown")
			}
			if alone := strings.Contains(a.what, "one address") || strings.HasPrefix(a.what, "an own"); alone && w.told(attempts.RateHigh) > 0 {
				t.Error("one guesser alone has tightened the log-in for all")
			}
			if w.told(a.told) == 0 {
				t.Errorf("nobody was told: %s", a.told)
			}
		})
	}
}

// TestSlow: an owner who does not come does not make a guesser's failures fewer.
func TestSlow(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{})
	browser := w.known("owner@example.com")
	w.looked.Store(0)
	for i := range 150 {
		w.try(address(i), "owner@example.com", fmt.Sprint("guess ", i))
		w.pass(time.Hour)
	}
	t.Logf("150 tries, one an hour: the backend looked at %d", w.looked.Load())
	if n := w.looked.Load(); n > 100 {
		t.Errorf("looked at %d", n)
	}
	if w.told(attempts.AccountLocked) == 0 {
		t.Error("nobody was told")
	}
	if r := w.try("192.0.2.1", "owner@example.com", secret, browser); r.status != 200 {
		t.Errorf("the owner: %d %s", r.status, r.reason)
	}
	if r := w.try("192.0.2.1", "owner@example.com", "slip"); r.status != 401 {
		t.Errorf("who has got in opens the account for others as well: %d %s", r.status, r.reason)
	}
}

// TestDistributedPairs: leaked pairs, one each from 10,000 addresses, look like
// users in everything but how many of them fail.
func TestDistributedPairs(t *testing.T) {
	for _, c := range []struct {
		what   string
		passed func(*merlon.Request) (string, bool)
		most   int64
	}{
		{"no challenge", nil, 1000},
		{"a challenge that is not solved", func(*merlon.Request) (string, bool) { return "", false }, 250},
		{"one that is solved for every tenth try", func(r *merlon.Request) (string, bool) {
			b := r.Client.As4()
			return r.Client.String(), b[2]%10 == 0
		}, 1400},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t, config(), stuffing.Env{Passed: c.passed})
			browser := w.known("owner@example.com")
			n := 10_000 / thin
			before := w.looked.Load()
			challenged := 0
			for i := range n {
				if w.try(address(i), fmt.Sprintf("user%d@example.com", i), fmt.Sprint("leaked ", i)).reason == stuffing.LoginChallenged {
					challenged++
				}
				w.pass(time.Hour / 10_000)
			}
			looked := w.looked.Load() - before
			t.Logf("%d tries, 10,000 an hour: the backend looked at %d, %d were challenged", n, looked, challenged)
			if looked > c.most || c.passed != nil && challenged == 0 {
				t.Errorf("want at most %d", c.most)
			}
			if w.told(attempts.RateHigh) == 0 {
				t.Error("nobody was told")
			}
			if r := w.try("192.0.2.1", "owner@example.com", secret, browser); r.status != 200 {
				t.Errorf("the owner: %d %s", r.status, r.reason)
			}
			w.pass(time.Hour)
			if r := w.try("192.0.2.2", "new@example.com", secret); r.status != 200 {
				t.Errorf("after the attack, somebody new: %d %s", r.status, r.reason)
			}
		})
	}
}

// TestParallel: 200 requests at once over one HTTP/2 connection.
func TestParallel(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{})
	w.backend = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		w.looked.Add(1)
		time.Sleep(50 * time.Millisecond) // the others come in the meantime
		rw.WriteHeader(401)
	})
	front := w.live(true)
	if res, err := front.Client().Get(front.URL); err == nil { // so that all share one connection
		res.Body.Close()
	}
	w.looked.Store(0)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			res, err := w.post(front, form, fmt.Sprintf("email=owner@example.com&password=guess%d", i))
			if err != nil {
				t.Error(err)
			} else if res.ProtoMajor != 2 {
				t.Error(res.Proto)
			}
		})
	}
	wg.Wait()
	const bound = 5 + 1 // pair.free, and the one that has to be waited after
	t.Logf("200 at once: the backend looked at %d", w.looked.Load())
	if n := w.looked.Load(); n > bound || n == 0 {
		t.Errorf("the backend looked at %d, want at most %d", n, bound)
	}
}

// TestHangingUp: who does not wait for the answer has guessed all the same.
func TestHangingUp(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{})
	for i := range 50 {
		hr := loginRequest(form, fmt.Sprintf("email=owner@example.com&password=guess%d", i))
		r := merlon.NewRequest(hr)
		r.Site = site
		d := w.gate.Check(r)
		o := merlon.Outcome{Upstream: d.Passed()}
		if d.Passed() {
			w.looked.Add(1)
		}
		w.gate.Done(r, o)
	}
	if n := w.looked.Load(); n > 6 {
		t.Errorf("the backend looked at %d", n)
	}
}

// TestBatches: every try in a request counts, whatever it is called.
func TestBatches(t *testing.T) {
	quote := func(s string) string { return strings.ReplaceAll(s, `"`, `\"`) }
	batch := func(each func(i int) string, n int, sep string) string {
		var list []string
		for i := range n {
			list = append(list, each(i))
		}
		return strings.Join(list, sep)
	}
	object := func(i int) string { return fmt.Sprintf(`{"email":"owner@example.com","password":"guess %d"}`, i) }
	alias := func(i int) string {
		return fmt.Sprintf(`a%d: login(email: "owner@example.com", password: "guess %d") { token }`, i, i)
	}
	variable := func(i int) string { return fmt.Sprintf(`a%d: login(email: $e, password: $p%d) { token }`, i, i) }
	value := func(i int) string { return fmt.Sprintf(`"p%d":"guess %d"`, i, i) }
	bodies := map[string]func(n int) string{
		"a JSON array": func(n int) string { return "[" + batch(object, n, ",") + "]" },
		"JSON lines":   func(n int) string { return batch(object, n, "\n") },
		"a list of secrets": func(n int) string {
			return `{"email":"owner@example.com","password":[` + batch(func(i int) string { return fmt.Sprintf(`"g%d"`, i) }, n, ",") + `]}`
		},
		"GraphQL aliases": func(n int) string { return `{"query":"mutation { ` + quote(batch(alias, n, " ")) + ` }"}` },
		"GraphQL variables": func(n int) string {
			return `{"query":"mutation($e: String) { ` + batch(variable, n, " ") + ` }","variables":{"e":"owner@example.com",` + batch(value, n, ",") + `}}`
		},
	}
	for what, body := range bodies {
		t.Run(what, func(t *testing.T) {
			c := config()
			c.Failed.Body = stuffing.List{`"errors"`}
			w := newWorld(t, c, stuffing.Env{})
			w.backend = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(rw, `{"data":{"a0":{"token":"own account"}},"errors":[]}`)
			})
			if r := w.ask("203.0.113.9", loginRequest("application/json", body(6))); r.status != 400 || r.reason != stuffing.LoginBatch {
				t.Errorf("6 tries at once: %d %s", r.status, r.reason)
			}
			if r := w.ask("203.0.113.9", loginRequest("application/json", body(5))); r.status != 200 {
				t.Fatalf("5 tries at once: %d %s", r.status, r.reason)
			}
			if r := w.try("203.0.113.9", "owner@example.com", "guess"); r.reason != stuffing.LoginFailed && r.status != 200 {
				t.Errorf("the 6th: %d %s", r.status, r.reason)
			}
			if r := w.try("203.0.113.9", "owner@example.com", "guess"); r.status != tooMany {
				t.Errorf("five of one request were not counted: %d %s", r.status, r.reason)
			}
		})
	}
	t.Run("an own account in a batch pays for nothing", func(t *testing.T) {
		w := newWorld(t, config(), stuffing.Env{})
		w.backend = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { w.looked.Add(1); fmt.Fprint(rw, "{}") })
		for i := range 100 {
			w.ask("203.0.113.9", loginRequest("application/json", fmt.Sprintf(`[{"email":"eve@example.com","password":"%s"},{"email":"owner@example.com","password":"guess %d"}]`, secret, i)))
		}
		if n := w.looked.Load(); n > 6 {
			t.Errorf("the backend looked at %d", n)
		}
	})
	t.Run("more than can be counted", func(t *testing.T) {
		w := newWorld(t, config(), stuffing.Env{})
		if r := w.ask("203.0.113.9", loginRequest("application/json", bodies["a JSON array"](500))); r.reason != stuffing.LoginBatch {
			t.Errorf("%d %s", r.status, r.reason)
		}
	})
}

// TestBreaking: a log-in that breaks for wrong passwords is no way to guess.
func TestBreaking(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{})
	for i := range 10 {
		if r := w.try("203.0.113.9", fmt.Sprintf("user%d@example.com", i), "boom"); r.reason != stuffing.LoginUnsure {
			t.Fatalf("%d %s", r.status, r.reason)
		}
	}
	if r := w.try("203.0.113.9", "user1@example.com", "slip"); r.status != 401 {
		t.Errorf("an outage was held against users: %d %s", r.status, r.reason)
	}
	w.looked.Store(0)
	for range 1000 {
		w.try("203.0.113.9", "owner@example.com", "boom")
	}
	t.Logf("1000 tries that break the backend: it looked at %d", w.looked.Load())
	if n := w.looked.Load(); n > 30 {
		t.Errorf("the backend looked at %d", n)
	}
}

func TestCanary(t *testing.T) {
	c := config()
	c.Canaries = stuffing.List{"J.Archer@example.com"}
	w := newWorld(t, c, stuffing.Env{})
	// Whoever tries one is told what they are told of users that there are not.
	for n := range 8 {
		got := w.try("203.0.113.9", " j.archer@EXAMPLE.com", fmt.Sprint("x", n))
		waited := w.waited()
		want := w.try("198.51.100.9", "nobody@example.com", fmt.Sprint("x", n))
		got.header.Del("X-Request-Id")
		want.header.Del("X-Request-Id")
		if got.status != want.status || !maps.EqualFunc(got.header, want.header, slices.Equal) || waited != w.waited() {
			t.Errorf("try %d: %d %v after %v, and of another %d %v", n, got.status, got.header, waited, want.status, want.header)
		}
	}
	if w.told(attempts.CanaryTried) != 1 {
		t.Error("nobody was told")
	}
	// It costs the address more.
	for from, enough := range map[string]bool{"203.0.113.9": false, "198.51.100.9": true} {
		w.looked.Store(0)
		for i := range 30 {
			w.try(from, fmt.Sprintf("user%d@example.com", i), fmt.Sprint(from, i))
		}
		if n := w.looked.Load(); (n == 30) != enough {
			t.Errorf("from %s %d of 30 tries were looked at", from, n)
		}
	}
	// Who has a canary's password is not let in, alone or in a batch.
	if r := w.try("192.0.2.8", "j.archer@example.com", secret); r.status != tooMany || r.reason != stuffing.CanaryTried || r.header["Set-Cookie"] != nil {
		t.Errorf("the right password: %d %s %v", r.status, r.reason, r.header)
	}
	hr := loginRequest(form, "email=ann%40example.com&email=j.archer%40example.com&password="+url.QueryEscape(secret))
	if r := w.ask("192.0.2.8", hr); r.status != tooMany || r.header["Set-Cookie"] != nil {
		t.Errorf("in a batch: %d %s %v", r.status, r.reason, r.header)
	}
	if w.told(attempts.CanaryTried) != 2 {
		t.Error("of another address nobody was told")
	}
	if r := w.try("192.0.2.9", "jarcher@example.com", secret); r.status != 200 {
		t.Errorf("another name: %d", r.status)
	}
}

// TestMisread: a backend that answers 200 to everything, and an operator who has
// not said so, do not leave users to guessers, and somebody is told.
func TestMisread(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{})
	w.backend = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { w.looked.Add(1); fmt.Fprint(rw, "wrong, try again") })
	known := ""
	for i := range 100 {
		known = w.try(address(i), "owner@example.com", fmt.Sprint("guess ", i)).cookie()
	}
	if n := w.looked.Load(); n > 25 {
		t.Errorf("the backend looked at %d guesses", n)
	}
	if known != "" || w.told(attempts.AnswersMisread) != 1 {
		t.Errorf("the guesser's browser is known: %t; told %d times", known != "", w.told(attempts.AnswersMisread))
	}
	// People log in as often as they like, and change their passwords.
	w = newWorld(t, config(), stuffing.Env{})
	w.backend = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "{}") })
	for day := range 30 {
		for i := range 20 {
			if r := w.try(address(i), "owner@example.com", fmt.Sprint("of day ", day)); r.reason != stuffing.LoginSucceeded {
				t.Fatalf("day %d, log-in %d: %s", day, i, r.reason)
			}
		}
		w.pass(24 * time.Hour)
	}
	for i := range 4 {
		if r := w.try(address(i), "owner@example.com", fmt.Sprint("code ", i)); r.reason != stuffing.LoginSucceeded || r.cookie() == "" {
			t.Errorf("one good once only: %s", r.reason)
		}
	}
}

// TestHostsOfOneSite: a site for all hosts may be many shops, and an attacker
// may have one, with an account that is called as the owner's elsewhere.
func TestHostsOfOneSite(t *testing.T) {
	w := newWorld(t, config(), stuffing.Env{})
	at := func(host, password string, cookies ...string) reply {
		hr := loginRequest(form, "email=owner@example.com&password="+password)
		hr.Host = host
		hr.Header.Set("Cookie", strings.Join(cookies, "; "))
		return w.ask("203.0.113.9", hr)
	}
	w.backend = http.HandlerFunc(func(rw http.ResponseWriter, hr *http.Request) {
		if !strings.HasPrefix(strings.ToLower(hr.Host), "evil.") {
			w.looked.Add(1)
			rw.WriteHeader(401)
		}
	})
	known := at("evil.example.com", "mine").cookie()
	if known == "" {
		t.Fatal("no log-in at the attacker's own")
	}
	for i := range 100 {
		at("shop.example.com", fmt.Sprint("guess", i), known)
		at("evil.example.com", "mine", known)
	}
	if n := w.looked.Load(); n > 15 {
		t.Errorf("the backend looked at %d guesses", n)
	}
	if r := at("EVIL.example.com:443", "mine", known); r.status != 200 {
		t.Errorf("the same host: %d %s", r.status, r.reason)
	}
}
