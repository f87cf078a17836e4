package ban

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/gaissmai/bart"
	"golang.org/x/sys/unix"
)

const (
	maxEntries  = 1_000_000
	maxListFile = 64 << 20
	maxMistakes = 10 // told of one file
	lookEvery   = 2 * time.Second
)

// A list is an imported file.
type list struct {
	path  string
	table atomic.Pointer[bart.Lite] // never nil once it is handed out

	mu    sync.Mutex
	stamp fileStamp
	gone  bool // told that it cannot be looked at
}

// A fileStamp changes when a file does.
type fileStamp struct {
	mod  time.Time
	size int64
}

// listFiles are the files that guards use. Those that no guard uses any more,
// after a reload, go by themselves.
type listFiles struct {
	mu     sync.Mutex
	open   map[string]weak.Pointer[list]
	looked time.Time
}

// list returns the file at path, as it was read first: a configuration that is
// loaded anew does not read it again, and a file that is broken meanwhile does
// not keep it from being loaded.
func (b *Bans) list(path string) (*list, error) {
	b.files.mu.Lock()
	defer b.files.mu.Unlock()
	if l := b.files.open[path].Value(); l != nil {
		return l, nil
	}
	l := &list{path: path}
	if _, err := l.read(); err != nil {
		return nil, err
	}
	b.files.open[path] = weak.Make(l)
	return l, nil
}

// reread looks every two seconds which files have changed, and reads them.
func (b *Bans) reread() {
	now := b.now()
	b.files.mu.Lock()
	if d := now.Sub(b.files.looked); d < lookEvery && d >= 0 {
		b.files.mu.Unlock()
		return
	}
	b.files.looked = now
	var lists []*list
	for path, w := range b.files.open {
		if l := w.Value(); l != nil {
			lists = append(lists, l)
		} else {
			delete(b.files.open, path)
		}
	}
	b.files.mu.Unlock()
	for _, l := range lists {
		entries, changed, err := l.again()
		switch {
		case err != nil:
			b.notify(Notice{Reason: ListUnusable, Place: l.path, Err: err})
		case changed:
			b.notify(Notice{Reason: ListRead, Place: l.path, Entries: entries})
		}
	}
}

// again reads the file if it has changed. A mistake is told once.
func (l *list) again() (entries int, changed bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	told := l.gone
	info, err := os.Stat(l.path)
	if err == nil && !told && (fileStamp{info.ModTime(), info.Size()}) == l.stamp {
		return 0, false, nil
	}
	if entries, err = l.read(); l.gone && told {
		return 0, false, nil
	}
	return entries, err == nil, err
}

// read reads the file. What was read before stays if that fails. A pipe that
// nobody writes to is not waited for.
func (l *list) read() (entries int, err error) {
	l.gone = true
	file, err := os.OpenFile(l.path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("must be a file")
	}
	l.gone = false
	l.stamp = fileStamp{info.ModTime(), info.Size()}
	if info.Size() > maxListFile {
		return 0, errors.New("must not be larger than 64 MiB")
	}
	table, entries, err := parseList(io.LimitReader(file, maxListFile))
	if err != nil {
		return 0, err
	}
	l.table.Store(table)
	return entries, nil
}

// parseList reads a list. Every line that cannot be used is told, up to ten.
func parseList(r io.Reader) (*bart.Lite, int, error) {
	t := new(bart.Lite)
	var errs []error
	mistakes, entries, n := 0, 0, 0
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4<<10), 64<<10)
	for sc.Scan() {
		n++
		line := sc.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\uFEFF")
		}
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		p, rule := parseRange(line)
		if rule == "" {
			rule = tooWide(p)
		}
		if rule != "" {
			if mistakes++; mistakes <= maxMistakes {
				errs = append(errs, fmt.Errorf("line %d %q: %s", n, shorten(line), rule))
			}
			continue
		}
		if entries++; entries > maxEntries {
			return nil, 0, fmt.Errorf("line %d: is one more than the 1000000 that a list may have", n)
		}
		t.Insert(p.Masked())
	}
	if err := sc.Err(); err != nil {
		errs = append(errs, fmt.Errorf("line %d: %w", n+1, err))
	}
	if mistakes > maxMistakes {
		errs = append(errs, fmt.Errorf("and %d more lines", mistakes-maxMistakes))
	}
	if len(errs) > 0 {
		return nil, 0, errors.Join(errs...)
	}
	return t, entries, nil
}

const shown = 60 // bytes of a line that an error repeats

func shorten(s string) string {
	if len(s) <= shown {
		return s
	}
	return strings.ToValidUTF8(s[:shown], "") + "…"
}
