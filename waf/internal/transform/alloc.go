package transform

// Alloc returns n bytes of the arena, to be filled by the caller.
func (a *Arena) Alloc(n int) []byte {
	b := a.room(n)
	a.block = a.block[:len(a.block)+n]
	return b[:n:n]
}
