package people_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/test/harness"
)

const late = `
store: env:MERLON_STORE
redis: env:MERLON_REDIS
key: env:MERLON_KEY
off: [waf]
trusted_proxies: [127.0.0.1]
identity:
` + cheap + `
  attempts: {pair: {free: 100}, address: {free: 8, first: 1h}, account: {free: 100}}
sites:
  - {host: localhost, upstream: BACKEND, routes: [{path: /in/**, require: login}]}
`

// Replicas that start while Redis is down serve by what they know themselves,
// and let nobody in whose session they could not end. As soon as Redis is there,
// they share everything.
func TestStartBeforeRedis(t *testing.T) {
	t.Parallel()
	srv, db := harness.StartRedis(t), harness.Postgres(t)
	srv.Kill()
	env := []string{"MERLON_STORE=" + db, "MERLON_REDIS=" + srv.URL, "MERLON_KEY=" + strings.Repeat("0123456789", 5)}
	seed(t, postgres(db), people(t)...)
	one, other := serve(t, t.TempDir(), late, env), serve(t, t.TempDir(), late, env)
	status := func(p *place, from, path string) int {
		t.Helper()
		who := p.person()
		who.Head.Set("X-Forwarded-For", from)
		return who.Program("GET", path).Status
	}
	guess := func(p *place, from, pass string) *harness.Page {
		t.Helper()
		who := p.person()
		who.Head.Set("X-Forwarded-For", from)
		return who.Get("/.merlon/login").Want(200).Send("/.merlon/login", "name", "ann", "password", pass)
	}
	const scanner, guesser, elsewhere = "198.51.100.1", "203.0.113.2", "192.0.2.3"

	// Alone.
	for _, p := range []*place{one, other} {
		p.person().Get("/").Want(200, "backend")
		if !strings.Contains(p.Output(), "Redis is not there") {
			t.Errorf("it does not say so:\n%s", p.Output())
		}
		if list := p.Events(t, 1, harness.Reason("bans-unshared")); len(list) > 0 && list[0].Kind != ledger.Alarm {
			t.Errorf("%+v", list[0])
		}
	}
	status(one, scanner, "/.env")
	eventually(t, "a ban of its own", func() bool { return status(one, scanner, "/") == http.StatusForbidden })
	if got := status(other, scanner, "/"); got != 200 {
		t.Errorf("the ban of another: %d", got)
	}
	if got := guess(one, elsewhere, annsPassword); got.Status != http.StatusServiceUnavailable || got.SignedIn() != "" {
		t.Errorf("a log-in without sessions: %d\n%.300s", got.Status, got.Body)
	}
	one.person().Get("/in/x", "Cookie", "__Host-merlon="+strings.Repeat("A", 43)).Want(http.StatusServiceUnavailable)

	// Together.
	srv.Start()
	began := time.Now()
	eventually(t, "the ban is everybody's", func() bool { return status(other, scanner, "/") == http.StatusForbidden })
	t.Logf("the ban is everybody's after %v", time.Since(began).Round(time.Millisecond))
	var ann *harness.Person
	eventually(t, "people sign in", func() bool {
		who := one.person()
		who.Head.Set("X-Forwarded-For", elsewhere)
		if who.Get("/.merlon/login").Want(200).Send("/.merlon/login", "name", "ann", "password", annsPassword).SignedIn() == "" {
			return false
		}
		ann = who
		return true
	})
	t.Logf("people sign in after %v", time.Since(began).Round(time.Millisecond))
	at(other, ann).Get("/in/x").Want(200, "backend ANN-ID")
	guesses := 0
	for guess(one, guesser, "wrong").Status != http.StatusTooManyRequests {
		if guesses++; guesses > 30 {
			t.Fatal("nobody has to wait")
		}
	}
	// A right password leaves no trace, so what is counted is what one has counted.
	eventually(t, "who guessed at one waits at the other", func() bool {
		return guess(other, guesser, annsPassword).Status == http.StatusTooManyRequests
	})
	guess(other, elsewhere, annsPassword).Want(200)
	t.Logf("%d guesses", guesses)
	for _, p := range []*place{one, other} {
		p.Events(t, 1, harness.Reason("bans-shared"))
	}
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}
