package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
)

const linkColumns = "hash, purpose, account, data, expires"

func scanLink(row scanner) (account.Link, error) {
	var l account.Link
	var of sql.NullString
	if err := row.Scan(&l.Hash, &l.Purpose, &of, &l.Data, nanos{&l.Expires}); err != nil {
		return account.Link{}, told(err)
	}
	l.Account = of.String
	return l, nil
}

// AddLink adds a one-time link and removes what has expired.
func (s *Accounts) AddLink(ctx context.Context, l account.Link) error {
	err := s.db.within(ctx, func(t tx) error {
		if _, err := t.exec(ctx, "DELETE FROM links WHERE expires <= ?", at(s.db.now())); err != nil {
			return err
		}
		_, err := t.exec(ctx, "INSERT INTO links ("+linkColumns+") VALUES (?, ?, ?, ?, ?)",
			blob(l.Hash), l.Purpose, orNull(l.Account), l.Data, at(l.Expires))
		return err
	})
	return told(err)
}

const thatLink = " WHERE hash = ? AND purpose = ? AND expires > ?"

// Link returns a link that holds at the time.
func (s *Accounts) Link(ctx context.Context, purpose string, hash []byte, now time.Time) (account.Link, error) {
	return scanLink(s.db.row(ctx, "SELECT "+linkColumns+" FROM links"+thatLink, blob(hash), purpose, at(now)))
}

// TakeLink removes a link and returns it.
func (s *Accounts) TakeLink(ctx context.Context, purpose string, hash []byte, now time.Time) (account.Link, error) {
	return scanLink(s.db.take(ctx, "DELETE FROM links"+thatLink+" RETURNING "+linkColumns, blob(hash), purpose, at(now)))
}

// DropLinks removes every link of an account for a purpose.
func (s *Accounts) DropLinks(ctx context.Context, of, purpose string) error {
	_, err := s.db.exec(ctx, "DELETE FROM links WHERE account = ? AND purpose = ?", of, purpose)
	return told(err)
}
