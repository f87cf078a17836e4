package limit

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
)

const (
	defaultName   = "default"
	busyName      = "default-concurrent"
	defaultBurst  = 500
	defaultClient = 512
	maxCount      = 1_000_000
	maxName       = 32
	maxRoles      = 32
)

// defaultRate is what one client may send to one route.
var defaultRate = Rate{Count: 100, Per: time.Second}

// New returns a Guard that counts in s, and in front of identity: the other
// half of it is [Guard.Known]. Without geo, limits by asn and country are
// mistakes.
func New(c Config, s count.Store, geo Geo) (*Guard, error) {
	b := &builder{config: c, geo: geo, cost: int64(max(c.Cost, 1)), zone: time.UTC}
	if s == nil {
		b.bad("", "", "needs a store to count in")
	}
	b.number("cost", c.Cost)
	b.number("burst", c.Burst)
	b.number("concurrent.client", c.Concurrent.Client)
	b.number("concurrent.route", c.Concurrent.Route)
	if c.Body < 0 {
		b.bad("body", strconv.FormatInt(int64(c.Body), 10), "must not be negative")
	}
	if c.Zone != "" {
		zone, err := time.LoadLocation(c.Zone)
		if err != nil || c.Zone == "Local" {
			b.bad("zone", c.Zone, "must be a time zone that this machine knows, such as Europe/Berlin or UTC")
		} else {
			b.zone = zone
		}
	}
	b.first()
	for i, l := range c.Limits {
		b.further(fmt.Sprintf("limits[%d]", i), l)
	}
	if c.Concurrent.Client > 0 {
		b.name("concurrent.client", busyName)
	}
	if len(b.errs) > 0 {
		return nil, errors.Join(b.errs...)
	}
	return b.guard(s), nil
}

// A builder gathers mistakes, and what will be counted.
type builder struct {
	config Config
	geo    Geo
	zone   *time.Location
	cost   int64 // of a request, unless a limit says something else
	groups []*group
	names  []string
	errs   []error
}

func (b *builder) bad(setting, value, rule string) {
	b.errs = append(b.errs, merlon.BadSetting(setting, value, rule))
}

func (b *builder) number(setting string, n int) {
	if n < 0 || n > maxCount {
		b.bad(setting, strconv.Itoa(n), "must be from 1 to 1000000")
	}
}

func (b *builder) guard(s count.Store) *Guard {
	c := &b.config
	g := &Guard{
		store: s, geo: b.geo, busy: newBusy(), clients: c.Concurrent.Client, routes: c.Concurrent.Route,
		body: int64(c.Body), hide: c.HideHeaders,
	}
	g.pool.New = func() any { return &scratch{} }
	if g.clients == 0 {
		g.clients = defaultClient
	}
	var policy []string
	for _, gr := range b.groups {
		f := &g.front
		if gr.tier() || slices.ContainsFunc(gr.by, dimension.known) {
			f = &g.known
		}
		f.groups = append(f.groups, gr)
		f.reads = f.reads || gr.field != ""
		if !gr.tier() {
			policy = append(policy, gr.policies()...)
		}
	}
	if c.Concurrent.Client > 0 {
		g.tellBusy = true
		policy = append(policy, fmt.Sprintf("%q;q=%d;qu=\"concurrent-requests\"", busyName, c.Concurrent.Client))
	}
	g.policy = []string{strings.Join(policy, ", ")}
	for _, gr := range b.groups {
		line := g.policy
		if gr.tier() { // told to whom it is for
			line = []string{strings.Join(append(slices.Clone(policy), gr.policies()...), ", ")}
		}
		for _, m := range gr.measures {
			m.line = line
		}
	}
	return g
}

