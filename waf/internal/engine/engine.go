// Package engine judges messages by rules written in SecLang, with the
// verdicts that Coraza gives, at the cost of looking at each value once.
//
// At start the rules are compiled: what depends on the configuration only is
// evaluated and folded away, and of every other rule one condition becomes its
// trigger. A request is screened first: each of its values is transformed and
// searched once for everything that any trigger needs. Rules whose trigger
// held are candidates; if there are none, no rule can fire and the request is
// clean. Otherwise the candidates, and the rules that depend on what they do,
// are evaluated exactly and in order.
//
// docs/waf.md gives the argument why a clean verdict is sound. The engine
// parses only the request line, the query string and cookies; what else it is
// told, it believes. It writes no log.
package engine

import (
	"strings"
	"sync"

	"github.com/merlon-dev/merlon/waf/internal/match"
	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// An Engine is a compiled rule set. It may be used by several goroutines.
type Engine struct {
	rules  []*rule
	info   map[int]message.RuleInfo
	arglim int
	bodies []string // media types of answers of which the body is looked at

	names    map[string]int // TX names and their slots
	slotName []string
	lower    map[string]string // field names as they are sent, in lower case
	fields   map[string]*field // these, as they are sent and in lower case, and those that have a class

	phases  [5][]op // 1 to 4: what is evaluated, in order
	prelude []early // rules that choose how a body is read
	late    []int   // TX that phases 3 and 4 set to constants
	altered []int   // TX that differs after a clean request and a clean answer
	start   []value // TX when a request arrives
	before  []value // TX after a clean request
	after   []value // TX after a clean request and a clean answer
	clean   [2]message.Verdict

	foreign []foreignReader // rules that read TX names by pattern
	readers [][]int         // rules that read a TX name, by slot

	indivisible []uint64 // rules that cannot be asked about a piece of an answer

	inbound, outbound *screen

	score, threshold       [2]int // slots of the scores of requests and answers, and of their thresholds
	nodes                  []node // transformation chains, as a tree
	steps                  []step
	checks                 int
	structure              [5]structure // by phase
	pool                   sync.Pool
	requestAll, respondAll bool // evaluate even what is clean
}

// A value is a TX variable.
type value struct {
	s   string
	set bool
}

// An early rule is evaluated before the body is read, on TX as it is there.
type early struct {
	rule  *rule
	tx    []value // nil if it does not matter
	typed bool    // it cannot match without a Content-Type
}

// A field is a name of a header field.
type field struct {
	name, low string
	classes   [2][2]int // of its values: by side, of requests and answers; 0 if it has none of its own
}

// A node is a step of a chain of transformations.
type node struct {
	parent  int
	step    step
	number  int           // of the step
	alters  match.ByteSet // bytes without any of which the step changes nothing of what it gets here
	changes match.ByteSet // the same of the whole chain
	folds   bool          // but letters to lower case
	always  bool          // or whatever the value is
}

// structure is what folding made of the rules of a phase.
type structure struct {
	loaded    int // rules
	constant  int // that depend on the configuration only
	derived   int // that depend on what others did to TX only
	dependent int // that depend on the message
}

// unreached are the rules that are always skipped, or removed.
func (s structure) unreached() int { return s.loaded - s.constant - s.derived - s.dependent }

// New compiles a rule set. An error is a *seclang.Error for a rule that this
// engine cannot evaluate, although Coraza can.
func New(rs *seclang.Ruleset) (*Engine, error) {
	e := &Engine{
		info:  Describe(rs),
		names: map[string]int{},
		lower: map[string]string{},
		nodes: []node{{parent: -1}},
	}
	e.arglim = atoi(rs.Settings["secargumentslimit"])
	if e.arglim <= 0 {
		e.arglim = 1000 // Coraza's default
	}
	if strings.EqualFold(rs.Settings["secresponsebodyaccess"], "on") {
		e.bodies = strings.Fields(rs.Settings["secresponsebodymimetype"])
	}
	for i := range captures {
		e.slot(string(rune('0' + i)))
	}
	e.slot("10")
	e.score = [2]int{e.slot("blocking_inbound_anomaly_score"), e.slot("blocking_outbound_anomaly_score")}
	e.threshold = [2]int{e.slot("inbound_anomaly_score_threshold"), e.slot("outbound_anomaly_score_threshold")}
	if err := e.compile(rs); err != nil {
		return nil, err
	}
	e.pool.New = func() any { return newTransaction(e) }
	if err := e.fold(); err != nil {
		return nil, err
	}
	e.inbound = e.newScreen(1, 2)
	e.outbound = e.newScreen(3, 4)
	e.nameFields()
	e.indivisible = e.indivisibleRules()
	for i := range e.before {
		if e.before[i] != e.after[i] {
			e.altered = append(e.altered, i)
		}
	}
	e.pool = sync.Pool{New: func() any { return newTransaction(e) }}
	return e, nil
}

// Rules are the rules that are loaded, by number.
func (e *Engine) Rules() map[int]message.RuleInfo { return e.info }

// Visible reports whether a rule depends on the message and a verdict can
// depend on its firing. Verdicts name such rules in Fired whenever they fire;
// others need not be named.
func (e *Engine) Visible(id int) bool {
	for _, r := range e.rules {
		if r.id == id {
			return r.kept && r.effect && r.onMessage
		}
	}
	return false
}

// Request judges a request.
func (e *Engine) Request(m *message.Request) (message.Exchange, message.Verdict, error) {
	t := e.pool.Get().(*transaction)
	t.begin(m)
	t.resetTX()
	t.screen(e.inbound)
	if !t.dirty && !e.requestAll {
		return t, e.clean[0], nil
	}
	t.restart()
	t.evaluate(1)
	t.evaluate(2)
	return t, t.verdict(0), nil
}

// Response judges the answer.
func (t *transaction) Response(a *message.Response) (message.Verdict, error) {
	e := t.engine
	if t.denied || t.off {
		return t.cleanVerdict(1), nil
	}
	state := t.saveTX()
	t.answer(a)
	if !t.changed {
		for _, n := range e.altered {
			t.tx[n] = e.after[n]
		}
	}
	t.screen(e.outbound)
	if !t.dirty && !e.respondAll && !t.changed {
		return e.clean[1], nil
	}
	if !t.changed { // a clean request may have made exceptions for its answer
		t.restart()
		t.evaluate(1)
		t.evaluate(2)
	} else {
		t.restoreTX(state)
	}
	t.evaluate(3)
	t.keepHead()
	t.evaluate(4)
	v := t.verdict(1)
	t.more.total, t.more.hits = v.Score, v.Hits
	return v, nil
}

// resetTX puts TX to what it is after a clean request.
func (t *transaction) resetTX() {
	if !t.intact {
		copy(t.tx, t.engine.before)
		t.intact = true
		return
	}
	for _, n := range t.engine.altered {
		t.tx[n] = t.engine.before[n]
	}
}

// Close gives the transaction's memory back.
func (t *transaction) Close() {
	if t.engine == nil {
		return
	}
	e := t.engine
	t.forget()
	e.pool.Put(t)
}

// slot returns the number of a TX name, lower-case.
func (e *Engine) slot(name string) int {
	if n, ok := e.names[name]; ok {
		return n
	}
	n := len(e.slotName)
	e.names[name] = n
	e.slotName = append(e.slotName, name)
	return n
}

// nameFields notes what is known of names of header fields.
func (e *Engine) nameFields() {
	e.fields = map[string]*field{}
	enter := func(name, low string) {
		f := &field{name: name, low: low}
		for side, s := range []*screen{e.inbound, e.outbound} {
			f.classes[side] = [2]int{s.fields[seclang.RequestHeaders][low], s.fields[seclang.ResponseHeaders][low]}
		}
		e.fields[name] = f
	}
	for name, low := range e.lower {
		enter(name, low)
		enter(low, low)
	}
	e.eachField(enter)
}

// eachField calls f for each field that has a class.
func (e *Engine) eachField(f func(name, low string)) {
	for _, s := range []*screen{e.inbound, e.outbound} {
		for _, names := range s.fields {
			for name := range names {
				f(name, name)
			}
		}
	}
}

// lowered returns a key in lower case, without allocation if it is the name of
// a common field or lower-case already.
func (e *Engine) lowered(s string) string {
	plain := true
	for i := range len(s) {
		if c := s[i]; c >= 0x80 || 'A' <= c && c <= 'Z' {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	if l, ok := e.lower[s]; ok {
		return l
	}
	return strings.ToLower(s)
}

// A foreignReader is a rule that reads TX names by pattern.
type foreignReader struct {
	rule *rule
	sel  seclang.Selector
}

var _ message.Engine = (*Engine)(nil)
var _ message.Exchange = (*transaction)(nil)
