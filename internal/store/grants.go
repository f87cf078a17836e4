package store

import (
	"context"
	"errors"
	"time"

	"github.com/merlon-dev/merlon/identity/provider"
)

// Grants is the [provider.Store] of a database.
type Grants struct{ db *DB }

var _ provider.Store = (*Grants)(nil)

// Grants returns what people have allowed clients, with codes and refresh
// tokens.
func (db *DB) Grants() *Grants { return &Grants{db} }

// grantTold gives an error the words of package provider.
func grantTold(err error) error {
	if errors.Is(err, provider.ErrUsed) {
		return err
	}
	return words{notFound: provider.ErrNotFound}.tell(err)
}

const grantColumns = "id, client, subject, session, scopes, offline, methods, auth_time, created, expires"

func scanGrant(row scanner) (provider.Grant, error) {
	var g provider.Grant
	err := row.Scan(&g.ID, &g.Client, &g.Subject, &g.Session, texts{&g.Scopes}, &g.Offline, texts{&g.Methods},
		nanos{&g.AuthTime}, nanos{&g.Created}, nanos{&g.Expires})
	if err != nil {
		return provider.Grant{}, grantTold(err)
	}
	return g, nil
}

const codeColumns = "hash, grant_id, client, redirect, challenge, nonce, expires"

func scanCode(row scanner) (provider.Code, error) {
	var c provider.Code
	err := row.Scan(&c.Hash, &c.Grant, &c.Client, &c.Redirect, &c.Challenge, &c.Nonce, nanos{&c.Expires})
	if err != nil {
		return provider.Code{}, grantTold(err)
	}
	return c, nil
}

// unspent are the grants whose code nobody has fetched in its minute. Nothing
// can come of them any more, and each visit to the authorization endpoint
// makes one.
const unspent = "(SELECT grant_id FROM grant_codes WHERE NOT spent AND expires <= ?)"

