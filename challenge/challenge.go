// Package challenge lets browsers prove by a little work that they are worth
// serving, where a rule says so or while a site is flooded, without third
// parties and without people having to read anything; it switches itself off.
//
// It makes a flood dearer, not impossible: a botnet that is determined enough
// can pay. What fills the line before Merlon needs capacity upstream of it.
package challenge

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/secrets"
)

// Config configures a [Guard]. The zero Config asks for nothing: what a site
// bears, only its operator knows, and programs cannot do the work.
type Config struct {
	// When is when browsers have to prove themselves: always, load (while what
	// over says is exceeded) or never.
	// Default: load if over is set, otherwise never. Example:
	//
	//	when: always
	When When `yaml:"when,omitempty"`
	// Over is what the site bears; beyond it, for two windows of 5 seconds one
	// after the other, browsers are challenged. Example:
	//
	//	over: {rate: 500/s, errors: 20%}
	Over Over `yaml:"over,omitempty"`
	// Calm is how long the site must stay below 70 % of what over says before
	// nobody is challenged any more. From 10s to 24h. Default: 60s. Example:
	//
	//	calm: 5m
	Calm time.Duration `yaml:"calm,omitempty"`
	// Bits is how much work a browser does: it tries hashes until one begins
	// with so many zero bits, which takes 2^bits tries on average. A telephone
	// does 18 in about a second; each more doubles it. From 8 to 24 bits.
	// Default: 18. Example:
	//
	//	bits: 20
	Bits int `yaml:"bits,omitempty"`
	// Pass is how long a browser that has proved itself is let through. One
	// that waited instead, since it runs no scripts, is for a sixth of that.
	// From 1m to 168h. Default: 6h. Example:
	//
	//	pass: 24h
	Pass time.Duration `yaml:"pass,omitempty"`
	// Wait is how long a browser without scripts waits instead of working. From
	// 5s to 2m. Default: 10s. Example:
	//
	//	wait: 20s
	Wait time.Duration `yaml:"wait,omitempty"`
	// Allow is who never has to prove anything: crawlers (of search engines,
	// by the names of their addresses), git, packages (what package managers
	// fetch), feeds, well-known (/.well-known/**, /robots.txt, /favicon.ico,
	// /sitemap.xml), or paths and networks. All that is allowed here is still
	// held to limit. Lists of the file, the site and the route add up; the word
	// no-defaults takes the default ones away, for sites that have none of these
	// and whose backend works hard for any path, since a flood can ask for them.
	// Default: [crawlers, git, packages, well-known]. Example:
	//
	//	allow: [feeds, {path: /webhooks/**}, {from: 192.0.2.0/24}]
	Allow []Allow `yaml:"allow,omitempty" inherit:"join"`
}

// Over says what a site bears. Either alone is enough to be too much.
type Over struct {
	// Rate is how many requests all clients of the site together may send: a
	// number and s or min; at most 10000000/s. "off" does not look at it.
	// Default: off. Example:
	//
	//	rate: 500/s
	Rate Rate `yaml:"rate,omitempty"`
	// Errors is which share of the backends' answers may be errors (5xx, or no
	// answer in time), where at least 50 came in 5 seconds. From 1% to 99%;
	// At most 5 of one client count. "off" does not look at it. Default: off.
	// Example:
	//
	//	errors: 20%
	Errors Share `yaml:"errors,omitempty"`
}

const (
	// NotAsked: nobody has to prove anything here now.
	NotAsked merlon.Reason = "nothing-to-prove"
	// HasPassed: the browser has proved itself lately.
	HasPassed merlon.Reason = "challenge-passed"
	// Exempt: a rule of allow lets the request go on without a proof.
	Exempt merlon.Reason = "challenge-exempt"
	// IdentityFirst: the request brings a proof of identity, which is looked
	// at first. If it does not hold, the request is challenged all the same.
	IdentityFirst merlon.Reason = "identity-first"
	// IsKnown: somebody known is asking, who need not prove more.
	IsKnown merlon.Reason = "known-identity"
	// WorkRequired: challenge.when is always here, and the request brings no
	// pass. A browser is sent to a page that gets one by itself; a program that
	// is welcome needs a rule in allow, or a key.
	WorkRequired merlon.Reason = "work-required"
	// FloodWorkRequired: the site gets more than challenge.over says, and the
	// request brings no pass. It ends by itself. If the site bears more, raise
	// over; a program that is welcome needs a rule in allow, or a key.
	FloodWorkRequired merlon.Reason = "work-required-under-load"
)

