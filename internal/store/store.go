// Package store remembers accounts, sessions, keys and grants in SQLite or
// PostgreSQL, behind the Store interfaces of the packages that use them.
//
// It promises that what those interfaces call one step is one step for every
// process that shares the database, and that what was answered survives a
// power failure. It checks no password and holds no secret in clear that can
// be random and hashed; the database must still be kept as secret as a list of
// password hashes is.
package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/merlon-dev/merlon/secrets"
)

// FileName is the SQLite database's name in the data folder.
const FileName = "identity.db"

// Config says where the database is.
type Config struct {
	// URL is that of a PostgreSQL database, such as
	// postgres://merlon:secret@db.internal/merlon; a host that is not this
	// machine is asked for a certificate that is valid for its name, unless
	// the URL sets sslmode. Without a URL there is a SQLite database in Dir.
	URL secrets.Secret
	// Dir is the data folder.
	Dir string
}

// A DB is an open database. Its methods are for many goroutines at once.
type DB struct {
	read, write *sql.DB // one and the same for PostgreSQL
	postgres    bool
	place       string // the file, or the server without its password
	stmts       sync.Map
	now         func() time.Time
}

// Open opens the database, makes it if there is none, and brings its tables up
// to date. Several processes may do so at once. One that a newer Merlon has
// changed is refused.
func Open(ctx context.Context, c Config) (*DB, error) {
	url := c.URL.Reveal()
	var db *DB
	var err error
	switch {
	case url == "" && c.Dir == "":
		return nil, errors.New("neither a URL nor a data folder is given")
	case url == "":
		db, err = openSQLite(ctx, c.Dir)
	case isPostgres(url):
		db, err = openPostgres(ctx, url)
	default:
		err = errors.New(noPostgres)
	}
	return db, err
}

// Check says what of a URL, or of the files that it names, is wrong. It connects
// to nothing.
func Check(c Config) error {
	url := c.URL.Reveal()
	if url == "" {
		return nil
	}
	if !isPostgres(url) {
		return errors.New(noPostgres)
	}
	_, _, err := postgresConfig(url)
	return err
}

const noPostgres = "the URL must begin with postgres://; without one SQLite is used"

func isPostgres(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

// Close closes the database.
func (db *DB) Close() error {
	db.stmts.Range(func(_, s any) bool {
		_ = s.(*sql.Stmt).Close() // the connections end with it
		return true
	})
	if db.postgres {
		return db.write.Close()
	}
	// The writer last, so that it can put the journal into the file.
	return errors.Join(db.read.Close(), db.write.Close())
}

// Ping reports whether the database answers.
func (db *DB) Ping(ctx context.Context) error { return db.read.PingContext(ctx) }

// Place says where the database is, for people.
func (db *DB) Place() string { return db.place }
