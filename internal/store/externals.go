package store

import (
	"context"

	"github.com/merlon-dev/merlon/identity/account"
)

const externalColumns = "issuer, subject, account, created"

func scanExternal(row scanner) (account.External, error) {
	var e account.External
	if err := row.Scan(&e.Issuer, &e.Subject, &e.Account, nanos{&e.Created}); err != nil {
		return account.External{}, told(err)
	}
	return e, nil
}

// AddExternal links a provider's account. Linking it once more to the same
// account changes nothing.
func (s *Accounts) AddExternal(ctx context.Context, e account.External) error {
	n, err := s.db.exec(ctx, "INSERT INTO externals ("+externalColumns+") VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
		e.Issuer, e.Subject, e.Account, at(e.Created))
	if err != nil || n == 1 {
		return told(err)
	}
	if is, err := s.External(ctx, e.Issuer, e.Subject); err != nil || is.Account == e.Account {
		return err
	}
	return account.ErrTaken
}

// External returns the account behind a provider's.
func (s *Accounts) External(ctx context.Context, issuer, subject string) (account.External, error) {
	return scanExternal(s.db.row(ctx, "SELECT "+externalColumns+" FROM externals WHERE issuer = ? AND subject = ?", issuer, subject))
}

// Externals returns an account's provider accounts.
func (s *Accounts) Externals(ctx context.Context, of string) ([]account.External, error) {
	rows, err := s.db.rows(ctx, "SELECT "+externalColumns+" FROM externals WHERE account = ? ORDER BY issuer, subject", of)
	return all(rows, err, scanExternal)
}

// RemoveExternal unlinks one.
func (s *Accounts) RemoveExternal(ctx context.Context, of, issuer, subject string) error {
	return gone(s.db.exec(ctx, "DELETE FROM externals WHERE account = ? AND issuer = ? AND subject = ?", of, issuer, subject))
}
