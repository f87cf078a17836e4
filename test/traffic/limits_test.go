package traffic_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/test/harness"
)

const somebodysPassword = "correct horse battery staple"

// burst is how much each limit of these tests lets through at once. What comes
// back at 1/h is nothing while they run.
const burst = 20

// limited has a route for each thing that requests can be told apart by.
const limited = `
store: env:MERLON_STORE
redis: env:MERLON_REDIS
key: env:MERLON_KEY
off: [waf]
class: {work: {at_once: 7, queue: -1}}
trusted_proxies: [127.0.0.1]
identity:
  tenant: customer/
  password: {argon2: {memory: 12MiB, time: 3}}
sites:
`

// limitedSite is one of several sites that are alike: each counts for itself.
const limitedSite = `  - host: HOST
    upstream: BACKEND
    routes:
      - {path: /client/**, limit: {rate: 1/h, burst: 20, by: client}}
      - {path: /network/**, limit: {rate: 1/h, burst: 20, by: network}}
      - {path: /route/**, limit: {rate: 1/h, burst: 20, by: route}}
      - {path: /header/**, limit: {rate: 1/h, burst: 20, by: header X-Shop}}
      - {path: /field/**, limit: {rate: 1/h, burst: 20, by: field email}}
      - {path: /user/**, require: login, limit: {rate: 1/h, burst: 20, by: user}}
      - {path: /role/**, require: login, limit: {rate: 1/h, burst: 20, by: role}}
      - {path: /tenant/**, require: login, limit: {rate: 1/h, burst: 20, by: tenant}}
      - {path: /key/**, require: login, limit: {rate: 1/h, burst: 20, by: key}}
      - {path: /session/**, require: login, limit: {rate: 1/h, burst: 20, by: session}}
      - {path: /both/**, require: login, limit: {rate: 1/h, burst: 20, by: [user, header X-Shop]}}
      - {path: /cost/**, limit: {rate: 1/h, burst: 20, by: header X-Shop, cost: 3}}
      - {path: /quota/**, limit: {quota: 20/month, by: header X-Shop}}
      - {path: /bytes/**, limit: {bytes: 20KiB/month, by: header X-Shop}}
      - {path: /several/**, limit: {limits: [{name: wide, by: site, rate: 1/h, burst: 200}, {name: narrow, by: header X-Shop, rate: 1/h, burst: 20}]}}
      - {path: /refilled/**, limit: {rate: 60/min, burst: 20, by: header X-Shop}}
      - {path: /hold/**, limit: {limits: [{by: header X-Shop, concurrent: 5}]}}
      - {path: /hold/class/**, throttle: {class: work}}
      - {path: /failing/**, limit: {limits: [{by: header X-Shop, rate: 1/h, burst: 20}]}}
`

// A fleet is three Merlons that share a PostgreSQL and a Redis.
type fleet struct {
	all   []*place
	redis *harness.RedisServer
	held  atomic.Pointer[chan struct{}] // requests for /hold/… are answered when it is closed
	seen  atomic.Int64                  // how many of them the backend has at this moment
	most  atomic.Int64                  // and had at most
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	db := harness.Postgres(t)
	f := &fleet{redis: harness.StartRedis(t)}
	f.hold()
	env := []string{"MERLON_STORE=" + db, "MERLON_REDIS=" + f.redis.URL, "MERLON_KEY=" + strings.Repeat("0123456789", 5)}
	seed(t, store.Config{URL: secrets.New(db)}, people(t)...)
	text := limited + strings.ReplaceAll(limitedSite, "HOST", "localhost")
	for i := range tries {
		text += strings.ReplaceAll(limitedSite, "HOST", siteOf(i))
	}
	for range 3 {
		f.all = append(f.all, serve(t, text, f.answer, env...))
	}
	// By the number that it knew last each divides when Redis is lost.
	eventually(t, "each knows of all", func() bool {
		return !slices.ContainsFunc(f.all, func(p *place) bool { return p.Metric(t, "merlon_replicas") != 3 })
	})
	return f
}

// tries is how often it is tried to count exactly: Redis has 20 ms to answer,
// which on a machine that does much else at the same time it may not keep.
const tries = 4

func siteOf(try int) string { return fmt.Sprintf("try%d.localhost", try) }

// hold makes requests for /hold/… wait from now on.
func (f *fleet) hold() {
	c := make(chan struct{})
	f.held.Store(&c)
}

func (f *fleet) answer(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/hold/") {
		hello(w, r)
		return
	}
	n := f.seen.Add(1)
	defer f.seen.Add(-1)
	for most := f.most.Load(); n > most && !f.most.CompareAndSwap(most, n); most = f.most.Load() {
	}
	select {
	case <-*f.held.Load():
	case <-r.Context().Done():
	}
}

