package match

import "regexp/syntax"

// Tree is the pattern's syntax tree.
func (r *Regexp) Tree() *syntax.Regexp {
	tree, err := r.parse()
	if err != nil {
		panic(err)
	}
	return tree
}

// HasDFA tells whether the pattern is small enough for an automaton.
func (r *Regexp) HasDFA() bool { return r.dfa != nil }

// MaxSize is the most that the states of an automaton take.
const MaxSize = maxRowBytes + maxKeyBytes

// Size is the bytes that the states of the automaton take.
func (r *Regexp) Size() int {
	t := r.dfa.cur.Load()
	return len(t.next)*4 + t.size
}
