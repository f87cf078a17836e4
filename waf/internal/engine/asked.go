package engine

import "github.com/merlon-dev/merlon/waf/internal/operator"

// asked is what detectors of injection made of the last texts of a message.
// They are the slowest operators by far, and are asked about the same text as
// a trigger, in the probe and in the evaluation, by several rules.
type asked struct {
	last [4]struct {
		op  operator.Operator
		val string
		yes bool
	}
	next int
}

// slowFrom is the length from which on a text is worth remembering.
const slowFrom = 32

// asks asks a link's operator about a text.
func (t *transaction) asks(l *link, val, arg string) bool {
	if !l.slow || len(val) < slowFrom {
		return l.op.Match(val, arg)
	}
	for i := range t.last {
		if a := &t.last[i]; a.op == l.op && same(a.val, val) {
			return a.yes
		}
	}
	a := &t.last[t.next]
	t.next = (t.next + 1) % len(t.last)
	a.op, a.val, a.yes = l.op, val, l.op.Match(val, arg)
	return a.yes
}