// people are two users of each of two customers, of two roles.
func people(t testing.TB) (list []account.Account) {
	t.Helper()
	hasher, err := password.New(password.Config{Argon2: password.Argon2{Memory: 12 << 20, Time: 3}})
	if err != nil {
		t.Fatal(err)
	}
	hash, err := hasher.Hash(context.Background(), somebodysPassword)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		since := time.Now().Add(-time.Hour)
		list = append(list, account.Account{
			ID: fmt.Sprintf("USER-%d", i), Name: userName(i), Password: hash, PasswordSince: since, Created: since,
			Roles: []string{[]string{"clerk", "buyer"}[i/2]}, Groups: []string{[]string{"customer/acme", "customer/zeta"}[i%2]},
		})
	}
	return list
}

func userName(i int) string { return fmt.Sprintf("user%d", i) }

// seed makes accounts before a server starts.
func seed(t testing.TB, c store.Config, accounts ...account.Account) {
	t.Helper()
	db, err := store.Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accounts {
		if err := db.Accounts().Create(context.Background(), a); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// key makes an API key of a user.
func (p *place) key(name string, user int) string {
	p.t.Helper()
	var k struct{ Secret string }
	if err := json.Unmarshal([]byte(p.run("key", "create", name, "--user", userName(user), "-o", "json")), &k); err != nil || k.Secret == "" {
		p.t.Fatal(k, err)
	}
	return "Bearer " + k.Secret
}

// clients is how many programs ask at the same time, spread over the replicas.
const clients = 64

// A wave is many requests of a few groups; what is counted together is a group.
type wave struct {
	method, path string
	host         string // localhost if empty
	groups       int
	fields       func(group, i int) []string // those of request i of a group
	text         func(group, i int) string   // its body, if it has one
	before       func(host string)           // is called first, if it is there
}

// each is how many requests there are of a group: more than three replicas
// would let through, each on its own.
const each = 4 * burst

// send sends a wave and returns how many of each group were let through, and
// all that was answered.
func (f *fleet) send(t *testing.T, w wave) (through []int, all *tally) {
	t.Helper()
	var mu sync.Mutex
	through, all = make([]int, w.groups), &tally{}
	askers := make([]*asker, len(f.all))
	for i, p := range f.all {
		askers[i] = p.from("127.0.0.1")
		askers[i].host = w.host
	}
	parallel(clients, w.groups*each, func(n int) {
		group, i := n%w.groups, n/w.groups
		fields := append([]string{"X-Forwarded-For", fmt.Sprintf("198.51.%d.%d", 1+group, 1+i)}, w.fields(group, i)...)
		body := ""
		if w.text != nil {
			body = w.text(group, i)
		}
		got := askers[(i+group)%len(askers)].send(t.Context(), w.method, w.path, body, fields...)
		all.add(got.Status)
		all.answered(got.Took)
		if got.Err != nil {
			t.Error(got.Err)
		}
		mu.Lock()
		defer mu.Unlock()
		if got.Status == http.StatusOK {
			through[group]++
		}
	})
	return through, all
}

func TestLimitsAcrossReplicas(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *fleet)
	}{
		{"what is let through is exact", exactLimits},
		{"what comes back is no more than the rate", exactRefill},
		{"places are held by all together", exactPlaces},
		{"each has a part of a class", sharedClass},
		{"who is banned by one is banned by all", bannedByAll},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.use(t)
			c.test(t, f)
		})
	}
}

func (f *fleet) use(t *testing.T) {
	for _, p := range f.all {
		p.t = t
	}
}

