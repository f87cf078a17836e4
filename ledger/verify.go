package ledger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Head names the last line of a chain. Its text is "CHAIN:SEQ:HASH".
type Head struct {
	Chain string
	Seq   uint64
	Hash  string
}

// String writes the head as UnmarshalText reads it.
func (h Head) String() string {
	return h.Chain + ":" + strconv.FormatUint(h.Seq, 10) + ":" + h.Hash
}

// MarshalText writes the head as [Head.String] does.
func (h Head) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads a head.
func (h *Head) UnmarshalText(b []byte) error {
	parts := strings.Split(string(b), ":")
	if len(parts) != 3 {
		return fmt.Errorf("must be CHAIN:SEQ:HASH as noted earlier, not %q", b)
	}
	seq, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return fmt.Errorf("must be CHAIN:SEQ:HASH as noted earlier, not %q", b)
	}
	*h = Head{parts[0], seq, parts[2]}
	return nil
}

// A Fault is what a [Problem] found wrong.
type Fault string

const (
	Changed    Fault = "changed"     // the line is not as it was written
	Inserted   Fault = "inserted"    // the line, or a file, was not written by Merlon
	Removed    Fault = "removed"     // lines, or a file, are missing
	Reordered  Fault = "reordered"   // the line stands in another place than it was written to
	Duplicated Fault = "duplicated"  // the line stands a second time
	Checkpoint Fault = "checkpoint"  // the checkpoint was changed or removed
	RolledBack Fault = "rolled_back" // the log ends before a head that was noted elsewhere
)

// A Problem is one trace of tampering.
type Problem struct {
	Fault  Fault  `json:"fault"`
	File   string `json:"file"`
	Line   int64  `json:"line,omitempty"`
	To     int64  `json:"to,omitempty"` // the last of the lines, if they are several
	Detail string `json:"detail"`
}

// String writes the problem as "FILE:LINE: fault: detail", LINE being "4-9"
// for several.
func (p Problem) String() string {
	place := p.File
	if p.Line > 0 {
		place += ":" + strconv.FormatInt(p.Line, 10)
	}
	if p.To > 0 {
		place += "-" + strconv.FormatInt(p.To, 10)
	}
	return place + ": " + string(p.Fault) + ": " + p.Detail
}

// A Report is what [Verify] found.
type Report struct {
	Files    int       `json:"files"`
	Lines    uint64    `json:"lines"` // that hold
	Bytes    int64     `json:"bytes"`
	Written  time.Time `json:"written"` // the checkpoint
	Problems []Problem `json:"problems,omitempty"`
	More     uint64    `json:"more,omitempty"`  // problems beyond those listed
	Notes    []string  `json:"notes,omitempty"` // what looks odd but is no tampering, such as a torn tail
	Heads    []Head    `json:"heads"`           // of every chain, to be noted elsewhere
}

// OK reports whether nothing was tampered with.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

// WriteTo writes the report for people.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	for _, p := range r.Problems {
		b.WriteString(visible(p.String()) + "\n")
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "and %s more problems\n", thousands(r.More))
	}
	for _, n := range r.Notes {
		b.WriteString("note: " + visible(n) + "\n")
	}
	verdict := "untouched"
	if !r.OK() {
		verdict = "TAMPERED WITH"
	}
	fmt.Fprintf(&b, "%s: %s lines in %d files hold, checkpoint of %s\n", verdict, thousands(r.Lines), r.Files,
		r.Written.UTC().Format(time.RFC3339))
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

const maxProblems = 1000

func (r *Report) add(f Fault, file string, line int64, format string, args ...any) {
	if n := len(r.Problems); n > 0 && line > 0 && f != Removed {
		if p := &r.Problems[n-1]; p.Fault == f && p.File == filepath.Join(folder, file) && max(p.Line, p.To) == line-1 {
			p.To = line
			return
		}
	}
	if len(r.Problems) == maxProblems {
		r.More++
		return
	}
	r.Problems = append(r.Problems, Problem{f, filepath.Join(folder, file), line, 0, fmt.Sprintf(format, args...)})
}

