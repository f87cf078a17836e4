package store

import (
	"context"
	"net/netip"
	"time"

	"github.com/merlon-dev/merlon/identity/apikey"
)

// Keys is the [apikey.Store] of a database.
type Keys struct{ db *DB }

var _ apikey.Store = (*Keys)(nil)

// Keys returns the API keys of the database.
func (db *DB) Keys() *Keys { return &Keys{db} }

const keyColumns = "id, hash, account, name, scopes, networks, created, expires, revoked, used, used_from"

func scanKey(row scanner) (apikey.Key, error) {
	var k apikey.Key
	var networks []string
	err := row.Scan(&k.ID, &k.Hash, &k.Account, &k.Name, texts{&k.Scopes}, texts{&networks},
		nanos{&k.Created}, nanos{&k.Expires}, nanos{&k.Revoked}, nanos{&k.Used}, address{&k.UsedFrom})
	for _, n := range networks {
		var p netip.Prefix
		if err == nil {
			err = p.UnmarshalText([]byte(n))
		}
		k.Networks = append(k.Networks, p)
	}
	if err != nil {
		return apikey.Key{}, told(err)
	}
	return k, nil
}

// AddKey adds a key.
func (s *Keys) AddKey(ctx context.Context, k apikey.Key) error {
	networks := make([]string, len(k.Networks))
	for i, p := range k.Networks {
		networks[i] = p.String()
	}
	_, err := s.db.exec(ctx, "INSERT INTO api_keys ("+keyColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		k.ID, blob(k.Hash), k.Account, clean(k.Name), texts{&k.Scopes}, texts{&networks},
		at(k.Created), at(k.Expires), at(k.Revoked), at(k.Used), address{&k.UsedFrom})
	return told(err)
}

// Key returns one key.
func (s *Keys) Key(ctx context.Context, id string) (apikey.Key, error) {
	return scanKey(s.db.row(ctx, "SELECT "+keyColumns+" FROM api_keys WHERE id = ?", id))
}

// Keys returns an account's keys, the newest first, or everybody's.
func (s *Keys) Keys(ctx context.Context, of string) ([]apikey.Key, error) {
	where, args := "", []any{}
	if of != "" {
		where, args = " WHERE account = ?", append(args, of)
	}
	rows, err := s.db.rows(ctx, "SELECT "+keyColumns+" FROM api_keys"+where+" ORDER BY created DESC, id", args...)
	return all(rows, err, scanKey)
}

// RevokeKey ends a key.
func (s *Keys) RevokeKey(ctx context.Context, id string, now time.Time) error {
	return gone(s.db.exec(ctx, "UPDATE api_keys SET revoked = CASE WHEN revoked = 0 THEN ? ELSE revoked END WHERE id = ?", at(now), id))
}

// UseKey notes the last use.
func (s *Keys) UseKey(ctx context.Context, id string, now time.Time, from netip.Addr) error {
	_, err := s.db.exec(ctx, "UPDATE api_keys SET used = ?, used_from = ? WHERE id = ? AND used < ?", at(now), address{&from}, id, at(now))
	return told(err)
}
