package match

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"sync"

	"rsc.io/binaryregexp"
	binary "rsc.io/binaryregexp/syntax"
)

// maxGroups is how many groups Submatch tells at most, the whole match being
// the first: Coraza has TX:0 to TX:8.
const maxGroups = 9

// A Regexp is a pattern as Coraza's @rx reads it. It may be used by several
// goroutines at once.
type Regexp struct {
	expr     string
	bytes    bool // reads bytes, not characters
	groups   int
	required Requirement
	dfa      *dfa // nil if the pattern is too large for one
	// find is made when it is first needed: most patterns of a rule set never
	// come that far, and it is by far the largest part.
	find func() finder
}

// A finder is what regexp and binaryregexp have in common.
type finder interface {
	MatchString(s string) bool
	FindStringSubmatchIndex(s string) []int
}

// Compile reads a pattern: by regexp, with (?sm) before it, or by binaryregexp
// without it where the pattern speaks of bytes that are no UTF-8.
func Compile(expr string) (*Regexp, error) {
	r := &Regexp{expr: expr, bytes: speaksOfBytes(expr)}
	tree, err := r.parse()
	if err != nil {
		return nil, fmt.Errorf("@rx %.200q: %w", expr, err)
	}
	r.groups = tree.MaxCap()
	r.required = requirement(tree, r.bytes)
	n, err := newNFA(tree, r.bytes)
	switch {
	case err == nil:
		r.dfa = newDFA(n)
	case !errors.Is(err, errTooLarge):
		return nil, fmt.Errorf("@rx %.200q: %w", expr, err)
	}
	if r.bytes {
		r.find = sync.OnceValue(func() finder { return binaryregexp.MustCompile(expr) })
	} else {
		r.find = sync.OnceValue(func() finder { return regexp.MustCompile(flags + expr) })
	}
	return r, nil
}

// flags are what Coraza 3.8 puts before every pattern that is not of bytes.
const flags = "(?sm)"

func (r *Regexp) parse() (*syntax.Regexp, error) {
	if !r.bytes {
		tree, err := syntax.Parse(flags+r.expr, syntax.Perl)
		return tree, err
	}
	tree, err := binary.Parse(r.expr, binary.Perl)
	if err != nil {
		return nil, err
	}
	return translate(tree), nil
}

// translate makes a tree of regexp/syntax of its elder brother's. Operators
// and flags have the same numbers in both.
func translate(from *binary.Regexp) *syntax.Regexp {
	to := &syntax.Regexp{
		Op: syntax.Op(from.Op), Flags: syntax.Flags(from.Flags), Rune: from.Rune,
		Min: from.Min, Max: from.Max, Cap: from.Cap, Name: from.Name,
	}
	for _, sub := range from.Sub {
		to.Sub = append(to.Sub, translate(sub))
	}
	return to
}

// Match tells whether the pattern matches s anywhere.
func (r *Regexp) Match(s string) bool {
	if r.dfa != nil {
		if found, ok := r.dfa.match(s); ok {
			return found
		}
	}
	return r.find().MatchString(s)
}

// Submatch is Match with the texts of the groups, appended to dst: of the
// match that regexp finds, the leftmost and there the first. At most the first
// nine are told, the whole match being one; a group that did not take part is
// empty.
func (r *Regexp) Submatch(s string, dst []string) ([]string, bool) {
	if !r.Match(s) { // much the cheaper question
		return dst, false
	}
	at := r.find().FindStringSubmatchIndex(s)
	if at == nil {
		return dst, false
	}
	for i := 0; i < len(at) && i < 2*maxGroups; i += 2 {
		text := ""
		if at[i] >= 0 {
			text = s[at[i]:at[i+1]]
		}
		dst = append(dst, text)
	}
	return dst, true
}

// Groups is the number of groups in the pattern, the whole not counted.
func (r *Regexp) Groups() int { return r.groups }

// Required is what a text must hold to be matched.
func (r *Regexp) Required() Requirement { return r.required }
