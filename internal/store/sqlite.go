package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver
)

// busyFor is how long a write waits for another process's.
const busyFor = 10 * time.Second

// openSQLite opens the file in the data folder.
//
// There is one connection that writes, since SQLite has one writer at a time
// and a queue in Go is fairer than one of retries, and several that read: with
// a write-ahead log they wait for nobody. Every commit reaches the disk
// (synchronous=FULL): a recovery code that was used, or an account that was
// disabled, must not be so no longer after a power failure, and a log-in costs
// a hundred times more than that wait.
func openSQLite(ctx context.Context, dir string) (_ *DB, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(filepath.Join(dir, FileName))
	if err != nil {
		return nil, err
	}
	if err := ownFile(path); err != nil {
		return nil, err
	}
	dsn := func(more ...string) string {
		q := url.Values{"_pragma": append([]string{
			fmt.Sprintf("busy_timeout(%d)", busyFor.Milliseconds()), "foreign_keys(1)", "temp_store(memory)",
		}, more...), "_txlock": {"immediate"}}
		return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
	}
	db := &DB{place: path, now: time.Now}
	defer func() {
		if err != nil && db.write != nil {
			_ = db.write.Close()
		}
	}()
	db.write, err = sql.Open("sqlite", dsn("journal_mode(wal)", "synchronous(full)", "secure_delete(fast)", "journal_size_limit(67108864)"))
	if err != nil {
		return nil, err
	}
	db.write.SetMaxOpenConns(1)
	unlock, err := lockFile(ctx, path+".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := db.migrate(ctx, goose.DialectSQLite3, "sqlite"); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	db.read, err = sql.Open("sqlite", dsn("query_only(1)"))
	if err != nil {
		return nil, err
	}
	readers := max(4, 2*runtime.GOMAXPROCS(0))
	db.read.SetMaxOpenConns(readers)
	db.read.SetMaxIdleConns(readers)
	return db, nil
}

// ownFile makes the file, for its owner only; SQLite gives the files beside it
// the same mode.
func ownFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return f.Chmod(0o600)
	}
	return nil
}

// lockFile makes this the only process that changes tables: SQLite's own lock
// is not held from one migration to the next.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(time.Minute); ; {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(end) {
			_ = f.Close()
			return nil, fmt.Errorf("%s: cannot be locked: %w", path, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
