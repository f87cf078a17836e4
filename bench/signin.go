package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/bench/traffic"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/internal/store"
)

// floodAccounts is how many people's passwords are tried in a flood.
const floodAccounts = 24

// The gateways whose requests are compared.
const (
	openName   = "Merlon, nobody is asked who they are"
	loginName  = "Merlon, require: login"
	skipName   = "oauth2-proxy, skip-auth-route"
	cookieName = "oauth2-proxy, cookie session"
)

// A signIn is what is measured through whole gateways.
type signIn struct {
	*bench
	o      options
	data   string // Merlon's data folder
	cost   password.Argon2
	cookie string            // of a session at Merlon
	kept   map[string]string // the cookie that each gateway gets
	floods []*flood
}

func runSignIn(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "merlon-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &signIn{bench: &bench{dir: dir, program: o.merlon}, o: o, data: filepath.Join(dir, "data"), kept: map[string]string{}}
	defer s.stop()
	if s.self, err = os.Executable(); err != nil {
		return err
	}
	fmt.Fprint(os.Stderr, "\rMerlon is built; people are given passwords …")
	if _, err := s.build(); err != nil {
		return err
	}
	if err := s.people(ctx); err != nil {
		return err
	}
	addr := freeAddr()
	if s.backend, err = s.launch("backend", addr, s.self, "serve-backend", addr, ""); err != nil {
		return err
	}
	pin(s.backend.pid, loadCore())
	if err := s.requests(ctx); err != nil {
		return err
	}
	if err := s.logIns(ctx); err != nil {
		return err
	}
	for _, m := range s.missing {
		fmt.Printf("\nNot measured: %s\n", m)
	}
	fmt.Println("\nNot measured: Authelia: its module does not build without a frontend that is built with npm.")
	fmt.Println()
	return nil
}

// people makes accounts in a data folder, with hashes that cost what Merlon
// would choose on this machine, and a session of the first.
func (s *signIn) people(ctx context.Context) error {
	c := password.Config{}
	h, err := password.New(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.data, 0o700); err != nil {
		return err
	}
	db, err := store.Open(ctx, store.Config{Dir: s.data})
	if err != nil {
		return err
	}
	defer db.Close()
	for i := range floodAccounts {
		a := benchAccount(i)
		if a.Password, err = h.Hash(ctx, benchPassword(a.Name)); err != nil {
			return err
		}
		if err := db.Accounts().Create(ctx, a); err != nil {
			return err
		}
		var kib int
		if _, err := fmt.Sscanf(a.Password, "$argon2id$v=19$m=%d,t=%d,", &kib, &s.cost.Time); err != nil {
			return err
		}
		if err := s.cost.Memory.UnmarshalText(fmt.Appendf(nil, "%dKiB", kib)); err != nil {
			return err
		}
	}
	m, err := session.New(session.Config{}, db.Sessions(), db.Accounts())
	if err != nil {
		return err
	}
	defer m.Close()
	_, cookie, err := m.Begin(benchRequest("", ""), session.Proof{Account: benchAccount(0).ID, Methods: []string{account.ByPassword}})
	if err == nil {
		s.cookie = cookie.Name + "=" + cookie.Value
	}
	return err
}

