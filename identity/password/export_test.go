package password

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"time"
)

// Cost returns what it would take to verify a stored hash: KiB, and KiB over
// all passes or rounds.
func Cost(stored string) (kind string, memory, work uint64, err error) {
	h, err := parse(stored)
	switch h.kind {
	case argon2id:
		work = uint64(h.memory) * uint64(h.cost)
	case scrypted:
		work = uint64(h.needs()) * uint64(h.lanes)
	default:
		work = uint64(h.cost)
	}
	return h.kind, uint64(h.needs()), work, err
}

// Rewrite returns the text of a stored hash that Merlon has made, read and
// written again.
func Rewrite(stored string) (string, error) {
	h, err := parse(stored)
	return h.text(), err
}

// Classes returns what the hash that stands in for an unknown account costs,
// and what a stored one does.
func Classes(h *Hasher, stored string) (dummy, known string) {
	d, _ := h.read("")
	k, err := h.read(stored)
	if err != nil {
		return d.class(), err.Error()
	}
	return d.class(), k.class()
}

// Unpaced lets a hasher take only as long as it must, by filling its memory
// of how long kinds take.
func Unpaced(h *Hasher) *Hasher {
	for i := range maxClasses {
		h.pace.note(string(rune('a'+i)), 0)
	}
	return h
}

// Slowest returns how long the slowest kind of hash takes, as far as is known.
func Slowest(h *Hasher) (most time.Duration) {
	h.pace.mu.Lock()
	defer h.pace.mu.Unlock()
	for _, d := range h.pace.least {
		most = max(most, d)
	}
	return most
}

// Hold takes a turn until leave is called.
func Hold(h *Hasher) (leave func(), err error) { return h.turns.take(context.Background(), 0, false) }

// Waiting returns how many wait for their turn.
func Waiting(h *Hasher) int { return int(h.turns.waiting[0].Load() + h.turns.waiting[1].Load()) }

// AtOnce returns how many hash at once.
func AtOnce(h *Hasher) int { return int(h.turns.atOnce) }

// Passes returns the configured cost of argon2id.
func Passes(h *Hasher) (memory, passes uint32) { return h.own.memory, h.own.cost }

// SetNow gives the range service another clock.
func (p *Policy) SetNow(now func() time.Time) { p.service.now = now }

// GuessBits judges a password by the common words.
func GuessBits(password string, own ...string) float64 {
	return guessBits(password, own)
}

// CommonWords returns the words of common.txt, forwards.
func CommonWords() (words []string) {
	for line := range strings.Lines(commonText) {
		if !strings.HasPrefix(line, "#") {
			words = append(words, strings.Fields(line)...)
		}
	}
	return words
}

// MinBits is what a password needs.
const MinBits = minBits

// ReadFilter reads a filter from memory.
func ReadFilter(b []byte) (*Filter, error) { return readFilter(bytes.NewReader(b), int64(len(b))) }

// InRange looks for a suffix in an answer of a range service.
func InRange(answer []byte, suffix string) (bool, error) {
	return inRange(answer, suffix)
}

// Pace is how verifications of several kinds are made to take as long.
type Pace struct{ p pace }

func (p *Pace) Note(class string, took time.Duration)        { p.p.note(class, took) }
func (p *Pace) Rest(took time.Duration) (more time.Duration) { return p.p.rest(took) }

// Sum is the SHA-1 of a password.
func Sum(password string) [sha1.Size]byte { return sha1.Sum([]byte(password)) }

// Reseal makes the sums of a filter's text right, so that what is behind them
// is read.
func Reseal(b []byte) []byte {
	if len(b) < headerBytes {
		return b
	}
	b = bytes.Clone(b)
	le := binary.LittleEndian
	copy(b, filterMagic)
	le.PutUint32(b[16:], filterVersion)
	le.PutUint32(b[20:], shardCount)
	offset, keys := int64(headerBytes), uint64(0)
	for i := range shardCount {
		s := b[fixedBytes+i*shardBytes:]
		end := offset + 2*int64(le.Uint32(s[16:]))
		if end <= int64(len(b)) {
			le.PutUint32(s[24:], crc32.Checksum(b[offset:end], castagnoli))
		}
		offset, keys = end, keys+uint64(le.Uint32(s[20:]))
	}
	le.PutUint64(b[24:], keys)
	putHead(b, FilterInfo{Passwords: keys, Least: le.Uint64(b[32:])})
	return b
}
