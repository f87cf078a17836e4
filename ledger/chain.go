package ledger

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A line of the log is
//
//	{"seq":N,"prev":"HASH","event":{…},"hash":"HASH"}
//
// where hash is an HMAC-SHA-256 over the chain's name and every byte of the
// line before it, and prev the hash of the line before. So a line holds only
// in its place of its chain, and only who has the key can make one.
const (
	lineSeq   = `{"seq":`
	linePrev  = `,"prev":"`
	lineEvent = `","event":`
	lineHash  = `,"hash":"`
	lineEnd   = `"}`
	hashLen   = 43 // base64 without padding of 32 bytes
)

// key holds what is derived from the key file.
type key struct {
	id    string // tells keys apart; not secret
	line  []byte
	heads []byte
}

func deriveKey(secret []byte) key {
	derive := func(use string) []byte {
		m := hmac.New(sha256.New, secret)
		m.Write([]byte("merlon ledger v1: " + use))
		return m.Sum(nil)
	}
	return key{id: hex.EncodeToString(derive("id")[:8]), line: derive("line"), heads: derive("heads")}
}

func (c Config) keyPath(dir string) string {
	if c.KeyFile != "" {
		return c.KeyFile
	}
	return filepath.Join(dir, "keys", "ledger.key")
}

// loadKey reads the key file: 32 bytes, or 64 hexadecimal digits.
func loadKey(path string) (key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return key{}, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return key{}, fmt.Errorf("%s: must be readable by its owner only (chmod 600)", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return key{}, err
	}
	if len(b) != 32 {
		text := strings.TrimSpace(string(b))
		if b, err = hex.DecodeString(text); err != nil || len(b) != 32 {
			return key{}, fmt.Errorf("%s: must be 32 bytes or 64 hexadecimal digits", path)
		}
	}
	return deriveKey(b), nil
}

// makeKey writes a new key file unless there is one. Two processes may do it
// at once: the first link wins, and both use that.
func makeKey(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	tmp, err := os.CreateTemp(filepath.Dir(path), ".ledger-key-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = fmt.Fprintf(tmp, "%x\n", secret)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// A chainer makes and checks the lines of one chain.
type chainer struct {
	name string
	mac  hash.Hash
}

func newChainer(k key, name string) *chainer {
	return &chainer{name, hmac.New(sha256.New, k.line)}
}

func (c *chainer) sum(signed []byte) string {
	var sum [sha256.Size]byte
	c.mac.Reset()
	c.mac.Write([]byte(c.name))
	c.mac.Write([]byte{'\n'})
	c.mac.Write(signed)
	return base64.RawURLEncoding.EncodeToString(c.mac.Sum(sum[:0]))
}

// appendLine appends the line for an event's JSON to dst and returns its hash.
func (c *chainer) appendLine(dst []byte, seq uint64, prev string, event []byte) ([]byte, string) {
	start := len(dst)
	dst = append(dst, lineSeq...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, linePrev...)
	dst = append(dst, prev...)
	dst = append(dst, lineEvent...)
	dst = append(dst, event...)
	sum := c.sum(dst[start:])
	dst = append(dst, lineHash...)
	dst = append(dst, sum...)
	dst = append(dst, lineEnd...)
	return append(dst, '\n'), sum
}

// A line is one that has the shape of a line, whether or not it holds.
type line struct {
	seq    uint64
	prev   string
	hash   string
	event  []byte
	signed []byte
}

// parseLine takes a line apart, without its line end. It insists on the very
// bytes that appendLine writes around the event.
func parseLine(b []byte) (line, bool) {
	var l line
	text, ok := strings.CutPrefix(string(b[:min(len(b), 160)]), lineSeq)
	if !ok {
		return l, false
	}
	num, text, ok := strings.Cut(text, linePrev)
	if !ok {
		return l, false
	}
	var err error
	if l.seq, err = strconv.ParseUint(num, 10, 64); err != nil {
		return l, false
	}
	l.prev, _, ok = strings.Cut(text, lineEvent)
	if !ok || len(l.prev) != hashLen && l.prev != "" {
		return l, false
	}
	start := len(lineSeq) + len(num) + len(linePrev) + len(l.prev) + len(lineEvent)
	end := len(b) - len(lineHash) - hashLen - len(lineEnd)
	if end <= start || string(b[end:end+len(lineHash)]) != lineHash || string(b[len(b)-len(lineEnd):]) != lineEnd {
		return l, false
	}
	l.hash = string(b[end+len(lineHash) : len(b)-len(lineEnd)])
	l.event, l.signed = b[start:end], b[:end]
	return l, true
}

// holds reports whether l is a line that this chain's writer made.
func (c *chainer) holds(l line) bool {
	return hmac.Equal([]byte(c.sum(l.signed)), []byte(l.hash))
}