// AddGrant adds a grant with its code, and forgets what has expired.
func (s *Grants) AddGrant(ctx context.Context, g provider.Grant, c *provider.Code) error {
	err := s.db.within(ctx, func(t tx) error {
		if _, err := t.exec(ctx, "DELETE FROM grants WHERE expires <= ?", at(g.Created)); err != nil {
			return err
		}
		if _, err := t.exec(ctx, "DELETE FROM grants WHERE id IN "+unspent, at(g.Created)); err != nil {
			return err
		}
		_, err := t.exec(ctx, "INSERT INTO grants ("+grantColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			g.ID, g.Client, g.Subject, g.Session, texts{&g.Scopes}, g.Offline, texts{&g.Methods}, at(g.AuthTime), at(g.Created), at(g.Expires))
		if err != nil || c == nil {
			return err
		}
		_, err = t.exec(ctx, "INSERT INTO grant_codes ("+codeColumns+", spent) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			blob(c.Hash), c.Grant, c.Client, c.Redirect, c.Challenge, c.Nonce, at(c.Expires), false)
		return err
	})
	return grantTold(err)
}

// Grant returns a grant that holds at the time.
func (s *Grants) Grant(ctx context.Context, id string, now time.Time) (provider.Grant, error) {
	return scanGrant(s.db.row(ctx, "SELECT "+grantColumns+" FROM grants WHERE id = ? AND expires > ?", id, at(now)))
}

// Grants returns a subject's grants that hold at the time.
func (s *Grants) Grants(ctx context.Context, subject string, now time.Time) ([]provider.Grant, error) {
	rows, err := s.db.rows(ctx, "SELECT "+grantColumns+" FROM grants WHERE subject = ? AND expires > ? ORDER BY created, id", subject, at(now))
	return all(rows, err, scanGrant)
}

// EndGrant removes a grant; its codes and refresh tokens go by their foreign keys.
func (s *Grants) EndGrant(ctx context.Context, id string) error {
	_, err := s.db.exec(ctx, "DELETE FROM grants WHERE id = ?", id)
	return grantTold(err)
}

// TakeCode uses a code.
func (s *Grants) TakeCode(ctx context.Context, hash []byte) (provider.Code, error) {
	c, err := scanCode(s.db.take(ctx, "UPDATE grant_codes SET spent = ? WHERE hash = ? AND NOT spent RETURNING "+codeColumns, true, blob(hash)))
	if !errors.Is(err, provider.ErrNotFound) {
		return c, err
	}
	c, err = scanCode(s.db.row(ctx, "SELECT "+codeColumns+" FROM grant_codes WHERE hash = ?", blob(hash)))
	if err != nil {
		return c, err
	}
	return c, provider.ErrUsed
}

const refreshColumns = "hash, grant_id, client, scopes, expires"

const insertRefresh = "INSERT INTO grant_refreshes (" + refreshColumns + ", spent) VALUES (?, ?, ?, ?, ?, ?)"

func refreshValues(r provider.Refresh) []any {
	return []any{blob(r.Hash), r.Grant, r.Client, texts{&r.Scopes}, at(r.Expires), false}
}

// AddRefresh adds a grant's first refresh token.
func (s *Grants) AddRefresh(ctx context.Context, r provider.Refresh) error {
	_, err := s.db.exec(ctx, insertRefresh, refreshValues(r)...)
	return grantTold(err)
}

// Refresh returns a refresh token.
func (s *Grants) Refresh(ctx context.Context, hash []byte) (provider.Refresh, error) {
	var r provider.Refresh
	var spent bool
	err := s.db.row(ctx, "SELECT "+refreshColumns+", spent FROM grant_refreshes WHERE hash = ?", blob(hash)).Scan(
		&r.Hash, &r.Grant, &r.Client, texts{&r.Scopes}, nanos{&r.Expires}, &spent)
	switch {
	case err != nil:
		return provider.Refresh{}, grantTold(err)
	case spent:
		return r, provider.ErrUsed
	}
	return r, nil
}

// Rotate uses a refresh token and adds the next.
func (s *Grants) Rotate(ctx context.Context, old []byte, next provider.Refresh) error {
	err := s.db.within(ctx, func(t tx) error {
		n, err := t.exec(ctx, "UPDATE grant_refreshes SET spent = ? WHERE hash = ? AND grant_id = ? AND NOT spent", true, blob(old), next.Grant)
		if err != nil {
			return err
		}
		if n == 1 {
			_, err = t.exec(ctx, insertRefresh, refreshValues(next)...)
			return err
		}
		var there bool
		err = t.row(ctx, "SELECT EXISTS (SELECT 1 FROM grant_refreshes WHERE hash = ? AND grant_id = ?)", blob(old), next.Grant).Scan(&there)
		switch {
		case err != nil:
			return err
		case there:
			return provider.ErrUsed
		}
		return provider.ErrNotFound
	})
	return grantTold(err)
}

// SetConsent adds or replaces a consent.
func (s *Grants) SetConsent(ctx context.Context, c provider.Consent) error {
	_, err := s.db.exec(ctx, "INSERT INTO consents (subject, client, scopes, since) VALUES (?, ?, ?, ?) "+
		"ON CONFLICT (subject, client) DO UPDATE SET scopes = excluded.scopes, since = excluded.since",
		c.Subject, c.Client, texts{&c.Scopes}, at(c.Since))
	return grantTold(err)
}

// Consents returns a subject's consents, sorted by client.
func (s *Grants) Consents(ctx context.Context, subject string) ([]provider.Consent, error) {
	rows, err := s.db.rows(ctx, "SELECT subject, client, scopes, since FROM consents WHERE subject = ? ORDER BY client", subject)
	return all(rows, err, func(row scanner) (provider.Consent, error) {
		var c provider.Consent
		err := row.Scan(&c.Subject, &c.Client, texts{&c.Scopes}, nanos{&c.Since})
		return c, grantTold(err)
	})
}

// RemoveConsent takes a consent back and ends its grants.
func (s *Grants) RemoveConsent(ctx context.Context, subject, client string) error {
	err := s.db.within(ctx, func(t tx) error {
		for _, table := range []string{"consents", "grants"} {
			if _, err := t.exec(ctx, "DELETE FROM "+table+" WHERE subject = ? AND client = ?", subject, client); err != nil {
				return err
			}
		}
		return nil
	})
	return grantTold(err)
}
