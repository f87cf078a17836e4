package transform

import (
	"strings"
	"unicode/utf8"
)

const lowerHex = "0123456789abcdef"

// hexValue is the value of a hexadecimal digit, or negative.
var hexValue = func() (t [256]int8) {
	for c := range t {
		t[c] = -1
	}
	for v, c := range lowerHex {
		t[c] = int8(v)
	}
	for v, c := range "ABCDEF" {
		t[c] = int8(10 + v)
	}
	return t
}()

// hexByte reads two hexadecimal digits; it is negative if they are not.
func hexByte(s string, i int) int {
	if i+1 >= len(s) {
		return -1
	}
	hi, lo := int(hexValue[s[i]]), int(hexValue[s[i+1]])
	if hi|lo < 0 {
		return -1
	}
	return hi<<4 | lo
}

// firstOf is the place of the first x or y.
func firstOf(s string, x, y byte) int {
	i := strings.IndexByte(s, x)
	if i < 0 {
		return strings.IndexByte(s, y)
	}
	if j := strings.IndexByte(s[:i], y); j >= 0 {
		return j
	}
	return i
}

// urlDecode reports a change wherever there is something to decode, valid or
// not.
func urlDecode(a *Arena, s string) (string, bool) {
	i := firstOf(s, '%', '+')
	if i < 0 {
		return s, false
	}
	d := a.room(len(s))[:len(s)]
	n := copy(d, s[:i])
	for i < len(s) {
		c := s[i]
		i++
		if c == '%' {
			if v := hexByte(s, i); v >= 0 {
				c = byte(v)
				i += 2
			}
		} else if c == '+' {
			c = ' '
		}
		d[n] = c
		n++
	}
	v, _ := a.end(d[:n], s)
	return v, true
}

// urlDecodeUni also decodes %uHHHH, into one byte.
func urlDecodeUni(a *Arena, s string) (string, bool) {
	i := firstOf(s, '%', '+')
	if i < 0 {
		return s, false
	}
	d := a.room(len(s))[:len(s)]
	n := copy(d, s[:i])
	for i < len(s) {
		c := s[i]
		i++
		if c == '%' {
			if i < len(s) && s[i]|0x20 == 'u' {
				hi, lo := hexByte(s, i+1), hexByte(s, i+3)
				if hi|lo >= 0 {
					c = bestFit(hi<<8 | lo)
					i += 5
				}
			} else if v := hexByte(s, i); v >= 0 {
				c = byte(v)
				i += 2
			}
		} else if c == '+' {
			c = ' '
		}
		d[n] = c
		n++
	}
	return a.end(d[:n], s)
}

// plain reports whether urlEncode leaves a byte as it is.
func plain(c byte) bool {
	return c == '*' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

func urlEncode(a *Arena, s string) (string, bool) {
	n := 0
	for i := range len(s) {
		if !plain(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s, false
	}
	d := a.room(len(s) + 2*n)
	for i := range len(s) {
		switch c := s[i]; {
		case plain(c):
			d = append(d, c)
		case c == ' ':
			d = append(d, '+')
		default:
			d = append(d, '%', lowerHex[c>>4], lowerHex[c&15])
		}
	}
	return a.take(d), true
}

// utf8toUnicode writes characters outside ASCII as %uHHHH, with five or six
// digits where they need it, and bytes that are no UTF-8 as %ufffd.
func utf8toUnicode(a *Arena, s string) (string, bool) {
	high := countHigh(s)
	if high == 0 {
		return s, false
	}
	d := a.room(len(s) + 5*high)
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			d = append(d, s[i])
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		d = append(d, '%', 'u')
		if r > 0xfffff {
			d = append(d, lowerHex[r>>20])
		}
		if r > 0xffff {
			d = append(d, lowerHex[r>>16&15])
		}
		d = append(d, lowerHex[r>>12&15], lowerHex[r>>8&15], lowerHex[r>>4&15], lowerHex[r&15])
	}
	return a.take(d), true
}

func countHigh(s string) int {
	n := 0
	for i := range len(s) {
		n += int(s[i] >> 7)
	}
	return n
}
