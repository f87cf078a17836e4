package redis

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/count"
)

var (
	// holdPlace takes a place. ARGV: most, lease in ms, who. It answers 1, or 0 if
	// all are taken.
	holdPlace = newScript(`local k, t = KEYS[1], redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', k, '-inf', now)
if redis.call('ZCARD', k) >= ARGV[1] + 0 then return 0 end
redis.call('ZADD', k, now + ARGV[2], ARGV[3])
redis.call('PEXPIRE', k, ARGV[2])
return 1`)

	// renewPlaces renews leases, also those that a server has forgotten. ARGV: lease
	// in ms, who…
	renewPlaces = newScript(`local k, t = KEYS[1], redis.call('TIME')
local till = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', k, till, ARGV[i]) end
redis.call('PEXPIRE', k, ARGV[1])
return 1`)
)

// Hold implements [count.Store]. A server that is flushed forgets what is held
// until it is renewed, within ten seconds.
func (l *Limits) Hold(ctx context.Context, places []count.Place) (full int, release func(), err error) {
	who := make([]string, 0, len(places))
	for i, p := range places {
		key := countKey(p.Key, 'h')
		me, err := l.register(key)
		if err != nil {
			l.release(who)
			return -1, nil, err
		}
		who = append(who, me)
		n, err := l.hold(ctx, key, p.Most, me)
		if err != nil || n == 0 {
			if err == nil { // this one is not held; otherwise it may be
				l.forget(me)
				who = who[:i]
			}
			l.release(who)
			if err != nil {
				return -1, nil, err
			}
			return i, nil, nil
		}
	}
	return -1, sync.OnceFunc(func() { l.release(who) }), nil
}

func (l *Limits) hold(ctx context.Context, key string, most int64, me string) (int64, error) {
	keys, args := []string{key}, []string{decimal(most), decimal(lease.Milliseconds()), me}
	return holdPlace.do(ctx, l.c, keys, args).AsInt64()
}

func (l *Limits) register(key string) (string, error) {
	l.gather.Lock()
	closed := l.closed
	l.gather.Unlock()
	if closed {
		return "", errClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	me := l.self + strconv.FormatUint(l.last, 36)
	l.held[me] = key
	return me, nil
}

func (l *Limits) forget(me string) (key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key = l.held[me]
	delete(l.held, me)
	return key
}

// release releases what is held. What cannot be is not renewed at least.
func (l *Limits) release(who []string) {
	if len(who) == 0 {
		return
	}
	cmds := make(rueidis.Commands, len(who))
	for i, me := range who {
		cmds[i] = l.c.B().Zrem().Key(l.forget(me)).Member(me).Build()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l.c.DoMulti(ctx, cmds...)
}

// renewAll renews leases until ctx is done.
func (l *Limits) renewAll(ctx context.Context) {
	defer l.done.Done()
	tick := time.NewTicker(renewal)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.renewOnce(ctx)
		}
	}
}

// atOnce bounds what one script renews and one pipeline sends.
const atOnce = 500

func (l *Limits) renewOnce(ctx context.Context) {
	l.mu.Lock()
	held := maps.Clone(l.held)
	l.mu.Unlock()
	in := make(map[string][]string)
	for me, key := range held {
		in[key] = append(in[key], me)
	}
	ms := decimal(lease.Milliseconds())
	var cmds rueidis.Commands
	send := func() {
		ctx, cancel := context.WithTimeout(ctx, renewal/2)
		defer cancel()
		l.c.DoMulti(ctx, cmds...)
		cmds = nil
	}
	for key, who := range in {
		for len(who) > 0 {
			n := min(len(who), atOnce)
			cmds = append(cmds, renewPlaces.command(l.c, true, []string{key}, append([]string{ms}, who[:n]...)))
			who = who[n:]
			if len(cmds) == atOnce {
				send()
			}
		}
	}
	if len(cmds) > 0 {
		send()
	}
	// What was released meanwhile may have been renewed after that.
	var late []string
	l.mu.Lock()
	for me := range held {
		if _, ok := l.held[me]; !ok {
			late = append(late, me)
		}
	}
	l.mu.Unlock()
	for _, me := range late {
		cmds = append(cmds, l.c.B().Zrem().Key(held[me]).Member(me).Build())
	}
	if len(cmds) > 0 {
		send()
	}
}
