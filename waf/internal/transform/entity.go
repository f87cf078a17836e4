package transform

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/html"
)

// longestEntity is longer than every name of an entity.
const longestEntity = 40

// htmlEntityDecode decodes references to characters as browsers do. It reports
// a change if the length changes.
func htmlEntityDecode(a *Arena, s string) (string, bool) {
	i := strings.IndexByte(s, '&')
	if i < 0 {
		return s, false
	}
	// At worst five bytes become six.
	d := append(a.room(len(s)+len(s)/5+1), s[:i]...)
	for i < len(s) {
		if s[i] != '&' {
			d = append(d, s[i])
			i++
			continue
		}
		var n int
		if i+1 < len(s) && s[i+1] == '#' {
			d, n = numeric(d, s[i:])
		} else {
			d, n = named(d, s[i:])
		}
		i += n
	}
	v, _ := a.end(d, s)
	return v, len(v) != len(s)
}

// numeric decodes "&#38;" or "&#x26;" at the start of s, and returns how long
// it is. If there is none, the ampersand stays.
func numeric(d []byte, s string) ([]byte, int) {
	i, base := 2, rune(10)
	if i < len(s) && s[i]|0x20 == 'x' {
		i, base = 3, 16
	}
	start, r := i, rune(0)
	for i < len(s) {
		v := rune(hexValue[s[i]])
		if v < 0 || v >= base {
			break
		}
		if r <= utf8.MaxRune {
			r = r*base + v
		}
		i++
	}
	if i == start {
		return append(d, '&'), 1
	}
	if i < len(s) && s[i] == ';' {
		i++
	}
	if 0x80 <= r && r <= 0x9f {
		r = windows1252[r-0x80]
	} else if r == 0 {
		r = utf8.RuneError
	}
	return utf8.AppendRune(d, r), i
}

// windows1252 is what references to 0x80 to 0x9f mean.
var windows1252 = [32]rune{
	'€', '\u0081', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u008d', 'Ž', '\u008f',
	'\u0090', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u009d', 'ž', 'Ÿ',
}

// named decodes "&amp;" or "&amp" at the start of s, and returns how long it
// is. If there is none, the ampersand stays.
func named(d []byte, s string) ([]byte, int) {
	i := 1
	for i < len(s) && i < longestEntity && isAlnum(s[i]) {
		i++
	}
	if i < 3 { // none is that short
		return append(d, '&'), 1
	}
	if i < len(s) && s[i] == ';' {
		i++
	}
	name := s[:i]
	if c := common(name[1:]); c != 0 {
		return append(d, c), i
	}
	if name[i-1] != ';' && !mayEnd(name[1:]) {
		return append(d, '&'), 1
	}
	v := html.UnescapeString(name)
	if v == name {
		return append(d, '&'), 1
	}
	return append(d, v...), i
}

// noReferences: no ampersand begins a reference, in either case of letters.
func noReferences(s string) bool {
	for {
		i := strings.IndexByte(s, '&')
		if i < 0 {
			return true
		}
		s = s[i+1:]
		n := 0
		for n < len(s) && isAlnum(s[n]) {
			n++
		}
		if n < len(s) && (s[n] == ';' || n == 0 && s[0] == '#') || n > 0 && begins(s[:n]) {
			return false
		}
		s = s[n:]
	}
}

// begins reports whether a word begins with a name that needs no semicolon, in
// any case.
func begins(word string) bool {
	for _, c := range []byte{word[0] | 0x20, word[0] &^ 0x20} {
		for _, n := range unended[c] {
			if len(word) >= len(n) && strings.EqualFold(word[:len(n)], n) {
				return true
			}
		}
	}
	return false
}

// common knows the names that stand for ASCII, for speed.
func common(name string) byte {
	switch name {
	case "lt;", "lt", "LT;", "LT":
		return '<'
	case "gt;", "gt", "GT;", "GT":
		return '>'
	case "amp;", "amp", "AMP;", "AMP":
		return '&'
	case "quot;", "quot", "QUOT;", "QUOT":
		return '"'
	case "apos;":
		return '\''
	case "lpar;":
		return '('
	case "rpar;":
		return ')'
	case "colon;":
		return ':'
	case "semi;":
		return ';'
	case "sol;":
		return '/'
	case "equals;":
		return '='
	case "Tab;":
		return '\t'
	case "NewLine;":
		return '\n'
	}
	return 0
}

func isAlnum(c byte) bool { return plain(c) && c != '*' }

// unended are the names that count without a semicolon, too, also at the
// beginning of a longer word (HTML, section 13.2.5.73).
var unended = byFirst(strings.Fields(
	"AElig AMP Aacute Acirc Agrave Aring Atilde Auml COPY Ccedil ETH Eacute Ecirc Egrave Euml GT Iacute Icirc Igrave Iuml LT " +
		"Ntilde Oacute Ocirc Ograve Oslash Otilde Ouml QUOT REG THORN Uacute Ucirc Ugrave Uuml Yacute aacute acirc acute aelig " +
		"agrave amp aring atilde auml brvbar ccedil cedil cent copy curren deg divide eacute ecirc egrave eth euml frac12 frac14 " +
		"frac34 gt iacute icirc iexcl igrave iquest iuml laquo lt macr micro middot nbsp not ntilde oacute ocirc ograve ordf ordm " +
		"oslash otilde ouml para plusmn pound quot raquo reg sect shy sup1 sup2 sup3 szlig thorn times uacute ucirc ugrave uml uuml " +
		"yacute yen yuml"))

func byFirst(names []string) (list [256][]string) {
	for _, n := range names {
		list[n[0]] = append(list[n[0]], n)
	}
	return list
}

// mayEnd reports whether a word begins with a name that needs no semicolon.
func mayEnd(word string) bool {
	for _, n := range unended[word[0]] {
		if strings.HasPrefix(word, n) {
			return true
		}
	}
	return false
}
