package engine

import (
	"slices"
	"strings"
)

// applyCtls removes rules and targets for every message, from those that come
// later, as the first links of a rule say.
func (f *folder) applyCtls(r *rule, links int) {
	for _, l := range r.links[:links] {
		for _, c := range l.ctls {
			for _, other := range f.e.rules {
				if !c.means(other) || !r.precedes(other) {
					continue
				}
				if c.removes {
					f.gone[other.index] = true
					continue
				}
				for _, l := range other.links {
					for i := range l.targets {
						if l.targets[i].Var == c.target {
							l.targets[i].Except = append(slices.Clip(l.targets[i].Except), c.sel)
						}
					}
				}
			}
		}
	}
}

// collectLoose finds the rules that a ctl may remove, depending on a message.
// A rule that only skips others that are removed with it may as well stay.
func (f *folder) collectLoose() {
	for _, r := range f.e.rules {
		for _, l := range r.links {
			for _, c := range l.ctls {
				if !c.removes {
					f.loosen(&c)
					continue
				}
				set := slices.Clone(c.rules)
				for i, b := range f.closed(c.rules) {
					set[i] &^= b
				}
				f.loose = append(f.loose, removal{r.Phase, r.order, set})
			}
		}
	}
}

// loosen notes the targets of which a ctl may remove some values.
func (f *folder) loosen(c *ctl) {
	for _, r := range f.e.rules {
		if !c.means(r) {
			continue
		}
		for _, l := range r.links {
			for i := range l.targets {
				g := &l.targets[i]
				g.loose = g.loose || c.cuts(g)
			}
		}
	}
}

// cuts reports whether a target may have values that are removed.
func (c *ctl) cuts(g *target) bool {
	apart := c.sel.Key != "" && c.sel.Regex == nil && g.Key != "" && g.Regex == nil && !strings.EqualFold(c.sel.Key, g.Key)
	return c.target == g.Var && !apart
}

// cutsInternal reports whether what is removed of a rule is of what it reads
// without any message.
func (c *ctl) cutsInternal(r *rule) bool {
	return slices.ContainsFunc(r.links, func(l *link) bool {
		return slices.ContainsFunc(l.targets, func(g target) bool { return internal(g.Var) && c.cuts(&g) })
	})
}

// closed returns the rules of a set that set nothing and skip none but rules
// of the set.
func (f *folder) closed(set []uint64) []uint64 {
	in := func(r *rule) bool { return set[r.index/64]&(1<<(r.index%64)) != 0 }
	out := make([]uint64, len(set))
	for _, r := range f.e.rules {
		if !in(r) || slices.ContainsFunc(r.links, func(l *link) bool { return len(l.acts) > 0 }) {
			continue
		}
		ok := true
		for _, o := range f.e.rules {
			if o.Phase == r.Phase && o.order > r.order && o.order < r.skipTo && !in(o) {
				ok = false
			}
		}
		if ok {
			out[r.index/64] |= 1 << (r.index % 64)
		}
	}
	return out
}

// isLoose reports whether a rule may have been removed when its turn comes.
func (f *folder) isLoose(r *rule) bool {
	return slices.ContainsFunc(f.loose, func(m removal) bool {
		earlier := m.phase < r.Phase || m.phase == r.Phase && m.order < r.order
		return earlier && m.set[r.index/64]&(1<<(r.index%64)) != 0
	})
}