func (r *Report) noteOdd(format string, args ...any) {
	if len(r.Notes) < maxProblems {
		r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
	}
}

// Verify checks the whole log in the data folder dir: that every line is as
// Merlon wrote it, in its place, and that none is missing up to the
// checkpoint. It only reads, needs the key, and may run while the log is
// written. known are heads noted earlier, which must still be part of it. The
// error says that it could not be checked; tampering is in the Report.
func Verify(dir string, c Config, known ...Head) (Report, error) {
	var r Report
	path := c.keyPath(dir)
	files, err := chainFiles(dir)
	if err != nil {
		return r, err
	}
	k, err := loadKey(path)
	if errors.Is(err, fs.ErrNotExist) && len(files) == 0 {
		return r, fmt.Errorf("%s: there is no event log: %w", dir, fs.ErrNotExist)
	}
	if err != nil {
		return r, fmt.Errorf("the key is needed to verify: %w", err)
	}
	h, err := readHeads(dir, k)
	switch {
	case errors.Is(err, errOtherKey):
		return r, fmt.Errorf("%s: %w", path, err)
	case errors.Is(err, fs.ErrNotExist):
		r.add(Checkpoint, headsName, 0, "is missing: nothing says how many lines there must be")
		h = &heads{}
	case errors.Is(err, errHeads):
		r.add(Checkpoint, headsName, 0, "was changed: its seal does not hold")
		h = &heads{}
	case err != nil:
		return r, err
	}
	r.Written = h.Written
	for i := range h.Chains {
		v := verifier{r: &r, dir: dir, key: k, head: &h.Chains[i], chain: newChainer(k, h.Chains[i].Chain)}
		for _, kn := range known {
			if kn.Chain == v.head.Chain {
				v.known = append(v.known, kn)
			}
		}
		if err := v.run(); err != nil {
			return r, err
		}
		r.Heads = append(r.Heads, Head{v.head.Chain, v.seq, v.hash})
	}
	for _, kn := range known {
		if h.chain(kn.Chain) == nil {
			r.add(Removed, kn.Chain, 0, "the chain of a noted head is not there (gone by retention, or removed)")
		}
	}
	return r, r.strangers(dir, k, h)
}

// strangers reports files that the checkpoint does not have.
func (r *Report) strangers(dir string, k key, h *heads) error {
	entries, err := os.ReadDir(filepath.Join(dir, folder))
	if err != nil {
		return err
	}
	var now *heads // the log may have begun files since
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, headsName+".bad-") {
			r.add(Checkpoint, name, 0, "a checkpoint that did not hold was set aside here")
		}
		if strings.HasPrefix(name, "torn-") {
			r.noteOdd("%s: what a crash left of a line", filepath.Join(folder, name))
		}
		if chainOf(name) == "" || h.file(name) != nil || slices.Contains(h.Leaving, name) {
			continue
		}
		info, err := e.Info()
		if err != nil || info.Size() == 0 {
			continue // gone, or begun by a process that got no further
		}
		if now == nil {
			if now, err = readHeads(dir, k); err != nil {
				now = h
			}
		}
		if now.file(name) == nil && !slices.Contains(now.Leaving, name) {
			r.add(Inserted, name, 0, "the checkpoint does not have this file")
		}
	}
	return nil
}

// A verifier checks one chain.
type verifier struct {
	r     *Report
	dir   string
	key   key
	head  *chainHead
	chain *chainer
	known []Head

	seq     uint64 // of the last line that holds
	hash    string
	unsure  bool // lines before did not hold: the next prev cannot be compared
	bad     []place
	moreBad uint64
	gaps    []gap
}

type place struct {
	file string
	line int64
}

// A gap is a run of missing lines.
type gap struct {
	from, to uint64
	place
}

