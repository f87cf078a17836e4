// Package ban shuts out for a while who misbehaves again and again, longer each
// time: clients that are refused repeatedly or look for what is not there,
// those that are banned by hand, and those on imported lists.
//
// A ban of an address is for those who prove nobody: whoever is signed in
// answers only for what they did themselves. It slows attackers down and keeps
// the noise of scanners away; it is no protection of its own, since addresses
// are cheap, and what a page makes a browser send hardly counts, so that a
// program that poses as such a browser is refused each time, but seldom banned.
// What is under way when a ban comes goes on.
package ban

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/gaissmai/bart"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
)

// Config configures a [Guard]. The zero Config bans who is refused more than 60
// times within a minute, for one minute at first.
type Config struct {
	// Strikes is how many strikes somebody may have within the time of within;
	// one more bans. A refusal by origin, waf or stuffing is one; one by limit,
	// and any that says how to be let in, is a tenth; a decoy is as many as there
	// are. Those of csrf, identity and access are none, since
	// other sites' pages and ended sessions cause them. What a page makes a
	// browser send is a tenth at most. From 1 to 100000. Default: 60. Example:
	//
	//	strikes: 20
	Strikes int `yaml:"strikes,omitempty"`
	// Errors is how many different paths somebody may ask for and be answered
	// 400, 401, 403, 404 or 405 by the backend, beyond those that are answered
	// well, within the time of within; one more bans. To ban nobody for that,
	// set a number that nobody reaches. From 1 to 100000. Default: 100. Example:
	//
	//	errors: 60
	Errors int `yaml:"errors,omitempty"`
	// Within is the time for strikes and errors, which are forgotten evenly over
	// it. From 1s to 24h. Default: 1m. Example:
	//
	//	within: 10m
	Within time.Duration `yaml:"within,omitempty"`
	// First is how long the first ban lasts. Each further one within a day of
	// the last lasts twice as long. From 1s to 720h. Default: 1m. Example:
	//
	//	first: 10m
	First time.Duration `yaml:"first,omitempty"`
	// Longest is how long a ban lasts at most, but for those that are made by
	// hand. From first to 720h. Default: 24h. Example:
	//
	//	longest: 168h
	Longest time.Duration `yaml:"longest,omitempty"`
	// Allow are addresses and networks that are never banned: not for what they
	// do, not by hand and not by a list. Users and keys that are banned stay so
	// there, too. Default: none. Example:
	//
	//	allow: [198.51.100.7, 10.8.0.0/16]
	Allow []string `yaml:"allow,omitempty" inherit:"join"`
	// Lists are files of addresses and networks that are banned, one on a line;
	// what follows # or ; is ignored. They are read again when they change; a
	// file that cannot be used then is told, and what was read before holds on.
	// At most 1000000 lines in each. Default: none. Example:
	//
	//	lists: [/etc/merlon/blocklist.txt]
	Lists []string `yaml:"lists,omitempty" inherit:"join"`
	// Everywhere makes a ban that is earned here hold for all sites, instead of
	// this one. Default: false. Example:
	//
	//	everywhere: true
	Everywhere bool `yaml:"everywhere,omitempty"`
}

const (
	// NotBanned: nothing is held against who sent the request.
	NotBanned merlon.Reason = "not-banned"
	// BanUndecided: the address is banned, but the request brings something that
	// may prove who sent it. It is judged when that is known.
	BanUndecided merlon.Reason = "ban-undecided"
	// Banned: who sent the request is shut out for a while, for what they did
	// before or by hand. merlon ban list tells why and until when, merlon ban
	// lift ends it; an address that must never be banned belongs in allow.
	Banned merlon.Reason = "banned"
	// Listed: the address is in one of the files in lists, and the request
	// proves nobody. Remove it there, or add it to allow.
	Listed merlon.Reason = "ban-listed"
)

