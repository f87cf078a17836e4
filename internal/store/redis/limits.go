package redis

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/secrets"
)

// The keys of counts. KEY is a 128-bit hash of what is counted together, so
// nothing that clients spell gets there. All of them expire: a rate when the
// quota is whole again, a window a minute after its end, places a lease after
// they were last held.
//
//	merlon:l:{KEY}r   STRING  when the quota is whole again, in µs of the server's clock
//	merlon:l:{KEY}w   STRING  units used
//	merlon:l:{KEY}h   ZSET    who holds a place, by when the lease ends in ms of the server's clock
const countPrefix = "merlon:l:{"

// LimitRights are what the ACL user of [Limits] and [Replicas] needs; for a
// cluster or Sentinels as well.
const LimitRights = "~merlon:l:* ~merlon:r:* +evalsha +eval +get +set +del +time +zadd +zrem +zcard +zremrangebyscore +zrangebyscore" +
	" +pexpire +info +ping +hello +auth +select +role +client +cluster|slots +cluster|shards"

const (
	// lease is how long a place stays held if its process has died.
	lease = 30 * time.Second
	// renewal is how often a lease is renewed.
	renewal = lease / 3
	// patience is how long what no request waits for may take.
	patience = time.Second
	// afterEnd is how long a window's count is kept after its end, for late
	// requests and replicas whose clocks are behind.
	afterEnd = time.Minute
)

// The scripts answer with one number: what is on the account after a grant, or
// what is on it less than -1 after a refusal, so that 0 is a grant. They
// reckon in microseconds or units, which are exact in Lua's numbers.
var (
	// takeRate is GCRA by the server's clock. ARGV: cost and burst in µs. More
	// than a quota and a debt on an account is the trace of a clock that has
	// gone back, or of a quota that was larger.
	takeRate = newScript(`local k, most, t = KEYS[1], ARGV[2] + 0, redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local d = (redis.call('GET', k) or now) - now
if d < 0 then d = 0 elseif d > 2 * most then
  d = 2 * most
  redis.call('SET', k, now + d, 'PX', math.ceil(d / 1000))
end
local n = d + ARGV[1]
if n > most then return -1 - d end
if n > d then redis.call('SET', k, now + n, 'PX', math.ceil(n / 1000)) end
return n`)

	addRate = newScript(`local k, most, t = KEYS[1], ARGV[2] + 0, redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local d = (redis.call('GET', k) or now) - now
local n = math.min(math.min(math.max(d, 0), 2 * most) + ARGV[1], 2 * most)
if n <= 0 then
  redis.call('DEL', k)
  return 0
end
redis.call('SET', k, now + n, 'PX', math.ceil(n / 1000))
return n`)

	// takeWindow counts units. ARGV: cost, burst and how long to keep it, in ms
	// from now: the server's clock may differ from ours.
	takeWindow = newScript(`local k, u = KEYS[1], (redis.call('GET', KEYS[1]) or 0) + 0
local n = u + ARGV[1]
if n > ARGV[2] + 0 then return -1 - u end
if n > u then redis.call('SET', k, n, 'PX', ARGV[3]) end
return n`)

	addWindow = newScript(`local k, u = KEYS[1], (redis.call('GET', KEYS[1]) or 0) + 0
local n = math.min(math.max(u + ARGV[1], 0), math.max(2 * ARGV[2], u))
if n <= 0 then redis.call('DEL', k) else redis.call('SET', k, n, 'PX', ARGV[3]) end
return n`)

	// hold takes a place. ARGV: most, lease in ms, who. It answers 1, or 0 if
	// all are taken.
	hold = newScript(`local k, t = KEYS[1], redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', k, '-inf', now)
if redis.call('ZCARD', k) >= ARGV[1] + 0 then return 0 end
redis.call('ZADD', k, now + ARGV[2], ARGV[3])
redis.call('PEXPIRE', k, ARGV[2])
return 1`)

	// renew renews leases, also those that a server has forgotten. ARGV: lease
	// in ms, who…
	renew = newScript(`local k, t = KEYS[1], redis.call('TIME')
local till = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', k, till, ARGV[i]) end
redis.call('PEXPIRE', k, ARGV[1])
return 1`)
)

// A script is sent by its hash, and whole to a server that does not know it.
type script struct{ text, sha string }

// Limits is a [count.Store] that replicas share. Rates go by the server's
// clock alone; what it grants is exact to a microsecond in each ask, never
// more. If a server fails over, what its replica had not received is lost.
type Limits struct {
	c    rueidis.Client
	self string // before the number of a place held by this process

	mu     sync.Mutex
	last   uint64
	held   map[string]string // who holds a place, and the key it is in
	closed bool

	stop context.CancelFunc
	done chan struct{}
}

