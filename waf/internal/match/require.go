package match

import (
	"regexp/syntax"
	"unicode/utf8"
)

// A Requirement is what a text must hold to be matched by a pattern: a text
// that does not keep it is not matched, one that keeps it may be or not.
type Requirement struct {
	// Literals, in small letters where they are ASCII: every text that is
	// matched has one of them in it, once it is folded ([Fold]) and its ASCII
	// letters are small. Nil if none are known.
	Literals []string
	// Needs, the rarest first and at most four: every text that is matched has
	// a byte of each of these sets, before and after folding. The sets hold both
	// cases of a letter or none.
	Needs []ByteSet
	// Least is how many bytes every text that is matched has at least. Folding
	// may leave fewer of them.
	Least int
	// Bytes: the pattern reads bytes, so the Literals must be looked for in the
	// text as it is. Folding could take two bytes of it for a letter.
	Bytes bool
}

// A deriver finds what a pattern requires, by induction on its syntax tree.
//
// The texts it speaks of are folded: what a node matches is the concatenation
// of its characters' encodings, with U+017F as s, U+212A as k and ASCII
// letters small. Folding maps character by character, also in texts that are
// not valid UTF-8, so what holds for the pieces of a match holds for their
// concatenation, and what a match holds the text holds.
type deriver struct {
	bytes bool // characters are single bytes
}

// maxCost is from where on literals are so likely met that it is no use to
// look for them.
const maxCost = .02

func requirement(tree *syntax.Regexp, bytes bool) Requirement {
	d := deriver{bytes}
	lits := minimal(d.derive(tree).required())
	if cost(lits) > maxCost {
		lits = nil
	}
	return Requirement{
		Literals: lits,
		Needs:    d.needed(tree),
		Least:    least(tree),
		Bytes:    bytes,
	}
}

func (d deriver) derive(n *syntax.Regexp) knowledge {
	switch n.Op {
	case syntax.OpNoMatch:
		return known()
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText,
		syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return known("")
	case syntax.OpLiteral:
		return d.literal(n)
	case syntax.OpCharClass:
		return d.class(n.Rune)
	case syntax.OpCapture:
		return d.derive(n.Sub[0])
	case syntax.OpQuest:
		return maybe(d.derive(n.Sub[0]))
	case syntax.OpPlus:
		return atLeast(d.derive(n.Sub[0]), 1)
	case syntax.OpRepeat:
		return d.repeat(n)
	case syntax.OpConcat:
		return concat(d.each(n.Sub))
	case syntax.OpAlternate:
		return alternate(d.each(n.Sub))
	}
	return anything // any character; any number of times
}

func (d deriver) each(nodes []*syntax.Regexp) []knowledge {
	parts := make([]knowledge, len(nodes))
	for i, n := range nodes {
		parts[i] = d.derive(n)
	}
	return parts
}

// literal is a concatenation of characters.
func (d deriver) literal(n *syntax.Regexp) knowledge {
	var parts []knowledge
	plain := ""
	for _, r := range n.Rune {
		k := d.class(orbit(r, n.Flags&syntax.FoldCase != 0))
		if len(k.exact) == 1 {
			plain += k.exact[0]
			continue
		}
		parts = append(parts, known(plain), k)
		plain = ""
	}
	if len(parts) == 0 {
		return known(plain)
	}
	return concat(append(parts, known(plain)))
}

// maxClass is how many characters of a class are told one by one.
const maxClass = 64

func (d deriver) class(ranges []rune) knowledge {
	n := 0
	for i := 0; i < len(ranges); i += 2 {
		n += int(ranges[i+1]-ranges[i]) + 1
	}
	if n > maxClass {
		return anything
	}
	var set []string
	for i := 0; i < len(ranges); i += 2 {
		for r := ranges[i]; r <= ranges[i+1]; r++ {
			switch {
			case d.bytes && r > 0xFF: // no byte is this
			case d.bytes:
				set = append(set, string([]byte{byte(foldRune(r, true))}))
			case r == utf8.RuneError: // any invalid byte is this, too
				return anything
			default:
				set = append(set, string(foldRune(r, false)))
			}
		}
	}
	return known(set...)
}

// foldRune is what r is once a text is folded and its letters are small.
func foldRune(r rune, bytes bool) rune {
	switch {
	case r < utf8.RuneSelf:
		return rune(lowerByte(byte(r)))
	case !bytes && r == 'ſ':
		return 's'
	case !bytes && r == '\u212A':
		return 'k'
	}
	return r
}

func (d deriver) repeat(n *syntax.Regexp) knowledge {
	switch {
	case n.Max == 0:
		return known("")
	case n.Min == 0 && n.Max == 1:
		return maybe(d.derive(n.Sub[0]))
	case n.Min == 0:
		return anything
	}
	k := d.derive(n.Sub[0])
	if n.Max != n.Min || n.Min > maxLiteral {
		return atLeast(k, min(n.Min, maxLiteral))
	}
	return concat(times(k, n.Min))
}