const (
	defaultStrikes = 60
	defaultErrors  = 100
	maxCount       = 100_000
	maxLength      = 720 * time.Hour
	// tenths are what strikes are counted in.
	tenths = 10
	// soon is how far off the end of a ban may be for the client to be told
	// when to come back.
	soon = 2 * time.Minute
)

// An Env is what a [Guard] uses and does not own.
type Env struct {
	// Bans are those of all guards, which outlive a reload. nil while a
	// configuration is only checked.
	Bans *Bans
	// Tries reports whether a request brings something that may prove who sent
	// it, such as a session's cookie or a key, without looking whether it does.
	// nil: nothing does.
	Tries func(*merlon.Request) bool
	// Who returns who has sent a request that was refused before the guard
	// identity was asked, or nil. It is called only if Tries is true, and after
	// the answer. nil: nobody is known.
	Who func(*merlon.Request) *merlon.Identity
	// KnownDevice reports whether a request comes from a browser that has signed
	// in to the backend before, which a ban of its address does not shut out.
	// nil: none is known.
	KnownDevice func(*merlon.Request) bool
	// Device names the browser that KnownDevice is about, without reading the
	// request's body; empty if it is none. One that misbehaves is banned, and is
	// then shut out with its address: everybody who may open an account has a
	// known browser, and may copy what it is known by. nil: always empty.
	Device func(*merlon.Request) string
	// Exempt reports whether what a request's sender does bans nobody, such as
	// that of a verified crawler. It is called only when somebody is about to be
	// banned, after the answer. nil: nobody is.
	Exempt func(*merlon.Request) bool
}

// A Guard refuses who is banned, and bans who misbehaves.
type Guard struct {
	env     Env
	bans    *Bans
	allow   *bart.Lite // nil if empty
	lists   []*list
	strikes count.Quota
	errors  count.Quota
	c       Config // with defaults
}

