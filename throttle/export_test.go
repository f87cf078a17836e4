package throttle

// Clients returns how many clients g tells apart.
func Clients(g *Guard) (n int) {
	for i := range g.shape.shards {
		b := &g.shape.shards[i]
		b.mu.Lock()
		n += len(b.of)
		b.mu.Unlock()
	}
	return n
}

// Held returns how many requests g holds something for, and Kept how many
// tenants and clients a class still knows.
func Held(g *Guard) (n int) {
	for i := range g.held.shards {
		s := &g.held.shards[i]
		s.mu.Lock()
		n += len(s.of)
		s.mu.Unlock()
	}
	return n
}

func Kept(g *Guard) int {
	g.class.mu.Lock()
	defer g.class.mu.Unlock()
	return len(g.class.shares) + len(g.class.lengths) + g.class.longest
}

// Unanswered returns how many requests g takes to be at the backend.
func Unanswered(g *Guard) int {
	g.shed.mu.Lock()
	defer g.shed.mu.Unlock()
	return g.shed.n
}
