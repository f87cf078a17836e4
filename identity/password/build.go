package password

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/FastFilter/xorfilter"
)

const (
	hexSum     = 2 * sha1.Size
	spillBytes = 16 << 10 // buffered for each shard
	maxSumLine = 128
	stepLines  = 1 << 16
)

// A Build says how to make a file of breached passwords.
type Build struct {
	// Out is the file to make, or to replace at once when all is done.
	Out string
	// Least is how often a password must have been seen to be taken; 1 if zero.
	Least uint64
	// Sources are files and folders. A file that is called by five hexadecimal
	// digits has lines "SUFFIX:COUNT" of the SHA-1 sums that begin with them,
	// as the public range service gives them; any other has lines "SHA1:COUNT"
	// or only "SHA1". "-" is In.
	Sources []string
	In      io.Reader
	// Progress, if not nil, is told now and then how far it has come.
	Progress func(Progress)
}

// Progress says how far a [Build] has come.
type Progress struct {
	Files, OfFiles int
	Lines          uint64 // read so far
	Shards         int    // of 256 that are made; 0 while files are read
}

// BuildFilter makes a file of breached passwords. It needs 35 bytes of memory
// for every 256th password, 140 MB for a thousand million, and while it works
// 8 bytes of disk for every one beside the file. The same passwords make the
// same file.
func BuildFilter(ctx context.Context, b Build) (info FilterInfo, err error) {
	files, err := b.files()
	if err != nil {
		return info, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(b.Out), ".breached-*.tmp")
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := spill{dir: dir, least: max(b.Least, 1), told: b.Progress, at: Progress{OfFiles: len(files)}}
	defer s.close()
	for _, name := range files {
		if err := s.file(ctx, name, b.In); err != nil {
			return info, err
		}
		s.at.Files++
		s.tell()
	}
	out, err := os.OpenFile(filepath.Join(dir, "filter"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return info, err
	}
	defer func() { _ = out.Close() }()
	info, err = s.write(ctx, out)
	if err == nil && info.Passwords == 0 {
		err = errors.New("there is no password in these files that was seen often enough")
	}
	if err := errors.Join(err, out.Sync()); err != nil {
		return info, err
	}
	if err := os.Rename(out.Name(), b.Out); err != nil {
		return info, err
	}
	if d, err := os.Open(filepath.Dir(b.Out)); err == nil {
		_ = d.Sync() // the file is there; only a power failure could still undo it
		_ = d.Close()
	}
	return info, nil
}

// files returns the sources with the files that are in folders.
func (b *Build) files() ([]string, error) {
	var files []string
	old, _ := os.Stat(b.Out)
	if old != nil && !old.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is not a regular file", b.Out)
	}
	for _, source := range b.Sources {
		if source == "-" {
			files = append(files, source)
			continue
		}
		info, err := os.Stat(source)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, source)
			continue
		}
		err = filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") {
				return err
			}
			if info, err := d.Info(); err != nil || old != nil && os.SameFile(info, old) {
				return err
			}
			files = append(files, path)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, errors.New("there are no files to read")
	}
	return files, nil
}

// A spill sorts keys into a file for each shard, since they come in any order
// and do not fit into memory.
type spill struct {
	dir   string
	least uint64
	files [shardCount]*os.File
	out   [shardCount]*bufio.Writer
	told  func(Progress)
	at    Progress
}

// to returns where the keys of a shard go.
func (s *spill) to(i byte) (*bufio.Writer, error) {
	if s.out[i] == nil {
		f, err := os.OpenFile(filepath.Join(s.dir, fmt.Sprintf("%02x", i)), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		s.files[i], s.out[i] = f, bufio.NewWriterSize(f, spillBytes)
	}
	return s.out[i], nil
}

func (s *spill) close() {
	for _, f := range s.files {
		if f != nil {
			_ = f.Close()
		}
	}
}

func (s *spill) tell() {
	if s.told != nil {
		s.told(s.at)
	}
}

// file reads one source.
func (s *spill) file(ctx context.Context, name string, in io.Reader) error {
	if name == "-" {
		name = "standard input"
	} else {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	if in == nil {
		return errors.New("there is no standard input to read")
	}
	stem := filepath.Base(name)
	stem = strings.TrimSuffix(stem, filepath.Ext(stem))
	if len(stem) != prefixHex || !isHex([]byte(stem)) {
		stem = ""
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), 64<<10)
	for n := 1; lines.Scan(); n++ {
		if err := s.line(lines.Bytes(), stem); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
		if s.at.Lines++; s.at.Lines%stepLines == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			s.tell()
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return ctx.Err()
}

func (s *spill) line(b []byte, prefix string) error {
	line, err := readLine(b, 0)
	if err != nil || line.empty {
		return err
	}
	var sum [hexSum]byte
	switch digits := len(line.hex); {
	case digits == hexSum:
		copy(sum[:], line.hex)
	case digits == hexSum-prefixHex && prefix != "":
		copy(sum[copy(sum[:], prefix):], line.hex)
	case digits == hexSum-prefixHex:
		return errors.New("has the end of a SHA-1 sum, but the file is not called by the five digits that it begins with")
	case digits == 32 || digits == 32-prefixHex:
		return errors.New("is no SHA-1 sum but probably one of NTLM; download the SHA-1 list")
	default:
		return fmt.Errorf("must be SHA1:COUNT, with 40 hexadecimal digits; it has %d", digits)
	}
	if line.count < s.least {
		return nil
	}
	var key [8]byte
	for i := range key {
		key[i] = unhex(sum[2*i])<<4 | unhex(sum[2*i+1])
	}
	w, err := s.to(key[0])
	if err == nil {
		_, err = w.Write(key[:])
	}
	return err
}

// A sumLine is one line of a list.
type sumLine struct {
	hex   []byte
	count uint64
	empty bool
}

// readLine reads "HEX:COUNT" or only "HEX". If digits is not 0, there must be
// so many.
func readLine(b []byte, digits int) (sumLine, error) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return sumLine{empty: true}, nil
	}
	if len(b) > maxSumLine {
		return sumLine{}, errors.New("is too long for a SHA-1 sum and a number")
	}
	hex, text, counted := bytes.Cut(b, []byte(":"))
	l := sumLine{hex: hex, count: 1}
	if !isHex(hex) || digits != 0 && len(hex) != digits {
		return sumLine{}, errors.New("must be SHA1:COUNT, in hexadecimal digits")
	}
	if !counted {
		return l, nil
	}
	l.count = 0
	for _, c := range text {
		if c < '0' || c > '9' || l.count > math.MaxUint64/10-1 {
			return sumLine{}, errors.New("must have a number after the colon")
		}
		l.count = 10*l.count + uint64(c-'0')
	}
	if len(text) == 0 {
		return sumLine{}, errors.New("must have a number after the colon")
	}
	return l, nil
}

