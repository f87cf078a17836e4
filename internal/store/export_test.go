package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// SetNow gives the database a clock.
func (db *DB) SetNow(now func() time.Time) { db.now = now }

// Exec runs anything.
func (db *DB) Exec(ctx context.Context, query string) error {
	_, err := db.write.ExecContext(ctx, query)
	return err
}

// Row reads anything.
func (db *DB) Row(ctx context.Context, query string) *sql.Row {
	return db.write.QueryRowContext(ctx, query)
}

// Rows reads anything.
func (db *DB) Rows(ctx context.Context, query string) (*sql.Rows, error) {
	return db.write.QueryContext(ctx, query)
}

// Verified reports whether a server behind the URL must show a certificate
// that is valid for its name.
func Verified(url string) (bool, error) {
	c, _, err := postgresConfig(url)
	if err != nil {
		return false, err
	}
	verified := c.TLSConfig != nil && !c.TLSConfig.InsecureSkipVerify && c.TLSConfig.ServerName != ""
	for _, f := range c.Fallbacks {
		verified = verified && f.TLSConfig != nil && !f.TLSConfig.InsecureSkipVerify
	}
	return verified, nil
}

// Warm opens connections, so that a race is not one for the first of them.
func (db *DB) Warm(ctx context.Context) error {
	errs := make(chan error)
	const conns = 8
	for range conns {
		go func() {
			c, err := db.read.Conn(ctx)
			if err == nil {
				time.Sleep(20 * time.Millisecond)
				err = c.Close()
			}
			errs <- err
		}()
	}
	var err error
	for range conns {
		err = errors.Join(err, <-errs)
	}
	return err
}
