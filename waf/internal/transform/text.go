package transform

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// lowercase also makes U+FFFD of bytes that are no UTF-8, as uppercase does.
func lowercase(a *Arena, s string) (string, bool) { return mapCase(a, s, 'A', unicode.ToLower) }

func uppercase(a *Arena, s string) (string, bool) { return mapCase(a, s, 'a', unicode.ToUpper) }

// mapCase maps the 26 letters from first on, and what is not ASCII by the
// mapping.
func mapCase(a *Arena, s string, first byte, mapping func(rune) rune) (string, bool) {
	i, high := 0, byte(0)
	for i < len(s) && s[i]-first > 25 && s[i] < utf8.RuneSelf {
		i++
	}
	if i == len(s) {
		return s, false
	}
	for j := i; j < len(s); j++ {
		high |= s[j]
	}
	if high < utf8.RuneSelf {
		d := a.room(len(s))[:len(s)]
		copy(d, s[:i])
		for ; i < len(s); i++ {
			c := s[i]
			if c-first <= 25 {
				c ^= 0x20
			}
			d[i] = c
		}
		return a.take(d), true
	}
	d := append(a.room(3*len(s)), s[:i]...) // an invalid byte becomes three
	for i < len(s) {
		if c := s[i]; c < utf8.RuneSelf {
			if c-first <= 25 {
				c ^= 0x20
			}
			d = append(d, c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		d = utf8.AppendRune(d, mapping(r))
		i += n
	}
	return a.end(d, s)
}

// removeWhitespace removes all of Unicode's white space. It also makes U+FFFD
// of bytes that are no UTF-8, which it does not report.
func removeWhitespace(a *Arena, s string) (string, bool) {
	i := 0
	for i < len(s) && !isSpace(s[i]) && s[i] < utf8.RuneSelf {
		i++
	}
	if i == len(s) {
		return s, false
	}
	high := countHigh(s)
	if high == 0 {
		return a.take(removeSpaces(a.room(len(s))[:len(s)], s)), true
	}
	d := append(a.room(len(s)+2*high), s[:i]...)
	changed := false
	for i < len(s) {
		if c := s[i]; c < utf8.RuneSelf {
			i++
			if isSpace(c) {
				changed = true
			} else {
				d = append(d, c)
			}
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		if unicode.IsSpace(r) {
			changed = true
		} else {
			d = utf8.AppendRune(d, r)
		}
	}
	v, _ := a.end(d, s)
	return v, changed
}

// removeSpaces is removeWhitespace for what is all ASCII.
func removeSpaces(d []byte, s string) []byte {
	n := 0
	for i := range len(s) {
		d[n] = s[i] // overwritten if it is white space
		if !isSpace(s[i]) {
			n++
		}
	}
	return d[:n]
}

// compressWhitespace makes one space of each run of white space: ASCII's, and
// U+0085 and U+00A0 in UTF-8, and the byte A0 on its own.
// singleSpaces: no white space but spaces that stand alone, nothing that might
// be read as one.
func singleSpaces(s string) bool {
	spaced := false
	for i := range len(s) {
		c := s[i]
		if c >= utf8.RuneSelf || isSpace(c) && (c != ' ' || spaced) {
			return false
		}
		spaced = c == ' '
	}
	return true
}

func compressWhitespace(a *Arena, s string) (string, bool) {
	d := a.room(len(s))[:len(s)]
	n, in := 0, false
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf && !isSpace(c) {
			d[n] = c
			n++
			i++
			in = false
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case !isSpace(c) && r != 0x85 && r != 0xa0 && c != 0xa0:
			n += copy(d[n:], s[i:i+size])
			in = false
		case !in:
			d[n] = ' '
			n++
			in = true
		}
		i += size
	}
	return a.end(d[:n], s)
}

// What cmdLine does with a byte, if it does not just keep it.
const (
	drop  = iota + 1
	space // becomes a space, unless one is before it
	slash // drops a space before it
	upper
)

var cmdBytes = func() (t [256]uint8) {
	for i, bytes := range []string{"\"'\\^", " ,;\t\r\n", "/(", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"} {
		for _, c := range bytes {
			t[c] = uint8(i + 1)
		}
	}
	return t
}()

// cmdLine undoes what hides a command from a reader and not from a shell.
func cmdLine(a *Arena, s string) (string, bool) {
	d := a.room(len(s))[:len(s)]
	n, spaced := 0, false
	for i := range len(s) {
		c := s[i]
		switch cmdBytes[c] {
		case drop:
			continue
		case space:
			if spaced {
				continue
			}
			d[n] = ' '
			n++
			spaced = true
			continue
		case slash:
			if spaced {
				n--
			}
		case upper:
			c |= 0x20
		}
		d[n] = c
		n++
		spaced = false
	}
	return a.end(d[:n], s)
}

// cmdLineKeeps: nothing is dropped, and each space stands alone.
func cmdLineKeeps(s string) bool {
	spaced := false
	for i := range len(s) {
		switch cmdBytes[s[i]] {
		case drop:
			return false
		case space:
			if s[i] != ' ' || spaced {
				return false
			}
			spaced = true
			continue
		case slash:
			if spaced {
				return false
			}
		}
		spaced = false
	}
	return true
}

func trim(a *Arena, s string) (string, bool) {
	v, left := trimLeft(a, s)
	v, right := trimRight(a, v)
	return v, left || right
}

func trimLeft(_ *Arena, s string) (string, bool) {
	i := 0
	for i < len(s) && isSpace(s[i]) {
		i++
	}
	return s[i:], i > 0
}

func trimRight(_ *Arena, s string) (string, bool) {
	n := len(s)
	for n > 0 && isSpace(s[n-1]) {
		n--
	}
	return s[:n], n < len(s)
}

func removeNulls(a *Arena, s string) (string, bool) {
	if strings.IndexByte(s, 0) < 0 {
		return s, false
	}
	d := a.room(len(s))
	for i := range len(s) {
		if s[i] != 0 {
			d = append(d, s[i])
		}
	}
	return a.take(d), true
}

func replaceNulls(a *Arena, s string) (string, bool) {
	if strings.IndexByte(s, 0) < 0 {
		return s, false
	}
	d := append(a.room(len(s)), s...)
	for i, c := range d {
		if c == 0 {
			d[i] = ' '
		}
	}
	return a.take(d), true
}
