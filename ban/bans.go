package ban

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/gaissmai/bart"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
)

const (
	// Imposed: somebody was banned for what they did.
	Imposed merlon.Reason = "ban-imposed"
	// BansFull: there are as many bans as there can be, and those that would
	// have ended soonest were dropped. A network that many of them come from
	// may be banned as a whole with merlon ban add.
	BansFull merlon.Reason = "bans-full"
	// BansUnshared: the store of bans cannot be reached. The bans that are known
	// hold, new ones hold in this process and are written later.
	BansUnshared merlon.Reason = "bans-unshared"
	// BansShared: the store of bans can be reached again.
	BansShared merlon.Reason = "bans-shared"
	// ListUnusable: a file in lists has changed and cannot be used. What was
	// read of it before holds on.
	ListUnusable merlon.Reason = "ban-list-unusable"
	// ListRead: a file in lists has changed and was read.
	ListRead merlon.Reason = "ban-list-read"
	// NotCounted: strikes cannot be counted, so that nobody is banned for them.
	// What guards refuse they go on to refuse.
	NotCounted merlon.Reason = "strikes-not-counted"
)

// A Notice is news about bans for the operator.
type Notice struct {
	Reason  merlon.Reason
	Ban     Ban    // with Imposed
	Place   string // with ListUnusable and ListRead: the file
	Entries int    // with ListRead: how many there are; with BansFull: how many were dropped
	Err     error  // the cause of a failure
}

// Alarm reports whether somebody must do something.
func (n Notice) Alarm() bool {
	switch n.Reason {
	case BansFull, BansUnshared, ListUnusable, NotCounted:
		return true
	}
	return false
}

const (
	pollEvery   = time.Second
	sweepEvery  = time.Minute
	noticeEvery = time.Minute
	storeWait   = 5 * time.Second
	// share is how much more time passes between two readings of all bans than
	// one takes, so that a flood of bans does not make reading them a flood.
	share = 10
	// mostRest is how much at most: a store that stood still for a moment is
	// heard again soon.
	mostRest = 5 * time.Second
	// spare is how many are dropped at once more than need be, since finding
	// out which costs as much for one as for many.
	spare = Most / 100
	// atOnce is how many are written in one step.
	atOnce = 1000
)

// Bans are who is shut out of all sites. What guards ask is in memory; the store
// is read each second, so that replicas and the command line are heard.
type Bans struct {
	store  Store // nil: this process only
	counts count.Store
	notify func(Notice)
	now    func() time.Time
	seen   atomic.Pointer[snapshot] // never nil
	wake   chan struct{}
	paths  *recent // paths that were answered with an error
	owing  *recent // who has errors lately

	syncing sync.Mutex // one Sync at a time

	mu      sync.Mutex // writers of what follows, and of seen
	all     map[id]Ban
	pending map[id]Ban // not in the store yet; a part of all
	version string
	failing bool
	swept   time.Time
	told    map[merlon.Reason]time.Time

	files listFiles
}

// NewBans returns Bans that start empty; [Bans.Sync] reads the store. Without a
// store they are this process's only, without counts nobody is banned for what
// they do. notify is called from many goroutines and must be quick; it may be
// nil.
func NewBans(store Store, counts count.Store, notify func(Notice)) *Bans {
	if notify == nil {
		notify = func(Notice) {}
	}
	b := &Bans{
		store: store, counts: counts, notify: notify, now: time.Now, wake: make(chan struct{}, 1),
		paths: newRecent(1 << 14), owing: newRecent(1 << 12),
		all: map[id]Ban{}, pending: map[id]Ban{}, told: map[merlon.Reason]time.Time{},
		files: listFiles{open: map[string]weak.Pointer[list]{}},
	}
	b.seen.Store(&snapshot{})
	return b
}

// A snapshot is who is banned, for the hot path.
type snapshot struct {
	addresses map[string]*bart.Table[*Ban] // by site; nil if there are none
	named     map[id]*Ban                  // users and keys; nil if there are none
}

// address returns the ban that holds for an address at a site, or nil.
func (s *snapshot) address(site string, a netip.Addr, now func() time.Time) *Ban {
	if s.addresses == nil {
		return nil
	}
	if b := covering(s.addresses[site], a, now); b != nil || site == "" {
		return b
	}
	return covering(s.addresses[""], a, now)
}

func covering(t *bart.Table[*Ban], a netip.Addr, now func() time.Time) *Ban {
	if t == nil {
		return nil
	}
	b, ok := t.Lookup(a)
	if !ok {
		return nil
	}
	at := now()
	if b.Holds(at) {
		return b
	}
	// One that has ended may stand before one of a larger network.
	for _, b := range t.Supernets(netip.PrefixFrom(a, a.BitLen())) {
		if b.Holds(at) {
			return b
		}
	}
	return nil
}

