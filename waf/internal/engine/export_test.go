package engine

import (
	"slices"

	"github.com/merlon-dev/merlon/waf/internal/match"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// Faults are mistakes that this engine could have. They are planted in a
// compiled engine, which must not be asked anything before.
var Faults = []struct {
	Name  string
	Plant func(e *Engine)
}{
	{"nothing is looked at", func(e *Engine) {
		e.eachScreen(func(s *screen) {
			clear(s.variable[:])
			clear(s.present[:])
			s.whole, s.singles = nil, nil
		})
		e.noFields()
	}},
	{"every third trigger has no literals", func(e *Engine) {
		e.eachScreen(func(s *screen) {
			for i := range s.refs {
				s.refs[i] = slices.DeleteFunc(s.refs[i], func(r ref) bool { return r.check.index%3 == 0 })
			}
		})
	}},
	{"needed bytes miss some", func(e *Engine) {
		e.eachCheck(func(c *check) {
			for i := range c.needs {
				c.needs[i] = odd(c.needs[i])
			}
		})
	}},
	{"clues miss some bytes", func(e *Engine) {
		e.eachScreen(func(s *screen) {
			for i := range s.classes {
				for k := range s.classes[i].chains {
					s.classes[i].chains[k].clues = odd(s.classes[i].chains[k].clues)
				}
			}
		})
	}},
	{"transformations seem to change less", func(e *Engine) {
		for i := range e.nodes {
			n := &e.nodes[i]
			n.changes, n.always = odd(n.changes), false
			if n.step != nil {
				s := *n.step
				s.Changes, s.Always = odd(s.Changes), false
				n.step = &s
			}
		}
	}},
	{"letters are not folded", func(e *Engine) {
		for i := range e.nodes {
			if n := &e.nodes[i]; n.step != nil {
				s := *n.step
				s.Folds, n.folds, n.step = false, false, &s
			}
		}
	}},
	{"cookies are not looked at", func(e *Engine) { e.inbound.variable[seclang.RequestCookies] = 0 }},
	{"names are not looked at", func(e *Engine) { clear(e.inbound.names[:]) }},
	{"single fields are not looked at", func(e *Engine) { e.noFields() }},
	{"rules that no value triggers are not tried", func(e *Engine) { e.inbound.whole = nil }},
	{"rules that need any value are not tried", func(e *Engine) { clear(e.inbound.present[:]) }},
	{"literals seem to have more bytes", func(e *Engine) {
		e.eachCheck(func(c *check) {
			for i := range c.words {
				c.words[i].Add('z')
			}
		})
	}},
	{"rules are evaluated for candidates only", func(e *Engine) { e.eachRule(func(r *rule) { r.always = false }) }},
	{"every seventh rule is left out", func(e *Engine) {
		for i, ops := range e.phases {
			e.phases[i] = slices.DeleteFunc(ops, func(o op) bool { return o.rule != nil && o.rule.index%7 == 0 })
		}
	}},
	{"chains end at their beginning", func(e *Engine) { e.eachRule(func(r *rule) { r.links = r.links[:1] }) }},
	{"chains are asked value by value", func(e *Engine) { e.eachRule(func(r *rule) { r.separate = true }) }},
	{"nothing is skipped", func(e *Engine) { e.eachRule(func(r *rule) { r.skipTo = 0 }) }},
	{"nothing is negated", func(e *Engine) { e.eachLink(func(l *link) { l.negated = false }) }},
	{"nothing is captured", func(e *Engine) { e.eachLink(func(l *link) { l.capture = nil }) }},
	{"exceptions are forgotten", func(e *Engine) {
		e.eachLink(func(l *link) {
			for i := range l.targets {
				l.targets[i].Except = nil
			}
		})
	}},
	{"only the last value is matched", func(e *Engine) {
		e.eachLink(func(l *link) {
			once := *l.Link
			once.MultiMatch, l.Link = false, &once
		})
	}},
	{"scores are not added", func(e *Engine) {
		e.eachLink(func(l *link) {
			for i := range l.sets {
				if v := l.sets[i].value; len(v) > 1 && v[0].Text == "+" {
					l.sets[i].value = v[1:]
				}
			}
		})
	}},
}

// odd are the bytes of a set with odd numbers.
func odd(b match.ByteSet) (out match.ByteSet) {
	for i := range b {
		out[i] = b[i] & 0xAAAAAAAAAAAAAAAA
	}
	return out
}

func (e *Engine) noFields() {
	for _, f := range e.fields {
		f.classes = [2][2]int{}
	}
}

func (e *Engine) eachScreen(f func(*screen)) {
	f(e.inbound)
	f(e.outbound)
}

func (e *Engine) eachCheck(f func(*check)) {
	seen := map[*check]bool{}
	once := func(c *check) {
		if !seen[c] {
			seen[c] = true
			f(c)
		}
	}
	e.eachScreen(func(s *screen) {
		for _, refs := range s.refs {
			for i := range refs {
				once(refs[i].check)
			}
		}
		for i := range s.classes {
			for _, ch := range s.classes[i].chains {
				for _, c := range ch.every {
					once(c)
				}
			}
		}
	})
}

func (e *Engine) eachRule(f func(*rule)) {
	for _, r := range e.rules {
		if r.kept {
			f(r)
		}
	}
}

func (e *Engine) eachLink(f func(*link)) {
	e.eachRule(func(r *rule) {
		for _, l := range r.links {
			f(l)
		}
	})
}
