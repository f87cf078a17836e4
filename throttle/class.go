package throttle

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A share is who a request counts to in the queue.
type share struct {
	kind byte // 't', 'u' or 'c'
	name string
	addr netip.Addr
}

// A class is one bound with its queue. Nobody waits while there is a place.
type class struct {
	name string
	pool *Pool
	seq  atomic.Uint64 // of the guard whose bounds are in force

	mu      sync.Mutex
	bounds  ClassConfig
	running int
	waiting int
	shares  map[share]*line // those who wait; each has somebody in its line
	turn    *line           // whose turn is next, in a ring of all lines
	lengths map[int]int     // how many lines have a length
	longest int
	held    map[share]*holder // those who have places
	hoards  map[share]*holder // those with several streams

	took  time.Duration // how long a place is held, of late
	stats ClassStat
}

// A line is the requests of one share that wait, oldest first.
type line struct {
	of          share
	asked       bool // a stream has been ended for it
	n           int
	first, last *waiter
	before, aft *line // in the ring
}

type waiter struct {
	in           *line // nil when it is out of the queue
	before, aft  *waiter
	granted, out bool // what it was told: a place, or to make room
	told         chan struct{}
}

func newClass(name string, p *Pool) *class {
	return &class{name: name, pool: p, shares: map[share]*line{}, lengths: map[int]int{}, held: map[share]*holder{}, hoards: map[share]*holder{}}
}

// An entry is how asking for a place went.
type entry uint8

const (
	entered entry = iota
	enteredLate
	full
	evicted
	tooLong
	gone
)

// enter takes a place, perhaps after waiting until the time is up or ctx is
// done. bounds are the guard's, which came as the seq-th.
func (c *class) enter(ctx context.Context, s share, bounds ClassConfig, seq uint64, until time.Time) (entry, time.Duration) {
	c.mu.Lock()
	if c.seq.Load() < seq {
		c.seq.Store(seq)
		c.bounds = bounds
	}
	c.dispatch() // the bound, or the number of replicas, may have changed
	if c.waiting == 0 && c.running < c.places() {
		c.hold(s)
		c.stats.Admitted++
		c.mu.Unlock()
		return entered, 0
	}
	w := c.join(s)
	if w == nil {
		c.stats.Full++
		again := c.again()
		c.mu.Unlock()
		return full, again
	}
	wait, patience := c.bounds.Wait, c.bounds.Wait/2
	c.mu.Unlock()
	if !until.IsZero() {
		wait = min(wait, time.Until(until))
	}
	how := w.wait(ctx, min(wait, patience))
	if how == tooLong && wait > patience { // who is not so patient ends nothing
		c.makeRoom(w)
		how = w.wait(ctx, wait-patience)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case w.granted && how == gone:
		c.release(s)
		c.dispatch()
		c.stats.Abandoned++
		return gone, 0
	case w.granted:
		c.stats.Admitted++
		return enteredLate, 0
	case w.out:
		c.stats.Full++
		return evicted, c.again()
	}
	c.take(w)
	if how == gone {
		c.stats.Abandoned++
	} else {
		c.stats.TimedOut++
	}
	return how, c.again()
}

// wait returns when w is told something, or why it need not wait any longer.
func (w *waiter) wait(ctx context.Context, d time.Duration) entry {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-w.told:
		if ctx.Err() != nil {
			return gone
		}
		return enteredLate
	case <-ctx.Done():
		return gone
	case <-t.C:
		return tooLong
	}
}

// leave gives back t's place, which was held for d.
func (c *class) leave(t *ticket, d time.Duration) {
	c.mu.Lock()
	c.endStream(t)
	c.release(t.share)
	if c.took == 0 {
		c.took = d
	} else {
		c.took += (d - c.took) / 8
	}
	c.dispatch()
	c.mu.Unlock()
}

func (c *class) places() int { return c.pool.share(c.bounds.AtOnce, false) }

