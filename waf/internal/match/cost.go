package match

// cost is about how likely it is that a text that means no harm has one of the
// strings at a given place. Every string costs a little besides: it must be
// looked for.
func cost(set []string) float64 {
	const each = 2e-7
	total := 0.0
	for _, s := range set {
		p := 1.0
		for _, c := range []byte(head(s, maxLiteral)) {
			p *= likelihood(c)
		}
		total += p + each
	}
	return total
}

// likelihood is about how likely it is that a character of a text that means
// no harm is c: prose and names mostly, some numbers and addresses. It needs
// not be right, only good enough to choose by.
func likelihood(c byte) float64 {
	switch {
	case 'a' <= c && c <= 'z':
		return letterLikelihood[c-'a']
	case 'A' <= c && c <= 'Z':
		return letterLikelihood[c-'A'] / 4
	case '0' <= c && c <= '9':
		return .04
	}
	switch c {
	case ' ', '.', '-', '/', '_':
		return .03
	case ',', ':', ';', '(', ')', '=', '"', '\'', '+', '?', '&', '%':
		return .01
	case '\t', '\r', '\n':
		return .003
	}
	if c < ' ' || c == 0x7F {
		return .0005
	}
	return .002
}

// letterLikelihood is that of the letters from a to z.
var letterLikelihood = [26]float64{
	.082, .020, .030, .043, .100, .022, .020, .050, .060, .005, .010, .040, .026,
	.067, .065, .022, .004, .060, .063, .085, .028, .012, .022, .007, .020, .005,
}
