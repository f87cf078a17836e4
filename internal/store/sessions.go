package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/identity/session"
)

// Sessions is the [session.Store] of a database.
type Sessions struct{ db *DB }

var _ session.Store = (*Sessions)(nil)

// Sessions returns the sessions of the database.
func (db *DB) Sessions() *Sessions { return &Sessions{db} }

var sessionWords = words{notFound: session.ErrNotFound}

const sessionColumns = "hash, id, account, site, methods, level, created, issued, proved, raised, " +
	"seen, until, expires, client, agent, rights, retired, issuer, subject, sid, hint"

func scanSession(row scanner) (session.Session, error) {
	var s session.Session
	err := row.Scan((*hashBytes)(&s.Hash), &s.ID, &s.Account, &s.Site, texts{&s.Methods}, &s.Level,
		nanos{&s.Created}, nanos{&s.Issued}, nanos{&s.Proved}, nanos{&s.Raised},
		nanos{&s.Seen}, nanos{&s.Until}, nanos{&s.Expires}, address{&s.Client}, &s.Agent, &s.Rights,
		&s.Retired, &s.Issuer, &s.Subject, &s.SID, &s.Hint)
	if err != nil {
		return session.Session{}, sessionWords.tell(err)
	}
	if len(s.Hint) == 0 {
		s.Hint = nil
	}
	return s, nil
}

// hashBytes reads a session's hash.
type hashBytes session.Hash

// Scan reads the stored bytes.
func (h *hashBytes) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(h) {
		return errors.New("a session's hash is no SHA-256")
	}
	copy(h[:], b)
	return nil
}

func scanHash(row scanner) (session.Hash, error) {
	var h session.Hash
	err := row.Scan((*hashBytes)(&h))
	return h, sessionWords.tell(err)
}

func insertSession(ctx context.Context, t tx, s session.Session) error {
	_, err := t.exec(ctx, "INSERT INTO sessions ("+sessionColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		s.Hash[:], s.ID, s.Account, s.Site, texts{&s.Methods}, s.Level,
		at(s.Created), at(s.Issued), at(s.Proved), at(s.Raised), at(s.Seen), at(s.Until), at(s.Expires),
		address{&s.Client}, clean(s.Agent), s.Rights, s.Retired, s.Issuer, s.Subject, s.SID, s.Hint)
	return err
}

// forgetAfter is how long a session is kept after it has expired: nobody can
// use it, and a replica whose clock is ahead must not forget what still holds.
const forgetAfter = 24 * time.Hour

// Put adds a session and ends the oldest beyond atMost, with the ids that they
// had before. It also forgets what has expired long ago, of every account.
func (s *Sessions) Put(ctx context.Context, n session.Session, atMost int) (ended []session.Hash, err error) {
	err = s.db.within(ctx, func(t tx) error {
		ended = nil
		if err := t.alone(ctx, "sessions of "+n.Account); err != nil { // trap 49: two that come at once count each other
			return err
		}
		if _, err := t.exec(ctx, "DELETE FROM sessions WHERE expires < ?", at(n.Issued.Add(-forgetAfter))); err != nil {
			return err
		}
		rows, err := t.rows(ctx, "SELECT id FROM sessions WHERE account = ? AND NOT retired AND expires > ? ORDER BY created DESC, hash",
			n.Account, at(n.Issued))
		others, err := all(rows, err, func(row scanner) (id string, err error) { return id, row.Scan(&id) })
		if err != nil {
			return err
		}
		for _, id := range others[min(max(atMost, 1)-1, len(others)):] {
			rows, err := t.rows(ctx, "DELETE FROM sessions WHERE account = ? AND id = ? RETURNING hash", n.Account, id)
			hashes, err := all(rows, err, scanHash)
			if err != nil {
				return err
			}
			ended = append(ended, hashes...)
		}
		if err := insertSession(ctx, t, n); err != nil {
			return err
		}
		return t.told(ctx, ended)
	})
	return ended, sessionWords.tell(err)
}

// Get returns a session.
func (s *Sessions) Get(ctx context.Context, h session.Hash) (session.Session, error) {
	return scanSession(s.db.row(ctx, "SELECT "+sessionColumns+" FROM sessions WHERE hash = ?", h[:]))
}

// Touch moves Seen and Expires to later.
func (s *Sessions) Touch(ctx context.Context, h session.Hash, seen, expires time.Time) error {
	n, err := s.db.exec(ctx, "UPDATE sessions SET seen = CASE WHEN seen < ? THEN ? ELSE seen END, "+
		"expires = CASE WHEN expires >= ? OR expires >= until THEN expires WHEN until < ? THEN until ELSE ? END "+
		"WHERE hash = ? AND NOT retired", at(seen), at(seen), at(expires), at(expires), at(expires), h[:])
	if err == nil && n == 0 {
		return session.ErrNotFound
	}
	return sessionWords.tell(err)
}

