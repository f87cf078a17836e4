package traffic

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"unicode/utf8"
)

// A Mutator changes payloads.
type Mutator struct{ *rand.Rand }

// NewMutator returns one that always does the same.
func NewMutator(seed uint64) Mutator { return Mutator{rand.New(rand.NewPCG(seed, 0x6d65726c6f6e))} }

// pieces are put into payloads as they are.
var pieces = []string{
	" ", "'", `"`, "`", ";", ",", "(", ")", "[", "]", "{", "}", "<", ">", "/", `\`, "|", "&", "$", "%", "+", "-", "=", "!", "@", "#", "*", ".", ":",
	"~", "^", "?", "_", "\t", "\n", "\r", "\x00", "\v", "\f", "a", "A", "k", "K", "s", "S", "0", "9", "\x80", "\xff", "\xc2\xa0", "\u212a", "\u017f",
	"/**/", "/*!50000", "*/", "--", "--+", "#\n", "<!--", "${", "%00", "%u0000", "\\u0000", "..", "../", "..\\", "\\x", "&#", "&lt;", ";x", "e\u0301",
	"\xc0\xaf", "\xe0\x80\xaf", "\u2028", "\ufeff", "\u3000", "\uff07", "\uff1c", "%c0%af", "%25",
}

// Mutate changes a payload in one to three ways.
func (r Mutator) Mutate(s string) string {
	b := []byte(s)
	for range 1 + r.IntN(3) {
		b = changes[r.IntN(len(changes))](r, b)
	}
	return string(b)
}

// at is a place in b, and before its end if there is anything.
func (r Mutator) at(b []byte) int { return r.IntN(max(len(b), 1)) }

func splice(b []byte, from, to int, with string) []byte {
	return append(b[:from:from], append([]byte(with), b[to:]...)...)
}

var changes = []func(Mutator, []byte) []byte{
	func(r Mutator, b []byte) []byte { // something put in
		i := r.at(b)
		return splice(b, i, i, pieces[r.IntN(len(pieces))])
	},
	func(r Mutator, b []byte) []byte { // something left out
		i := r.at(b)
		return splice(b, i, min(len(b), i+1+r.IntN(3)), "")
	},
	func(r Mutator, b []byte) []byte { // any other byte
		if len(b) > 0 {
			b[r.at(b)] = byte(r.IntN(256))
		}
		return b
	},
	func(r Mutator, b []byte) []byte { // another case
		for i := range b {
			if c := b[i] | 0x20; 'a' <= c && c <= 'z' && r.IntN(2) == 0 {
				b[i] ^= 0x20
			}
		}
		return b
	},
	func(r Mutator, b []byte) []byte { return r.spell(b, "%%%02x") },
	func(r Mutator, b []byte) []byte { return r.spell(b, "%%25%02X") },
	func(r Mutator, b []byte) []byte { return r.spell(b, "%%u00%02x") },
	func(r Mutator, b []byte) []byte { return r.spell(b, "%%uff%02x") },
	func(r Mutator, b []byte) []byte { return r.spell(b, "&#%d;") },
	func(r Mutator, b []byte) []byte { return r.spell(b, "&#x%x;") },
	func(r Mutator, b []byte) []byte { return r.spell(b, "&#x%x") },
	func(r Mutator, b []byte) []byte { return r.spell(b, `\x%02x`) },
	func(r Mutator, b []byte) []byte { return r.spell(b, `\u00%02x`) },
	func(r Mutator, b []byte) []byte { return r.spell(b, `\%o`) },
	func(r Mutator, b []byte) []byte { return r.spell(b, `\%x `) },
	func(r Mutator, b []byte) []byte { // letters that fold to ASCII, also as entities and escapes
		from := "kKsS"[r.IntN(4)]
		to := map[byte][]string{'k': {"\u212a", "&#8490;", "&#x212A;", `\u212a`, "%u212a"}, 's': {"\u017f", "&#383;", "&#x17f;", `\u017f`, "%u017f"}}[from|0x20]
		with := to[r.IntN(len(to))]
		if r.IntN(2) == 0 { // all of them
			return []byte(strings.NewReplacer(string(from|0x20), with, string(from&^0x20), with).Replace(string(b)))
		}
		if i := strings.IndexByte(string(b), from); i >= 0 {
			return splice(b, i, i+1, with)
		}
		return b
	},
	func(r Mutator, b []byte) []byte { // spaces of another kind
		i := strings.IndexByte(string(b), ' ')
		if i < 0 {
			i = r.at(b)
			return splice(b, i, i, " ")
		}
		kinds := []string{"\t", "\n", "\r\n", "\v", "\f", "\u00a0", "/**/", "+", "%20", "%0a", "  ", "\x00", "\xa0", "\u2003"}
		return splice(b, i, i+1, kinds[r.IntN(len(kinds))])
	},
	func(r Mutator, b []byte) []byte { // overlong UTF-8
		if len(b) == 0 {
			return b
		}
		i := r.at(b)
		c := b[i] & 0x7f
		return splice(b, i, i+1, string([]byte{0xc0 | c>>6, 0x80 | c&0x3f}))
	},
	func(r Mutator, b []byte) []byte { // wide letters
		if i := r.at(b); len(b) > 0 && b[i] > ' ' && b[i] < 0x7f {
			return splice(b, i, i+1, string(utf8.AppendRune(nil, 0xfee0+rune(b[i]))))
		}
		return b
	},
	func(r Mutator, b []byte) []byte { // encoded as a whole
		switch r.IntN(4) {
		case 0:
			return []byte(base64.StdEncoding.EncodeToString(b))
		case 1:
			return []byte(hex.EncodeToString(b))
		case 2:
			return fmt.Appendf(nil, "%%%x", b)
		}
		return []byte(base64.RawURLEncoding.EncodeToString(b))
	},
	func(r Mutator, b []byte) []byte { // around it
		around := []string{"foo ", " bar", "'", `"`, ")", "x=", "\n", "é", "1;", "/*", "*/", "http://", "\x00"}
		return splice(append(b, around[r.IntN(len(around))]...), 0, 0, around[r.IntN(len(around))])
	},
	func(r Mutator, b []byte) []byte { // twice, or the end before the beginning
		i := r.at(b)
		return append(append([]byte{}, b[i:]...), b[:max(i, len(b)*r.IntN(2))]...)
	},
}

// spell writes some bytes in another way.
func (r Mutator) spell(b []byte, format string) []byte {
	if len(b) == 0 {
		return b
	}
	if r.IntN(8) == 0 && len(b) < 200 {
		var out []byte
		for _, c := range b {
			out = fmt.Appendf(out, format, c)
		}
		return out
	}
	i := r.at(b)
	return splice(b, i, i+1, fmt.Sprintf(format, b[i]))
}
