package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"
)

// refusalAim is how many µs of CPU a refused request may cost.
const refusalAim = 60

// A shot is one request of a flood.
type shot struct {
	path    string
	from    string // the client's address
	browser bool   // which opens a page; otherwise a program that takes JSON
}

// A refused is one kind of request that a flood is made of.
type refused struct {
	name   string
	status int    // what it is answered
	at     string // which of the targets is flooded
	shot   func(client, n int) shot
}

// The targets of floods. One has all to itself the flood that has it ban
// networks by the thousand, which goes on costing a while after it is over.
const (
	merlonTarget = "Merlon"
	banTarget    = "Merlon that bans"
	floorTarget  = "bare Go server"
)

// refusedKinds are all that are measured, after what refusing costs at least and
// what passes. Whoever is not
// to be banned has an address that never is.
func refusedKinds() []refused {
	spared := func(path string, browser bool) func(int, int) shot {
		return func(client, n int) shot {
			return shot{fmt.Sprintf(path, client, n), fmt.Sprintf("203.0.113.%d", source(client)), browser}
		}
	}
	return []refused{
		{"floor: a bare Go server that answers 429 to all", http.StatusTooManyRequests, floorTarget, spared("/little/%d?page=%d", false)},
		{"passes, browser", http.StatusOK, merlonTarget, spared("/catalog/%d?page=%d", true)},
		{"limit: program", http.StatusTooManyRequests, merlonTarget, spared("/little/%d?page=%d", false)},
		{"limit: browser", http.StatusTooManyRequests, merlonTarget, spared("/little/%d?page=%d", true)},
		{"banned: program", http.StatusForbidden, merlonTarget, func(client, n int) shot {
			return shot{fmt.Sprintf("/catalog/%d?page=%d", client, n), bannedClient(client), false}
		}},
		{"banned: browser", http.StatusForbidden, merlonTarget, func(client, n int) shot {
			return shot{fmt.Sprintf("/catalog/%d?page=%d", client, n), bannedClient(client), true}
		}},
		{"decoy: never banned", http.StatusNotFound, merlonTarget, spared("/.git/config?%d=%d", false)},
		{"decoy: each from a new network, which is banned", http.StatusNotFound, banTarget, func(client, n int) shot {
			return shot{fmt.Sprintf("/.git/config?%d=%d", client, n), fmt.Sprintf("2001:%x:%x:%x::1", 0x1000+rand.IntN(0x1000), rand.IntN(1<<16), rand.IntN(1<<16)), false}
		}},
		{"challenge: program", http.StatusForbidden, merlonTarget, spared("/proof/%d?page=%d", false)},
		{"challenge: browser, is sent to the page", http.StatusSeeOther, merlonTarget, spared("/proof/%d?page=%d", true)},
		{"challenge: the page itself", http.StatusOK, merlonTarget, spared("/.merlon/challenge?bits=18&wait=10&to=%%2Fwork%%2F%d%%3Fpage%%3D%d", true)},
		{"waf: SQL injection, program", http.StatusForbidden, merlonTarget, spared("/catalog/%d?id=%d'%%20UNION%%20SELECT%%20name,password%%20FROM%%20users--", false)},
	}
}

// sources is how many addresses all clients of a flood have: of each, the first
// 50 refusals within 10 s are events of their own, and a flood that lasted
// would send more.
const sources = 2

func source(client int) int { return client%sources + 1 }

func bannedClient(client int) string { return fmt.Sprintf("198.51.100.%d", source(client)) }

// refusingConfig is Merlon's, with routes at which requests are refused.
const refusingConfig = `trusted_proxies: [127.0.0.0/8]
limit: {rate: 1000000/s, burst: 1000000}
ban: {strikes: 100000, errors: 100000, first: 24h, allow: [203.0.113.0/24, 192.0.2.0/24]}
telemetry: {pprof: %t}
sites:
  - host: "*"
    upstream: http://%s
    routes:
      - path: /little/**
        limit: {rate: 1/h, burst: 1}
      - path: /proof/**
        challenge: {when: always}
`

const (
	accept     = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	userAgent  = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
	programs   = "orders-sync/2.1"
	ordinaries = "192.0.2.50"
)