// gateway launches Merlon with one more line of configuration.
func (s *signIn) gateway(cores int, name, more string) (*peer, error) {
	program, err := s.build()
	if err != nil {
		return nil, err
	}
	addr := freeAddr()
	conf := filepath.Join(s.dir, addr+".yaml")
	text := fmt.Sprintf(unlimited+`trusted_proxies: [127.0.0.0/8]
%s
sites:
  - host: %s
    upstream: http://%s
`, more, benchSite, s.backend.addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return s.launchOn(cores, name, addr, program, "serve", "-c", conf, "--data", s.data, "--https", "off", "--http", "off", "--admin", "off", "--insecure-http", addr)
}

// signing is the configuration of a Merlon at which people sign in. Every try
// of a flood comes from a network of its own, so that only its own passwords
// make an account wait, and those are too few.
func (s *signIn) signing() string {
	return fmt.Sprintf("require: login\nidentity:\n  password: {argon2: {memory: %s, time: %d}}\n  attempts: {alarm: 1000000, account: {free: 100000}}", s.cost.Memory, s.cost.Time)
}

// requests compares GETs with and without a session.
func (s *signIn) requests(ctx context.Context) error {
	gateway := func(more, cookie string) func(name string) (*peer, string, error) {
		return func(name string) (*peer, string, error) {
			p, err := s.gateway(1, name, more)
			return p, cookie, err
		}
	}
	for _, c := range []struct {
		name   string
		other  bool
		launch func(name string) (*peer, string, error)
	}{
		{openName, false, gateway("", s.cookie)},
		{loginName, false, gateway(s.signing(), s.cookie)},
		{skipName, true, s.oauth2Proxy(1, "--skip-auth-route=^/")},
		{cookieName, true, s.oauth2Proxy(1)},
	} {
		fmt.Fprintf(os.Stderr, "\rstarting %-60s", c.name)
		p, cookie, err := c.launch(c.name)
		switch {
		case err != nil && c.other:
			reason := strings.TrimSpace(err.Error())
			s.missing = append(s.missing, c.name+": "+reason[:min(len(reason), 600)])
			continue
		case err != nil:
			return fmt.Errorf("%s: %w", c.name, err)
		}
		pin(p.pid, 0)
		s.peers, s.kept[c.name] = append(s.peers, p), cookie
	}
	was := runtime.GOMAXPROCS(1) // like the core
	defer runtime.GOMAXPROCS(was)
	pin(os.Getpid(), loadCore())
	r := report{peers: s.peers, samples: map[cell][]sample{}, loads: []load{{kind: traffic.Kinds()[0], repeat: s.o.repeat}}}
	each := s.o.each / 2
	for round := warmUp; round < s.o.rounds; round++ {
		for _, p := range s.peers {
			fmt.Fprintf(os.Stderr, "\rround %d of %d: %-60s", round+1, s.o.rounds, p.name)
			l := r.loads[0]
			l.cookie = s.kept[p.name]
			before := p.cpu()
			a, err := l.fire(ctx, p.addr, round, each)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if round != warmUp {
				r.add(p, l, a, p.cpu()-before)
			}
		}
	}
	fmt.Fprintf(os.Stderr, "\r%90s\r", "")
	fmt.Printf("A GET through the whole gateway, with a session's cookie; %d rounds of %s; median (min–max).\n", s.o.rounds, each)
	r.table("CPU µs per request", r.names(), func(s sample) float64 { return s.cpu })
	r.above("CPU µs that asking who it is adds", [][2]string{{loginName, openName}, {cookieName, skipName}})
	r.table(fmt.Sprintf("Latency of %d clients, p50 µs", clients), r.names(), func(s sample) float64 { return s.p50 })
	r.table(fmt.Sprintf("Latency of %d clients, p99 µs", clients), r.names(), func(s sample) float64 { return s.p99 })
	for _, p := range s.peers {
		p.end()
	}
	s.peers = nil
	return nil
}

// above shows by how much one gateway costs more than another.
func (r *report) above(title string, pairs [][2]string) {
	r.head(title)
	for _, pair := range pairs {
		for _, l := range r.loads {
			over, under := r.samples[cell{pair[0], l.kind.Name}], r.samples[cell{pair[1], l.kind.Name}]
			if len(over) == 0 || len(under) == 0 {
				continue
			}
			var v []float64
			for round := range over {
				v = append(v, over[round].cpu-under[round].cpu)
			}
			fmt.Printf("| %s | %s |\n", pair[0], spread(v))
		}
	}
}

// logIns floods one gateway after the other, each with all cores.
func (s *signIn) logIns(ctx context.Context) error {
	cores := runtime.NumCPU()
	p, err := s.gateway(cores, loginName, s.signing())
	if err != nil {
		return err
	}
	s.peers = append(s.peers, p)
	m, err := merlonForm(p)
	if err != nil {
		return fmt.Errorf("the log-in form of Merlon: %w", err)
	}
	m.name = fmt.Sprintf("Merlon, argon2id of %s and %d passes", s.cost.Memory, s.cost.Time)
	s.floods = append(s.floods, &flood{form: m, peer: p, cookie: s.cookie})
	if p, cookie, err := s.oauth2Proxy(cores)(cookieName); err == nil {
		s.peers = append(s.peers, p)
		s.floods = append(s.floods, &flood{form: oauth2Form(), peer: p, cookie: cookie})
	} // or it is told already why not
	for _, f := range s.floods {
		fmt.Fprintf(os.Stderr, "\rlog-ins: %-60s", f.form.name)
		if err := f.run(ctx, floodQuiet, floodLength); err != nil {
			return fmt.Errorf("%s: %w", f.form.name, err)
		}
	}
	fmt.Fprintf(os.Stderr, "\r%90s\r", "")
	fmt.Printf("\nA flood of log-ins: %d clients for %s, every second password wrong, each try from another network; all %d cores. Beside it somebody who is signed in sends a GET every %s.\n\n",
		floodClients, floodLength, cores, floodPause)
	fmt.Print("| | log-ins/s | right | wrong | refused, 503 | to wait, 429 | other answers | MiB before → at most | GET before, p50 / p99 ms | GET meanwhile, p50 / p99 ms |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, f := range s.floods {
		f.print()
	}
	return nil
}

// others counts what was answered beside those statuses.
func others(status map[int]int, known ...int) int {
	n := 0
	for _, s := range slices.Collect(maps.Keys(status)) {
		if !slices.Contains(known, s) {
			n += status[s]
		}
	}
	return n
}
