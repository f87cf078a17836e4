package live

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/identity/attempts"
)

// The keys of failed tries. A bucket and its members are in one slot of a
// cluster; the buckets of one try are not.
//
//	merlon:t:{KEY}    STRING  what was counted, see triesCommon
//	merlon:t:{KEY}:m  ZSET    MEMBER…, by when each was seen last
//
// KEY and MEMBER are keyed hashes already ([attempts.Key]). All expire when
// they mean nothing any more; of one account's failures in a row, one is
// forgotten a week at the earliest, and all a year after the last.
const triesPrefix = "merlon:t:"

// TriesRights are what the ACL user of [Tries] needs, beside those of holding a connection.
const TriesRights = "~" + triesPrefix + "* +evalsha +eval +time +get +set +del +zadd +zrem +zcard +zscore +zremrangebyscore +pexpire"

const (
	// triesWithin is how long counting may take. A log-in that Redis cannot
	// answer for within that is counted in this process.
	triesWithin = 50 * time.Millisecond
	// triesRest is how long a server that did not answer is left alone, so that
	// not each log-in waits for it, nor all come at once when it is back.
	triesRest = time.Second
	// triesAtOnce bounds how many ask at once.
	triesAtOnce = 256
	// maxMembers is how many members of a bucket are remembered. Beyond that
	// each one counts every time.
	maxMembers = 1000
)

// Tries is an [attempts.Store] that replicas share. It tells time by the
// server's clock, not by theirs, which may differ.
//
// A try is looked up in all its buckets first, which most who have to wait do
// not get past, and then counted in each; a bucket that another try was faster
// to fill makes that it is taken out of the others again. In between it may
// make others wait, for a moment, but never lets one through too many.
//
// While the server does not answer, each replica counts for itself, and who
// guesses has that many tries more, once; what was counted before is there
// again afterwards. A server that evicts keys forgets failures: it should have
// maxmemory-policy noeviction.
type Tries struct {
	link   Link
	within time.Duration
	clock  func(time.Time) string // empty: the server's
	turns  chan struct{}
	began  time.Time
	rested atomic.Int64 // nanoseconds since began; not before that is the server asked again
}

var _ attempts.Store = (*Tries)(nil)

// NewTries returns the failed tries in a server.
func NewTries(l Link) *Tries {
	return &Tries{
		link: l, within: triesWithin, began: time.Now(), turns: make(chan struct{}, triesAtOnce),
		clock: func(time.Time) string { return "" },
	}
}

// errRests: the server did not answer a moment ago.
var errRests = errors.New("redis: did not answer a moment ago")

// Reserve implements [attempts.Store].
func (t *Tries) Reserve(ctx context.Context, buckets []attempts.Bucket, now time.Time) (attempts.Result, error) {
	ctx, cancel := t.deadline(ctx)
	defer cancel()
	res := attempts.Result{Counts: make([]uint32, len(buckets))}
	looks := make([]call, len(buckets))
	for i, b := range buckets {
		looks[i] = call{triesKeys(b.Key), []string{t.clock(now), duration(b.Schedule.Longest), strconv.Itoa(b.Most)}}
	}
	found, err := t.each(ctx, lookScript, looks)
	// One bucket that has to wait is enough, whatever became of the others.
	if longest(&res, found); res.Wait > 0 || err != nil {
		return res, unless(res.Wait > 0, err)
	}
	counts := make([]call, len(buckets))
	for i, b := range buckets {
		counts[i] = call{triesKeys(b.Key), append(t.schedule(b, now), strconv.FormatInt(now.UnixNano(), 10))}
	}
	found, err = t.each(ctx, countScript, counts)
	if longest(&res, found); res.Wait > 0 || err != nil {
		t.giveBack(buckets, found, now)
		return res, unless(res.Wait > 0, err)
	}
	for i, f := range found {
		res.Counts[i] = uint32(f.total)
	}
	return res, nil
}

// schedule are the arguments that all scripts which count begin with.
func (t *Tries) schedule(b attempts.Bucket, now time.Time) []string {
	s := b.Schedule
	return []string{
		t.clock(now), duration(s.Longest), strconv.Itoa(b.Most), strconv.Itoa(s.Free), duration(s.First),
		duration(s.Forget), member(b.Member), strconv.Itoa(maxMembers),
	}
}