// first builds what the settings at the top of Config say, and the limit by
// client that they cannot take away but by switching off rates.
func (b *builder) first() {
	c := &b.config
	by := c.By.dimensions(b.geo, func(value, rule string) { b.bad("by", value, rule) })
	rate, burst := c.Rate, c.Burst
	bounded := boundsClients(by) && !c.Distinct
	if rate == (Rate{}) && (bounded || c.Burst != 0 || c.Distinct || !c.Quota.set() && !c.Bytes.set()) {
		if rate = defaultRate; burst == 0 {
			burst = defaultBurst
		}
	}
	if !bounded && !c.Rate.Off {
		b.add(&group{
			name: defaultName, by: By(nil).dimensions(nil, nil), cost: b.cost,
			measures: []*measure{b.rate("", defaultRate, defaultBurst, false)},
		}, "cost")
	}
	g := &group{name: defaultName, by: by, cost: b.cost, top: true}
	if !bounded && !c.Rate.Off {
		g.name = nameOf(by)
	}
	g.measures = b.measures("", rate, burst, c.Quota, c.Bytes, c.Distinct)
	if len(g.measures) > 0 {
		b.add(g, "cost")
	}
}

// boundsClients reports whether a limit by these holds each client to it,
// whatever the client makes up.
func boundsClients(by []dimension) bool {
	client := false
	for _, d := range by {
		switch d.kind {
		case byClient:
			client = true
		case byRoute, bySite, byNetwork, byASN, byCountry: // follow from where it is sent to, and from the client
		default:
			return false
		}
	}
	return client
}

// further builds one of the limits in the list.
func (b *builder) further(setting string, l Limit) {
	before := len(b.errs)
	at := func(name string) string { return setting + "." + name }
	g := &group{name: l.Name, cost: b.cost, roles: l.Roles, except: l.Except}
	g.by = l.By.dimensions(b.geo, func(value, rule string) { b.bad(at("by"), value, rule) })
	b.number(at("burst"), l.Burst)
	b.number(at("cost"), l.Cost)
	b.number(at("concurrent"), l.Concurrent)
	costAt := "cost"
	if l.Cost > 0 {
		g.cost, costAt = int64(l.Cost), at("cost")
	}
	if l.Name != "" && !isName(l.Name) {
		b.bad(at("name"), l.Name, "must be of small letters, digits and hyphens, at most 32")
	}
	rated := l.Rate != Rate{} || l.Quota != Quota{}
	switch {
	case l.Rate.Off || l.Quota.Off || l.Bytes.Off:
		b.bad(setting, "", "must bound something: leave out what is off")
	case !rated && l.Bytes == Bytes{} && l.Concurrent == 0:
		b.bad(setting, "", "must have rate, quota, bytes or concurrent")
	case l.Burst != 0 && l.Rate == Rate{}:
		b.bad(at("burst"), strconv.Itoa(l.Burst), "needs rate: a quota and bytes have no burst")
	case l.Cost != 0 && !rated:
		b.bad(at("cost"), strconv.Itoa(l.Cost), "needs rate or quota: bytes and concurrent do not weigh requests")
	case l.Distinct && !rated:
		b.bad(at("distinct"), "true", "needs rate or quota")
	case l.Distinct && (l.Bytes.set() || l.Concurrent > 0):
		b.bad(at("distinct"), "true", "must not stand with bytes or concurrent, which count every request: write two limits")
	}
	b.tier(at, l)
	if len(b.errs) > before {
		return
	}
	if g.name == "" {
		g.name = nameOf(g.by, l.Roles...)
	}
	g.measures = b.measures(setting+".", l.Rate, l.Burst, l.Quota, l.Bytes, l.Distinct)
	if l.Concurrent > 0 {
		g.measures = append(g.measures, &measure{kind: places, quota: count.Quota{Burst: int64(l.Concurrent)}, text: strconv.Itoa(l.Concurrent)})
	}
	b.add(g, costAt, at("name"))
}

// tier checks whom a limit is for.
func (b *builder) tier(at func(string) string, l Limit) {
	for setting, roles := range map[string][]string{"roles": l.Roles, "except": l.Except} {
		for i, role := range roles {
			switch place := at(fmt.Sprintf("%s[%d]", setting, i)); {
			case i == maxRoles:
				b.bad(place, role, "must be one of at most 32")
			case role == "":
				b.bad(place, role, "must be the name of a role")
			case slices.Contains(roles[:i], role):
				b.bad(place, role, "is there twice")
			case setting == "except" && slices.Contains(l.Roles, role):
				b.bad(place, role, "stands in roles, too")
			}
		}
	}
}

