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
	"sync/atomic"
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
// server ten times as much. It works on one key in a cluster, since others
// may be elsewhere. It reckons in microseconds or units, which are exact in
// Lua's numbers.
//
// No key stands there twice. ARGV begins with a byte for each ask, those of one
// key behind each other: which of the forms after it is asked for, from 1 on,
// and 128 more if it is of the same key as the ask before. A form is a letter,
// cost, burst and how long to keep a count: r takes from a rate and R adds to
// it, w and W do so in a window. Cost and burst are in µs or units; how long to
// keep it is in ms from now for a window, since the server's clock may differ
// from ours. It answers with a number for each ask: what is on the account after
// a grant; what is on it less than -1 after a refusal, so that 0 is a grant;
// nonsense if what is there is no number.
//
// A rate is counted by GCRA. More than a quota and a debt on an account is the
// trace of a clock that has gone back, or of a quota that was larger. It is
// kept until the end of the ten seconds after those in which it is whole again,
// so that most changes need not tell the server when, which is half of what
// they would cost.
var takeAndAdd = newScript(`local call, format, tonumber, keys, argv, now = redis.call, string.format, tonumber, KEYS, ARGV, 0
local values, out, forms = call('MGET', unpack(keys)), {string.byte(argv[1], 1, -1)}, {}
for j = 2, #argv, 4 do
  local kind = argv[j]
  local rate, add = kind == 'r' or kind == 'R', kind == 'R' or kind == 'W'
  if rate and now == 0 then
    local t = call('TIME')
    now = t[1] * 1000000 + t[2]
  end
  forms[#forms + 1] = {rate, add, argv[j + 1] + 0, argv[j + 2] + 0, argv[j + 3]}
end
local i, b = 1, out[1]
for j = 1, #keys do
  local f, v, u, write = forms[b], values[j], 0, false
  local rate = f[1]
  if v then
    v = tonumber(v)
    u = v
    if v ~= v then
      u = nil
    elseif rate and v then
      u = v - now
      if u < 0 then u = 0 elseif u > 2 * f[4] then u, write = 2 * f[4], true end
    end
  end
  repeat
    local n = -4e18
    if u then
      n = u + f[3]
      if f[2] then
        n = math.max(math.min(n, math.max(2 * f[4], u)), 0)
      elseif n > f[4] then
        n = -1 - u
      end
      if n >= 0 and n ~= u then u, write = n, true end
    end
    out[i] = n
    i = i + 1
    b = out[i]
    if not b or b < 128 then break end
    f = forms[b - 128]
  until false
  if write then
    local k, n = keys[j], u
    if rate then n = now + u end
    if u == 0 then
      if v then call('DEL', k) end
    elseif v and (not rate or v - v % 1e7 == n - n % 1e7) then
      call('INCRBY', k, format('%d', n - v))
    elseif rate then
      call('SET', k, format('%d', n), 'PX', format('%d', (n - n % 1e7 + 2e7 - now) / 1000))
    else
      call('SET', k, format('%d', n), 'PX', f[5])
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
	rooms  sync.Pool     // of *room, for batches to come
	closed bool          // nothing is counted or held any more
	wake   chan struct{} // a sender, whose turn it is
	turn   chan struct{} // holds something while no sender has it
	near   atomic.Bool   // the last answer took no longer than ahead

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
	l.rooms.New = func() any { return new(room) }
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

// A digest names what is counted together: 128 bits of a hash without known
// weakness, as clients may choose what is hashed.
type digest [16]byte

func digestOf(k count.Key) digest {
	sum := sha256.Sum256(k)
	return digest(sum[:16])
}

// keySize is the length of a key.
const keySize = len(countPrefix) + 22 + len("}r")

func (d *digest) appendKey(b []byte, kind byte) []byte {
	b = base64.RawURLEncoding.AppendEncode(append(b, countPrefix...), d[:])
	return append(b, '}', kind)
}

func countKey(k count.Key, kind byte) string {
	d := digestOf(k)
	return string(d.appendKey(make([]byte, 0, keySize), kind))
}

func micro(d time.Duration) int64 { return int64(d / time.Microsecond) }

// microUp rounds up, so that no one gets more than the quota.
func microUp(d time.Duration) int64 { return int64((d + time.Microsecond - 1) / time.Microsecond) }

// An entry is one ask as the script is told of it.
type entry struct {
	digest
	form
}

// A form is what many asks have in common.
type form struct {
	window, add      bool
	cost, most, keep int64
}

// kind is the end of the key, and the form's letter if nothing is added.
func (f *form) kind() byte {
	if f.window {
		return 'w'
	}
	return 'r'
}

func (f *form) letter() string {
	letter := f.kind()
	if f.add {
		letter -= 'a' - 'A'
	}
	return string(rune(letter))
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func newEntry(a *count.Ask, add bool, now time.Time) (e entry) {
	burst := a.Quota.Burst
	cost := min(max(a.Cost, -2*burst), 2*burst) // more makes no difference
	e.digest, e.add = digestOf(a.Key), add
	if a.Quota.Every == 0 {
		e.window, e.cost, e.most = true, cost, burst
		// In whole seconds, so that it is the same for many.
		e.keep = (a.Quota.Ends.Sub(now) + afterEnd).Truncate(time.Second).Milliseconds()
		return e
	}
	e.cost, e.most = microUp(time.Duration(cost)*a.Quota.Every), micro(time.Duration(burst)*a.Quota.Every)
	if cost < 0 {
		e.cost = micro(time.Duration(cost) * a.Quota.Every)
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
