package transform

import (
	"math/rand"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// Names that count without a semicolon are all known: whatever the parser of
// HTML decodes is decoded.
func TestUnendedNames(t *testing.T) {
	n := 0
	for _, list := range unended {
		for _, name := range list {
			if html.UnescapeString("&"+name) == "&"+name {
				t.Errorf("&%s is no name", name)
			}
			n++
		}
	}
	var arena Arena
	r := rand.New(rand.NewSource(1))
	const letters = "abcdefghilmnopqrstuvxyzABCDEGHILMNOPQRTUVY1234"
	for range 300_000 {
		var b strings.Builder
		b.WriteByte('&')
		for range 1 + r.Intn(6) {
			b.WriteByte(letters[r.Intn(len(letters))])
		}
		s := b.String()
		if r.Intn(3) == 0 { // a known name, with one letter changed or more behind it
			list := unended[letters[r.Intn(len(letters))]]
			if len(list) > 0 {
				s = "&" + list[r.Intn(len(list))] + s[1:]
			}
		}
		arena.Reset()
		if got, _ := htmlEntityDecode(&arena, s); got != html.UnescapeString(s) {
			t.Fatalf("%q: %q, want %q", s, got, html.UnescapeString(s))
		}
	}
	if n < 100 {
		t.Errorf("%d names", n)
	}
}
