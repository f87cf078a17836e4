package redis

import (
	"strconv"
	"time"
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

// MaxMembers is how many members a bucket remembers.
const MaxMembers = maxMembers