func (v *verifier) run() error {
	v.seq, v.hash = v.head.BaseSeq, v.head.BaseHash
	for _, k := range v.known {
		if k.Seq <= v.head.BaseSeq {
			v.r.noteOdd("the line of the noted head %s:%d is gone by retention", k.Chain, k.Seq)
		}
	}
	for i := range v.head.Files {
		if err := v.file(&v.head.Files[i], i == len(v.head.Files)-1); err != nil {
			return err
		}
	}
	v.settleBad(0)
	for _, g := range v.gaps {
		v.r.add(Removed, g.file, g.line, "%s missing before this place", seqs(g.from, g.to))
	}
	for _, k := range v.known {
		if k.Seq > v.seq {
			v.r.add(RolledBack, v.head.last().Name, 0, "the noted head %d is beyond the last line, %d", k.Seq, v.seq)
		}
	}
	return nil
}

func seqs(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("line with seq %d is", from)
	}
	return fmt.Sprintf("lines with seq %d to %d are", from, to)
}

// file checks one file of the chain.
func (v *verifier) file(fh *fileHead, last bool) error {
	f, err := os.Open(filepath.Join(v.dir, folder, fh.Name))
	if errors.Is(err, fs.ErrNotExist) {
		if now, err := readHeads(v.dir, v.key); err == nil && now.file(fh.Name) == nil {
			v.seq, v.hash, v.unsure = fh.Seq, fh.Hash, false // pruned meanwhile
			return nil
		}
		v.settleBad(0)
		if fh.Seq > v.seq {
			v.r.add(Removed, fh.Name, 0, "the file with %s removed", strings.Replace(seqs(v.seq+1, fh.Seq), " is", " was", 1))
		} else {
			v.r.add(Removed, fh.Name, 0, "the file was removed")
		}
		v.seq, v.hash, v.unsure = fh.Seq, fh.Hash, false
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	v.r.Files++
	v.r.Bytes += info.Size()
	t := after{last: last}
	r := newLineReader(io.LimitReader(f, info.Size())) // what is written meanwhile is for the next time
	for {
		b, whole, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		at := place{fh.Name, r.n}
		if v.seq < fh.Seq {
			v.line(b, whole, at)
			if v.seq == fh.Seq && v.hash != fh.Hash {
				v.r.add(Changed, at.file, at.line, "the last line is not the one that the checkpoint has")
			}
		} else {
			v.beyond(&t, b, whole, at)
		}
	}
	v.end(fh, r.n)
	return nil
}

// line checks one line up to the checkpoint.
func (v *verifier) line(b []byte, whole bool, at place) {
	l, ok := parseLine(b)
	if !whole || !ok || !v.chain.holds(l) {
		if len(v.bad) < maxProblems {
			v.bad = append(v.bad, at)
		} else {
			v.moreBad++
		}
		return
	}
	v.r.Lines++
	for _, k := range v.known {
		if k.Seq == l.seq && k.Hash != l.hash {
			v.r.add(Changed, at.file, at.line, "the line is not the one whose head was noted")
		}
	}
	if l.seq <= v.seq {
		v.earlier(l, at)
		return
	}
	missing := l.seq - v.seq - 1
	missing -= v.settleBad(missing)
	if missing > 0 {
		if len(v.gaps) < maxProblems {
			v.gaps = append(v.gaps, gap{l.seq - missing, l.seq - 1, at})
		} else {
			v.r.More++
		}
	} else if !v.unsure && l.prev != v.hash {
		v.r.add(Changed, at.file, at.line, "the line does not follow the one before it")
	}
	v.seq, v.hash, v.unsure = l.seq, l.hash, false
}

// earlier judges a line whose place was before: it was moved if it is missing
// there.
func (v *verifier) earlier(l line, at place) {
	for i, g := range v.gaps {
		if l.seq < g.from || l.seq > g.to {
			continue
		}
		v.r.add(Reordered, at.file, at.line, "the line with seq %d belongs before %s:%d", l.seq, g.file, g.line)
		v.gaps = slices.Delete(v.gaps, i, i+1)
		if l.seq < g.to {
			v.gaps = slices.Insert(v.gaps, i, gap{l.seq + 1, g.to, g.place})
		}
		if g.from < l.seq {
			v.gaps = slices.Insert(v.gaps, i, gap{g.from, l.seq - 1, g.place})
		}
		return
	}
	v.r.add(Duplicated, at.file, at.line, "the line with seq %d stands here a second time", l.seq)
}

// settleBad names the lines that did not hold, now that it is known how many
// lines are missing: so many of them were changed, the others inserted. It
// returns how many were changed.
func (v *verifier) settleBad(missing uint64) uint64 {
	n := uint64(len(v.bad)) + v.moreBad
	if n == 0 {
		return 0
	}
	for i, p := range v.bad {
		if uint64(i) < missing {
			v.r.add(Changed, p.file, p.line, "the line with seq %d is not as it was written", v.seq+uint64(i)+1)
		} else {
			v.r.add(Inserted, p.file, p.line, "Merlon did not write this line")
		}
	}
	v.r.More += v.moreBad
	v.bad, v.moreBad = v.bad[:0], 0
	v.unsure = true
	return min(missing, n)
}

// end compares where a file ended with the checkpoint.
func (v *verifier) end(fh *fileHead, lines int64) {
	if fh.Seq < v.seq || fh.Seq == v.seq && len(v.bad) == 0 {
		return
	}
	missing := fh.Seq - v.seq
	missing -= v.settleBad(missing)
	if missing > 0 {
		v.r.add(Removed, fh.Name, lines+1, "%s missing at the end of the file", seqs(fh.Seq-missing+1, fh.Seq))
	}
	v.seq, v.hash, v.unsure = fh.Seq, fh.Hash, false
}

// after is what was seen behind the checkpoint in a file.
type after struct {
	last bool // the file is the chain's last
	torn bool // half a line was seen
	good int
}

// beyond checks a line behind the checkpoint: in the last file of a chain its
// writer may not have checkpointed it yet, and after a crash there may be half
// a line.
func (v *verifier) beyond(t *after, b []byte, whole bool, at place) {
	l, ok := parseLine(b)
	switch {
	case whole && ok && (t.torn || !v.chain.holds(l)):
		v.r.add(Inserted, at.file, at.line, "Merlon did not write this line")
	case whole && ok && l.seq <= v.seq:
		v.r.Lines++
		v.earlier(l, at)
	case !t.last:
		v.r.add(Inserted, at.file, at.line, "something was added to a file that was complete")
	case whole && ok && l.seq > v.seq+1:
		v.r.add(Removed, at.file, at.line, "%s missing before this line", seqs(v.seq+1, l.seq-1))
		v.seq, v.hash = l.seq, l.hash
	case whole && ok && l.prev != v.hash:
		v.r.add(Changed, at.file, at.line, "the line does not follow the one before it")
	case whole && ok:
		v.line(b, whole, at)
		if t.good++; t.good == 1 && v.settled() {
			v.r.noteOdd("%s:%d: lines from here on are not in the checkpoint, and hold: a crash, or they were just written",
				filepath.Join(folder, at.file), at.line)
		}
	case t.torn: // more of the same
	case v.head.Closed && v.settled():
		v.r.add(Inserted, at.file, at.line, "something was added to a chain that had ended in order")
	default:
		if v.settled() {
			v.r.noteOdd("%s:%d: torn tail: half a line that a crash left", filepath.Join(folder, at.file), at.line)
		}
		t.torn = true
	}
}

// settled reports whether the chain has come no further since the checkpoint
// was read: its writer is gone, or idle.
func (v *verifier) settled() bool {
	now, err := readHeads(v.dir, v.key)
	if err != nil {
		return true
	}
	c := now.chain(v.head.Chain)
	return c != nil && c.last().Name == v.head.last().Name && c.last().Size == v.head.last().Size
}
