package live

import (
	"context"
	"strconv"
	"time"

	"github.com/merlon-dev/merlon/identity/attempts"
)

// AtTestTime has tries aged by the time that they are given instead of the
// server's, and gives a busy machine time to answer.
func (t *Tries) AtTestTime() *Tries {
	t.clock = func(now time.Time) string { return strconv.FormatInt(now.UnixMicro(), 10) }
	return t.Patient()
}

// Patient gives a busy machine time to answer.
func (t *Tries) Patient() *Tries {
	t.within = 20 * time.Second
	return t
}

// HalfWay counts a try in one bucket, as one that is going to be refused
// because of another. What it returns takes it back.
func (t *Tries) HalfWay(ctx context.Context, b attempts.Bucket, now time.Time) (giveBack func(), err error) {
	found, err := t.each(ctx, countScript, []call{{
		triesKeys(b.Key), append(t.schedule(b, now), strconv.FormatInt(now.UnixNano(), 10)),
	}})
	return func() { t.giveBack([]attempts.Bucket{b}, found, now) }, err
}

// MaxMembers is how many members a bucket remembers.
const MaxMembers = maxMembers