// Rotate puts n in the place of old.
func (s *Sessions) Rotate(ctx context.Context, old session.Hash, grace time.Time, n session.Session) error {
	err := s.db.within(ctx, func(t tx) error {
		// An End at the same time would see the old row only, and let the new one live.
		if err := t.alone(ctx, "sessions of "+n.Account); err != nil {
			return err
		}
		done, err := t.exec(ctx, "UPDATE sessions SET retired = ?, expires = CASE WHEN expires < ? THEN expires ELSE ? END "+
			"WHERE hash = ? AND NOT retired AND account = ? AND id = ?", true, at(grace), at(grace), old[:], n.Account, n.ID)
		switch {
		case err != nil:
			return err
		case done == 0:
			return session.ErrNotFound
		}
		return insertSession(ctx, t, n)
	})
	return sessionWords.tell(err)
}

// selected returns what w selects; ok is false if that is nothing.
func selected(w session.Where) (that string, args []any, ok bool) {
	if w.Account == "" && (w.Issuer == "" || w.Subject == "" && w.SID == "") {
		return "", nil, false
	}
	var where []string
	and := func(is, value string) {
		if value != "" {
			where, args = append(where, is), append(args, value)
		}
	}
	and("account = ?", w.Account)
	and("id = ?", w.ID)
	and("id <> ?", w.Except)
	and("issuer = ?", w.Issuer)
	and("subject = ?", w.Subject)
	and("sid = ?", w.SID)
	if w.Issuer != "" {
		where = append(where, "issuer <> ''") // what the index is for
	}
	return " FROM sessions WHERE " + strings.Join(where, " AND "), args, true
}

// Find returns what w selects.
func (s *Sessions) Find(ctx context.Context, w session.Where) ([]session.Session, error) {
	that, args, ok := selected(w)
	if !ok {
		return nil, nil
	}
	rows, err := s.db.rows(ctx, "SELECT "+sessionColumns+that+" AND NOT retired", args...)
	return all(rows, err, scanSession)
}

// End removes what w selects.
func (s *Sessions) End(ctx context.Context, w session.Where) (ended []session.Hash, err error) {
	that, args, ok := selected(w)
	if !ok {
		return nil, nil
	}
	err = s.db.within(ctx, func(t tx) error {
		accounts := []string{w.Account}
		if w.Account == "" && s.db.postgres {
			rows, err := t.rows(ctx, "SELECT DISTINCT account"+that, args...)
			accounts, err = all(rows, err, func(row scanner) (a string, err error) { return a, row.Scan(&a) })
			if err != nil {
				return err
			}
			slices.Sort(accounts) // so that two do not wait for each other
		}
		for _, a := range accounts {
			if err := t.alone(ctx, "sessions of "+a); err != nil {
				return err
			}
		}
		rows, err := t.rows(ctx, "DELETE"+that+" RETURNING hash", args...)
		if ended, err = all(rows, err, scanHash); err != nil {
			return err
		}
		return t.told(ctx, ended)
	})
	return ended, sessionWords.tell(err)
}

// List returns an account's sessions, the newest first.
func (s *Sessions) List(ctx context.Context, of string, now time.Time) ([]session.Session, error) {
	rows, err := s.db.rows(ctx, "SELECT "+sessionColumns+" FROM sessions WHERE account = ? AND NOT retired AND expires > ? "+
		"ORDER BY created DESC, issued DESC", of, at(now))
	return all(rows, err, scanSession)
}

// Gone returns those of the hashes that are not there.
func (s *Sessions) Gone(ctx context.Context, hashes []session.Hash) ([]session.Hash, error) {
	there := make(map[session.Hash]bool, len(hashes))
	for part := range slices.Chunk(hashes, 256) {
		// Two lengths make two statements that can be prepared.
		n := 16
		if len(part) > n {
			n = 256
		}
		args := make([]any, n)
		for i := range args {
			args[i] = part[min(i, len(part)-1)][:]
		}
		rows, err := s.db.rows(ctx, "SELECT hash FROM sessions WHERE hash IN (?"+strings.Repeat(", ?", n-1)+")", args...)
		found, err := all(rows, err, scanHash)
		if err != nil {
			return nil, err
		}
		for _, h := range found {
			there[h] = true
		}
	}
	var gone []session.Hash
	for _, h := range hashes {
		if !there[h] {
			gone = append(gone, h)
		}
	}
	return gone, nil
}

// Watch hears of what other replicas end. With SQLite it only waits.
func (s *Sessions) Watch(ctx context.Context, ready func(), ended func([]session.Hash)) error {
	return s.db.listen(ctx, endedChannel, ready, func(text string) {
		var hashes []session.Hash
		for one := range strings.SplitSeq(text, ",") {
			var h session.Hash
			if h.UnmarshalText([]byte(one)) == nil {
				hashes = append(hashes, h)
			}
		}
		ended(hashes)
	})
}

// told tells the replicas what has ended.
func (t tx) told(ctx context.Context, ended []session.Hash) error {
	for part := range slices.Chunk(ended, 100) {
		texts := make([]string, len(part))
		for i, h := range part {
			texts[i] = h.String()
		}
		if err := t.notify(ctx, endedChannel, strings.Join(texts, ",")); err != nil {
			return err
		}
	}
	return nil
}
