package match

import (
	"cmp"
	"math/bits"
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

const (
	maxNeeds = 4
	// A set that is met by a character more likely than this is no help.
	maxLikely = .25
)

// needed is the byte sets of which every match has a byte each, at most
// maxNeeds, the rarest first.
func (d deriver) needed(tree *syntax.Regexp) []ByteSet {
	var all []ByteSet
	for _, n := range d.needs(tree) {
		if n.likelihood() <= maxLikely {
			all = append(all, n)
		}
	}
	return all
}

// needs is needed by the node, by induction like [deriver.derive].
func (d deriver) needs(n *syntax.Regexp) []ByteSet {
	switch n.Op {
	case syntax.OpLiteral:
		var all []ByteSet
		for _, r := range n.Rune {
			all = append(all, d.bytesOf(orbit(r, n.Flags&syntax.FoldCase != 0)))
		}
		return rarest(all)
	case syntax.OpCharClass:
		return []ByteSet{d.bytesOf(n.Rune)}
	case syntax.OpCapture, syntax.OpPlus:
		return d.needs(n.Sub[0])
	case syntax.OpRepeat:
		if n.Min > 0 {
			return d.needs(n.Sub[0])
		}
	case syntax.OpConcat:
		var all []ByteSet
		for _, sub := range n.Sub {
			all = append(all, d.needs(sub)...)
		}
		return rarest(all)
	case syntax.OpAlternate:
		return d.either(n.Sub)
	}
	return nil
}

// either is what one or another of the nodes needs: a byte of a set of the
// first or of a set of the second, and so on, whichever sets are taken.
func (d deriver) either(nodes []*syntax.Regexp) []ByteSet {
	all := make([]ByteSet, maxNeeds)
	for _, n := range nodes {
		own := d.needs(n)
		if len(own) == 0 {
			return nil
		}
		for i := range all {
			all[i].Or(&own[min(i, len(own)-1)])
		}
	}
	return rarest(all)
}

// rarest returns the rarest sets in order, without those that hold another
// whole: who has a byte of that has a byte of them, too.
func rarest(all []ByteSet) []ByteSet {
	type weighed struct {
		set    *ByteSet
		weight float64
	}
	list := make([]weighed, len(all))
	for i := range all {
		list[i] = weighed{&all[i], all[i].likelihood()}
	}
	slices.SortStableFunc(list, func(a, b weighed) int { return cmp.Compare(a.weight, b.weight) })
	var few []ByteSet
	for _, w := range list {
		if len(few) < maxNeeds && !slices.ContainsFunc(few, func(f ByteSet) bool { return f.Within(w.set) }) {
			few = append(few, *w.set)
		}
	}
	return few
}

// likelihood is about how likely it is that a character is in the set.
func (b *ByteSet) likelihood() float64 {
	total := 0.0
	for i, w := range b {
		for ; w != 0; w &= w - 1 {
			total += likelihood(byte(i<<6 | bits.TrailingZeros64(w)))
		}
	}
	return total
}

// orbit is the ranges of the runes that r stands for.
func orbit(r rune, fold bool) []rune {
	ranges := []rune{r, r}
	if fold {
		for o := unicode.SimpleFold(r); o != r; o = unicode.SimpleFold(o) {
			ranges = append(ranges, o, o)
		}
	}
	return ranges
}

// bytesOf is a set of bytes of which every text has one that is a character
// of the ranges, before and after folding, closed under ASCII case.
func (d deriver) bytesOf(ranges []rune) ByteSet {
	var b ByteSet
	for i := 0; i < len(ranges); i += 2 {
		lo, hi := ranges[i], ranges[i+1]
		if d.bytes {
			b.addLatin1(lo, hi)
		} else {
			b.addUTF8(lo, hi)
		}
	}
	return b.Folded()
}

// addLatin1 puts the bytes from lo to hi into the set, and what folding could
// make of them.
func (b *ByteSet) addLatin1(lo, hi rune) {
	if lo > 0xFF {
		return
	}
	b.AddRange(byte(lo), byte(min(hi, 0xFF)))
	for i := range len(longS) {
		if b.Has(longS[i]) {
			b.Add('s')
		}
	}
	for i := range len(kelvin) {
		if b.Has(kelvin[i]) {
			b.Add('k')
		}
	}
}

// addUTF8 puts the first bytes of the characters from lo to hi into the set.
func (b *ByteSet) addUTF8(lo, hi rune) {
	if lo < utf8.RuneSelf {
		b.AddRange(byte(lo), byte(min(hi, utf8.RuneSelf-1)))
		lo = utf8.RuneSelf
	}
	if 0xD800 <= lo && lo <= 0xDFFF {
		lo = 0xE000 // no text has a surrogate
	}
	if lo > hi {
		return
	}
	// First bytes rise with the characters.
	b.AddRange(string(lo)[0], string(hi)[0])
	if lo <= utf8.RuneError && utf8.RuneError <= hi {
		b.AddRange(utf8.RuneSelf, 0xFF) // any invalid byte
	}
	if lo <= 'ſ' && 'ſ' <= hi {
		b.Add('s')
	}
	if lo <= '\u212A' && '\u212A' <= hi {
		b.Add('k')
	}
}

// maxLeast bounds what least says, so that repetitions in repetitions cannot
// make it overflow.
const maxLeast = 1 << 16

// least is how many characters every match has at least, each of which is a
// byte or more.
func least(n *syntax.Regexp) int {
	sum := 0
	switch n.Op {
	case syntax.OpLiteral:
		sum = len(n.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		sum = 1
	case syntax.OpCapture, syntax.OpPlus:
		sum = least(n.Sub[0])
	case syntax.OpRepeat:
		sum = n.Min * least(n.Sub[0])
	case syntax.OpConcat:
		for _, sub := range n.Sub {
			sum = min(sum+least(sub), maxLeast)
		}
	case syntax.OpAlternate:
		sum = least(n.Sub[0])
		for _, sub := range n.Sub[1:] {
			sum = min(sum, least(sub))
		}
	}
	return min(sum, maxLeast)
}
