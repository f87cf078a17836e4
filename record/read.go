package record

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
)

// ErrUnfinished is the error of a segment that ends in the middle: it is still
// being written, or its writer crashed. What came before has been read.
var ErrUnfinished = errors.New("ends early, as it is still being written or its writer crashed")

// An Identity is what recorded traffic is decrypted with.
type Identity = age.Identity

// Read reads the traffic recorded in dir since a time, the oldest first. An
// error is about one segment; those after it are read all the same.
func Read(dir string, since time.Time, ids ...Identity) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		files, err := segments(dir)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for _, f := range files {
			if f.ModTime().Before(since) {
				continue
			}
			name := filepath.Join(dir, f.Name())
			if f.Size() == 0 { // just begun
				if !yield(Entry{}, fmt.Errorf("%s: %w", name, ErrUnfinished)) {
					return
				}
				continue
			}
			for e, err := range readSegment(name, ids) {
				if err == nil && e.Time.Before(since) {
					continue
				}
				if err != nil {
					err = fmt.Errorf("%s: %w", name, err)
				}
				if !yield(e, err) {
					return
				}
			}
		}
	}
}

const readAhead = 128 << 10

func readSegment(name string, ids []Identity) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		f, err := os.Open(name)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		defer f.Close()
		var r *bufio.Reader
		plain, err := age.Decrypt(bufio.NewReaderSize(f, readAhead), ids...)
		if err == nil {
			r = bufio.NewReaderSize(plain, readAhead)
		}
		for err == nil {
			var e Entry
			if e, err = readEntry(r); err == nil && !yield(e, nil) {
				return
			}
		}
		var wrong *age.NoIdentityMatchError
		switch {
		case err == io.EOF && r != nil:
			return
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			err = ErrUnfinished
		case errors.As(err, &wrong):
			err = errors.New("was recorded for another key")
		}
		yield(Entry{}, err)
	}
}

// ReadIdentity reads the secret keys in a file, one a line.
func ReadIdentity(path string) ([]Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: must be readable by its owner only (chmod 600)", path)
	}
	ids, err := age.ParseIdentities(bufio.NewReader(f))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ids, nil
}

// MakeKey writes a new secret key to a file that must not exist, and returns
// the public one.
func MakeKey(path string) (recipient string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	recipient = id.Recipient().String()
	_, err = fmt.Fprintf(f, "# public key: %s\n%s\n", recipient, id)
	return recipient, errors.Join(err, f.Sync(), f.Close())
}
