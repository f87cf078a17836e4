package ban_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/merlontest"
)

func TestContract(t *testing.T) {
	store := ban.NewMemory()
	now := time.Now()
	for _, key := range []string{"client 203.0.113.7", "network 2001:db8:0:1::/64", "user u-eve", "key mk_eve"} {
		b := ban.Ban{Key: key, Since: now, Until: now.Add(time.Hour), Times: 1, Why: "test", By: "root"}
		if _, err := store.Put(t.Context(), []ban.Ban{b}, 10, now); err != nil {
			t.Fatal(err)
		}
	}
	bans := ban.NewBans(store, count.NewMemory(count.MemoryConfig{Keys: 8}), nil)
	if err := bans.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	newGuard := func(*testing.T) *ban.Guard {
		g, err := ban.New(ban.Config{Allow: []string{"2001:db8:0:1::1"}}, ban.Env{Bans: bans, Tries: tries})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	as := func(cookie string) func(*merlon.Request) {
		return func(r *merlon.Request) { r.Header.Set("Cookie", cookie); r.Identity = who(r) }
	}
	byKey := func(r *merlon.Request) { r.Header.Set("X-API-Key", "mk_eve"); r.Identity = who(r) }
	const refused = http.StatusForbidden
	merlontest.Run(t, func(t *testing.T) merlon.Guard { return newGuard(t) }, merlontest.Options{}, []merlontest.Case{
		{Name: "a client", Request: "POST /\n\na=1", Want: ban.NotBanned},
		{Name: "a banned one", Request: "POST /\n\na=1", Client: office, Want: ban.Banned, Status: refused},
		{Name: "written as IPv6", Request: "GET /", Client: "::ffff:203.0.113.7", Want: ban.Banned, Status: refused},
		{Name: "through a translator", Request: "GET /", Client: "64:ff9b::203.0.113.7", Want: ban.Banned, Status: refused},
		{Name: "the home next door", Request: "GET /", Client: "2001:db8:0:2::7", Want: ban.NotBanned},
		{Name: "another address of one home", Request: "GET /", Client: "2001:db8:0:1:ffff::7", Want: ban.Banned, Status: refused},
		{Name: "one of it that is allowed", Request: "GET /", Client: "2001:db8:0:1::1", Want: ban.NotBanned},
		{Name: "a banned one with a proof", Request: "GET /", Client: office, Prepare: as("s=ann"), Want: ban.BanUndecided},
		{Name: "no address at all", Request: "GET /", Prepare: func(r *merlon.Request) { r.Client = netip.Addr{} }, Want: ban.NotBanned},
	})
	merlontest.Run(t, func(t *testing.T) merlon.Guard { return newGuard(t).Known() }, merlontest.Options{}, []merlontest.Case{
		{Name: "known: nobody", Request: "GET /", Want: ban.NotBanned},
		{Name: "known: nobody at a banned address", Request: "GET /", Client: office, Prepare: as("s=forged"), Want: ban.Banned, Status: refused},
		{Name: "known: somebody at a banned address", Request: "GET /", Client: office, Prepare: as("s=ann"), Want: ban.NotBanned},
		{Name: "known: a banned user", Request: "GET /", Prepare: as("s=eve"), Want: ban.Banned, Status: refused},
		{Name: "known: a banned key", Request: "GET /", Prepare: byKey, Want: ban.Banned, Status: refused},
	})
	if g := newGuard(t); g.Name() != "ban" || g.Known().Name() != "ban" {
		t.Error("the faces have two names")
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		c    ban.Config
		want []string // each line begins so
	}{
		"nothing": {ban.Config{}, nil},
		"all": {ban.Config{Strikes: 1, Errors: 100_000, Within: time.Second, First: 720 * time.Hour, Longest: 720 * time.Hour,
			Allow: []string{"198.51.100.7", "10.8.0.0/16", "::/0", "2001:db8::/32", "::ffff:10.9.0.0/112"}, Everywhere: true}, nil},
		"a first longer than a day":    {ban.Config{First: 48 * time.Hour}, nil},
		"negative numbers":             {ban.Config{Strikes: -1, Errors: -5}, []string{`strikes "-1": must be from 1`, `errors "-5": must be from 1`}},
		"numbers too large":            {ban.Config{Strikes: 100_001, Errors: 100_001}, []string{"strikes", "errors"}},
		"times too short":              {ban.Config{Within: time.Millisecond, First: time.Millisecond}, []string{`within "1ms": must be from 1s`, `first "1ms": must be`}},
		"times too long":               {ban.Config{Within: 25 * time.Hour, First: 721 * time.Hour}, []string{"within", "first"}},
		"the longest before the first": {ban.Config{First: time.Hour, Longest: time.Minute}, []string{`longest "1m0s": must be from first to 720h`}},
		"no addresses": {ban.Config{Allow: []string{"10.8.0.0/16", "office", "10.8.0.1/16", "fe80::1%eth0", "010.0.0.1"}},
			[]string{`allow[1] "office": must be an address`, `allow[2] "10.8.0.1/16": has bits beyond its length set; write 10.8.0.0/16`, "allow[3]", "allow[4]"}},
		"no file": {ban.Config{Lists: []string{"/nowhere/list"}}, []string{`lists[0] "/nowhere/list": open /nowhere/list: no such file`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ban.New(c.c, ban.Env{})
			if c.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("taken")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) {
				t.Fatalf("got %q", lines)
			}
			for i, w := range c.want {
				if !strings.HasPrefix(lines[i], w) {
					t.Errorf("line %d is %q, want %q", i, lines[i], w)
				}
			}
		})
	}
}

