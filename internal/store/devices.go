package store

import (
	"context"

	"github.com/merlon-dev/merlon/identity/account"
)

const deviceColumns = "hash, account, agent, created, used"

func scanDevice(row scanner) (account.Device, error) {
	var d account.Device
	if err := row.Scan(&d.Hash, &d.Account, &d.Agent, nanos{&d.Created}, nanos{&d.Used}); err != nil {
		return account.Device{}, told(err)
	}
	return d, nil
}

// KnowDevice adds a device or notes that it was used again. Those that were
// used the longest ago give way: a program that forgets its cookies would
// otherwise be a hundred new browsers a day.
func (s *Accounts) KnowDevice(ctx context.Context, d account.Device) error {
	err := s.db.within(ctx, func(t tx) error {
		if _, err := t.exec(ctx, "INSERT INTO devices ("+deviceColumns+") VALUES (?, ?, ?, ?, ?) "+
			"ON CONFLICT (account, hash) DO UPDATE SET agent = excluded.agent, used = excluded.used",
			blob(d.Hash), d.Account, clean(d.Agent), at(d.Created), at(d.Used)); err != nil {
			return err
		}
		_, err := t.exec(ctx, "DELETE FROM devices WHERE account = ? AND hash IN "+
			"(SELECT hash FROM devices WHERE account = ? ORDER BY used DESC, hash LIMIT 1000 OFFSET ?)", d.Account, d.Account, keptDevices)
		return err
	})
	return told(err)
}

// Device returns an account's device.
func (s *Accounts) Device(ctx context.Context, of string, hash []byte) (account.Device, error) {
	return scanDevice(s.db.row(ctx, "SELECT "+deviceColumns+" FROM devices WHERE account = ? AND hash = ?", of, blob(hash)))
}

// Devices returns an account's devices, the last used first.
func (s *Accounts) Devices(ctx context.Context, of string) ([]account.Device, error) {
	rows, err := s.db.rows(ctx, "SELECT "+deviceColumns+" FROM devices WHERE account = ? ORDER BY used DESC, hash", of)
	return all(rows, err, scanDevice)
}

// ForgetDevices removes all devices of an account.
func (s *Accounts) ForgetDevices(ctx context.Context, of string) error {
	_, err := s.db.exec(ctx, "DELETE FROM devices WHERE account = ?", of)
	return told(err)
}

// keptDevices is how many devices of an account are known.
const keptDevices = 100

// kept is how much of an account's history is.
const kept = 100

// Note adds to an account's history.
func (s *Accounts) Note(ctx context.Context, l account.LogIn) error {
	err := s.db.within(ctx, func(t tx) error {
		if _, err := t.exec(ctx, "INSERT INTO logins (account, time, client, agent, method, result) VALUES (?, ?, ?, ?, ?, ?)",
			l.Account, at(l.Time), address{&l.Client}, clean(l.Agent), l.Method, l.Result); err != nil {
			return err
		}
		_, err := t.exec(ctx, "DELETE FROM logins WHERE account = ? AND id <= "+
			"(SELECT id FROM logins WHERE account = ? ORDER BY id DESC LIMIT 1 OFFSET ?)", l.Account, l.Account, kept)
		return err
	})
	return told(err)
}

// History returns the last tries, the newest first.
func (s *Accounts) History(ctx context.Context, of string, limit int) ([]account.LogIn, error) {
	if limit <= 0 {
		return nil, nil
	}
	rows, err := s.db.rows(ctx, "SELECT time, account, client, agent, method, result FROM logins "+
		"WHERE account = ? ORDER BY id DESC LIMIT ?", of, limit)
	return all(rows, err, func(row scanner) (account.LogIn, error) {
		var l account.LogIn
		err := row.Scan(nanos{&l.Time}, &l.Account, address{&l.Client}, &l.Agent, &l.Method, &l.Result)
		return l, told(err)
	})
}
