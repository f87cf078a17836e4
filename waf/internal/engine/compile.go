package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/match"
	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/operator"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
	"github.com/merlon-dev/merlon/waf/internal/transform"
)

// captures is how many TX variables an operator can set: TX:0 to TX:9.
const captures = 10

// A rule is a compiled rule.
type rule struct {
	*seclang.Rule
	index  int // among all rules
	order  int // place in the text, markers counted
	links  []*link
	id     int
	scores int  // what a match adds to the anomaly score
	skipTo int  // place to go on at after a match; 0: the next
	quotes bool // it reads its own message

	kept      bool // evaluated at run time
	onMessage bool // depends on the message, not on what others did alone
	effect    bool // firing can change a verdict for the worse, or in a way not known
	always    bool // evaluated whenever anything is
	separate  bool // each value of the first link decides alone
	perNames  bool // its conditions depend on the key of a value, too
	withholds bool // it can keep others from doing what they do for every message
}

// A link is a compiled condition.
type link struct {
	*seclang.Link
	targets []target
	op      operator.Operator
	capture operator.Capturer
	negated bool
	slow    bool // see asked
	arg     macro
	fixed   string // arg, where it is the same for every request
	isFixed bool
	steps   []step
	chain   int // node of the last step
	sets    []setVar
	ctls    []ctl
	msg     macro
	acts    []act // in order: indexes into sets and ctls
}

type act struct {
	ctl bool
	n   int
}

type step = *transform.Transformation

// A target is a compiled seclang.Target.
type target struct {
	seclang.Target
	slots []int  // of TX: the static names that are chosen
	says  string // the key of a count
	loose bool   // some of its values may be removed at run time
}

// A macro is a compiled seclang.Macro.
type macro []token

type token struct {
	seclang.Token
	slot int
}

type setVar struct {
	name   macro
	slot   int    // if the name is the same for every request; else -1
	prefix string // what every name begins with
	value  macro
	remove bool
}

// A ctl is a compiled seclang.Ctl, its rules looked up.
type ctl struct {
	name    string
	value   string
	from    int // the rule numbers of …ById
	to      int
	rules   []uint64 // set of rule indexes
	target  seclang.Variable
	sel     seclang.Selector
	removes bool // rules wholly
}

// means reports whether it is about a rule.
func (c *ctl) means(r *rule) bool {
	return c.rules != nil && c.rules[r.index/64]&(1<<(r.index%64)) != 0
}

