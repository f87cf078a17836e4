package ledger

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// openWriter goes on with the newest chain that nobody writes, or begins one.
func openWriter(dir string, c Config, tell func(Event)) (*writer, error) {
	if err := os.MkdirAll(filepath.Join(dir, folder), 0o700); err != nil {
		return nil, err
	}
	w := &writer{dir: dir, c: c, tell: tell}
	unlock, err := lockHeads(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := w.openHeads(); err != nil {
		return nil, err
	}
	for _, ch := range slices.SortedFunc(slices.Values(w.heads.clone().Chains), func(a, b chainHead) int {
		return b.last().Last.Compare(a.last().Last)
	}) {
		ok, err := w.adopt(ch)
		if err != nil {
			return nil, err
		}
		if ok {
			break
		}
	}
	if w.file == nil {
		w.chain = newChainer(w.key, newChainName())
		f, name, err := w.create(1)
		if err != nil {
			return nil, err
		}
		w.file, w.own = f, chainHead{Chain: w.chain.name, Files: []fileHead{{Name: name}}}
	}
	if back := time.Until(w.own.last().Last); back > 2*time.Second {
		w.tellClock(back)
	}
	if err := w.put(w.heads.clone()); err != nil {
		_ = w.file.Close()
		return nil, err
	}
	w.note()
	return w, syncDir(dir)
}

// openHeads reads the key and the checkpoint. The lock is held.
func (w *writer) openHeads() error {
	files, err := chainFiles(w.dir)
	if err != nil {
		return err
	}
	path := w.c.keyPath(w.dir)
	_, headsErr := os.Stat(filepath.Join(w.dir, folder, headsName))
	made := false
	w.key, err = loadKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if headsErr == nil || len(files) > 0 {
			return fmt.Errorf("%s: the key that the log was sealed with is missing; put it back, or move %s away to begin a new log",
				path, filepath.Join(w.dir, folder))
		}
		if err = makeKey(path); err == nil {
			made = true
			w.key, err = loadKey(path)
		}
	}
	if err != nil {
		return err
	}
	w.heads, err = readHeads(w.dir, w.key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		w.heads = &heads{}
		// Our own key is never made without a checkpoint soon after.
		if len(files) > 0 || !made && w.c.KeyFile == "" {
			w.tamper(headsName, "is missing")
		}
	case errors.Is(err, errHeads):
		w.heads = &heads{}
		w.setAside()
		w.tamper(headsName, "was changed")
	case errors.Is(err, errOtherKey):
		return fmt.Errorf("%s: %w", path, err)
	case err != nil:
		return err
	}
	return nil
}

// adopt goes on with a chain whose writer is gone. It answers no where
// another process writes it, and where it is not as the checkpoint says.
func (w *writer) adopt(ch chainHead) (bool, error) {
	fh := ch.last()
	f, err := os.OpenFile(filepath.Join(w.dir, folder, fh.Name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		w.tamper(fh.Name, "was removed")
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := lockFile(f); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return false, nil
		}
		return false, err
	}
	c := newChainer(w.key, ch.Chain)
	t, err := readTail(f, c, *fh)
	if err == nil && t.wrong != "" {
		w.tamper(fh.Name, t.wrong)
		_ = f.Close()
		return false, nil
	}
	if err == nil && t.torn > 0 {
		err = w.saveTorn(f, t)
	}
	if err != nil {
		_ = f.Close()
		return false, err
	}
	if !ch.Closed {
		w.tell(Event{Kind: Alarm, Name: SysCrash, Message: "Merlon did not stop in order the last time",
			Attrs: map[string]string{"file": fh.Name, "recovered_lines": strconv.FormatUint(t.head.Seq-fh.Seq, 10),
				"torn_bytes": strconv.FormatInt(t.torn, 10)}})
	}
	*fh = t.head
	ch.Closed = false
	w.chain, w.own, w.file = c, ch, f
	return true, nil
}

// A tail is what follows the checkpoint in a file.
type tail struct {
	head  fileHead // with the whole lines that follow
	torn  int64    // bytes after those that are no whole lines
	wrong string   // what is wrong other than that
}

// readTail checks the end of a file against its entry in the checkpoint.
func readTail(f *os.File, c *chainer, fh fileHead) (tail, error) {
	t := tail{head: fh}
	info, err := f.Stat()
	if err != nil {
		return t, err
	}
	if info.Size() < fh.Size {
		t.wrong = fmt.Sprintf("was cut from %d bytes to %d", fh.Size, info.Size())
		return t, nil
	}
	if fh.Size > 0 {
		from := max(0, fh.Size-2*maxLine)
		b := make([]byte, fh.Size-from)
		if _, err := f.ReadAt(b, from); err != nil {
			return t, err
		}
		b, ended := bytes.CutSuffix(b, []byte("\n"))
		l, ok := parseLine(b[bytes.LastIndexByte(b, '\n')+1:])
		if !ended || !ok || l.seq != fh.Seq || l.hash != fh.Hash || !c.holds(l) {
			t.wrong = "was changed: its last line is not the one that the checkpoint has"
			return t, nil
		}
	}
	r := newLineReader(io.NewSectionReader(f, fh.Size, info.Size()-fh.Size))
	for {
		b, whole, err := r.next()
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return t, err
		}
		l, ok := parseLine(b)
		switch {
		case whole && ok && t.torn == 0 && l.seq == t.head.Seq+1 && l.prev == t.head.Hash && c.holds(l):
			t.head.Seq, t.head.Hash = l.seq, l.hash
			t.head.Size += int64(len(b)) + 1
		case whole && ok:
			t.wrong = "has lines at its end that its writer did not put there"
			return t, nil
		default:
			t.torn = info.Size() - t.head.Size
		}
	}
}

