package resume

import "time"

// SetNow replaces the clock.
func (k *Keeper) SetNow(now func() time.Time) { k.now = now }

// Used returns the bytes held, the owners, and the bytes of those not signed in.
func (k *Keeper) Used() [3]int { return [3]int{k.total, len(k.owned), k.nobody} }
