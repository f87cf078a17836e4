package engine

import (
	"math/rand"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/merlon-dev/merlon/waf/internal/match"
	"github.com/merlon-dev/merlon/waf/internal/transform"
)

// Transformations that are taken to add nothing add nothing.
func TestShrinking(t *testing.T) {
	pieces := strings.Split("a|Z|9| |\t|\n|\x00|/|\\|..|//|/*|*/|--|#|<!--|-->|'|\"|^|,|;|(|%41|&lt;|\u212a|\u0130|\u017f|\u00c5|\x85|\xa0|\u00a0|\xff|\xc5", "|")
	r := rand.New(rand.NewSource(1))
	var arena transform.Arena
	for _, name := range shrinking {
		step, ok := transform.Lookup(name)
		if !ok {
			t.Fatal(name)
		}
		for range 20_000 {
			var b strings.Builder
			for range r.Intn(12) {
				b.WriteString(pieces[r.Intn(len(pieces))])
			}
			arena.Reset()
			in := b.String()
			out, _ := step.Apply(&arena, in)
			p := match.Presence(in)
			if step.Folds && high(&p) {
				continue // no claim
			}
			if !high(&p) && len(out) > len(in)+1 {
				t.Fatalf("%s makes %q of %q, which is longer by more than a byte", name, out, in)
			}
			have := reach(&version{bytes: p, folded: p.Read()})
			got := match.Presence(out)
			for c := range 256 {
				if got.Has(byte(c)) && !have.Has(byte(c)) {
					t.Fatalf("%s makes %q of %q", name, out, in)
				}
			}
		}
	}
}

// Transformations that are taken to add no characters add none.
func TestNarrowing(t *testing.T) {
	pieces := strings.Split("a|Z|9| |\t|\n|\x00|%|%4|%41|%u0041|%uff1c|+|\\|\\x41|\\u0041|\\101|\\n|/*|*/|\u212a|\u0130|\u017f|\u00c5|\x85|\xa0|\u00a0|\xff|\xc5|\xe2\x80", "|")
	r := rand.New(rand.NewSource(1))
	var arena transform.Arena
	for _, name := range narrowing {
		step, ok := transform.Lookup(name)
		if !ok {
			t.Fatal(name)
		}
		for range 20_000 {
			var b strings.Builder
			for range r.Intn(12) {
				b.WriteString(pieces[r.Intn(len(pieces))])
			}
			arena.Reset()
			in := b.String()
			if out, _ := step.Apply(&arena, in); utf8.RuneCountInString(out) > utf8.RuneCountInString(in) {
				t.Fatalf("%s makes %q of %q, which has more characters", name, out, in)
			}
		}
	}
}