// header returns names and values, one after the other.
func (s shot) header() []string {
	h := []string{"X-Forwarded-For", s.from, "X-Forwarded-Proto", "https"}
	if s.browser {
		return append(h, "User-Agent", userAgent, "Accept", accept, "Accept-Language", "en-GB,en;q=0.5", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "none")
	}
	return append(h, "User-Agent", programs, "Accept", "application/json")
}

func (s shot) wire() []byte {
	w := "GET " + s.path + " HTTP/1.1\r\nHost: " + benchSite + "\r\n"
	h := s.header()
	for i := 0; i < len(h); i += 2 {
		w += h[i] + ": " + h[i+1] + "\r\n"
	}
	return []byte(w + "\r\n")
}

// A protocol is a way to send a flood.
type protocol struct {
	name string
	// gunners are the clients; all close what they have opened.
	gunners func(clear, secure string) []gunner
}

// A gunner sends one request after the other.
type gunner struct {
	fire  func(shot) (status int, err error)
	close func()
}

// streams is how many requests one HTTP/2 connection carries at once.
const streams = 16

func protocols() []protocol {
	insecure := &tls.Config{InsecureSkipVerify: true, ServerName: benchSite}
	one := func(addr string, t *tls.Config) gunner {
		c := &client{addr: addr, tls: t}
		return gunner{func(s shot) (int, error) { return c.ask(s.wire()) }, c.close}
	}
	return []protocol{
		{"HTTP/1, clear", func(clear, _ string) []gunner { return fill(func(int) gunner { return one(clear, nil) }) }},
		{"HTTP/1, TLS", func(_, secure string) []gunner { return fill(func(int) gunner { return one(secure, insecure) }) }},
		{"HTTP/2, TLS", func(_, secure string) []gunner {
			all, only2 := make([]*http.Transport, floodClients/streams), new(http.Protocols)
			only2.SetHTTP2(true)
			for i := range all {
				all[i] = &http.Transport{TLSClientConfig: insecure.Clone(), Protocols: only2}
			}
			return fill(func(n int) gunner {
				t := all[n%len(all)]
				return gunner{func(s shot) (int, error) { return multiplexed(t, secure, s) }, t.CloseIdleConnections}
			})
		}},
	}
}

func fill(one func(n int) gunner) []gunner {
	all := make([]gunner, floodClients)
	for i := range all {
		all[i] = one(i)
	}
	return all
}

// multiplexed sends one request over HTTP/2.
func multiplexed(t *http.Transport, addr string, s shot) (int, error) {
	r, err := http.NewRequest(http.MethodGet, "https://"+addr+s.path, nil)
	if err != nil {
		return 0, err
	}
	r.Host = benchSite
	h := s.header()
	for i := 0; i < len(h); i += 2 {
		r.Header.Set(h[i], h[i+1])
	}
	res, err := t.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	if res.ProtoMajor != 2 {
		err = fmt.Errorf("was answered in %s", res.Proto)
	}
	_, cut := io.Copy(io.Discard, res.Body)
	return res.StatusCode, errors.Join(err, cut, res.Body.Close())
}

// A volley is what a flood of one kind did in one round.
type volley struct {
	cpu, rate, p50, p99 float64 // µs of the gateway for each; a second; ms that others waited
	sent                int
	status              map[int]int
}

// A target is what is flooded.
type target struct {
	name           string
	peer           *peer
	clear, secure  string // its addresses
	admin          string // where its profiles are; empty if there are none
	before, atMost int64  // resident bytes
}

// A refusing has all targets.
type refusing struct {
	*bench
	targets []*target
}

func (g *refusing) target(name string) *target {
	for _, t := range g.targets {
		if t.name == name {
			return t
		}
	}
	panic("no target " + name) // they are written above
}

type volleyCell struct{ kind, protocol int }

