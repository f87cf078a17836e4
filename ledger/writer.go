package ledger

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A writer writes one chain. Only the log's goroutine uses it.
type writer struct {
	dir  string
	c    Config
	key  key
	tell func(Event)

	chain *chainer
	own   chainHead // as it is on the disk
	file  *os.File  // the last of own.Files, locked
	dirty bool      // the file may have more bytes than own says, and they are ours
	due   bool      // the checkpoint is behind

	buf      []byte // lines that wait to be written after own
	waiting  int    // how many
	next     fileHead
	event    bytes.Buffer
	written  uint64
	heads    *heads      // as last seen
	headInfo fs.FileInfo // of the file it was seen in
	clock    time.Time

	failing, nagged time.Time
	noted           atomic.Pointer[Head]
}

// encode turns an event into the next line.
func (w *writer) encode(e Event) {
	e.sanitise()
	e.Chain, e.Seq = "", 0
	w.event.Reset()
	for step := 0; ; step++ {
		w.event.Reset()
		enc := json.NewEncoder(&w.event)
		enc.SetEscapeHTML(false) // who shows events as HTML must escape more than this anyway
		if err := enc.Encode(&e); err != nil {
			e = Event{Time: time.Now().UTC(), ID: e.ID, Kind: e.Kind, Message: "cannot be written as JSON: " + err.Error()}
			continue // a year beyond 9999 is all that can fail
		}
		if w.event.Len() <= maxLine-256 {
			break
		}
		e.shrink(step)
	}
	if w.waiting == 0 {
		w.buf, w.next = w.buf[:0], *w.own.last()
	}
	w.next.Seq++
	w.buf, w.next.Hash = w.chain.appendLine(w.buf, w.next.Seq, w.next.Hash, bytes.TrimSuffix(w.event.Bytes(), []byte("\n")))
	if e.Time.After(w.next.Last) {
		w.next.Last = e.Time
	}
	w.waiting++
}

// shrink makes an event that is too long for a line smaller, step by step.
func (e *Event) shrink(step int) {
	e.Attrs = map[string]string{"shortened": "yes"}
	for i := range e.Verdicts {
		v := &e.Verdicts[i]
		v.Error = shorten(v.Error, 256)
		v.Findings = v.Findings[:min(len(v.Findings), 4)]
		for j := range v.Findings {
			f := &v.Findings[j]
			f.Value, f.Message = shorten(f.Value, 64), shorten(f.Message, 128)
		}
	}
	if step == 0 {
		return
	}
	kept := e.Verdicts[:0]
	for _, v := range e.Verdicts {
		if v.Guard == e.Guard && len(kept) < 2 {
			kept = append(kept, v)
		}
	}
	e.Verdicts = kept
	e.Path, e.Message, e.Remedy = shorten(e.Path, 512), shorten(e.Message, 256), shorten(e.Remedy, 512)
}

// commit writes the lines that wait, and then the checkpoint. If it fails it
// can be called again and writes the same bytes to the same place.
func (w *writer) commit() error {
	if w.waiting == 0 && !w.due {
		return nil
	}
	if w.waiting > 0 {
		if err := w.ready(); err != nil {
			return err
		}
		at := w.own.last().Size
		w.dirty = true
		_, err := w.file.WriteAt(w.buf, at)
		if err == nil {
			err = w.file.Sync()
		}
		if err != nil {
			if w.file.Truncate(at) == nil { // give the space back
				w.dirty = false
			}
			return err
		}
		f := w.own.last()
		f.Size, f.Seq, f.Hash, f.Last = at+int64(len(w.buf)), w.next.Seq, w.next.Hash, w.next.Last
		w.written += uint64(w.waiting)
		w.dirty, w.due, w.waiting = false, true, 0
		if cap(w.buf) > 4*chunkBytes {
			w.buf = nil
		}
	}
	if err := w.checkpoint(); err != nil {
		return err
	}
	w.due = false
	w.note()
	return nil
}

func (w *writer) note() {
	f := w.own.last()
	w.noted.Store(&Head{Chain: w.chain.name, Seq: f.Seq, Hash: f.Hash})
}

// ready sees that the file is the one we left and has room.
func (w *writer) ready() error {
	w.watchClock()
	f := w.own.last()
	if w.dirty {
		if err := w.file.Truncate(f.Size); err != nil {
			return err
		}
		w.dirty = false
	}
	opened, err := w.file.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(filepath.Join(w.dir, folder, f.Name))
	what := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		what = "was removed"
	case err != nil:
		return err
	case !os.SameFile(opened, named):
		what = "was replaced"
	case opened.Size() != f.Size:
		what = fmt.Sprintf("has %d bytes where %d were written", opened.Size(), f.Size)
	case f.Size < int64(w.c.Rotate):
		return nil
	}
	if what == "" {
		if err := w.rotate(); err != nil {
			return err
		}
		w.tidy()
		return nil
	}
	// The file stays as evidence; the chain goes on in the next.
	if err := w.rotate(); err != nil {
		return err
	}
	w.tamper(f.Name, what+" while it was written")
	return nil
}

func (w *writer) tamper(file, what string) {
	w.tell(Event{Kind: Alarm, Name: "log_tampered", Message: "the event log was tampered with: " + file + " " + what,
		Attrs: map[string]string{"file": file}})
}

