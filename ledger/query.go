package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
)

// A Filter picks events. Fields that are empty pick all.
type Filter struct {
	Since, Until time.Time // from Since on, before Until
	Kind         Kind
	Guard        string
	Reason       merlon.Reason
	Site         string
	Client       string // the start of the address
	ID           string
	Limit        int // the newest so many; 0 means all
}

// Match reports whether the filter picks e, its Limit apart.
func (f *Filter) Match(e *Event) bool {
	return (f.Since.IsZero() || !e.Time.Before(f.Since)) &&
		(f.Until.IsZero() || e.Time.Before(f.Until)) &&
		(f.Kind == "" || e.Kind == f.Kind) &&
		(f.Guard == "" || e.Guard == f.Guard) &&
		(f.Reason == "" || e.Reason == f.Reason) &&
		(f.Site == "" || e.Site == f.Site) &&
		strings.HasPrefix(e.Client, f.Client) &&
		(f.ID == "" || e.ID == f.ID)
}

// ErrNotFound is Find's answer where the log has no event with the id.
var ErrNotFound = errors.New("no event with this id (it may be older than what is kept, or one of a flood that was only counted)")

// A LineError is a line that cannot be read.
type LineError struct {
	File string
	Line int64 // 0 if it is not known
}

func (e *LineError) Error() string {
	place := e.File
	if e.Line > 0 {
		place += fmt.Sprintf(":%d", e.Line)
	}
	return place + ": not a line of the event log; see what merlon events verify says"
}

// A cursor reads one file's events that a filter picks.
type cursor struct {
	dir, name string
	off       int64 // of the first byte not read
	line      int64 // lines read
	midway    bool  // from some place on: the number of the line is not known
}

// read yields the events of the whole lines from the cursor on.
func (c *cursor) read(f *Filter) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		file, err := os.Open(filepath.Join(c.dir, folder, c.name))
		if errors.Is(err, fs.ErrNotExist) {
			return // pruned meanwhile
		}
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			yield(Event{}, err)
			return
		}
		start := c.off
		r := newLineReader(io.NewSectionReader(file, start, max(0, info.Size()-start)))
		for {
			b, whole, err := r.next()
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Event{}, err)
				return
			}
			if !whole && start+r.off == info.Size() {
				return // it is being written, or a crash left it
			}
			c.off = start + r.off
			c.line++
			e, picked, err := readEvent(b, f)
			if err != nil {
				err = &LineError{filepath.Join(folder, c.name), c.line}
				if c.midway {
					err = &LineError{File: filepath.Join(folder, c.name)}
				}
			} else if !picked {
				continue
			}
			if e.Chain = chainOf(c.name); !yield(e, err) {
				return
			}
		}
	}
}

// readEvent takes the event out of a line, if the filter picks it.
func readEvent(b []byte, f *Filter) (e Event, picked bool, err error) {
	l, ok := parseLine(b)
	if !ok {
		return e, false, errors.New("not a line")
	}
	if f.passesOver(l.event) {
		return e, false, nil
	}
	if err := json.Unmarshal(l.event, &e); err != nil {
		return Event{}, false, err
	}
	e.Seq = l.seq
	return e, f.Match(&e), nil
}

// passesOver reports, quickly, whether the filter surely does not pick the
// event: our JSON begins with the time.
func (f *Filter) passesOver(event []byte) bool {
	if f.ID != "" && !bytes.Contains(event, []byte(f.ID)) {
		return true
	}
	if f.Since.IsZero() && f.Until.IsZero() {
		return false
	}
	rest, ok := bytes.CutPrefix(event, []byte(`{"time":"`))
	if !ok {
		return false
	}
	text, _, _ := bytes.Cut(rest[:min(len(rest), 40)], []byte(`"`))
	t, err := time.Parse(time.RFC3339Nano, string(text))
	return err == nil && (!f.Since.IsZero() && t.Before(f.Since) || !f.Until.IsZero() && !t.Before(f.Until))
}