// New returns a Guard.
func New(c Config, env Env) (*Guard, error) {
	c, err := c.complete()
	errs := []error{err}
	g := &Guard{env: env, bans: env.Bans, c: c}
	if g.bans == nil {
		g.bans = NewBans(nil, nil, nil)
	}
	for i, text := range c.Allow {
		p, rule := parseRange(text)
		if rule == "" && p != p.Masked() {
			rule = "has bits beyond its length set; write " + p.Masked().String()
		}
		if rule != "" {
			errs = append(errs, merlon.BadSetting("allow["+strconv.Itoa(i)+"]", text, rule))
			continue
		}
		if g.allow == nil {
			g.allow = new(bart.Lite)
		}
		g.allow.Insert(p)
	}
	for i, path := range c.Lists {
		l, err := g.bans.list(path)
		if err != nil {
			errs = append(errs, merlon.BadSetting("lists["+strconv.Itoa(i)+"]", path, err.Error()))
			continue
		}
		g.lists = append(g.lists, l)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	quota := func(n int) count.Quota {
		return count.Quota{Every: c.Within / time.Duration(n*tenths), Burst: int64(n * tenths)}
	}
	g.strikes, g.errors = quota(c.Strikes), quota(c.Errors)
	return g, nil
}

// complete returns c with its defaults.
func (c Config) complete() (Config, error) {
	var errs []error
	number := func(setting string, n *int, unset int) {
		switch {
		case *n == 0:
			*n = unset
		case *n < 0 || *n > maxCount:
			errs = append(errs, merlon.BadSetting(setting, strconv.Itoa(*n), "must be from 1 to 100000"))
		}
	}
	span := func(setting string, d *time.Duration, unset, low, high time.Duration, rule string) {
		if *d == 0 {
			*d = unset
		} else if *d < low || *d > high {
			errs = append(errs, merlon.BadSetting(setting, d.String(), rule))
		}
	}
	number("strikes", &c.Strikes, defaultStrikes)
	number("errors", &c.Errors, defaultErrors)
	span("within", &c.Within, time.Minute, time.Second, 24*time.Hour, "must be from 1s to 24h")
	span("first", &c.First, time.Minute, time.Second, maxLength, "must be from 1s to 720h")
	span("longest", &c.Longest, max(24*time.Hour, c.First), c.First, maxLength, "must be from first to 720h")
	return c, errors.Join(errs...)
}

// Name returns "ban".
func (g *Guard) Name() string { return "ban" }

// Middleware puts the guard in front of next.
func (g *Guard) Middleware(next http.Handler) http.Handler { return merlon.Middleware(g)(next) }

// Known returns the guard's second face, which is asked when it is known who
// sent the request, and judges what the first left undecided.
func (g *Guard) Known() merlon.Guard { return known{g} }

type known struct{ g *Guard }

// Name returns "ban".
func (k known) Name() string { return k.g.Name() }

// Check refuses a banned address, unless the request may prove who sent it.
func (g *Guard) Check(r *merlon.Request) merlon.Decision {
	d, hit := g.address(r)
	if hit && g.env.Tries != nil && g.env.Tries(r) {
		return merlon.Pass(BanUndecided)
	}
	return d
}

// Check refuses a banned user or key, and nobody in particular at a banned
// address.
func (k known) Check(r *merlon.Request) merlon.Decision {
	if r.Identity == nil {
		d, _ := k.g.address(r)
		return d
	}
	b := k.g.bans.identity(r.Site, r.Identity)
	if b == nil {
		return merlon.Pass(NotBanned)
	}
	return k.g.refuse(b)
}

// address returns the decision about a request that proves nobody, and whether
// its address is banned.
func (g *Guard) address(r *merlon.Request) (merlon.Decision, bool) {
	snap := g.bans.seen.Load()
	if snap.addresses == nil && g.lists == nil || !r.Client.IsValid() {
		return merlon.Pass(NotBanned), false
	}
	a := plain(r.Client)
	b := snap.address(r.Site, a, g.bans.now)
	var in *list
	if b == nil {
		if in = g.listed(a); in == nil {
			return merlon.Pass(NotBanned), false
		}
	}
	if g.allowed(a) || g.knownDevice(r) {
		return merlon.Pass(NotBanned), false
	}
	if b != nil {
		d := g.refuse(b)
		d.Remedy = remedy(a)
		return d, true
	}
	d := merlon.Refuse(http.StatusForbidden, Listed)
	d.Findings = []merlon.Finding{{Rule: "list", Part: "client " + a.String(), Value: in.path, Message: "is in an imported list"}}
	d.Remedy = remedy(a)
	return d, true
}

// knownDevice reports whether r comes from a known browser that is not banned
// itself.
func (g *Guard) knownDevice(r *merlon.Request) bool {
	if g.env.KnownDevice == nil || !g.env.KnownDevice(r) {
		return false
	}
	key := g.device(r)
	return key == "" || g.bans.named(r.Site, key) == nil
}

// device returns the key of the browser that r says it comes from, or nothing.
func (g *Guard) device(r *merlon.Request) string {
	if g.env.Device == nil {
		return ""
	}
	id := g.env.Device(r)
	if id == "" {
		return ""
	}
	return named(ofDevice, id)
}

func (g *Guard) allowed(a netip.Addr) bool { return g.allow != nil && g.allow.Contains(a) }

func (g *Guard) listed(a netip.Addr) *list {
	for _, l := range g.lists {
		if l.table.Load().Contains(a) {
			return l
		}
	}
	return nil
}

func remedy(a netip.Addr) string { return "ban:\n  allow: [\"" + a.String() + "\"]" }

func (g *Guard) refuse(b *Ban) merlon.Decision {
	d := merlon.Refuse(http.StatusForbidden, Banned)
	if left := b.Until.Sub(g.bans.now()); left <= soon {
		d.Header = http.Header{"Retry-After": {strconv.Itoa(max(1, int((left+time.Second-1)/time.Second)))}}
	}
	d.Findings = []merlon.Finding{{
		Rule: "ban", Part: b.Key, Value: "until " + b.Until.UTC().Format(time.RFC3339),
		Message: fmt.Sprintf("banned by %s, %s", b.By, b.Why),
	}}
	return d
}
