package match

import "slices"

// What is known is bounded, whatever the pattern. Where a bound is met less is
// known; that costs time later, never a match.
const (
	maxLiteral = 12   // bytes of a literal that is looked for
	maxLong    = 64   // bytes of a string that is known wholly
	maxProduct = 512  // strings put together of others
	maxSet     = 4096 // strings of a set
)

// knowledge is what is known of the texts that a node matches. Its sets are
// sorted. An empty set, but not nil, is that of a node that never matches.
type knowledge struct {
	exact  []string // all of them; nil if not known
	prefix []string // each begins with one of these; nil if not known
	suffix []string // each ends with one of these; nil if not known
	some   []string // each has one of these in it; nil if not known
}

var anything knowledge

// known is what is known if the texts are exactly these.
func known(exact ...string) knowledge {
	return knowledge{exact: unique(append([]string{}, exact...))}
}

func (k knowledge) starts() []string {
	if k.exact != nil {
		return k.exact
	}
	return k.prefix
}

func (k knowledge) ends() []string {
	if k.exact != nil {
		return k.exact
	}
	return k.suffix
}

// required is the best set of which each text has one in it: the one that
// ordinary texts are least likely to have; nil if there is none.
func (k knowledge) required() []string {
	return better(better(better(nil, k.some), k.starts()), k.ends())
}

// maybe is what is known of k or nothing.
func maybe(k knowledge) knowledge {
	if k.exact == nil || len(k.exact) >= maxSet {
		return anything
	}
	return known(append(slices.Clone(k.exact), "")...)
}

// atLeast is what is known of n or more of k, n being at least 1.
func atLeast(k knowledge, n int) knowledge {
	if n > 1 {
		return concat(append(times(k, n-1), atLeast(k, 1)))
	}
	return knowledge{prefix: k.starts(), suffix: k.ends(), some: k.required()}
}

func times(k knowledge, n int) []knowledge { return slices.Repeat([]knowledge{k}, n) }

// alternate is what is known of one or another of the parts.
func alternate(parts []knowledge) knowledge {
	some := shrink(union(parts, knowledge.required), head)
	exact := union(parts, func(k knowledge) []string { return k.exact })
	if exact != nil && len(exact) <= maxSet {
		return knowledge{exact: exact, some: some}
	}
	return knowledge{
		prefix: shrink(union(parts, knowledge.starts), head),
		suffix: shrink(union(parts, knowledge.ends), tail),
		some:   some,
	}
}

// union is every string of every part's set, or nil if a part has none.
func union(parts []knowledge, set func(knowledge) []string) []string {
	all := []string{}
	for _, k := range parts {
		s := set(k)
		if s == nil {
			return nil
		}
		all = append(all, s...)
	}
	return unique(all)
}

// concat is what is known of the parts one after the other.
func concat(parts []knowledge) knowledge {
	var k knowledge
	k.exact, k.prefix = run(parts, knowledge.starts, func(so, next []string) []string { return product(so, next) })
	back := slices.Clone(parts)
	slices.Reverse(back)
	_, k.suffix = run(back, knowledge.ends, func(so, next []string) []string { return product(next, so) })
	for i, part := range parts {
		k.some = better(k.some, part.some)
		if part.ends() != nil {
			k.some = better(k.some, window(part.ends(), parts[i+1:]))
		}
	}
	return k
}

// run puts parts together from one end as long as something is known of that
// end of the next. It returns all of their texts, if all are known, and the
// sets of which one is at that end.
func run(parts []knowledge, end func(knowledge) []string, join func(so, next []string) []string) (exact, ends []string) {
	ends = []string{""}
	for _, part := range parts {
		next := end(part)
		if next == nil {
			return nil, ends
		}
		joined := join(ends, next)
		if joined == nil {
			return nil, ends
		}
		ends = joined
		if part.exact == nil {
			return nil, ends
		}
	}
	return ends, ends
}

// window is the best set that the ends of a part and what may follow make.
func window(ends []string, rest []knowledge) []string {
	best := better(nil, ends)
	for _, part := range rest {
		next := part.starts()
		if next == nil {
			break
		}
		ends = product(ends, next)
		if ends == nil {
			break
		}
		best = better(best, ends)
		if part.exact == nil || shortest(ends) >= maxLiteral {
			break
		}
	}
	return best
}

// product is every string of a with every string of b behind it, or nil if
// these are too many or too long.
func product(a, b []string) []string {
	if len(a) > 1 && len(b) > 1 && len(a)*len(b) > maxProduct {
		return nil
	}
	all := make([]string, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			if len(x)+len(y) > maxLong {
				return nil
			}
			all = append(all, x+y)
		}
	}
	return unique(all)
}

func shortest(set []string) int {
	n := maxLong
	for _, s := range set {
		n = min(n, len(s))
	}
	return n
}

func unique(set []string) []string {
	slices.Sort(set)
	return slices.Compact(set)
}

// shrink cuts the strings of a set until they are few enough; nil stays nil.
func shrink(set []string, cut func(s string, n int) string) []string {
	for n := maxLiteral; set != nil && n > 0; n-- {
		short := make([]string, len(set))
		for i, s := range set {
			short[i] = cut(s, n)
		}
		if short = unique(short); len(short) <= maxSet {
			return short
		}
	}
	return nil
}

func head(s string, n int) string { return s[:min(n, len(s))] }
func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// better is the one of two sets that is less likely to be met by a text that
// means no harm. One with the empty string says nothing.
func better(a, b []string) []string {
	switch {
	case b == nil || len(b) > 0 && b[0] == "":
		return a
	case a == nil || cost(b) < cost(a):
		return b
	}
	return a
}

// minimal cuts the strings to maxLiteral and leaves out those that have
// another one in them: who has them has that one, too.
func minimal(set []string) []string {
	short := make(map[string]bool, len(set))
	for _, s := range set {
		short[head(s, maxLiteral)] = true
	}
	var all []string
	for s := range short {
		if !holdsAnother(s, short) {
			all = append(all, s)
		}
	}
	return unique(all)
}

func holdsAnother(s string, set map[string]bool) bool {
	for i := range len(s) {
		for j := i + 1; j <= len(s); j++ {
			if j-i < len(s) && set[s[i:j]] {
				return true
			}
		}
	}
	return false
}