// stale reports whether the file surely has nothing since then. A day's
// margin is for clocks that were set back.
func stale(dir, name string, since time.Time) bool {
	if since.IsZero() {
		return false
	}
	info, err := os.Stat(filepath.Join(dir, folder, name))
	return err == nil && info.ModTime().Before(since.Add(-24*time.Hour))
}

// Query yields the events that f picks, oldest first, from all chains in the
// data folder dir. A line that cannot be read yields an error of its own, and
// the rest goes on. It needs no key and does not verify.
func Query(dir string, f Filter) iter.Seq2[Event, error] {
	if f.Limit > 0 {
		return newestFiles(dir, f)
	}
	return merged(dir, f, nil, nil)
}

// newestFiles yields the newest events that f picks, and for them reads no
// more files than it must: twice as many each time, until there are enough.
func newestFiles(dir string, f Filter) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		names, times := byAge(dir)
		for n := 1; ; n *= 2 {
			var picked []Event
			var errs []error
			some := names[:min(n, len(names))]
			for e, err := range newest(merged(dir, f, nil, some), f.Limit) {
				picked, errs = append(picked, e), append(errs, err)
			}
			// What no file read so far has is older than the others' last line.
			enough := len(picked) == f.Limit && len(some) < len(names) && picked[0].Time.After(times[names[len(some)]])
			if !enough && len(some) < len(names) {
				continue
			}
			for i := range picked {
				if !yield(picked[i], errs[i]) {
					return
				}
			}
			return
		}
	}
}

// byAge lists the chain files, the one written last first, and when that was.
func byAge(dir string) ([]string, map[string]time.Time) {
	names, _ := chainFiles(dir) // an error comes again on reading
	times := map[string]time.Time{}
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(dir, folder, name)); err == nil {
			times[name] = info.ModTime()
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return times[b].Compare(times[a]) })
	return names, times
}

// newest yields the last n of all.
func newest(all iter.Seq2[Event, error], n int) iter.Seq2[Event, error] {
	type item struct {
		e   Event
		err error
	}
	return func(yield func(Event, error) bool) {
		var ring []item
		next := 0
		for e, err := range all {
			if len(ring) < n {
				ring = append(ring, item{e, err})
				continue
			}
			ring[next] = item{e, err}
			next = (next + 1) % n
		}
		for i := range ring {
			if it := ring[(next+i)%len(ring)]; !yield(it.e, it.err) {
				return
			}
		}
	}
}

// merged reads all chains side by side, in the order of time between chains
// and in that of writing within one. Where it stopped is left in cursors.
// With only, it reads those files and no others.
func merged(dir string, f Filter, cursors map[string]*cursor, only []string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		names, err := chainFiles(dir)
		if err != nil {
			yield(Event{}, err)
			return
		}
		if len(names) == 0 && cursors == nil {
			if _, err := os.Stat(filepath.Join(dir, folder)); err != nil {
				yield(Event{}, fmt.Errorf("no event log: %w", err))
				return
			}
		}
		chains := map[string][]*cursor{}
		for _, name := range names {
			if cursors == nil && stale(dir, name, f.Since) || only != nil && !slices.Contains(only, name) {
				continue
			}
			c := cursors[name]
			if c == nil {
				c = &cursor{dir: dir, name: name}
			}
			if cursors != nil {
				cursors[name] = c
			}
			chains[chainOf(name)] = append(chains[chainOf(name)], c)
		}
		var streams []*stream
		defer func() {
			for _, s := range streams {
				s.stop()
			}
		}()
		for _, files := range chains {
			s := newStream(files, &f)
			if s.pull(); s.ok {
				streams = append(streams, s)
			} else {
				s.stop()
			}
		}
		for len(streams) > 0 {
			s := slices.MinFunc(streams, func(a, b *stream) int { return a.e.Time.Compare(b.e.Time) })
			if !yield(s.e, s.err) {
				return
			}
			if s.pull(); !s.ok {
				s.stop()
				streams = slices.DeleteFunc(streams, func(o *stream) bool { return o == s })
			}
		}
	}
}

// A stream is one chain's events, the next one at hand.
type stream struct {
	next func() (Event, error, bool)
	stop func()
	e    Event
	err  error
	ok   bool
}

