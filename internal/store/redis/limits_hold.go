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
	// holdPlaces takes a place in each key, or none. ARGV: lease in ms, and for
	// each key most and who. It answers -1, or the number of the first key in
	// which all are taken, from 0 on.
	holdPlaces = newScript(`local t, lease = redis.call('TIME'), ARGV[1] + 0
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i, k in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', k, '-inf', now)
  if redis.call('ZCARD', k) >= ARGV[2 * i] + 0 then
    for j = 1, i - 1 do redis.call('ZREM', KEYS[j], ARGV[2 * j + 1]) end
    return i - 1
  end
  redis.call('ZADD', k, now + lease, ARGV[2 * i + 1])
  redis.call('PEXPIRE', k, lease)
end
return -1`)

	// renewPlaces renews leases, also those that a server has forgotten. ARGV: lease
	// in ms, who…
	renewPlaces = newScript(`local k, t = KEYS[1], redis.call('TIME')
local till = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', k, till, ARGV[i]) end
redis.call('PEXPIRE', k, ARGV[1])
return 1`)
)

// Hold implements [count.Store]. A server that is flushed forgets what is held
// until it is renewed, within ten seconds. In a cluster, where it takes places
// one by one, who asks for several may be refused by somebody who is refused too.
func (l *Limits) Hold(ctx context.Context, places []count.Place) (full int, release func(), err error) {
	if len(places) == 0 {
		return -1, func() {}, nil
	}
	keys, who := make([]string, len(places)), make([]string, len(places))
	for i, p := range places {
		keys[i] = countKey(p.Key, 'h')
		if who[i], err = l.register(keys[i]); err != nil {
			for _, me := range who[:i] {
				l.forget(me)
			}
			return -1, nil, err
		}
	}
	hold := l.holdTogether
	if l.c.Mode() == rueidis.ClientModeCluster {
		hold = l.holdEach
	}
	full, err = hold(ctx, keys, places, who)
	switch {
	case err != nil:
		go l.release(who) // they may be held; nobody waits for a server that does not answer
		return -1, nil, err
	case full >= 0:
		l.release(who)
		return full, nil, nil
	}
	return -1, sync.OnceFunc(func() { l.release(who) }), nil
}

// holdTogether takes all or nothing.
func (l *Limits) holdTogether(ctx context.Context, keys []string, places []count.Place, who []string) (full int, err error) {
	n, err := holdPlaces.do(ctx, l.c, keys, holdArgs(places, who)).AsInt64()
	if err != nil {
		return -1, err
	}
	if n >= 0 {
		for _, me := range who { // there is nothing to release
			l.forget(me)
		}
	}
	return int(n), nil
}

// holdEach takes what there is.
func (l *Limits) holdEach(ctx context.Context, keys []string, places []count.Place, who []string) (full int, err error) {
	send := func(whole bool, which []int) []rueidis.RedisResult {
		cmds := make(rueidis.Commands, len(which))
		for j, i := range which {
			cmds[j] = holdPlaces.command(l.c, whole, keys[i:i+1], holdArgs(places[i:i+1], who[i:i+1]))
		}
		return l.c.DoMulti(ctx, cmds...)
	}
	full = -1
	which := make([]int, len(keys))
	for i := range which {
		which[i] = i
	}
	var again []int
	read := func(i int, r rueidis.RedisResult) {
		n, e := r.AsInt64()
		if e != nil {
			err = e
		} else if n >= 0 && (full < 0 || i < full) {
			full = i
		}
	}
	for i, r := range send(false, which) {
		if unknownScript(r.Error()) {
			again = append(again, i)
			continue
		}
		read(i, r)
	}
	if len(again) > 0 {
		for j, r := range send(true, again) {
			read(again[j], r)
		}
	}
	if err != nil {
		return -1, err
	}
	return full, nil
}

func holdArgs(places []count.Place, who []string) []string {
	args := make([]string, 1, 1+2*len(places))
	args[0] = decimal(lease.Milliseconds())
	for i, p := range places {
		args = append(args, decimal(p.Most), who[i])
	}
	return args
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
	var cmds rueidis.Commands
	for _, me := range who {
		if key := l.forget(me); key != "" {
			cmds = append(cmds, l.c.B().Zrem().Key(key).Member(me).Build())
		}
	}
	if len(cmds) == 0 {
		return
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