// abnormalUsage is the problem type of draft-ietf-httpapi-ratelimit-headers.
const abnormalUsage = "https://iana.org/assignments/http-problem-types#abnormal-usage-detected"

// Header is the field in which what opens no page, such as a script's request,
// is told where the page is that gets a pass. The address to come back to is
// to be added as its query parameter "to".
const Header = "Merlon-Challenge"

// Env is what a [Guard] needs from outside.
type Env struct {
	// Key is what tokens and passes are authenticated by; replicas that share
	// it accept each other's.
	Key secrets.Key
	// Load is the site's; it outlives reloads. A shadow needs one of its own,
	// or every request is counted twice.
	Load *Load
	// Crawlers is the gateway's; it outlives reloads.
	Crawlers *Crawlers
	// Tries reports whether a request brings a proof of identity, which need
	// not hold. Nil if nobody can sign in.
	Tries func(*merlon.Request) bool
}

const (
	defaultCalm = time.Minute
	defaultBits = 18
	defaultPass = 6 * time.Hour
	defaultWait = 10 * time.Second

	minBits, maxBits = 8, 24
	minWait, maxWait = 5 * time.Second, 2 * time.Minute
	minPass, maxPass = time.Minute, 7 * 24 * time.Hour
	minCalm, maxCalm = 10 * time.Second, 24 * time.Hour

	// lesser is by how much shorter a pass is that only waiting was paid for.
	lesser = 6
)

// A Guard challenges browsers that have no pass. It is asked before it is known
// who is asking; its [Guard.Known] is asked again afterwards.
type Guard struct {
	when   When
	budget *budget
	load   *Load
	ask    demand
	allow  *rules
	passes *sealer
	tries  func(*merlon.Request) bool
	page   string // where to get a pass, without the address to return to
	status int
	retry  string // Retry-After; empty if waiting does not help
}

// A demand is what has to be proved for a pass to be good, and for how long it
// is then.
type demand struct {
	bits int
	wait time.Duration
	pass time.Duration
}

