package operator

import (
	"slices"
	"sort"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

// A pattern is @rx.
type pattern struct {
	re *match.Regexp
}

func newPattern(expr string) (Operator, error) {
	re, err := match.Compile(expr)
	if err != nil {
		return nil, err
	}
	return pattern{re}, nil
}

func (p pattern) Match(value, _ string) bool { return p.re.Match(value) }

// Capture sets the whole match and the groups, nine in all; those that took
// no part are empty.
func (p pattern) Capture(value, _ string, c *Captures) bool {
	groups, ok := p.re.Submatch(value, c.Values[:0])
	if ok {
		c.N = max(c.N, len(groups))
		c.Set = true
	}
	return ok
}

func (p pattern) Required() match.Requirement { return p.re.Required() }

// words is @pm: any of some words, anywhere, whatever the case of ASCII
// letters. Letters outside ASCII match only small ones.
type words struct {
	any    *match.Automaton
	sorted []string
	first  [257]int // where in sorted the words begin that begin with a byte
	empty  bool     // the empty word is one of them
}

func newWords(list []string) *words {
	w := &words{sorted: make([]string, len(list))}
	for i, word := range list {
		w.sorted[i] = strings.ToLower(word)
	}
	slices.Sort(w.sorted)
	w.sorted = slices.Compact(w.sorted)
	if len(w.sorted) > 0 && w.sorted[0] == "" {
		w.empty = true
		w.sorted = w.sorted[1:]
	}
	for c := range 257 {
		w.first[c] = sort.Search(len(w.sorted), func(i int) bool { return int(w.sorted[i][0]) >= c })
	}
	w.any = match.NewAutomaton(w.sorted)
	return w
}

func (w *words) Match(value, _ string) bool { return w.empty || w.any.Contains(value) }

// Capture sets the longest word at each place where one begins, ten at most.
func (w *words) Capture(value, _ string, c *Captures) bool {
	if !w.Match(value, "") {
		return false
	}
	n := 0
	for i := 0; i <= len(value) && n < len(c.Values); i++ {
		if l := w.longest(value[i:]); l >= 0 {
			c.set(n, value[i:i+l])
			n++
		}
	}
	return true
}

// longest is the length of the longest word that s begins with; -1 if there
// is none.
func (w *words) longest(s string) int {
	best := -1
	if w.empty {
		best = 0
	}
	if s == "" {
		return best
	}
	c := int(lowerByte(s[0]))
	left := w.sorted[w.first[c]:w.first[c+1]] // all that have the first n bytes of s
	for n := 1; len(left) > 0; n++ {
		if len(left[0]) == n {
			best = n
			left = left[1:]
		}
		if n == len(s) {
			break
		}
		left = narrow(left, n, lowerByte(s[n]))
	}
	return best
}

// narrow keeps those of some sorted words, all longer than i, whose byte i
// is c.
func narrow(words []string, i int, c byte) []string {
	lo := sort.Search(len(words), func(k int) bool { return words[k][i] >= c })
	words = words[lo:]
	hi := sort.Search(len(words), func(k int) bool { return words[k][i] > c })
	return words[:hi]
}

func (w *words) Required() match.Requirement {
	if w.empty {
		return match.Requirement{}
	}
	return oneOf(w.sorted)
}
