package store

import "time"

// SetNow gives the database a clock.
func (db *DB) SetNow(now func() time.Time) { db.now = now }
