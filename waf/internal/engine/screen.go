package engine

import (
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/match"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// A screen finds the rules of two phases that may fire. Every rule has one
// trigger: a condition without which it cannot fire. The triggers are sorted
// by the class of values that they look at and by the transformations that
// they want, so that each value is transformed and searched once for all.
type screen struct {
	side     int // 0: of requests, 1: of answers
	classes  []class
	variable [numVariables]int            // class of a variable's values; 0 if no trigger looks at them
	names    [numVariables]int            // class of a keyed variable's keys
	fields   [numVariables]map[string]int // classes of single header fields, by lower-case name
	singles  []seclang.Variable           // variables of one value that have a class
	uri      int                          // class of REQUEST_URI and REQUEST_URI_RAW, where they are the same

	automaton *match.Automaton
	refs      [][]ref                  // what a literal stands for, by its number
	present   [numVariables][]presence // rules to try where a variable has values, or some key has one
	whole     []*rule                  // rules to try on each message, since no value can be their trigger
	cache     cache
}

// A class is a set of values that the same triggers look at.
type class struct {
	chains []chain
	keyed  bool // some triggers look at the values of some keys only
	few    bool // there are so few literals that they are not searched for: see fewWords

	// What is known of the first 64 chains and asks from the bytes that a value
	// has: the marks in base, and those of each byte in it. Of further ones
	// nothing is known.
	base  marks
	bytes [256]marks
	high  uint64 // chains that may if any byte is not ASCII
	wordy uint64 // chains with literals

	asks    []ask    // of chains that leave the value as it is
	keepers []keeper // steps that leave most values as they are
	groups  []group
}

// marks are sets of a class's chains and asks.
type marks struct {
	may     uint64 // chains that may make something that a trigger accepts
	changed uint64 // chains that may make something else of the value
	asks    uint64 // asks that may be answered with yes
}

// An ask is a trigger without literals under one of its chains, or any if
// there are few.
type ask struct {
	check *check
	node  int
	chain int
}

// A keeper is a step that knows which values it leaves as they are, and the
// chains that it is in.
type keeper struct {
	step   step
	chains uint64
}

// A group is chains that begin with the same steps up to one that changes
// whatever it gets, taken for one chain.
type group struct {
	chain
	chains uint64
	decode bool          // the step is base64Decode, and those after it are narrowing
	first  bool          // no step before it makes anything of a value without such bytes, or other letters
	before match.ByteSet // bytes that the steps before it change, but for white space that they remove
}

// A chain is a node of the tree of transformations, and the triggers that
// must be asked about every value that has it.
type chain struct {
	node  int
	every []*check
	wordy []*check      // the triggers with literals
	clues match.ByteSet // every value that any trigger accepts has one of these bytes, after the transformations
	words match.ByteSet // the same of the triggers with literals
	cut   int           // the last node that changes whatever it gets; 0 if none does
	rest  match.ByteSet // bytes without any of which the steps after it only take bytes away
	lower bool          // one of these steps makes letters lower-case, of which some become ASCII
	all   []*check      // every trigger of the chain
	least int           // bytes that every value has that any trigger accepts
	depth int           // number of steps, each of which may add a byte
}

// A check is a trigger.
type check struct {
	index   int
	rule    *rule
	link    *link
	first   bool // the trigger is the rule's first condition
	needs   []match.ByteSet
	clue    match.ByteSet   // one of needs, or a byte of each literal: what is rarest
	words   []match.ByteSet // the bytes of each literal, if these are few: a value that is accepted has all of one
	least   int             // bytes that a value has that is accepted
	keyed   bool            // it looks at some keys only
	bytes   bool
	targets []target // without counts
}

// A presence is a rule that cannot fire unless a key has a value, or any has if
// none is named.
type presence struct {
	key  string
	rule *rule
}

// A ref says for which classes and at which node a literal is one of a check.
type ref struct {
	check   *check
	classes match.ByteSet
	node    int
}

const maxClasses = 250

type builder struct {
	e       *Engine
	s       *screen
	last    int // the later phase
	numbers map[string]int
	texts   []string
}

func (e *Engine) newScreen(phases ...int) *screen {
	s := &screen{side: phases[0] / 3, classes: make([]class, 2), uri: 1}
	b := &builder{e: e, s: s, last: phases[len(phases)-1], numbers: map[string]int{}}
	var triggers []*check
	for _, phase := range phases {
		for _, o := range e.phases[phase] {
			if o.rule == nil || !o.rule.effect {
				continue
			}
			if c := b.trigger(o.rule); c != nil {
				triggers = append(triggers, c)
			} else if l := b.counting(o.rule); l != nil {
				for i := range l.targets {
					g := &l.targets[i]
					of, _, _ := collection(g.Var)
					p := presence{rule: o.rule}
					if g.Regex == nil {
						p.key = g.Key
					}
					s.present[of] = append(s.present[of], p)
				}
			} else if b.onMessage(o.rule) {
				s.whole = append(s.whole, o.rule)
			}
		}
	}
	for _, c := range triggers {
		b.fieldClasses(c)
	}
	for _, c := range triggers {
		b.place(c)
	}
	for i := range s.classes {
		b.seal(&s.classes[i])
	}
	for v := range seclang.Variable(numVariables) {
		if _, _, keyed := collection(v); !keyed && s.variable[v] > 0 {
			s.singles = append(s.singles, v)
		}
	}
	s.automaton = match.NewAutomaton(b.texts)
	return s
}

// onMessage reports whether a rule depends on the message at all. Others are
// evaluated whenever anything is.
func (b *builder) onMessage(r *rule) bool {
	return slices.ContainsFunc(r.links, func(l *link) bool {
		return slices.ContainsFunc(l.targets, func(g target) bool { return !internal(g.Var) }) ||
			slices.ContainsFunc(l.arg, func(k token) bool { return k.Var != seclang.Unknown && !internal(k.Var) })
	})
}

// internal variables are what rules remember, not what a message holds.
func internal(v seclang.Variable) bool {
	switch v {
	case seclang.TX, seclang.MatchedVar, seclang.MatchedVarName, seclang.MatchedVars, seclang.MatchedVarsNames, seclang.RuleMeta,
		seclang.HighestSeverity:
		return true
	}
	return false
}

// fieldClasses makes classes for the header fields that a trigger names.
func (b *builder) fieldClasses(c *check) {
	for i := range c.targets {
		g := &c.targets[i]
		if g.Var != seclang.RequestHeaders && g.Var != seclang.ResponseHeaders {
			continue
		}
		names := []string{g.Key}
		for _, x := range g.Except {
			names = append(names, x.Key)
		}
		for _, name := range names {
			if name == "" || len(b.s.classes) >= maxClasses {
				continue
			}
			m := b.s.fields[g.Var]
			if m == nil {
				m = map[string]int{}
				b.s.fields[g.Var] = m
			}
			if m[name] == 0 {
				b.s.classes = append(b.s.classes, class{})
				m[name] = len(b.s.classes) - 1
			}
		}
	}
}

// classesOf returns the classes that a target looks at.
func (b *builder) classesOf(r *rule, g *target) []int {
	of := func(list *[numVariables]int, v seclang.Variable) int {
		if list[v] == 0 {
			b.s.classes = append(b.s.classes, class{})
			list[v] = len(b.s.classes) - 1
		}
		return list[v]
	}
	var out []int
	add := func(v seclang.Variable) {
		if r.Phase == 1 && ofBody(v) {
			return
		}
		if from, names, ok := collection(v); ok && names {
			out = append(out, of(&b.s.names, from))
			return
		}
		out = append(out, of(&b.s.variable, v))
	}
	switch g.Var {
	case seclang.Args:
		add(seclang.ArgsGet)
		add(seclang.ArgsPost)
	case seclang.ArgsNames:
		add(seclang.ArgsGetNames)
		add(seclang.ArgsPostNames)
	case seclang.RequestHeaders, seclang.ResponseHeaders:
		if n := b.s.fields[g.Var][g.Key]; g.Key != "" && g.Regex == nil && n > 0 {
			return []int{n}
		}
		add(g.Var)
		for name, n := range b.s.fields[g.Var] {
			if !slices.ContainsFunc(g.Except, func(x seclang.Selector) bool { return x.Regex == nil && x.Key == name }) {
				out = append(out, n)
			}
		}
	default:
		add(g.Var)
	}
	return out
}

// place enters a trigger in its classes.
func (b *builder) place(c *check) {
	var in match.ByteSet
	for i := range c.targets {
		for _, n := range b.classesOf(c.rule, &c.targets[i]) {
			in.Add(byte(n))
		}
		if v := c.targets[i].Var; v == seclang.RequestURI || v == seclang.RequestURIRaw {
			in.Add(byte(b.s.uri))
		}
	}
	nodes := []int{c.link.chain}
	if c.link.MultiMatch {
		for n := b.e.nodes[c.link.chain].parent; n >= 0; n = b.e.nodes[n].parent {
			nodes = append(nodes, n)
		}
	}
	literals := requirement(c.link).Literals
	if slices.Contains(literals, "") {
		literals = nil
	}
	literals = b.asBytes(c, literals)
	c.clue = clue(c.needs, literals)
	c.words = spelling(literals)
	for n := range b.s.classes {
		if !in.Has(byte(n)) {
			continue
		}
		for _, node := range nodes {
			b.enter(&b.s.classes[n], node, c, len(literals) > 0)
		}
	}
	for _, text := range literals {
		n, ok := b.numbers[text]
		if !ok {
			n = len(b.texts)
			b.numbers[text] = n
			b.texts = append(b.texts, text)
			b.s.refs = append(b.s.refs, nil)
		}
		for _, node := range nodes {
			b.s.refs[n] = append(b.s.refs[n], ref{c, in, node})
		}
	}
}

// asBytes makes a set of bytes of literals that are all one byte long: that
// is cheaper to look for.
func (b *builder) asBytes(c *check, literals []string) []string {
	if len(literals) == 0 || slices.ContainsFunc(literals, func(s string) bool { return len(s) > 1 }) {
		return literals
	}
	var set match.ByteSet
	for _, s := range literals {
		set.Add(s[0])
	}
	c.needs = append([]match.ByteSet{set.Folded()}, c.needs...)
	return nil
}

func (b *builder) enter(cl *class, node int, c *check, literal bool) {
	i := slices.IndexFunc(cl.chains, func(ch chain) bool { return ch.node == node })
	if i < 0 {
		i = len(cl.chains)
		cl.chains = append(cl.chains, b.newChain(node))
	}
	cl.keyed = cl.keyed || c.keyed && !b.field(cl)
	cl.chains[i].add(c)
	if literal {
		cl.chains[i].words.Or(&c.clue)
		cl.chains[i].wordy = append(cl.chains[i].wordy, c)
	} else {
		cl.chains[i].every = append(cl.chains[i].every, c)
	}
}

// add enters a trigger among all of a chain.
func (ch *chain) add(c *check) {
	if len(ch.all) == 0 || c.least < ch.least {
		ch.least = c.least
	}
	ch.clues.Or(&c.clue)
	ch.all = append(ch.all, c)
}

func (b *builder) newChain(node int) chain {
	ch := chain{node: node}
	for n := node; n > 0; n = b.e.nodes[n].parent {
		ch.depth++
	}
	for n := node; n > 0; n = b.e.nodes[n].parent {
		if b.e.nodes[n].step.Always {
			ch.cut = n
			return ch
		}
		switch step := b.e.nodes[n].step; {
		case slices.Contains(decoding, step.Name):
			ch.rest.Add('%')
		case !slices.Contains(shrinking, step.Name):
			ch.rest.Or(&b.e.nodes[n].alters)
		}
		ch.lower = ch.lower || b.e.nodes[n].step.Folds
	}
	return ch
}

// clue returns a set of bytes of which every value that is accepted has one.
func clue(needs []match.ByteSet, literals []string) match.ByteSet {
	all := ^uint64(0)
	best := match.ByteSet{all, all, all, all}
	for _, set := range append(needs, rarestBytes(literals)...) {
		if commonness(&set) < commonness(&best) {
			best = set
		}
	}
	return best
}

// maxWords is how many literals are told apart by their bytes.
const maxWords = 64

// spelling returns the bytes of each literal, without those sets that have
// another one in them; nil if there are none, or too many.
func spelling(literals []string) (words []match.ByteSet) {
	for _, s := range literals {
		set := match.Presence(s)
		if slices.ContainsFunc(words, func(w match.ByteSet) bool { return w.Within(&set) }) {
			continue
		}
		words = append(slices.DeleteFunc(words, func(w match.ByteSet) bool { return set.Within(&w) }), set)
	}
	if len(words) > maxWords {
		return nil
	}
	return words
}

// rarestBytes chooses one byte of each literal.
func rarestBytes(literals []string) []match.ByteSet {
	if len(literals) == 0 {
		return nil
	}
	var set match.ByteSet
	for _, s := range literals {
		rarest := s[0]
		for i := range len(s) {
			if common(s[i]) < common(rarest) {
				rarest = s[i]
			}
		}
		set.Add(rarest)
	}
	return []match.ByteSet{set.Folded()}
}

// common tells roughly how many values have a byte, in percent.
func common(c byte) int {
	switch {
	case strings.IndexByte("eaiotnsrldEAIOTNSRLD", c) >= 0:
		return 60
	case strings.IndexByte("jqxzJQXZ", c) >= 0:
		return 5
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == ' ', c == '.', c == '/', c == '-':
		return 30
	case '0' <= c && c <= '9':
		return 20
	case strings.IndexByte(",:=_?&@+", c) >= 0:
		return 10
	}
	return 1
}

func commonness(set *match.ByteSet) int {
	n := 0
	for c := range 256 {
		if set.Has(byte(c)) {
			n += common(byte(c))
		}
	}
	return n
}

// field reports whether a class is that of one header field.
func (b *builder) field(cl *class) bool {
	for _, m := range b.s.fields {
		for _, n := range m {
			if &b.s.classes[n] == cl {
				return true
			}
		}
	}
	return false
}
