// Package ledger keeps the event log: one line of JSON for every refusal,
// challenge, alarm and administrative act, chained and sealed with a key so
// that [Verify] finds whatever was changed, removed, added or moved, the last
// lines included.
//
// It cannot protect what a crash catches before it reached the disk: with
// sync "interval" the last tenth of a second, with "always" nothing. Nor can
// it protect against one who has the key: keep the key file off the machine's
// ordinary disk (key_file), or note the log's [Head] elsewhere from time to
// time and hand it to Verify, which also finds a disk that was put back as a
// whole to an earlier state. Counts of a flood that are not yet written are
// lost in a crash.
package ledger

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
)

// Config says what is logged and for how long. The zero Config logs every
// refusal, keeps 90 days or 2 GiB, and goes on serving while the disk is full.
type Config struct {
	// Access also records every request that passed. Those are not thinned
	// out in a flood: raise max_total with it. Default false.
	Access bool `yaml:"access,omitempty"`
	// KeyFile is the file with the key that seals the log: 32 bytes or 64
	// hexadecimal digits, readable by its owner only; made if it does not
	// exist. Who can read it can forge the log, so it is best on another
	// medium. Default keys/ledger.key below the data folder.
	// Example: /run/credentials/merlon/ledger.key
	KeyFile string `yaml:"key_file,omitempty"`
	// Sync is when events reach the disk. "interval": together, at most
	// 100 ms later; a power failure loses those. "always": before the answer
	// is sent; each refusal then waits for the disk. Default interval.
	Sync string `yaml:"sync,omitempty"`
	// OnFull is what happens while events cannot be written, such as on a
	// full disk. It is always an alarm. "spool": hold them in memory; when
	// that is full the oldest are dropped, counted, and the count recorded
	// once there is space. "refuse": requests that would have to be logged
	// are answered 503. Default spool.
	OnFull string `yaml:"on_full,omitempty"`
	// Spool bounds the memory for events that wait to be written. From 1MiB
	// to 1GiB. Default 16MiB.
	Spool merlon.Size `yaml:"spool,omitempty"`
	// Rotate is the size at which a new file is begun. From 64KiB to 1GiB.
	// Default 64MiB.
	Rotate merlon.Size `yaml:"rotate,omitempty"`
	// Keep is how long events are kept at most. At least 1h.
	// Default 2160h (90 days).
	Keep time.Duration `yaml:"keep,omitempty"`
	// MaxTotal is how much disk the log takes at most; the oldest files go
	// first. At least four times rotate. Default 2GiB.
	MaxTotal merlon.Size `yaml:"max_total,omitempty"`
	// Burst is how many events with the same guard, reason and client are
	// written in detail within 10 s; more are counted, and the count is
	// written. From 1 to 10000. Default 50.
	Burst int `yaml:"burst,omitempty"`
	// Details is how many bytes of refusals are written in detail in a day
	// before they are only counted, so that nobody can push out older events
	// by causing new ones. At least 64KiB. Default a fourteenth of max_total.
	Details merlon.Size `yaml:"details,omitempty"`

	// OnAlarm is told at once of what needs a person: a disk that is full, a
	// log that was tampered with. It must be quick, and must not call the Log.
	OnAlarm func(Event) `yaml:"-"`
}

// The values of Config.Sync and Config.OnFull.
const (
	SyncInterval = "interval"
	SyncAlways   = "always"
	OnFullSpool  = "spool"
	OnFullRefuse = "refuse"
)

func (c Config) withDefaults() Config {
	def := func(s *merlon.Size, d merlon.Size) {
		if *s == 0 {
			*s = d
		}
	}
	if c.Sync == "" {
		c.Sync = SyncInterval
	}
	if c.OnFull == "" {
		c.OnFull = OnFullSpool
	}
	def(&c.Spool, 16*merlon.MiB)
	def(&c.Rotate, 64*merlon.MiB)
	def(&c.MaxTotal, 2*merlon.GiB)
	def(&c.Details, c.MaxTotal/14)
	if c.Keep == 0 {
		c.Keep = 90 * 24 * time.Hour
	}
	if c.Burst == 0 {
		c.Burst = 50
	}
	return c
}

// Check reports every mistake in c, without touching the disk.
func Check(c Config) error {
	c = c.withDefaults()
	var errs []error
	bad := func(setting string, value any, rule string) {
		errs = append(errs, merlon.BadSetting(setting, fmt.Sprint(value), rule))
	}
	if c.Sync != SyncInterval && c.Sync != SyncAlways {
		bad("sync", c.Sync, "must be interval or always")
	}
	if c.OnFull != OnFullSpool && c.OnFull != OnFullRefuse {
		bad("on_full", c.OnFull, "must be spool or refuse")
	}
	if c.Spool < merlon.MiB || c.Spool > merlon.GiB {
		bad("spool", c.Spool, "must be from 1MiB to 1GiB")
	}
	if c.Rotate < 64*merlon.KiB || c.Rotate > merlon.GiB {
		bad("rotate", c.Rotate, "must be from 64KiB to 1GiB")
	}
	if c.Keep < time.Hour {
		bad("keep", c.Keep, "must be at least 1h")
	}
	if c.MaxTotal < 4*c.Rotate {
		bad("max_total", c.MaxTotal, "must be at least four times rotate ("+c.Rotate.String()+")")
	}
	if c.Burst < 1 || c.Burst > 10000 {
		bad("burst", c.Burst, "must be from 1 to 10000")
	}
	// A share below one line would leave nothing but counts.
	if c.Details != c.MaxTotal/14 && c.Details < 64*merlon.KiB {
		bad("details", c.Details, "must be at least 64KiB")
	}
	return errors.Join(errs...)
}

