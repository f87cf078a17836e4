package match_test

import (
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"testing"

	"rsc.io/binaryregexp"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

// An oracle is a pattern as Coraza itself runs it.
type oracle interface {
	MatchString(s string) bool
	FindStringSubmatch(s string) []string
}

func oracleOf(t testing.TB, expr string, bytes bool) oracle {
	t.Helper()
	if bytes {
		return binaryregexp.MustCompile(expr)
	}
	return regexp.MustCompile("(?sm)" + expr)
}

// A subject is a pattern with all that is asked about it.
type subject struct {
	*match.Regexp
	expr      string
	oracle    oracle
	automaton *match.Automaton
	scanner   *match.Scanner
}

func newSubject(t testing.TB, expr string) *subject {
	t.Helper()
	r, err := match.Compile(expr)
	if err != nil {
		t.Fatal(err)
	}
	a := match.NewAutomaton(r.Required().Literals)
	return &subject{r, expr, oracleOf(t, expr, r.Required().Bytes), a, a.NewScanner()}
}

// check asks about one text and tells whether it is matched.
func (s *subject) check(t testing.TB, text string) bool {
	t.Helper()
	want := s.oracle.MatchString(text)
	if got := s.Match(text); got != want {
		t.Fatalf("%q: Match(%q) = %v, want %v", s.expr, text, got, want)
	}
	if !want {
		return false
	}
	req := s.Required()
	folded := match.Fold(text)
	if req.Literals != nil {
		in := folded
		if req.Bytes {
			in = text
		}
		if len(s.automaton.Scan(s.scanner, in)) == 0 {
			t.Fatalf("%q matches %q, which has none of %q", s.expr, text, req.Literals)
		}
	}
	for _, in := range []string{text, folded} {
		have := match.Presence(in)
		for _, need := range req.Needs {
			if !have.Meets(&need) {
				t.Fatalf("%q matches %q, which has no byte of %x", s.expr, text, need)
			}
		}
	}
	return true
}

// Every pattern of the Core Rule Set answers as Coraza's does, and what it
// matches is what it requires, for texts made from the pattern itself.
func TestCoreRuleSet(t *testing.T) {
	samples := 60
	for _, expr := range crs() {
		s := newSubject(t, expr)
		if !s.HasDFA() {
			t.Errorf("%.100q: no automaton", expr)
		}
		g := newGenerator(expr, s.Required().Bytes)
		tree, found := s.Tree(), 0
		for range samples {
			text := g.member(tree)
			if s.check(t, text) {
				found++
			}
			s.check(t, g.mutate(text))
			s.check(t, text[g.IntN(len(text)+1):]+text)
		}
		if found == 0 {
			t.Errorf("%.100q: no text made for it was matched", expr)
		}
	}
}

func newGenerator(seed string, bytes bool) *generator {
	h := fnv.New64a()
	h.Write([]byte(seed))
	return &generator{Rand: rand.New(rand.NewPCG(1, h.Sum64())), bytes: bytes}
}
