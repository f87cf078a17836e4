package engine

import (
	"net/http"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// finish says of each rule that is kept how it is to be treated.
func (f *folder) finish() {
	writers := f.writers()
	f.recheckCuts()
	chosen := slices.ContainsFunc(f.e.rules, func(r *rule) bool { // how the body is read, by rules that depend on others
		return r.kept && slices.ContainsFunc(r.links, func(l *link) bool {
			return slices.ContainsFunc(l.ctls, func(c ctl) bool { return c.name == "requestBodyProcessor" })
		})
	})
	for _, r := range f.e.rules {
		if !r.kept {
			continue
		}
		r.effect = r.effect || f.hasEffect(r) || f.ranked && r.Severity >= 0
		r.always = r.always || readsSeverity(r)
		if r.onMessage && !asksMessage(r) { // it takes something from every message
			r.always = true
			if r.effect {
				f.demand(r.Phase)
			}
		}
		r.separate, r.perNames = separable(r)
		if f.readsOthers(r, writers) || chosen && r.reads(seclang.ReqbodyProcessor) {
			r.always = true
		}
		if !r.effect {
			r.always = true // it only makes others not fire
		}
	}
	f.dropIdle()
	for _, rd := range f.reads {
		end := f.e.before
		if rd.rule.Phase > 2 {
			end = f.e.after
		}
		if end[rd.slot] != rd.value && rd.rule.kept {
			f.demand(rd.rule.Phase)
			rd.rule.always = true
		}
	}
	f.e.readers = f.readers
	for _, name := range fieldNames {
		f.e.lower[name] = strings.ToLower(name)
		f.e.lower[http.CanonicalHeaderKey(name)] = strings.ToLower(name)
	}
}

// asksMessage reports whether any of a rule's conditions depends on the
// message.
func asksMessage(r *rule) bool {
	return slices.ContainsFunc(r.links, func(l *link) bool {
		return slices.ContainsFunc(l.targets, func(g target) bool { return !internal(g.Var) }) ||
			slices.ContainsFunc(l.arg, func(k token) bool { return k.Var != seclang.Unknown && !internal(k.Var) })
	})
}

// readsSeverity reports whether a rule depends on how severe the rules are that
// fired before it.
func readsSeverity(r *rule) bool { return r.reads(seclang.HighestSeverity) }

// reads reports whether a rule reads a variable.
func (r *rule) reads(v seclang.Variable) bool {
	in := func(m macro) bool {
		return slices.ContainsFunc(m, func(k token) bool { return k.Var == v })
	}
	return slices.ContainsFunc(r.links, func(l *link) bool {
		return slices.ContainsFunc(l.targets, func(g target) bool { return g.Var == v }) || in(l.arg) || in(l.msg) ||
			slices.ContainsFunc(l.sets, func(s setVar) bool { return in(s.name) || in(s.value) })
	})
}

// writers finds which kept rules may set a slot.
func (f *folder) writers() [][]int {
	out := make([][]int, len(f.e.slotName))
	for _, r := range f.e.rules {
		if !r.kept {
			continue
		}
		for _, l := range r.links {
			for _, s := range l.sets {
				for n, name := range f.e.slotName {
					if s.mayBe(n, name) && !slices.Contains(out[n], r.index) {
						out[n] = append(out[n], r.index)
					}
				}
			}
		}
	}
	return out
}

// hasEffect reports whether a rule's firing, or a part of it, can make a
// verdict worse.
func (f *folder) hasEffect(r *rule) bool {
	if r.Disruptive != seclang.Pass || r.withholds {
		return true
	}
	for _, l := range r.links {
		for _, s := range l.sets {
			if s.slot < 0 || f.e.sharedSlot(f.readers, s.slot, r) {
				return true
			}
		}
		for _, c := range l.ctls {
			if c.rules == nil {
				return true
			}
		}
	}
	return false
}

// sharedSlot reports whether a rule other than r reads a slot.
func (e *Engine) sharedSlot(readers [][]int, slot int, r *rule) bool {
	if slot == e.score[0] || slot == e.score[1] || slot == e.threshold[0] || slot == e.threshold[1] {
		return true
	}
	return slices.ContainsFunc(readers[slot], func(o int) bool { return o != r.index && e.rules[o].kept })
}

// readsOthers reports whether a rule's conditions read what another rule may
// have set.
func (f *folder) readsOthers(r *rule, writers [][]int) bool {
	by := func(n int) bool {
		return n >= captures && slices.ContainsFunc(writers[n], func(o int) bool { return o != r.index })
	}
	for _, l := range r.links {
		for i := range l.targets {
			g := &l.targets[i]
			if g.Var != seclang.TX {
				continue
			}
			if g.many() && f.mayMake(&g.Selector, r) || slices.ContainsFunc(g.slots, by) {
				return true
			}
		}
		if l.isFixed {
			continue
		}
		if slices.ContainsFunc(l.arg, func(k token) bool { return k.Var == seclang.TX && by(k.slot) }) {
			return true
		}
	}
	return false
}

// mayMake reports whether a rule other than r may set a TX name that is not
// known beforehand and that is chosen.
func (f *folder) mayMake(sel *seclang.Selector, r *rule) bool {
	return slices.ContainsFunc(f.e.rules, func(o *rule) bool {
		return o != r && o.kept && slices.ContainsFunc(o.links, func(l *link) bool {
			return slices.ContainsFunc(l.sets, func(s setVar) bool { return s.slot < 0 && mayChoose(sel, s.prefix) })
		})
	})
}

// many reports whether a target may choose several names, or such as are not
// known beforehand.
func (g *target) many() bool { return g.Regex != nil || g.Key == "" }

// mayChoose reports whether names that begin with a prefix in lower case may be
// chosen by one that chooses many.
func mayChoose(sel *seclang.Selector, prefix string) bool {
	if sel.Regex == nil {
		return true
	}
	tree, err := syntax.Parse(sel.Regex.String(), syntax.Perl)
	if err != nil || tree.Op != syntax.OpConcat || len(tree.Sub) < 2 || tree.Sub[0].Op != syntax.OpBeginText || tree.Sub[1].Op != syntax.OpLiteral {
		return true
	}
	begins := strings.ToLower(string(tree.Sub[1].Rune))
	n := min(len(begins), len(prefix))
	return begins[:n] == prefix[:n]
}

// separable reports whether a rule fires on a set of values if and only if it
// fires on one of them alone: what its first condition sets is plain, and its
// second looks at nothing else. Whether it looks at the values' keys, too, is
// the second answer.
func separable(r *rule) (ok, perNames bool) {
	first := r.links[0]
	if len(r.links) > 2 {
		return false, false
	}
	for i := range first.targets {
		if first.targets[i].Count || first.targets[i].Var == seclang.TX {
			return false, false
		}
	}
	names := func(m macro) bool {
		return slices.ContainsFunc(m, func(k token) bool { return k.Var == seclang.MatchedVarName || k.Var == seclang.MatchedVarsNames })
	}
	local := func(m macro) bool {
		return !slices.ContainsFunc(m, func(k token) bool {
			switch k.Var {
			case seclang.Unknown, seclang.TX, seclang.MatchedVar, seclang.MatchedVarName, seclang.RuleMeta:
				return false
			}
			return true
		})
	}
	if len(r.links) == 1 {
		return true, false
	}
	if !first.isFixed && readsInternal(first.arg) { // what the last match has set
		return false, false
	}
	many := false // what several matches set stands side by side
	for _, s := range first.sets {
		if s.remove || s.mayCount() {
			return false, false
		}
		if !local(s.name) || !local(s.value) || first.readsOwn(s.name) || first.readsOwn(s.value) {
			return false, false
		}
		perNames = perNames || names(s.name) || names(s.value)
		many = many || s.slot < 0
	}
	second := r.links[1]
	if second.op == nil {
		return false, false
	}
	for i := range second.targets {
		v := second.targets[i].Var
		many = many || v == seclang.MatchedVars || v == seclang.MatchedVarsNames
	}
	if !second.isFixed {
		if slices.ContainsFunc(second.arg, func(k token) bool { return internal(k.Var) && (many || !local(macro{k})) }) {
			return false, false
		}
		perNames = perNames || !local(second.arg) // what is the same for all values, but not for all messages
	}
	for i := range second.targets {
		g := &second.targets[i]
		switch g.Var {
		case seclang.TX, seclang.MatchedVar, seclang.MatchedVars:
		case seclang.MatchedVarName, seclang.MatchedVarsNames:
			perNames = true
		default:
			return false, false
		}
		if g.Count || g.Var == seclang.MatchedVars && (g.Key != "" || g.Regex != nil || len(g.Except) > 0) {
			return false, false
		}
	}
	return true, perNames || names(second.arg)
}

// mayCount reports whether a variable may be added to.
func (s *setVar) mayCount() bool {
	if len(s.value) == 0 {
		return true
	}
	switch k := s.value[0]; k.Var {
	case seclang.Unknown:
		return strings.HasPrefix(k.Text, "+") || strings.HasPrefix(k.Text, "-")
	case seclang.MatchedVarName: // begins with a letter
		return false
	}
	return true
}

// readsOwn reports whether a macro reads what the same condition sets.
func (l *link) readsOwn(m macro) bool {
	return slices.ContainsFunc(m, func(k token) bool {
		return k.Var == seclang.TX && slices.ContainsFunc(l.sets, func(s setVar) bool { return s.mayBe(k.slot, k.Key) })
	})
}

// dropIdle leaves rules out that do nothing.
func (f *folder) dropIdle() {
	for phase := range f.e.phases {
		f.e.phases[phase] = slices.DeleteFunc(f.e.phases[phase], func(o op) bool {
			r := o.rule
			if r == nil || r.effect || r.skipTo > 0 || slices.ContainsFunc(r.links, func(l *link) bool { return len(l.ctls) > 0 }) {
				return false
			}
			for _, l := range r.links {
				for _, s := range l.sets {
					if len(f.readers[s.slot]) > 0 && f.e.sharedSlot(f.readers, s.slot, r) {
						return false
					}
				}
			}
			r.kept = false
			return true
		})
	}
}

// recheckCuts: where values are removed, a rule may fire that would not fire
// otherwise.
func (f *folder) recheckCuts() {
	for _, r := range f.e.rules {
		if !r.kept {
			continue
		}
		for _, l := range r.links {
			for _, c := range l.ctls {
				if c.removes || c.rules == nil {
					continue
				}
				for _, o := range f.e.rules {
					if !o.kept || !c.means(o) || o.steady(&c) {
						continue
					}
					o.always, r.effect = true, true
					if o == r || !asksMessage(r) {
						f.demand(r.Phase) // a trial leaves its targets alone, or there is none
					}
				}
			}
		}
	}
}

// steady reports whether a rule that does not fire would not either if values
// of it were removed.
func (r *rule) steady(c *ctl) bool {
	whole, _ := separable(r)
	matched, set := false, false // what has matched, or what that has set, may be other than it was
	for _, l := range r.links {
		cut := false
		for i := range l.targets {
			g := &l.targets[i]
			switch {
			case c.cuts(g):
				cut = true
			case g.Var == seclang.TX && set && !whole:
				return false
			case isMatched(g.Var) && matched && !whole:
				cut = true
			default:
				continue
			}
			if g.Count || matched && (g.Var == seclang.MatchedVar || g.Var == seclang.MatchedVarName) {
				return false
			}
		}
		if whole {
			continue
		}
		matched, set = matched || cut, set || cut && (l.Capture || len(l.sets) > 0)
		if !l.isFixed && slices.ContainsFunc(l.arg, func(k token) bool { return k.Var == seclang.TX && set || isMatched(k.Var) && matched }) {
			return false
		}
	}
	return true
}

// readsInternal reports whether a macro reads what rules remember.
func readsInternal(m macro) bool {
	return slices.ContainsFunc(m, func(k token) bool { return k.Var != seclang.Unknown && internal(k.Var) })
}

// fieldNames are header fields that requests commonly have.
var fieldNames = []string{
	"Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Accept-Datetime", "Access-Control-Request-Headers",
	"Access-Control-Request-Method", "Authorization", "Cache-Control", "Connection", "Content-Disposition", "Content-Encoding",
	"Content-Language", "Content-Length", "Content-Location", "Content-Range", "Content-Type", "Cookie", "DNT", "Date", "ETag",
	"Expect", "Expires", "Forwarded", "From", "Host", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range",
	"If-Unmodified-Since", "Keep-Alive", "Last-Modified", "Link", "Location", "Origin", "Pragma", "Priority", "Proxy-Authorization",
	"Range", "Referer", "Referrer-Policy", "Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform", "Sec-Fetch-Dest", "Sec-Fetch-Mode",
	"Sec-Fetch-Site", "Sec-Fetch-User", "Sec-Gpc", "Sec-Websocket-Extensions", "Sec-Websocket-Key", "Sec-Websocket-Protocol",
	"Sec-Websocket-Version", "Server", "Set-Cookie", "Strict-Transport-Security", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
	"Upgrade-Insecure-Requests", "User-Agent", "Vary", "Via", "X-Content-Type-Options", "X-Csrf-Token", "X-Forwarded-For",
	"X-Forwarded-Host", "X-Forwarded-Proto", "X-Frame-Options", "X-Request-Id", "X-Requested-With", "X-Xsrf-Token",
}