// What three replicas let through together is exact, whatever requests are told
// apart by.
func exactLimits(t *testing.T, f *fleet) {
	var keys []string // two of each user
	for user := range 4 {
		keys = append(keys, f.all[0].key("a", user), f.all[1].key("b", user))
	}
	by := func(keyOf func(group, i int) int) func(group, i int) []string {
		return func(group, i int) []string { return []string{"Authorization", keys[keyOf(group, i)]} }
	}
	shops := func(row string) func(group, i int) []string {
		return func(group, _ int) []string { return []string{"X-Shop", fmt.Sprint(row, group)} }
	}
	var sessions []string
	slow := 0 // how often Redis was
	for _, c := range []struct {
		name string
		wave wave
		want int // of each group
	}{
		{"client", wave{groups: 4, fields: func(group, _ int) []string {
			return []string{"X-Forwarded-For", []string{"203.0.113.1", "203.0.113.2", "2001:db8::1", "2001:db8:0:1::1"}[group]}
		}}, burst},
		{"client, an IPv6 network of 2^64 addresses", wave{path: "/client/x", groups: 1, fields: func(_, i int) []string {
			return []string{"X-Forwarded-For", fmt.Sprintf("2001:db8:77:1::%x", i+1)}
		}}, burst},
		{"network", wave{groups: 2, fields: func(group, i int) []string {
			return []string{"X-Forwarded-For", fmt.Sprintf("203.0.%d.%d", 20+group, i)}
		}}, burst},
		{"route", wave{groups: 1, fields: func(_, _ int) []string { return nil }}, burst},
		{"header", wave{groups: 3, fields: shops("header")}, burst},
		{"field", wave{method: "POST", groups: 3,
			fields: func(_, _ int) []string { return []string{"Content-Type", "application/json"} },
			text: func(group, i int) string { // one name, however it is spelled
				return fmt.Sprintf(`{"n": %d, "email": %q}`, i, fmt.Sprintf([]string{"ann%d@example.com", "ANN%d@Example.com", " ann%d@example.com"}[i%3], group))
			}}, burst},
		{"user", wave{groups: 4, fields: by(func(group, i int) int { return 2*group + i%2 })}, burst},
		{"role", wave{groups: 2, fields: by(func(group, i int) int { return 4*group + i%4 })}, burst},
		{"tenant", wave{groups: 2, fields: by(func(group, i int) int { return 2*group + 4*(i%2) + i/2%2 })}, burst},
		{"key", wave{groups: 8, fields: by(func(group, _ int) int { return group })}, burst},
		{"session", wave{groups: 3, before: func(host string) { sessions = f.sessions(t, host) },
			fields: func(group, _ int) []string { return []string{"Cookie", sessions[group]} }}, burst},
		{"both", wave{groups: 4, fields: func(group, i int) []string {
			return []string{"Authorization", keys[2*(group/2)+i%2], "X-Shop", fmt.Sprint(group % 2)}
		}}, burst},
		{"cost", wave{groups: 2, fields: shops("cost")}, burst / 3},
		{"quota", wave{groups: 3, fields: shops("quota")}, burst},
		{"bytes", wave{groups: 2, fields: shops("bytes")}, burst}, // a request is 1 KiB at least
		{"several", wave{groups: 3, fields: shops("several")}, burst},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := c.wave
			if w.path == "" {
				w.path = "/" + c.name + "/x"
			}
			if w.method == "" {
				w.method = "GET"
			}
			w.host = siteOf(0)
			through, all, shared := f.count(t, w)
			for try := 1; !shared && try < tries; try++ {
				w.host = siteOf(try)
				through, all, shared = f.count(t, w)
			}
			if !shared {
				slow++
				return
			}
			for group, n := range through {
				if n != c.want {
					t.Errorf("group %d: %d were let through, want %d", group, n, c.want)
				}
			}
			if refused := all.by[http.StatusTooManyRequests]; refused != w.groups*(each-c.want) {
				t.Errorf("%d were refused with 429, want %d: %v", refused, w.groups*(each-c.want), all.by)
			}
		})
	}
	if slow > 4 {
		t.Errorf("Redis was given up %d times in each of %d tests", tries, slow)
	}
}

// count sends a wave, and reports whether all of it was counted in Redis.
func (f *fleet) count(t *testing.T, w wave) (through []int, all *tally, shared bool) {
	t.Helper()
	for _, p := range f.all {
		eventually(t, "limits are counted in Redis", func() bool { return p.Metric(t, "merlon_limits_shared") == 1 })
	}
	if w.before != nil {
		w.before(w.host)
	}
	before := f.local(t)
	began := time.Now()
	through, all = f.send(t, w)
	took := time.Since(began).Round(time.Millisecond)
	shared = slices.Equal(before, f.local(t))
	t.Logf("let through %v of %d each, in %v: %v; all counted in Redis: %v", through, each, took, all.by, shared)
	return through, all, shared
}

// sessions are the cookies of two sessions of one user and one of another.
func (f *fleet) sessions(t *testing.T, host string) (cookies []string) {
	t.Helper()
	for i, user := range []int{0, 0, 1} {
		who := harness.NewPerson(t, strings.Replace(f.all[i].base(), "localhost", host, 1))
		harness.From(who.HTTP, "127.0.0.1", f.all[i].HTTPS)
		who.SignIn("/.merlon/login", userName(user), somebodysPassword)
		cookies = append(cookies, who.Cookies())
	}
	return cookies
}

// What comes back while requests are sent is what the rate says, and no more.
func exactRefill(t *testing.T, f *fleet) {
	const rate = 1.0 // a second
	for try := range 2 {
		w := wave{method: "GET", path: "/refilled/x", host: siteOf(try), groups: 2,
			fields: func(group, _ int) []string { return []string{"X-Shop", fmt.Sprint("shop ", group)} }}
		before := f.local(t)
		began := time.Now()
		total := make([]int, 2)
		for time.Since(began) < 4*time.Second {
			through, _ := f.send(t, w)
			for i, n := range through {
				total[i] += n
			}
		}
		most := burst + int(rate*time.Since(began).Seconds()) + 1
		shared := slices.Equal(before, f.local(t))
		t.Logf("let through %v in %v, at most %d; all counted in Redis: %v", total, time.Since(began).Round(time.Millisecond), most, shared)
		if !shared {
			continue
		}
		for group, n := range total {
			if n > most || n < burst+2 {
				t.Errorf("group %d: %d were let through, want %d to %d", group, n, burst+2, most)
			}
		}
		return
	}
}

