package traffic

import (
	"math/rand/v2"
	"regexp/syntax"
	"unicode"
	"unicode/utf8"
)

// Member is a text that a pattern matches, but for its anchors; empty if the
// pattern cannot be read.
func Member(r *rand.Rand, pattern string) string {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return ""
	}
	m := member{r, nil}
	m.walk(tree)
	return string(m.out)
}

type member struct {
	*rand.Rand
	out []byte
}

func (m *member) walk(n *syntax.Regexp) {
	if len(m.out) > 1000 {
		return
	}
	switch n.Op {
	case syntax.OpLiteral:
		for _, c := range n.Rune {
			if n.Flags&syntax.FoldCase != 0 && m.IntN(3) == 0 {
				c = unicode.SimpleFold(c)
			}
			m.out = utf8.AppendRune(m.out, c)
		}
	case syntax.OpCharClass:
		if len(n.Rune) > 0 {
			i := m.IntN(len(n.Rune)/2) * 2
			m.out = utf8.AppendRune(m.out, n.Rune[i]+m.Int32N(min(n.Rune[i+1]-n.Rune[i], 90)+1))
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		m.out = append(m.out, choose(m.Rand, " ", "a", "e", "_", "0", "-", "é")...)
	case syntax.OpCapture, syntax.OpConcat:
		for _, sub := range n.Sub {
			m.walk(sub)
		}
	case syntax.OpAlternate:
		m.walk(n.Sub[m.IntN(len(n.Sub))])
	case syntax.OpStar, syntax.OpQuest, syntax.OpPlus, syntax.OpRepeat:
		for range m.times(n) {
			m.walk(n.Sub[0])
		}
	}
}

// times is a number of repetitions that n allows, mostly few.
func (m *member) times(n *syntax.Regexp) int {
	lo, hi := n.Min, n.Max
	switch n.Op {
	case syntax.OpStar:
		lo, hi = 0, -1
	case syntax.OpPlus:
		lo, hi = 1, -1
	case syntax.OpQuest:
		lo, hi = 0, 1
	}
	if hi < 0 || hi > lo+3 {
		hi = lo + 3
	}
	return lo + m.IntN(hi-lo+1)
}