// watchClock tells when the clock was set back, because the order of events
// then differs from that of their times.
func (w *writer) watchClock() {
	now := time.Now()
	if !w.clock.IsZero() {
		if back := now.Sub(w.clock) - now.Round(0).Sub(w.clock.Round(0)); back > 2*time.Second {
			w.tellClock(back)
		}
	}
	w.clock = now
}

func (w *writer) tellClock(back time.Duration) {
	w.tell(Event{Kind: Alarm, Name: "clock_set_back", Message: "the clock went back by " + back.Round(time.Second).String()})
}

// rotate begins the chain's next file.
func (w *writer) rotate() error {
	last := *w.own.last()
	n, err := fileNumber(last.Name)
	if err != nil {
		return err
	}
	f, name, err := w.create(n + 1)
	if err != nil {
		return err
	}
	w.own.Files = append(w.own.Files, fileHead{Name: name, Seq: last.Seq, Hash: last.Hash, Last: last.Last})
	if err := w.checkpoint(); err != nil {
		w.own.Files = w.own.Files[:len(w.own.Files)-1]
		_ = os.Remove(f.Name())
		_ = f.Close()
		return err
	}
	_ = w.file.Close() // synced already
	w.file, w.dirty = f, false
	return syncDir(w.dir)
}

// create makes and locks the chain's file with number n.
func (w *writer) create(n int) (*os.File, string, error) {
	name := fileName(w.chain.name, n)
	f, err := os.OpenFile(filepath.Join(w.dir, folder, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, "", err
	}
	err = lockFile(f)
	if err == nil {
		err = syncDir(w.dir)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		_ = f.Close()
		return nil, "", err
	}
	return f, name, nil
}

func lockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

func syncDir(dir string) error {
	d, err := os.Open(filepath.Join(dir, folder))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func fileNumber(name string) (int, error) {
	rest := strings.TrimSuffix(strings.TrimPrefix(name, chainOf(name)+"."), fileSuffix)
	n, err := strconv.Atoi(rest)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s: no number in the name", name)
	}
	return n, nil
}

// checkpoint writes how far the chain has come.
func (w *writer) checkpoint() error {
	unlock, err := lockHeads(w.dir)
	if err != nil {
		return err
	}
	defer unlock()
	h, err := w.current()
	if err != nil {
		return err
	}
	return w.put(h)
}

// put writes h with the own chain's state in it. The lock is held.
func (w *writer) put(h *heads) error {
	own := w.own
	own.Files = append([]fileHead(nil), w.own.Files...)
	if c := h.chain(own.Chain); c != nil {
		*c = own
	} else {
		h.Chains = append(h.Chains, own)
	}
	h.Version, h.Key, h.Written = 1, w.key.id, time.Now().UTC()
	h.Generation++
	if err := writeHeads(w.dir, w.key, h); err != nil {
		w.headInfo = nil
		return err
	}
	w.heads = h
	w.headInfo, _ = os.Stat(filepath.Join(w.dir, folder, headsName))
	return nil
}

// current returns the checkpoint as it is now, for changing. One that was
// removed, changed or put back to an earlier state is replaced by what this
// process knows, and told. The lock is held.
func (w *writer) current() (*heads, error) {
	path := filepath.Join(w.dir, folder, headsName)
	info, err := os.Stat(path)
	if err == nil && w.headInfo != nil && os.SameFile(info, w.headInfo) &&
		info.ModTime().Equal(w.headInfo.ModTime()) && info.Size() == w.headInfo.Size() {
		return w.heads.clone(), nil
	}
	h, err := readHeads(w.dir, w.key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		w.tamper(headsName, "was removed while the log was open")
		h = w.heads.clone()
	case errors.Is(err, errHeads), errors.Is(err, errOtherKey):
		w.setAside()
		w.tamper(headsName, "was changed while the log was open")
		h = w.heads.clone()
	case err != nil:
		return nil, err
	case h.Generation < w.heads.Generation:
		w.tamper(headsName, "was put back to an earlier state")
		h = h.newer(w.heads)
	}
	w.yield(h)
	return h, nil
}

// newer returns what either checkpoint knows of each chain, the later state.
func (h *heads) newer(o *heads) *heads {
	n := o.clone()
	for _, c := range h.clone().Chains {
		if have := n.chain(c.Chain); have == nil {
			n.Chains = append(n.Chains, c)
		} else if c.last().Seq > have.last().Seq {
			*have = c
		}
	}
	return n
}

// yield takes over what another process pruned from the own chain.
func (w *writer) yield(h *heads) {
	c := h.chain(w.own.Chain)
	if c == nil || c.BaseSeq <= w.own.BaseSeq {
		return
	}
	w.own.BaseSeq, w.own.BaseHash = c.BaseSeq, c.BaseHash
	if i := slices.IndexFunc(w.own.Files, func(f fileHead) bool { return f.Name == c.Files[0].Name }); i > 0 {
		w.own.Files = w.own.Files[i:]
	}
}

// setAside keeps a checkpoint that does not hold, as evidence.
func (w *writer) setAside() {
	path := filepath.Join(w.dir, folder, headsName)
	_ = os.Rename(path, path+".bad-"+time.Now().UTC().Format("20060102T150405.000000000Z"))
}

// close ends the chain in order.
func (w *writer) close() error {
	w.own.Closed = !w.dirty && w.waiting == 0
	err := w.checkpoint()
	w.note()
	return errors.Join(err, w.file.Close())
}

func newChainName() string {
	return filePrefix + time.Now().UTC().Format("20060102T150405Z") + "-" + strings.ToLower(rand.Text()[:6])
}
