package record

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"filippo.io/age"
)

// Traffic is kept in segments, each an age file of its own, so that the oldest
// can be dropped. A segment ends when it is full or old.
const (
	suffix       = ".age"
	maxSegment   = 16 << 20
	segmentAge   = 10 * time.Minute
	segmentExtra = 64 << 10 // what encryption adds to one, at most
	tidyEvery    = time.Minute
	retryAfter   = 10 * time.Second
)

// A writer writes segments into a folder of which it keeps the size. It is
// for one goroutine.
type writer struct {
	dir   string
	to    age.Recipient
	total int64
	keep  time.Duration

	file  *segmentFile // nil between segments
	enc   io.WriteCloser
	size  int64 // of what was written into enc
	began time.Time
	buf   []byte
}

// A segmentFile takes each write whole or not at all, so that a full disk
// leaves a segment that ends early and not one that is damaged.
type segmentFile struct {
	f     *os.File // not embedded: it has other ways to write
	size  int64
	head  []byte // held back until it is complete
	begun bool
}

func (f *segmentFile) Write(p []byte) (int, error) {
	if !f.begun {
		f.head = append(f.head, p...)
		return len(p), nil
	}
	n, err := f.f.Write(p)
	if err != nil {
		return n, errors.Join(err, f.f.Truncate(f.size))
	}
	f.size += int64(n)
	return n, nil
}

func (f *segmentFile) begin() error {
	f.begun = true
	_, err := f.Write(f.head)
	return err
}

// segment is the size at which a segment ends.
func (w *writer) segment() int64 { return min(maxSegment, w.total/8) }

func (w *writer) write(e *Entry, now time.Time) error {
	w.buf = appendEntry(w.buf[:0], e)
	n := int64(len(w.buf))
	if n > w.segment() {
		return fmt.Errorf("an entry of %d bytes is larger than a segment", n)
	}
	if w.size+n > w.segment() {
		if err := w.close(); err != nil {
			return err
		}
	}
	if w.file == nil {
		if err := w.open(now); err != nil {
			return err
		}
	}
	w.size += n
	if _, err := w.enc.Write(w.buf); err != nil {
		return errors.Join(err, w.close())
	}
	return nil
}

func (w *writer) open(now time.Time) error {
	if err := w.tidy(now, w.segment()+segmentExtra); err != nil {
		return err
	}
	name := now.UTC().Format("20060102T150405.000Z") + "-" + rand.Text()[:8] + suffix
	file, err := os.OpenFile(filepath.Join(w.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	f := &segmentFile{f: file}
	enc, err := age.Encrypt(f, w.to)
	if err == nil {
		err = f.begin()
	}
	if err != nil {
		return errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	w.file, w.enc, w.size, w.began = f, enc, 0, now
	return nil
}

// close ends the segment. The next entry begins another.
func (w *writer) close() error {
	if w.file == nil {
		return nil
	}
	err := errors.Join(w.enc.Close(), w.file.f.Close())
	w.file, w.enc, w.size = nil, nil, 0
	return err
}

// turn ends a segment that is old, so that it can be read whole.
func (w *writer) turn(now time.Time) error {
	var err error
	if w.file != nil && now.Sub(w.began) >= segmentAge {
		err = w.close()
	}
	return errors.Join(err, w.tidy(now, 0))
}

// tidy drops the segments that are too old, and as many of the oldest as must
// go to make space.
func (w *writer) tidy(now time.Time, space int64) error {
	files, err := segments(w.dir)
	if err != nil {
		return err
	}
	sum := space
	slices.Reverse(files) // the newest first
	var errs []error
	for _, f := range files {
		sum += f.Size()
		path := filepath.Join(w.dir, f.Name())
		if w.file != nil && path == w.file.f.Name() {
			continue
		}
		if sum > w.total || now.Sub(f.ModTime()) > w.keep {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// segments lists the segments of a folder, the oldest first.
func segments(dir string) ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []fs.FileInfo
	for _, e := range entries {
		if filepath.Ext(e.Name()) != suffix || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil { // else another process has dropped it
			files = append(files, info)
		}
	}
	return files, nil
}

// run is the goroutine that writes.
func (r *Recorder) run() {
	defer close(r.done)
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	var told, paused time.Time
	fail := func(err error) {
		if err != nil && time.Since(told) > time.Minute {
			told = time.Now()
			r.log.Error("traffic cannot be recorded", "folder", r.c.Dir, "error", err)
		}
	}
	take := func(t *Tape) {
		if time.Since(paused) < retryAfter {
			t.lose()
			return
		}
		if err := r.put(t); err != nil {
			paused = time.Now()
			fail(err)
		}
	}
	for {
		select {
		case t := <-r.queue:
			take(t)
		case now := <-tick.C:
			fail(r.w.turn(now))
		case <-r.stop:
			for {
				select {
				case t := <-r.queue:
					take(t)
				default:
					return
				}
			}
		}
	}
}

// put writes one request. A mistake in here must not end the gateway.
func (r *Recorder) put(t *Tape) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		if err != nil {
			t.lose()
			return
		}
		t.release()
		r.written.Add(1)
	}()
	redact(&t.entry, t.kind)
	return r.w.write(&t.entry, time.Now())
}
