package match

// An Automaton finds any of many literals in a text, in one pass (Aho and
// Corasick). It takes capital ASCII letters for small ones, in the literals
// and in the text. It may be used by several goroutines at once.
//
// The states that ordinary text comes to have a row of the table each, one
// entry per class of bytes; the many others have only their children and where
// to go on when none fits. An entry below limit is
// where the row of the next state begins. From limit on it is limit and the
// number of the state: some literal ends there, or it has no row.
type Automaton struct {
	class [256]uint8
	width uint32 // number of classes
	limit uint32
	table []uint32

	row   []uint32 // of each state where its row begins, or limit
	child []uint32 // of each state the first child; the next state's first child ends them
	label []uint8  // of each state the class that leads to it
	fail  []uint32 // of each state the longest other state that ends like it

	word  []int32 // of each state the longest literal that it ends with, or none
	next  []int32 // of each word the next shorter one that it ends with, or none
	first []int32 // of each word where its numbers begin in nums
	nums  []int32
}

const none = -1

// A Scanner is what one goroutine needs to scan. It is made by
// [Automaton.NewScanner] and good for that automaton only.
type Scanner struct {
	seen  []uint32 // of each word the last scan that saw it
	scan  uint32
	found []int32
}

// NewScanner makes a Scanner.
func (a *Automaton) NewScanner() *Scanner {
	return &Scanner{seen: make([]uint32, len(a.next)), found: make([]int32, 0, 64)}
}

// Scan returns the numbers of the literals that occur in s, each once, in no
// order. They are good until the next Scan. The work is linear in the length
// of s and the number of literals found.
func (a *Automaton) Scan(sc *Scanner, s string) []int32 {
	sc.found = sc.found[:0]
	if sc.scan++; sc.scan == 0 { // the numbers of scans begin anew
		clear(sc.seen)
		sc.scan = 1
	}
	v := uint32(0)
	for i := 0; i < len(s); i++ {
		v = a.table[v+uint32(a.class[s[i]])]
		for v >= a.limit {
			state := v - a.limit
			a.report(sc, state)
			if v = a.row[state]; v < a.limit {
				break
			}
			if i++; i == len(s) {
				return sc.found
			}
			v = a.step(state, a.class[s[i]])
		}
	}
	return sc.found
}

// Contains tells whether any literal occurs in s.
func (a *Automaton) Contains(s string) bool {
	v := uint32(0)
	for i := 0; i < len(s); i++ {
		v = a.table[v+uint32(a.class[s[i]])]
		for v >= a.limit {
			state := v - a.limit
			if a.word[state] != none {
				return true
			}
			if i++; i == len(s) {
				return false
			}
			v = a.step(state, a.class[s[i]])
		}
	}
	return false
}

// report notes the literals that end in the state.
func (a *Automaton) report(sc *Scanner, state uint32) {
	// Who saw a word saw all those that it ends with.
	for w := a.word[state]; w != none && sc.seen[w] != sc.scan; w = a.next[w] {
		sc.seen[w] = sc.scan
		sc.found = append(sc.found, a.nums[a.first[w]:a.first[w+1]]...)
	}
}

// step is where c leads from a state without a row.
func (a *Automaton) step(state uint32, c uint8) uint32 {
	for a.row[state] == a.limit {
		for k := a.child[state]; k < a.child[state+1]; k++ {
			if a.label[k] == c {
				return a.entry(k)
			}
		}
		state = a.fail[state]
	}
	return a.table[a.row[state]+uint32(c)]
}

// entry is what the table says where the state comes next.
func (a *Automaton) entry(state uint32) uint32 {
	if a.word[state] == none && a.row[state] != a.limit {
		return a.row[state]
	}
	return a.limit + state
}
