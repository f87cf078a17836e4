package engine

import (
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
	"github.com/merlon-dev/merlon/waf/internal/transform"
)

// more is what a transaction remembers of an answer whose beginning has been
// judged while the rest of it is.
type more struct {
	head  headState
	kept  bool            // head is set: rules have been evaluated
	begun bool            // a further piece has been judged
	free  bool            // a rule allowed the answer
	arena transform.Arena // of one piece
	spent []uint64        // rules that have had their say, or cannot be asked about a piece
	base  int             // what phase 4 scores without any body; negative if not known yet
	total int             // the score of the whole answer so far
	hits  []message.Hit
}

// headState is what the rules have made of an answer's head, in phase 3.
type headState struct {
	tx          []value
	extra       []entry
	removed     []uint64
	cuts        int
	allowed     allowance
	off, detect bool
	severity    string
}

func (m *more) forget() {
	if !m.kept && !m.begun {
		return
	}
	clear(m.head.tx)
	clear(m.head.extra)
	m.arena.Reset()
	*m = more{
		head:  headState{tx: m.head.tx[:0], extra: m.head.extra[:0], removed: m.head.removed[:0]},
		arena: m.arena, spent: m.spent[:0],
	}
}

// keepHead is called between phases 3 and 4.
func (t *transaction) keepHead() {
	h := &t.more.head
	h.tx = append(h.tx[:0], t.tx...)
	h.extra = append(h.extra[:0], t.extra...)
	h.removed = append(h.removed[:0], t.removed...)
	h.cuts, h.allowed, h.off, h.detect = len(t.cuts), t.allowed, t.off, t.detect
	h.severity = t.scalar[seclang.HighestSeverity]
	t.more.kept = true
}

// backToHead forgets what phase 4 has done.
func (t *transaction) backToHead() {
	h := &t.more.head
	copy(t.tx, h.tx)
	t.extra = append(t.extra[:0], h.extra...)
	copy(t.removed, h.removed)
	for i, b := range t.more.spent {
		t.removed[i] |= b
	}
	t.cuts = t.cuts[:h.cuts]
	t.allowed, t.off, t.detect = h.allowed, h.off, h.detect
	t.scalar[seclang.HighestSeverity] = h.severity
	clear(t.fired)
	clear(t.spots)
	t.fired, t.spots = t.fired[:0], t.spots[:0]
	t.matched = t.matched[:0]
	t.matchedVar, t.matchedName = "", ""
	t.denied, t.by = false, 0
}

// More judges a further piece of the answer's body by the rules of phase 4, as
// if it were the body; what they said of the head stands. A rule scores once
// in an answer, in whichever piece it matches first, so that pieces score
// together what the body would in one. Rules whose condition makes sense for a
// whole body only, such as one that must not contain something, are not asked.
// Nothing of the piece is kept.
func (t *transaction) More(piece []byte) (message.Verdict, error) {
	e, m := t.engine, &t.more
	if !m.begun {
		t.beginMore()
	}
	if m.free || t.denied || t.off {
		return message.Verdict{Score: m.total, Threshold: e.clean[1].Threshold}, nil
	}
	if !m.kept {
		t.extra = t.extra[:0]
		copy(t.tx, e.after)
		t.intact = false
		if t.alone(func() { t.screenPiece(text(piece)) }); !t.dirty && !e.respondAll {
			return e.clean[1], nil
		}
		t.restart() // as Response does
		for phase := 1; phase <= 3; phase++ {
			t.evaluate(phase)
		}
		t.keepHead()
	}
	var v message.Verdict
	t.alone(func() {
		if m.base < 0 {
			m.base = t.judgePiece("").Score
		}
		v = t.addUp(t.judgePiece(text(piece)))
	})
	t.backToHead() // nothing in it points at the piece
	return v, nil
}

// alone lets f look at a piece, and gives all memory that it takes back.
func (t *transaction) alone(f func()) {
	whole := t.scalar[seclang.ResponseBody]
	t.arena, t.more.arena = t.more.arena, t.arena
	t.asked = asked{}
	f()
	t.asked = asked{} // what it points to changes
	t.arena.Reset()
	t.arena, t.more.arena = t.more.arena, t.arena
	t.scalar[seclang.ResponseBody] = whole
}

