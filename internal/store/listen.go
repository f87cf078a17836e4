package store

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5/stdlib"
)

// The channels on which replicas tell each other what has ended. Nobody
// relies on being told: a pooler between may swallow it.
const (
	endedChannel   = "merlon_sessions"
	revokedChannel = "merlon_revoked"
)

// notify tells the replicas something once the transaction is committed.
// PostgreSQL takes 8000 bytes at most.
func (t tx) notify(ctx context.Context, channel, text string) error {
	if !t.db.postgres {
		return nil
	}
	_, err := t.exec(ctx, "SELECT pg_notify(?, ?)", channel, text)
	return err
}

// listen calls heard with what replicas tell, from when it calls ready until
// ctx is done or the connection is lost. With SQLite it only waits: there
// other processes are command lines, which say nothing.
func (db *DB) listen(ctx context.Context, channel string, ready func(), heard func(text string)) error {
	if !db.postgres {
		ready()
		<-ctx.Done()
		return ctx.Err()
	}
	conn, err := db.read.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	var ended error
	err = conn.Raw(func(c any) error {
		pg, ok := c.(*stdlib.Conn)
		if !ok {
			ended = errors.New("store: not a connection of PostgreSQL")
			return driver.ErrBadConn
		}
		if _, ended = pg.Conn().Exec(ctx, "LISTEN "+channel); ended == nil {
			ready()
		}
		for ended == nil {
			n, err := pg.Conn().WaitForNotification(ctx)
			if ended = err; err == nil {
				heard(n.Payload)
			}
		}
		return driver.ErrBadConn // one that listens does not go back to the pool
	})
	return errors.Join(ended, ctx.Err(), onlyOther(err))
}

// onlyOther drops the error by which a connection was taken out of the pool.
func onlyOther(err error) error {
	if errors.Is(err, driver.ErrBadConn) {
		return nil
	}
	return err
}