// New returns a Guard.
func New(c Config, env Env) (*Guard, error) {
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	if env.Key == (secrets.Key{}) {
		bad("", "", "needs a key")
	}
	if env.Load == nil {
		bad("", "", "needs the site's load")
	}
	if rule := c.When.broken(); rule != "" {
		bad("when", string(c.When), rule)
	}
	calm := within(&errs, "calm", c.Calm, defaultCalm, minCalm, maxCalm, "10s to 24h")
	g := &Guard{load: env.Load, tries: env.Tries, ask: demand{
		bits: c.Bits,
		wait: within(&errs, "wait", c.Wait, defaultWait, minWait, maxWait, "5s to 2m"),
		pass: within(&errs, "pass", c.Pass, defaultPass, minPass, maxPass, "1m to 168h"),
	}}
	if c.Bits == 0 {
		g.ask.bits = defaultBits
	} else if c.Bits < minBits || c.Bits > maxBits {
		bad("bits", strconv.Itoa(c.Bits), "must be from 8 to 24")
	}
	over, oerrs := c.Over.withDefaults()
	errs = append(errs, oerrs...)
	nothing := over.Rate.Off && over.Errors.Off
	switch {
	case c.When == "" && nothing:
		c.When = Never
	case c.When == "":
		c.When = OnLoad
	case c.When == OnLoad && nothing:
		bad("over", "", "must have a rate or errors beyond which when: load asks for work, such as {rate: 500/s}")
	}
	allow, aerrs := newRules(c.Allow, env.Crawlers)
	errs = append(errs, aerrs...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	g.allow = allow
	g.budget = env.Load.budgetFor(over, calm)
	g.passes = newSealer(env.Key, passPurpose)
	g.when = c.When
	g.page = pagePath(g.ask)
	g.status = http.StatusForbidden
	if c.When == OnLoad {
		// 429 rather than 403: crawlers come back instead of dropping what they
		// know, and waiting does help. Rather than 503: nothing that watches the
		// site takes it for an outage, and the problem type belongs to 429.
		g.status, g.retry = http.StatusTooManyRequests, strconv.Itoa(int(calm/time.Second))
	}
	return g, nil
}

// Name returns "challenge".
func (g *Guard) Name() string { return "challenge" }

// Middleware puts the guard in front of next.
func (g *Guard) Middleware(next http.Handler) http.Handler { return merlon.Middleware(g)(next) }

// Check counts r, and decides whether it may go on without a pass.
func (g *Guard) Check(r *merlon.Request) merlon.Decision {
	g.load.ask(r.Received)
	return g.judge(r, g.tries)
}

// Done counts how the backend has answered.
func (g *Guard) Done(r *merlon.Request, o merlon.Outcome) { g.load.answer(r.Client, o) }

// judge decides about r; first, unless nil, reports whether it brings a proof of
// identity, which is then to be looked at first.
func (g *Guard) judge(r *merlon.Request, first func(*merlon.Request) bool) merlon.Decision {
	if g.when == Never || ours(r.Path) {
		return merlon.Pass(NotAsked)
	}
	over := g.budget.on.Load()
	if g.when == OnLoad && over == nil {
		return merlon.Pass(NotAsked)
	}
	if r.Identity != nil {
		return merlon.Pass(IsKnown)
	}
	_, why := g.pass(r)
	if why == "" {
		return merlon.Pass(HasPassed)
	}
	if first != nil && first(r) {
		return merlon.Pass(IdentityFirst)
	}
	ok, fake := g.allow.match(r)
	if ok {
		return merlon.Pass(Exempt)
	}
	return g.challenge(r, over, why, fake)
}

// Known returns the face of g that is asked again behind identity, or nil if
// there is nothing to ask there.
func (g *Guard) Known() merlon.Guard {
	if g.tries == nil || g.when == Never {
		return nil
	}
	return known{g}
}

type known struct{ g *Guard }

func (k known) Name() string { return k.g.Name() }

// Check challenges who was let go on for a proof of identity that did not hold.
func (k known) Check(r *merlon.Request) merlon.Decision {
	for _, v := range r.Verdicts() {
		if v.Guard == k.Name() && !v.Decision.Shadow && v.Decision.Effect != merlon.Allow {
			return merlon.Pass(NotAsked) // was told already, and is only monitored
		}
	}
	return k.g.judge(r, nil)
}

// Passed reports whether r brings a pass that is good for g, and names it. The
// name is the same for as long as the pass is used, whatever solved token is
// sent again; tries can be counted by it.
func (g *Guard) Passed(r *merlon.Request) (id string, ok bool) {
	p, why := g.pass(r)
	if why != "" {
		return "", false
	}
	return p.name(), true
}

// Page returns where a browser gets a pass that is good for g, to then go to a
// path of the site.
func (g *Guard) Page(to string) string { return withReturn(g.page, to) }

// challenge says what is to be done. A form's Location is for the gateway,
// which keeps the form.
func (g *Guard) challenge(r *merlon.Request, over *merlon.Finding, why, fake string) merlon.Decision {
	d := merlon.Decision{
		Effect: merlon.Challenge, Status: g.status, Reason: WorkRequired, Problem: abnormalUsage,
		Header: http.Header{"Cache-Control": {"no-store"}},
	}
	if g.when == OnLoad {
		d.Reason = FloodWorkRequired
		d.Findings = append(d.Findings, *over)
	}
	if why != noPass {
		d.Findings = append(d.Findings, merlon.Finding{Part: "cookie " + Cookie, Message: why})
	}
	if fake != "" {
		d.Findings = append(d.Findings, merlon.Finding{Part: "header User-Agent", Message: fake})
	}
	opens := merlon.OpensPage(r.Request)
	switch {
	case opens && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		d.Location = g.Page(r.URL.RequestURI())
	case !opens:
		d.Header[Header] = []string{g.page}
		if g.retry != "" {
			d.Header["Retry-After"] = []string{g.retry}
		}
		d.Remedy = remedy(r)
	}
	return d
}
