package redis

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/secrets"
)

// The keys of counts. KEY is a 128-bit hash of what is counted together, so
// nothing that clients spell gets there. All of them expire: a rate within twenty
// seconds after the quota is whole again, a window a minute after its end, places a lease after
// they were last held.
//
//	merlon:l:{KEY}r   STRING  when the quota is whole again, in µs of the server's clock
//	merlon:l:{KEY}w   STRING  units used
//	merlon:l:{KEY}h   ZSET    who holds a place, by when the lease ends in ms of the server's clock
const countPrefix = "merlon:l:{"

// LimitRights are what the ACL user of [Limits] and [Replicas] needs; for a
// cluster or Sentinels as well.
const LimitRights = "~merlon:l:* ~merlon:r:* +evalsha +eval +get +mget +set +incrby +del +time +zadd +zrem +zcard +zremrangebyscore +zrangebyscore" +
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

// takeAndAdd counts for many asks at once: a script for each would cost the
// server three times as much. It works on one key in a cluster, since others
// may be elsewhere. It reckons in microseconds or units, which are exact in
// Lua's numbers.
//
// ARGV begins with a byte for each key, which says which of the forms after it
// is asked for. A form is a letter, cost, burst and how long to keep a count: r
// takes from a rate and R adds to it, w and W do so in a window. Cost and burst
// are in µs or units; how long to keep it is in ms from now for a window, since
// the server's clock may differ from ours. It answers with a number for each
// key: what is on the account after a grant; what is on it less than -1 after a
// refusal, so that 0 is a grant; nonsense if what is there is no number.
//
// A rate is counted by GCRA. More than a quota and a debt on an account is the
// trace of a clock that has gone back, or of a quota that was larger. It is
// kept until the end of the ten seconds after those in which it is whole again,
// so that most changes need not tell the server when, which is half of what
// they would cost.
var takeAndAdd = newScript(`local call, format, byte = redis.call, string.format, string.byte
local values, which, now = call('MGET', unpack(KEYS)), ARGV[1], nil
local out, have, first, write, forms = {}, {}, {}, {}, {}
for i = 1, #KEYS do
  local k, b = KEYS[i], byte(which, i)
  local f, u = forms[b], have[k]
  if not f then
    local j = 4 * b - 2
    local kind = ARGV[j]
    f = {kind == 'r' or kind == 'R', kind == 'R' or kind == 'W', ARGV[j + 1] + 0, ARGV[j + 2] + 0, ARGV[j + 3]}
    forms[b] = f
  end
  local rate, most = f[1], f[4]
  if rate and not now then
    local t = call('TIME')
    now = t[1] * 1000000 + t[2]
  end
  if not u then
    local v = values[i]
    if v then
      v = tonumber(v)
      u, values[i] = v, v
    else
      u = rate and now or 0
    end
    first[k] = i
    if u ~= u then
      u = nil
    elseif u and rate then
      u = u - now
      if u < 0 then u = 0 elseif u > 2 * most then u, write[k] = 2 * most, f end
    end
  end
  if u then
    local n = u + f[3]
    if f[2] then
      n = math.max(math.min(n, math.max(2 * most, u)), 0)
    elseif n > most then
      n = -1 - u
    end
    out[i] = n
    if n < 0 then n = u elseif n ~= u then write[k] = f end
    have[k] = n
  else
    out[i] = -4e18
  end
end
for k, f in pairs(write) do
  local n, v = have[k], values[first[k]]
  if n == 0 then
    if v then call('DEL', k) end
  elseif not f[1] then
    call('SET', k, format('%d', n), 'PX', f[5])
  else
    n = now + n
    local b = math.floor(n / 1e7)
    if v and math.floor(v / 1e7) == b then
      call('INCRBY', k, n - v)
    else
      call('SET', k, format('%d', n), 'PX', format('%d', ((b + 2) * 1e7 - now) / 1000))
    end
  end
end
return out`)

// What the script answers if what is there is no number, and what stands for
// an answer that did not come.
const (
	nonsense = -4_000_000_000_000_000_000
	missing  = nonsense - 1
)

// A script is sent by its hash, and whole to a server that does not know it.
type script struct{ text, sha string }

// Limits is a [count.Store] that replicas share. Rates go by the server's
// clock alone; what it grants is exact to a microsecond in each ask, never
// more. If a server fails over, what its replica had not received is lost.
type Limits struct {
	c    rueidis.Client
	self string // before the number of a place held by this process

	gather sync.Mutex
	queue  []*batch      // what waits for a sender; the last one gathers
	spare  []entry       // room for the next batch
	closed bool          // nothing is counted or held any more
	wake   chan struct{} // a sender, whose turn it is
	turn   chan struct{} // holds something while no sender has it

	mu   sync.Mutex
	last uint64
	held map[string]string // who holds a place, and the key it is in

	probing sync.Mutex
	mark    mark

	stop context.CancelFunc
	done sync.WaitGroup
}

