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

// letters are the ASCII letters from A on, as they stand in the second word of
// a ByteSet; the small ones stand 32 bits higher.
const letters = 0x07FFFFFE

// Folded returns the set with the other case of every ASCII letter in it.
func (b ByteSet) Folded() ByteSet {
	b[1] |= b[1]&letters<<32 | b[1]>>32&letters
	return b
}

// within tells whether every byte of b is in o, too.
func (b *ByteSet) within(o *ByteSet) bool {
	return b[0]&^o[0]|b[1]&^o[1]|b[2]&^o[2]|b[3]&^o[3] == 0
}

// Presence returns the set of bytes that occur in s.
func Presence(s string) ByteSet {
	var b ByteSet
	for i := 0; i < len(s); i++ {
		b.Add(s[i])
	}
	return b
}
