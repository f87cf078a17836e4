package redis

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/count"
)

// probes are as many keys as are likely to touch every part of a cluster.
const probes = 16

// markScript keeps a word for longer than any count, by which a server that has
// forgotten is known. ARGV: a new word, how long to keep it in ms. It answers
// with the word that is there.
var markScript = newScript(`local v = redis.call('GET', KEYS[1]) or ARGV[1]
redis.call('SET', KEYS[1], v, 'PX', ARGV[2])
return v`)

// A mark is what is known of the servers since the last [Limits.Probe].
type mark struct {
	words   [probes]string
	evicted map[string]int64 // by address, how many keys they have thrown away
}

var _ count.Prober = (*Limits)(nil)

// Probe implements [count.Prober]: it counts, and looks for what it left, in
// every part of a cluster, and connects to what it must. A server that throws
// away keys for want of memory has forgotten too.
func (l *Limits) Probe(ctx context.Context, now time.Time) (forgot bool, err error) {
	l.probing.Lock()
	defer l.probing.Unlock()
	cmds := make(rueidis.Commands, 0, 2*probes)
	keep := decimal((count.MaxWindow + 24*time.Hour).Milliseconds())
	word := rand.Text()
	for i := range probes {
		a := count.Ask{Key: count.Key("probe").With(strconv.Itoa(i)), Quota: count.Quota{Every: time.Microsecond, Burst: 1 << 20}, Cost: 1}
		e := []entry{newEntry(&a, true, now)}
		o := inOrder(e)
		cmds = append(cmds, l.counting(e, &o, 0, 1, true))
		cmds = append(cmds, markScript.command(l.c, true, []string{countKey(a.Key, 'm')}, []string{word, keep}))
	}
	results := l.c.DoMulti(ctx, cmds...)
	for _, r := range results {
		if err := r.Error(); err != nil {
			return false, fmt.Errorf("redis: the servers do not count: %w", err)
		}
	}
	var next mark
	for i := range probes {
		if next.words[i], err = results[2*i+1].ToString(); err != nil {
			return false, fmt.Errorf("redis: %w", err)
		}
		forgot = forgot || l.mark.words[i] != "" && l.mark.words[i] != next.words[i]
	}
	next.evicted = l.evicted(ctx)
	for at, n := range next.evicted {
		if before, ok := l.mark.evicted[at]; ok && n > before {
			forgot = true
		}
	}
	l.mark = next
	return forgot, nil
}

// evicted asks the servers how many keys they have thrown away. One that does
// not say is not one that counts, so its silence is no failure.
func (l *Limits) evicted(ctx context.Context) map[string]int64 {
	found := make(map[string]int64)
	for at, node := range l.c.Nodes() {
		text, err := node.Do(ctx, node.B().Info().Section("stats").Build()).ToString()
		if err != nil {
			continue
		}
		_, rest, ok := strings.Cut(text, "\nevicted_keys:")
		if !ok {
			continue
		}
		digits, _, _ := strings.Cut(rest, "\r")
		if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
			found[at] = n
		}
	}
	return found
}
