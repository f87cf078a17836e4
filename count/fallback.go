package count

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A Prober is a [Store] that can say whether it counts. A [Fallback] asks it
// every second, and again and again while it does not.
type Prober interface {
	// Probe connects where needed, and fails if anything could not be counted.
	// It tells whether counts were forgotten since it was last asked.
	Probe(ctx context.Context, now time.Time) (forgot bool, err error)
}

// FallbackConfig configures a [Fallback]. Its zero value is for a store within
// a few milliseconds.
type FallbackConfig struct {
	Timeout time.Duration // what a request waits for the shared store at most; 20 ms if 0
	Watch   time.Duration // how often the store is asked whether it still counts; 1 s if 0
	Retry   time.Duration // after this time it is first asked whether it counts again; 100 ms if 0
	Settle  time.Duration // how long it is not used after it has forgotten; 10 s if 0
}

// An Event is what a [Notice] tells.
type Event string

// What can happen to a shared store.
const (
	// SharedLost: the shared store is down, refuses, or goes on to be slow, and
	// counts are local from now on.
	SharedLost Event = "shared-lost"
	// SharedBack: it counts again.
	SharedBack Event = "shared-back"
	// SharedForgot: it counts, but has forgotten counts: it was flushed or
	// restarted, or throws away keys for want of memory. Told once for as long
	// as it goes on.
	SharedForgot Event = "shared-forgot"
)

// A Notice tells that counts are no longer, or again, what all replicas count
// together.
type Notice struct {
	Event    Event
	Err      error // why, if the store was lost
	Replicas int   // how many share the quotas meanwhile
}

// A Fallback counts in a shared [Store] while that works, and otherwise in this
// process at the quota divided by the replicas. It is never unlimited. Whom the
// store does not answer in time is counted here, too, without it being lost for
// all others: that it is if it goes on so.
//
// What it grants goes into the local count as well, so that this is warm when
// it is needed. That bounds what a key gets beyond its quota, all replicas
// together, where n is their number: when the shared store is lost, at most one
// burst, less what it had granted; when it is back, at most one burst of what
// was granted locally; when it has forgotten, one burst until that is noticed
// (Watch) and one when it is used again, which for quotas that are whole again
// within Settle is none. In a window that Ends, all losses together are one
// burst, and each time it forgets is one. A burst divided is at least 1 and at
// least what one request costs, so bursts smaller than n times that are
// exceeded by as much; rates are not. Of places at most Most are held twice
// for as long as those who held them when the store was lost, came back or
// forgot.
type Fallback struct {
	c        FallbackConfig
	shared   Store
	local    *Memory
	replicas func() int
	notify   func(Notice)

	spell atomic.Pointer[spell] // the newest

	lost   atomic.Bool
	late   atomic.Int64 // since when no answer came in time, in ns since began; 0: the last one did
	trying atomic.Bool  // somebody asks nevertheless
	forgot atomic.Int64 // when, in ns since began
	here   atomic.Uint64
	began  time.Time
	errs   chan error
	stop   context.CancelFunc
	done   chan struct{}
}

var _ Store = (*Fallback)(nil)

// mostRetry is how long the store is left alone at most.
const mostRetry = 5 * time.Second

// patience is how long a question may take that no request waits for.
const patience = time.Second

// NewFallback returns a Fallback from shared to local. Replicas says how many
// processes share the quotas. Notify is told what happens, one at a time.
func NewFallback(c FallbackConfig, shared Store, local *Memory, replicas func() int, notify func(Notice)) *Fallback {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&c.Timeout, 20*time.Millisecond)
	set(&c.Watch, time.Second)
	set(&c.Retry, 100*time.Millisecond)
	set(&c.Settle, 10*time.Second)
	ctx, stop := context.WithCancel(context.Background())
	f := &Fallback{c: c, shared: shared, local: local, replicas: replicas, notify: notify, began: time.Now(),
		errs: make(chan error, 1), stop: stop, done: make(chan struct{})}
	f.forgot.Store(-int64(c.Settle))
	go f.watch(ctx)
	return f
}