// Places are held by all replicas together, and given back.
func exactPlaces(t *testing.T, f *fleet) {
	const places = 5
	good := 0
	for try := 0; try < tries && good < 2; try++ {
		before := f.local(t)
		f.most.Store(0)
		var all tally
		done := make(chan struct{})
		go func() {
			defer close(done)
			parallel(60, 60, func(i int) {
				a := f.all[i%3].from(fmt.Sprintf("127.0.%d.%d", 10+try, 1+i))
				all.add(a.send(t.Context(), "GET", "/hold/x", "", "X-Shop", "one").Status)
			})
		}()
		eventually(t, "all but those that are held are answered", func() bool {
			return f.seen.Load() > 0 && all.of(http.StatusTooManyRequests)+int(f.seen.Load()) == 60
		})
		close(*f.held.Load())
		<-done
		shared := slices.Equal(before, f.local(t))
		t.Logf("try %d: %v, %d at most at the backend; all counted in Redis: %v", try, all.by, f.most.Load(), shared)
		eventually(t, "the backend is done", func() bool { return f.seen.Load() == 0 })
		f.hold()
		if !shared {
			// What was asked for in vain may be held until its lease ends.
			waitFor(t, "places are there again", time.Minute, func() bool { return f.free(t, places) })
			continue
		}
		good++
		if all.by[http.StatusOK] != places || f.most.Load() != places {
			t.Errorf("try %d: %v, %d at once, want %d", try, all.by, f.most.Load(), places)
		}
	}
	if good == 0 {
		t.Skipf("Redis was given up %d times: this machine is too busy", tries)
	}
}

// free reports whether so many places can be held again.
func (f *fleet) free(t *testing.T, places int) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var refused atomic.Int64
	for i := range places {
		wg.Go(func() {
			if f.all[i%3].from("127.0.0.1").send(ctx, "GET", "/hold/x", "", "X-Shop", "one").Status == http.StatusTooManyRequests {
				refused.Add(1)
			}
		})
	}
	eventually(t, "all are held or refused", func() bool { return refused.Load()+f.seen.Load() == int64(places) })
	cancel()
	wg.Wait()
	eventually(t, "the backend is done", func() bool { return f.seen.Load() == 0 })
	return refused.Load() == 0
}

// Of seven at once each of three replicas has two.
func sharedClass(t *testing.T, f *fleet) {
	for _, p := range f.all {
		eventually(t, "a replica knows of the others", func() bool { return p.Metric(t, "merlon_replicas") == 3 })
	}
	f.most.Store(0)
	var all tally
	done := make(chan struct{})
	go func() {
		defer close(done)
		parallel(30, 30, func(i int) {
			all.add(f.all[i%3].from(fmt.Sprintf("127.0.12.%d", 1+i)).send(t.Context(), "GET", "/hold/class/x", "").Status)
		})
	}()
	eventually(t, "all but those that are let in are answered", func() bool { return all.of(http.StatusServiceUnavailable) == 24 })
	close(*f.held.Load())
	<-done
	if f.most.Load() != 6 || all.of(http.StatusOK) != 6 {
		t.Errorf("%d at once, %v; want 6", f.most.Load(), all.by)
	}
	f.hold()
}

func bannedByAll(t *testing.T, f *fleet) {
	const hostile, other = "203.0.113.66", "203.0.113.67"
	status := func(p *place, from string) int { return p.from("127.0.0.1").get("/", "X-Forwarded-For", from).Status }
	for _, p := range f.all {
		if got := status(p, hostile); got != 200 {
			t.Errorf("before: %d", got)
		}
	}
	f.all[0].from("127.0.0.1").get("/.env", "X-Forwarded-For", hostile).want(t, "a decoy", 404)
	for i, p := range f.all {
		eventually(t, fmt.Sprint("banned by replica ", i), func() bool { return status(p, hostile) == 403 })
		if got := status(p, other); got != 200 {
			t.Errorf("another at replica %d: %d", i, got)
		}
	}
	if out := f.all[1].run("ban", "list"); !strings.Contains(out, hostile) {
		t.Errorf("merlon ban list:\n%s", out)
	}
	f.all[2].run("ban", "lift", hostile)
	for i, p := range f.all {
		eventually(t, fmt.Sprint("lifted by replica ", i), func() bool { return status(p, hostile) == 200 })
	}
}