func (c *class) room() int { return c.pool.share(max(c.bounds.Queue, 0), true) }

// dispatch gives the places that are free to those who wait, one of each line
// in turn.
func (c *class) dispatch() {
	if c.waiting == 0 {
		return
	}
	for free := c.places() - c.running; free > 0 && c.waiting > 0; free-- {
		l := c.turn
		w := l.first
		c.turn, l.asked = l.aft, false
		c.take(w)
		c.hold(l.of)
		w.granted = true
		close(w.told)
	}
}

// join puts a new waiter at the end of its line. If the queue is full, it takes
// the place of the newest in the longest line, unless that would only turn the
// two lines round; nil if there is no room.
func (c *class) join(s share) *waiter {
	mine := 0
	l := c.shares[s]
	if l != nil {
		mine = l.n
	}
	if c.waiting >= c.room() {
		if mine+1 >= c.longest {
			return nil
		}
		c.evict()
	}
	if l == nil {
		l = &line{of: s}
		c.shares[s] = l
		c.link(l)
	}
	w := &waiter{in: l, before: l.last, told: make(chan struct{})}
	if l.last == nil {
		l.first = w
	} else {
		l.last.aft = w
	}
	l.last = w
	c.waiting++
	c.resize(l, 1)
	return w
}

// evict tells the newest of the longest line to make room. Every search lets
// somebody in who evens the lines out, so that nobody can ask for many.
func (c *class) evict() {
	l := c.turn
	for l.n < c.longest {
		l = l.aft
	}
	w := l.last
	c.take(w)
	w.out = true
	close(w.told)
}

// take takes w out of the queue.
func (c *class) take(w *waiter) {
	l := w.in
	if w.before == nil {
		l.first = w.aft
	} else {
		w.before.aft = w.aft
	}
	if w.aft == nil {
		l.last = w.before
	} else {
		w.aft.before = w.before
	}
	w.in, w.before, w.aft = nil, nil, nil
	c.waiting--
	c.resize(l, -1)
	if l.n > 0 {
		return
	}
	delete(c.shares, l.of)
	c.unlink(l)
}

// link puts l into the ring, as the last whose turn it will be.
func (c *class) link(l *line) {
	if c.turn == nil {
		c.turn, l.before, l.aft = l, l, l
		return
	}
	l.before, l.aft = c.turn.before, c.turn
	l.before.aft, l.aft.before = l, l
}

// unlink takes l out of the ring.
func (c *class) unlink(l *line) {
	if l.aft == l {
		c.turn = nil
		return
	}
	l.before.aft, l.aft.before = l.aft, l.before
	if c.turn == l {
		c.turn = l.aft
	}
}

// resize notes that l is longer by d, 1 or -1.
func (c *class) resize(l *line, d int) {
	if l.n > 0 {
		if c.lengths[l.n]--; c.lengths[l.n] == 0 {
			delete(c.lengths, l.n)
		}
	}
	l.n += d
	if l.n > 0 {
		c.lengths[l.n]++
	}
	c.longest = max(c.longest, l.n)
	for c.longest > 0 && c.lengths[c.longest] == 0 {
		c.longest--
	}
}

// again is when a refused request may find a place: when those in front of it
// are through, at the pace of late.
func (c *class) again() time.Duration {
	if c.took == 0 {
		return c.bounds.Wait
	}
	return c.took * time.Duration(c.waiting+1) / time.Duration(c.places())
}

func (c *class) stat() ClassStat {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Name, s.AtOnce, s.Running, s.Waiting = c.name, c.places(), c.running, c.waiting
	return s
}

// seconds words a time to come back, from 1 to 60 s. It adds up to half, so
// that those who were refused together do not come back together.
func seconds(d time.Duration) int {
	s := min(max(int((d+time.Second-1)/time.Second), 1), 60)
	return min(s+rand.IntN(s/2+1), 60)
}
