package password

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"os"
)

// The file of breached passwords, all numbers little-endian:
//
//	"merlon breached\n"  16 bytes
//	version              uint32, 1
//	shards               uint32, 256
//	keys                 uint64, how many passwords are in it
//	least                uint64, how often each was seen at least
//	256 shards           of 28 bytes: seed uint64, segment length, segments,
//	                     fingerprints, keys and CRC-32C of them, uint32 each
//	SHA-256              of all that comes before, 32 bytes
//	fingerprints         uint16, of one shard after the other
//
// A shard is a binary fuse filter (Graf and Lemire 2022) with 16-bit
// fingerprints over the first 64 bits of SHA-1 sums that begin with the
// shard's number. It takes 2.25 bytes a password, and takes one in 65,536
// others for one of them.
const (
	filterMagic   = "merlon breached\n"
	filterVersion = 1
	shardCount    = 256
	shardBytes    = 28
	fixedBytes    = 16 + 4 + 4 + 8 + 8
	headerBytes   = fixedBytes + shardCount*shardBytes + sha256.Size
	maxSegment    = 1 << 18
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Filter knows lost passwords by their SHA-1 sums. It stays on disk: each
// question reads six bytes, mostly from the system's cache.
type Filter struct {
	file   io.ReaderAt
	close  func() error
	shards [shardCount]shard
	info   FilterInfo
}

// A FilterInfo says what is in a [Filter].
type FilterInfo struct {
	Passwords uint64
	Least     uint64 // how often each was seen at least
	Bytes     int64  // of the file
}

type shard struct {
	seed         uint64
	segment      uint32 // length
	segments     uint32 // how many a first position can be in
	fingerprints uint32
	keys         uint32
	crc          uint32
	offset       int64 // of the fingerprints in the file
}

// OpenFilter opens a file that [BuildFilter] has made. It reads all of it to
// know that it is whole: about a second for 2 GB, if the disk is fast.
func OpenFilter(path string) (*Filter, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	filter, err := openFilter(f)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return filter, nil
}

func openFilter(f *os.File) (*Filter, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	filter, err := readFilter(f, info.Size())
	if err != nil {
		return nil, err
	}
	filter.close = f.Close
	return filter, nil
}

var errDamaged = errors.New("is damaged: make it anew with merlon password build-filter")

// readFilter reads the header and checks the rest.
func readFilter(r io.ReaderAt, size int64) (*Filter, error) {
	head := make([]byte, headerBytes)
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !bytes.HasPrefix(head, []byte(filterMagic)) {
		return nil, errors.New("is no file of merlon password build-filter")
	}
	le := binary.LittleEndian
	if v := le.Uint32(head[16:]); v != filterVersion {
		return nil, fmt.Errorf("has the version %d, of which this merlon knows nothing: make it anew with merlon password build-filter", v)
	}
	sum := sha256.Sum256(head[:headerBytes-sha256.Size])
	if !bytes.Equal(sum[:], head[headerBytes-sha256.Size:]) || le.Uint32(head[20:]) != shardCount {
		return nil, errDamaged
	}
	f := &Filter{file: r, info: FilterInfo{Passwords: le.Uint64(head[24:]), Least: le.Uint64(head[32:]), Bytes: size}}
	offset := int64(headerBytes)
	var keys uint64
	for i := range f.shards {
		b := head[fixedBytes+i*shardBytes:]
		s := &f.shards[i]
		*s = shard{le.Uint64(b), le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:]), le.Uint32(b[20:]), le.Uint32(b[24:]), offset}
		if !s.sound() {
			return nil, errDamaged
		}
		keys += uint64(s.keys)
		offset += 2 * int64(s.fingerprints)
	}
	if offset != size || keys != f.info.Passwords {
		return nil, errDamaged
	}
	return f, f.verify()
}

// sound reports whether every position that a key can have is in the shard.
func (s *shard) sound() bool {
	if s.keys == 0 {
		return s.fingerprints == 0
	}
	return s.segment > 0 && s.segment <= maxSegment && bits.OnesCount32(s.segment) == 1 && s.segments > 0 &&
		(uint64(s.segments)+2)*uint64(s.segment) == uint64(s.fingerprints)
}

// verify reads the fingerprints.
func (f *Filter) verify() error {
	buf := make([]byte, min(f.info.Bytes, 1<<20))
	for i := range f.shards {
		s := &f.shards[i]
		r := io.NewSectionReader(f.file, s.offset, 2*int64(s.fingerprints))
		var crc uint32
		for {
			n, err := r.Read(buf)
			crc = crc32.Update(crc, castagnoli, buf[:n])
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
		}
		if crc != s.crc {
			return errDamaged
		}
	}
	return nil
}

// Info returns what is in the file.
func (f *Filter) Info() FilterInfo { return f.info }

// Close closes the file.
func (f *Filter) Close() error { return f.close() }

// Contains reports whether a password with the sum is in the file. It never
// misses one, and is wrong about one in 65,536 others.
func (f *Filter) Contains(sum [sha1.Size]byte) (bool, error) {
	s := &f.shards[sum[0]]
	if s.keys == 0 {
		return false, nil
	}
	print, at := s.places(binary.BigEndian.Uint64(sum[:]))
	var b [2]byte
	for _, p := range at {
		if _, err := f.file.ReadAt(b[:], s.offset+2*int64(p)); err != nil {
			return false, fmt.Errorf("breached: %w", err)
		}
		print ^= binary.LittleEndian.Uint16(b[:])
	}
	return print == 0, nil
}

// places returns a key's fingerprint and the three places whose xor it is, as
// package xorfilter has put it there.
func (s *shard) places(key uint64) (fingerprint uint16, at [3]uint32) {
	h := key + s.seed
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	hi, _ := bits.Mul64(h, uint64(s.segments*s.segment))
	at[0] = uint32(hi)
	at[1] = (at[0] + s.segment) ^ uint32(h>>18)&(s.segment-1)
	at[2] = (at[0] + 2*s.segment) ^ uint32(h)&(s.segment-1)
	return uint16(h ^ h>>32), at
}
