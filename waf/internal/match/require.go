package match

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
	// Bytes: the pattern reads bytes, so the Literals must be looked for in the
	// text as it is. Folding could take two bytes of it for a letter.
	Bytes bool
}
