package match

import "strings"

// The letters outside ASCII that a (?i) of Go's regexp takes for an ASCII
// letter: the long s and the Kelvin sign.
const (
	longS  = "\u017F"
	kelvin = "\u212A"
)

// Fold returns s with U+017F as "s" and U+212A as "k", which is what Go's (?i)
// takes them for. Where neither occurs it returns s itself. ASCII letters keep
// their case: an [Automaton] does not see it.
func Fold(s string) string {
	// 0xC5 and 0xE2 begin a character wherever they stand, valid UTF-8 or not,
	// so these bytes are these characters to regexp as well.
	if !strings.Contains(s, longS) && !strings.Contains(s, kelvin) {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, longS, "s"), kelvin, "k")
}
