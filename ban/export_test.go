package ban

import "time"

// SetNow gives the bans a clock.
func (b *Bans) SetNow(now func() time.Time) { b.now = now }

// Reread looks whether lists have changed.
func (b *Bans) Reread() { b.reread() }

// Open is how many lists are in use.
func (b *Bans) Open() int {
	b.files.mu.Lock()
	defer b.files.mu.Unlock()
	return len(b.files.open)
}

// Impose bans as a guard does.
func (b *Bans) Impose(ban Ban, first, longest time.Duration) { b.impose(ban, first, longest) }

// ParseList reads a list.
var ParseList = parseList
