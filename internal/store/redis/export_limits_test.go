package redis

import (
	"context"
	"time"

	"github.com/merlon-dev/merlon/count"
)

// RenewOnce renews what is held, now.
func (l *Limits) RenewOnce(ctx context.Context) { l.renewOnce(ctx) }

// InOrder returns, for each key of asks, the numbers of those that ask for it,
// as a batch of them is sent.
func InOrder(asks []count.Ask, now time.Time) (byKey [][]int) {
	entries := make([]entry, len(asks))
	for i := range asks {
		entries[i] = newEntry(&asks[i], false, now)
	}
	o := inOrder(entries)
	for k := range o.keys {
		var of []int
		for _, i := range o.of(k, k+1) {
			of = append(of, int(i))
		}
		byKey = append(byKey, of)
	}
	return byKey
}

// BatchSize is how much is asked for at once at most.
const BatchSize = batchSize
