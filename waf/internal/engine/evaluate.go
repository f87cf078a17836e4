package engine

import (
	"math/rand/v2"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/operator"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// An op is a step of a phase: a rule to evaluate, or what rules that depend
// on the configuration only do to TX.
type op struct {
	order  int
	rule   *rule
	assign []assignment
}

type assignment struct {
	slot int
	value
}

// evaluation is what a transaction remembers of the rules so far.
type evaluation struct {
	tx      []value
	extra   []entry        // TX names that are not known beforehand
	places  map[string]int // of these, if there are many
	changed bool           // rules have been evaluated, so TX may not be as it was foreseen
	saved   []value

	matched                 []pair // MATCHED_VARS of the rule
	matchedVar, matchedName string
	said                    string  // the message of the rule, once it is known
	quoted                  string  // the message of the rule as its actions read it
	within                  int     // the link under evaluation
	entries                 []entry // values of the target under evaluation
	caps                    operator.Captures

	skipTo  int // place to go on at
	allowed allowance
	removed []uint64 // rules that ctl has removed
	cuts    []cut    // targets that ctl has removed
	cutting int      // the rule whose targets are being looked up
	until   int      // how many cuts there were when it began to look
	off     bool     // ctl:ruleEngine=Off
	detect  bool     // ctl:ruleEngine=DetectionOnly

	denied bool
	by     int
	fired  []firing
	spots  []spot

	probing bool // undo everything, and tell whether anything was visible
	undo    []assignment
	kept    []entry // extra, before the probe
	visible bool
}

type pair struct{ key, val string }

type allowance uint8

const (
	nothing allowance = iota
	phaseAllowed
	requestAllowed
	allAllowed
)

// A cut is a target that has been removed from rules.
type cut struct {
	rules []uint64
	v     seclang.Variable
	sel   seclang.Selector
}

// A firing is a rule that matched wholly.
type firing struct {
	rule     *rule
	from, to int // its spots
	message  string
}

type spot struct {
	entry
	level int
}

func (x *evaluation) forget() {
	clear(x.extra)
	clear(x.places)
	clear(x.matched[:cap(x.matched)])
	clear(x.entries[:cap(x.entries)])
	clear(x.fired)
	clear(x.spots)
	clear(x.undo[:cap(x.undo)])
	clear(x.kept[:cap(x.kept)])
	*x = evaluation{
		tx: x.tx, extra: x.extra[:0], places: x.places, saved: x.saved, matched: x.matched[:0], entries: x.entries[:0],
		removed: x.removed, cuts: x.cuts[:0], fired: x.fired[:0], spots: x.spots[:0], undo: x.undo[:0], kept: x.kept[:0],
	}
	clear(x.removed)
}

// restart puts TX to what it is when a request arrives.
func (t *transaction) restart() {
	copy(t.tx, t.engine.start)
	t.intact = false
	clear(t.extra)
	t.extra = t.extra[:0]
	clear(t.places)
	t.matched = t.matched[:0]
	t.matchedVar, t.matchedName = "", ""
	t.changed = true
}

// evaluate runs a phase: the candidates, and what depends on them.
func (t *transaction) evaluate(phase int) {
	t.phase = phase
	t.skipTo = 0
	if t.allowed == allAllowed || t.off {
		return
	}
	for i := range t.engine.phases[phase] {
		o := &t.engine.phases[phase][i]
		if t.denied || t.allowed != nothing {
			break
		}
		if o.order < t.skipTo {
			continue
		}
		if o.rule == nil {
			for _, a := range o.assign {
				t.tx[a.slot] = a.value
			}
			continue
		}
		r := o.rule
		if !r.always && t.candidates[r.index/64]&(1<<(r.index%64)) == 0 {
			continue
		}
		if t.removed[r.index/64]&(1<<(r.index%64)) != 0 {
			continue
		}
		t.runRule(r, false)
	}
	if t.allowed == phaseAllowed || t.allowed == requestAllowed && phase == 2 {
		t.allowed = nothing
	}
}

// runRule evaluates a rule and does what it says; only reports with probe.
// It returns whether the whole rule matched.
func (t *transaction) runRule(r *rule, probe bool) bool {
	t.matched = t.matched[:0]
	t.said = ""
	from := len(t.spots)
	for i, l := range r.links {
		if !t.runLink(r, i, l, nil) {
			t.spots = t.spots[:from]
			return false
		}
		if probe && t.visible {
			break
		}
	}
	if probe {
		t.spots = t.spots[:from]
		return true
	}
	t.act(r, from)
	return true
}

// act does what a rule that matched wholly says.
func (t *transaction) act(r *rule, from int) {
	if r.skipTo > 0 {
		t.skipTo = r.skipTo
	}
	if r.Severity >= 0 && r.Severity < atoi(t.scalar[seclang.HighestSeverity]) {
		t.scalar[seclang.HighestSeverity] = itoa(r.Severity)
	}
	if !t.detect && !t.off {
		t.disrupt(r)
	}
	if len(r.links) > 1 && r.links[0].msg != nil && r.reports() {
		t.said = t.expand(r.links[0].msg, r)
	}
	t.fired = append(t.fired, firing{r, from, len(t.spots), t.said})
}

// disrupt ends the evaluation, if the rule says so.
func (t *transaction) disrupt(r *rule) {
	switch r.Disruptive {
	case seclang.Deny, seclang.Drop, seclang.Redirect:
		t.denied, t.by = true, r.id
	case seclang.Allow:
		switch {
		case r.Allow == seclang.AllowAll:
			t.allowed = allAllowed
		case r.Allow == seclang.AllowPhase:
			t.allowed = phaseAllowed
		case r.Phase <= 2: // the request is over otherwise
			t.allowed = requestAllowed
		}
	}
}

// runLink evaluates one condition. With only, it looks at that value alone,
// as every target does that means it.
func (t *transaction) runLink(r *rule, level int, l *link, only *entry) bool {
	if t.within = level; r.quotes && l.msg != nil { // before anything has matched
		t.quoted = t.expand(l.msg, r)
	}
	if l.op == nil {
		t.match(r, level, l, entry{})
		return true
	}
	t.cutting, t.until = r.index, len(t.cuts)
	hit := false
	for i := range l.targets {
		g := &l.targets[i]
		list := t.entries[:0]
		switch {
		case only == nil:
			list = t.values(list, g)
		case covers(g.Var, only.v) && g.chooses(t.engine.lowered(only.key)):
			list = append(list, entry{g.named(), only.key, only.val})
		}
		t.entries = list
		for _, e := range list {
			if t.test(r, level, l, e) {
				hit = true
			}
		}
	}
	return hit
}

// test transforms a value and asks the operator.
func (t *transaction) test(r *rule, level int, l *link, e entry) bool {
	if l.MultiMatch {
		return t.testEach(r, level, l, e)
	}
	val := e.val
	for _, s := range l.steps {
		val, _ = s.Apply(&t.arena, val)
	}
	if !t.accepts(r, l, val) {
		return false
	}
	e.val = val
	t.match(r, level, l, e)
	return true
}

// testEach asks about every value that the transformations come to.
func (t *transaction) testEach(r *rule, level int, l *link, e entry) bool {
	hit := false
	val := e.val
	for i := 0; ; i++ {
		if t.accepts(r, l, val) {
			hit = true
			e.val = val
			t.match(r, level, l, e)
		}
		changed := false
		for ; i < len(l.steps) && !changed; i++ {
			var next string
			if next, changed = l.steps[i].Apply(&t.arena, val); changed {
				val = next
			}
		}
		if !changed {
			return hit
		}
		i--
	}
}

// accepts asks the operator, and lets it capture.
func (t *transaction) accepts(r *rule, l *link, val string) bool {
	arg := l.fixed
	if !l.isFixed && l.arg != nil { // the last match may have changed it
		arg = t.expand(l.arg, r)
	}
	if l.capture == nil {
		return t.asks(l, val, arg) != l.negated
	}
	t.caps.Set, t.caps.N = false, 0
	ok := l.capture.Capture(val, arg, &t.caps)
	if t.caps.Set {
		for i := range t.caps.N {
			t.set(i, value{t.caps.Values[i], true})
		}
	}
	return ok != l.negated
}

// match does what is to be done at each match of a link.
func (t *transaction) match(r *rule, level int, l *link, e entry) {
	t.matchedVar = e.val
	t.matchedName = e.v.String()
	if e.v == seclang.Unknown { // of a SecAction
		t.matchedName = "UNKNOWN"
	}
	if e.key != "" {
		t.matchedName = t.concat(t.matchedName, ":", e.key)
	}
	t.matched = append(t.matched, pair{t.matchedName, e.val})
	if r.reports() {
		t.spots = append(t.spots, spot{e, level})
	}
	for _, a := range l.acts {
		if a.ctl {
			t.control(&l.ctls[a.n])
		} else {
			t.setVar(&l.sets[a.n], r)
		}
	}
	// A chain says what its end makes of the beginning.
	if first := t.said == "" && (level > 0 || len(r.links) == 1); first && l.msg != nil && r.reports() {
		t.said = t.expand(l.msg, r)
	}
}

// reports reports whether verdicts describe a rule's matches.
func (r *rule) reports() bool { return r.scores > 0 || r.Disruptive != seclang.Pass }

// control does what a ctl says.
func (t *transaction) control(c *ctl) {
	if t.probing {
		t.visible = true
		return
	}
	switch c.name {
	case "ruleEngine":
		t.off = strings.EqualFold(c.value, "off")
		t.detect = strings.EqualFold(c.value, "detectiononly")
	case "requestBodyProcessor":
		if t.phase == 1 {
			t.early = strings.ToUpper(c.value)
			if t.unread {
				t.scalar[seclang.ReqbodyProcessor] = t.early
			}
		}
	default:
		if c.removes {
			for i, b := range c.rules {
				t.removed[i] |= b
			}
		} else if c.rules != nil {
			t.cuts = append(t.cuts, cut{c.rules, c.target, c.sel})
		}
	}
}

// cut reports whether a value is out of the reach of the rule that looks.
func (t *transaction) cut(v seclang.Variable, key string) bool {
	for i := range t.cuts[:min(t.until, len(t.cuts))] {
		c := &t.cuts[i]
		if c.v != v || c.rules[t.cutting/64]&(1<<(t.cutting%64)) == 0 {
			continue
		}
		low := t.engine.lowered(key)
		if c.sel.Regex != nil && c.sel.Regex.MatchString(low) || c.sel.Regex == nil && (c.sel.Key == "" || strings.ToLower(c.sel.Key) == low) {
			return true
		}
	}
	return false
}

func newID() string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	var b [16]byte
	for i := range b {
		b[i] = letters[rand.IntN(len(letters))]
	}
	return string(b[:])
}