// giveBack takes a try out of the buckets that it was counted in. What cannot
// be given back stays counted, which is the safe side.
func (t *Tries) giveBack(buckets []attempts.Bucket, found []answer, now time.Time) {
	ctx, cancel := t.deadline(context.Background())
	defer cancel()
	var undo []call
	for i, f := range found {
		if f.stamp != "" {
			undo = append(undo, call{triesKeys(buckets[i].Key), append(t.schedule(buckets[i], now), f.stamp, f.next, f.tag)})
		}
	}
	_, _ = t.each(ctx, undoScript, undo)
}

// Refund implements [attempts.Store].
func (t *Tries) Refund(ctx context.Context, refunds []attempts.Refund, _ time.Time) error {
	ctx, cancel := t.deadline(ctx)
	defer cancel()
	calls := make([]call, len(refunds))
	for i, r := range refunds {
		calls[i] = call{triesKeys(r.Key), []string{
			strconv.FormatUint(uint64(r.Count), 10), strconv.FormatInt(r.At.UnixNano(), 10), flag(r.All), flag(r.Success), member(r.Member),
		}}
	}
	_, err := t.each(ctx, refundScript, calls)
	return err
}

// deadline is that of counting. A client that went away must not get a try
// that only some buckets know of.
func (t *Tries) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), t.within)
}

// A call is one script on one bucket.
type call struct{ keys, args []string }

// An answer is what a script says of its bucket; it is zero if the script said
// nothing.
type answer struct {
	wait             time.Duration
	locked           bool
	total            uint64
	stamp, next, tag string // to take a count back; empty if there was none
	err              error
}

// each runs a script for all calls at once, which the client puts into one
// message, and returns what was answered in time. It does not wait for the
// client beyond the deadline of ctx, whatever the client waits for.
func (t *Tries) each(ctx context.Context, script *rueidis.Lua, calls []call) ([]answer, error) {
	found := make([]answer, len(calls))
	if len(calls) == 0 {
		return found, nil
	}
	if int64(time.Since(t.began)) < t.rested.Load() {
		return found, errRests
	}
	c, err := t.link()
	if err != nil {
		return found, err
	}
	type numbered struct {
		i int
		answer
	}
	answers := make(chan numbered, len(calls))
	sent := 0
	for i, one := range calls {
		select {
		case t.turns <- struct{}{}:
			sent++
			go func() {
				defer func() { <-t.turns }()
				answers <- numbered{i, read(script.Exec(ctx, c, one.keys, one.args))}
			}()
		case <-ctx.Done():
		}
	}
	var errs []error
	silent := false
	for range sent {
		select {
		case a := <-answers:
			found[a.i] = a.answer
			errs = append(errs, a.err)
			_, said := rueidis.IsRedisErr(a.err)
			silent = silent || a.err != nil && !said
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		errs, silent = append(errs, ctx.Err()), true
	}
	if silent {
		t.rested.Store(int64(time.Since(t.began) + triesRest))
	}
	return found, errors.Join(errs...)
}

// read reads what a script answers: wait, locked, total and, if it counted,
// stamp, next and tag.
func read(r rueidis.RedisResult) (a answer) {
	f, err := r.AsStrSlice()
	if err != nil {
		return answer{err: err}
	}
	if len(f) != 3 && len(f) != 6 {
		return answer{err: fmt.Errorf("redis: %d words about a bucket", len(f))}
	}
	wait, err := strconv.ParseInt(f[0], 10, 64)
	total, err2 := strconv.ParseUint(f[2], 10, 32)
	if err := errors.Join(err, err2); err != nil {
		return answer{err: fmt.Errorf("redis: a bucket cannot be read: %w", err)}
	}
	a = answer{wait: time.Duration(wait) * time.Microsecond, locked: f[1] == "1", total: total}
	if len(f) == 6 {
		a.stamp, a.next, a.tag = f[3], f[4], f[5]
	}
	return a
}

// longest notes which bucket has to wait the longest.
func longest(res *attempts.Result, found []answer) {
	for i, f := range found {
		if f.wait > res.Wait {
			clear(res.Counts)
			res.Wait, res.By, res.Locked = f.wait, i, f.locked
			res.Counts[i] = uint32(f.total)
		}
	}
}

func unless(known bool, err error) error {
	if known {
		return nil
	}
	return err
}

func triesKeys(k attempts.Key) []string {
	key := triesPrefix + "{" + hex.EncodeToString(k[:]) + "}"
	return []string{key, key + ":m"}
}

func member(k attempts.Key) string {
	if k == (attempts.Key{}) {
		return ""
	}
	return hex.EncodeToString(k[:])
}

// duration is a duration in microseconds.
func duration(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
