package transform

import "unsafe"

const (
	blockSize = 16 << 10 // of the first block
	keepSize  = 1 << 20  // the largest block that is kept, and the largest made in advance
)

// An Arena is the memory of one request for values that transformations made.
// The zero Arena is ready for use, by one goroutine at a time.
//
// It holds at most what was transformed, each result being a small multiple
// of its input: the caller bounds the inputs.
type Arena struct {
	block []byte
}

// Reset takes all of the memory back. No value made since the last Reset may
// be used after it: its text changes.
func (a *Arena) Reset() {
	if cap(a.block) > keepSize {
		a.block = nil
	}
	a.block = a.block[:0]
}

// room returns an empty slice with a capacity of n, to be filled and then
// either taken or forgotten.
func (a *Arena) room(n int) []byte {
	used := len(a.block)
	if n > cap(a.block)-used {
		// The old block lives as long as there are values in it.
		a.block = make([]byte, 0, max(n, blockSize, min(2*cap(a.block), keepSize)))
		used = 0
	}
	return a.block[used : used : used+n]
}

// take makes a value of what was written into the room asked for last.
func (a *Arena) take(b []byte) string {
	start := len(a.block)
	a.block = append(a.block, b...) // onto itself, if b has not outgrown its room
	return unsafe.String(unsafe.SliceData(a.block[start:]), len(b))
}

// end is take, where the text may turn out to be s.
func (a *Arena) end(b []byte, s string) (string, bool) {
	if string(b) == s {
		return s, false
	}
	return a.take(b), true
}
