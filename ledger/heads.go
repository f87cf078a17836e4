package ledger

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The folder of the log and the files in it beside the chains.
const (
	folder    = "events"
	headsName = "heads.json"
	lockName  = "heads.lock"
	maxHeads  = 16 << 20
)

// heads is the checkpoint: how far every chain has come. It is two lines, the
// JSON and its HMAC-SHA-256, and is replaced as a whole, so that the last
// lines of a chain, or a whole chain, cannot go unnoticed.
type heads struct {
	Version    int         `json:"version"`
	Key        string      `json:"key"`        // which key it was made with
	Generation uint64      `json:"generation"` // grows with every checkpoint
	Written    time.Time   `json:"written"`
	Chains     []chainHead `json:"chains"`
	Leaving    []string    `json:"leaving,omitempty"` // files being pruned: there or not, both are right
}

// A chainHead is the state of one chain.
type chainHead struct {
	Chain    string     `json:"chain"`
	BaseSeq  uint64     `json:"base_seq,omitempty"` // the last line that was pruned
	BaseHash string     `json:"base_hash,omitempty"`
	Files    []fileHead `json:"files"`
	Closed   bool       `json:"closed,omitempty"` // its writer ended in order
}

// A fileHead is the state of one file of a chain, oldest first.
type fileHead struct {
	Name string    `json:"name"`
	Size int64     `json:"size"`
	Seq  uint64    `json:"seq"`  // of its last line, or of the line before if it has none
	Hash string    `json:"hash"` // of that line
	Last time.Time `json:"last"` // when that line was written
}

func (c *chainHead) last() *fileHead { return &c.Files[len(c.Files)-1] }

func (h *heads) chain(name string) *chainHead {
	for i := range h.Chains {
		if h.Chains[i].Chain == name {
			return &h.Chains[i]
		}
	}
	return nil
}

// file finds the entry of a file by name.
func (h *heads) file(name string) *fileHead {
	for i := range h.Chains {
		for j := range h.Chains[i].Files {
			if h.Chains[i].Files[j].Name == name {
				return &h.Chains[i].Files[j]
			}
		}
	}
	return nil
}

func (h *heads) clone() *heads {
	c := *h
	c.Chains = slices.Clone(h.Chains)
	for i := range c.Chains {
		c.Chains[i].Files = slices.Clone(c.Chains[i].Files)
	}
	c.Leaving = slices.Clone(h.Leaving)
	return &c
}

// errHeads is a checkpoint that its key does not vouch for.
var errHeads = errors.New("the checkpoint was changed: its seal does not hold")

// errOtherKey is a checkpoint made with another key than the one at hand.
var errOtherKey = errors.New("the checkpoint was made with another key")

func readHeads(dir string, k key) (*heads, error) {
	f, err := os.Open(filepath.Join(dir, folder, headsName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxHeads {
		return nil, errHeads
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return openHeads(b, k)
}

func openHeads(b []byte, k key) (*heads, error) {
	text, seal, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return nil, errHeads
	}
	var h heads
	err := json.Unmarshal(text, &h)
	if err == nil && h.Key != k.id && h.Key != "" {
		return nil, fmt.Errorf("%w (%s, not %s)", errOtherKey, visible(cutTo(h.Key, 32)), k.id)
	}
	if !hmac.Equal(seal, sealHeads(text, k)) || err != nil {
		return nil, errHeads
	}
	for _, c := range h.Chains {
		if len(c.Files) == 0 {
			return nil, errHeads
		}
		for _, f := range c.Files {
			if filepath.Base(f.Name) != f.Name || chainOf(f.Name) != c.Chain {
				return nil, errHeads
			}
		}
	}
	return &h, nil
}

func sealHeads(text []byte, k key) []byte {
	m := hmac.New(sha256.New, k.heads)
	m.Write(text)
	return append(hex.AppendEncode(nil, m.Sum(nil)), '\n')
}

// writeHeads replaces the checkpoint. What it says must be on the disk
// already.
func writeHeads(dir string, k key, h *heads) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	b := append(append(text, '\n'), sealHeads(text, k)...)
	path := filepath.Join(dir, folder, headsName)
	tmp := path + ".tmp" // one at a time: the lock is held
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp) // it may hold the space that is missing
	}
	return err
}

// lockHeads makes this the only process that changes the checkpoint. Another
// one that hangs while it holds the lock makes an error, not a wait for ever.
func lockHeads(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, folder, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(3 * time.Second)
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(deadline) {
			_ = f.Close()
			return nil, fmt.Errorf("%s: cannot be locked: %w", lockName, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Names of chain files: "events-20261127T101124Z-k3x9ab.000001.jsonl", of
// which the part before the number is the chain's name.
const (
	filePrefix = "events-"
	fileSuffix = ".jsonl"
)

func fileName(chain string, n int) string { return fmt.Sprintf("%s.%06d%s", chain, n, fileSuffix) }

// chainOf returns the chain that a file belongs to, or "" if it is none's.
func chainOf(name string) string {
	rest, ok := strings.CutSuffix(name, fileSuffix)
	if !ok || !strings.HasPrefix(name, filePrefix) {
		return ""
	}
	i := strings.LastIndexByte(rest, '.')
	if i < 0 {
		return ""
	}
	return rest[:i]
}

// chainFiles lists the chain files in the log's folder, by name: the files
// of one chain follow each other, chains are in the order of their start.
func chainFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, folder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && chainOf(e.Name()) != "" {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