func (e *Engine) compile(rs *seclang.Ruleset) error {
	var errs []error
	markers := map[string][]int{}
	for i, sr := range rs.Rules {
		if sr.Marker != "" {
			markers[sr.Marker] = append(markers[sr.Marker], i+1)
			continue
		}
		r := &rule{Rule: sr, index: len(e.rules), order: i + 1, id: sr.ID}
		e.rules = append(e.rules, r)
		for _, sl := range sr.Links {
			l, err := e.compileLink(sl)
			if err != nil {
				errs = append(errs, cannot(r, sl, err))
				continue
			}
			r.links = append(r.links, l)
		}
		r.scores, r.quotes = scoreOf(sr), quotes(r)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, r := range e.rules {
		if err := resolveSkip(r, rs, markers); err != nil {
			errs = append(errs, err)
		}
		for _, l := range r.links {
			e.resolveCtls(l)
		}
	}
	e.resolveReaders()
	return errors.Join(errs...)
}

func (e *Engine) compileLink(sl *seclang.Link) (*link, error) {
	l := &link{Link: sl, msg: e.compileMacro(sl.Msg)}
	for _, st := range sl.Targets {
		says := st.Key
		if st.Regex != nil {
			says = "/" + st.Regex.String() + "/"
		}
		switch st.Var {
		case seclang.Args, seclang.ArgsGet, seclang.ArgsPost:
			// Coraza compares all keys in lower case. Keys of their names and
			// patterns stay as they are: one in upper case chooses nothing.
			st.Key = strings.ToLower(st.Key)
		}
		l.targets = append(l.targets, target{Target: st, says: says})
	}
	n := 0
	for _, name := range sl.Transformations {
		t, ok := transform.Lookup(name)
		if !ok {
			return nil, fmt.Errorf("the transformation %s is not known", name)
		}
		if t.Name == "none" {
			continue
		}
		l.steps = append(l.steps, t)
		n = e.child(n, t)
	}
	l.chain = n
	if sl.Op != nil {
		l.negated = sl.Op.Negated
		if operator.TakesArgument(sl.Op.Name) {
			l.arg = e.compileMacro(sl.Op.Arg)
		}
	}
	for _, a := range sl.Actions {
		switch a := a.(type) {
		case seclang.SetVar:
			sv := setVar{name: e.compileMacro(a.Name), value: e.compileMacro(a.Value), remove: a.Remove, slot: -1}
			if a.Name.Static() {
				sv.slot = e.slot(strings.ToLower(a.Name.String()))
			}
			for _, tok := range a.Name {
				if tok.Var != seclang.Unknown {
					break
				}
				sv.prefix += strings.ToLower(tok.Text)
			}
			l.acts = append(l.acts, act{false, len(l.sets)})
			l.sets = append(l.sets, sv)
		case seclang.Ctl:
			switch a.Name {
			case "auditEngine", "auditLogParts", "debugLogLevel", "forceRequestBodyVariable":
				continue // nothing that a verdict depends on
			}
			l.acts = append(l.acts, act{true, len(l.ctls)})
			l.ctls = append(l.ctls, ctl{name: a.Name, value: a.Value, from: a.From, to: a.To, target: canonical(a.Target), sel: a.Selector})
		}
	}
	return l, nil
}

// quotes reports whether a rule reads its own message.
func quotes(r *rule) bool {
	in := func(m macro) bool {
		return slices.ContainsFunc(m, func(k token) bool { return k.Var == seclang.RuleMeta && k.Key == "msg" })
	}
	return slices.ContainsFunc(r.links, func(l *link) bool {
		return in(l.arg) || slices.ContainsFunc(l.sets, func(s setVar) bool { return in(s.name) || in(s.value) })
	})
}

// cannot is the error about a condition that this engine cannot evaluate.
func cannot(r *rule, l *seclang.Link, err error) error {
	return &seclang.Error{File: r.File, Line: max(l.Line, r.Line), Msg: fmt.Sprintf("rule %d: %v", r.id, err), Unsupported: true}
}

// prepare makes a rule's operators. Most of the time of starting is theirs, so
// it is done only for rules that can be reached.
func (r *rule) prepare() error {
	captured := readsCaptures(r)
	for _, l := range r.links {
		if l.Op == nil || l.op != nil {
			continue
		}
		op, err := operator.New(l.Op)
		if err != nil {
			return cannot(r, l.Link, err)
		}
		l.op, l.slow = op, operator.Slow(op)
		if c, ok := op.(operator.Capturer); ok && l.Capture && captured {
			l.capture = c // finding groups costs more than matching
		}
	}
	return nil
}

// readsCaptures reports whether a rule reads TX:0 to TX:9. It can only mean
// its own captures (see checkCaptures).
func readsCaptures(r *rule) bool {
	reads := func(m macro) bool {
		return slices.ContainsFunc(m, func(k token) bool { return k.Var == seclang.TX && k.slot < captures })
	}
	return slices.ContainsFunc(r.links, func(l *link) bool {
		return reads(l.arg) || reads(l.msg) ||
			slices.ContainsFunc(l.sets, func(s setVar) bool { return reads(s.name) || reads(s.value) }) ||
			slices.ContainsFunc(l.targets, func(g target) bool {
				return g.Var == seclang.TX && (g.Regex != nil || len(g.Key) < 2)
			})
	})
}

// child returns the node of a chain that is one step longer.
func (e *Engine) child(parent int, s step) int {
	for i, n := range e.nodes {
		if n.parent == parent && n.step == s {
			return i
		}
	}
	n := node{parent: parent, step: s, changes: e.nodes[parent].changes, folds: e.nodes[parent].folds || s.Folds, always: e.nodes[parent].always || s.Always}
	if n.alters = s.Changes; e.nodes[parent].folds { // what it gets may have been in upper case
		n.alters = n.alters.Folded()
	}
	n.changes.Or(&n.alters)
	if n.number = slices.Index(e.steps, s); n.number < 0 {
		n.number = len(e.steps)
		e.steps = append(e.steps, s)
	}
	e.nodes = append(e.nodes, n)
	return len(e.nodes) - 1
}

// shrinking are the transformations of which the result has no ASCII that the
// value has not, but for spaces, slashes and the case of letters; and nothing
// else if the value is ASCII. Those that fold may make ASCII of other letters.
var shrinking = []string{
	"cmdLine", "compressWhitespace", "lowercase", "normalisePath", "normalisePathWin", "normalizePath", "normalizePathWin",
	"removeCommentsChar", "removeNulls", "removeWhitespace", "replaceComments", "replaceNulls", "trim", "trimLeft",
	"trimRight",
}

// decoding are the transformations that, where there is no percent sign, only
// make spaces of other bytes.
var decoding = []string{"urlDecode", "urlDecodeUni"}

func (e *Engine) compileMacro(m seclang.Macro) macro {
	var out macro
	for _, t := range m {
		k := token{Token: t, slot: -1}
		if t.Var == seclang.TX {
			k.slot = e.slot(t.Key)
		}
		out = append(out, k)
	}
	return out
}

// canonical gives variables that are one the same name.
func canonical(v seclang.Variable) seclang.Variable {
	if v == seclang.RequestXML {
		return seclang.XML
	}
	return v
}

// resolveReaders finds the slots that TX targets choose, once all names are
// known, and the rules that read TX by pattern.
func (e *Engine) resolveReaders() {
	for _, r := range e.rules {
		for _, l := range r.links {
			for i := range l.targets {
				t := &l.targets[i]
				t.Var = canonical(t.Var)
				if t.Var != seclang.TX {
					continue
				}
				if t.Regex == nil && t.Key != "" {
					t.slots = []int{e.slot(t.Key)}
				}
			}
		}
	}
	for _, r := range e.rules {
		for _, l := range r.links {
			for i := range l.targets {
				t := &l.targets[i]
				if t.Var != seclang.TX || t.slots != nil {
					continue
				}
				for n, name := range e.slotName {
					if t.Regex == nil || t.Regex.MatchString(name) {
						t.slots = append(t.slots, n)
					}
				}
				e.foreign = append(e.foreign, foreignReader{r, t.Selector})
			}
		}
	}
}

func resolveSkip(r *rule, rs *seclang.Ruleset, markers map[string][]int) error {
	switch {
	case r.SkipAfter != "":
		for _, at := range markers[r.SkipAfter] {
			if at > r.order {
				r.skipTo = at + 1
				return nil
			}
		}
		return &seclang.Error{File: r.File, Line: r.Line, Msg: fmt.Sprintf("rule %d: skipAfter:%s: no such marker follows", r.id, r.SkipAfter), Unsupported: true}
	case r.Skip > 0:
		left := r.Skip
		for i := r.order; i < len(rs.Rules); i++ { // rs.Rules[i] has the order i+1
			if next := rs.Rules[i]; next.Marker == "" && next.Phase != r.Phase {
				continue
			}
			if left == 0 {
				r.skipTo = i + 1
				return nil
			}
			left--
		}
		r.skipTo = len(rs.Rules) + 1
	}
	return nil
}

// resolveCtls finds the rules that are meant by tag, number or message.
func (e *Engine) resolveCtls(l *link) {
	for i := range l.ctls {
		c := &l.ctls[i]
		var chosen func(*rule) bool
		switch strings.TrimPrefix(strings.TrimPrefix(c.name, "ruleRemoveTarget"), "ruleRemove") {
		case "ById":
			chosen = func(r *rule) bool { return r.id >= c.from && r.id <= c.to }
		case "ByTag":
			chosen = func(r *rule) bool { return slices.Contains(r.Tags, c.value) }
		case "ByMsg":
			chosen = func(r *rule) bool { return r.links[0].Msg != nil && r.links[0].Msg.String() == c.value }
		default:
			continue
		}
		c.removes = !strings.HasPrefix(c.name, "ruleRemoveTarget")
		c.rules = make([]uint64, (len(e.rules)+63)/64)
		for _, r := range e.rules {
			if chosen(r) {
				c.rules[r.index/64] |= 1 << (r.index % 64)
			}
		}
	}
}

// scoreOf returns what one match of a rule adds to an anomaly score, as the
// CRS ties it to the severity.
func scoreOf(r *seclang.Rule) int {
	if ruleset.Scoring(r.ID) || !slices.ContainsFunc(r.Links, addsToScore) {
		return 0
	}
	switch r.Severity {
	case 2:
		return 5
	case 3:
		return 4
	case 4:
		return 3
	case 5:
		return 2
	}
	return 0
}

func addsToScore(l *seclang.Link) bool {
	return slices.ContainsFunc(l.Actions, func(a seclang.Action) bool {
		set, ok := a.(seclang.SetVar)
		return ok && len(set.Name) > 0 && set.Name[0].Var == seclang.Unknown && strings.Contains(strings.ToLower(set.Name[0].Text), "anomaly_score_pl")
	})
}

// Describe tells what is known of the rules of a set, by number.
func Describe(rs *seclang.Ruleset) map[int]message.RuleInfo {
	out := map[int]message.RuleInfo{}
	for _, r := range rs.Rules {
		if r.Marker == "" {
			out[r.ID] = message.RuleInfo{Tags: r.Tags, Score: scoreOf(r)}
		}
	}
	return out
}

// requirement returns what a value must contain for an operator to accept it.
func requirement(l *link) match.Requirement {
	if l.negated {
		return match.Requirement{}
	}
	if s, ok := l.op.(operator.Screened); ok {
		return s.Required()
	}
	return match.Requirement{}
}

func atoi(s string) int {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' || n > 1<<30 {
			return n
		}
		n = n*10 + int(c-'0')
	}
	return n
}
