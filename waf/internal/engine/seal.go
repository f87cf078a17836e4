package engine

import (
	"math/bits"
	"slices"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

// seal notes what the bytes of a value tell about a class's chains.
func (b *builder) seal(cl *class) {
	cl.few = fewWords(cl)
	for i := range min(len(cl.chains), 64) {
		ch := &cl.chains[i]
		bit := uint64(1) << i
		if ch.cut > 0 || ch.clues.Meets(&added) {
			cl.base.may |= bit
		}
		for c := range 256 {
			if ch.clues.Has(byte(c)) || ch.rest.Has(byte(c)) {
				cl.bytes[c].may |= bit
				if c >= 0x80 {
					cl.high |= bit
				}
			}
		}
		if ch.lower {
			cl.high |= bit
		}
		asked := ch.every
		if cl.few {
			asked = ch.all
		} else if len(ch.wordy) > 0 {
			cl.wordy |= bit
		}
		b.sealSteps(cl, ch.node, bit)
		for _, c := range asked {
			cl.asks = append(cl.asks, ask{c, ch.node, i})
		}
		if ch.cut > 0 {
			b.join(cl, ch, bit)
		}
	}
	for i := range min(len(cl.asks), 64) {
		cl.asks[i].seal(cl, uint64(1)<<i)
	}
	b.sealFolding(cl)
}

// fewWords reports whether a class has so few triggers with literals, and these
// so few literals, that to see which of them the bytes of a value spell is
// cheaper than to search it.
func fewWords(cl *class) bool {
	words := 0
	seen := map[*check]bool{}
	for i := range cl.chains {
		for _, c := range cl.chains[i].wordy {
			if c.words == nil {
				return false
			}
			if !seen[c] {
				words += len(c.words)
			}
			seen[c] = true
		}
	}
	return len(seen) <= 4 && words <= 32
}

// sealFolding has each byte that is not ASCII mean what it may become by
// folding as well: at once, or when others are taken away from between.
func (b *builder) sealFolding(cl *class) {
	for c := range 256 {
		var one match.ByteSet
		one.Add(byte(c))
		for _, to := range "sk" {
			if read := one.Read(); c >= 0x80 && read.Has(byte(to)) {
				cl.bytes[c].or(&cl.bytes[to])
				cl.high |= cl.bytes[to].may
			}
		}
	}
}

// sealSteps notes which bytes the steps of a chain change.
func (b *builder) sealSteps(cl *class, node int, bit uint64) {
	if b.e.nodes[node].always {
		cl.base.changed |= bit
	}
	for n := node; n > 0; n = b.e.nodes[n].parent {
		step := b.e.nodes[n].step
		if step.Keeps != nil {
			i := slices.IndexFunc(cl.keepers, func(k keeper) bool { return k.step == step })
			if i < 0 {
				i = len(cl.keepers)
				cl.keepers = append(cl.keepers, keeper{step: step})
			}
			cl.keepers[i].chains |= bit
			continue
		}
		for c := range 256 {
			if b.e.nodes[n].alters.Has(byte(c)) {
				cl.bytes[c].changed |= bit
			}
		}
	}
}

// join enters a chain in its group.
func (b *builder) join(cl *class, ch *chain, bit uint64) {
	i := slices.IndexFunc(cl.groups, func(g group) bool { return g.cut == ch.cut })
	if i < 0 {
		i = len(cl.groups)
		cl.groups = append(cl.groups, b.newGroup(ch.cut))
	}
	g := &cl.groups[i]
	g.chains |= bit
	g.rest.Or(&ch.rest)
	g.lower = g.lower || ch.lower
	g.depth = max(g.depth, ch.depth)
	for n := ch.node; n != ch.cut; n = b.e.nodes[n].parent {
		g.decode = g.decode && slices.Contains(narrowing, b.e.nodes[n].step.Name)
	}
	for _, c := range ch.all {
		if !slices.Contains(g.all, c) {
			g.add(c)
		}
	}
}

func (b *builder) newGroup(cut int) group {
	g := group{chain: chain{cut: cut}}
	g.decode = b.e.nodes[cut].step.Name == "base64Decode"
	parent := &b.e.nodes[b.e.nodes[cut].parent]
	g.first = !parent.folds && !parent.always
	for n := b.e.nodes[cut].parent; n > 0; n = b.e.nodes[n].parent {
		set := b.e.nodes[n].alters
		if b.e.nodes[n].step.Name == "removeWhitespace" {
			set = set.Without(&white)
		}
		g.before.Or(&set)
	}
	return g
}

// narrowing are transformations of which no result has more characters than
// the value, a byte that is no UTF-8 taken for one.
var narrowing = []string{"urlDecode", "urlDecodeUni", "jsDecode", "lowercase", "removeWhitespace", "removeNulls", "replaceComments"}

// white is what removeWhitespace removes of ASCII.
var white = func() (b match.ByteSet) {
	b.AddRange('\t', '\r')
	b.Add(' ')
	return b
}()

// tooShort reports whether a value is known to begin with too few digits of
// base64 to hold what a trigger of the group needs once they are decoded.
func (g *group) tooShort(val string, p *match.ByteSet) bool {
	if !g.decode || p.Meets(&g.before) {
		return false
	}
	digits, enough := 0, (8*g.least+5)/6
	for i := 0; i < len(val) && digits < enough; i++ {
		switch c := val[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '+', c == '/':
			digits++
		case !white.Has(c):
			return true
		}
	}
	return digits < enough
}

// seal notes which bytes a value must have for an ask.
func (a *ask) seal(cl *class, bit uint64) {
	all := true
	for c := range 256 {
		if a.check.clue.Has(byte(c)) {
			cl.bytes[c].asks |= bit
		} else {
			all = false
		}
	}
	if all { // also an empty one
		cl.base.asks |= bit
	}
}

// marks returns what the bytes of a value tell.
func (cl *class) marks(val string, p *match.ByteSet) marks {
	m := cl.base
	if high(p) {
		m.may |= cl.high
	}
	may, changed, asks := uint64(0), uint64(0), uint64(0)
	if len(val) <= 64 {
		for i := range len(val) {
			b := &cl.bytes[val[i]]
			may |= b.may
			changed |= b.changed
			asks |= b.asks
		}
	} else {
		for i, word := range p {
			for ; word != 0; word &= word - 1 {
				b := &cl.bytes[64*i+bits.TrailingZeros64(word)]
				may |= b.may
				changed |= b.changed
				asks |= b.asks
			}
		}
	}
	m.or(&marks{may, changed, asks})
	for i := range cl.keepers {
		k := &cl.keepers[i]
		if m.changed&k.chains != k.chains && p.Meets(&k.step.Changes) && !k.step.Keeps(val) {
			m.changed |= k.chains
		}
	}
	return m
}

func (m *marks) or(o *marks) {
	m.may |= o.may
	m.changed |= o.changed
	m.asks |= o.asks
}
