// Package transform is the transformations of the rule language: each makes
// of a value the text that a rule is to see, with URL encoding undone, say,
// or in lower case.
//
// They give what Coraza 3.8.1 gives, byte for byte, also where that is odd: a
// rule set is written and tested against those oddities. They run in linear
// time and write into an arena instead of allocating. Paths are cleaned as on
// Unix wherever the program runs.
package transform

import (
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

// A Transformation makes one value of another.
type Transformation struct {
	Name string
	// Apply returns the transformed value, and whether the transformation
	// reports a change: a multiMatch rule sees the values that were reported,
	// and goes on from those only. A few report a change where there is none,
	// or none where there is one. A value that does not change is returned
	// itself; others may live in the arena.
	Apply func(a *Arena, s string) (string, bool)
	// Changes are the bytes without any of which a value stays as it is, and
	// is not reported, unless Always or Folds says otherwise.
	Changes match.ByteSet
	// Keeps, if there is one, knows some of the values with bytes of Changes
	// that stay as they are all the same, and are not reported but for what
	// Folds says. It takes no account of the case of ASCII letters.
	Keeps func(s string) bool
	// Folds: besides, ASCII letters in upper case become lower case.
	Folds bool
	// Always: Apply reports a change, or may make one, whatever the value
	// holds, even if it is empty.
	Always bool
}

// Lookup finds a transformation by its name, in any case.
func Lookup(name string) (*Transformation, bool) {
	for from, to := range aliases {
		if strings.EqualFold(name, from) {
			name = to
		}
	}
	for i := range all {
		if strings.EqualFold(name, all[i].Name) {
			return &all[i], true
		}
	}
	return nil, false
}

// aliases are second spellings.
var aliases = map[string]string{
	"normalizePath":    "normalisePath",
	"normalizePathWin": "normalisePathWin",
}

const spaces = " \t\n\v\f\r"

var all = []Transformation{
	always("base64Decode", base64Decode),
	always("base64DecodeExt", base64DecodeExt),
	always("base64Encode", base64Encode),
	{Name: "cmdLine", Apply: cmdLine, Changes: setOf("\"'\\^ ,;\t\r\n"), Keeps: cmdLineKeeps, Folds: true},
	{Name: "compressWhitespace", Apply: compressWhitespace, Changes: setOf(spaces + "\x85\xa0"), Keeps: singleSpaces},
	{Name: "cssDecode", Apply: cssDecode, Changes: setOf("\\")},
	{Name: "escapeSeqDecode", Apply: escapeSeqDecode, Changes: setOf("\\")},
	always("hexDecode", hexDecode),
	always("hexEncode", hexEncode),
	{Name: "htmlEntityDecode", Apply: htmlEntityDecode, Changes: setOf("&"), Keeps: noReferences},
	{Name: "jsDecode", Apply: jsDecode, Changes: setOf("\\")},
	always("length", length),
	{Name: "lowercase", Apply: lowercase, Changes: setIf(notASCII), Folds: true},
	always("md5", md5Sum),
	{Name: "none", Apply: none},
	{Name: "normalisePath", Apply: normalisePath, Changes: setOf("/."), Keeps: tidy},
	{Name: "normalisePathWin", Apply: normalisePathWin, Changes: setOf("/\\.: "), Keeps: tidyWin},
	{Name: "removeComments", Apply: removeComments, Changes: setOf("*-#"), Keeps: noComments},
	{Name: "removeCommentsChar", Apply: removeCommentsChar, Changes: setOf("*-#"), Keeps: noComments},
	{Name: "removeNulls", Apply: removeNulls, Changes: setOf("\x00")},
	{Name: "removeWhitespace", Apply: removeWhitespace, Changes: setIf(func(c byte) bool { return isSpace(c) || notASCII(c) })},
	{Name: "replaceComments", Apply: replaceComments, Changes: setOf("*")},
	{Name: "replaceNulls", Apply: replaceNulls, Changes: setOf("\x00")},
	always("sha1", sha1Sum),
	{Name: "trim", Apply: trim, Changes: setOf(spaces)},
	{Name: "trimLeft", Apply: trimLeft, Changes: setOf(spaces)},
	{Name: "trimRight", Apply: trimRight, Changes: setOf(spaces)},
	{Name: "uppercase", Apply: uppercase, Changes: setIf(func(c byte) bool { return 'a' <= c && c <= 'z' || notASCII(c) })},
	{Name: "urlDecode", Apply: urlDecode, Changes: setOf("%+")},
	{Name: "urlDecodeUni", Apply: urlDecodeUni, Changes: setOf("%+")},
	{Name: "urlEncode", Apply: urlEncode, Changes: setIf(func(c byte) bool { return !plain(c) })},
	{Name: "utf8toUnicode", Apply: utf8toUnicode, Changes: setIf(notASCII)},
}

func always(name string, f func(*Arena, string) (string, bool)) Transformation {
	return Transformation{Name: name, Apply: f, Always: true, Changes: setIf(func(byte) bool { return true })}
}

func setOf(bytes string) match.ByteSet {
	return setIf(func(c byte) bool { return strings.IndexByte(bytes, c) >= 0 })
}

func setIf(has func(byte) bool) match.ByteSet {
	var s match.ByteSet
	for c := range 256 {
		if has(byte(c)) {
			s.Add(byte(c))
		}
	}
	return s
}

func notASCII(c byte) bool { return c >= 0x80 }

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func none(_ *Arena, s string) (string, bool) { return s, false }
