package engine

import (
	"slices"

	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// Folding: the rules are gone through in the order in which they would be
// evaluated, on a transaction without a message. A rule whose conditions
// depend on nothing but TX variables that no message can have changed is
// evaluated once, here, and only what it does to TX is left of it. What it
// skips is left out. Every other rule is kept, and the variables that it sets
// are tainted: what depends on them is kept, too.

type folder struct {
	e       *Engine
	t       *transaction
	tainted []bool
	allowed [5]bool   // by phase: a message may leave out the rest of it
	wild    bool      // a name that is not known beforehand may be set
	ranked  bool      // some rule asks how severe those were that fired
	gone    []bool    // rules that a constant ctl has removed
	loose   []removal // what a ctl may remove at run time
	readers [][]int   // rules that read a slot, by slot
	reads   []reading // what conditions that are kept read as constant
}

// A removal is a set of rules that a rule at some place may remove.
type removal struct {
	phase, order int
	set          []uint64
}

// A reading is the value of a slot where a rule stands that reads it.
type reading struct {
	rule *rule
	slot int
	value
}

// dependence says what a rule's firing depends on.
type dependence uint8

const (
	onConstants dependence = iota
	onTX                   // on TX that may be tainted
	onMessage
)

func (e *Engine) fold() error {
	f := &folder{
		e: e, t: newTransaction(e),
		tainted: make([]bool, len(e.slotName)),
		gone:    make([]bool, len(e.rules)),
	}
	f.readersOf()
	f.collectLoose()
	if f.ranked = slices.ContainsFunc(e.rules, readsSeverity); f.ranked { // any rule may change it
		f.demand(1)
		f.demand(3)
	}
	for i := range captures + 1 {
		f.t.tx[i].set = true
	}
	e.start = slices.Clone(f.t.tx)
	for phase := 1; phase <= 4; phase++ {
		if err := f.phase(phase); err != nil {
			return err
		}
		switch phase {
		case 2:
			e.before = slices.Clone(f.t.tx)
			e.clean[0] = f.t.cleanVerdict(0)
		case 4:
			e.after = slices.Clone(f.t.tx)
			e.clean[1] = f.t.cleanVerdict(1)
		}
	}
	f.finish()
	return nil
}

// phase folds one phase.
func (f *folder) phase(phase int) error {
	f.t.phase = phase
	static, ghost := 0, 0 // places up to which rules are skipped always, and without any message
	var perhaps []int     // places up to which they are skipped by some message
	var ops []op
	count := &f.e.structure[phase]
	for _, r := range f.e.rules {
		if r.Phase != phase {
			continue
		}
		count.loaded++
		if r.order < static || f.gone[r.index] {
			continue
		}
		if err := f.checkMatched(r); err != nil {
			return err
		}
		if err := r.prepare(); err != nil {
			return err
		}
		before, extra := slices.Clone(f.t.tx), slices.Clone(f.t.extra)
		dep, done := f.try(r)
		fires := done == len(r.links)
		count.add(dep)
		assign := difference(before, f.t.tx)
		perhaps = slices.DeleteFunc(perhaps, func(to int) bool { return to <= r.order })
		doubtful := len(perhaps) > 0 || f.allowed[phase] || f.isLoose(r)
		if len(f.t.extra) != len(extra) || len(extra) > 0 && namesFreely(r) {
			// It makes names for every message, which the screen does not know.
			doubtful, r.always = true, true
			f.demand(1)
			f.demand(3)
		}
		switch {
		case dep == onConstants && !fires && len(assign) == 0 && !r.always && !controls(r.links[:done]):
			continue // whatever else happens
		case dep == onConstants && onlySkips(r) && f.harmless(r, fires) && !f.isLoose(r) && (len(perhaps) == 0 || slices.Min(perhaps) >= r.skipTo):
			static = max(static, r.skipTo) // what skips this one skips the same rules
			continue
		}
		if r.order < ghost { // it would have done that, but is skipped
			copy(f.t.tx, before)
			f.t.extra = append(f.t.extra[:0], extra...)
			clear(f.t.places)
			done, fires, assign = 0, false, nil
		}
		switch {
		case dep == onConstants && !doubtful && f.harmless(r, fires):
			if fires {
				static = max(static, r.skipTo)
			}
			f.applyCtls(r, done)
			ops = f.assign(ops, r, assign)
			continue
		case phase == 1 && !doubtful && prelude(r) && !f.readsTainted(r):
			if !readsTX(r) {
				before = nil
			}
			f.e.prelude = append(f.e.prelude, early{r, before, asksType(r)})
			continue
		}
		if err := f.checkCaptures(r); err != nil {
			return err
		}
		r.kept, r.onMessage = true, dep == onMessage
		r.always = r.always || dep != onMessage || len(assign) > 0
		f.keep(r, done, before, assign)
		ops = append(ops, op{order: r.order, rule: r})
		if fires {
			ghost = max(ghost, r.skipTo)
		}
		if r.skipTo > 0 {
			perhaps = append(perhaps, r.skipTo)
		}
	}
	f.e.phases[phase] = ops
	return nil
}

// assign adds to the steps of a phase what a folded rule does to TX.
func (f *folder) assign(ops []op, r *rule, assign []assignment) []op {
	if len(assign) == 0 {
		return ops
	}
	if r.Phase > 2 {
		for _, a := range assign {
			f.e.late = append(f.e.late, a.slot)
		}
	}
	return append(ops, op{order: r.order, assign: assign})
}

// keep notes what becomes of a rule that is evaluated at run time, and what it
// leaves uncertain for those that follow.
func (f *folder) keep(r *rule, done int, before []value, assign []assignment) {
	if done == len(r.links) && r.Disruptive != seclang.Pass || switches(r.links[:done]) {
		f.demand(r.Phase)
	}
	if len(assign) > 0 || done == len(r.links) && r.skipTo > 0 || controls(r.links[:done]) {
		f.missed(r)
	}
	if r.Disruptive == seclang.Allow && r.Allow != seclang.AllowAll {
		// What follows in the phase may not happen, and what comes in later
		// phases does. After allow nothing comes.
		f.allowed[r.Phase] = true
		f.allowed[2] = f.allowed[2] || r.Phase == 1 && r.Allow == seclang.AllowRequest
	}
	f.fixArguments(r)
	f.remember(r, before)
	f.taint(r)
}

func (s *structure) add(d dependence) {
	switch d {
	case onConstants:
		s.constant++
	case onTX:
		s.derived++
	case onMessage:
		s.dependent++
	}
}

// missed notes the rules that can keep a rule from firing that fires without
// any message: what it does not do then may make others fire.
func (f *folder) missed(r *rule) {
	for _, o := range f.e.rules {
		skips := o.Phase == r.Phase && o.order < r.order && o.skipTo > r.order
		o.withholds = o.withholds || skips || slices.ContainsFunc(o.links, func(l *link) bool {
			return slices.ContainsFunc(l.ctls, func(c ctl) bool { return c.means(r) && (c.removes || c.cutsInternal(r)) })
		})
	}
}

// demand has every message of a phase evaluated.
func (f *folder) demand(phase int) {
	if phase <= 2 {
		f.e.requestAll = true
	} else {
		f.e.respondAll = true
	}
}

// try says what a rule depends on, and how many of its links match if nothing in
// a message does. What they do in that case is done to TX.
func (f *folder) try(r *rule) (dependence, int) {
	dep := onConstants
	for _, l := range r.links {
		if dep = max(dep, f.linkDependence(l)); r.quotes {
			dep = max(dep, f.macroDependence(l.msg))
		}
	}
	f.t.matched = f.t.matched[:0]
	defer func() {
		f.t.spots, f.t.cuts = f.t.spots[:0], f.t.cuts[:0]
		clear(f.t.removed)
	}()
	for i, l := range r.links {
		if f.linkDependence(l) == onMessage || !f.t.runLink(r, i, l, nil) {
			// The rest is not reached, and what it depends on is no matter
			// where what stops here is constant.
			if f.constantSoFar(r, i) {
				return onConstants, i
			}
			return dep, i
		}
	}
	return dep, len(r.links)
}

// constantSoFar reports whether the first n+1 links depend on constants only.
func (f *folder) constantSoFar(r *rule, n int) bool {
	return !slices.ContainsFunc(r.links[:n+1], func(l *link) bool { return f.linkDependence(l) != onConstants })
}

// linkDependence says what one condition and what it sets depend on.
func (f *folder) linkDependence(l *link) dependence {
	dep := onConstants
	for i := range l.targets {
		g := &l.targets[i]
		switch g.Var {
		case seclang.TX:
			if f.unsure(g) {
				dep = max(dep, onTX)
			}
		case seclang.MatchedVar, seclang.MatchedVarName, seclang.MatchedVars, seclang.MatchedVarsNames, seclang.RuleMeta:
		default:
			return onMessage
		}
	}
	dep = max(dep, f.macroDependence(l.arg))
	for _, s := range l.sets {
		dep = max(dep, f.macroDependence(s.name), f.macroDependence(s.value))
		if s.slot >= 0 && f.tainted[s.slot] {
			dep = max(dep, onTX)
		}
	}
	return dep
}

// unsure reports whether a message may have changed what a target has of TX.
func (f *folder) unsure(g *target) bool {
	return g.loose || g.many() && f.wild || slices.ContainsFunc(g.slots, func(n int) bool { return f.tainted[n] })
}

func (f *folder) macroDependence(m macro) dependence {
	dep := onConstants
	for i := range m {
		switch k := &m[i]; k.Var {
		case seclang.Unknown, seclang.MatchedVar, seclang.MatchedVarName, seclang.MatchedVars, seclang.MatchedVarsNames, seclang.RuleMeta:
		case seclang.TX:
			if f.tainted[k.slot] {
				dep = max(dep, onTX)
			}
		default:
			return onMessage
		}
	}
	return dep
}

// taint marks what a rule may set.
func (f *folder) taint(r *rule) {
	for _, l := range r.links {
		if l.Capture {
			for i := range captures {
				f.tainted[i] = true
			}
		}
		for _, s := range l.sets {
			if s.slot >= 0 {
				f.tainted[s.slot] = true
				continue
			}
			f.wild = true
			for n, name := range f.e.slotName {
				if s.mayBe(n, name) {
					f.tainted[n] = true
				}
			}
		}
	}
}

// harmless reports whether nothing but what a rule does to TX, and what it
// skips and removes, is left of it once it is evaluated.
func (f *folder) harmless(r *rule, fires bool) bool {
	return !(fires && (r.Disruptive != seclang.Pass || f.ranked && r.Severity >= 0)) && !switches(r.links)
}

// switches reports whether conditions can change how messages are judged.
func switches(list []*link) bool {
	return slices.ContainsFunc(list, func(l *link) bool {
		return slices.ContainsFunc(l.ctls, func(c ctl) bool { return c.name == "ruleEngine" || c.name == "requestBodyProcessor" })
	})
}

// controls reports whether conditions do anything to rules.
func controls(list []*link) bool {
	return slices.ContainsFunc(list, func(l *link) bool { return len(l.ctls) > 0 })
}

// namesFreely reports whether a rule sets TX under a name made when it does.
func namesFreely(r *rule) bool {
	return slices.ContainsFunc(r.links, func(l *link) bool {
		return slices.ContainsFunc(l.sets, func(s setVar) bool { return s.slot < 0 })
	})
}

// onlySkips reports a rule that does nothing but skip others.
func onlySkips(r *rule) bool {
	return r.Disruptive == seclang.Pass && r.skipTo > 0 && !slices.ContainsFunc(r.links, func(l *link) bool { return len(l.acts) > 0 || l.Capture })
}

// precedes reports whether a rule is evaluated before another.
func (r *rule) precedes(other *rule) bool {
	return r.Phase < other.Phase || r.Phase == other.Phase && r.order < other.order
}

// prelude reports a rule that does nothing but choose how a body is read.
func prelude(r *rule) bool {
	found := false
	for _, l := range r.links {
		if len(l.sets) > 0 {
			return false
		}
		for _, c := range l.ctls {
			if c.name != "requestBodyProcessor" {
				return false
			}
			found = true
		}
	}
	return found && r.Disruptive == seclang.Pass && r.skipTo == 0
}

// asksType reports whether a rule's first condition is about the Content-Type.
func asksType(r *rule) bool {
	return len(r.links[0].targets) > 0 && !slices.ContainsFunc(r.links[0].targets, func(g target) bool {
		return g.Var != seclang.RequestHeaders || g.Count || g.Regex != nil || g.Key != "content-type"
	})
}

// readsTX reports whether conditions read what rules remember, or change it by
// capturing.
func readsTX(r *rule) bool {
	return slices.ContainsFunc(r.links, func(l *link) bool {
		return l.capture != nil || readsInternal(l.arg) || slices.ContainsFunc(l.targets, func(g target) bool { return internal(g.Var) })
	})
}

// readsTainted reports whether conditions read TX that may be tainted.
func (f *folder) readsTainted(r *rule) bool {
	return slices.ContainsFunc(r.links, func(l *link) bool {
		return slices.ContainsFunc(l.targets, func(g target) bool { return g.Var == seclang.TX && f.unsure(&g) }) ||
			slices.ContainsFunc(l.arg, func(k token) bool { return k.Var == seclang.TX && f.tainted[k.slot] })
	})
}

// readsMatched reports whether a condition, which is the first, is about what
// an earlier rule matched.
func readsMatched(l *link) bool {
	return slices.ContainsFunc(l.targets, func(g target) bool { return isMatched(g.Var) }) ||
		slices.ContainsFunc(l.arg, func(k token) bool { return isMatched(k.Var) })
}

// isMatched reports whether a variable is about what has matched last.
func isMatched(v seclang.Variable) bool {
	switch v {
	case seclang.MatchedVar, seclang.MatchedVarName, seclang.MatchedVars, seclang.MatchedVarsNames:
		return true
	}
	return false
}
