package attempts

import (
	"context"
	"time"
)

// A Key names a bucket. It tells nothing about what is counted in it.
type Key [16]byte

// A Bucket is where failures are counted, and how long they make wait.
type Bucket struct {
	Key      Key
	Schedule Schedule
	// Most is how many failures there may be without a success; 0 for no bound.
	Most int
	// Member, unless it is zero, is counted once only as long as it is
	// remembered.
	Member Key

	name string
}

// A Result says what became of a Reserve.
type Result struct {
	Wait   time.Duration // not zero: nothing was counted
	By     int           // which bucket has to wait the longest
	Locked bool          // that one has as many failures as it may have
	// Counts are the failures in each bucket since the last success, with the
	// one just reserved; 0 for one whose Member had been counted. If one has
	// to wait, only its own is set.
	Counts []uint32
}

// A Refund takes failures back.
type Refund struct {
	Key     Key
	Member  Key
	Count   uint32
	At      time.Time // when it was reserved: if nothing was counted since, nothing waits for it
	All     bool      // the bucket is forgotten
	Success bool      // failures before this are not followed by further ones, but by a success
}

// A Store counts failures. It must be safe for many goroutines, and what runs
// at the same time must never be let through more often than one after the
// other would be.
type Store interface {
	// Reserve counts one failure in every bucket, or in none if one of them
	// has to wait.
	Reserve(ctx context.Context, buckets []Bucket, now time.Time) (Result, error)
	// Refund takes failures back.
	Refund(ctx context.Context, refunds []Refund, now time.Time) error
}
