package match

// A ByteSet is a set of bytes.
type ByteSet [4]uint64

// Add puts c into the set.
func (b *ByteSet) Add(c byte) { b[c>>6] |= 1 << (c & 63) }

// AddRange puts the bytes from lo to hi, both included, into the set.
func (b *ByteSet) AddRange(lo, hi byte) {
	for c := int(lo); c <= int(hi); c++ {
		b.Add(byte(c))
	}
}

// Has tells whether c is in the set.
func (b *ByteSet) Has(c byte) bool { return b[c>>6]&(1<<(c&63)) != 0 }

// Meets tells whether the sets have a byte in common.
func (b *ByteSet) Meets(o *ByteSet) bool {
	return b[0]&o[0]|b[1]&o[1]|b[2]&o[2]|b[3]&o[3] != 0
}

// Or puts the bytes of o into the set.
func (b *ByteSet) Or(o *ByteSet) {
	b[0] |= o[0]
	b[1] |= o[1]
	b[2] |= o[2]
	b[3] |= o[3]
}

// Without returns the bytes of the set that are not in o.
func (b ByteSet) Without(o *ByteSet) ByteSet {
	return ByteSet{b[0] &^ o[0], b[1] &^ o[1], b[2] &^ o[2], b[3] &^ o[3]}
}

// letters are the ASCII letters from A on, as they stand in the second word of
// a ByteSet; the small ones stand 32 bits higher.
const letters = 0x07FFFFFE

// Folded returns the set with the other case of every ASCII letter in it.
func (b ByteSet) Folded() ByteSet {
	b[1] |= b[1]&letters<<32 | b[1]>>32&letters
	return b
}

// Read returns the bytes that a text with these bytes may have once it is
// folded ([Fold]), with the other case of every ASCII letter.
func (b ByteSet) Read() ByteSet {
	if b[3] != 0 {
		b[1] |= b.becomes()
	}
	b[1] |= b[1]&letters<<32 | b[1]>>32&letters
	return b
}

// becomes is what folding may make of a text's bytes, as it stands in the
// second word of a ByteSet.
func (b *ByteSet) becomes() (small uint64) {
	if b.Has(longS[0]) {
		small |= single['s'][1]
	}
	if b.Has(kelvin[0]) {
		small |= single['k'][1]
	}
	return small
}

// Within tells whether every byte of b is in o, too.
func (b *ByteSet) Within(o *ByteSet) bool {
	return b[0]&^o[0]|b[1]&^o[1]|b[2]&^o[2]|b[3]&^o[3] == 0
}

// Presence returns the set of bytes that occur in s.
func Presence(s string) ByteSet {
	var b ByteSet
	var seen byte
	low, high := uint64(0), uint64(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		seen |= c
		low |= single[c][0]
		high |= single[c][1]
	}
	if seen >= 0x80 {
		for i := 0; i < len(s); i++ {
			b.Add(s[i])
		}
	}
	b[0], b[1] = low, high
	return b
}

// single is, of each byte, the first two words of the set of that byte alone:
// to look them up is faster than to shift.
var single = func() (t [256][2]uint64) {
	for c := range 128 {
		t[c][c>>6] = 1 << (c & 63)
	}
	return t
}()
