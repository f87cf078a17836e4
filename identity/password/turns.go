package password

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// turns bounds how many hashes are computed at once, and how many wait. There
// are two lines: in one is everybody, in the other who is known to have been
// right before. However many wait in the first, at most at_once of them stand
// before who comes to the second: a flood of strangers does not keep owners out.
type turns struct {
	places  *semaphore.Weighted // first come, first served
	gate    *semaphore.Weighted // for strangers, on their way to places
	atOnce  int64
	unit    uint32 // KiB that one place stands for
	queue   int64
	waiting [2]atomic.Int64 // strangers, and the known
	wait    time.Duration
}

func makeTurns(atOnce, queue int, wait time.Duration) *turns {
	return &turns{
		places: semaphore.NewWeighted(int64(atOnce)), gate: semaphore.NewWeighted(int64(atOnce)),
		atOnce: int64(atOnce), unit: nominalMemory, queue: int64(queue), wait: wait,
	}
}

// take waits for a turn with so many KiB. A hash that needs more than the
// configured kind takes several places, and at the most all of them: what is
// computed at once needs no more than at_once of the configured kind do, or
// than the one largest that is accepted.
func (t *turns) take(ctx context.Context, memory uint32, known bool) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := min(max((int64(memory)+int64(t.unit)-1)/int64(t.unit), 1), t.atOnce)
	on, line := []*semaphore.Weighted{t.gate, t.places}, &t.waiting[0]
	if known {
		on, line = on[1:], &t.waiting[1]
	}
	took := 0
	for took < len(on) && on[took].TryAcquire(n) {
		took++
	}
	if took < len(on) {
		if took, err = t.await(ctx, on, took, n, line); err != nil {
			free(on[:took], n)
			return nil, err
		}
	}
	return func() { free(on, n) }, nil
}

// free gives places back, the last taken first.
func free(took []*semaphore.Weighted, n int64) {
	for _, s := range slices.Backward(took) {
		s.Release(n)
	}
}

// await waits for what is not taken yet, and returns how much was.
func (t *turns) await(ctx context.Context, on []*semaphore.Weighted, took int, n int64, line *atomic.Int64) (int, error) {
	defer line.Add(-1)
	if line.Add(1) > t.queue {
		return took, ErrBusy
	}
	bounded, cancel := context.WithTimeout(ctx, t.wait)
	defer cancel()
	for ; took < len(on); took++ {
		if on[took].Acquire(bounded, n) == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return took, err
		}
		return took, ErrBusy
	}
	return took, nil
}
