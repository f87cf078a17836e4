package resume

import "time"

// SetNow replaces the clock, of a store in memory as well.
func (k *Keeper) SetNow(now func() time.Time) {
	k.now = now
	if m, ok := k.store.(*Memory); ok {
		m.now = now
	}
}

// Used returns the bytes held, the owners, and the bytes of those not signed in.
func (k *Keeper) Used() [3]int { return [3]int{k.room.total, len(k.room.owned), k.room.nobody} }

// Entries is how many requests are in memory.
func (k *Keeper) Entries() int { return len(k.store.(*Memory).kept) }
