package count

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

// A Lease is a [Store] that takes up to size units at once for a key that is
// asked for often, and hands them out in this process, so that not each of
// them goes to the shared store.
//
// In all it never grants more than the quota, since what it hands out was
// taken before. Others may find at most size units of a key fewer for each
// process that leases, and none fewer once hold has passed: then what is left
// goes back. For the same reason there may be as many more in an interval of
// time, which were taken from a rate up to hold before it. A quota whose burst
// is less than 8 times size is not leased, nor is a cost of more than size. If
// the process dies, what it had leased is lost to the quota.
type Lease struct {
	size   int64
	hold   time.Duration
	shared Store
	began  time.Time
	seeds  [2]maphash.Seed
	shards [16]leases
	stop   context.CancelFunc
	done   chan struct{}
}

type leases struct {
	mu sync.Mutex
	of map[name]*lease
	_  [48]byte
}

// A lease is what is held of a key.
type lease struct {
	ask      Ask   // of which it is
	left     int64 // units
	at       int64 // when the oldest of them was taken, in ns since began
	seen     int64 // when it was last asked for
	dry      int64 // until when not to try for more than is asked for
	fetching bool  // somebody is taking more, and holds what was left
	last     Result
}

const (
	leasedBurst = 8       // times size
	mostLeases  = 4096    // in each shard
	longKey     = 1 << 10 // of longer keys nothing is leased
)

var (
	_ Store  = (*Lease)(nil)
	_ Prober = (*Lease)(nil)
)

