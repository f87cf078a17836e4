package store

import (
	"context"
	"strconv"
	"time"

	"github.com/merlon-dev/merlon/ban"
)

// Bans is the [ban.Store] of a database.
type Bans struct{ db *DB }

var _ ban.Store = (*Bans)(nil)

// Bans returns the bans of the database.
func (db *DB) Bans() *Bans { return &Bans{db} }

const banColumns = "site, target, since, until, times, why, who"

func scanBan(row scanner) (ban.Ban, error) {
	var b ban.Ban
	err := row.Scan(&b.Site, &b.Key, nanos{&b.Since}, nanos{&b.Until}, &b.Times, &b.Why, &b.By)
	return b, err
}

// changed numbers the next version. Whoever does so first makes the others
// wait, so that what is counted afterwards is all there is.
func (t tx) changed(ctx context.Context) error {
	_, err := t.exec(ctx, "UPDATE bans_version SET n = n + 1")
	return err
}

// Put implements [ban.Store].
func (b *Bans) Put(ctx context.Context, list []ban.Ban, atMost int, now time.Time) (dropped int, err error) {
	if len(list) == 0 {
		return 0, nil
	}
	err = b.db.within(ctx, func(t tx) error {
		if err := t.changed(ctx); err != nil {
			return err
		}
		if _, err := t.exec(ctx, "DELETE FROM bans WHERE until < ?", at(now.Add(-ban.Remembered))); err != nil {
			return err
		}
		for _, one := range list {
			_, err := t.exec(ctx, "INSERT INTO bans ("+banColumns+") VALUES (?, ?, ?, ?, ?, ?, ?) "+
				"ON CONFLICT (site, target) DO UPDATE SET since = excluded.since, until = excluded.until, times = excluded.times, "+
				"why = excluded.why, who = excluded.who WHERE bans.until <= excluded.until",
				clean(one.Site), clean(one.Key), at(one.Since), at(one.Until), one.Times, clean(one.Why), clean(one.By))
			if err != nil {
				return err
			}
		}
		var n int
		if err := t.row(ctx, "SELECT COUNT(*) FROM bans").Scan(&n); err != nil || n <= atMost {
			dropped = 0
			return err
		}
		gone, err := t.exec(ctx, "DELETE FROM bans WHERE (site, target) IN "+
			"(SELECT site, target FROM bans ORDER BY until, target, site LIMIT ?)", n-atMost)
		dropped = int(gone)
		return err
	})
	return dropped, banWords.tell(err)
}

// banWords: there is nothing that bans could miss.
var banWords = words{}

// Lift implements [ban.Store].
func (b *Bans) Lift(ctx context.Context, site, key string) (bool, error) {
	lifted := false
	err := b.db.within(ctx, func(t tx) error {
		if err := t.changed(ctx); err != nil {
			return err
		}
		n, err := t.exec(ctx, "DELETE FROM bans WHERE site = ? AND target = ?", clean(site), clean(key))
		lifted = n > 0
		return err
	})
	return lifted, banWords.tell(err)
}

// List implements [ban.Store].
func (b *Bans) List(ctx context.Context, have string) ([]ban.Ban, string, error) {
	// The version first: what changes after it is read again the next time.
	var n int64
	if err := b.db.row(ctx, "SELECT n FROM bans_version").Scan(&n); err != nil {
		return nil, have, banWords.tell(err)
	}
	version := ""
	if n > 0 {
		version = strconv.FormatInt(n, 10)
	}
	if version == have {
		return nil, have, nil
	}
	rows, err := b.db.rows(ctx, "SELECT "+banColumns+" FROM bans")
	list, err := all(rows, err, scanBan)
	if err != nil {
		return nil, have, err
	}
	return list, version, nil
}
