package match

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
)

// A walker walks through an nfa, to find the states of a dfa.
//
// A state is the set of instructions that wait for the next character, and
// what was before where that matters still. A text may be matched from
// anywhere, so the first instruction is taken at every character. Anchors
// that depend on the next character wait for it, too.
type walker struct {
	*nfa
	anchored bool     // from the second character on the first instruction leads nowhere
	marks    []uint32 // of each instruction the last walk that came to it
	walks    uint32
	stack    []uint32
	set      []uint32
	seeds    []uint32
}

// behind are the anchors that depend on what was before only.
const behind = syntax.EmptyBeginLine | syntax.EmptyBeginText

func newWalker(n *nfa) walker {
	w := walker{nfa: n, marks: make([]uint32, len(n.insts)), anchored: true}
	for _, k := range []kind{newline, word, other} {
		w.seeds = append(w.seeds[:0], n.start)
		if w.settle(k) || len(w.set) > 0 {
			w.anchored = false
		}
	}
	return w
}

// first is the key of the state before the text, or matched.
func (w *walker) first() (key string, to int32) {
	w.seeds = append(w.seeds[:0], w.start)
	if w.settle(edge) {
		return "", matched
	}
	return w.key(edge), unknown
}

// after is the key of the state behind a character of class, or behind the
// text, coming from the state that key means; or it is matched or dead.
func (w *walker) after(key string, class int, end bool) (string, int32) {
	before := w.read(key)
	now := edge
	if !end {
		now = w.kinds[class]
	}
	if w.waits() {
		holds := syntax.EmptyOpContext(before.sample(), now.sample())
		w.seeds = append(w.seeds[:0], w.set...)
		if w.close(holds, 0) {
			return "", matched
		}
	}
	if end {
		return "", dead
	}
	w.seeds = w.seeds[:0]
	for _, pc := range w.set {
		if in := &w.insts[pc]; in.op == opClass && w.has(in.set, class) {
			w.seeds = append(w.seeds, in.out)
		}
	}
	w.seeds = append(w.seeds, w.start)
	if w.settle(now) {
		return "", matched
	}
	if w.anchored && len(w.set) == 0 {
		return "", dead
	}
	return w.key(now), unknown
}

// settle is close where the next character is not known yet.
func (w *walker) settle(before kind) bool {
	holds := syntax.EmptyOpContext(before.sample(), other.sample()) & behind
	return w.close(holds, ^behind)
}

// close fills the set with the instructions that wait for a character and can
// be reached from the seeds without one, with the anchors in holds. Those with
// an anchor in open wait as well. It tells whether the text is matched.
func (w *walker) close(holds, open syntax.EmptyOp) bool {
	if w.walks++; w.walks == 0 { // the numbers of walks begin anew
		clear(w.marks)
		w.walks = 1
	}
	w.set = w.set[:0]
	w.stack = append(w.stack[:0], w.seeds...)
	for len(w.stack) > 0 {
		pc := w.stack[len(w.stack)-1]
		w.stack = w.stack[:len(w.stack)-1]
		if w.marks[pc] == w.walks {
			continue
		}
		w.marks[pc] = w.walks
		switch in := &w.insts[pc]; {
		case in.op == opMatch:
			return true
		case in.op == opAlt:
			w.stack = append(w.stack, in.arg, in.out)
		case in.op == opEmpty && in.empty&open == 0:
			if in.empty&^holds == 0 {
				w.stack = append(w.stack, in.out)
			}
		case in.op == opEmpty, in.op == opClass:
			w.set = append(w.set, pc)
		}
	}
	return false
}

// waits tells whether an anchor waits in the set.
func (w *walker) waits() bool {
	return slices.ContainsFunc(w.set, func(pc uint32) bool { return w.insts[pc].op == opEmpty })
}

// key writes the set down, sorted, and what was before if an anchor asks.
func (w *walker) key(before kind) string {
	if !w.waits() {
		before = other
	}
	slices.Sort(w.set)
	b := append(make([]byte, 0, 2*len(w.set)+1), byte(before))
	last := uint32(0)
	for _, pc := range w.set {
		b = binary.AppendUvarint(b, uint64(pc-last))
		last = pc
	}
	return string(b)
}

// read fills the set with what key wrote.
func (w *walker) read(key string) (before kind) {
	w.set = w.set[:0]
	at, shift, pc := uint32(0), 0, uint32(0)
	for _, c := range []byte(key[1:]) {
		at |= uint32(c&0x7F) << shift
		if shift += 7; c < 0x80 {
			pc += at
			w.set = append(w.set, pc)
			at, shift = 0, 0
		}
	}
	return kind(key[0])
}