// identity returns the ban that holds for who is asking, or nil. A key is
// banned with its owner.
func (b *Bans) identity(site string, who *merlon.Identity) *Ban {
	if b.seen.Load().named == nil {
		return nil
	}
	if ban := b.named(site, KeyOfUser(who.Subject)); ban != nil || !byKey(who) {
		return ban
	}
	return b.named(site, KeyOfAPIKey(who.Session))
}

// named returns the ban that holds for a key that is none of addresses, or nil.
func (b *Bans) named(site, key string) *Ban {
	named := b.seen.Load().named
	if named == nil {
		return nil
	}
	for _, s := range [2]string{site, ""} {
		if ban := named[id{s, key}]; ban != nil && ban.Holds(b.now()) {
			return ban
		}
	}
	return nil
}

// with returns a snapshot that has one ban more.
func (s *snapshot) with(b *Ban) *snapshot {
	n := *s
	p, ok := prefixOf(b.Key)
	if !ok {
		n.named = maps.Clone(s.named)
		if n.named == nil {
			n.named = map[id]*Ban{}
		}
		n.named[b.id()] = b
		return &n
	}
	n.addresses = maps.Clone(s.addresses)
	if n.addresses == nil {
		n.addresses = map[string]*bart.Table[*Ban]{}
	}
	t := n.addresses[b.Site]
	if t == nil {
		t = new(bart.Table[*Ban])
	}
	n.addresses[b.Site] = t.InsertPersist(p, b)
	return &n
}

// rebuild makes the snapshot anew. The caller holds mu.
func (b *Bans) rebuild(now time.Time) {
	n := &snapshot{}
	for k, ban := range b.all {
		if !ban.Holds(now) {
			continue
		}
		p, ok := prefixOf(ban.Key)
		if !ok {
			if n.named == nil {
				n.named = map[id]*Ban{}
			}
			n.named[k] = &ban
			continue
		}
		if n.addresses == nil {
			n.addresses = map[string]*bart.Table[*Ban]{}
		}
		t := n.addresses[ban.Site]
		if t == nil {
			t = new(bart.Table[*Ban])
			n.addresses[ban.Site] = t
		}
		t.Insert(p, &ban)
	}
	b.seen.Store(n)
	b.swept = now
}

