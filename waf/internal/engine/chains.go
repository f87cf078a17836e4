package engine

import (
	"math"
	"math/bits"

	"github.com/merlon-dev/merlon/waf/internal/match"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// added are the bytes that transformations may add that take others away.
var added = func() (b match.ByteSet) {
	b.Add(' ')
	b.Add('/')
	return b
}()

// follow asks the triggers of all chains that may make something of the value.
//
// Most chains leave most values as they are, but for the case of letters. For
// these nothing is worked out: the value is searched for the literals of all of
// them at once, and those of their other triggers are asked that it may meet.
func (t *transaction) follow(s *screen, cl *class, n int, p *match.ByteSet, v seclang.Variable, key string) {
	val := t.versions[0].text
	m := cl.marks(val, p)
	scan := uint64(0) // versions that may have literals
	if m.may&^m.changed&cl.wordy != 0 {
		scan = 1
	}
	t.live = t.live[:0]
	scan |= t.rework(cl, m.may&m.changed, p)
	for i := range t.versions {
		if scan&(1<<min(i, 63)) != 0 {
			t.scan(s, n, int32(i), v, key)
		}
	}
	for asks := m.asks; asks != 0; asks &= asks - 1 {
		if a := &cl.asks[bits.TrailingZeros64(asks)]; m.changed&(1<<a.chain) == 0 && a.check.spells(&t.versions[0].folded) {
			t.ask(a.check, 0, a.node, v, key)
		}
	}
	for i := 64; i < len(cl.asks); i++ {
		if a := &cl.asks[i]; m.changed&(1<<a.chain) == 0 && a.check.spells(&t.versions[0].folded) {
			t.ask(a.check, 0, a.node, v, key)
		}
	}
	for _, i := range t.live {
		ch := &cl.chains[i]
		version := t.node(ch.node).version
		for _, c := range ch.every {
			t.ask(c, version, ch.node, v, key)
		}
		if cl.direct(ch, version) {
			for _, c := range ch.wordy {
				if c.spells(&t.versions[version].folded) {
					t.ask(c, version, ch.node, v, key)
				}
			}
		}
	}
}

// rework works out what chains make of the value, notes those whose triggers
// are to be asked, and returns the versions that may have literals.
func (t *transaction) rework(cl *class, may uint64, p *match.ByteSet) (scan uint64) {
	if may == 0 && len(cl.chains) <= 64 {
		return 0
	}
	have := reach(&t.versions[0])
	note := func(i int) {
		ch := &cl.chains[i]
		if t.hopeless(ch, p, &have) {
			return
		}
		version := t.node(ch.node).version
		words := ch.words.Meets(&t.versions[version].folded)
		if len(ch.every) > 0 || words && cl.direct(ch, version) {
			t.live = append(t.live, int32(i))
		}
		if words && !cl.direct(ch, version) {
			scan |= 1 << min(version, 63)
		}
	}
	for i := range cl.groups {
		if g := &cl.groups[i]; may&g.chains != 0 && (g.tooShort(t.versions[0].text, p) || t.barren(g, p)) {
			may &^= g.chains
		}
	}
	for ; may != 0; may &= may - 1 {
		note(bits.TrailingZeros64(may))
	}
	for i := 64; i < len(cl.chains); i++ {
		note(i)
	}
	return scan
}

// direct reports whether a chain's triggers with literals are asked at once:
// so few that searching a text that only they see would cost more.
func (cl *class) direct(ch *chain, version int32) bool {
	return cl.few || version > 0 && len(ch.wordy) <= 2
}

// high reports whether a text of some bytes has any that is not ASCII.
func high(p *match.ByteSet) bool { return p[2]|p[3] != 0 }

// reach returns the bytes of all that can be made of a text by taking bytes
// away. What is not ASCII may become any other that is not.
func reach(v *version) match.ByteSet {
	have := v.folded
	have.Or(&added)
	if high(&have) {
		have[2], have[3] = ^uint64(0), ^uint64(0)
	}
	return have.Read()
}

// hopeless reports whether a chain makes nothing of a value that any trigger
// could accept, since it only takes bytes away: of the value, or of what its
// last step that changes everything has made.
func (t *transaction) hopeless(ch *chain, p, have *match.ByteSet) bool {
	if ch.cut == 0 {
		return !p.Meets(&ch.rest) && !(ch.lower && high(p)) && !ch.possible(have, ch.longest(&t.versions[0]))
	}
	return ch.endsIn(&t.versions[t.node(ch.cut).version])
}

// endsIn reports whether a chain makes nothing that any trigger could accept of
// what its last step that changes everything has made.
func (ch *chain) endsIn(made *version) bool {
	if made.bytes.Meets(&ch.rest) || ch.lower && high(&made.bytes) {
		return false
	}
	then := reach(made)
	return !ch.possible(&then, ch.longest(made))
}

// barren is hopeless for all chains of a group. A value that the steps before
// base64Decode leave as it is is decoded once for all groups.
func (t *transaction) barren(g *group, p *match.ByteSet) bool {
	if !g.decode || !g.first || p.Meets(&g.before) || p.Meets(&white) {
		return g.endsIn(&t.versions[t.node(g.cut).version])
	}
	if t.decodedIn != t.turn {
		out, _ := t.engine.nodes[g.cut].step.Apply(&t.arena, t.versions[0].text)
		p := match.Presence(out)
		t.decoded, t.decodedIn = version{text: out, bytes: p, folded: p.Read()}, t.turn
	}
	return g.endsIn(&t.decoded)
}

// longest is how long a text can be that the rest of a chain makes of another
// by taking bytes away.
func (ch *chain) longest(v *version) int {
	if high(&v.bytes) { // what is not UTF-8 may become longer
		return math.MaxInt
	}
	return len(v.text) + ch.depth
}

// possible reports whether a text of some bytes, and not longer than that, may
// have all that a trigger needs.
func (ch *chain) possible(have *match.ByteSet, longest int) bool {
	if longest < ch.least || !ch.clues.Meets(have) {
		return false
	}
	if len(ch.all) > 8 {
		return true
	}
	for _, c := range ch.all {
		if longest >= c.least && c.clue.Meets(have) && c.meets(have) && c.spells(have) {
			return true
		}
	}
	return false
}

// meets reports whether a text of some bytes has what a trigger needs.
func (c *check) meets(have *match.ByteSet) bool {
	for i := range c.needs {
		if !c.needs[i].Meets(have) {
			return false
		}
	}
	return true
}

// spells reports whether a text of some bytes may have any of a trigger's
// literals.
func (c *check) spells(have *match.ByteSet) bool {
	for i := range c.words {
		if c.words[i].Within(have) {
			return true
		}
	}
	return c.words == nil
}
