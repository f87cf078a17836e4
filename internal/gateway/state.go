package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/portal/resume"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/throttle"
)

// A State is what outlives a reload: the key, and what is counted, banned,
// queued and kept, in this process or where all replicas see it. What is
// remembered of people is in [Stores].
type State struct {
	Key      secrets.Key
	Counts   count.Store
	Bans     *ban.Bans
	Classes  *throttle.Pool
	Crawlers *challenge.Crawlers
	Tries    attempts.Store // of log-ins at backends
	Resume   *resume.Keeper

	db       *store.DB       // nil for a rehearsal
	redis    *redis.Link     // nil if there is none
	limits   *redis.Shared   // nil if there is no Redis
	fallback *count.Fallback // nil if there is no Redis

	mu    sync.Mutex
	loads map[string]*challenge.Load // by site

	closers []func(context.Context) error // the last opened first
}

// load returns what a site gets.
func (s *State) load(site string) *challenge.Load {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.loads[site]
	if l == nil {
		l = challenge.NewLoad()
		s.loads[site] = l
	}
	return l
}

// Replicas is how many processes share the limits.
func (s *State) Replicas() int {
	if s.limits == nil {
		return 1
	}
	return s.limits.Count()
}

// rehearse is a state for a gateway that is only built to see whether it can be.
func rehearse() *State {
	key, err := secrets.NewKey(secrets.New(rand.Text() + rand.Text()))
	if err != nil {
		panic(err) // 52 bytes are enough
	}
	return newState(key, count.NewMemory(count.MemoryConfig{Keys: 1}), nil, nil)
}

func newState(key secrets.Key, counts count.Store, bans ban.Store, notify func(ban.Notice)) *State {
	return &State{
		Key: key, Counts: counts, Bans: ban.NewBans(bans, counts, notify),
		Crawlers: challenge.NewCrawlers(net.DefaultResolver), loads: map[string]*challenge.Load{},
		Classes: throttle.NewPool(nil), Tries: attempts.NewMemory(0), Resume: resume.New(key),
	}
}

// RedisRights are what the one ACL user of a gateway needs. A line of an aclfile is
//
//	user merlon on >PASSWORD resetchannels RIGHTS
const RedisRights = live.Rights + " " + redis.Rights

// replicasFile is where the last number of replicas is kept in the data folder.
const replicasFile = "replicas"

// leaseTime is for how long a replica keeps what it has taken at once.
const leaseTime = 200 * time.Millisecond

// A notified is told what happens to what replicas share.
type notified struct {
	bans   func(ban.Notice)
	counts func(count.Notice)
}

// openState opens what f says, and makes the key and the database if they do
// not exist.
func openState(ctx context.Context, f *config.File, n notified) (_ *State, err error) {
	key, err := openKey(f.Key, f.Data)
	if err != nil {
		return nil, merlon.Within("key", err)
	}
	db, err := OpenDB(ctx, f)
	if err != nil {
		return nil, err
	}
	closers := []func(context.Context) error{func(context.Context) error { return db.Close() }}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(ctx, closers))
		}
	}()
	local := count.NewMemory(count.MemoryConfig{})
	if f.Redis == "" {
		s := newState(key, local, db.Bans(), n.bans)
		s.db, s.closers = db, closers
		s.start(ctx)
		return s, nil
	}
	at, err := f.Redis.Resolve()
	if err != nil {
		return nil, merlon.Within("redis", err)
	}
	limits, err := redis.OpenLimits(at, filepath.Join(f.Data, replicasFile))
	if err != nil {
		return nil, merlon.Within("redis", err)
	}
	closers = append(closers, func(context.Context) error { limits.Close(); return nil })
	link, err := redis.Open(ctx, at)
	if err != nil {
		return nil, merlon.Within("redis", err)
	}
	closers = append(closers, func(context.Context) error { link.Close(); return nil })
	var shared count.Store = limits
	if f.Lease > 0 {
		lease := count.NewLease(int64(f.Lease), leaseTime, limits)
		closers = append(closers, func(context.Context) error { lease.Close(); return nil })
		shared = lease
	}
	counts := count.NewFallback(count.FallbackConfig{}, shared, local, limits.Count, n.counts)
	closers = append(closers, func(context.Context) error { counts.Close(); return nil })
	s := newState(key, counts, live.NewBans(link.Client), n.bans)
	s.db, s.limits, s.fallback, s.closers = db, limits, counts, closers
	s.Classes = throttle.NewPool(limits.Count)
	s.redis, s.Tries, s.Resume = link, live.NewTries(link.Client), resume.NewIn(key, live.NewKept(link.Client))
	s.start(ctx)
	return s, nil
}

// start begins what the state does by itself, when it has read what there is.
func (s *State) start(ctx context.Context) {
	_ = s.Bans.Sync(ctx) // a failure is told as a notice, and tried again
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { s.Bans.Run(ctx); close(done) }()
	s.closers = append(s.closers, func(context.Context) error { cancel(); <-done; return nil })
}

func closeAll(ctx context.Context, closers []func(context.Context) error) error {
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i](ctx))
	}
	return errors.Join(errs...)
}

// Close ends what the state does by itself and closes what it has opened.
func (s *State) Close(ctx context.Context) error {
	if s == nil {
		return nil
	}
	err := closeAll(ctx, s.closers)
	s.closers = nil
	return err
}
