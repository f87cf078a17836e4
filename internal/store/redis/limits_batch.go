package redis

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/merlon-dev/merlon/count"
)

const (
	// senders is how many batches are under way at the same time at most. While
	// one is, others gather for the next: the more there is to do, the larger the
	// batches.
	senders = 10
	// ahead is how long the next batch waits for one that is under way. Behind a
	// server that is further away than that, batches follow each other like this,
	// so that nobody waits for the way there and back twice.
	ahead = 2 * time.Millisecond
	// batchSize bounds how long a batch keeps the server, to a quarter of a
	// millisecond, and how much can be asked for at once. A byte must be able to
	// tell the entries of one apart.
	batchSize = 128
	// queued bounds the batches that wait.
	queued = 64
)

var (
	errClosed = errors.New("redis: the limits are closed")
	errBusy   = errors.New("redis: too much waits to be counted")
	errValue  = errors.New("redis: a count cannot be read")
)

// A batch is what several ask for at the same time.
type batch struct {
	entries []entry
	wanted  atomic.Int32 // how many still wait for it
	done    chan struct{}
	// What follows may be read when done is closed.
	answers []int64
	err     error // of those whose answer is missing
}

// count asks for what asks want, and returns the answers; on an error, those
// that did not come are [missing], or all of them if it returns nil.
func (l *Limits) count(ctx context.Context, asks []count.Ask, add bool, now time.Time) ([]int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(asks) > batchSize { // as many values of a field as there may be, say
		first, err := l.count(ctx, asks[:batchSize], add, now)
		if err != nil {
			return incomplete(first, len(asks)), err
		}
		rest, err := l.count(ctx, asks[batchSize:], add, now)
		return append(first, incomplete(rest, len(asks)-batchSize)...), err
	}
	var few [2]entry
	entries := few[:0]
	for i := range asks {
		entries = append(entries, newEntry(&asks[i], add, now))
	}
	b, first, err := l.enqueue(entries)
	if err != nil {
		return nil, err
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		b.wanted.Add(-1)
		return nil, ctx.Err()
	}
	answers := b.answers[first : first+len(asks) : first+len(asks)]
	for _, n := range answers {
		switch n {
		case missing:
			return answers, b.err
		case nonsense:
			err = errValue
		}
	}
	return answers, err
}

// incomplete returns n answers, of which those that did not come are [missing].
func incomplete(answers []int64, n int) []int64 {
	for len(answers) < n {
		answers = append(answers, missing)
	}
	return answers
}

// enqueue adds entries to the batch that gathers, and wakes a sender.
func (l *Limits) enqueue(entries []entry) (b *batch, first int, err error) {
	l.gather.Lock()
	if l.closed {
		l.gather.Unlock()
		return nil, 0, errClosed
	}
	if n := len(l.queue); n > 0 && len(l.queue[n-1].entries)+len(entries) <= batchSize {
		b = l.queue[n-1]
	} else if n == queued {
		l.gather.Unlock()
		return nil, 0, errBusy
	} else {
		b = &batch{done: make(chan struct{}), entries: l.spare[:0]}
		l.spare = nil
		l.queue = append(l.queue, b)
	}
	first = len(b.entries)
	b.entries = append(b.entries, entries...)
	b.wanted.Add(1)
	l.gather.Unlock()
	select {
	case l.wake <- struct{}{}:
	default: // it will look again
	}
	return b, first, nil
}

// send sends batches until ctx is done, whenever it is its turn.
func (l *Limits) send(ctx context.Context) {
	defer l.done.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.turn:
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		l.sendAll(ctx)
	}
}

// sendAll sends what waits, and returns when the turn has gone to another
// sender.
func (l *Limits) sendAll(ctx context.Context) {
	pass := func() { l.turn <- struct{}{} }
	for {
		runtime.Gosched() // those that can ask already are to be in the same batch
		b := l.next()
		if b == nil {
			break
		}
		late := time.AfterFunc(ahead, pass)
		l.run(ctx, b)
		l.gather.Lock()
		l.spare = b.entries // nobody reads them any more
		l.gather.Unlock()
		if !late.Stop() {
			return
		}
	}
	pass()
}

