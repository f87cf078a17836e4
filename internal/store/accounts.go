package store

import (
	"context"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/identity/account"
)

// Accounts is the [account.Store] of a database.
type Accounts struct{ db *DB }

var _ account.Store = (*Accounts)(nil)

// Accounts returns the accounts of the database.
func (db *DB) Accounts() *Accounts { return &Accounts{db} }

const accountColumns = "id, name, display, email, email_verified, group_names, role_names, " +
	"password, password_since, must_change, created, disabled, valid_from, enrol_by"

func scanAccount(row scanner) (account.Account, error) {
	var a account.Account
	err := row.Scan(&a.ID, &a.Name, &a.Display, &a.Email, &a.EmailVerified, texts{&a.Groups}, texts{&a.Roles},
		&a.Password, nanos{&a.PasswordSince}, &a.MustChange, nanos{&a.Created}, &a.Disabled, nanos{&a.ValidFrom}, nanos{&a.EnrolBy})
	if err != nil {
		return account.Account{}, told(err)
	}
	return a, nil
}

// accountValues are what accountColumns and search are set to.
func accountValues(a account.Account) []any {
	return []any{
		a.ID, a.Name, clean(a.Display), a.Email, a.EmailVerified && a.Email != "", sorted(a.Groups), sorted(a.Roles),
		a.Password, at(a.PasswordSince), a.MustChange, at(a.Created), a.Disabled, at(a.ValidFrom), at(a.EnrolBy),
		strings.ToLower(a.Name + "\n" + clean(a.Display) + "\n" + a.Email),
	}
}

func sorted(list []string) texts {
	list = slices.Compact(slices.Sorted(slices.Values(list)))
	return texts{&list}
}

const insertAccount = "INSERT INTO accounts (" + accountColumns + ", search) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

// Create adds an account.
func (s *Accounts) Create(ctx context.Context, a account.Account) error {
	_, err := s.db.exec(ctx, insertAccount, accountValues(a)...)
	return told(err)
}

// First adds the first account.
func (s *Accounts) First(ctx context.Context, a account.Account) error {
	err := s.db.within(ctx, func(t tx) error {
		if s.db.postgres {
			// Two that both see no account would both add theirs.
			if _, err := t.exec(ctx, "LOCK TABLE accounts IN SHARE ROW EXCLUSIVE MODE"); err != nil {
				return err
			}
		}
		var any bool
		if err := t.row(ctx, "SELECT EXISTS (SELECT 1 FROM accounts)").Scan(&any); err != nil {
			return err
		}
		if any {
			return account.ErrTaken
		}
		_, err := t.exec(ctx, insertAccount, accountValues(a)...)
		return err
	})
	return told(err)
}

// Account returns the account with an id.
func (s *Accounts) Account(ctx context.Context, id string) (account.Account, error) {
	return scanAccount(s.db.row(ctx, "SELECT "+accountColumns+" FROM accounts WHERE id = ?", id))
}

// ByName returns the account with a folded log-in name.
func (s *Accounts) ByName(ctx context.Context, name string) (account.Account, error) {
	return scanAccount(s.db.row(ctx, "SELECT "+accountColumns+" FROM accounts WHERE name = ?", name))
}

// ByEmail returns the account with a folded and verified address.
func (s *Accounts) ByEmail(ctx context.Context, email string) (account.Account, error) {
	return scanAccount(s.db.row(ctx, "SELECT "+accountColumns+" FROM accounts WHERE email_verified AND email = ?", email))
}

// Accounts returns accounts sorted by name.
func (s *Accounts) Accounts(ctx context.Context, filter, after string, limit int) ([]account.Account, error) {
	if limit <= 0 {
		return nil, nil
	}
	where, args := "name > ?", []any{after}
	if filter != "" {
		where += ` AND search LIKE ? ESCAPE '\'`
		args = append(args, "%"+strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(strings.ToLower(clean(filter)))+"%")
	}
	rows, err := s.db.rows(ctx, "SELECT "+accountColumns+" FROM accounts WHERE "+where+" ORDER BY name LIMIT ?", append(args, limit)...)
	return all(rows, err, scanAccount)
}

// Update changes an account. The change must not use the store: it holds the
// account, and with SQLite the whole database, until it is done.
func (s *Accounts) Update(ctx context.Context, id string, change func(*account.Account) error) (account.Account, error) {
	var a account.Account
	err := s.db.within(ctx, func(t tx) error {
		var err error
		a, err = scanAccount(t.row(ctx, "SELECT "+accountColumns+" FROM accounts WHERE id = ?"+t.forUpdate(), id))
		if err != nil {
			return err
		}
		from, created := a.ValidFrom, a.Created
		if err := change(&a); err != nil {
			return err
		}
		a.ID, a.Created = id, created
		if a.ValidFrom.Before(from) { // a clock that was set back must not bring ended sessions to life
			a.ValidFrom = from
		}
		_, err = t.exec(ctx, "UPDATE accounts SET id = ?, name = ?, display = ?, email = ?, email_verified = ?, group_names = ?, "+
			"role_names = ?, password = ?, password_since = ?, must_change = ?, created = ?, disabled = ?, valid_from = ?, "+
			"enrol_by = ?, search = ? WHERE id = ?", append(accountValues(a), id)...)
		return told(err)
	})
	if err != nil {
		return account.Account{}, err
	}
	return a, nil
}

// Delete removes an account and everything that belongs to it.
func (s *Accounts) Delete(ctx context.Context, id string) error {
	return s.db.within(ctx, func(t tx) error {
		for _, q := range belongings {
			if _, err := t.exec(ctx, q, id); err != nil {
				return told(err)
			}
		}
		return gone(t.exec(ctx, "DELETE FROM accounts WHERE id = ?", id)) // the rest by its foreign keys
	})
}

// belongings is what else ends with an account. These tables do not refer to
// accounts, so that they can also be about somebody who has none here.
var belongings = []string{
	"DELETE FROM sessions WHERE account = ?",
	"DELETE FROM token_families WHERE subject = ?",
	"DELETE FROM grants WHERE subject = ?",
	"DELETE FROM consents WHERE subject = ?",
}