// beginMore takes over what was found in the beginning.
func (t *transaction) beginMore() {
	m := &t.more
	m.begun, m.base = true, -1
	if !m.kept {
		m.total = t.engine.clean[1].Score
	}
	m.spent = append(m.spent[:0], t.engine.indivisible...)
	m.free = t.spend()
}

// spend notes which rules have scored, and tells whether one of them allows the
// answer.
func (t *transaction) spend() (free bool) {
	for _, f := range t.fired {
		r := f.rule
		if r.Phase != 4 {
			continue
		}
		free = free || r.Disruptive == seclang.Allow
		if r.readsAnswer() && r.counts() {
			t.more.spent[r.index/64] |= 1 << (r.index % 64)
		}
	}
	return free
}

// screenPiece finds the candidates as if the piece were the body.
func (t *transaction) screenPiece(piece string) {
	t.screening.forget()
	t.scalar[seclang.ResponseBody] = piece
	t.screen(t.engine.outbound)
}

// judgePiece evaluates phase 4 on a piece, after the head alone.
func (t *transaction) judgePiece(piece string) message.Verdict {
	t.backToHead()
	for _, n := range t.engine.late {
		t.tx[n] = t.engine.after[n]
	}
	t.screenPiece(piece)
	copy(t.tx, t.more.head.tx)
	t.evaluate(4)
	return t.verdict(1)
}

// addUp words the verdict about the answer so far.
func (t *transaction) addUp(v message.Verdict) message.Verdict {
	m := &t.more
	m.free = t.spend()
	m.total += max(0, v.Score-m.base)
	for _, h := range v.Hits {
		if !slices.ContainsFunc(m.hits, func(o message.Hit) bool { return o.Rule == h.Rule }) {
			m.hits = append(m.hits, h)
		}
	}
	v.Score = max(v.Score, m.total)
	if !m.free && !t.detect && !t.off && v.Threshold > 0 && m.total >= v.Threshold {
		v.Deny = true
	}
	if v.Deny {
		v.Hits = slices.Clone(m.hits)
	}
	return v
}

// readsAnswer reports whether a rule looks at the answer's body.
func (r *rule) readsAnswer() bool {
	return slices.ContainsFunc(r.links, func(l *link) bool {
		return slices.ContainsFunc(l.targets, func(g target) bool { return ofAnswer(g.Var) })
	})
}

// counts reports whether a rule adds to a variable.
func (r *rule) counts() bool {
	return slices.ContainsFunc(r.links, func(l *link) bool {
		return slices.ContainsFunc(l.sets, func(s setVar) bool {
			return len(s.value) > 0 && (strings.HasPrefix(s.value[0].Text, "+") || strings.HasPrefix(s.value[0].Text, "-"))
		})
	})
}

// divisible reports whether a rule that a piece of an answer's body fulfils is
// fulfilled by the whole as well, so that pieces can be judged by it.
func (r *rule) divisible() bool {
	for _, l := range r.links {
		for i := range l.targets {
			if g := &l.targets[i]; g.Var != seclang.ResponseBody || g.Count {
				continue
			}
			switch {
			case l.negated || slices.ContainsFunc(l.steps, func(s step) bool { return slices.Contains(ofWholes, strings.ToLower(s.Name)) }):
				return false
			case l.Op != nil && !slices.Contains(searching, l.Op.Name):
				return false
			}
		}
	}
	return true
}

// searching operators look for something anywhere in a value.
var searching = []string{"rx", "pm", "pmFromFile", "contains", "strmatch", "detectSQLi", "detectXSS", "validateByteRange", "unconditionalMatch", "noMatch"}

// ofWholes are transformations that say something of the whole value.
var ofWholes = []string{"length", "md5", "sha1"}

// indivisibleRules are those that are asked about whole bodies only.
func (e *Engine) indivisibleRules() []uint64 {
	set := make([]uint64, (len(e.rules)+63)/64)
	for _, r := range e.rules {
		if !r.divisible() {
			set[r.index/64] |= 1 << (r.index % 64)
		}
	}
	return set
}

var _ message.Continuer = (*transaction)(nil)
