package store

import (
	"context"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
)

const factorColumns = "id, account, kind, name, data, counter, created, used"

func scanFactor(row scanner) (account.Factor, error) {
	var f account.Factor
	err := row.Scan(&f.ID, &f.Account, &f.Kind, &f.Name, &f.Data, &f.Counter, nanos{&f.Created}, nanos{&f.Used})
	if err != nil {
		return account.Factor{}, told(err)
	}
	return f, nil
}

func factorValues(f account.Factor) []any {
	return []any{f.ID, f.Account, f.Kind, clean(f.Name), blob(f.Data), f.Counter, at(f.Created), at(f.Used)}
}

const insertFactor = "INSERT INTO factors (" + factorColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

// AddFactor adds a factor.
func (s *Accounts) AddFactor(ctx context.Context, f account.Factor) error {
	_, err := s.db.exec(ctx, insertFactor, factorValues(f)...)
	return told(err)
}

// Factors returns an account's factors, the oldest first.
func (s *Accounts) Factors(ctx context.Context, of string) ([]account.Factor, error) {
	rows, err := s.db.rows(ctx, "SELECT "+factorColumns+" FROM factors WHERE account = ? ORDER BY created, id", of)
	return all(rows, err, scanFactor)
}

// Factor returns one factor.
func (s *Accounts) Factor(ctx context.Context, id string) (account.Factor, error) {
	return scanFactor(s.db.row(ctx, "SELECT "+factorColumns+" FROM factors WHERE id = ?", id))
}

// UseFactor moves a factor's counter on.
func (s *Accounts) UseFactor(ctx context.Context, id string, before, counter int64, data []byte, now time.Time) error {
	// One statement that names the counter it knows: of two that come at once
	// the second finds another (trap 46).
	set, args := "counter = ?, used = ?", []any{counter, at(now)}
	if data != nil {
		set, args = set+", data = ?", append(args, data)
	}
	n, err := s.db.exec(ctx, "UPDATE factors SET "+set+" WHERE id = ? AND counter = ?", append(args, id, before)...)
	if err != nil || n == 1 {
		return told(err)
	}
	if _, err := s.Factor(ctx, id); err != nil {
		return err
	}
	return account.ErrUsed
}

// RemoveFactor removes a factor of the account.
func (s *Accounts) RemoveFactor(ctx context.Context, of, id string) error {
	return gone(s.db.exec(ctx, "DELETE FROM factors WHERE account = ? AND id = ?", of, id))
}

// ReplaceFactors removes the account's factors of a kind and adds others.
func (s *Accounts) ReplaceFactors(ctx context.Context, of, kind string, with []account.Factor) error {
	err := s.db.within(ctx, func(t tx) error {
		// Two sets that are made at once must not be left both.
		var id string
		if err := t.row(ctx, "SELECT id FROM accounts WHERE id = ?"+t.forUpdate(), of).Scan(&id); err != nil {
			return err
		}
		if _, err := t.exec(ctx, "DELETE FROM factors WHERE account = ? AND kind = ?", of, kind); err != nil {
			return err
		}
		for _, f := range with {
			f.Account, f.Kind = of, kind
			if _, err := t.exec(ctx, insertFactor, factorValues(f)...); err != nil {
				return err
			}
		}
		return nil
	})
	return told(err)
}
