package gateway

import (
	"reflect"
	"slices"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/access"
	"github.com/merlon-dev/merlon/csrf"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/origin"
)

// GuardNames are the guards in the order in which a request meets them, and
// then what judges the way out.
var GuardNames = []string{
	"ban", "origin", "decoy", "limit", "challenge", "waf", "identity", "stuffing", "csrf", "access", "throttle", "headers",
}

// guards is the one list: the order in which a request meets them. Those that
// judge by who is asking as well stand in it twice.
func (b *builder) guards(setting string, r *route, c config.Guards) []merlon.Guard {
	b.checkNames(setting+".monitor", c.Monitor)
	b.checkNames(setting+".off", c.Off)
	l := &list{off: c.Off, monitor: c.Monitor, of: r}
	add := func(section string, g merlon.Guard, err error) {
		b.fail(setting+"."+section, err)
		if err == nil {
			l.add(g)
		}
	}
	r.traffic = b.traffic(setting, r.site, c)
	t := &r.traffic
	if b.env.replay { // what came before it then, nobody knows
		l.off = append(slices.Clone(l.off), "ban", "challenge", "stuffing", "throttle")
	}
	l.addEach(t.ban) // the first, to be told of what all others refuse
	og, err := origin.New(orZero(c.Address))
	if err == nil {
		og = og.ForSites(b.g.siteOf)
	}
	add("address", og, err)
	l.addEach(t.decoy, t.limit, t.challenge)
	if !names(c.Off, "waf") { // compiling rules is the one thing that takes time
		b.addWAF(setting, l, c)
	}
	if p := b.g.people; p != nil && p.guard != nil {
		l.add(p.guard)
		l.addKnown(t.ban, t.limit, t.challenge)
	} else {
		l.addKnown(t.limit) // where nobody signs in it counts by client
	}
	l.addEach(t.stuffing)
	if t.stuffing != nil && len(c.BackendLogin.Failed.Body) > 0 {
		r.plain = true // or a browser's br would make every right try a wrong one
	}
	cg, err := csrf.New(orZero(c.CSRF))
	add("csrf", cg, err)
	if err == nil {
		r.csrf = cg
	}
	if rc := orZero(c.Require); (rc.Required() || rc.Anyone) && !b.env.replay {
		ag, err := access.New(rc)
		add("require", ag, err)
		if err == nil {
			r.access = ag
		}
	}
	l.addEach(t.throttle)
	return l.guards
}

// addWAF adds the WAF, behind its shadow if there is one.
func (b *builder) addWAF(setting string, l *list, c config.Guards) {
	wc := orZero(c.WAF)
	wc.Shadow = nil
	g, err := b.waf(wc)
	if s := c.Shadow(); s != nil && err == nil && !b.env.replay {
		sg, err := b.waf(*s)
		b.fail(setting+".waf.shadow", err)
		l.of.guards = append(l.of.guards, "waf (shadow)")
		l.guards = append(l.guards, merlon.Shadow(sg))
	}
	b.fail(setting+".waf", err)
	if err == nil {
		l.add(g)
		l.of.plain = !wc.IgnoreResponses
	}
}

// A list is the guards of a route in the making.
type list struct {
	off, monitor []string
	of           *route
	guards       []merlon.Guard
}

// add puts a guard at the end, unless it is off.
func (l *list) add(g merlon.Guard) {
	name := g.Name()
	if names(l.off, name) {
		return
	}
	shown := name
	if names(l.monitor, name) {
		g, shown = merlon.Monitor(g), name+" (monitored)"
	}
	if !slices.Contains(l.of.guards, shown) {
		l.of.guards = append(l.of.guards, shown)
	}
	l.guards = append(l.guards, g)
}

// addEach adds those that could be built.
func (l *list) addEach(guards ...merlon.Guard) {
	for _, g := range guards {
		if !reflect.ValueOf(g).IsNil() {
			l.add(g)
		}
	}
}

// addKnown adds the faces that are asked when it is known who is asking.
func (l *list) addKnown(guards ...interface {
	merlon.Guard
	Known() merlon.Guard
}) {
	for _, g := range guards {
		if reflect.ValueOf(g).IsNil() {
			continue
		}
		if k := g.Known(); k != nil {
			l.add(k)
		}
	}
}
