package store_test

import (
	"testing"

	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/ban/bantest"
)

// What package ban asks of every store.
func TestBanStore(t *testing.T) {
	for name, at := range map[string]place{"SQLite": inFile, "PostgreSQL": inServer} {
		t.Run(name, func(t *testing.T) {
			bantest.TestStore(t, func(t *testing.T) (one, other ban.Store) {
				open := at(t)
				return open().Bans(), open().Bans()
			})
		})
	}
}