// Errors of Append.
var (
	ErrClosed = errors.New("ledger: the log is closed")
	ErrFull   = errors.New("ledger: events cannot be written and on_full is refuse")
)

// A Log is an event log open for writing. Several processes may have the same
// one open; each writes a chain of its own.
type Log struct {
	c     Config
	w     *writer
	wake  chan struct{}
	stop  chan struct{}
	done  chan struct{}
	chunk []Event // being encoded; the writer's goroutine

	mu     sync.Mutex
	queue  []Event // [head:] wait to be written
	head   int
	bytes  int // what the queue takes
	batch  *batch
	flood  *flood
	lost   map[Kind]uint64
	closed bool
	stats  Stats
	end    error // of the last flush
}

// A batch is what is written together; done is closed when it was tried.
type batch struct {
	done chan struct{}
	err  error
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// Stats are counts since Open, for metrics.
type Stats struct {
	Written  uint64 // events on the disk
	Folded   uint64 // events of a flood that were counted instead of written
	Lost     uint64 // events that were dropped while the disk could not take them
	Failures uint64 // attempts to write that failed
	Alarms   uint64
	Queued   int   // events that wait
	Err      error // why events cannot be written now, or nil
}

// Open opens the log in the data folder dir for writing, and makes it if
// there is none. It goes on with the newest chain that no other process
// writes; what a crash left torn at its end is set aside in a file of its own.
func Open(dir string, c Config) (*Log, error) {
	if err := Check(c); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	l := &Log{
		c: c, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		batch: newBatch(), flood: newFlood(c.Burst, c.Details, time.Now()), lost: map[Kind]uint64{},
	}
	w, err := openWriter(dir, c, l.tell)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	l.w = w
	go l.run()
	return l, nil
}

// Fold counts the event of a request if its flood has had its share of details,
// so that Append would do no more than that; otherwise it does nothing.
func (l *Log) Fold(r *merlon.Request, o merlon.Outcome) bool {
	v := deciding(r.Verdicts(), o)
	if v == nil {
		return false
	}
	k := floodKey{kind: kindOf(v, o), guard: v.Guard, reason: v.Decision.Reason}
	if r.Client.IsValid() {
		k.client = r.Client.String()
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || !l.flood.fold(k, r.Site, now) {
		return false
	}
	l.stats.Folded++
	return true
}

// Append records e. It is quick and safe to call from many goroutines: with
// sync "interval" it only puts e into a bounded queue. An error means that e
// is not recorded, and is counted as lost, or with sync "always" that it is
// not on the disk yet.
func (l *Log) Append(e Event) error {
	now := time.Now()
	if e.Time.IsZero() {
		e.Time = now
	}
	size := e.size()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	if !l.flood.admit(&e, now) {
		l.stats.Folded++
		l.mu.Unlock()
		return nil
	}
	if !l.makeRoom(size, &e) {
		l.mu.Unlock()
		return ErrFull
	}
	l.queue = append(l.queue, e)
	l.bytes += size
	b := l.batch
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	if l.c.Sync != SyncAlways {
		return nil
	}
	<-b.done
	return b.err
}

// makeRoom drops the oldest events until e, of the given size, fits, or answers
// no where e must go instead.
func (l *Log) makeRoom(size int, e *Event) bool {
	for l.bytes+size > int(l.c.Spool) && l.head < len(l.queue) {
		if l.c.OnFull == OnFullRefuse {
			l.lose(e)
			return false
		}
		oldest := &l.queue[l.head]
		l.lose(oldest)
		l.bytes -= oldest.size()
		*oldest = Event{}
		l.head++
	}
	if l.head > 1024 && l.head > len(l.queue)/2 {
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	return true
}

func (l *Log) lose(e *Event) {
	n := max(1, e.Count)
	l.lost[e.Kind] += n
	l.stats.Lost += n
}

// Healthy reports whether requests that must be logged may be served. It is
// false only while events cannot be written and on_full is refuse.
func (l *Log) Healthy() bool {
	return l.c.OnFull != OnFullRefuse || l.Err() == nil
}

// Err returns why events cannot be written at the moment, or nil.
func (l *Log) Err() error { return l.Stats().Err }

// Access reports whether requests that passed are to be recorded, too.
func (l *Log) Access() bool { return l.c.Access }

// Stats returns the counts so far.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Queued = len(l.queue) - l.head
	return s
}

// Head returns how far this log's own chain has come on the disk. Noted
// elsewhere, it lets [Verify] vouch for everything up to it even against one
// who has the key or puts an old copy of the disk back.
func (l *Log) Head() Head { return *l.w.noted.Load() }

// Close writes what waits, counts of a flood included, and ends the chain. An
// error says how many events are not on the disk.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		<-l.done
		return l.end
	}
	l.closed = true
	l.mu.Unlock()
	close(l.stop)
	<-l.done
	return l.end
}
