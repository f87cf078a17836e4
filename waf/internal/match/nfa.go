package match

import (
	"errors"
	"regexp/syntax"
)

// An nfa is a program of regexp/syntax made small: characters that no
// instruction tells apart are one class, and what only captures is left out.
type nfa struct {
	classes
	insts []inst
	start uint32
}

// An inst is one instruction.
type inst struct {
	op    instOp
	empty syntax.EmptyOp // of opEmpty
	set   uint16         // of opClass: the set of classes
	out   uint32
	arg   uint32
}

type instOp uint8

const (
	opFail  instOp = iota
	opMatch        // the text is matched
	opAlt          // go on at out and at arg
	opEmpty        // go on at out if empty holds here
	opClass        // go on at out behind a character of set
)

// maxInsts bounds an nfa: a pattern that needs more is left to regexp.
const maxInsts = 20000

var errTooLarge = errors.New("too large")

func newNFA(tree *syntax.Regexp, bytes bool) (*nfa, error) {
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	if len(prog.Inst) > maxInsts {
		return nil, errTooLarge
	}
	n := &nfa{insts: make([]inst, len(prog.Inst)), start: skip(prog, uint32(prog.Start))}
	p := partition{numbers: make(map[string]uint16)}
	for i := range prog.Inst {
		from, to := &prog.Inst[i], &n.insts[i]
		to.out = skip(prog, from.Out)
		switch from.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			to.op, to.arg = opAlt, skip(prog, from.Arg)
		case syntax.InstEmptyWidth:
			to.op, to.empty = opEmpty, syntax.EmptyOp(from.Arg)
			p.empty |= to.empty
		case syntax.InstMatch:
			to.op = opMatch
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			to.op, to.set = opClass, p.add(charsOf(from))
		}
	}
	n.classes, err = p.classes(bytes)
	return n, err
}

// skip is the first instruction from i on that does more than go on.
func skip(prog *syntax.Prog, i uint32) uint32 {
	// No program goes round in a circle of these: a loop has an Alt.
	for prog.Inst[i].Op == syntax.InstCapture || prog.Inst[i].Op == syntax.InstNop {
		i = prog.Inst[i].Out
	}
	return i
}

// charsOf is the ranges of the characters that an instruction matches.
func charsOf(in *syntax.Inst) []rune {
	if len(in.Rune) == 1 {
		return orbit(in.Rune[0], syntax.Flags(in.Arg)&syntax.FoldCase != 0)
	}
	return in.Rune
}
