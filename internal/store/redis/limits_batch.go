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
	// so that nobody waits for the way there and back twice. While it is near,
	// there is nothing to gain, and a timer for each batch would cost as much as
	// counting for ten.
	ahead = 2 * time.Millisecond
	// batchSize bounds how long a batch keeps the server, to a quarter of a
	// millisecond, and how much can be asked for at once. Seven bits must be able
	// to tell the forms in one apart, from 1 on.
	batchSize = 127
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
	room    *room        // where they are
	wanted  atomic.Int32 // how many still wait for it
	done    chan struct{}
	// What follows may be read when done is closed.
	answers []int64
	err     error // of those whose answer is missing
}

type room [batchSize]entry

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
	n := len(l.queue)
	begins := n == 0 || len(l.queue[n-1].entries)+len(entries) > batchSize
	switch {
	case !begins:
		b = l.queue[n-1]
	case n == queued:
		l.gather.Unlock()
		return nil, 0, errBusy
	default:
		b = &batch{done: make(chan struct{}), room: l.rooms.Get().(*room)}
		b.entries = b.room[:0]
		l.queue = append(l.queue, b)
	}
	first = len(b.entries)
	b.entries = append(b.entries, entries...)
	b.wanted.Add(1)
	l.gather.Unlock()
	if begins {
		l.call()
	}
	return b, first, nil
}

// call wakes a sender.
func (l *Limits) call() {
	select {
	case l.wake <- struct{}{}:
	default: // it will look again
	}
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
		letAsk()
		b := l.next()
		if b == nil {
			break
		}
		var late *time.Timer
		if !l.near.Load() {
			// The other sender may not have been called for what waits by now.
			late = time.AfterFunc(ahead, func() { l.call(); pass() })
		}
		began := time.Now()
		l.run(ctx, b)
		l.near.Store(time.Since(began) <= ahead)
		l.rooms.Put(b.room) // nobody reads the entries any more
		if late != nil && !late.Stop() {
			return
		}
	}
	pass()
}

// busy is when the processors are at other work, for which nobody is to wait
// twice.
const busy = 300 * time.Microsecond

// letAsk lets those ask that can already, so that they are in the same batch. Go
// comes back from it when 60 have had their turn, so it is done twice.
func letAsk() {
	began := time.Now()
	runtime.Gosched()
	if time.Since(began) < busy {
		runtime.Gosched()
	}
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
	b.fail(nil)
	o := inOrder(b.entries)
	r := l.c.Do(ctx, l.counting(b.entries, &o, 0, o.keys, false))
	if unknownScript(r.Error()) {
		r = l.c.Do(ctx, l.counting(b.entries, &o, 0, o.keys, true))
	}
	b.read(r, &o, 0, o.keys)
}

// each has a batch counted by a script for each key, in one pipeline.
func (l *Limits) each(ctx context.Context, b *batch) {
	b.fail(nil)
	o := inOrder(b.entries)
	cmds := make(rueidis.Commands, o.keys)
	for k := range cmds {
		cmds[k] = l.counting(b.entries, &o, k, k+1, false)
	}
	var again []int
	for k, r := range l.c.DoMulti(ctx, cmds...) {
		if unknownScript(r.Error()) {
			again = append(again, k)
			continue
		}
		b.read(r, &o, k, k+1)
	}
	if len(again) == 0 {
		return
	}
	cmds = cmds[:0]
	for _, k := range again {
		cmds = append(cmds, l.counting(b.entries, &o, k, k+1, true))
	}
	for j, r := range l.c.DoMulti(ctx, cmds...) {
		b.read(r, &o, again[j], again[j]+1)
	}
}

// read reads the answer for the keys from one number to another.
func (b *batch) read(r rueidis.RedisResult, o *order, from, to int) {
	answers, err := r.ToArray()
	entries := o.of(from, to)
	if err == nil && len(answers) != len(entries) {
		err = errValue
	}
	for i := 0; err == nil && i < len(answers); i++ {
		var n int64
		if n, err = answers[i].AsInt64(); err == nil {
			b.answers[entries[i]] = n
		}
	}
	if err != nil {
		b.err = err
	}
}

// An order of entries is one in which those of one key follow each other.
type order struct {
	entries [batchSize]uint8     // their numbers
	n, keys int                  // how many there are
	first   [batchSize + 1]uint8 // of each key, and behind the last, where it begins in entries
}

// of returns the numbers of the entries of the keys from one number to another.
func (o *order) of(from, to int) []uint8 { return o.entries[o.first[from]:o.first[to]] }

// inOrder orders entries by key. Those of one key stay in the order in which
// they were asked for.
func inOrder(entries []entry) (o order) {
	var heads [256]uint8 // by digest, from 1 on: the first entry of a key
	var next, last [batchSize]uint8
	var firsts [batchSize]uint8
	for i := range entries {
		e := &entries[i]
		for h := e.digest[0]; ; h++ { // there are fewer keys than places
			if heads[h] == 0 {
				heads[h] = uint8(i + 1)
				last[i], firsts[o.keys] = uint8(i), uint8(i)
				o.keys++
				break
			}
			if f := heads[h] - 1; entries[f].digest == e.digest && entries[f].window == e.window {
				next[last[f]], last[f] = uint8(i), uint8(i)
				break
			}
		}
	}
	for k, i := range firsts[:o.keys] {
		o.first[k] = uint8(o.n)
		for end := last[i]; ; i = next[i] {
			o.entries[o.n] = i
			o.n++
			if i == end {
				break
			}
		}
	}
	o.first[o.keys] = uint8(o.n)
	return o
}

// sameKey is added to the number of a form that is asked for of the same key as
// the one before.
const sameKey = 128

// counting returns the command that counts for the keys from one number to
// another.
func (l *Limits) counting(entries []entry, o *order, from, to int, whole bool) rueidis.Completed {
	var which [batchSize]byte
	var few [8]form
	forms, n := few[:0], 0
	keys, text := make([]string, 0, to-from), make([]byte, 0, (to-from)*keySize)
	for k := from; k < to; k++ {
		for i, at := range o.of(k, k+1) {
			e := &entries[at]
			f := slices.Index(forms, e.form)
			if f < 0 {
				f = len(forms)
				forms = append(forms, e.form)
			}
			which[n] = byte(f + 1)
			if i > 0 {
				which[n] += sameKey
			} else {
				text = e.appendKey(text, e.kind())
			}
			n++
		}
	}
	for all := string(text); all != ""; all = all[keySize:] {
		keys = append(keys, all[:keySize])
	}
	args := make([]string, 1, 1+4*len(forms))
	args[0] = string(which[:n])
	for i := range forms {
		f := &forms[i]
		args = append(args, f.letter(), decimal(f.cost), decimal(f.most), decimal(f.keep))
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