// Who is refused again and again is shut out, and comes back when it is over.
func TestAttackerIsShutOutForAWhile(t *testing.T) {
	w := newWorld(t, ban.Config{Strikes: 5}, options{})
	w.times(5, visit{path: "/waf"})
	w.wants(visit{}, "") // five are allowed
	w.times(1, visit{path: "/waf"})
	w.wants(visit{}, ban.Banned)
	w.wants(visit{client: other}, "")
	if n := w.of(ban.Imposed); len(n) != 1 || n[0].Ban.Key != "client "+office || n[0].Ban.Times != 1 || n[0].Ban.By != "merlon" || n[0].Ban.Why == "" || n[0].Alarm() {
		t.Errorf("told %+v", n)
	}
	w.pass(59 * time.Second)
	w.wants(visit{}, ban.Banned)
	w.pass(2 * time.Second)
	w.wants(visit{}, "")
	w.times(5, visit{path: "/waf"}) // counted anew
	w.wants(visit{}, "")
}

func TestRefusalTellsTheClientNothing(t *testing.T) {
	w := newWorld(t, ban.Config{First: time.Hour}, options{})
	w.times(1, visit{path: "/.env"})
	d := w.visit(visit{})
	if d.Code() != http.StatusForbidden || d.Header != nil || d.Problem != "" || d.Location != "" {
		t.Errorf("%+v", d)
	}
	if len(d.Findings) != 1 || d.Findings[0].Part != "client "+office || !strings.Contains(d.Findings[0].Message, "decoy") {
		t.Errorf("the operator is told %+v", d.Findings)
	}
	if d.Remedy != "ban:\n  allow: [\""+office+"\"]" {
		t.Errorf("remedy %q", d.Remedy)
	}
	w.pass(59 * time.Minute)
	if d := w.visit(visit{}); d.Header.Get("Retry-After") != "60" {
		t.Errorf("a minute before its end: %v", d.Header)
	}
	v := newWorld(t, ban.Config{Allow: []string{office}}, options{bans: w.bans, clock: w.clock})
	v.wants(visit{}, "") // the remedy is one
}