var _ count.Store = (*Limits)(nil)

// DialLimits connects as [Dial] does, for counting: what many requests ask
// for at the same time goes into one packet, and a server that does not answer
// for a second is given up.
func DialLimits(at secrets.Secret) (rueidis.Client, error) {
	o, err := options(at)
	if err != nil {
		return nil, err
	}
	if o.ConnWriteTimeout == 0 {
		o.ConnWriteTimeout = time.Second
	}
	o.AlwaysPipelining = true // a request that gives up must not take the connection with it
	o.PipelineMultiplex = -1  // the more there is on one connection, the fewer packets
	o.MaxFlushDelay = flushDelay
	o.RingScaleEachConn = 12
	return rueidis.NewClient(o)
}

// flushDelay is how long a packet waits for more.
const flushDelay = 50 * time.Microsecond

// NewLimits returns the counts in a server. Its Close does not close c.
func NewLimits(c rueidis.Client) *Limits {
	ctx, stop := context.WithCancel(context.Background())
	l := &Limits{c: c, self: rand.Text()[:16] + ":", held: make(map[string]string), stop: stop, done: make(chan struct{})}
	go l.renewAll(ctx)
	return l
}

// Close ends the renewal of what is held, which comes free within half a
// minute.
func (l *Limits) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.stop()
	<-l.done
}

// countKey names what is counted together: 128 bits of a hash without known
// weakness, as clients may choose what is hashed.
func countKey(k count.Key, kind byte) string {
	sum := sha256.Sum256(k)
	var b [len(countPrefix) + 24]byte
	copy(b[:], countPrefix)
	base64.RawURLEncoding.Encode(b[len(countPrefix):], sum[:16])
	b[len(b)-2], b[len(b)-1] = '}', kind
	return string(b[:])
}

func (l *Limits) command(s *script, whole bool, key string, args ...string) rueidis.Completed {
	if whole {
		return l.c.B().Eval().Script(s.text).Numkeys(1).Key(key).Arg(args...).Build()
	}
	return l.c.B().Evalsha().Sha1(s.sha).Numkeys(1).Key(key).Arg(args...).Build()
}

// run runs one script.
func (l *Limits) run(ctx context.Context, s *script, key string, args ...string) (int64, error) {
	n, err := l.c.Do(ctx, l.command(s, false, key, args...)).AsInt64()
	if unknownScript(err) {
		n, err = l.c.Do(ctx, l.command(s, true, key, args...)).AsInt64()
	}
	return n, err
}

func unknownScript(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && e.IsNoScript()
}

func micro(d time.Duration) int64 { return int64(d / time.Microsecond) }

// microUp rounds up, so that no one gets more than the quota.
func microUp(d time.Duration) int64 { return int64((d + time.Microsecond - 1) / time.Microsecond) }

// command returns what takes or adds the cost of an ask.
func (l *Limits) ask(a *count.Ask, add, whole bool, cost int64, now time.Time) rueidis.Completed {
	burst := a.Quota.Burst
	cost = min(max(cost, -2*burst), 2*burst) // more makes no difference
	if a.Quota.Every > 0 {
		s, c := &takeRate, microUp(time.Duration(cost)*a.Quota.Every)
		if add {
			s = &addRate
			if cost < 0 {
				c = micro(time.Duration(cost) * a.Quota.Every)
			}
		}
		most := micro(time.Duration(burst) * a.Quota.Every)
		return l.command(s, whole, countKey(a.Key, 'r'), strconv.FormatInt(c, 10), strconv.FormatInt(most, 10))
	}
	s := &takeWindow
	if add {
		s = &addWindow
	}
	keep := (a.Quota.Ends.Sub(now) + afterEnd).Milliseconds()
	return l.command(s, whole, countKey(a.Key, 'w'), strconv.FormatInt(cost, 10), strconv.FormatInt(burst, 10), strconv.FormatInt(keep, 10))
}

// result reads a script's answer to an ask.
func result(a *count.Ask, n int64, now time.Time) (r count.Result) {
	r.OK = n >= 0
	if !r.OK {
		n = -1 - n
	}
	if a.Quota.Every == 0 {
		r.Remaining = max(0, a.Quota.Burst-n)
		left := a.Quota.Ends.Sub(now)
		if n > 0 {
			r.Reset = left
		}
		if !r.OK {
			r.Retry = left
		}
		return r
	}
	most := micro(time.Duration(a.Quota.Burst) * a.Quota.Every)
	free := time.Duration(max(0, most-n)) * time.Microsecond
	r.Remaining = min(int64(free/a.Quota.Every), a.Quota.Burst)
	r.Reset = time.Duration(n) * time.Microsecond
	if !r.OK {
		r.Retry = time.Duration(n+microUp(time.Duration(a.Cost)*a.Quota.Every)-most) * time.Microsecond
	}
	return r
}

