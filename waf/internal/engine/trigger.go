package engine

import (
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/seclang"
	"github.com/merlon-dev/merlon/waf/internal/transform"
)

// trigger chooses the condition that is asked first, nil if none can be.
func (b *builder) trigger(r *rule) *check {
	best, cost := -1, 0
	for i, l := range r.links {
		if b.screenable(r, l) {
			if n := price(l); best < 0 || n < cost {
				best, cost = i, n
			}
		}
		if visibleSets(b.e, r, l) {
			break // what this one does must not be missed
		}
	}
	if best < 0 || cost > costOfField && b.counting(r) != nil {
		return nil
	}
	if r.separate && best != 0 {
		best = 0
		if !b.screenable(r, r.links[0]) {
			return nil
		}
	}
	l := r.links[best]
	req := requirement(l)
	c := &check{index: b.e.checks, rule: r, link: l, first: best == 0, needs: req.Needs, bytes: req.Bytes, least: req.Least, targets: l.targets}
	c.keyed = slices.ContainsFunc(l.targets, func(g target) bool { return g.Key != "" || g.Regex != nil || len(g.Except) > 0 })
	b.e.checks++
	return c
}

// price tells how often a condition will have to be looked into: literals are
// rare, most of all long ones; single fields are few.
func price(l *link) int {
	req := requirement(l)
	n := 1000
	switch {
	case len(req.Literals) > 0 && shortest(req.Literals) >= 3:
		n = 30
	case len(req.Literals) > 0:
		n = 100
	case len(req.Needs) > 0:
		n = 300
	}
	if !slices.ContainsFunc(l.targets, func(g target) bool {
		return g.Var != seclang.RequestHeaders && g.Var != seclang.ResponseHeaders || g.Key == ""
	}) {
		n = costOfField
	}
	if !slices.ContainsFunc(l.targets, func(g target) bool { return g.Var != seclang.RequestMethod && g.Var != seclang.RequestProtocol }) {
		n = max(n, costOfField+10) // what they ask for is what most messages have
	}
	return n
}

// costOfField is the price of a condition on single header fields.
const costOfField = 50

// counting returns a condition that holds only where there is something to be
// counted: of the values of the message, and of nothing else.
func (b *builder) counting(r *rule) *link {
	for _, l := range r.links {
		if l.op != nil && l.isFixed && len(l.targets) > 0 && !slices.ContainsFunc(l.targets, func(g target) bool { return !countsKeys(&g) }) {
			none := "0"
			for _, s := range l.steps {
				none, _ = s.Apply(&transform.Arena{}, none)
			}
			if !l.MultiMatch && l.op.Match(none, l.fixed) == l.negated {
				return l
			}
		}
		if visibleSets(b.e, r, l) {
			break
		}
	}
	return nil
}

// countsKeys reports whether a target is the number of values of one keyed
// variable.
func countsKeys(g *target) bool {
	_, _, keyed := collection(g.Var)
	return g.Count && keyed
}

func shortest(list []string) int {
	n := len(list[0])
	for _, s := range list {
		n = min(n, len(s))
	}
	return n
}

// visibleSets reports whether a condition sets what other rules may read.
func visibleSets(e *Engine, r *rule, l *link) bool {
	return len(l.ctls) > 0 || slices.ContainsFunc(l.sets, func(s setVar) bool {
		return s.slot < 0 && e.sharedNames(s.prefix, r) || s.slot >= 0 && e.sharedSlot(e.readers, s.slot, r)
	})
}

// sharedNames reports whether a rule other than r may read a TX name that is
// made when it is set, and begins with a prefix.
func (e *Engine) sharedNames(prefix string, r *rule) bool {
	for n, name := range e.slotName {
		if strings.HasPrefix(name, prefix) && e.sharedSlot(e.readers, n, r) {
			return true
		}
	}
	return slices.ContainsFunc(e.foreign, func(f foreignReader) bool {
		return f.rule != r && f.rule.kept && mayChoose(&f.sel, prefix)
	})
}

// screenable reports whether a condition looks at values of the message, and
// at nothing else.
func (b *builder) screenable(r *rule, l *link) bool {
	if l.op == nil || len(l.targets) == 0 || !l.isFixed {
		return false
	}
	for i := range l.targets {
		g := &l.targets[i]
		if g.Count || internal(g.Var) {
			return false
		}
		if _, _, keyed := collection(g.Var); !keyed && g.Var != seclang.Args && g.Var != seclang.ArgsNames {
			switch g.Var {
			case seclang.ArgsCombinedSize, seclang.UniqueID, seclang.ReqbodyProcessor, seclang.FilesCombinedSize, seclang.RequestBodyLength:
				return false // they are made up when asked for, or differ by phase
			}
			if r.Phase == 1 && ofBody(g.Var) || r.Phase == 3 && ofAnswer(g.Var) {
				return false
			}
		}
	}
	return true
}