// measures are those of one limit; prefix is the place of its settings.
func (b *builder) measures(prefix string, r Rate, burst int, q Quota, v Bytes, distinct bool) []*measure {
	var list []*measure
	if rule := r.broken(); r != (Rate{}) && rule != "" {
		b.bad(prefix+"rate", r.String(), rule)
	} else if r != (Rate{}) && !r.Off {
		list = append(list, b.rate(prefix, r, burst, distinct))
	}
	if rule := q.broken(); rule != "" {
		b.bad(prefix+"quota", q.String(), rule)
	} else if q.set() {
		list = append(list, &measure{
			kind: quota, text: q.String(), distinct: distinct, quota: count.Quota{Burst: q.Count},
			calendar: &calendar{period: q.Per, zone: b.zone},
		})
	}
	if rule := v.broken(); rule != "" {
		b.bad(prefix+"bytes", v.String(), rule)
	} else if v.set() {
		m := &measure{kind: volume, text: v.String(), quota: count.Quota{Burst: v.units()}}
		if v.Window != 0 {
			m.calendar = &calendar{period: v.Window, zone: b.zone}
		} else {
			m.quota.Every = every(v.Per, v.units())
		}
		list = append(list, m)
	}
	return list
}

func (b *builder) rate(prefix string, r Rate, burst int, distinct bool) *measure {
	if burst <= 0 || burst > maxCount {
		burst = min(r.Count, maxCount)
	}
	m := &measure{kind: rate, text: r.String(), distinct: distinct, quota: count.Quota{Every: r.every(), Burst: int64(burst)}}
	if m.quota.Every > count.MaxRefill/time.Duration(burst) {
		b.bad(prefix+"burst", strconv.Itoa(burst), fmt.Sprintf("must be regained within 31 days at a rate of %s", r))
	}
	return m
}

// add names what a limit measures, and what its counts are kept under. The
// amounts are in there: two limits of one name that do not say the same must
// not count together.
func (b *builder) add(g *group, costAt string, nameAt ...string) {
	words := make([]string, len(g.by))
	for i, d := range g.by {
		words[i] = d.String()
		if d.kind == byField {
			g.field = d.name
		}
	}
	for i, m := range g.measures {
		m.group, m.name = g, g.name
		if i > 0 {
			m.name += "-" + m.kind.String()
		}
		setting := append(nameAt, "by")[0]
		b.name(setting, m.name)
		m.tell()
		if (m.kind == rate || m.kind == quota) && g.cost > m.quota.Burst {
			b.bad(costAt, strconv.FormatInt(g.cost, 10), fmt.Sprintf("must be at most %d, which limit %s allows at once", m.quota.Burst, g.name))
		}
		m.prefix = count.Key(nil).With("limit").With(g.name).With(m.kind.String()).With(m.text)
		m.prefix = m.prefix.With(strconv.FormatInt(m.quota.Burst, 10)).With(strings.Join(words, ","))
		if m.calendar != nil {
			m.prefix = m.prefix.With(m.calendar.zone.String())
		}
	}
	b.groups = append(b.groups, g)
}

// name notes a name that answers tell.
func (b *builder) name(setting, name string) {
	if slices.Contains(b.names, name) {
		b.bad(setting, name, "is the name of another limit, here or inherited: give this one a name of its own")
	}
	b.names = append(b.names, name)
}

// nameOf makes a name of what a limit tells requests apart by, and whom it is for.
func nameOf(by []dimension, roles ...string) string {
	words := make([]string, len(by))
	for i, d := range by {
		words[i] = d.String()
	}
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, strings.Join(append(words, roles...), "-"))
	return strings.Trim(name[:min(len(name), maxName)], "-")
}

func isName(s string) bool {
	return len(s) <= maxName && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
	})
}
