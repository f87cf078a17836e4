package store

import (
	"context"
	"strconv"
	"time"

	"github.com/merlon-dev/merlon/identity/token"
)

// Tokens is the [token.Store] of a database.
type Tokens struct{ db *DB }

var (
	_ token.Store = (*Tokens)(nil)
	_ token.Waker = (*Tokens)(nil)
)

// Tokens returns the signing keys, revocations and refresh families of the
// database.
func (db *DB) Tokens() *Tokens { return &Tokens{db} }

var tokenWords = words{notFound: token.ErrNotFound}

// Keys returns every signing key.
func (s *Tokens) Keys(ctx context.Context) ([]token.SigningKey, error) {
	rows, err := s.db.rows(ctx, "SELECT id, algorithm, sealed, created, sign_from FROM signing_keys ORDER BY sign_from, seq")
	return all(rows, err, func(row scanner) (token.SigningKey, error) {
		var k token.SigningKey
		err := row.Scan(&k.ID, &k.Algorithm, &k.Sealed, nanos{&k.Created}, nanos{&k.SignFrom})
		return k, tokenWords.tell(err)
	})
}

// AddKey adds a key if after is still the last one.
func (s *Tokens) AddKey(ctx context.Context, k token.SigningKey, after string) error {
	err := s.db.within(ctx, func(t tx) error {
		if err := t.alone(ctx, "signing keys"); err != nil {
			return err
		}
		rows, err := t.rows(ctx, "SELECT id FROM signing_keys ORDER BY sign_from DESC, seq DESC LIMIT 1")
		last, err := all(rows, err, func(row scanner) (id string, err error) { return id, row.Scan(&id) })
		if err != nil {
			return err
		}
		if len(last) == 0 && after != "" || len(last) > 0 && last[0] != after {
			return token.ErrMoved
		}
		_, err = t.exec(ctx, "INSERT INTO signing_keys (id, algorithm, sealed, created, sign_from) VALUES (?, ?, ?, ?, ?)",
			k.ID, k.Algorithm, blob(k.Sealed), at(k.Created), at(k.SignFrom))
		return err
	})
	return moved(err)
}

// moved lets ErrMoved through.
func moved(err error) error {
	if err == token.ErrMoved {
		return err
	}
	return tokenWords.tell(err)
}

// DropKey removes a key.
func (s *Tokens) DropKey(ctx context.Context, id string) error {
	_, err := s.db.exec(ctx, "DELETE FROM signing_keys WHERE id = ?", id)
	return tokenWords.tell(err)
}

// Revoke adds or widens a revocation.
func (s *Tokens) Revoke(ctx context.Context, r token.Revocation, now time.Time) error {
	err := s.db.within(ctx, func(t tx) error {
		// Whoever has a number holds the counter until it has committed: what
		// is visible has no gap that is filled later.
		var seq int64
		if err := t.row(ctx, "UPDATE revocation_seq SET last = last + 1 RETURNING last").Scan(&seq); err != nil {
			return err
		}
		if _, err := t.exec(ctx, "DELETE FROM revocations WHERE expires <= ?", at(now)); err != nil {
			return err
		}
		_, err := t.exec(ctx, "INSERT INTO revocations (kind, issuer, id, before, expires, seq) VALUES (?, ?, ?, ?, ?, ?) "+
			"ON CONFLICT (kind, issuer, id) DO UPDATE SET seq = excluded.seq, "+
			"before = CASE WHEN excluded.before > revocations.before THEN excluded.before ELSE revocations.before END, "+
			"expires = CASE WHEN excluded.expires > revocations.expires THEN excluded.expires ELSE revocations.expires END",
			r.Kind, r.Issuer, r.ID, at(r.Before), at(r.Expires), seq)
		if err != nil {
			return err
		}
		return t.notify(ctx, revokedChannel, "")
	})
	return tokenWords.tell(err)
}

// OnRevoke calls wake when a replica has revoked something. With SQLite it
// only waits.
func (s *Tokens) OnRevoke(ctx context.Context, wake func()) error {
	return s.db.listen(ctx, revokedChannel, wake, func(string) { wake() })
}