func (l *Limits) next() *batch {
	l.gather.Lock()
	defer l.gather.Unlock()
	if len(l.queue) == 0 {
		return nil
	}
	b := l.queue[0]
	l.queue = slices.Delete(l.queue, 0, 1)
	return b
}

// run has one batch counted.
func (l *Limits) run(ctx context.Context, b *batch) {
	defer close(b.done)
	if b.wanted.Load() <= 0 { // everybody has gone
		b.fail(context.Canceled)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if l.c.Mode() != rueidis.ClientModeCluster {
		l.whole(ctx, b)
		return
	}
	l.each(ctx, b)
}

func (b *batch) fail(err error) {
	b.err = err
	b.answers = make([]int64, len(b.entries))
	for i := range b.answers {
		b.answers[i] = missing
	}
}

// whole has a batch counted by one script.
func (l *Limits) whole(ctx context.Context, b *batch) {
	r := l.c.Do(ctx, l.counting(b.entries, false))
	if unknownScript(r.Error()) {
		r = l.c.Do(ctx, l.counting(b.entries, true))
	}
	answers, err := r.AsIntSlice()
	if err == nil && len(answers) != len(b.entries) {
		err = errValue
	}
	if err != nil {
		b.fail(err)
		return
	}
	b.answers = answers
}

// each has a batch counted by a script for each key, in one pipeline.
func (l *Limits) each(ctx context.Context, b *batch) {
	b.fail(nil)
	cmds := make(rueidis.Commands, len(b.entries))
	for i := range b.entries {
		cmds[i] = l.counting(b.entries[i:i+1], false)
	}
	var again []int
	read := func(i int, r rueidis.RedisResult) {
		answers, err := r.AsIntSlice()
		if err == nil && len(answers) == 1 {
			b.answers[i] = answers[0]
		} else {
			b.err = cmpErr(err, errValue)
		}
	}
	for i, r := range l.c.DoMulti(ctx, cmds...) {
		if unknownScript(r.Error()) {
			again = append(again, i)
			continue
		}
		read(i, r)
	}
	if len(again) == 0 {
		return
	}
	cmds = cmds[:0]
	for _, i := range again {
		cmds = append(cmds, l.counting(b.entries[i:i+1], true))
	}
	for j, r := range l.c.DoMulti(ctx, cmds...) {
		read(again[j], r)
	}
}

func cmpErr(err, or error) error {
	if err != nil {
		return err
	}
	return or
}

// counting returns the command that counts.
func (l *Limits) counting(entries []entry, whole bool) rueidis.Completed {
	var bytes [batchSize]byte
	var few [8]form
	keys, which, forms := make([]string, len(entries)), bytes[:len(entries)], few[:0]
	for i, e := range entries {
		n := slices.Index(forms, e.form)
		if n < 0 {
			n = len(forms)
			forms = append(forms, e.form)
		}
		keys[i], which[i] = e.key, byte(n+1)
	}
	args := make([]string, 1, 1+4*len(forms))
	args[0] = string(which)
	for _, f := range forms {
		args = append(args, string(rune(f.kind)), decimal(f.cost), decimal(f.most), decimal(f.keep))
	}
	return takeAndAdd.command(l.c, whole, keys, args)
}

// command returns the script as a command, by its hash or whole.
func (s *script) command(c rueidis.Client, whole bool, keys, args []string) rueidis.Completed {
	if whole {
		return c.B().Eval().Script(s.text).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	return c.B().Evalsha().Sha1(s.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

// do runs the script, and tells it to a server that does not know it.
func (s *script) do(ctx context.Context, c rueidis.Client, keys, args []string) rueidis.RedisResult {
	r := c.Do(ctx, s.command(c, false, keys, args))
	if unknownScript(r.Error()) {
		r = c.Do(ctx, s.command(c, true, keys, args))
	}
	return r
}

func unknownScript(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && e.IsNoScript()
}