// saveTorn moves the torn end of a file into one beside it.
func (w *writer) saveTorn(f *os.File, t tail) error {
	name := fmt.Sprintf("torn-%s-%d-%s.bin", strings.TrimSuffix(t.head.Name, fileSuffix), t.head.Seq,
		time.Now().UTC().Format("20060102T150405.000000000Z"))
	out, err := os.OpenFile(filepath.Join(w.dir, folder, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, sum), io.NewSectionReader(f, t.head.Size, t.torn))
	if err := errors.Join(err, out.Sync(), out.Close(), syncDir(w.dir)); err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(t.head.Size), f.Sync()); err != nil {
		return err
	}
	w.tell(Event{Kind: Alarm, Name: "log_torn", Message: "a crash left half a line at the end of " + t.head.Name + "; it is kept in " + name,
		Attrs: map[string]string{"file": name, "bytes": strconv.FormatInt(t.torn, 10), "sha256": hex.EncodeToString(sum.Sum(nil))}})
	return nil
}

// A lineReader reads lines of bounded length.
type lineReader struct {
	r   *bufio.Reader
	n   int64 // lines read
	off int64 // bytes read
}

func newLineReader(r io.Reader) *lineReader { return &lineReader{r: bufio.NewReaderSize(r, 4*maxLine)} }

// next returns the next line without its end, and whether it is whole: ended,
// and no longer than any line may be. It is valid until the next call.
func (r *lineReader) next() (b []byte, whole bool, err error) {
	b, err = r.r.ReadSlice('\n')
	r.off += int64(len(b))
	if err == nil {
		r.n++
		return b[:len(b)-1], true, nil
	}
	if errors.Is(err, bufio.ErrBufferFull) {
		start := bytes.Clone(b[:maxLine])
		for errors.Is(err, bufio.ErrBufferFull) {
			b, err = r.r.ReadSlice('\n')
			r.off += int64(len(b))
		}
		if err != nil && err != io.EOF {
			return nil, false, err
		}
		r.n++
		return start, false, nil
	}
	if err == io.EOF && len(b) > 0 {
		r.n++
		return b, false, nil
	}
	return nil, false, err
}

// tidy removes the oldest files that are beyond their time or the space.
func (w *writer) tidy() {
	unlock, err := lockHeads(w.dir)
	if err != nil {
		return // the next commit says so
	}
	defer unlock()
	h, err := w.current()
	if err != nil {
		return
	}
	w.removeAll(h.Leaving) // what a crash left
	gone := w.overdue(h)
	if len(gone) == 0 && len(h.Leaving) == 0 {
		return
	}
	h.Leaving = nil
	for _, f := range gone {
		h.Leaving = append(h.Leaving, f.Name)
		h.drop(f)
	}
	w.yield(h)
	if w.put(h) != nil {
		return
	}
	w.removeAll(h.Leaving)
	h = h.clone()
	h.Leaving = nil
	_ = w.put(h) // if not, the next tidy does it
	for _, f := range gone {
		w.tell(Event{Kind: Admin, Name: "log_pruned", Message: "an old file of the event log was removed by its retention",
			Attrs: map[string]string{"file": f.Name, "seq": strconv.FormatUint(f.Seq, 10), "hash": f.Hash,
				"last": f.Last.Format(time.RFC3339)}})
	}
}

func (w *writer) removeAll(names []string) {
	for _, name := range names {
		_ = os.Remove(filepath.Join(w.dir, folder, name)) // listed as leaving until it is
	}
}

// overdue picks the files to remove, oldest first. A file that is written is
// never picked, nor is one before files of its chain that stay.
func (w *writer) overdue(h *heads) []fileHead {
	var all []fileHead
	var total int64
	for _, c := range h.Chains {
		for i, f := range c.Files {
			total += f.Size
			if i < len(c.Files)-1 || c.Chain != w.own.Chain && w.abandoned(f.Name) {
				all = append(all, f)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b fileHead) int {
		return cmp.Or(a.Last.Compare(b.Last), cmp.Compare(a.Name, b.Name))
	})
	var gone []fileHead
	for _, f := range all {
		if time.Since(f.Last) <= w.c.Keep && total <= int64(w.c.MaxTotal) {
			break
		}
		total -= f.Size
		gone = append(gone, f)
	}
	return gone
}

// abandoned reports whether no process writes the file.
func (w *writer) abandoned(name string) bool {
	f, err := os.Open(filepath.Join(w.dir, folder, name))
	if err != nil {
		return false // Verify reports it; it must not vanish from the checkpoint
	}
	defer f.Close()
	return lockFile(f) == nil
}

// drop takes a file out of the checkpoint; its last line becomes the base of
// its chain. A chain without files goes as a whole.
func (h *heads) drop(f fileHead) {
	c := h.chain(chainOf(f.Name))
	c.BaseSeq, c.BaseHash = f.Seq, f.Hash
	c.Files = slices.DeleteFunc(c.Files, func(o fileHead) bool { return o.Name == f.Name })
	if len(c.Files) == 0 {
		h.Chains = slices.DeleteFunc(h.Chains, func(o chainHead) bool { return o.Chain == c.Chain })
	}
}