// Close ends the watch over the shared store. It does not close the stores.
func (f *Fallback) Close() {
	f.stop()
	<-f.done
}

// sharing is how many share the quotas.
func (f *Fallback) sharing() int64 { return int64(min(max(f.replicas(), 1), mostShares)) }

// clock is the time that this goes by, in ns since began.
func (f *Fallback) clock() int64 { return int64(time.Since(f.began)) }

// locally says whether asks are counted locally now.
func (f *Fallback) locally(asks []Ask, now int64) bool {
	if f.lost.Load() {
		return true
	}
	since := time.Duration(now - f.forgot.Load())
	if since >= f.c.Settle {
		return false
	}
	for i := range asks {
		if q := &asks[i].Quota; q.Every == 0 || q.refill() > since {
			return true
		}
	}
	return false
}

// failed notes that the store did not count, and says whether that was it.
// Who asked may have gone, which is no failure of the store. A store that was
// slow for a moment is not lost, but one that goes on to be is, after as long
// again as a request waits.
func (f *Fallback) failed(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) {
		now := max(f.clock(), 1)
		if f.late.CompareAndSwap(0, now) || now-f.late.Load() < int64(f.c.Timeout) {
			return true
		}
	}
	if f.lost.CompareAndSwap(false, true) {
		f.errs <- err // has room: it is read before lost is false again
	}
	return true
}

// slow says whether the store did not answer in time of late, and whether
// somebody else finds out already if it does again.
func (f *Fallback) slow() (slow, busy bool) {
	slow = f.late.Load() != 0
	return slow, slow && !f.trying.CompareAndSwap(false, true)
}

// counted notes that the store did count in time.
func (f *Fallback) counted() {
	if f.late.Load() != 0 {
		f.late.Store(0)
	}
}

// A spell is how long those wait who have asked at nearly the same time.
type spell struct {
	context.Context
	cancel context.CancelFunc // by the clock only
	began  int64              // in ns since began of the Fallback
}

// within returns a context that ends after Timeout, or up to a quarter later.
// One for each request would cost as much as all else in this process. That a
// client has gone meanwhile ends it no sooner, since it is over soon.
func (f *Fallback) within(now int64) context.Context {
	p := f.spell.Load()
	if p != nil && now-p.began <= int64(f.c.Timeout/4) {
		return p
	}
	n := &spell{began: now}
	n.Context, n.cancel = context.WithTimeout(context.Background(), f.c.Timeout+f.c.Timeout/4)
	if !f.spell.CompareAndSwap(p, n) {
		n.cancel()
		return f.spell.Load()
	}
	return n
}

// Take implements [Store].
func (f *Fallback) Take(ctx context.Context, asks []Ask, results []Result, now time.Time) error {
	if err := Check(asks, now); err != nil {
		return err
	}
	at := f.clock()
	slow, busy := false, f.locally(asks, at)
	if !busy {
		slow, busy = f.slow()
	}
	if busy {
		f.takeHere(asks, results, now)
		return nil
	}
	err := ctx.Err()
	if err == nil {
		err = f.shared.Take(f.within(at), asks, results, now)
	}
	if slow {
		f.trying.Store(false)
	}
	if err != nil {
		if !f.failed(ctx, err) {
			return err
		}
		f.takeHere(asks, results, now)
		return nil
	}
	f.counted()
	for i := range asks {
		if !results[i].OK {
			return nil
		}
	}
	return f.local.addShare(asks, now, f.sharing())
}

func (f *Fallback) takeHere(asks []Ask, results []Result, now time.Time) {
	f.here.Add(1)
	f.local.takeShare(asks, results, now, f.sharing())
}

// Add implements [Store]. It counts also for those who have gone.
func (f *Fallback) Add(ctx context.Context, asks []Ask, now time.Time) error {
	at := f.clock()
	if err := f.local.addShare(asks, now, f.sharing()); err != nil || f.locally(asks, at) {
		return err
	}
	if err := f.shared.Add(f.within(at), asks, now); err != nil {
		f.failed(context.WithoutCancel(ctx), err) // it is counted locally
	}
	return nil
}

