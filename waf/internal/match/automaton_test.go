package match_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

func TestAutomaton(t *testing.T) {
	tests := []struct {
		literals []string
		text     string
		want     []int32
	}{
		{nil, "anything", nil},
		{[]string{"a"}, "", nil},
		{[]string{"he", "she", "his", "hers"}, "uSHErs", []int32{0, 1, 3}},
		{[]string{"he", "HE", "he"}, "the", []int32{0, 1, 2}},
		{[]string{"", "e"}, "the", []int32{1}},
		{[]string{"abcd", "bc", "c"}, "abce", []int32{1, 2}},
		{[]string{"[", "{"}, "{[", []int32{0, 1}}, // differ by the bit of a letter's case
		{[]string{"\xc3\xa9"}, "\xc3\x89", nil},   // only ASCII is folded
		{[]string{"\x00\xff"}, "a\x00\xffb", []int32{0}},
	}
	for _, tt := range tests {
		a := match.NewAutomaton(tt.literals)
		got := slices.Sorted(slices.Values(a.Scan(a.NewScanner(), tt.text)))
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q in %q: %v, want %v", tt.literals, tt.text, got, tt.want)
		}
		if a.Contains(tt.text) != (len(tt.want) > 0) {
			t.Errorf("%q in %q: Contains does not agree with Scan", tt.literals, tt.text)
		}
	}
}

// An automaton finds what strings.Contains finds in folded text, also with so
// many literals that only some states have a row.
func TestAutomatonFindsAll(t *testing.T) {
	for _, few := range []int{1, 5, 300, 20000} {
		rnd := rand.New(rand.NewPCG(1, uint64(few)))
		literals := make([]string, few)
		for i := range literals {
			literals[i] = randomText(rnd, "abcdeABxyz\xc5\xbf", 1+rnd.IntN(12))
		}
		a := match.NewAutomaton(literals)
		sc := a.NewScanner()
		for range 2000 / len(literals) * 5 {
			check(t, a, sc, literals, randomText(rnd, "abcdeABCDxyz\xc5\xbf", rnd.IntN(80)))
		}
		for range 20 {
			text := literals[rnd.IntN(few)] + literals[rnd.IntN(few)] + "-" + literals[rnd.IntN(few)]
			check(t, a, sc, literals, text)
		}
	}
}

func randomText(rnd *rand.Rand, from string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = from[rnd.IntN(len(from))]
	}
	return string(b)
}

func check(t *testing.T, a *match.Automaton, sc *match.Scanner, literals []string, text string) {
	t.Helper()
	var want []int32
	for i, l := range literals {
		if l != "" && strings.Contains(lowered(text), lowered(l)) {
			want = append(want, int32(i))
		}
	}
	got := slices.Sorted(slices.Values(a.Scan(sc, text)))
	if !slices.Equal(got, want) {
		t.Fatalf("%d literals in %q: %v, want %v", len(literals), text, got, want)
	}
	if a.Contains(text) != (len(want) > 0) {
		t.Fatalf("%d literals in %q: Contains does not agree with Scan", len(literals), text)
	}
}

// lowered makes ASCII letters small, and leaves other bytes as they are.
func lowered(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func FuzzAutomaton(f *testing.F) {
	f.Add("he she his hers", "ushers")
	f.Add("a aa aaa \xff", "aAaaa\xff")
	f.Fuzz(func(t *testing.T, literals, text string) {
		if len(literals) > 200 || len(text) > 200 {
			return
		}
		list := strings.Split(literals, " ")
		a := match.NewAutomaton(list)
		check(t, a, a.NewScanner(), list, text)
	})
}