func runRefusals(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "merlon-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	g := &refusing{bench: &bench{dir: dir, program: o.merlon}}
	defer g.stop()
	fmt.Fprintf(os.Stderr, "\r%-100s", "Merlon is built and started …")
	if err := g.start(o.profile != ""); err != nil {
		return err
	}
	was := runtime.GOMAXPROCS(1) // like the core
	defer runtime.GOMAXPROCS(was)
	pin(os.Getpid(), loadCore())
	kinds, ways, each := refusedKinds(), protocols(), o.each/4
	volleys := map[volleyCell][]volley{}
	quiet, err := g.target(merlonTarget).others(ctx, 4*each)
	if err != nil {
		return err
	}
	for _, t := range g.targets {
		t.before = t.peer.rss()
		t.peer.forgetMost()
	}
	for round := warmUp; round < o.rounds; round++ {
		for k, kind := range kinds {
			for w, way := range ways {
				fmt.Fprintf(os.Stderr, "\rrefusals, round %d of %d: %s, %-60s", round+1, o.rounds, way.name, kind.name)
				v, err := g.target(kind.at).flood(ctx, kind, way, each)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", kind.name, way.name, err)
				}
				if round != warmUp {
					volleys[volleyCell{k, w}] = append(volleys[volleyCell{k, w}], v)
				}
			}
		}
	}
	for _, t := range g.targets {
		t.atMost = t.peer.mostRSS()
	}
	fmt.Fprintf(os.Stderr, "\r%110s\r", "")
	g.print(volleys, quiet, o.rounds, each)
	if o.profile != "" {
		return g.profiles(ctx, o.profile)
	}
	return nil
}

// start launches the backend and the targets, and has some clients banned.
func (g *refusing) start(profiled bool) (err error) {
	if g.self, err = os.Executable(); err != nil {
		return err
	}
	addr := freeAddr()
	if g.backend, err = g.launch("backend", addr, g.self, "serve-backend", addr, ""); err != nil {
		return err
	}
	pin(g.backend.pid, loadCore())
	program, err := g.build()
	if err != nil {
		return err
	}
	conf := filepath.Join(g.dir, "merlon.yaml")
	if err := os.WriteFile(conf, fmt.Appendf(nil, refusingConfig, profiled, g.backend.addr), 0o600); err != nil {
		return err
	}
	for _, name := range []string{merlonTarget, banTarget, floorTarget} {
		t := &target{name: name, clear: freeAddr(), secure: freeAddr()}
		args := []string{"serve-refusing", t.clear, t.secure}
		run := g.self
		if name != floorTarget {
			run, args = program, []string{"serve", "-c", conf, "--data", filepath.Join(g.dir, t.clear), "--https", t.secure, "--http", "off", "--insecure-http", t.clear, "--admin", "off"}
			if profiled {
				t.admin = freeAddr()
				args[len(args)-1] = t.admin
			}
		}
		if t.peer, err = g.launch(name, t.clear, run, args...); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		pin(t.peer.pid, 0)
		g.peers, g.targets = append(g.peers, t.peer), append(g.targets, t)
	}
	for n := range sources {
		if err := g.target(merlonTarget).shutOut(bannedClient(n)); err != nil {
			return err
		}
	}
	return nil
}

// shutOut asks for decoys until the client is banned.
func (t *target) shutOut(from string) error {
	c := client{addr: t.clear}
	defer c.close()
	status := 0
	for range 5 {
		if _, err := c.ask(shot{"/.git/config", from, false}.wire()); err != nil {
			return err
		}
		var err error
		if status, err = c.ask(shot{"/", from, false}.wire()); err != nil {
			return err
		}
		if status == http.StatusForbidden {
			return nil
		}
	}
	return fmt.Errorf("who touches decoys is not banned, but answered %d", status)
}

