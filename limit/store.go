package limit

import (
	"context"
	"net/netip"
	"time"
)

// A Store counts for guards. It must be safe for many goroutines, and what it
// grants together must never be more than the quota, also when it runs out of
// room or of the means to count in common: then it may grant less.
type Store interface {
	// Take asks for cost requests at once from the quota of k. They are taken
	// if the quota has that many, otherwise nothing is; a cost of 0 only looks.
	// More than the burst can never be taken and is an error. An error makes
	// the guard refuse.
	Take(ctx context.Context, k Key, q Quota, cost int, now time.Time) (Result, error)
}

// A Key names what is counted together. None of its parts is spelt by the
// client: the site and route are the configuration's words, so no spelling of
// a path has a count of its own.
type Key struct {
	Policy string // which of the route's limits
	Site   string
	Route  string
	Client netip.Addr // IPv4, or the first 64 bits of IPv6
}

// A Quota is a rate as the generic cell rate algorithm (GCRA) counts it: one
// request every Every, and Burst of them at once after a pause.
type Quota struct {
	Every time.Duration
	Burst int
}

// refill is how long an emptied quota takes to be whole again.
func (q Quota) refill() time.Duration { return q.Every * time.Duration(q.Burst) }

// valid says that q means something, and that refill does not overflow.
func (q Quota) valid() bool {
	return q.Every > 0 && q.Burst > 0 && time.Duration(q.Burst) <= maxRefill/q.Every
}

// A Result says what became of a Take.
type Result struct {
	OK        bool
	Remaining int           // how many requests more would pass now; never negative
	Retry     time.Duration // if not OK: after this time the same Take may succeed
	Shared    bool          // if not OK: others have used some of it, for want of room to count apart
}
