// Package record keeps a sample of the traffic, so that a changed
// configuration can be tried on what clients really send: `merlon replay`.
//
// It records only when it is told to, in bounded space, encrypted for a key
// that the gateway does not have, and without the values of secrets: cookies,
// credentials, and whatever is named or looks like one. A request is never
// held up for it: what the disk does not take in time is dropped and counted.
//
// What is left is still personal data: addresses, paths, the text of forms.
// Secrets that are not named like one, and do not look like one, are recorded.
// A crash loses what waits in memory, and at most the last 64 KiB of a
// segment.
package record

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"filippo.io/age"

	"github.com/merlon-dev/merlon"
)

// Config says what traffic is recorded. The zero Config records nothing.
type Config struct {
	// Dir is the folder for recorded traffic, for Merlon alone. Nothing is
	// recorded unless it is set. Example: /var/lib/merlon/traffic
	Dir string `yaml:"dir,omitempty"`
	// Recipient is the public key that the traffic is encrypted for, as
	// `merlon replay key` prints it; any age recipient will do. The
	// gateway can write with it, but not read. Required with dir. Example:
	//
	//	recipient: age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p
	Recipient string `yaml:"recipient,omitempty"`
	// Size is how much disk the traffic takes at most; the oldest goes first.
	// From 8MiB to 1024GiB. Default 256MiB.
	Size merlon.Size `yaml:"size,omitempty"`
	// Keep is how long traffic is kept at most. At least 1h.
	// Default 168h (7 days).
	Keep time.Duration `yaml:"keep,omitempty"`
	// Body is the longest request body that is recorded; of longer ones only
	// the head is. From 1KiB to 1MiB. Default 64KiB.
	Body merlon.Size `yaml:"body,omitempty"`
	// Share is the part of all requests that is recorded, chosen by chance:
	// 0.1 is a tenth. More than 0, at most 1. Default 1.
	Share float64 `yaml:"share,omitempty"`
}

func (c Config) withDefaults() Config {
	c.Size = cmp.Or(c.Size, 256*merlon.MiB)
	c.Keep = cmp.Or(c.Keep, 7*24*time.Hour)
	c.Body = cmp.Or(c.Body, 64*merlon.KiB)
	c.Share = cmp.Or(c.Share, 1)
	return c
}

// Check reports every mistake in c, without touching the disk.
func Check(c Config) error {
	off := c == Config{}
	c = c.withDefaults()
	var errs []error
	bad := func(setting string, value any, rule string) {
		errs = append(errs, merlon.BadSetting(setting, fmt.Sprint(value), rule))
	}
	if c.Dir == "" && !off {
		bad("dir", "", "must be set for anything to be recorded")
	}
	if _, err := recipient(c.Recipient); err != nil && !off {
		errs = append(errs, err)
	}
	if c.Size < 8*merlon.MiB || c.Size > 1024*merlon.GiB {
		bad("size", c.Size, "must be from 8MiB to 1024GiB")
	}
	if c.Keep < time.Hour {
		bad("keep", c.Keep, "must be at least 1h")
	}
	if c.Body < merlon.KiB || c.Body > merlon.MiB {
		bad("body", c.Body, "must be from 1KiB to 1MiB")
	}
	if !(c.Share > 0 && c.Share <= 1) {
		bad("share", c.Share, "must be more than 0 and at most 1")
	}
	return errors.Join(errs...)
}

func recipient(text string) (age.Recipient, error) {
	if text == "" {
		return nil, merlon.BadSetting("recipient", "", "must be set to a public key; make one with: merlon replay key FILE")
	}
	if strings.HasPrefix(text, "AGE-SECRET-KEY-") { // and not repeated in an error
		return nil, merlon.BadSetting("recipient", "", `must be the public key, "age1…", never the secret one`)
	}
	all, err := age.ParseRecipients(strings.NewReader(text))
	if err != nil || len(all) != 1 {
		return nil, merlon.BadSetting("recipient", text, `must be a public key, "age1…", as merlon replay key prints it`)
	}
	return all[0], nil
}

// Bounds of what waits in memory.
const (
	maxQueue = 4096     // requests that have ended
	maxHeld  = 32 << 20 // bytes of those, and of bodies still arriving
)

// A Recorder records requests. A nil Recorder records none.
type Recorder struct {
	c     Config
	log   *slog.Logger
	held  atomic.Int64
	queue chan *Tape
	stop  chan struct{}
	done  chan struct{}
	w     *writer

	written, lost atomic.Uint64
	closed        atomic.Bool
}

// Open makes the folder and begins to record into it. If c is the zero Config,
// the Recorder is nil.
func Open(c Config, log *slog.Logger) (*Recorder, error) {
	if err := Check(c); err != nil || c == (Config{}) {
		return nil, err
	}
	c = c.withDefaults()
	to, err := recipient(c.Recipient)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("record.dir: %w", err)
	}
	r := &Recorder{
		c: c, log: log, queue: make(chan *Tape, maxQueue), stop: make(chan struct{}), done: make(chan struct{}),
		w: &writer{dir: c.Dir, to: to, total: int64(c.Size), keep: c.Keep},
	}
	if err := r.w.tidy(time.Now(), 0); err != nil {
		return nil, fmt.Errorf("record.dir: %w", err)
	}
	go r.run()
	return r, nil
}

// Begin starts to record hr, of which it keeps what it needs before guards or
// the upstream change anything. It returns nil if hr is not to be recorded.
func (r *Recorder) Begin(hr *http.Request) *Tape {
	if r == nil || r.c.Share < 1 && rand.Float64() >= r.c.Share {
		return nil
	}
	return newTape(r, hr)
}

// Stats counts requests since the start: those written, and those dropped
// because the disk or the memory set aside did not take them.
type Stats struct {
	Written, Lost uint64
}

// Stats returns the counts so far.
func (r *Recorder) Stats() Stats {
	if r == nil {
		return Stats{}
	}
	return Stats{r.written.Load(), r.lost.Load()}
}

// Close writes what waits and ends the segment. What ends later is dropped.
func (r *Recorder) Close() error {
	if r == nil || r.closed.Swap(true) {
		return nil
	}
	close(r.stop)
	<-r.done
	return r.w.close()
}

// hold sets n bytes of memory aside, if there are that many.
func (r *Recorder) hold(n int64) bool {
	if r.held.Add(n) > maxHeld {
		r.held.Add(-n)
		return false
	}
	return true
}