// Take implements [count.Store].
func (l *Limits) Take(ctx context.Context, asks []count.Ask, results []count.Result, now time.Time) error {
	if err := count.Check(asks, now); err != nil || len(asks) == 0 {
		return err
	}
	if len(asks) == 1 {
		n, err := l.c.Do(ctx, l.ask(&asks[0], false, false, asks[0].Cost, now)).AsInt64()
		if unknownScript(err) {
			n, err = l.c.Do(ctx, l.ask(&asks[0], false, true, asks[0].Cost, now)).AsInt64()
		}
		if err == nil {
			results[0] = result(&asks[0], n, now)
		}
		return err
	}
	answers := make([]int64, len(asks))
	errs := l.all(ctx, asks, false, now, answers)
	refused := false
	for i := range asks {
		if errs == nil {
			results[i] = result(&asks[i], answers[i], now)
			refused = refused || !results[i].OK
		}
	}
	if errs == nil && !refused {
		return nil
	}
	return errors.Join(errs, l.giveBack(ctx, asks, answers, results, now))
}

// all sends what asks want at once, and says of each what came of it: on an
// error, -1 for those that may not have been granted.
func (l *Limits) all(ctx context.Context, asks []count.Ask, add bool, now time.Time, answers []int64) error {
	cmds := make(rueidis.Commands, len(asks))
	for i := range asks {
		cmds[i] = l.ask(&asks[i], add, false, asks[i].Cost, now)
	}
	var errs error
	for i, r := range l.c.DoMulti(ctx, cmds...) {
		n, err := r.AsInt64()
		if unknownScript(err) {
			n, err = l.c.Do(ctx, l.ask(&asks[i], add, true, asks[i].Cost, now)).AsInt64()
		}
		if err != nil {
			n, errs = -1, errors.Join(errs, err)
		}
		answers[i] = n
	}
	return errs
}

// giveBack gives back what was granted along with a refusal or an error. Where
// that fails too, less will be granted.
func (l *Limits) giveBack(ctx context.Context, asks []count.Ask, answers []int64, results []count.Result, now time.Time) error {
	var back []count.Ask
	for i, n := range answers {
		if n < 0 || asks[i].Cost == 0 {
			continue
		}
		a := asks[i]
		a.Cost = -a.Cost
		back = append(back, a)
		if a.Quota.Every > 0 {
			n -= micro(time.Duration(asks[i].Cost) * a.Quota.Every)
		} else {
			n -= asks[i].Cost
		}
		results[i] = result(&asks[i], max(n, 0), now)
	}
	if len(back) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			defer cancel()
			_ = l.all(ctx, back, true, now, make([]int64, len(back)))
		}()
		return nil
	}
	return l.all(ctx, back, true, now, make([]int64, len(back)))
}

// Add implements [count.Store].
func (l *Limits) Add(ctx context.Context, asks []count.Ask, now time.Time) error {
	live := make([]count.Ask, 0, len(asks))
	for _, a := range asks {
		if a.Cost == 0 || a.Quota.Every == 0 && !a.Quota.Ends.After(now) {
			continue
		}
		look := a
		look.Cost = 0
		if err := count.Check([]count.Ask{look}, now); err != nil {
			return err
		}
		live = append(live, a)
	}
	if len(live) == 0 {
		return nil
	}
	return l.all(ctx, live, true, now, make([]int64, len(live)))
}

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
		n, err := l.run(ctx, &hold, key, strconv.FormatInt(p.Most, 10), strconv.FormatInt(lease.Milliseconds(), 10), me)
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

func (l *Limits) register(key string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return "", errors.New("redis: the limits are closed")
	}
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
	defer close(l.done)
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
	ms := strconv.FormatInt(lease.Milliseconds(), 10)
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
			cmds = append(cmds, l.command(&renew, true, key, append([]string{ms}, who[:n]...)...))
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

// Probe says whether the servers count again: it counts in every part of a
// cluster, and connects to what it must.
func (l *Limits) Probe(ctx context.Context, now time.Time) error {
	asks := make([]count.Ask, probes)
	for i := range asks {
		asks[i] = count.Ask{Key: count.Key("probe").With(strconv.Itoa(i)), Quota: count.Quota{Every: time.Microsecond, Burst: 1 << 20}, Cost: 1}
	}
	if err := l.all(ctx, asks, true, now, make([]int64, len(asks))); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return nil
}

// probes are as many keys as are likely to touch every part of a cluster.
const probes = 16

func newScript(text string) script {
	sum := sha1.Sum([]byte(text)) // as the server names it
	return script{text, hex.EncodeToString(sum[:])}
}
