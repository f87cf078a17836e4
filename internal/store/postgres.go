package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

const (
	// schema keeps our tables apart from those of a backend in the same database.
	schema = "merlon"
	// migrationLock is any number that nobody else in the database is likely to lock.
	migrationLock = 0x6d65726c6f6e // "merlon"
	dialFor       = 10 * time.Second
)

// openPostgres connects to a server.
func openPostgres(ctx context.Context, text string) (_ *DB, err error) {
	c, place, err := postgresConfig(text)
	if err != nil {
		return nil, err
	}
	own := c.RuntimeParams["search_path"] == ""
	if own {
		c.RuntimeParams["search_path"] = schema
	}
	pool := stdlib.OpenDB(*c)
	defer func() {
		if err != nil {
			_ = pool.Close()
			err = fmt.Errorf("PostgreSQL at %s: %w", place, oneLine{err})
		}
	}()
	conns := max(8, 4*runtime.GOMAXPROCS(0))
	pool.SetMaxOpenConns(conns)
	pool.SetMaxIdleConns(conns)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	pool.SetConnMaxLifetime(time.Hour) // so that a server behind a name can be replaced
	if err := pool.PingContext(ctx); err != nil {
		return nil, err
	}
	db := &DB{read: pool, write: pool, postgres: true, place: place, now: time.Now}
	// A lock of a transaction, not of a session, also holds behind a pooler.
	// Other connections make the migrations meanwhile.
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock("+strconv.Itoa(migrationLock)+")"); err != nil {
		return nil, err
	}
	if own {
		if err := makeSchema(ctx, pool); err != nil {
			return nil, err
		}
	}
	if err := db.migrate(ctx, goose.DialectPostgres, "postgres"); err != nil {
		return nil, err
	}
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	return db, nil
}

// oneLine is an error whose text is one line: the client lists every address
// that it has tried on a line of its own.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }

// Unwrap returns the error.
func (e oneLine) Unwrap() error { return e.error }

// postgresConfig reads the URL. Errors do not repeat it, since there is a
// password in it.
func postgresConfig(text string) (c *pgx.ConnConfig, place string, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, "", errors.New("the URL must have the form postgres://user:password@host:port/database")
	}
	q := u.Query()
	// The client's own default, "prefer", takes clear text from anybody who
	// answers in the server's place.
	if !q.Has("sslmode") && os.Getenv("PGSSLMODE") == "" && !local(u.Hostname(), q.Get("host")) {
		q.Set("sslmode", "verify-full")
		u.RawQuery = q.Encode()
	}
	c, err = pgx.ParseConfig(u.String())
	if err != nil {
		return nil, "", errors.New("the URL must have the form postgres://user:password@host:port/database?sslmode=verify-full " +
			"with settings that PostgreSQL knows, and files that it names must exist")
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = dialFor
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "merlon"
	}
	place = c.Host + "/" + c.Database
	if !strings.HasPrefix(c.Host, "/") {
		place = net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) + "/" + c.Database
	}
	return c, place, nil
}

// local reports whether what is sent there stays on this machine.
func local(hosts ...string) bool {
	named := false
	for _, list := range hosts {
		for host := range strings.SplitSeq(list, ",") {
			if host == "" {
				continue
			}
			named = true
			if host != "localhost" && !strings.HasPrefix(host, "/") && !net.ParseIP(host).IsLoopback() {
				return false
			}
		}
	}
	return named || os.Getenv("PGHOST") == ""
}

// makeSchema makes the place of our tables. The role may use one that was
// made for it without being allowed to make any.
func makeSchema(ctx context.Context, pool *sql.DB) error {
	var there bool
	err := pool.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema).Scan(&there)
	if err != nil || there {
		return err
	}
	_, err = pool.ExecContext(ctx, "CREATE SCHEMA "+schema)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42501" {
		return fmt.Errorf("%w; let an administrator of the database run: CREATE SCHEMA %s AUTHORIZATION the_role_in_the_url", err, schema)
	}
	return err
}