func newStream(files []*cursor, f *Filter) *stream {
	s := &stream{}
	s.next, s.stop = iter.Pull2(func(yield func(Event, error) bool) {
		for _, c := range files {
			for e, err := range c.read(f) {
				if !yield(e, err) {
					return
				}
			}
		}
	})
	return s
}

func (s *stream) pull() {
	before := s.e.Time
	if s.e, s.err, s.ok = s.next(); s.err != nil {
		s.e.Time = before // an error stands where it was found
	}
}

const pollEvery = 200 * time.Millisecond

// Follow yields what Query yields, and then goes on with events as they are
// written, over new files and new processes, until ctx is done. Without Since
// it begins with the newest Limit events, or with none.
func Follow(ctx context.Context, dir string, f Filter) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		cursors := map[string]*cursor{}
		if f.Since.IsZero() && f.Limit <= 0 {
			toEnd(dir, cursors)
		}
		first := merged(dir, f, cursors, nil)
		if f.Limit > 0 {
			first = newest(first, f.Limit)
		}
		for e, err := range first {
			if !yield(e, err) {
				return
			}
		}
		f.Limit = 0
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for e, err := range merged(dir, f, cursors, nil) {
				if !yield(e, err) || ctx.Err() != nil {
					return
				}
			}
		}
	}
}

// toEnd puts cursors behind the last whole line that is written.
func toEnd(dir string, cursors map[string]*cursor) {
	names, _ := chainFiles(dir) // an error comes again on reading
	for _, name := range names {
		if off, err := lastLineEnd(filepath.Join(dir, folder, name)); err == nil {
			cursors[name] = &cursor{dir: dir, name: name, off: off, midway: true}
		}
	}
}

func lastLineEnd(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	from := max(0, info.Size()-2*maxLine)
	b := make([]byte, info.Size()-from)
	if _, err := f.ReadAt(b, from); err != nil && err != io.EOF {
		return 0, err
	}
	return from + int64(bytes.LastIndexByte(b, '\n')+1), nil
}

const findBlock = 1 << 20

// Find returns the newest event with the id a client was told. It reads the
// files from the newest to the oldest and each from its end.
func Find(dir, id string) (Event, error) {
	if id == "" || clean(id, maxName) != id {
		return Event{}, ErrNotFound
	}
	names, _ := byAge(dir)
	for _, name := range names {
		e, ok, err := findIn(filepath.Join(dir, folder, name), id)
		if ok || err != nil {
			e.Chain = chainOf(name)
			return e, err
		}
	}
	return Event{}, ErrNotFound
}

// findIn looks for the last event with the id in a file.
func findIn(path, id string) (Event, bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Event{}, false, nil
	}
	if err != nil {
		return Event{}, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Event{}, false, err
	}
	needle := []byte(`"id":"` + id + `"`)
	buf := make([]byte, findBlock+maxLine+len(needle))
	for end := info.Size(); end > 0; end -= min(end, findBlock) {
		from := max(0, end-findBlock)
		// A line that begins in this block may end in the one behind it.
		n, err := f.ReadAt(buf[:min(int64(len(buf)), info.Size()-from)], from)
		if err != nil && err != io.EOF {
			return Event{}, false, err
		}
		if e, ok := findLast(buf[:n], needle, id, from == 0); ok {
			return e, true, nil
		}
	}
	return Event{}, false, nil
}

// findLast looks for the last whole line in b whose event has the id.
func findLast(b, needle []byte, id string, fromStart bool) (found Event, ok bool) {
	for at := 0; ; {
		i := bytes.Index(b[at:], needle)
		if i < 0 {
			return found, ok
		}
		i += at
		at = i + len(needle)
		start := bytes.LastIndexByte(b[:i], '\n') + 1
		end := bytes.IndexByte(b[i:], '\n')
		if end < 0 || start == 0 && !fromStart {
			continue // the block before, or behind, has all of it
		}
		if e, picked, err := readEvent(b[start:i+end], &Filter{ID: id}); err == nil && picked {
			found, ok = e, true
		}
	}
}
