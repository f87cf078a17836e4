package password

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// turns bounds how many hashes are computed at once, and how many wait.
type turns struct {
	places  *semaphore.Weighted // first come, first served
	atOnce  int64
	unit    uint32 // KiB that one place stands for
	queue   int64
	waiting atomic.Int64
	wait    time.Duration
}

func makeTurns(atOnce, queue int, wait time.Duration) *turns {
	return &turns{
		places: semaphore.NewWeighted(int64(atOnce)), atOnce: int64(atOnce), unit: nominalMemory,
		queue: int64(queue), wait: wait,
	}
}

// take waits for a turn with so many KiB. A hash that needs more than the
// configured kind takes several places, and at the most all of them: what is
// computed at once needs no more than at_once of the configured kind do, or
// than the one largest that is accepted.
func (t *turns) take(ctx context.Context, memory uint32) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := min(max((int64(memory)+int64(t.unit)-1)/int64(t.unit), 1), t.atOnce)
	if !t.places.TryAcquire(n) {
		if err := t.await(ctx, n); err != nil {
			return nil, err
		}
	}
	return func() { t.places.Release(n) }, nil
}

func (t *turns) await(ctx context.Context, n int64) error {
	defer t.waiting.Add(-1)
	if t.waiting.Add(1) > t.queue {
		return ErrBusy
	}
	bounded, cancel := context.WithTimeout(ctx, t.wait)
	defer cancel()
	if t.places.Acquire(bounded, n) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return ErrBusy
}
