// Package loose reads what clients send as the most lenient of backends do, so
// that no spelling of a path is a way round a rule about it. What it makes of a
// text is for comparing only.
package loose

import (
	"strings"
	"unicode/utf8"
)

// Case undoes the difference that case makes, also for programs that know
// Unicode: for some of them "ſ" is an "s" and "ı" an "i", since both have the
// same capital.
func Case(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0 {
		s = strings.ToUpper(s)
	}
	return strings.ToLower(s)
}
