// Package gateway composes: sites, routes, the one list of guards, listeners,
// reload and shutdown. It promises that every request is answered by the gate
// of exactly one route, and leaves one event.
//
// It decides nothing: what may pass is for the guards, what a setting may be
// is for their constructors.
package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/access"
	"github.com/merlon-dev/merlon/certs"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/csrf"
	"github.com/merlon-dev/merlon/geo"
	"github.com/merlon-dev/merlon/headers"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/origin"
	"github.com/merlon-dev/merlon/record"
	"github.com/merlon-dev/merlon/throttle"
	"github.com/merlon-dev/merlon/upstream"
	"github.com/merlon-dev/merlon/waf"
)

// A Gateway is everything that is built from one configuration. It is never
// changed: a reload builds another.
type Gateway struct {
	edge       *origin.Edge
	certs      *certs.Certs
	hosts      hostTable
	sites      []*site
	stranger   *route  // answers for hosts that no site serves
	people     *people // nil if nobody signs in
	challenges *challenge.Pages
	tls        *tls.Config
	challenged http.Handler // the gateway itself, behind ACME challenges
	weak       []string
	wafs       []shared[waf.Config, *waf.Guard]
	env        Env

	inFlight sync.WaitGroup
}

// An Env is what a Gateway uses and does not own; it outlives reloads.
type Env struct {
	Log     *slog.Logger
	Ledger  *ledger.Log      // nil while a configuration is only checked
	Metrics *Metrics         // may be nil
	Tracer  *Tracer          // may be nil
	State   *State           // nil while a configuration is only checked
	Tapes   *record.Recorder // nil if no traffic is recorded
	Stores  *Stores          // nil while a configuration is only checked, and if nobody signs in
	Room    *merlon.Room     // for bodies that guards look at; nil for no bound
	// HTTPS is the address of the listener that people reach sites by, once
	// there is one.
	HTTPS func() string
	// Secure says whether a request came by TLS, to us or to a trusted proxy;
	// nil while a configuration is only checked.
	Secure func(*merlon.Request) bool
	Notify func(certs.Notice)

	replay bool // requests of another time are judged
}

type site struct {
	name   string
	routes []*route // the most specific first
	all    *route   // what no route matches
}

type route struct {
	site    string
	pattern string // empty for the site itself
	index   int    // in the file
	gate    *merlon.Gate
	pool    *upstream.Pool
	page    http.Handler // one of Merlon's own; nil where the upstream answers
	traffic traffic
	access  *access.Guard   // nil if nothing is required
	csrf    *csrf.Guard     // whose forms may be kept, also where it is off; nil if it cannot be built
	headers *headers.Policy // nil if off
	plain   bool            // response guards want to read what the upstream sends
	guards  []string        // as asked, for people: "waf (monitored)"
}

// New builds a gateway from f. The error joins every [merlon.SettingError];
// [config.File.Explain] finds their places. It opens no port and starts
// nothing, so that to check a configuration is to build and drop it.
func New(f *config.File, env Env) (*Gateway, error) {
	if env.State == nil {
		env.State = rehearse()
	}
	return build(f, env, nil)
}

// build is New with rule sets that were compiled a moment ago.
func build(f *config.File, env Env, wafs []shared[waf.Config, *waf.Guard]) (*Gateway, error) {
	b := &builder{file: f, env: env, g: &Gateway{hosts: hostTable{}, env: env}, pools: map[string]*upstream.Pool{}, wafs: wafs}
	b.build()
	b.g.wafs = b.wafs
	if err := errors.Join(b.errs...); err != nil {
		if b.g.people != nil {
			b.g.people.close()
		}
		return nil, err
	}
	return b.g, nil
}

// builder gathers mistakes while it builds, so that all are told at once.
type builder struct {
	file  *config.File
	env   Env
	g     *Gateway
	errs  []error
	pools map[string]*upstream.Pool
	wafs  []shared[waf.Config, *waf.Guard]

	classes throttle.Classes
	geo     *geo.DB // nil if there is none
}

// shared pairs a configuration with what was built from it: equal
// configurations share one, since compiled rule sets are large.
type shared[C, G any] struct {
	config C
	guard  G
}

// fail notes what is wrong at a setting. Some guards are built for Merlon's own
// pages too, and would tell it again.
func (b *builder) fail(setting string, err error) {
	if err == nil {
		return
	}
	err = merlon.Within(setting, err)
	if !slices.ContainsFunc(b.errs, func(known error) bool { return known != nil && known.Error() == err.Error() }) {
		b.errs = append(b.errs, err)
	}
}

