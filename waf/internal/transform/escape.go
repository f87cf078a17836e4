package transform

import (
	"strings"
	"unicode/utf8"
)

// cssDecode always reports a change if there is a backslash.
func cssDecode(a *Arena, s string) (string, bool) {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s, false
	}
	d := append(a.room(len(s)+len(s)/2+1), s[:i]...) // \0 becomes three bytes
	for i < len(s) {
		if s[i] != '\\' {
			d = append(d, s[i])
			i++
			continue
		}
		i++
		if i == len(s) {
			break
		}
		start, code := i, rune(0)
		for i < len(s) && i < start+6 && hexValue[s[i]] >= 0 {
			code = code<<4 | rune(hexValue[s[i]])
			i++
		}
		if i == start {
			if s[i] != '\n' {
				d = append(d, s[i])
			}
			i++
			continue
		}
		if code == 0 {
			code = utf8.RuneError
		}
		d = utf8.AppendRune(d, unwiden(code))
		if i < len(s) && isSpace(s[i]) {
			i++
		}
	}
	v, _ := a.end(d, s)
	return v, true
}

// unwiden makes ASCII of full-width ASCII.
func unwiden(r rune) rune {
	if 0xff01 <= r && r <= 0xff5e {
		return r - 0xfee0
	}
	return r
}

// control is what a letter after a backslash means; 0 if nothing.
func control(c byte) byte {
	switch c {
	case 'a':
		return '\a'
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'v':
		return '\v'
	}
	return 0
}

// octal reads up to three octal digits at i, and returns where they end.
func octal(s string, i int) (value, end int) {
	end = i
	for end < len(s) && end < i+3 && s[end]&^7 == '0' {
		value = value<<3 | int(s[end]&7)
		end++
	}
	return value, end
}

// escapeSeqDecode decodes the escapes of C. A backslash at the very end
// stays.
func escapeSeqDecode(a *Arena, s string) (string, bool) {
	return decodeEscapes(a, s, cEscape)
}

// decodeEscapes has what follows each backslash decoded. Each
// becomes one byte, so the result is no longer than the text.
func decodeEscapes(a *Arena, s string, escape func(s string, i int) (byte, int)) (string, bool) {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s, false
	}
	d := a.room(len(s))[:len(s)]
	n := copy(d, s[:i])
	for i < len(s) {
		c := s[i]
		i++
		if c == '\\' && i < len(s) {
			c, i = escape(s, i)
		}
		d[n] = c
		n++
	}
	return a.end(d[:n], s)
}

// cEscape decodes what follows a backslash, and returns where it ends.
func cEscape(s string, i int) (byte, int) {
	c := s[i]
	if v := control(c); v != 0 {
		return v, i + 1
	}
	if c|0x20 == 'x' {
		if v := hexByte(s, i+1); v >= 0 {
			return byte(v), i + 3
		}
	}
	if v, end := octal(s, i); end > i {
		return byte(v), end
	}
	return c, i + 1
}

// jsDecode decodes the escapes of JavaScript, characters outside Latin-1 into
// their lowest byte. A backslash at the very end stays.
func jsDecode(a *Arena, s string) (string, bool) {
	return decodeEscapes(a, s, jsEscape)
}

// jsEscape decodes what follows a backslash, and returns where it ends.
func jsEscape(s string, i int) (byte, int) {
	c := s[i]
	switch c {
	case 'u':
		if v, end := jsBraces(s, i+1); end > 0 {
			return byte(unwiden(v)), end
		}
		if hi, lo := hexByte(s, i+1), hexByte(s, i+3); hi|lo >= 0 {
			return byte(unwiden(rune(hi<<8 | lo))), i + 5
		}
	case 'x':
		if v := hexByte(s, i+1); v >= 0 {
			return byte(v), i + 3
		}
	}
	if v, end := octal(s, i); end > i {
		if v > 0xff { // then only two digits count
			return byte(v >> 3), end - 1
		}
		return byte(v), end
	}
	if v := control(c); v != 0 {
		return v, i + 1
	}
	return c, i + 1
}

// jsBraces reads {H} to {HHHHHH}; end is 0 if there is none.
func jsBraces(s string, i int) (code rune, end int) {
	if i >= len(s) || s[i] != '{' {
		return 0, 0
	}
	i++
	start := i
	for i < len(s) && i < start+6 && hexValue[s[i]] >= 0 {
		code = code<<4 | rune(hexValue[s[i]])
		i++
	}
	if i == start || i == len(s) || s[i] != '}' {
		return 0, 0
	}
	return code, i + 1
}
