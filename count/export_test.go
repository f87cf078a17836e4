package count

// Held is how many keys something is held of.
func (m *Memory) Held() int {
	n := 0
	for i := range m.held.shards {
		n += len(m.held.shards[i].held)
	}
	return n
}
