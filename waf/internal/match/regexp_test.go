package match_test

import (
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"

	"rsc.io/binaryregexp"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

// An oracle is a pattern as Coraza itself runs it.
type oracle interface {
	MatchString(s string) bool
	FindStringSubmatch(s string) []string
	NumSubexp() int
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
	if len(text) < req.Least {
		t.Fatalf("%q matches %q, which has less than %d bytes", s.expr, text, req.Least)
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
	const samples = 40
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

// edges are patterns that are easy to get wrong, each with a text.
var edges = []struct{ expr, text string }{
	{``, ""},
	{`a|`, "b"},
	{`^$`, "a\n\nb"},
	{`^$`, "a"},
	{`$^`, "\n"},
	{`^a$`, "b\na\nb"},
	{`\Aa\z`, "a\n"},
	{`(?-m:^a$)`, "b\na"},
	{`a.b`, "a\nb"},
	{`(?-s:a.b)`, "a\nb"},
	{`\bfoo\b`, "éfoo\xff"},
	{`\Bfoo`, "_foo"},
	{`\b`, ""},
	{`\B`, ""},
	{`(?:\b|a)\Bb`, "ab"},
	{`\b^a`, "a"},
	{`$\nb`, "a\nb"},
	{`(?i)kiss`, "\u212Aiſs"},
	{`(?i)straße`, "ſTRASSE STRAẞE"},
	{`(?i)[^k]`, "K\u212A"},
	{`ſ`, "ſ"},
	{`[ſ]x`, "ſx"},
	{`(?i)é`, "É"},
	{`é`, "\xc3"},
	{"\ufffd", "\xff"},
	{"a[\ufffd]", "a\xff"},
	{`[^a]`, "\x80"},
	{`^.{3}$`, "é漢\xff"},
	{`^.$`, "\xe2\x84"},
	{`^..$`, "\xe2\x84"},
	{`\x{D800}`, "\ufffd"},
	{`[\x{D000}-\x{E000}]`, "\ue000"},
	{`[\x{D800}-\x{E000}]`, "\ue000"},
	{"[\\p{Cs}\ue000]", "\ue000"},
	{`\x{10FFFF}`, "\U0010FFFF"},
	{`\xff`, "\xff"},
	{`\xffs`, "\xffſ"},
	{`(?i)\xffS`, "\xffs\xff\xc5"},
	{`\xff|[\xc0-\xc6]`, "ſ"},
	{`\xe2\x84`, "\u212A"},
	{`[\xff\x{2}a-z]+`, "\xffa"},
	{`(?i)\xb5|\xff`, "\xb5"},
	{`^\xff$`, "a\n\xff"},
	{`\\x80`, "\x80"},
	{`a{0}`, "b"},
	{`a{3}`, "aa"},
	{`(?:ab){2,3}c`, "ababc"},
	{`(?:a|b?){1,1000}c`, "c"},
	{`a{1,1000}b`, "aaab"},
	{`(?:a{0,3}){2}b`, "b"},
	{`[^\x00-\x{10FFFF}]|a`, "a"},
	{`x*`, "y"},
	{`(?:x*)+y`, "y"},
	{`(?:(?:a|b)c|d(?:e|f))g`, "dfg"},
	{`(a)|(b)`, "b"},
	{`(a+)(?:(b)|(c))*`, "xaabcb"},
	{`(?U)a+`, "aa"},
	{`(|a)*b`, "aab"},
	{`(|a)+`, "aa"},
	{`(1)(2)(3)(4)(5)(6)(7)(8)(9)(a)`, "123456789a"},
	{`\pN\d`, "٣5"},
	{`\PN`, "5"},
	{`[[:word:]]\S\W\D`, "a! x"},
	{`\x{2028}$`, "\u2028"},
	{`\Q.*\E`, ".*"},
}

func TestEdges(t *testing.T) {
	for _, e := range edges {
		s := newSubject(t, e.expr)
		s.check(t, e.text)
		s.checkGroups(t, e.text)
		g := newGenerator(e.expr, s.Required().Bytes)
		for range 300 {
			text := g.member(s.Tree())
			s.check(t, text)
			s.check(t, g.mutate(text))
			s.check(t, g.mutate(e.text))
		}
	}
}

// checkGroups asks what the groups took.
func (s *subject) checkGroups(t testing.TB, text string) {
	t.Helper()
	want := s.oracle.FindStringSubmatch(text)
	if s.Groups() != s.oracle.NumSubexp() {
		t.Fatalf("%q: %d groups, want %d", s.expr, s.Groups(), s.oracle.NumSubexp())
	}
	want = want[:min(len(want), 9)]
	got, ok := s.Submatch(text, []string{"kept"})
	if ok != (want != nil) || got[0] != "kept" || !slices.Equal(got[1:], want) {
		t.Fatalf("%q in %q: groups %q %v, want %q", s.expr, text, got, ok, want)
	}
}

func TestCompileErrors(t *testing.T) {
	for _, expr := range []string{`(`, `a{1001}`, `[z-a]`, "\xff(", `(?=a)`, `\8`} {
		if _, err := match.Compile(expr); err == nil {
			t.Errorf("%q: no error", expr)
		}
	}
}

// What is of bytes is decided as Coraza decides it.
func TestBytes(t *testing.T) {
	tests := map[string]bool{
		`abc`: false, `é`: false, `\xe9`: true, `\xc3\xa9`: false, `\x{e9}`: true, `\x{c3}\x{a9}`: false,
		`\x{1F600}`: false, `\x{80}`: true, `\\x80`: true, `\x8`: false, `\x80`: true, `[\x80-\xff]`: true,
		`\x`: false, `\x{`: false, `\x{}a`: false, `\x{8}`: false, `\x{808}`: true, `\xzz`: false,
	}
	for expr, want := range tests {
		r, err := match.Compile(expr)
		if err != nil {
			continue // it is Coraza's, too: see below
		}
		if got := r.Required().Bytes; got != want {
			t.Errorf("%q: of bytes %v, want %v", expr, got, want)
		}
	}
}

func FuzzRegexp(f *testing.F) {
	for _, e := range edges {
		f.Add(e.expr, e.text, uint64(1))
	}
	f.Fuzz(func(t *testing.T, expr, text string, seed uint64) {
		if len(expr) > 100 || len(text) > 200 {
			return
		}
		if _, err := match.Compile(expr); err != nil {
			if _, err := regexp.Compile("(?sm)" + expr); err == nil {
				if _, err := binaryregexp.Compile(expr); err == nil {
					t.Fatalf("%q does not compile", expr)
				}
			}
			return
		}
		s := newSubject(t, expr)
		s.check(t, text)
		s.checkGroups(t, text)
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 2)), bytes: s.Required().Bytes}
		for range 10 {
			member := g.member(s.Tree())
			if len(member) > 300 { // regexp takes long with large patterns
				continue
			}
			s.check(t, member)
			s.check(t, g.mutate(member))
		}
	})
}