// Hold implements [Store].
func (f *Fallback) Hold(ctx context.Context, places []Place) (full int, release func(), err error) {
	slow, busy := false, f.lost.Load()
	if !busy {
		slow, busy = f.slow()
	}
	if busy {
		return f.holdLocally(ctx, places)
	}
	within, cancel := context.WithTimeout(ctx, f.c.Timeout)
	full, there, err := f.shared.Hold(within, places)
	cancel()
	if slow {
		f.trying.Store(false)
	}
	if err != nil {
		if !f.failed(ctx, err) {
			return -1, nil, err
		}
		return f.holdLocally(ctx, places)
	}
	f.counted()
	if full >= 0 {
		return full, nil, nil
	}
	// They are held here too, in case the store is lost meanwhile.
	also := make([]Place, len(places))
	for i, p := range places {
		also[i] = Place{Key: p.Key, Most: 1 << 62}
	}
	_, here, err := f.local.Hold(ctx, also)
	if err != nil {
		there()
		return -1, nil, err
	}
	return -1, sync.OnceFunc(func() {
		here()
		f.wait(there)
	}), nil
}

func (f *Fallback) holdLocally(ctx context.Context, places []Place) (int, func(), error) {
	f.here.Add(1)
	n := f.sharing()
	mine := make([]Place, len(places))
	for i, p := range places {
		mine[i] = Place{Key: p.Key, Most: max(p.Most/n, min(p.Most, 1))}
	}
	return f.local.Hold(ctx, mine)
}

// wait runs release and waits as long as a request may.
func (f *Fallback) wait(release func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		release()
	}()
	t := time.NewTimer(f.c.Timeout)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// watch asks the store until ctx is done. It alone tries whether a store that
// was lost is back, so that nobody waits for that, and it is not asked by all
// at once.
func (f *Fallback) watch(ctx context.Context) {
	defer close(f.done)
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-f.errs:
			f.notify(Notice{SharedLost, err, int(f.sharing())})
			if !f.regain(ctx) {
				return
			}
			f.notify(Notice{Event: SharedBack, Replicas: int(f.sharing())})
		case <-t.C:
			if err := f.probe(ctx, patience); err != nil {
				f.failed(ctx, err)
			}
		}
		t.Reset(jitter(f.c.Watch))
	}
}

// regain waits until the store is back, and says whether it is.
func (f *Fallback) regain(ctx context.Context) bool {
	for pause := f.c.Retry; ; pause = min(2*pause, max(mostRetry, f.c.Retry)) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(jitter(pause)):
		}
		// The first may have to connect; the second must be as quick as
		// requests need it.
		if f.probe(ctx, patience) == nil && f.probe(ctx, f.c.Timeout) == nil {
			f.counted()
			f.lost.Store(false)
			return true
		}
	}
}

// jitter returns something from half of d to one and a half.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// probe asks the store whether it counts, and notices what it forgot.
func (f *Fallback) probe(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	forgot, err := probe(ctx, f.shared, time.Now())
	if err == nil && forgot {
		at := f.clock()
		if at-f.forgot.Swap(at) < int64(f.c.Settle) {
			return nil // that it forgets again and again is told already
		}
		f.notify(Notice{Event: SharedForgot, Replicas: int(f.sharing())})
	}
	return err
}

// probe asks a store that is no [Prober] by looking at a count.
func probe(ctx context.Context, s Store, now time.Time) (forgot bool, err error) {
	if p, ok := s.(Prober); ok {
		return p.Probe(ctx, now)
	}
	look := Ask{Key: Key("probe"), Quota: Quota{Every: time.Microsecond, Burst: 1}}
	return false, s.Take(ctx, []Ask{look}, make([]Result, 1), now)
}

// Shared says whether the shared store counts at the moment.
func (f *Fallback) Shared() bool { return !f.lost.Load() }

// Here is how often it has counted, or held places, in this process, because
// the shared store did not or was late.
func (f *Fallback) Here() uint64 { return f.here.Load() }
