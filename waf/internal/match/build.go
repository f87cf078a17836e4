package match

import (
	"cmp"
	"slices"
	"strings"
)

// maxTable is how many entries the rows of an Automaton have together, four
// bytes each.
const maxTable = 1 << 19

// NewAutomaton makes an Automaton. The literal i has the number i; an empty
// one is never found.
func NewAutomaton(literals []string) *Automaton {
	a := &Automaton{}
	words := a.sortWords(literals)
	a.classify(words)
	a.grow(words)
	a.link()
	a.fill(a.choose(maxTable / int(a.width)))
	return a
}

// sortWords returns the different literals in order, folded, and notes the
// numbers of each.
func (a *Automaton) sortWords(literals []string) []string {
	type numbered struct {
		text string
		num  int32
	}
	var all []numbered
	for i, l := range literals {
		if l != "" {
			all = append(all, numbered{lower(l), int32(i)})
		}
	}
	slices.SortFunc(all, func(x, y numbered) int {
		return cmp.Or(strings.Compare(x.text, y.text), cmp.Compare(x.num, y.num))
	})
	var words []string
	for i, l := range all {
		if i == 0 || l.text != all[i-1].text {
			words = append(words, l.text)
			a.first = append(a.first, int32(i))
		}
		a.nums = append(a.nums, l.num)
	}
	a.first = append(a.first, int32(len(all)))
	return words
}

// lower returns s with its capital ASCII letters made small.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = lowerByte(c)
	}
	return string(b)
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// classify gives every byte that occurs in the words a class of its own, and
// all others the class 0.
func (a *Automaton) classify(words []string) {
	var used ByteSet
	for _, w := range words {
		for i := 0; i < len(w); i++ {
			used.Add(w[i])
		}
	}
	a.width = 1
	for c := range 256 {
		if used.Has(byte(c)) {
			a.class[c] = uint8(a.width)
			a.width++
		}
	}
	for c := 'A'; c <= 'Z'; c++ {
		a.class[c] = a.class[c+'a'-'A']
	}
}

// grow makes the states, those nearer to the root first and the children of
// each beside each other, and notes for each the word that it is, or none.
func (a *Automaton) grow(words []string) {
	// A state is the words from lo to hi, which begin with the same depth bytes.
	type state struct{ lo, hi, depth int }
	queue := []state{{0, len(words), 0}}
	a.label = []uint8{0}
	for i := 0; i < len(queue); i++ {
		s := queue[i]
		a.child = append(a.child, uint32(len(queue)))
		end := int32(none)
		if s.lo < s.hi && len(words[s.lo]) == s.depth { // the shortest is the first
			end = int32(s.lo)
			s.lo++
		}
		a.word = append(a.word, end)
		for s.lo < s.hi {
			c, hi := words[s.lo][s.depth], s.lo+1
			for hi < s.hi && words[hi][s.depth] == c {
				hi++
			}
			a.label = append(a.label, a.class[c])
			queue = append(queue, state{s.lo, hi, s.depth + 1})
			s.lo = hi
		}
	}
	a.child = append(a.child, uint32(len(queue)))
}

// link finds for every state the longest other state that it ends with, and
// the words that end in it. States nearer to the root have lower numbers, so
// what it asks for is there.
func (a *Automaton) link() {
	a.fail = make([]uint32, len(a.label))
	a.next = make([]int32, len(a.first)-1)
	for s := range uint32(len(a.label)) {
		for k := a.child[s]; k < a.child[s+1]; k++ {
			if s != 0 {
				a.fail[k] = a.suffix(a.fail[s], a.label[k])
			}
		}
		if s == 0 {
			continue
		}
		rest := a.word[a.fail[s]]
		if w := a.word[s]; w != none {
			a.next[w] = rest
		} else {
			a.word[s] = rest
		}
	}
}

// suffix is where c leads from s or, if nowhere, from the longest state that s
// ends with and that c leads on from.
func (a *Automaton) suffix(s uint32, c uint8) uint32 {
	for {
		for k := a.child[s]; k < a.child[s+1]; k++ {
			if a.label[k] == c {
				return k
			}
		}
		if s == 0 {
			return 0
		}
		s = a.fail[s]
	}
}

// choose gives rows to the states that ordinary text comes to most, and
// returns those in order.
func (a *Automaton) choose(rows int) (chosen []uint32) {
	likely := make([]float64, len(a.label))
	likely[0] = 1
	var byClass [256]float64
	for c := range 256 {
		byClass[a.class[c]] += likelihood(byte(c))
	}
	for s := range a.label {
		for k := a.child[s]; k < a.child[s+1]; k++ {
			likely[k] = likely[s] * byClass[a.label[k]]
		}
	}
	// A state is not more likely than the one that it ends with, so that has a
	// row, too: see fill. Those that are likely stand together.
	byLikelihood := make([]uint32, len(likely))
	for s := range byLikelihood {
		byLikelihood[s] = uint32(s)
	}
	slices.SortStableFunc(byLikelihood, func(s, o uint32) int { return cmp.Compare(likely[o], likely[s]) })
	chosen = byLikelihood[:min(rows, len(likely))]
	a.row = slices.Repeat([]uint32{uint32(len(chosen)) * a.width}, len(a.label))
	a.limit = uint32(len(chosen)) * a.width
	for i, s := range chosen {
		a.row[s] = uint32(i) * a.width
	}
	slices.Sort(chosen)
	return chosen
}

// fill makes the rows of the table.
func (a *Automaton) fill(chosen []uint32) {
	a.table = make([]uint32, a.limit)
	for _, s := range chosen {
		row := a.table[a.row[s]:][:a.width]
		if s != 0 {
			copy(row, a.table[a.row[a.fail[s]]:])
		}
		for k := a.child[s]; k < a.child[s+1]; k++ {
			row[a.label[k]] = a.entry(k)
		}
	}
}