// impose bans a key for first, or for twice as long as the last time, unless it
// is banned already.
func (b *Bans) impose(ban Ban, first, longest time.Duration) {
	now := b.now()
	b.mu.Lock()
	k := ban.id()
	old, again := b.all[k]
	if again && old.Holds(now) {
		b.mu.Unlock()
		return
	}
	ban.Times = 1
	if again && old.remembered(now) {
		ban.Times += old.Times
	}
	length := first
	for n := 1; n < ban.Times && length < longest; n++ {
		length *= 2
	}
	// Microseconds are what every store keeps.
	ban.Since = now.UTC().Truncate(time.Microsecond)
	ban.Until = ban.Since.Add(min(length, longest))
	ban.By = "merlon"
	b.all[k], b.pending[k] = ban, ban
	dropped := b.bound(now)
	if dropped == 0 {
		b.seen.Store(b.seen.Load().with(&ban))
	}
	b.mu.Unlock()
	if dropped > 0 {
		b.tell(Notice{Reason: BansFull, Entries: dropped})
	}
	b.notify(Notice{Reason: Imposed, Ban: ban})
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// bound keeps all within Most, and returns how many went. The caller holds mu.
func (b *Bans) bound(now time.Time) int {
	if len(b.all) <= Most {
		return 0
	}
	forget(b.all, now)
	dropped := drop(b.all, Most, spare)
	maps.DeleteFunc(b.pending, func(k id, _ Ban) bool { _, there := b.all[k]; return !there })
	b.rebuild(now)
	return dropped
}

// tell notifies of what goes on for long once a minute.
func (b *Bans) tell(n Notice) {
	now := b.now()
	b.mu.Lock()
	last, before := b.told[n.Reason]
	quiet := before && now.Sub(last) >= 0 && now.Sub(last) < noticeEvery
	if !quiet {
		b.told[n.Reason] = now
	}
	b.mu.Unlock()
	if !quiet {
		b.notify(n)
	}
}

// Run writes what is new, reads what others wrote, and reads lists that have
// changed, until ctx is done.
func (b *Bans) Run(ctx context.Context) {
	poll := time.NewTimer(0)
	defer poll.Stop()
	write := time.NewTimer(time.Hour)
	write.Stop()
	defer write.Stop()
	rested := time.Now() // when something may be written again
	for {
		select {
		case <-ctx.Done():
			// What was imposed at the end must not be lost with this process.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWait)
			_ = b.write(last) // nobody is left to hear of it
			cancel()
			return
		case <-b.wake:
			// Of a flood of bans many are written together.
			write.Reset(max(0, time.Until(rested)))
		case <-write.C:
			begin := time.Now()
			_ = b.write(ctx) // tried again, and told, by the next Sync
			rested = time.Now().Add(rest(begin))
		case <-poll.C:
			begin := time.Now()
			_ = b.Sync(ctx) // has been told
			b.reread()
			poll.Reset(max(pollEvery, rest(begin)))
		}
	}
}

// rest is how long the store is left alone after what began then.
func rest(began time.Time) time.Duration { return min(share*time.Since(began), mostRest) }

// Sync writes what is new to the store and reads what others wrote. If that
// fails, what is known holds on.
func (b *Bans) Sync(ctx context.Context) error {
	b.syncing.Lock()
	defer b.syncing.Unlock()
	err := b.exchange(ctx)
	if ctx.Err() != nil {
		return err
	}
	now := b.now()
	b.mu.Lock()
	changed := (err != nil) != b.failing
	b.failing = err != nil
	if since := now.Sub(b.swept); since >= sweepEvery || since < 0 {
		forget(b.all, now)
		b.rebuild(now)
	}
	b.mu.Unlock()
	switch {
	case changed && err != nil:
		b.notify(Notice{Reason: BansUnshared, Err: err})
	case changed:
		b.notify(Notice{Reason: BansShared})
	}
	return err
}

func (b *Bans) exchange(ctx context.Context) error {
	if b.store == nil {
		return nil
	}
	if err := b.put(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	b.mu.Lock()
	have := b.version
	b.mu.Unlock()
	list, version, err := b.store.List(ctx, have)
	if err != nil || version == have {
		return err
	}
	all := make(map[id]Ban, len(list))
	for _, ban := range list {
		all[ban.id()] = ban
	}
	now := b.now()
	b.mu.Lock()
	if version == "" {
		// The store has lost everything. What each replica knows comes back.
		maps.DeleteFunc(b.all, func(_ id, ban Ban) bool { return !ban.remembered(now) })
		b.pending = maps.Clone(b.all)
	}
	// What was imposed since put is not in the list yet.
	maps.Copy(all, b.pending)
	b.all, b.version = all, version
	dropped := b.bound(now)
	b.rebuild(now)
	b.mu.Unlock()
	if dropped > 0 {
		b.tell(Notice{Reason: BansFull, Entries: dropped})
	}
	return nil
}

// write is put for those who do not sync.
func (b *Bans) write(ctx context.Context) error {
	b.syncing.Lock()
	defer b.syncing.Unlock()
	if b.store == nil {
		return nil
	}
	return b.put(ctx)
}

// put writes what is new to the store. The caller holds syncing.
func (b *Bans) put(ctx context.Context) error {
	b.mu.Lock()
	list := slices.Collect(maps.Values(b.pending))
	b.mu.Unlock()
	total := 0
	for part := range slices.Chunk(list, atOnce) {
		ctx, cancel := context.WithTimeout(ctx, storeWait)
		dropped, err := b.store.Put(ctx, part, Most, b.now())
		cancel()
		if err != nil {
			return fmt.Errorf("ban: %w", err)
		}
		total += dropped
		b.mu.Lock()
		for _, ban := range part {
			if b.pending[ban.id()] == ban {
				delete(b.pending, ban.id())
			}
		}
		b.mu.Unlock()
	}
	if total > 0 {
		b.tell(Notice{Reason: BansFull, Entries: total})
	}
	return nil
}

// take counts a cost and reports whether it was too much.
func (b *Bans) take(ctx context.Context, key count.Key, q count.Quota, cost int64) (tooMuch bool) {
	if b.counts == nil {
		return false
	}
	results := make([]count.Result, 1)
	err := b.counts.Take(ctx, []count.Ask{{Key: key, Quota: q, Cost: min(cost, q.Burst)}}, results, b.now())
	if err != nil {
		b.tell(Notice{Reason: NotCounted, Err: err})
		return false
	}
	// What others have used up is held against nobody.
	return !results[0].OK && !results[0].Shared
}

// give counts a cost that is not asked for, or gives it back.
func (b *Bans) give(ctx context.Context, key count.Key, q count.Quota, cost int64) {
	if b.counts == nil {
		return
	}
	if err := b.counts.Add(ctx, []count.Ask{{Key: key, Quota: q, Cost: cost}}, b.now()); err != nil && !errors.Is(err, context.Canceled) {
		b.tell(Notice{Reason: NotCounted, Err: err})
	}
}

// recent remembers hashes for a while. It may forget one too early.
type recent struct {
	seed  maphash.Seed
	slots []atomic.Uint64
}

func newRecent(n int) *recent {
	return &recent{seed: maphash.MakeSeed(), slots: make([]atomic.Uint64, n)}
}

// add remembers a hash in a window of time and reports whether it was new there.
func (r *recent) add(h, window uint64) bool {
	v := h ^ window
	return r.slots[h%uint64(len(r.slots))].Swap(v) != v
}

// has reports whether a hash is remembered in a window of time.
func (r *recent) has(h, window uint64) bool {
	return r.slots[h%uint64(len(r.slots))].Load() == h^window
}