var _ count.Store = (*Limits)(nil)

// DialLimits connects as [Dial] does, for counting: a request that gives
// up leaves the connection to the others, and a server that does not answer for
// a second is given up.
func DialLimits(at secrets.Secret) (rueidis.Client, error) {
	o, err := options(at)
	if err != nil {
		return nil, err
	}
	if o.ConnWriteTimeout == 0 {
		o.ConnWriteTimeout = time.Second
	}
	if o.Dialer.Timeout == 0 {
		o.Dialer.Timeout = patience
	}
	o.AlwaysPipelining = true // a request that gives up must not take the connection with it
	o.PipelineMultiplex = -1  // one connection: what is sent together needs no more
	return rueidis.NewClient(o)
}

// NewLimits returns the counts in a server. Its Close does not close c.
func NewLimits(c rueidis.Client) *Limits {
	ctx, stop := context.WithCancel(context.Background())
	l := &Limits{c: c, self: rand.Text()[:16] + ":", held: make(map[string]string), wake: make(chan struct{}, 1), turn: make(chan struct{}, 1), stop: stop}
	l.turn <- struct{}{}
	l.done.Add(1 + senders)
	go l.renewAll(ctx)
	for range senders {
		go l.send(ctx)
	}
	return l
}

// Close ends the counting, and the renewal of what is held, which comes free
// within half a minute.
func (l *Limits) Close() {
	l.gather.Lock()
	l.closed = true
	queue := l.queue
	l.queue = nil
	l.gather.Unlock()
	l.stop()
	l.done.Wait()
	for _, b := range queue {
		b.fail(errClosed)
		close(b.done)
	}
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

func micro(d time.Duration) int64 { return int64(d / time.Microsecond) }

// microUp rounds up, so that no one gets more than the quota.
func microUp(d time.Duration) int64 { return int64((d + time.Microsecond - 1) / time.Microsecond) }

// An entry is one ask as the script is told of it.
type entry struct {
	key string
	form
}

// A form is what many asks have in common.
type form struct {
	kind             byte
	cost, most, keep int64
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func newEntry(a *count.Ask, add bool, now time.Time) (e entry) {
	burst := a.Quota.Burst
	cost := min(max(a.Cost, -2*burst), 2*burst) // more makes no difference
	if a.Quota.Every == 0 {
		// In whole seconds, so that it is the same for many.
		keep := (a.Quota.Ends.Sub(now) + afterEnd).Truncate(time.Second).Milliseconds()
		e = entry{countKey(a.Key, 'w'), form{'w', cost, burst, keep}}
	} else {
		us := microUp(time.Duration(cost) * a.Quota.Every)
		if cost < 0 {
			us = micro(time.Duration(cost) * a.Quota.Every)
		}
		e = entry{countKey(a.Key, 'r'), form{'r', us, micro(time.Duration(burst) * a.Quota.Every), 0}}
	}
	if add {
		e.kind -= 'a' - 'A'
	}
	return e
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
	answers, err := l.count(ctx, asks, false, now)
	if answers == nil {
		return err
	}
	refused := err != nil
	for i := range asks {
		if answers[i] > nonsense {
			results[i] = result(&asks[i], answers[i], now)
			refused = refused || !results[i].OK
		}
	}
	if !refused {
		return nil
	}
	return errors.Join(err, l.giveBack(ctx, asks, answers, results, now))
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
	if ctx.Err() != nil { // whoever asked has gone, but must not keep it
		ctx = context.WithoutCancel(ctx)
	}
	_, err := l.count(ctx, back, true, now)
	return err
}

// Add implements [count.Store].
func (l *Limits) Add(ctx context.Context, asks []count.Ask, now time.Time) error {
	live := make([]count.Ask, 0, len(asks))
	for _, a := range asks {
		if a.Cost == 0 || a.Quota.Every == 0 && !a.Quota.Ends.After(now) {
			continue
		}
		if err := a.Quota.Check(now); err != nil {
			return err
		}
		live = append(live, a)
	}
	if len(live) == 0 {
		return nil
	}
	_, err := l.count(ctx, live, true, now)
	return err
}

func newScript(text string) script {
	sum := sha1.Sum([]byte(text)) // as the server names it
	return script{text, hex.EncodeToString(sum[:])}
}