// An office behind one address: what one of them does anonymously shuts out
// who proves nobody, and nobody else.
func TestOffice(t *testing.T) {
	w := newWorld(t, ban.Config{}, options{})
	w.times(1, visit{path: "/.env"})
	w.wants(visit{}, ban.Banned)
	w.wants(visit{header: "Cookie: s=ann"}, "")
	w.wants(visit{header: "X-API-Key: mk_bob"}, "")
	w.wants(visit{header: "Cookie: s=forged"}, ban.Banned) // by the second face
	w.wants(visit{header: "X-API-Key: nonsense"}, ban.Banned)
}

// What somebody signed in does is theirs, wherever they go, and not the
// office's.
func TestUserIsBannedForTheirOwn(t *testing.T) {
	for _, path := range []string{"/waf", "/stuffing"} { // before and after it is known who it is
		w := newWorld(t, ban.Config{Strikes: 5}, options{})
		w.times(6, visit{path: path, header: "Cookie: s=eve"})
		w.wants(visit{header: "Cookie: s=eve"}, ban.Banned)
		w.wants(visit{header: "Cookie: s=eve", client: other}, ban.Banned)
		w.wants(visit{header: "X-API-Key: mk_eve"}, ban.Banned) // her keys, too
		w.wants(visit{header: "Cookie: s=ann"}, "")
		w.wants(visit{}, "")
		if n := w.of(ban.Imposed); len(n) != 1 || n[0].Ban.Key != "user u-eve" {
			t.Errorf("%+v", n)
		}
	}
	// A key is banned for its own.
	w := newWorld(t, ban.Config{Strikes: 5}, options{})
	w.times(6, visit{path: "/waf", header: "X-API-Key: mk_eve"})
	w.wants(visit{header: "X-API-Key: mk_eve"}, ban.Banned)
	w.wants(visit{header: "Cookie: s=eve"}, "")
	// Without a way to know early, an address is banned; whoever signs in is not.
	w = newWorld(t, ban.Config{}, options{stranger: true})
	w.times(1, visit{path: "/.env", header: "Cookie: s=eve"})
	w.wants(visit{}, ban.Banned)
	w.wants(visit{header: "Cookie: s=eve"}, "")
}

func TestForgedProofBansTheAddress(t *testing.T) {
	w := newWorld(t, ban.Config{Strikes: 5}, options{})
	for i := range 6 { // each time another
		w.visit(visit{path: "/waf", header: fmt.Sprint("X-API-Key: ", i)})
	}
	w.wants(visit{header: "X-API-Key: 7"}, ban.Banned)
}

func TestKnownDeviceAndExempt(t *testing.T) {
	device := func(r *merlon.Request) bool { return r.Header.Get("Device") == "known" }
	crawler := func(r *merlon.Request) bool { return r.UserAgent() == "Googlebot" }
	w := newWorld(t, ban.Config{}, options{knownDevice: device, exempt: crawler})
	w.times(1, visit{path: "/.env"})
	w.wants(visit{}, ban.Banned)
	w.wants(visit{header: "Device: known"}, "")
	w.wants(visit{header: "Device: known\nCookie: s=forged"}, "")
	w.times(100, visit{client: other, path: "/.env", header: "User-Agent: Googlebot"})
	w.wants(visit{client: other}, "")
}

// Who has an account of their own has a known browser, too: it may come from a
// banned address until it misbehaves itself, on however many machines.
func TestKnownDeviceThatMisbehaves(t *testing.T) {
	device := func(r *merlon.Request) string { return r.Header.Get("Device") }
	w := newWorld(t, ban.Config{Strikes: 5, Errors: 5, First: time.Hour}, options{device: device, knownDevice: func(r *merlon.Request) bool { return device(r) != "" }})
	w.times(1, visit{path: "/.env"})
	w.wants(visit{header: "Device: eve"}, "")
	for i := range 6 { // each time from another machine
		w.visit(visit{client: fmt.Sprintf("198.51.100.%d", i+1), path: "/waf", header: "Device: eve"})
	}
	w.wants(visit{header: "Device: eve"}, ban.Banned)
	w.wants(visit{header: "Device: ann"}, "")
	w.wants(visit{client: "198.51.100.99", header: "Device: eve"}, "") // the address is not banned
	if n := len(w.of(ban.Imposed)); n != 2 || w.of(ban.Imposed)[1].Ban.Key != "device eve" {
		t.Errorf("told %+v", w.of(ban.Imposed))
	}
	w.pass(61 * time.Minute)
	w.times(1, visit{path: "/.env", header: "Device: eve"})
	w.wants(visit{header: "Device: eve"}, ban.Banned)
	if k, err := ban.ParseKey("device eve"); k != "device eve" || err != nil {
		t.Errorf("cannot be lifted: %q %v", k, err)
	}
}

