package operator

import (
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

// kinds is a set of kinds of tokens.
//
// libinjection makes tokens of a value, folds them, writes the kinds of the
// first five as a fingerprint ("1&1"), and looks that up in a list. It can
// find nothing in a value whose tokens, before folding, are of kinds of which
// no fingerprint on the list is made. Folding drops tokens, and changes the
// kind of a few, which have both kinds here.
type kinds uint32

const (
	numeral kinds = 1 << iota // 1
	bareWord
	variable
	operation
	logic
	expression
	union
	grouping
	typeOrTSQL
	keyword
	function
	collation
	into      // not a kind: a keyword between two other tokens counts only if it is INTO
	folding   // not a kind: the token may be folded with its neighbours
	begins    // not a kind: the word begins a phrase, to which tokens are folded
	second    // not a kind: the word may be the second of a phrase
	undecided // not a kind: a keyword that a token after it makes a bare word
)

// letters are the kinds as they stand in fingerprints.
const letters = "1NVO&EUBTKFAI"

// suspects are the kinds that all occur in some fingerprint on libinjection's
// list, of those fingerprints that have no other kind of token in them. Sets
// that contain another one are left out.
var suspects = func() (list []kinds) {
	for _, set := range strings.Fields(`&1 &ENO &FN &KN &NU &V 1AOT 1B 1EFO 1EK 1EN 1ET 1EV 1FOT 1IK 1KO 1OV 1U AFOV ANOV AOTV BN BV EFNO
		EFOV EKN EKV ENU ENV ETV FNOU FNOV FOTV IKN IKV KNO KNU KOV NT UV`) {
		list = append(list, kindsOf(set))
	}
	return list
}()

func kindsOf(set string) (k kinds) {
	for i := range len(set) {
		k |= 1 << strings.IndexByte(letters, set[i])
	}
	return k
}

// suspect reports whether a fingerprint on the list can be made of some kinds.
func (k kinds) suspect() bool {
	for _, s := range suspects {
		if s&^k == 0 {
			return true
		}
	}
	return false
}

// A lexeme is what a byte begins, or does in a word.
type lexeme uint8

const (
	white    lexeme = iota
	letter          // begins a word
	digit           // begins a number, as a dot does
	operator        // an operator, or part of one
	at              // begins the name of a variable
	mark            // a token of no interest
	critical        // begins a string, a comment or a list: left to libinjection
)

var lexemes = func() (t [256]lexeme) {
	for c := range t {
		switch b := byte(c); {
		case b <= ' ' || b == 0x7f || b == 0xa0:
		case b >= 0x80 || isAlpha(b) || b == '_':
			t[c] = letter
		case b-'0' <= 9 || b == '.':
			t[c] = digit
		case strings.IndexByte("'\"`#$();\\", b) >= 0:
			t[c] = critical
		case b == '@':
			t[c] = at
		case strings.IndexByte(",?[]{}", b) >= 0:
			t[c] = mark
		default:
			t[c] = operator
		}
	}
	return t
}()

// endsWord are the bytes that no word goes on with. A dot is one here: the
// word before it may be read alone.
var endsWord = setOf(" []{}<>:\\?=@!#~+-*/&|^%(),';\t\n\v\f\r\"\xa0\x00.`")

// space is what may follow the letter that ends a number.
var space = setOf(" \t\n\v\f\r\xa0\x00")

// endsName are the bytes that the name of a variable does not go on with.
var endsName = setOf(" <>:\\?=@!#~+-*/&|^%(),';\t\n\v\f\r'`\"")

// suspicious reports whether libinjection could find SQL in a value. It reads
// words and numbers as libinjection does as long as there is nothing critical.
func suspicious(s string) bool {
	var t tally
	for i := 0; i < len(s); {
		if lexemes[s[i]] == white {
			i++
			continue
		}
		k, end := token(s, i)
		if end < 0 {
			return true
		}
		i = end
		t.add(k, i < len(s) && s[i] == '.')
		if t.tokens == 6 && t.exact {
			// The rest is not read, unless there is a quote: then the value is
			// also read as if it began within quotes.
			return t.suspect() || strings.ContainsAny(s[i:], `'"`)
		}
	}
	return t.suspect()
}

// A tally is what is known of the tokens of a value.
type tally struct {
	seen   kinds
	tokens int
	exact  bool // libinjection has the same tokens so far, none of them folded
	last   kinds
	logic  int // which token was the last logic one
}

func (t *tally) add(k kinds, dotted bool) {
	t.tokens++
	if t.tokens == 1 {
		t.exact = true
	}
	phrase := t.last&begins != 0 && k&second != 0
	if k&folding != 0 || phrase || dotted {
		t.exact = false
	}
	if k&logic != 0 {
		if t.tokens-t.logic == 2 && t.tokens > 2 { // the three are folded
			t.exact = false
		}
		t.logic = t.tokens
	}
	if t.last&undecided != 0 {
		if phrase || k&folding != 0 {
			t.seen |= t.last
		} else {
			t.seen |= bareWord
		}
	}
	if k&undecided == 0 || phrase {
		t.seen |= k
		k &^= undecided
	}
	t.last = k
}

func (t *tally) suspect() bool {
	if t.last&undecided != 0 {
		t.seen |= t.last
	}
	return t.seen.suspect()
}

// token reads the token at i: what it can become, and where it ends. The end
// is negative if it is critical.
func token(s string, i int) (kinds, int) {
	start := i
	switch c := s[i]; lexemes[c] {
	case letter:
		i = span(s, i, &endsWord)
		return wordKinds(s[start:i]), i
	case digit:
		return numberAt(s, i)
	case at:
		if i++; i < len(s) && s[i] == '@' {
			i++
		}
		return variable | folding, span(s, i, &endsName)
	case operator:
		k := operation | folding
		if i++; i < len(s) {
			if s[i] == c && (c == '&' || c == '|') {
				k |= logic
			}
			if c == '-' && s[i] == '-' || c == '/' && s[i] == '*' {
				return 0, -1
			}
		}
		return k, i
	case mark:
		if c == '[' { // begins a name
			return bareWord | folding, i + 1
		}
		return folding, i + 1
	}
	return 0, -1
}

// span is where the first byte of a set is, from i on.
func span(s string, i int, ends *match.ByteSet) int {
	for i < len(s) && !ends.Has(s[i]) {
		i++
	}
	return i
}

// keywordLengths are the lengths, a bit each, of the keywords that begin with
// the same two letters: of most words it tells that they are none.
var keywordLengths = func() (t [1 << 10]uint32) {
	for word := range keywords {
		t[shape(word)] |= 1 << min(len(word), 31)
	}
	return t
}()

// shape is the same of a word in upper and lower case, which has two bytes or
// more.
func shape(word string) int { return int(word[0]&31)<<5 | int(word[1]&31) }

// anyKind is said of words that are not understood.
const anyKind = folding | (into<<1 - 1)

// wordKinds are the kinds that a word may become.
func wordKinds(word string) kinds {
	if len(word) >= 2 && len(word) < 32 && keywordLengths[shape(word)]&(1<<len(word)) != 0 {
		var upper [32]byte
		for i := range len(word) {
			c := word[i]
			if isAlpha(c) {
				c &^= 0x20
			}
			upper[i] = c
		}
		if k, ok := keywords[string(upper[:len(word)])]; ok {
			return k
		}
	}
	// Two letters outside ASCII become ASCII ones in upper case.
	for i := range len(word) {
		if word[i] >= 0x80 {
			if strings.Contains(word, "\u0131") || strings.Contains(word, "\u017f") {
				return anyKind
			}
			break
		}
	}
	return bareWord
}

// numberAt reads a number, and returns where it ends.
func numberAt(s string, i int) (kinds, int) {
	digits := func(i int) int {
		for i < len(s) && s[i]-'0' <= 9 {
			i++
		}
		return i
	}
	start := i
	if s[i] == '0' && i+1 < len(s) {
		switch s[i+1] | 0x20 {
		case 'x':
			for i += 2; i < len(s) && isHex(s[i]); i++ {
			}
			return numeral | bareWord, i
		case 'b':
			for i += 2; i < len(s) && s[i]|1 == '1'; i++ {
			}
			return numeral | bareWord, i
		}
	}
	i = digits(i)
	if i < len(s) && s[i] == '.' {
		if i = digits(i + 1); i == start+1 {
			return folding, i // a dot alone
		}
	}
	k := numeral
	if i < len(s) && s[i]|0x20 == 'e' {
		if i++; i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		exponent := i
		if i = digits(i); i == exponent {
			k |= folding // such a number is dropped
		}
	}
	if i < len(s) && (s[i]|0x20 == 'd' || s[i]|0x20 == 'f') {
		if i+1 == len(s) || space.Has(s[i+1]) || s[i+1] == ';' || s[i+1]|0x20 == 'u' {
			i++
		}
	}
	return k, i
}

func isAlpha(c byte) bool { return (c|0x20)-'a' <= 25 }