func (b *builder) build() {
	f, g := b.file, b.g
	var err error
	if g.edge, err = origin.NewEdge(f.EdgeConfig); err != nil {
		b.errs = append(b.errs, err)
	}
	if err := ledger.Check(f.Ledger); err != nil {
		b.fail("ledger", err)
	}
	if err := record.Check(f.Record); err != nil {
		b.fail("record", err)
	}
	if f.Telemetry.Traces != "" {
		if _, err := tracesURL(f.Telemetry.Traces); err != nil {
			b.errs = append(b.errs, err)
		}
	}
	b.listeners()
	b.people()
	b.common()
	if len(f.Sites) == 0 {
		b.fail("sites", merlon.BadSetting("", "", "must name at least one site, with its host and upstream"))
	}
	for i := range f.Sites {
		b.site(fmt.Sprintf("sites[%d]", i), &f.Sites[i])
	}
	g.certs, err = certs.New(f.TLS, certs.Env{
		Data: f.Data, Hosts: b.allHosts(), HTTP: f.Listen.HTTP != "", Notify: b.env.Notify, Logger: b.env.Log,
	})
	b.fail("tls", err)
	if err == nil {
		g.tls = g.certs.TLSConfig()
		g.challenged = g.certs.HTTPChallenge(g)
	}
	b.stranger()
	b.weak()
}

func (b *builder) allHosts() []string {
	var all []string
	for _, s := range b.file.Sites {
		for _, h := range s.Host {
			if _, err := siteHost(h); err == nil { // what is wrong has been told
				all = append(all, h)
			}
		}
	}
	return all
}

func (b *builder) site(setting string, c *config.Site) {
	s := &site{}
	if len(c.Host) == 0 {
		b.fail(setting+".host", merlon.BadSetting("", "", `must be set, such as shop.example.com, or "*" for any host`))
	} else {
		s.name = c.Host[0]
	}
	for i, h := range c.Host {
		place := setting + ".host"
		if len(c.Host) > 1 {
			place = fmt.Sprintf("%s.host[%d]", setting, i)
		}
		canonical, err := siteHost(h)
		if err != nil {
			b.errs = append(b.errs, merlon.BadSetting(place, h, err.Error()))
			continue
		}
		if err := b.g.hosts.add(place, canonical, s); err != nil {
			b.errs = append(b.errs, err)
		}
	}
	guards := c.Guards.Under(b.file.Guards)
	if c.Upstream == nil && !everyRouteHasUpstream(c) {
		b.fail(setting+".upstream", merlon.BadSetting("", "", "must be set, such as http://127.0.0.1:3000"))
	}
	s.all = b.route(setting, setting, s.name, "", guards, c.Upstream)
	for i := range c.Routes {
		rc := &c.Routes[i]
		place := fmt.Sprintf("%s.routes[%d]", setting, i)
		if err := cmp.Or(checkPattern(rc.Path), checkForeign(rc.Path, b.pagePatterns(c))); err != nil {
			b.fail(place, err)
			continue
		}
		up, upPlace := rc.Upstream, place
		if up == nil {
			up, upPlace = c.Upstream, setting
		}
		r := b.route(place, upPlace, s.name, rc.Path, rc.Guards.Under(guards), up)
		r.index = i
		s.routes = append(s.routes, r)
	}
	if c.Origin != "" {
		b.fail(setting, checkOrigin(c.Origin))
	}
	b.pages(setting, c, s, guards)
	for _, err := range sortRoutes(s.routes) {
		b.fail(setting, err)
	}
	b.g.sites = append(b.g.sites, s)
}

func everyRouteHasUpstream(c *config.Site) bool {
	for _, r := range c.Routes {
		if r.Upstream == nil {
			return false
		}
	}
	return len(c.Routes) > 0
}

// siteHost returns a site's host as requests are matched on it.
func siteHost(h string) (string, error) {
	if h == "*" {
		return h, nil
	}
	rest, wild := strings.CutPrefix(h, "*.")
	canonical, err := origin.CanonicalHost(rest)
	switch {
	case err != nil:
		return "", errors.New(`must be a host name, an address, "*.example.com" or "*"`)
	case strings.Contains(rest, ":") && canonical != strings.Trim(rest, "[]"):
		return "", errors.New("must be a host without a port")
	case wild:
		return "*." + canonical, nil
	}
	return canonical, nil
}