// Of the allowed nobody is banned: not for what they do, not by hand, not by a list.
func TestAllowHolds(t *testing.T) {
	list := file(t, office+"\n"+other+"\n")
	for name, do := range map[string]func(w *world){
		"for what they do": func(w *world) { w.times(1, visit{path: "/.env"}); w.times(1, visit{client: other, path: "/.env"}) },
		"by hand":          func(w *world) { w.byHand("client "+office, ""); w.byHand("client "+other, "") },
		"with a network": func(w *world) {
			w.byHand("network 203.0.113.0/24", "")
			w.byHand("network 198.51.0.0/16", "shop.example.com")
		},
		"by a list": func(*world) {},
	} {
		t.Run(name, func(t *testing.T) {
			c := ban.Config{Allow: []string{"203.0.113.0/28"}}
			want := ban.Banned
			if name == "by a list" {
				c.Lists, want = []string{list}, ban.Listed
			}
			w := newWorld(t, c, options{store: ban.NewMemory()})
			do(w)
			w.wants(visit{client: other}, want) // who is not allowed, or the test shows nothing
			w.wants(visit{}, "")
			w.wants(visit{header: "Cookie: s=forged"}, "")
			for _, n := range w.of(ban.Imposed) {
				if n.Ban.Key == "client "+office {
					t.Errorf("told %+v", n)
				}
			}
		})
	}
}

// Of bans before the file says allow, too.
func TestAllowAfterTheBan(t *testing.T) {
	w := newWorld(t, ban.Config{First: time.Hour}, options{})
	w.times(1, visit{path: "/.env"})
	w.wants(visit{}, ban.Banned)
	reloaded := newWorld(t, ban.Config{Allow: []string{office}}, options{bans: w.bans, clock: w.clock})
	reloaded.wants(visit{}, "")
	w.wants(visit{}, ban.Banned)
}

func TestSitesAreApart(t *testing.T) {
	w := newWorld(t, ban.Config{}, options{store: ban.NewMemory()})
	w.times(1, visit{path: "/.env", site: "a.example"})
	w.wants(visit{site: "a.example"}, ban.Banned)
	w.wants(visit{site: "b.example"}, "")
	w.byHand("network "+other+"/32", "b.example")
	w.wants(visit{client: other, site: "a.example"}, "")
	w.wants(visit{client: other, site: "b.example"}, ban.Banned)

	all := newWorld(t, ban.Config{Everywhere: true}, options{})
	all.times(1, visit{path: "/.env", site: "a.example"})
	all.wants(visit{site: "b.example"}, ban.Banned)
}

// Strikes at one site do not add to those at another, unless bans are for all.
func TestStrikesAreApart(t *testing.T) {
	for everywhere, want := range map[bool]merlon.Reason{false: "", true: ban.Banned} {
		w := newWorld(t, ban.Config{Strikes: 10, Everywhere: everywhere}, options{})
		for i := range 12 {
			w.visit(visit{path: "/waf", site: fmt.Sprint("site", i%2)})
		}
		w.wants(visit{site: "site0"}, want)
	}
}

