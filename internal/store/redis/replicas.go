package redis

import (
	"context"
	"crypto/rand"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// replicasKey is a ZSET of the processes that count together, by when they
// were last seen in ms of the server's clock.
const replicasKey = "merlon:r:{replicas}"

const (
	beat = time.Second
	// gone is how long a process may not be seen until it is one no more.
	gone = 5 * time.Second
	// remembered is how many beats a smaller number must last to be believed:
	// after a flush, those who have not been seen again yet are still there.
	remembered = int(gone/beat) + 1
	// mostReplicas is more than anybody has.
	mostReplicas = 1000
)

// beatScript says who is there and counts who else is. ARGV: who, gone in ms.
var beatScript = newScript(`local k, t = KEYS[1], redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', k, now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', k, '-inf', now - ARGV[2])
redis.call('PEXPIRE', k, 2 * ARGV[2])
return redis.call('ZCARD', k)`)

// Replicas counts the processes that use the same server: those that it has
// heard of within five seconds. While it cannot be reached, the last count
// stays, also for a process that is started meanwhile.
type Replicas struct {
	c     rueidis.Client
	self  string
	file  string
	count atomic.Int64
	stop  context.CancelFunc
	done  chan struct{}
}

// NewReplicas returns the count of those that have called it, and counts this
// process. The last count is kept in file, unless that is empty; a file that
// cannot be read counts as 1 until the server is reached, and one that cannot
// be written is no failure.
func NewReplicas(c rueidis.Client, file string) *Replicas {
	ctx, stop := context.WithCancel(context.Background())
	r := &Replicas{c: c, self: rand.Text(), file: file, stop: stop, done: make(chan struct{})}
	r.count.Store(int64(readCount(file)))
	go r.beats(ctx)
	return r
}

// Count is how many there are, at least 1.
func (r *Replicas) Count() int { return int(r.count.Load()) }

// Close takes this process out of the count, if the server can be reached
// within a second.
func (r *Replicas) Close() {
	r.stop()
	<-r.done
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r.c.Do(ctx, r.c.B().Zrem().Key(replicasKey).Member(r.self).Build())
}

// readCount returns the last count.
func readCount(file string) int {
	if file == "" {
		return 1
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return 1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 1
	}
	return min(max(n, 1), mostReplicas)
}

// write keeps the last count. Whoever reads the file meanwhile sees the old
// one or the new one.
func (r *Replicas) write(n int) {
	if r.file == "" {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(r.file), ".replicas-*")
	if err != nil {
		return
	}
	_, err = f.WriteString(strconv.Itoa(n) + "\n")
	if f.Close() != nil || err != nil || os.Rename(f.Name(), r.file) != nil {
		_ = os.Remove(f.Name())
	}
}

// beats tells the server of this process until ctx is done.
func (r *Replicas) beats(ctx context.Context) {
	defer close(r.done)
	var last [remembered]int
	for i := range last {
		last[i] = r.Count()
	}
	for i := 0; ; i = (i + 1) % remembered {
		if n, err := r.beat(ctx); err == nil {
			last[i] = min(max(n, 1), mostReplicas)
			most := 1
			for _, n := range last {
				most = max(most, n)
			}
			if int64(most) != r.count.Swap(int64(most)) {
				r.write(most)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(beat*9/10 + mrand.N(beat/5)):
		}
	}
}

func (r *Replicas) beat(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	keys, args := []string{replicasKey}, []string{r.self, strconv.FormatInt(gone.Milliseconds(), 10)}
	n, err := beatScript.do(ctx, r.c, keys, args).AsInt64()
	return int(n), err
}
