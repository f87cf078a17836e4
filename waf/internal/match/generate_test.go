package match_test

import (
	"math/rand/v2"
	"regexp/syntax"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A generator makes texts that a pattern matches, but for its anchors.
type generator struct {
	*rand.Rand
	bytes bool // characters are bytes
	out   []byte
}

func (g *generator) member(tree *syntax.Regexp) string {
	g.out = g.out[:0]
	g.walk(tree)
	return string(g.out)
}

func (g *generator) walk(n *syntax.Regexp) {
	if len(g.out) > 1500 {
		return
	}
	switch n.Op {
	case syntax.OpLiteral:
		for _, r := range n.Rune {
			if n.Flags&syntax.FoldCase != 0 {
				for range g.IntN(4) {
					r = unicode.SimpleFold(r)
				}
			}
			g.char(r)
		}
	case syntax.OpCharClass:
		if len(n.Rune) > 0 {
			i := g.IntN(len(n.Rune)/2) * 2
			span := min(n.Rune[i+1]-n.Rune[i], 300)
			g.char(n.Rune[i] + g.Int32N(span+1))
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		g.out = append(g.out, g.pick(" ", "a", "S", "_", "0", "\n", "\x80", "\xff", "é", "ſ", "\u212a", "\ufffd", "漢", "\r", "'", "\xe2\x84")...)
	case syntax.OpBeginLine, syntax.OpEndLine:
		if g.IntN(4) == 0 {
			g.out = append(g.out, '\n')
		}
	case syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		if g.IntN(6) == 0 {
			g.out = append(g.out, g.pick(" ", "a", "é", "\xff")...)
		}
	case syntax.OpCapture, syntax.OpConcat:
		for _, sub := range n.Sub {
			g.walk(sub)
		}
	case syntax.OpAlternate:
		g.walk(n.Sub[g.IntN(len(n.Sub))])
	case syntax.OpStar, syntax.OpQuest, syntax.OpPlus, syntax.OpRepeat:
		for range g.times(n) {
			g.walk(n.Sub[0])
		}
	}
}

// times is a number of repetitions that n allows, mostly the fewest or one
// more.
func (g *generator) times(n *syntax.Regexp) int {
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
	return lo + g.IntN(hi-lo+1)
}

func (g *generator) char(r rune) {
	if g.bytes && r <= 0xFF {
		g.out = append(g.out, byte(r))
	} else {
		g.out = utf8.AppendRune(g.out, r)
	}
}

func (g *generator) pick(from ...string) string { return from[g.IntN(len(from))] }

// mutate changes a text a little, or puts something around it.
func (g *generator) mutate(s string) string {
	b := []byte(s)
	for range g.IntN(3) {
		at := g.IntN(len(b) + 1)
		switch g.IntN(6) {
		case 0:
			b = append(b[:at:at], append([]byte(g.pick(" ", "x", "\n", "\x00", "\xff", "ſ", "\u212a", "é", "/", "\xe2")), b[at:]...)...)
		case 1:
			if at < len(b) {
				b = append(b[:at:at], b[at+1:]...)
			}
		case 2:
			if at < len(b) {
				b[at] ^= 1 << g.IntN(8)
			}
		case 3:
			if at < len(b) && ('a' <= b[at]|0x20 && b[at]|0x20 <= 'z') {
				b[at] ^= 0x20
			}
		case 4:
			b = append(b[:at:at], []byte(strings.NewReplacer("s", "ſ", "k", "\u212a").Replace(string(b[at:])))...)
		case 5:
			b = append([]byte(g.pick("foo ", "\n", "_", "\x80", "é")), append(b, g.pick(" bar", "\n", "_", "\xc5", "é")...)...)
		}
	}
	return string(b)
}