// flood sends one kind of request for a while, and a page is asked for by
// somebody else now and then.
func (t *target) flood(ctx context.Context, kind refused, way protocol, length time.Duration) (volley, error) {
	all := way.gunners(t.clear, t.secure)
	defer func() {
		for _, one := range all {
			one.close()
		}
	}()
	v := volley{status: map[int]int{}}
	if err := volleyOnce(all, kind); err != nil { // connections are opened, and bursts used up
		return v, err
	}
	until, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	began, used := time.Now(), t.peer.cpu()
	for n, one := range all {
		wg.Go(func() {
			status := map[int]int{}
			for i := 0; until.Err() == nil && errs[n] == nil; i++ {
				var s int
				s, errs[n] = one.fire(kind.shot(n, i))
				status[s]++
			}
			mu.Lock()
			defer mu.Unlock()
			for s, m := range status {
				v.status[s] += m
				v.sent += m
			}
		})
	}
	waited, err := t.others(until, length)
	wg.Wait()
	used = t.peer.cpu() - used
	took := time.Since(began)
	if err := errors.Join(append(errs, err)...); err != nil {
		return v, err
	}
	v.cpu, v.rate = µs(used)/float64(v.sent), float64(v.sent)/took.Seconds()
	if len(waited) > 0 {
		v.p50, v.p99 = µs(waited[len(waited)/2])/1000, µs(waited[len(waited)*99/100])/1000
	}
	return v, ctx.Err()
}

// volleyOnce has each client send two requests.
func volleyOnce(all []gunner, kind refused) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for n, one := range all {
		wg.Go(func() {
			for i := range 2 {
				if _, err := one.fire(kind.shot(n, -i)); err != nil {
					errs[n] = err
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// others opens a page now and then, and returns how long it took, sorted.
func (t *target) others(ctx context.Context, length time.Duration) ([]time.Duration, error) {
	c := client{addr: t.clear}
	defer c.close()
	var took []time.Duration
	tick := time.NewTicker(floodPause)
	defer tick.Stop()
	for end := time.Now().Add(length); ctx.Err() == nil && time.Now().Before(end); <-tick.C {
		began := time.Now()
		status, err := c.ask(shot{"/orders?page=2", ordinaries, true}.wire())
		if err != nil {
			return nil, err
		}
		if status != http.StatusOK && t.name != floorTarget {
			return nil, fmt.Errorf("somebody else was answered %d", status)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

func (g *refusing) print(volleys map[volleyCell][]volley, quiet []time.Duration, rounds int, each time.Duration) {
	fmt.Printf("Floods of requests, most of which are refused, through the whole gateway on one core: %d clients with %d addresses for %s, connections kept; median (min–max) of %d rounds; %s.\n",
		floodClients, sources, each, rounds, busy())
	if len(quiet) > 0 {
		fmt.Printf("Somebody else opens a page every %s; without a flood that took %.1f ms (p50), %.1f ms (p99).\n", floodPause, µs(quiet[len(quiet)/2])/1000, µs(quiet[len(quiet)*99/100])/1000)
	}
	fmt.Print("\n| | answer | over | CPU, µs | requests/s | others' p50, ms | p99, ms | aim, µs of CPU |\n|---|---:|---|---:|---:|---:|---:|---:|\n")
	for k, kind := range refusedKinds() {
		for w, way := range protocols() {
			all := volleys[volleyCell{k, w}]
			aim := fmt.Sprintf("≤ %d", refusalAim)
			if kind.at == floorTarget || kind.status == http.StatusOK {
				aim = ""
			}
			fmt.Printf("| %s | %s | %s | %s | %s | %s | %s | %s |\n", kind.name, kind.answers(all), way.name,
				spread(column(all, func(v volley) float64 { return v.cpu })), spread(column(all, func(v volley) float64 { return v.rate })),
				spread(column(all, func(v volley) float64 { return v.p50 })), spread(column(all, func(v volley) float64 { return v.p99 })), aim)
		}
	}
	fmt.Println()
	for _, t := range g.targets {
		fmt.Printf("%s: %d MiB resident before all floods, %d MiB at most.\n", t.name, t.before>>20, t.atMost>>20)
	}
	fmt.Println()
}

// answers is the most frequent status, and how many were another.
func (k refused) answers(all []volley) string {
	sum, n := map[int]int{}, 0
	for _, v := range all {
		for s, m := range v.status {
			sum[s] += m
			n += m
		}
	}
	if n == 0 {
		return ""
	}
	most := slices.MaxFunc(slices.Collect(maps.Keys(sum)), func(a, b int) int { return cmp.Compare(sum[a], sum[b]) })
	text := fmt.Sprint(most)
	if other := n - sum[k.status]; other > 0 {
		text += fmt.Sprintf(" **%.2g %% not %d**", 100*float64(other)/float64(n), k.status)
	}
	return text
}
