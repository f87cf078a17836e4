package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// The tables of both databases. They are two sets because the types, and how
// text is ordered, differ in every one; a test holds them to the same columns.
//
//go:embed migrations
var migrations embed.FS

// versions is the table that says which migrations were made.
const versions = "merlon_schema"

var errNewer = errors.New("was changed by a newer Merlon; use that version, or a copy of the database from before")

// migrate brings the tables up to date. The caller has locked out others.
func (db *DB) migrate(ctx context.Context, dialect goose.Dialect, set string) error {
	files, err := fs.Sub(migrations, "migrations/"+set)
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect, db.write, files,
		goose.WithTableName(versions), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	want := sources[len(sources)-1].Version
	switch {
	case have > want:
		return fmt.Errorf("its tables are of version %d, this Merlon knows %d: it %w", have, want, errNewer)
	case have == want:
		return nil
	}
	_, err = p.Up(ctx)
	return err
}
