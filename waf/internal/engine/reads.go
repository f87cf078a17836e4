package engine

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// checkMatched refuses a rule that reads what another rule matched: whether that
// one was evaluated is not known.
func (f *folder) checkMatched(r *rule) error {
	if of := r.links[0]; readsMatched(of) || f.quotesMatched(r) {
		return &seclang.Error{File: r.File, Line: max(of.Line, r.Line), Unsupported: true,
			Msg: fmt.Sprintf("rule %d: reads MATCHED_VAR before it has matched anything", r.id)}
	}
	return nil
}

// quotesMatched reports whether a rule sets what is read to its message, though
// that would be about an earlier rule, or be its message.
func (f *folder) quotesMatched(r *rule) bool {
	if msg := r.links[0].msg; !r.quotes || msg != nil && !slices.ContainsFunc(msg, func(k token) bool { return isMatched(k.Var) || k.Var == seclang.RuleMeta }) {
		return false
	}
	return slices.ContainsFunc(r.links, func(l *link) bool {
		return slices.ContainsFunc(l.sets, func(s setVar) bool { return s.slot < 0 || len(f.readers[s.slot]) > 0 })
	})
}

// checkCaptures refuses a rule that reads what another rule captured.
func (f *folder) checkCaptures(r *rule) error {
	if !readsCaptures(r) {
		return nil
	}
	have := 0
	reads := func(m macro) bool {
		return slices.ContainsFunc(m, func(k token) bool { return k.Var == seclang.TX && k.slot < captures && k.slot >= have })
	}
	for _, l := range r.links {
		bad := reads(l.arg)
		for i := range l.targets {
			g := &l.targets[i]
			bad = bad || g.Var == seclang.TX && slices.ContainsFunc(g.slots, func(n int) bool { return n < captures && n >= have })
		}
		if l.Capture {
			have = max(have, groups(l))
		}
		for _, s := range l.sets {
			bad = bad || reads(s.name) || reads(s.value)
		}
		if bad {
			return &seclang.Error{File: r.File, Line: max(l.Line, r.Line), Unsupported: true,
				Msg: fmt.Sprintf("rule %d: reads a TX variable from 0 to 9 that none of its own conditions captures", r.id)}
		}
	}
	return nil
}

// groups returns how many TX variables a condition captures.
func groups(l *link) int {
	if l.Op != nil && l.Op.Name == "rx" {
		if re, err := syntax.Parse(l.Op.Arg.String(), syntax.Perl); err == nil {
			return min(re.MaxCap()+1, captures)
		}
	}
	return 1 // others capture more, if they find more
}

func difference(before, after []value) []assignment {
	var out []assignment
	for i := range after {
		if before[i] != after[i] {
			out = append(out, assignment{i, after[i]})
		}
	}
	return out
}

// readersOf finds which rules read a slot, beside setting it.
func (f *folder) readersOf() {
	f.readers = make([][]int, len(f.e.slotName))
	note := func(n int, r *rule) {
		if !slices.Contains(f.readers[n], r.index) {
			f.readers[n] = append(f.readers[n], r.index)
		}
	}
	for _, r := range f.e.rules {
		for _, l := range r.links {
			for i := range l.targets {
				for _, n := range l.targets[i].slots {
					note(n, r)
				}
			}
			macros := []macro{l.arg, l.msg}
			for _, s := range l.sets {
				macros = append(macros, s.name, s.value)
			}
			for _, m := range macros {
				for i := range m {
					if m[i].Var == seclang.TX {
						note(m[i].slot, r)
					}
				}
			}
		}
	}
}

// fixArguments expands the arguments of operators that are the same for every
// message.
func (f *folder) fixArguments(r *rule) {
	for _, l := range r.links {
		if l.arg == nil {
			l.isFixed = true
			continue
		}
		constant := f.macroDependence(l.arg) == onConstants && !slices.ContainsFunc(l.arg, func(k token) bool {
			return k.Var != seclang.Unknown && k.Var != seclang.TX
		})
		own := slices.ContainsFunc(r.links, func(other *link) bool {
			return slices.ContainsFunc(other.sets, func(s setVar) bool {
				return slices.ContainsFunc(l.arg, func(k token) bool { return k.Var == seclang.TX && s.mayBe(k.slot, k.Key) })
			})
		})
		// Numbers are what the rule itself captures (see checkCaptures).
		own = own || slices.ContainsFunc(l.arg, func(k token) bool { return k.Var == seclang.TX && k.slot < captures })
		if constant && !own {
			l.fixed, l.isFixed = f.t.expand(l.arg, r), true
		}
	}
}

// mayBe reports whether the TX variable of a slot may be the one that is set.
func (s *setVar) mayBe(slot int, name string) bool {
	return s.slot == slot || s.slot < 0 && strings.HasPrefix(name, s.prefix)
}

// remember notes what the conditions of a kept rule read where it stands, if
// nothing in a message matches: values are tried on TX as it is at the end.
func (f *folder) remember(r *rule, before []value) {
	for _, l := range r.links {
		for i := range l.targets {
			for _, n := range l.targets[i].slots {
				f.reads = append(f.reads, reading{r, n, before[n]})
			}
		}
		if l.isFixed {
			continue
		}
		for _, k := range l.arg {
			if k.Var == seclang.TX {
				f.reads = append(f.reads, reading{r, k.slot, before[k.slot]})
			}
		}
	}
}
