package challenge

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/merlon-dev/merlon"
)

const (
	window     = 5 * time.Second
	onAfter    = 2   // windows in a row
	offBelow   = 0.7 // of what over says
	failsOfOne = 5   // that count of one client in a window
	fewAnswers = 50  // in a window; fewer say nothing about errors
)

// A Load counts what one site gets. It outlives reloads of the configuration,
// so that a flood is not forgotten by them.
type Load struct {
	window atomic.Int64 // number of the window being counted
	asked  atomic.Int64 // requests
	served atomic.Int64 // requests that the backend was asked
	failed atomic.Int64 // those of them that it failed
	epoch  time.Time    // 1970, reckoned from the start by the clock that nobody sets
	seed   maphash.Seed
	fails  [1024]atomic.Uint32 // failures in this window, by clients that may share

	mu sync.Mutex
	// budgets are those of guards that live: one that no configuration has any
	// more is gone with its guards.
	budgets map[budgetKey]weak.Pointer[budget]
}

type budgetKey struct {
	over Over
	calm time.Duration
}

// A budget is what some configuration says the site bears, and whether it is
// exceeded.
type budget struct {
	key   budgetKey
	on    atomic.Pointer[merlon.Finding] // by what it was exceeded last; nil: off
	above int                            // windows in a row; the Load's lock
	below int
}

// NewLoad returns a Load for one site.
func NewLoad() *Load {
	now := time.Now()
	return &Load{epoch: now.Add(-time.Duration(now.UnixNano())), seed: maphash.MakeSeed(), budgets: map[budgetKey]weak.Pointer[budget]{}}
}

// budgetFor returns the state of a budget: the same one after a reload that
// has not changed it.
func (l *Load) budgetFor(o Over, calm time.Duration) *budget {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := budgetKey{o, calm}
	if b := l.budgets[k].Value(); b != nil {
		return b
	}
	b := &budget{key: k}
	l.budgets[k] = weak.Make(b)
	return b
}

// ask counts a request.
func (l *Load) ask(now time.Time) {
	if n := int64(now.Sub(l.epoch) / window); n > l.window.Load() {
		l.roll(n)
	}
	l.asked.Add(1)
}

// answer counts how the backend served a request. What a guard ended, such as
// one whose client had given it too little time, is no failure of the backend,
// and of one client only so many are, or it could have everybody challenged by
// asking for what fails.
func (l *Load) answer(client netip.Addr, o merlon.Outcome) {
	if !o.Upstream || o.Guard != "" && o.Guard != "upstream" {
		return
	}
	if o.Status >= 500 {
		at := maphash.Comparable(l.seed, merlon.Subscriber(client)) % uint64(len(l.fails))
		if l.fails[at].Add(1) > failsOfOne {
			return
		}
		l.failed.Add(1)
	}
	l.served.Add(1)
}

// roll begins window n.
func (l *Load) roll(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.window.Load()
	if n <= last {
		return
	}
	l.window.Store(n)
	asked, served, failed := l.asked.Swap(0), l.served.Swap(0), l.failed.Swap(0)
	for i := range l.fails {
		l.fails[i].Store(0)
	}
	if last == 0 {
		return // the first window was not counted from its beginning
	}
	for k, w := range l.budgets {
		b := w.Value()
		if b == nil {
			delete(l.budgets, k)
			continue
		}
		b.closed(asked, served, failed)
		if n-last > 1 {
			b.above = 0 // nobody asked for anything in between
			b.rest(n - last - 1)
		}
	}
}

// closed takes a window's counts.
func (b *budget) closed(asked, served, failed int64) {
	worst, by := 0.0, merlon.Finding{}
	if r := b.key.over.Rate; !r.Off {
		rate := float64(asked) / window.Seconds()
		worst = rate / r.perSecond()
		by = merlon.Finding{Rule: "over.rate", Value: r.String(), Message: fmt.Sprintf("the site gets %.0f requests a second", rate)}
	}
	if e := b.key.over.Errors; !e.Off && served >= fewAnswers {
		percent := 100 * float64(failed) / float64(served)
		if share := percent / float64(e.Percent); share > worst {
			worst = share
			by = merlon.Finding{Rule: "over.errors", Value: e.String(), Message: fmt.Sprintf("%.0f %% of the backends' answers are errors", percent)}
		}
	}
	switch {
	case worst > 1:
		b.above, b.below = b.above+1, 0
		if b.above >= onAfter || b.on.Load() != nil {
			b.on.Store(&by)
		}
	case worst < offBelow:
		b.above = 0
		b.rest(1)
	default:
		b.above, b.below = 0, 0
	}
}

// rest takes n windows that were calm.
func (b *budget) rest(n int64) {
	if b.on.Load() == nil {
		return
	}
	need := int((b.key.calm + window - 1) / window)
	b.below += int(min(n, int64(need)))
	if b.below >= need {
		b.on.Store(nil)
		b.below = 0
	}
}
