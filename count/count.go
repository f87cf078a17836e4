// Package count counts what is asked for against quotas: how much in a time,
// and how much at once. What it grants together is never more than the quota.
//
// [Memory] counts in this process; a [Store] that all replicas share makes
// their counts one. It knows no requests: what is counted together, and what a
// refusal means, is for the guards above it.
package count

import (
	"context"
	"encoding/binary"
	"time"
)

// A Store counts. It must be safe for many goroutines, and what it grants
// together must never be more than the quota, also when it runs out of room or
// of the means to count in common: then it grants less.
type Store interface {
	// Take takes what every ask wants, or nothing if one of them cannot have
	// it, and says of each what became of it in results, which is as long. If
	// one refuses, another may for a moment see less than there is. A cost of 0
	// only looks; one of more than the burst can never be taken and is an
	// error. The store keeps neither slice, nor the keys in them.
	Take(ctx context.Context, asks []Ask, results []Result, now time.Time) error
	// Add counts without asking, for what is known only afterwards. A cost
	// below zero gives back what was taken. An account goes no further into
	// debt than one burst: later takers wait that long, not forever.
	Add(ctx context.Context, asks []Ask, now time.Time) error
	// Hold takes one of each of the places, or none if one of them is full:
	// that one's number is returned then, and a nil release. Otherwise full is
	// -1, and release gives them back; a second call of it does nothing. Those
	// of a process that has died come back by themselves within a minute.
	Hold(ctx context.Context, places []Place) (full int, release func(), err error)
}

// An Ask is for Cost units of what Key may have.
type Ask struct {
	Key   Key
	Quota Quota
	Cost  int64
}

// A Place is one of at most Most that are held for Key at the same time.
type Place struct {
	Key  Key
	Most int64
}

// A Key names what is counted together. It may hold what clients spell, since
// each part has its length before it; stores hash it.
type Key []byte

// With returns k with one more part, appended in place where there is room.
func (k Key) With(part string) Key {
	return append(binary.AppendUvarint(k, uint64(len(part))), part...)
}

// A Quota is of one of two kinds. With Every it is a rate, as the generic cell
// rate algorithm (GCRA) counts it: one unit every Every, and Burst of them at
// once after a pause. Without, it is Burst units until Ends, such as the end of
// the month; its Key must then tell one such window from the next.
type Quota struct {
	Every time.Duration
	Burst int64
	Ends  time.Time
}

// A Result says what became of an [Ask].
type Result struct {
	OK        bool
	Remaining int64         // how many units more could be taken now; never negative
	Retry     time.Duration // if not OK: after this time the same ask may succeed
	Reset     time.Duration // after this time the quota is whole again
	Shared    bool          // if not OK: others have used some of it, for want of room to count apart
}
