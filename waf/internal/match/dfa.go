package match

import (
	"sync"
	"sync/atomic"
)

// A dfa matches texts with one look-up a character. Its states are made when
// a text first comes to them, and kept in a table of limited size; when that
// is full they are forgotten.
type dfa struct {
	width int // classes, and the end of the text
	*classes
	// cur is replaced under mu only. Readers need no lock: a table that is no
	// longer current stays true, there is only nothing added to it.
	cur atomic.Pointer[table]

	mu sync.Mutex
	walker
}

// What a transition can be instead of the place of a row.
const (
	unknown = 0
	matched = -1
	dead    = -2 // nothing that follows can make it match
)

// A table has a row of transitions for each state: to the place of the row of
// the next, or one of the above. The first row is not used.
type table struct {
	next  []int32 // atomic
	start int32
	*states
}

// states are what the rows of a table mean. They are read and written under
// the lock, and shared by a table and the longer one that replaces it.
type states struct {
	keys []string
	rows map[string]int32
	size int // bytes of all keys
}

// A table has these bytes at most, as much again for the keys, and some rows
// in any case.
const (
	maxRowBytes = 24 << 10
	maxKeyBytes = 16 << 10
	minRows     = 16
	perKey      = 64 // what a key costs besides its length
)

func newDFA(n *nfa) *dfa {
	d := &dfa{width: len(n.kinds) + 1, classes: &n.classes, walker: newWalker(n)}
	d.cur.Store(d.newTable())
	return d
}

// newTable makes a table with the first state only.
func (d *dfa) newTable() *table {
	t := &table{
		next:   make([]int32, minRows*d.width),
		states: &states{keys: make([]string, 1), rows: make(map[string]int32)},
	}
	key, to := d.first()
	if to == unknown {
		to = d.add(t, key)
	}
	t.start = to
	return t
}

// match tells whether s is matched. It is not ok if s makes more states than
// there is room for.
func (d *dfa) match(s string) (found, ok bool) {
	t := d.cur.Load()
	at, forgot := t.start, 0
	for i := 0; i < len(s) && at > 0; {
		class := int(d.byByte[s[i]])
		if class != long {
			i++
		} else {
			var width int
			class, width = d.classes.next(s[i:])
			i += width
		}
		to := atomic.LoadInt32(&t.next[int(at)+class])
		if to == unknown {
			before := t.states
			if t, to = d.step(t, at, class); t.states != before {
				if forgot++; forgot > maxForgot {
					return false, false
				}
			}
		}
		at = to
	}
	if at > 0 {
		_, at = d.step(t, at, d.width-1)
	}
	return at == matched, true
}

// maxForgot is how often all states may be forgotten during one match.
const maxForgot = 1

// step is where class leads from at in t, and the table that the answer is
// about.
func (d *dfa) step(t *table, at int32, class int) (*table, int32) {
	if to := atomic.LoadInt32(&t.next[int(at)+class]); to != unknown {
		return t, to
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	cur := d.cur.Load()
	key := t.keys[int(at)/d.width]
	if cur.states != t.states { // t was forgotten
		cur, at = d.row(cur, key)
	}
	if to := cur.next[int(at)+class]; to != unknown {
		return cur, to
	}
	end := class == d.width-1
	next, to := d.after(key, class, end)
	if to == unknown {
		grown, row := d.row(cur, next)
		if grown.states != cur.states {
			return grown, row
		}
		cur, to = grown, row
	}
	atomic.StoreInt32(&cur.next[int(at)+class], to)
	return cur, to
}

// row is the row of the state that key means, in t or, where t has no room
// for it, in the table that replaces it: a longer one or a new one.
func (d *dfa) row(t *table, key string) (*table, int32) {
	if row, ok := t.rows[key]; ok {
		return t, row
	}
	rows := len(t.next) / d.width
	most := max(minRows, maxRowBytes/4/d.width)
	switch {
	case t.size+len(key) > maxKeyBytes, len(t.keys) == most:
		t = d.newTable()
		if row, ok := t.rows[key]; ok {
			d.cur.Store(t)
			return t, row
		}
	case len(t.keys) == rows:
		longer := make([]int32, min(2*rows, most)*d.width)
		copy(longer, t.next) // nobody writes to t now
		t = &table{next: longer, start: t.start, states: t.states}
	}
	row := d.add(t, key)
	d.cur.Store(t)
	return t, row
}

// add gives a state the next row of t, which must have room.
func (d *dfa) add(t *table, key string) int32 {
	row := int32(len(t.keys) * d.width)
	t.keys = append(t.keys, key)
	t.rows[key] = row
	t.size += len(key) + perKey
	return row
}
