package engine

import (
	"unsafe"

	"github.com/merlon-dev/merlon/waf/internal/match"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// screening is what a transaction needs to be screened.
type screening struct {
	candidates []uint64
	dirty      bool

	scanner   [2]*match.Scanner                 // by side
	memo      []memo                            // what a node of the tree makes of the value
	applied   [2 * keptVersions][keptSteps]memo // what steps made of versions, as they are and in lower case
	spare     memo
	decoded   version // what base64Decode makes of the value,
	decodedIn uint32  // the value of this turn
	live      []int32 // chains of the value under which triggers are to be asked
	versions  []version
	low       string    // the value's key in lower case
	turn      uint32    // of the value
	recent    [2]recent // by side
	mark      uint32    // of the version
	seen      []uint32  // the version that a check has been asked about, by check
	request   uint32
	probed    []uint32 // the request in which a rule has been tried, by rule
	cross     bool     // the verdict about the value depends on more than the value
}

// A memo is what a node makes of the value: a version, or one with ASCII
// letters in lower case.
type memo struct {
	turn    uint32
	version int32
	lower   bool
	exact   string
	known   bool // exact is
	step    int  // that made it
}

// A version is a distinct text that transformations make of the value.
type version struct {
	text   string
	bytes  match.ByteSet
	folded match.ByteSet // bytes that it may have once it is folded, in either case
	mark   uint32
}

func (s *screening) forget() {
	clear(s.candidates)
	s.dirty = false
	clear(s.versions[:cap(s.versions)])
	clear(s.applied[:])
	if s.turn > 1<<31 { // long before a number comes again
		clear(s.memo)
		s.turn = 0
	}
	if s.mark > 1<<31 {
		clear(s.seen)
		s.mark = 0
	}
	if s.request > 1<<31 {
		clear(s.probed)
		s.request = 0
	}
	s.spare, s.decoded, s.decodedIn, s.low = memo{}, version{}, 0, ""
	s.versions = s.versions[:0]
}

// screen finds the candidates among the rules of a screen.
func (t *transaction) screen(s *screen) {
	t.request++
	t.phase = 2 + 2*s.side
	asSent := t.scalar[seclang.RequestURI] == t.scalar[seclang.RequestURIRaw]
	for _, v := range s.singles {
		n := s.variable[v]
		if asSent && (v == seclang.RequestURI || v == seclang.RequestURIRaw) {
			if v == seclang.RequestURI && s.variable[seclang.RequestURIRaw] > 0 {
				continue
			}
			n = s.uri
		}
		t.lookAt(s, n, v, 0, "", "", t.scalar[v])
	}
	for _, v := range collections {
		if !t.has(v) {
			continue
		}
		for _, p := range s.present[v] {
			if t.hasKey(v, &p) {
				t.try(p.rule)
			}
		}
		c, n := s.variable[v], s.names[v]
		answer := 0
		if v == seclang.ResponseHeaders {
			answer = 1
		}
		items := t.items[t.span[v].from:t.span[v].to]
		for i := range items {
			it, of := &items[i], c
			if it.field != nil && it.field.classes[s.side][answer] > 0 {
				of = it.field.classes[s.side][answer]
			}
			if of > 0 {
				t.lookAt(s, of, v, i, it.key, it.low, it.val)
			}
			if n > 0 {
				t.lookAt(s, n, v, i, it.key, it.low, it.key)
			}
		}
	}
	for _, r := range s.whole {
		t.try(r)
	}
}

// hasKey reports whether a variable that has values has one under the key.
func (t *transaction) hasKey(v seclang.Variable, p *presence) bool {
	if p.key == "" {
		return true
	}
	items := t.items[t.span[v].from:t.span[v].to]
	for i := range items {
		if items[i].low == p.key {
			return true
		}
	}
	return false
}

// collections are the variables that hold keyed values.
var collections = []seclang.Variable{
	seclang.ArgsGet, seclang.RequestCookies, seclang.RequestHeaders, seclang.ArgsPost, seclang.Files, seclang.FilesNames, seclang.FilesSizes,
	seclang.MultipartFilename, seclang.MultipartName, seclang.MultipartPartHeaders, seclang.XML, seclang.ResponseHeaders,
}

// lookAt screens one value, the one at a position of its variable, under a key
// that is low in lower case.
func (t *transaction) lookAt(s *screen, n int, v seclang.Variable, position int, key, low, val string) {
	cl := &s.classes[n]
	of := "" // the key, where it matters
	if cl.keyed {
		of = key
	}
	last := t.recent[s.side].at(n, position)
	if k := *last; k != nil && k.is(n, of, val) {
		return
	}
	place := s.cache.find(n, of, val)
	if place.hit != nil {
		*last = place.hit
		return
	}
	t.turn++
	t.cross, t.low = false, low
	t.versions = t.versions[:0]
	p := match.Presence(val)
	t.addVersion(val, p)
	t.memo[0] = memo{turn: t.turn}
	t.follow(s, cl, n, &p, v, key)
	if !t.cross {
		s.cache.keep(place, n, of, val)
	}
}

func (t *transaction) addVersion(s string, p match.ByteSet) int32 {
	t.mark++
	t.versions = append(t.versions, version{s, p, p.Read(), t.mark})
	return int32(len(t.versions) - 1)
}

// node applies the transformations up to a node, as far as they can matter.
func (t *transaction) node(n int) *memo {
	m := &t.memo[n]
	if m.turn == t.turn {
		return m
	}
	nd := &t.engine.nodes[n]
	if !nd.always && !t.versions[0].bytes.Meets(&nd.changes) {
		*m = memo{turn: t.turn, lower: nd.folds}
		return m
	}
	parent := t.node(nd.parent)
	from := &t.versions[parent.version]
	if keeps(nd, from) {
		*m = memo{turn: t.turn, version: parent.version, lower: parent.lower || nd.step.Folds}
		return m
	}
	*m = *t.apply(nd, parent)
	return m
}

// keeps reports whether a step is known to leave a text as it is, but for the
// case of letters.
func keeps(n *node, v *version) bool {
	return !n.step.Always && (!v.bytes.Meets(&n.alters) || n.step.Keeps != nil && n.step.Keeps(v.text))
}

// apply runs a step on what the steps before it made, unless another chain has
// done that to the same text.
func (t *transaction) apply(nd *node, parent *memo) *memo {
	done := &t.spare
	if parent.version < keptVersions {
		n := 2 * int(parent.version)
		if parent.lower {
			n++
		}
		done = &t.applied[n][nd.number%keptSteps]
		if done.turn == t.turn && done.step == nd.number {
			return done
		}
	}
	in := t.exact(nd.parent)
	out, _ := nd.step.Apply(&t.arena, in)
	*done = memo{turn: t.turn, version: parent.version, lower: parent.lower, exact: out, known: true, step: nd.number}
	if same(out, in) {
		return done
	}
	done.lower = false
	for i := range t.versions {
		if t.versions[i].text == out {
			done.version = int32(i)
			return done
		}
	}
	done.version = t.addVersion(out, match.Presence(out))
	return done
}

// What steps made is remembered for this many versions and steps.
const (
	keptVersions = 2
	keptSteps    = 16
)

var upper = func() (b match.ByteSet) {
	b.AddRange('A', 'Z')
	return b
}()

func same(a, b string) bool {
	return len(a) == len(b) && (unsafe.StringData(a) == unsafe.StringData(b) || a == b)
}

// exact returns what the operator gets at a node.
func (t *transaction) exact(n int) string {
	m := t.node(n)
	if m.known {
		return m.exact
	}
	m.exact, m.known = t.versions[m.version].text, true
	if m.lower {
		m.exact = t.lowerASCII(m.exact)
	}
	return m.exact
}

func (t *transaction) lowerASCII(s string) string {
	i := 0
	for i < len(s) && (s[i] < 'A' || s[i] > 'Z') {
		i++
	}
	if i == len(s) {
		return s
	}
	b := t.arena.Alloc(len(s))
	copy(b, s)
	for ; i < len(b); i++ {
		if c := b[i]; 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return text(b)
}

// scan looks for the literals of all triggers in one version of the value.
func (t *transaction) scan(s *screen, n int, version int32, v seclang.Variable, key string) {
	if t.scanner[s.side] == nil {
		t.scanner[s.side] = s.automaton.NewScanner()
	}
	sc := t.scanner[s.side]
	raw := t.versions[version].text
	folded := raw
	if high(&t.versions[version].bytes) {
		folded = match.Fold(raw)
	}
	t.refer(s, s.automaton.Scan(sc, folded), n, version, v, key)
	if !same(folded, raw) {
		t.refer(s, s.automaton.Scan(sc, raw), n, version, v, key)
	}
}

// refer asks the checks that literals stand for.
func (t *transaction) refer(s *screen, found []int32, n int, version int32, v seclang.Variable, key string) {
	for _, lit := range found {
		refs := s.refs[lit]
		for i := range refs {
			r := &refs[i]
			if r.classes.Has(byte(n)) && t.node(r.node).version == version {
				t.ask(r.check, version, r.node, v, key)
			}
		}
	}
}

// ask evaluates a trigger on one value.
func (t *transaction) ask(c *check, version int32, node int, v seclang.Variable, key string) {
	ver := &t.versions[version]
	if t.seen[c.index] == ver.mark || len(ver.text) < c.least || !c.meets(&ver.folded) {
		return
	}
	if c.keyed && !t.chosen(c, v) {
		return
	}
	if !c.link.MultiMatch || !ver.bytes.Meets(&upper) {
		t.seen[c.index] = ver.mark // every node has the same text
	}
	if t.asks(c.link, t.exact(node), c.link.fixed) == c.link.negated {
		return
	}
	t.triggered(c, v, key)
}

// chosen reports whether one of a trigger's targets means the value's key.
func (t *transaction) chosen(c *check, v seclang.Variable) bool {
	low := t.low
	for i := range c.targets {
		g := &c.targets[i]
		if !covers(g.Var, v) {
			continue
		}
		if chooses(&g.Selector, low) && !g.excepts(low) {
			return true
		}
	}
	return false
}

// covers reports whether values of a collection are among those of a target.
func covers(g, v seclang.Variable) bool {
	switch g {
	case seclang.Args, seclang.ArgsNames:
		return v == seclang.ArgsGet || v == seclang.ArgsPost
	case seclang.RequestURI:
		return v == g || v == seclang.RequestURIRaw // which stands for both if they are the same
	}
	if of, _, ok := collection(g); ok {
		return of == v
	}
	return g == v
}

// triggered tries a rule whose trigger held.
func (t *transaction) triggered(c *check, v seclang.Variable, key string) {
	r := c.rule
	if t.candidates[r.index/64]&(1<<(r.index%64)) != 0 {
		t.cross = true
		return
	}
	if !r.separate {
		t.cross = true
		t.try(r)
		return
	}
	val := t.versions[0].text
	if t.probe(r, &entry{v, key, val}) {
		t.cross = true
		t.candidate(r)
	} else if r.perNames || t.changed { // TX may be as no other message finds it
		t.cross = true
	}
}

// try tries a rule on the whole message, once for each message.
func (t *transaction) try(r *rule) {
	if t.probed[r.index] == t.request {
		return
	}
	t.probed[r.index] = t.request
	if t.probe(r, nil) {
		t.candidate(r)
	}
}

func (t *transaction) candidate(r *rule) {
	t.candidates[r.index/64] |= 1 << (r.index % 64)
	t.dirty = true
}

// probe reports whether a rule would fire, or do anything that another can
// see, and leaves no trace. With only, its first condition sees that value.
func (t *transaction) probe(r *rule, only *entry) bool {
	phase := t.phase
	t.phase = r.Phase
	t.probing, t.visible = true, false
	extra, from := len(t.extra), len(t.spots)
	if extra > 0 {
		t.kept = append(t.kept[:0], t.extra...)
	}
	t.matched = t.matched[:0]
	fires := true
	for i, l := range r.links {
		one := only
		if i > 0 {
			one = nil
		}
		if !t.runLink(r, i, l, one) {
			fires = false
			break
		}
		if t.visible {
			break
		}
	}
	t.spots = t.spots[:from]
	if extra > 0 || len(t.extra) > 0 {
		t.extra = append(t.extra[:0], t.kept[:extra]...)
		clear(t.places)
	}
	for i := len(t.undo) - 1; i >= 0; i-- {
		t.tx[t.undo[i].slot] = t.undo[i].value
	}
	t.undo = t.undo[:0]
	t.probing, t.phase = false, phase
	return fires || t.visible
}

// look notes whether a variable that is about to be set can be seen by rules
// other than the one that sets it.
func (t *transaction) look(slot int, name string, r *rule) {
	if t.visible {
		return
	}
	if slot >= 0 {
		t.visible = t.engine.sharedSlot(t.engine.readers, slot, r)
		name = t.engine.slotName[slot]
	}
	for i := range t.engine.foreign {
		f := &t.engine.foreign[i]
		if f.rule != r && f.rule.kept && chooses(&f.sel, name) {
			t.visible = true
		}
	}
}

// text is a string of bytes that are not changed any more.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
