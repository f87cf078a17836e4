package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/merlon-dev/merlon/identity/account"
)

// bind writes the marks of a query as the database wants them: SQLite ?, and
// PostgreSQL $1. No query has a question mark in it otherwise.
func (db *DB) bind(query string) string {
	if !db.postgres {
		return query
	}
	var b strings.Builder
	b.Grow(len(query) + 16)
	n := 0
	for {
		before, after, ok := strings.Cut(query, "?")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		n++
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(n))
		query = after
	}
}

// A scanner is a row.
type scanner interface{ Scan(to ...any) error }

// row reads one row outside a transaction.
func (db *DB) row(ctx context.Context, query string, args ...any) scanner {
	stmt, err := db.stmt(ctx, query)
	switch {
	case err != nil:
		return failed{err}
	case stmt != nil:
		return stmt.QueryRowContext(ctx, args...)
	}
	return db.read.QueryRowContext(ctx, db.bind(query), args...)
}

// rows reads several rows outside a transaction.
func (db *DB) rows(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	stmt, err := db.stmt(ctx, query)
	switch {
	case err != nil:
		return nil, err
	case stmt != nil:
		return stmt.QueryContext(ctx, args...)
	}
	return db.read.QueryContext(ctx, db.bind(query), args...)
}

// stmt returns a prepared statement that reads from SQLite: parsing costs it
// more than a look-up. PostgreSQL's client prepares by itself (nil).
func (db *DB) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if db.postgres {
		return nil, nil
	}
	if s, ok := db.stmts.Load(query); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := db.read.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if other, loaded := db.stmts.LoadOrStore(query, s); loaded {
		_ = s.Close()
		return other.(*sql.Stmt), nil
	}
	return s, nil
}

type failed struct{ err error }

func (f failed) Scan(...any) error { return f.err }

// exec changes something in a transaction of its own and returns how many rows
// that were.
func (db *DB) exec(ctx context.Context, query string, args ...any) (int64, error) {
	return affected(db.write.ExecContext(ctx, db.bind(query), args...))
}

// take changes one row in a transaction of its own and reads it (RETURNING).
func (db *DB) take(ctx context.Context, query string, args ...any) scanner {
	return db.write.QueryRowContext(ctx, db.bind(query), args...)
}

func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// A tx is a transaction.
type tx struct {
	db *DB
	tx *sql.Tx
}

func (t tx) exec(ctx context.Context, query string, args ...any) (int64, error) {
	return affected(t.tx.ExecContext(ctx, t.db.bind(query), args...))
}

func (t tx) rows(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return t.tx.QueryContext(ctx, t.db.bind(query), args...)
}

// alone makes the others wait that ask for the same name, until the
// transaction ends. In SQLite it is alone anyway.
func (t tx) alone(ctx context.Context, name string) error {
	if !t.db.postgres {
		return nil
	}
	_, err := t.exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", "merlon "+name)
	return err
}

func (t tx) row(ctx context.Context, query string, args ...any) scanner {
	return t.tx.QueryRowContext(ctx, t.db.bind(query), args...)
}

// forUpdate ends a query whose rows nobody else may change before the
// transaction ends. In SQLite a transaction is alone anyway.
func (t tx) forUpdate() string {
	if t.db.postgres {
		return " FOR UPDATE"
	}
	return ""
}

// tries is how often a transaction is made that others are in the way of.
const tries = 5

// within runs do in a transaction, again if PostgreSQL asks for that.
func (db *DB) within(ctx context.Context, do func(tx) error) error {
	for n := 1; ; n++ {
		err := db.once(ctx, do)
		pg, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || pg.Code != "40001" && pg.Code != "40P01" || n == tries { // serialization failure, deadlock
			return err
		}
	}
}

func (db *DB) once(ctx context.Context, do func(tx) error) error {
	t, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = t.Rollback() }() // does nothing after a commit
	if err := do(tx{db, t}); err != nil {
		return err
	}
	return t.Commit()
}

// words are what a package calls the answers of a database.
type words struct{ notFound, taken error }

var accountWords = words{account.ErrNotFound, account.ErrTaken}

// told gives an error of the database the words of package account, if it has
// any for it.
func told(err error) error {
	if errors.Is(err, account.ErrNotFound) || errors.Is(err, account.ErrTaken) || errors.Is(err, account.ErrUsed) {
		return err
	}
	return accountWords.tell(err)
}

// tell gives an error of the database a package's words.
func (w words) tell(err error) error {
	if err == nil {
		return nil
	}
	unique, foreign := false, false
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		unique, foreign = pg.Code == "23505", pg.Code == "23503"
	}
	if lite, ok := errors.AsType[*sqlite.Error](err); ok {
		c := lite.Code()
		unique = c == sqlite3.SQLITE_CONSTRAINT_UNIQUE || c == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
		foreign = c == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
	}
	switch {
	case errors.Is(err, sql.ErrNoRows), foreign: // what it refers to is gone
		return w.notFound
	case unique && w.taken != nil:
		return w.taken
	case errors.Is(err, w.notFound):
		return err
	}
	return fmt.Errorf("store: %w", err)
}

// gone turns "no row" into ErrNotFound.
func gone(n int64, err error) error {
	if err == nil && n == 0 {
		return account.ErrNotFound
	}
	return told(err)
}

// all reads every row.
func all[T any](rows *sql.Rows, err error, scan func(scanner) (T, error)) ([]T, error) {
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return list, nil
}

// A nanos is a time as it is stored: nanoseconds since 1970, 0 for none.
type nanos struct{ t *time.Time }

// at is a time to be stored.
func at(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Scan reads a stored time.
func (n nanos) Scan(v any) error {
	i, ok := v.(int64)
	if !ok {
		return fmt.Errorf("a time is a %T", v)
	}
	*n.t = time.Time{}
	if i != 0 {
		*n.t = time.Unix(0, i).UTC()
	}
	return nil
}

// texts are stored as a JSON array. An empty list comes back as nil.
type texts struct{ list *[]string }

// Scan reads a stored list.
func (t texts) Scan(v any) error {
	var b []byte
	switch v := v.(type) {
	case string:
		b = []byte(v)
	case []byte:
		b = v
	default:
		return fmt.Errorf("a list is a %T", v)
	}
	*t.list = nil
	if string(b) == "[]" {
		return nil
	}
	return json.Unmarshal(b, t.list)
}

// Value writes it.
func (t texts) Value() (driver.Value, error) {
	if len(*t.list) == 0 {
		return "[]", nil
	}
	b, err := json.Marshal(*t.list)
	return string(b), err
}

// An address is stored as text, none as an empty one.
type address struct{ a *netip.Addr }

// Scan reads a stored address.
func (a address) Scan(v any) error {
	s, ok := v.(string)
	*a.a = netip.Addr{}
	if !ok || s == "" {
		return nil
	}
	return a.a.UnmarshalText([]byte(s))
}

// Value writes it.
func (a address) Value() (driver.Value, error) {
	if !a.a.IsValid() {
		return "", nil
	}
	return a.a.String(), nil
}

// orNull is nil for the empty text.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// blob is never NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// clean makes people's own words storable: PostgreSQL takes neither what is
// no UTF-8 nor NUL.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}