func isHex(b []byte) bool {
	for _, c := range b {
		if unhex(c) > 15 {
			return false
		}
	}
	return len(b) > 0
}

// unhex returns the value of a digit, above 15 if it is none.
func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

// write makes the shards and puts them together.
func (s *spill) write(ctx context.Context, out *os.File) (FilterInfo, error) {
	head := make([]byte, headerBytes)
	w := bufio.NewWriterSize(out, 1<<20)
	if _, err := w.Write(head); err != nil {
		return FilterInfo{}, err
	}
	info := FilterInfo{Least: s.least, Bytes: headerBytes}
	var builder xorfilter.BinaryFuseBuilder
	var keys []uint64
	for i, f := range s.files {
		if err := ctx.Err(); err != nil {
			return info, err
		}
		if f != nil {
			var err error
			if keys, err = readKeys(f, s.out[i], keys); err != nil {
				return info, err
			}
			fuse, err := xorfilter.BuildBinaryFuse[uint16](&builder, keys)
			if err != nil {
				return info, fmt.Errorf("shard %d: %w", i, err)
			}
			one := shard{
				seed: fuse.Seed, segment: fuse.SegmentLength, segments: fuse.SegmentCount,
				fingerprints: uint32(len(fuse.Fingerprints)), keys: uint32(len(keys)),
			}
			if one.crc, err = writePrints(w, fuse.Fingerprints); err != nil {
				return info, err
			}
			one.put(head[fixedBytes+i*shardBytes:])
			info.Passwords += uint64(len(keys))
			info.Bytes += 2 * int64(len(fuse.Fingerprints))
		}
		s.at.Shards = i + 1
		s.tell()
	}
	putHead(head, info)
	if err := w.Flush(); err != nil {
		return info, err
	}
	_, err := out.WriteAt(head, 0)
	return info, err
}

// readKeys returns what was spilled for a shard, each key once.
func readKeys(f *os.File, w *bufio.Writer, keys []uint64) ([]uint64, error) {
	if err := w.Flush(); err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	keys = slices.Grow(keys[:0], int(size/8))
	r := bufio.NewReaderSize(f, 1<<18)
	var b [8]byte
	for range size / 8 {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, err
		}
		keys = append(keys, binary.BigEndian.Uint64(b[:]))
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// writePrints writes fingerprints and returns their CRC-32C.
func writePrints(w io.Writer, prints []uint16) (uint32, error) {
	var crc uint32
	buf := make([]byte, 0, 8192)
	for part := range slices.Chunk(prints, cap(buf)/2) {
		buf = buf[:0]
		for _, p := range part {
			buf = binary.LittleEndian.AppendUint16(buf, p)
		}
		crc = crc32.Update(crc, castagnoli, buf)
		if _, err := w.Write(buf); err != nil {
			return 0, err
		}
	}
	return crc, nil
}

func (s *shard) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b, s.seed)
	for i, v := range []uint32{s.segment, s.segments, s.fingerprints, s.keys, s.crc} {
		le.PutUint32(b[8+4*i:], v)
	}
}

func putHead(head []byte, info FilterInfo) {
	le := binary.LittleEndian
	copy(head, filterMagic)
	le.PutUint32(head[16:], filterVersion)
	le.PutUint32(head[20:], shardCount)
	le.PutUint64(head[24:], info.Passwords)
	le.PutUint64(head[32:], info.Least)
	sum := sha256.Sum256(head[:headerBytes-sha256.Size])
	copy(head[headerBytes-sha256.Size:], sum[:])
}