func TestEscalation(t *testing.T) {
	w := newWorld(t, ban.Config{First: time.Minute, Longest: 5 * time.Minute}, options{})
	for n, length := range []time.Duration{1, 2, 4, 5, 5} {
		w.times(1, visit{path: "/.env"})
		got := w.of(ban.Imposed)[n].Ban
		if got.Times != n+1 || got.Until.Sub(got.Since) != length*time.Minute {
			t.Errorf("ban %d: %+v, want %d minutes", n+1, got, length)
		}
		w.pass(length*time.Minute + time.Second)
		w.wants(visit{}, "")
	}
	w.pass(ban.Remembered)
	w.times(1, visit{path: "/.env"})
	if got := w.of(ban.Imposed)[5].Ban; got.Times != 1 {
		t.Errorf("after a day without: %+v", got)
	}
}

// However often it was, a ban has a length.
func TestEscalationDoesNotOverflow(t *testing.T) {
	w := newWorld(t, ban.Config{First: time.Second, Longest: time.Minute}, options{})
	for range 100 {
		w.times(1, visit{path: "/.env"})
		w.wants(visit{}, ban.Banned)
		w.pass(61 * time.Second)
	}
}

// After a ban strikes are counted from none, also if they are remembered for
// longer than it lasted.
func TestCountedAnewAfterABan(t *testing.T) {
	w := newWorld(t, ban.Config{Strikes: 10, Errors: 10, Within: time.Hour, First: time.Second}, options{})
	for round := range 2 {
		w.times(11, visit{path: "/waf"})
		w.wants(visit{}, ban.Banned)
		w.pass(10 * time.Second)
		w.times(9, visit{path: "/waf"})
		w.wants(visit{}, "")
		w.pass(2 * time.Hour)
		for i := range 11 {
			w.visit(visit{path: fmt.Sprintf("/%d/%d", round, i), status: 404})
		}
		w.wants(visit{}, ban.Banned)
		w.pass(10 * time.Second)
		for i := range 9 {
			w.visit(visit{path: fmt.Sprintf("/again/%d/%d", round, i), status: 404})
		}
		w.wants(visit{}, "")
		w.pass(2 * time.Hour)
	}
}

func TestParallel(t *testing.T) {
	w := newWorld(t, ban.Config{Strikes: 20}, options{store: ban.NewMemory()})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				client := fmt.Sprintf("198.51.100.%d", i%50)
				w.visit(visit{client: client, path: []string{"/waf", "/.env", "/x", "/"}[(g+i)%4], status: 404})
				w.visit(visit{client: client, header: "Cookie: s=ann"})
				if i%50 == 0 {
					if err := w.bans.Sync(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]int{}
	for _, n := range w.of(ban.Imposed) {
		seen[n.Ban.Key]++
	}
	if len(seen) != 50 {
		t.Errorf("%d are banned of 50", len(seen))
	}
	for key, n := range seen {
		if n != 1 {
			t.Errorf("%s was banned %d times at once", key, n)
		}
	}
	w.wants(visit{header: "Cookie: s=ann"}, "")
}

// Exactly one more than may be is what bans, also when all come at once.
func TestParallelStrikesAreCountedOnce(t *testing.T) {
	w := newWorld(t, ban.Config{Strikes: 64}, options{})
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() { w.visit(visit{path: "/waf"}) })
	}
	wg.Wait()
	w.wants(visit{}, "")
	w.times(1, visit{path: "/waf"})
	w.wants(visit{}, ban.Banned)
}

// With more clients than can be counted apart, nobody is banned for others.
func TestSharedCountsBanNobody(t *testing.T) {
	w := newWorld(t, ban.Config{Strikes: 5}, options{bans: ban.NewBans(nil, count.NewMemory(count.MemoryConfig{Keys: 8}), nil)})
	w.drive(w.bans)
	for i := range 5000 {
		w.visit(visit{client: fmt.Sprintf("198.51.%d.%d", i/250, i%250), path: "/waf"})
	}
	w.visit(visit{path: "/waf"})
	w.wants(visit{}, "")
}