func (b *builder) route(setting, upPlace, siteName, pattern string, c config.Guards, up *upstream.Config) *route {
	r := &route{site: siteName, pattern: pattern}
	r.gate = merlon.NewGate(b.guards(setting, r, c)...)
	if p, err := headers.New(orZero(c.Headers)); err != nil {
		b.fail(setting+".headers", err)
	} else if !names(c.Off, "headers") {
		r.headers = p
	}
	if up != nil {
		r.pool = b.pool(upPlace+".upstream", up)
	}
	return r
}

func (b *builder) waf(c waf.Config) (*waf.Guard, error) {
	for _, s := range b.wafs {
		if reflect.DeepEqual(s.config, c) {
			return s.guard, nil
		}
	}
	g, err := waf.New(c)
	if err == nil {
		b.wafs = append(b.wafs, shared[waf.Config, *waf.Guard]{c, g})
	}
	return g, err
}

// pool builds the backends written at a place once, however many routes use
// them.
func (b *builder) pool(place string, c *upstream.Config) *upstream.Pool {
	if p, ok := b.pools[place]; ok {
		return p
	}
	p, err := upstream.New(*c)
	if err != nil {
		b.fail(place, err)
		p = nil
	}
	b.pools[place] = p
	return p
}

func (b *builder) checkNames(setting string, list []string) {
	for i, name := range list {
		if name != "all" && !slices.Contains(GuardNames, name) {
			b.errs = append(b.errs, merlon.BadSetting(fmt.Sprintf("%s[%d]", setting, i), name,
				"must be a guard: all, "+strings.Join(GuardNames, ", ")))
		}
	}
}

func names(list []string, guard string) bool {
	return slices.Contains(list, guard) || slices.Contains(list, "all")
}

func orZero[C any](c *C) C {
	var zero C
	if c == nil {
		return zero
	}
	return *c
}

// siteOf names the site that serves a host, or is empty.
func (g *Gateway) siteOf(host string) string {
	if s := g.hosts.find(host); s != nil {
		return s.name
	}
	return ""
}

// Start begins what a gateway does on its own: health checks, renewals.
func (g *Gateway) Start(ctx context.Context) error {
	for _, p := range g.pools() {
		p.Start()
	}
	if g.people != nil {
		g.people.start(ctx, func(err error) { g.env.Log.Error("identity", "error", err) })
	}
	return g.certs.Start(ctx)
}

// Close waits until the requests in flight have ended or ctx is done, and then
// ends what Start began.
func (g *Gateway) Close(ctx context.Context) {
	done := make(chan struct{})
	go func() { g.inFlight.Wait(); close(done) }()
	var wg sync.WaitGroup
	for _, p := range g.pools() {
		wg.Go(func() { p.Close(ctx) })
	}
	wg.Wait()
	select {
	case <-done:
	case <-ctx.Done():
	}
	if g.people != nil {
		g.people.close()
	}
	if err := g.certs.Close(); err != nil {
		g.env.Log.Warn("certificates", "error", err)
	}
}

// Sites describes what is served, for people.
func (g *Gateway) Sites() []SiteInfo {
	var all []SiteInfo
	for _, s := range g.sites {
		info := SiteInfo{Host: s.name, Guards: s.all.guards, Headers: s.all.headers != nil}
		if s.all.pool != nil {
			for _, b := range s.all.pool.Stats().Backends {
				info.Upstream = append(info.Upstream, b.Address)
			}
		}
		all = append(all, info)
	}
	return all
}

// A SiteInfo describes a site for people.
type SiteInfo struct {
	Host     string   `json:"host"`
	Upstream []string `json:"upstream"`
	Guards   []string `json:"guards"`
	Headers  bool     `json:"headers"`
}

// Certs returns the gateway's certificates.
func (g *Gateway) Certs() *certs.Certs { return g.certs }

func (g *Gateway) pools() []*upstream.Pool {
	var all []*upstream.Pool
	seen := map[*upstream.Pool]bool{nil: true}
	for _, s := range g.sites {
		for _, r := range append([]*route{s.all}, s.routes...) {
			if !seen[r.pool] {
				seen[r.pool] = true
				all = append(all, r.pool)
			}
		}
	}
	return all
}