// NewLease returns a Lease of up to size units for at most hold.
func NewLease(size int64, hold time.Duration, shared Store) *Lease {
	ctx, stop := context.WithCancel(context.Background())
	l := &Lease{size: size, hold: hold, shared: shared, began: time.Now(), stop: stop, done: make(chan struct{}),
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	for i := range l.shards {
		l.shards[i].of = make(map[name]*lease)
	}
	go l.sweep(ctx)
	return l
}

// Close gives back what is left.
func (l *Lease) Close() {
	l.stop()
	<-l.done
}

// A part is what an ask has of a lease while it is decided.
type part struct {
	lease *lease
	shard *leases
	held  int64 // units of the lease that this ask has in its hands
	fetch bool  // it takes more for the lease
	local bool  // the lease has enough
}

// take takes an ask's cost from its lease, or what is left there in order to
// take more, or notes that it was asked for.
func (l *Lease) take(a *Ask, now int64) (p part) {
	if a.Cost > l.size || a.Quota.Burst/leasedBurst < l.size || len(a.Key) > longKey {
		return part{}
	}
	id := name{maphash.Bytes(l.seeds[0], a.Key), maphash.Bytes(l.seeds[1], a.Key)}
	p.shard = &l.shards[id[0]%uint64(len(l.shards))]
	p.shard.mu.Lock()
	defer p.shard.mu.Unlock()
	e := p.shard.of[id]
	if e == nil {
		if a.Cost > 0 && len(p.shard.of) < mostLeases {
			e = &lease{ask: Ask{Key: slices.Clone(a.Key), Quota: a.Quota}, seen: now}
			p.shard.of[id] = e
		}
		return part{}
	}
	often := now-e.seen < int64(l.hold)
	e.seen = now
	if e.ask.Quota != a.Quota || e.fetching || e.left > 0 && now-e.at >= int64(l.hold) {
		return part{}
	}
	p.lease = e
	if a.Cost == 0 {
		return p
	}
	if e.left >= a.Cost {
		e.left -= a.Cost
		p.held, p.local = a.Cost, true
		return p
	}
	if !often || now < e.dry {
		return part{}
	}
	p.held, p.fetch, e.left, e.fetching = e.left, true, 0, true
	if p.held == 0 {
		e.at = now
	}
	return p
}

// settle ends what take began: n units go into the lease.
func (p *part) settle(n int64, last *Result) {
	if p.lease == nil {
		return
	}
	p.shard.mu.Lock()
	defer p.shard.mu.Unlock()
	p.lease.left += n
	if p.fetch {
		p.lease.fetching = false
	}
	if last != nil {
		p.lease.last = *last
	}
}

// dry notes that a lease could not be had.
func (p *part) dry(until int64) {
	if p.fetch {
		p.shard.mu.Lock()
		p.lease.dry = until
		p.shard.mu.Unlock()
	}
}

// Take implements [Store].
func (l *Lease) Take(ctx context.Context, asks []Ask, results []Result, now time.Time) error {
	if err := Check(asks, now); err != nil {
		return err
	}
	var few [4]part
	parts, there := few[:0], int64(time.Since(l.began))
	all, fetches := true, false
	for i := range asks {
		p := l.take(&asks[i], there)
		parts = append(parts, p)
		all, fetches = all && p.local, fetches || p.fetch
	}
	if all {
		l.handOut(asks, parts, results)
		return nil
	}
	ok := false
	var err error
	if fetches {
		if ok, err = l.ask(ctx, asks, parts, results, true, now); ok {
			return nil
		}
	}
	// What is left in the lease is not enough, and there may be less than a
	// lease in the store, but as much as is asked for.
	if err == nil {
		for i := range parts {
			parts[i].dry(there + int64(l.hold))
		}
		ok, err = l.ask(ctx, asks, parts, results, false, now)
	}
	if !ok {
		for i := range parts {
			parts[i].settle(parts[i].held, nil)
		}
	}
	return err
}

// handOut fills in the results of what the leases had.
func (l *Lease) handOut(asks []Ask, parts []part, results []Result) {
	for i, p := range parts {
		if !p.local {
			continue
		}
		p.shard.mu.Lock()
		r := p.lease.last
		r.OK, r.Retry, r.Shared = true, 0, false
		r.Remaining = min(r.Remaining+p.lease.left, asks[i].Quota.Burst)
		p.shard.mu.Unlock()
		results[i] = r
	}
}

// ask asks the store for what the leases do not have, with more for those
// that fetch if lease is set. If all of it is granted it settles the parts.
func (l *Lease) ask(ctx context.Context, asks []Ask, parts []part, results []Result, lease bool, now time.Time) (ok bool, err error) {
	var few [4]Ask
	want := few[:0]
	for i := range asks {
		a := asks[i]
		switch p := &parts[i]; {
		case p.local:
			a.Cost = 0 // it only looks, so that every ask is answered
		case p.fetch && lease:
			a.Cost = l.size - p.held
		}
		want = append(want, a)
	}
	if err := l.shared.Take(ctx, want, results, now); err != nil {
		return false, err
	}
	for i := range asks {
		// A lease holds also where a look says that there is a debt.
		if !results[i].OK && !parts[i].local {
			l.handOut(asks, parts, results)
			return false, nil
		}
	}
	refused := slices.ContainsFunc(results[:len(asks)], func(r Result) bool { return !r.OK })
	if refused { // by a look only, and so nothing was taken
		return false, nil
	}
	for i := range asks {
		switch p := &parts[i]; {
		case p.local:
			p.settle(0, nil)
		case p.fetch && lease:
			left := l.size - asks[i].Cost
			p.settle(left, &results[i])
			results[i].Remaining = min(results[i].Remaining+left, asks[i].Quota.Burst)
		case p.fetch:
			p.settle(p.held, &results[i])
		case p.lease != nil: // it only looked
			p.shard.mu.Lock()
			results[i].Remaining = min(results[i].Remaining+p.lease.left, asks[i].Quota.Burst)
			p.shard.mu.Unlock()
		}
	}
	l.handOut(asks, parts, results)
	return true, nil
}

// Add implements [Store].
func (l *Lease) Add(ctx context.Context, asks []Ask, now time.Time) error {
	return l.shared.Add(ctx, asks, now)
}

// Hold implements [Store].
func (l *Lease) Hold(ctx context.Context, places []Place) (full int, release func(), err error) {
	return l.shared.Hold(ctx, places)
}

// Probe implements [Prober]: it asks the shared store. So a [Fallback] can
// stand before a Lease, and uses none while that store is lost.
func (l *Lease) Probe(ctx context.Context, now time.Time) (forgot bool, err error) {
	return probe(ctx, l.shared, now)
}

// sweep gives back what was not handed out in time.
func (l *Lease) sweep(ctx context.Context) {
	defer close(l.done)
	t := time.NewTicker(max(l.hold/4, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			l.giveBack(ctx, int64(1)<<62)
			return
		case <-t.C:
			l.giveBack(ctx, int64(time.Since(l.began)))
		}
	}
}

// giveBack gives back what is too old at a time, and forgets who has not asked
// since.
func (l *Lease) giveBack(ctx context.Context, at int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	for i := range l.shards {
		s := &l.shards[i]
		var back []Ask
		s.mu.Lock()
		for id, e := range s.of {
			if e.left > 0 && at-e.at >= int64(l.hold) {
				a := e.ask
				a.Cost = -e.left
				back = append(back, a)
				e.left = 0
			}
			if e.left == 0 && !e.fetching && at-e.seen >= int64(l.hold) {
				delete(s.of, id)
			}
		}
		s.mu.Unlock()
		for part := range slices.Chunk(back, 100) {
			_ = l.shared.Add(ctx, part, time.Now()) // otherwise it is lost to the quota
		}
	}
}