// Revocations returns what came after a cursor.
func (s *Tokens) Revocations(ctx context.Context, after string, now time.Time) ([]token.Revocation, string, error) {
	var from, last int64
	if after != "" {
		var err error
		if from, err = strconv.ParseInt(after, 10, 64); err != nil {
			from = 0
		}
	}
	if err := s.db.row(ctx, "SELECT last FROM revocation_seq").Scan(&last); err != nil {
		return nil, "", tokenWords.tell(err)
	}
	if from > last {
		from = 0 // the database was put back to an earlier state
	}
	next := from
	rows, err := s.db.rows(ctx, "SELECT kind, issuer, id, before, expires, seq FROM revocations WHERE seq > ? AND expires > ?", from, at(now))
	list, err := all(rows, err, func(row scanner) (token.Revocation, error) {
		var r token.Revocation
		var seq int64
		err := row.Scan(&r.Kind, &r.Issuer, &r.ID, nanos{&r.Before}, nanos{&r.Expires}, &seq)
		next = max(next, seq)
		return r, tokenWords.tell(err)
	})
	if err != nil {
		return nil, "", err
	}
	return list, strconv.FormatInt(next, 10), nil
}

const familyColumns = "id, generation, hash, previous, rotated, started, idle, expires, revoked, " +
	"subject, client, session, audience, scopes, methods, auth_time"

// AddFamily adds a family and forgets what has expired.
func (s *Tokens) AddFamily(ctx context.Context, f token.Family) error {
	err := s.db.within(ctx, func(t tx) error {
		if _, err := t.exec(ctx, "DELETE FROM token_families WHERE expires <= ?", at(f.Started)); err != nil {
			return err
		}
		_, err := t.exec(ctx, "INSERT INTO token_families ("+familyColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			f.ID, f.Generation, blob(f.Hash), orNoBytes(f.Previous), at(f.Rotated), at(f.Started), at(f.Idle), at(f.Expires), f.Revoked,
			f.Grant.Subject, f.Grant.Client, f.Grant.Session, texts{&f.Grant.Audience}, texts{&f.Grant.Scopes}, texts{&f.Grant.Methods},
			at(f.Grant.AuthTime))
		return err
	})
	return tokenWords.tell(err)
}

// orNoBytes is NULL for nil.
func orNoBytes(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}

// Family returns a family.
func (s *Tokens) Family(ctx context.Context, id string) (token.Family, error) {
	var f token.Family
	err := s.db.row(ctx, "SELECT "+familyColumns+" FROM token_families WHERE id = ?", id).Scan(
		&f.ID, &f.Generation, &f.Hash, &f.Previous, nanos{&f.Rotated}, nanos{&f.Started}, nanos{&f.Idle}, nanos{&f.Expires}, &f.Revoked,
		&f.Grant.Subject, &f.Grant.Client, &f.Grant.Session, texts{&f.Grant.Audience}, texts{&f.Grant.Scopes}, texts{&f.Grant.Methods},
		nanos{&f.Grant.AuthTime})
	if err != nil {
		return token.Family{}, tokenWords.tell(err)
	}
	return f, nil
}

// RotateFamily replaces the secret of a family.
func (s *Tokens) RotateFamily(ctx context.Context, id string, from, to []byte, now, idle time.Time) error {
	// One statement that names the secret it knows (trap 56): of two that
	// come with it at once the second finds another.
	n, err := s.db.exec(ctx, "UPDATE token_families SET previous = hash, hash = ?, generation = generation + 1, rotated = ?, idle = ? "+
		"WHERE id = ? AND hash = ? AND NOT revoked", blob(to), at(now), at(idle), id, blob(from))
	if err == nil && n == 0 {
		return token.ErrMoved
	}
	return tokenWords.tell(err)
}

// RevokeFamily marks a family as revoked.
func (s *Tokens) RevokeFamily(ctx context.Context, id string) error {
	_, err := s.db.exec(ctx, "UPDATE token_families SET revoked = ? WHERE id = ?", true, id)
	return tokenWords.tell(err)
}

// RevokeFamilies marks every family of a subject or a session as revoked.
func (s *Tokens) RevokeFamilies(ctx context.Context, subject, session string) error {
	for column, value := range map[string]string{"subject": subject, "session": session} {
		if value == "" {
			continue
		}
		if _, err := s.db.exec(ctx, "UPDATE token_families SET revoked = ? WHERE "+column+" = ?", true, value); err != nil {
			return tokenWords.tell(err)
		}
	}
	return nil
}
