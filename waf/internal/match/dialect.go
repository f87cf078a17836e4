package match

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// speaksOfBytes tells whether Coraza 3.8.1 gives the pattern to binaryregexp:
// when it is not valid UTF-8 once its \xHH and \x{…} are read as bytes. That
// an escaped backslash before an x looks like such an escape, and that of
// \x{…} only the first byte counts, is its way; ours must be the same.
func speaksOfBytes(expr string) bool {
	decoded := make([]byte, 0, len(expr))
	for i := 0; i < len(expr); i++ {
		if expr[i] != '\\' {
			decoded = append(decoded, expr[i])
			continue
		}
		if i+3 >= len(expr) {
			decoded = append(decoded, expr[i:]...)
			break
		}
		if c, width, ok := hexEscape(expr[i:]); ok {
			decoded = append(decoded, c)
			i += width - 1
		} else {
			decoded = append(decoded, '\\')
		}
	}
	return !utf8.Valid(decoded)
}

// hexEscape reads \xHH or \x{HH…} at the start of s, which has at least four
// bytes, and tells the byte it stands for and its width.
func hexEscape(s string) (c byte, width int, ok bool) {
	if s[1] != 'x' {
		return 0, 0, false
	}
	digits, width := s[2:], 4
	if s[2] == '{' && len(s) >= 6 {
		if end := strings.IndexByte(s, '}'); end >= 0 {
			digits, width = s[3:end], end+1
		}
	}
	if len(digits) < 2 {
		return 0, 0, false
	}
	v, err := strconv.ParseUint(digits[:2], 16, 8)
	return byte(v), width, err == nil
}
