package engine

import (
	"slices"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// setVar sets a TX variable.
func (t *transaction) setVar(s *setVar, r *rule) {
	slot, name := s.slot, ""
	if slot < 0 {
		name = strings.ToLower(t.expand(s.name, r))
		if n, ok := t.engine.names[name]; ok {
			slot = n
		}
	}
	if t.probing {
		t.look(slot, name, r)
	}
	cur := t.lookup(slot, name)
	next := value{set: true}
	if s.remove {
		next.set = false
	} else {
		var ok bool
		if next.s, ok = assigned(cur.s, t.expand(s.value, r)); !ok {
			return
		}
	}
	if slot >= 0 {
		t.set(slot, next)
		return
	}
	i := t.extraAt(name)
	switch {
	case !next.set && i >= 0:
		t.extra = slices.Delete(t.extra, i, i+1)
		clear(t.places)
	case next.set && i >= 0:
		t.extra[i].val = next.s
	case next.set:
		t.extra = append(t.extra, entry{seclang.TX, name, next.s})
		if len(t.places) > 0 {
			t.places[name] = len(t.extra) - 1
		}
	}
}

// assigned returns what a variable becomes by setvar. It is not changed where
// the result would be no number.
func assigned(cur, v string) (string, bool) {
	if v == "" || v[0] != '+' && v[0] != '-' {
		return v, true
	}
	n := 0
	if len(v) > 1 {
		var err error
		if n, err = strconv.Atoi(v[1:]); err != nil {
			return v, !strings.HasPrefix(v[1:], "tx.")
		}
	}
	m := 0
	if cur != "" {
		var err error
		if m, err = strconv.Atoi(cur); err != nil {
			return "", false
		}
	}
	if v[0] == '-' {
		n = -n
	}
	return itoa(m + n), true
}

func (t *transaction) set(slot int, v value) {
	if t.probing {
		t.undo = append(t.undo, assignment{slot, t.tx[slot]})
	}
	t.tx[slot] = v
}

func (t *transaction) lookup(slot int, name string) value {
	if slot >= 0 {
		return t.tx[slot]
	}
	if i := t.extraAt(name); i >= 0 {
		return value{t.extra[i].val, true}
	}
	return value{}
}

// fewExtra are looked through; more have an index.
const fewExtra = 64

// extraAt returns where a name that is not known beforehand is kept, or -1.
func (t *transaction) extraAt(name string) int {
	if len(t.extra) <= fewExtra {
		return slices.IndexFunc(t.extra, func(e entry) bool { return e.key == name })
	}
	if len(t.places) == 0 {
		if t.places == nil {
			t.places = map[string]int{}
		}
		for i, e := range t.extra {
			t.places[e.key] = i
		}
	}
	if i, ok := t.places[name]; ok && i < len(t.extra) && t.extra[i].key == name {
		return i
	}
	return -1
}

// txValues appends the TX variables that a target chooses.
func (t *transaction) txValues(to []entry, g *target) []entry {
	for _, n := range g.slots {
		name := t.engine.slotName[n]
		if t.tx[n].set && !g.excepts(name) && !t.cut(g.Var, name) {
			to = append(to, entry{seclang.TX, name, t.tx[n].s})
		}
	}
	for _, e := range t.extra {
		if g.chooses(e.key) && !t.cut(g.Var, e.key) {
			to = append(to, e)
		}
	}
	return to
}

// expand fills a macro in.
func (t *transaction) expand(m macro, r *rule) string {
	if len(m) == 1 {
		return t.token(&m[0], r)
	}
	var parts [8]string
	list := parts[:0]
	for i := range m {
		list = append(list, t.token(&m[i], r))
	}
	return t.concat(list...)
}

func (t *transaction) token(k *token, r *rule) string {
	switch k.Var {
	case seclang.Unknown:
		return k.Text
	case seclang.TX:
		if v := t.lookup(k.slot, k.Key); v.set {
			return v.s
		}
		return k.Text
	case seclang.RuleMeta:
		return t.meta(k, r)
	}
	if !k.Var.Keyed() {
		return t.single(k.Var)
	}
	g := target{Target: seclang.Target{Var: k.Var, Selector: seclang.Selector{Key: k.Key}}}
	kept := t.cuts
	t.cuts = nil
	list := t.values(t.entries[len(t.entries):], &g)
	t.cuts = kept
	if len(list) == 0 {
		return k.Text
	}
	return list[0].val
}

// meta returns what a rule says of itself.
func (t *transaction) meta(k *token, r *rule) string {
	switch k.Key {
	case "id":
		return strconv.Itoa(r.id)
	case "severity":
		if t.within > 0 { // chained conditions have none of their own
			return severities[0]
		}
		return severities[r.Severity+1]
	case "msg":
		if r.links[0].msg != nil {
			return t.quoted
		}
	}
	return k.Text
}

// severities are how Coraza words them, beginning with the one that is not given.
var severities = [...]string{"unknown", "emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"}
