package merlon

import (
	"errors"
	"sync/atomic"
)

// A Room bounds how much all requests together hold of bodies that guards want
// to see, so that many that are slow do not fill the memory one by one.
type Room struct {
	left atomic.Int64
}

// NewRoom returns a Room of n bytes.
func NewRoom(n Size) *Room {
	r := &Room{}
	r.left.Store(int64(n))
	return r
}

// take takes n bytes if there are as many.
func (r *Room) take(n int64) bool {
	if r.left.Add(-n) >= 0 {
		return true
	}
	r.left.Add(n)
	return false
}

// ErrNoRoom is [Request.Peek]'s error when other requests hold all there is.
var ErrNoRoom = errors.New("too much of other requests' bodies is held already")
