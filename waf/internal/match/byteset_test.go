package match_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

func TestByteSet(t *testing.T) {
	var b match.ByteSet
	b.Add('a')
	b.AddRange('X', '[')
	b.AddRange(0xFE, 0xFF)
	folded := b.Folded()
	for c := range 256 {
		c := byte(c)
		in := c == 'a' || 'X' <= c && c <= '[' || c >= 0xFE
		if b.Has(c) != in {
			t.Errorf("%q: in the set: %v", c, !in)
		}
		in = in || c == 'A' || 'x' <= c && c <= 'z'
		if folded.Has(c) != in {
			t.Errorf("%q: in the folded set: %v", c, !in)
		}
		var one match.ByteSet
		one.Add(c)
		if folded.Meets(&one) != in {
			t.Errorf("%q: the folded set meets it: %v", c, !in)
		}
		one.Or(&folded)
		if !one.Has(c) || !one.Has('a') {
			t.Errorf("%q: Or loses something", c)
		}
	}
}

func TestPresence(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := range 300 {
		s := make([]byte, n)
		var want match.ByteSet
		for i := range s {
			s[i] = byte(rnd.IntN(256))
			if n&1 == 0 {
				s[i] &= 0x7F
			}
			want.Add(s[i])
		}
		if got := match.Presence(string(s)); got != want {
			t.Fatalf("%q: %x, want %x", s, got, want)
		}
	}
}

// What a text has once it is folded, in either case, is foretold.
func TestRead(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 3))
	pieces := []string{"k", "S", "x", "\u212a", "\u017f", "\xc5", "\xe2", "\x84", "\xbf", "\xaa", "é", "-"}
	for range 5000 {
		s := ""
		for range rnd.IntN(4) {
			s += pieces[rnd.IntN(len(pieces))]
		}
		may := match.Presence(s).Read()
		for _, text := range []string{match.Fold(s), strings.ToUpper(match.Fold(s))} {
			for _, c := range []byte(text) {
				if c < 0x80 && !may.Has(c) {
					t.Fatalf("%q becomes %q, which has %q", s, text, c)
				}
			}
		}
	}
	if may := match.Presence("plain é").Read(); may.Has('k') || may.Has('s') {
		t.Error("anything is foretold")
	}
}

func TestFold(t *testing.T) {
	tests := map[string]string{
		"":                  "",
		"Kiss":              "Kiss", // capitals stay
		"\u212Aiſſ":         "kiss",
		"<&ſcript>":         "<&script>",
		"\xe2\x84":          "\xe2\x84",
		"\xe2\xe2\x84\xaa":  "\xe2k",
		"\xc5\xc5\xbf\xbf":  "\xc5s\xbf",
		"\u017E\u0180ſ\xff": "\u017E\u0180s\xff",
	}
	for in, want := range tests {
		if got := match.Fold(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
