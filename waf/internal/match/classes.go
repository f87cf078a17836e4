package match

import (
	"regexp/syntax"
	"slices"
	"sort"
	"unicode/utf8"
)

// classes are the classes of the characters that a pattern does not tell
// apart, and the sets of them that it asks for.
type classes struct {
	byByte [256]uint8 // the class of a byte, or long if it is no character by itself
	starts []rune     // the first characters of runs of one class, from U+0080 on
	runs   []uint16   // their classes
	kinds  []kind     // of each class
	sets   [][]uint64 // each a set of classes
}

// long is what classes.byByte says of a byte that begins a longer character,
// or none.
const long = 0xFF

// A kind is what a character is to ^, $ and \b.
type kind uint8

const (
	edge    kind = iota // no character: the text begins or ends here
	newline             // \n
	word                // [0-9A-Za-z_]
	other
)

func (k kind) sample() rune { return [...]rune{edge: -1, newline: '\n', word: 'a', other: '-'}[k] }

// maxClasses bounds the classes, so that they stay below long: a pattern with
// more is left to regexp.
const maxClasses = 250

// has tells whether the class is in the set.
func (c *classes) has(set uint16, class int) bool {
	return c.sets[set][class>>6]&(1<<(class&63)) != 0
}

// next is the class of the first character of s and its width, read as regexp
// reads it: a byte that is not UTF-8 is U+FFFD.
func (c *classes) next(s string) (class, width int) {
	if class := c.byByte[s[0]]; class != long {
		return int(class), 1
	}
	r, width := utf8.DecodeRuneInString(s)
	i := sort.Search(len(c.starts), func(i int) bool { return c.starts[i] > r })
	return int(c.runs[i-1]), width
}

// A partition collects what sets of characters a pattern asks for.
type partition struct {
	sets    [][]rune
	numbers map[string]uint16
	empty   syntax.EmptyOp // the anchors that occur
}

// add returns the number of a set of characters, given as ranges.
func (p *partition) add(ranges []rune) uint16 {
	key := string(encode(ranges))
	n, ok := p.numbers[key]
	if !ok {
		n = uint16(len(p.sets))
		p.numbers[key] = n
		p.sets = append(p.sets, ranges)
	}
	return n
}

// encode makes different bytes of different ranges.
func encode(ranges []rune) []byte {
	var b []byte
	for _, r := range ranges {
		b = append(b, byte(r), byte(r>>8), byte(r>>16))
	}
	return b
}

// maxSpans bounds the work of telling classes apart, in spans times sets.
const maxSpans = 1 << 22

// classes makes the classes: spans of characters that are in the same sets.
func (p *partition) classes(bytes bool) (classes, error) {
	asked := slices.Clone(p.sets)
	if p.empty&(syntax.EmptyBeginLine|syntax.EmptyEndLine) != 0 {
		asked = append(asked, []rune{'\n', '\n'})
	}
	if p.empty&(syntax.EmptyWordBoundary|syntax.EmptyNoWordBoundary) != 0 {
		asked = append(asked, []rune{'0', '9', 'A', 'Z', '_', '_', 'a', 'z'})
	}
	cuts := cutsOf(asked)
	if len(cuts)*len(asked) > maxSpans {
		return classes{}, errTooLarge
	}
	member := membership(cuts, asked)
	numbers := make(map[string]uint16)
	of := make([]uint16, len(cuts))
	var first []int // of each class its first span
	for i := range cuts {
		n, ok := numbers[string(member[i])]
		if !ok {
			n = uint16(len(first))
			numbers[string(member[i])] = n
			first = append(first, i)
		}
		of[i] = n
	}
	if len(first) > maxClasses {
		return classes{}, errTooLarge
	}
	c := classes{sets: make([][]uint64, len(p.sets))}
	for i := range c.sets {
		c.sets[i] = make([]uint64, len(first)/64+1)
	}
	for n, span := range first {
		c.kinds = append(c.kinds, p.kind(cuts[span]))
		for set := range p.sets {
			if member[span][set>>3]&(1<<(set&7)) != 0 {
				c.sets[set][n>>6] |= 1 << (n & 63)
			}
		}
	}
	c.assign(cuts, of, bytes)
	return c, nil
}

// cutsOf is the characters where a set begins or ends, in order. The first is
// 0, and the first character that may be longer than a byte is one, too.
func cutsOf(sets [][]rune) []rune {
	cuts := []rune{0, utf8.RuneSelf}
	for _, ranges := range sets {
		for i := 0; i < len(ranges); i += 2 {
			cuts = append(cuts, ranges[i], ranges[i+1]+1)
		}
	}
	slices.Sort(cuts)
	return slices.Compact(cuts)
}

// membership is of each span, from a cut to the next, the sets that it is in:
// a bit each.
func membership(cuts []rune, sets [][]rune) [][]byte {
	member := make([][]byte, len(cuts))
	for i := range member {
		member[i] = make([]byte, len(sets)/8+1)
	}
	for set, ranges := range sets {
		for i := 0; i < len(ranges); i += 2 {
			span, _ := slices.BinarySearch(cuts, ranges[i])
			for ; span < len(cuts) && cuts[span] <= ranges[i+1]; span++ {
				member[span][set>>3] |= 1 << (set & 7)
			}
		}
	}
	return member
}

// kind is the kind of the character r and of all of its class. Where a
// pattern does not ask for a kind, characters of it are as good as others.
func (p *partition) kind(r rune) kind {
	const lines = syntax.EmptyBeginLine | syntax.EmptyEndLine
	const words = syntax.EmptyWordBoundary | syntax.EmptyNoWordBoundary
	switch {
	case r == '\n' && p.empty&lines != 0:
		return newline
	case syntax.IsWordChar(r) && p.empty&words != 0:
		return word
	}
	return other
}

// assign notes of bytes and longer characters the classes that the spans from
// cuts are of.
func (c *classes) assign(cuts []rune, of []uint16, bytes bool) {
	span := 0
	for b := range c.byByte {
		for span+1 < len(cuts) && cuts[span+1] <= rune(b) {
			span++
		}
		c.byByte[b] = uint8(of[span])
		if b >= utf8.RuneSelf && !bytes {
			c.byByte[b] = long
		}
	}
	for i, cut := range cuts {
		if cut >= utf8.RuneSelf && !bytes {
			c.starts = append(c.starts, cut)
			c.runs = append(c.runs, of[i])
		}
	}
}
