package ledger

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// tell puts an event of the log's own on record; the operator is told of
// alarms at once.
func (l *Log) tell(e Event) {
	e.Time = time.Now()
	l.mu.Lock()
	l.push(e)
	if e.Kind == Alarm {
		l.stats.Alarms++
	}
	l.mu.Unlock()
	if e.Kind == Alarm && l.c.OnAlarm != nil {
		e.sanitise()
		l.c.OnAlarm(e)
	}
}

// Pauses of the writer.
const (
	flushEvery = 100 * time.Millisecond // at most so long does an event wait
	retryEvery = 500 * time.Millisecond
	nagEvery   = time.Minute // an alarm that lasts is repeated
	tidyEvery  = time.Hour
)

// run is the goroutine that writes.
func (l *Log) run() {
	defer close(l.done)
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	var last time.Time
	tidied := time.Now()
	l.w.tidy()
	for {
		woken := false
		select {
		case <-l.wake:
			woken = true
		case <-tick.C:
		case <-l.stop:
			l.finish()
			return
		}
		wait := time.Duration(0)
		switch {
		case woken && l.Err() != nil:
			continue // the tick tries again
		case woken && l.c.Sync == SyncInterval:
			wait = flushEvery - time.Since(last)
		}
		if wait > 0 {
			select {
			case <-time.After(wait):
			case <-l.stop:
				l.finish()
				return
			}
		}
		last = time.Now()
		l.flush(false)
		if time.Since(tidied) > tidyEvery {
			tidied = time.Now()
			l.w.tidy()
		}
	}
}

func (l *Log) finish() {
	err := l.flush(true)
	if err == nil {
		err = l.flush(true) // what the first one had to say, such as a loss
	}
	s := l.Stats()
	if n := s.Queued + l.w.waiting; n > 0 {
		err = fmt.Errorf("ledger: %d events are not on the disk: %w", n, err)
	}
	l.mu.Lock()
	l.batch.err = ErrClosed
	close(l.batch.done)
	l.mu.Unlock()
	l.end = errors.Join(err, l.w.close())
}

// flush writes all that waits. It returns why it could not.
func (l *Log) flush(last bool) error {
	for {
		if l.w.waiting > 0 {
			err := l.w.commit() // what failed before, first
			l.settle(err)
			if err != nil {
				l.disappoint(err)
				return err
			}
		}
		b := l.take(last)
		err := l.w.commit()
		l.settle(err)
		if b != nil {
			b.err = err
			close(b.done)
		}
		if err != nil {
			return err
		}
		if b == nil {
			return nil
		}
	}
}

// disappoint tells those who wait that the disk does not take their events.
func (l *Log) disappoint(err error) {
	l.mu.Lock()
	b := l.batch
	l.batch = newBatch()
	l.mu.Unlock()
	b.err = err
	close(b.done)
}

const chunkBytes = 1 << 20

// take hands the next events to the writer.
func (l *Log) take(last bool) *batch {
	var b *batch
	l.chunk = l.chunk[:0]
	l.mu.Lock()
	for _, e := range l.flood.sweep(time.Now(), last) {
		if e.Kind == Alarm {
			defer l.tell(e) // the lock is held
			continue
		}
		l.push(e)
	}
	if len(l.lost) > 0 && l.stats.Err == nil {
		l.chunk = append(l.chunk, l.lossEvent())
	}
	for taken := 0; taken < chunkBytes && l.head < len(l.queue); l.head++ {
		e := &l.queue[l.head]
		taken += e.size()
		l.bytes -= e.size()
		l.chunk = append(l.chunk, *e)
		*e = Event{}
	}
	switch {
	case len(l.chunk) == 0:
	case l.head == len(l.queue):
		l.queue, l.head = l.queue[:0], 0
		b, l.batch = l.batch, newBatch()
	default:
		b = newBatch() // nobody waits for a part; the last part wakes them
	}
	l.mu.Unlock()
	for i := range l.chunk {
		l.w.encode(l.chunk[i])
		l.chunk[i] = Event{}
	}
	return b
}

// push queues an event of the log's own. The lock is held.
func (l *Log) push(e Event) {
	if size := e.size(); l.makeRoom(size, &e) {
		l.queue = append(l.queue, e)
		l.bytes += size
	}
}

// lossEvent records what was dropped, and forgets it.
func (l *Log) lossEvent() Event {
	e := Event{Time: time.Now(), Kind: Alarm, Name: "log_lost", Attrs: map[string]string{}}
	var n uint64
	for _, k := range slices.Sorted(maps.Keys(l.lost)) {
		e.Attrs[string(k)] = fmt.Sprint(l.lost[k])
		n += l.lost[k]
	}
	e.Message = thousands(n) + " events were lost while the log could not be written"
	clear(l.lost)
	l.stats.Alarms++
	return e
}

// settle keeps account of an attempt to write.
func (l *Log) settle(err error) {
	l.mu.Lock()
	was := l.stats.Err
	l.stats.Err = err
	l.stats.Written = l.w.written
	if err != nil {
		l.stats.Failures++
	}
	l.mu.Unlock()
	now := time.Now()
	switch {
	case err != nil && (was == nil || now.Sub(l.w.nagged) > nagEvery):
		if was == nil {
			l.w.failing = now
		}
		l.w.nagged = now
		l.tell(Event{Kind: Alarm, Name: "log_failed", Message: "events cannot be written (on_full: " + l.c.OnFull + ")",
			Attrs: map[string]string{"error": err.Error()}})
	case err == nil && was != nil:
		l.tell(Event{Kind: Alarm, Name: "log_restored", Message: "events are written again after " + now.Sub(l.w.failing).Round(time.Millisecond).String()})
	}
}
