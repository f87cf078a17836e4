package store_test

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/secrets"
)

// Replicas that start at once make the tables once.
func TestManyOpenAtOnce(t *testing.T) {
	for name, config := range map[string]func(t *testing.T) store.Config{
		"SQLite":     func(t *testing.T) store.Config { return store.Config{Dir: t.TempDir() + "/new"} },
		"PostgreSQL": func(t *testing.T) store.Config { return store.Config{URL: secrets.New(newDatabase(t))} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t)
			var wg sync.WaitGroup
			for n := range 8 {
				wg.Go(func() {
					db, err := store.Open(context.Background(), c)
					if err != nil {
						t.Error(err)
						return
					}
					defer db.Close()
					if err := db.Accounts().Create(context.Background(), named(fmt.Sprint("a", n))); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			list, err := open(t, c).Accounts().Accounts(t.Context(), "", "", 100)
			if err != nil || len(list) != 8 {
				t.Errorf("%d accounts, %v", len(list), err)
			}
		})
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	for name, config := range map[string]func(t *testing.T) store.Config{
		"SQLite":     func(t *testing.T) store.Config { return store.Config{Dir: t.TempDir()} },
		"PostgreSQL": func(t *testing.T) store.Config { return store.Config{URL: secrets.New(newDatabase(t))} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t)
			db := open(t, c)
			if err := db.Exec(t.Context(), "INSERT INTO merlon_schema (version_id, is_applied) VALUES (99, true)"); err != nil {
				t.Fatal(err)
			}
			_, err := store.Open(t.Context(), c)
			if err == nil || !strings.Contains(err.Error(), "its tables are of version 99, this Merlon knows") ||
				!strings.Contains(err.Error(), "changed by a newer Merlon") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestNobodyElseMayReadTheFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, store.FileName), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	db := open(t, store.Config{Dir: dir})
	create(t, db.Accounts(), named("ann"))
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		if err := db.Row(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, %v", pragma, got, err)
		}
	}
}

func TestFolderWithOddName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?c#d%20&_pragma=x;é")
	create(t, open(t, store.Config{Dir: dir}).Accounts(), named("ann"))
	if _, err := os.Stat(filepath.Join(dir, store.FileName)); err != nil {
		t.Error(err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, store.FileName), []byte(strings.Repeat("this is no database. ", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		c    store.Config
		want string
	}{
		{"nothing", store.Config{}, "neither a URL nor a data folder"},
		{"another kind", store.Config{URL: secrets.New("mysql://u:hunter2@h/d")}, "must begin with postgres://"},
		{"no database", store.Config{Dir: broken}, "identity.db: file is not a database"},
		{"a file in the folder's place", store.Config{Dir: filepath.Join(broken, store.FileName)}, "not a directory"},
		{"no URL", store.Config{URL: secrets.New("postgres://u:hunter2@h:x/d")}, "must have the form postgres://"},
		{"a setting that there is not", store.Config{URL: secrets.New("postgres://u:hunter2@h/d?sslmode=maybe")}, "must have the form postgres://"},
		{"nobody there", store.Config{URL: secrets.New("postgres://u:hunter2@127.0.0.1:1/d")}, "PostgreSQL at 127.0.0.1:1/d: "},
	} {
		_, err := store.Open(t.Context(), c.c)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// What goes over a network is asked for a certificate.
func TestServersAreVerified(t *testing.T) {
	t.Setenv("PGSSLMODE", "")
	t.Setenv("PGHOST", "")
	for url, want := range map[string]bool{
		"postgres://u:p@db.internal/d":                       true,
		"postgres://u:p@10.0.0.1/d":                          true,
		"postgres://u:p@10.0.0.1,127.0.0.1/d":                true,
		"postgres:///d?host=db.internal":                     true,
		"postgres://u:p@db.internal/d?sslmode=disable":       false,
		"postgres://u:p@db.internal/d?sslmode=verify-full":   true,
		"postgres://u:p@localhost/d":                         false,
		"postgres://u:p@[::1]:5432/d":                        false,
		"postgres:///d?host=/run/postgresql":                 false,
		"postgres:///d":                                      false,
		"postgres://u:p@localhost.example.com/d":             true,
		"postgres://u:p@127.0.0.1/d?host=db.internal&user=u": true,
	} {
		got, err := store.Verified(url)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", url, got, err)
		}
	}
}

// A role that may not make a schema is told what to have done, and uses one
// that was made for it.
func TestSchemaMadeForUs(t *testing.T) {
	url := newDatabase(t)
	admin := open(t, store.Config{URL: secrets.New(url + "&search_path=public")})
	for _, q := range []string{"CREATE ROLE small LOGIN"} {
		if err := admin.Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	small := store.Config{URL: secrets.New(strings.Replace(url, "user=merlon", "user=small", 1))}
	_, err := store.Open(t.Context(), small)
	if err == nil || !strings.Contains(err.Error(), "let an administrator of the database run: CREATE SCHEMA merlon AUTHORIZATION") {
		t.Errorf("got %v", err)
	}
	if err := admin.Exec(t.Context(), "CREATE SCHEMA merlon AUTHORIZATION small"); err != nil {
		t.Fatal(err)
	}
	create(t, open(t, small).Accounts(), named("ann"))
	list, err := admin.Accounts().Accounts(t.Context(), "", "", 9)
	if err != nil || len(list) > 0 {
		t.Errorf("another schema has %v, %v", list, err)
	}
}

// The two sets of migrations make the same tables.
func TestMigrationsAreAlike(t *testing.T) {
	columns := func(set string) string {
		var all strings.Builder
		err := fs.WalkDir(os.DirFS("migrations/"+set), ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile("migrations/" + set + "/" + path)
			all.WriteString(path + "\n" + string(b))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		text := regexp.MustCompile(`GENERATED ALWAYS AS IDENTITY|AUTOINCREMENT|COLLATE "C"|\bSTRICT\b|\b(TEXT|INTEGER|BIGINT|BOOLEAN|BLOB|BYTEA)\b|[ \t]`).
			ReplaceAllString(all.String(), "")
		return text
	}
	same(t, "migrations", columns("postgres"), columns("sqlite"))
}

// What is asked for often is found by an index.
func TestIndexes(t *testing.T) {
	db := open(t, store.Config{Dir: t.TempDir()})
	ctx := t.Context()
	create(t, db.Accounts(), ann())
	for _, q := range []string{
		"SELECT * FROM accounts WHERE id = 'x'",
		"SELECT * FROM accounts WHERE name = 'x'",
		"SELECT * FROM accounts WHERE email_verified AND email = 'x'",
		"SELECT * FROM accounts WHERE name > 'x' ORDER BY name LIMIT 9",
		"SELECT * FROM factors WHERE account = 'x' ORDER BY created, id",
		"SELECT * FROM links WHERE hash = x'00' AND purpose = 'x' AND expires > 1",
		"DELETE FROM links WHERE expires <= 1",
		"DELETE FROM links WHERE account = 'x' AND purpose = 'x'",
		"SELECT * FROM devices WHERE account = 'x' AND hash = x'00'",
		"SELECT * FROM logins WHERE account = 'x' ORDER BY id DESC LIMIT 9",
		"SELECT * FROM externals WHERE issuer = 'x' AND subject = 'x'",
		"SELECT * FROM externals WHERE account = 'x' ORDER BY issuer, subject",
		"SELECT * FROM sessions WHERE hash = x'00'",
		"SELECT * FROM sessions WHERE hash IN (x'00', x'01')",
		"SELECT * FROM sessions WHERE account = 'x' AND NOT retired AND expires > 1 ORDER BY created DESC, issued DESC",
		"DELETE FROM sessions WHERE issuer = 'x' AND subject = 'x' AND issuer <> ''",
		"DELETE FROM sessions WHERE issuer = 'x' AND sid = 'x' AND issuer <> ''",
		"DELETE FROM sessions WHERE expires < 1",
		"SELECT * FROM api_keys WHERE id = 'x'",
		"SELECT * FROM revocations WHERE seq > 1 AND expires > 1",
		"DELETE FROM token_families WHERE expires <= 1",
		"UPDATE token_families SET revoked = true WHERE subject = 'x'",
		"UPDATE token_families SET revoked = true WHERE session = 'x'",
		"SELECT * FROM grants WHERE subject = 'x' AND expires > 1 ORDER BY created, id",
		"SELECT * FROM grant_codes WHERE hash = x'00'",
		"DELETE FROM grants WHERE expires <= 1",
		"DELETE FROM grants WHERE id IN (SELECT grant_id FROM grant_codes WHERE NOT spent AND expires <= 1)",
	} {
		for _, step := range plan(t, ctx, db, q) {
			if strings.HasPrefix(step, "SCAN") && !strings.Contains(step, "USING") {
				t.Errorf("%s: %s", q, step)
			}
		}
	}
	// Foreign keys look there, too.
	for _, table := range []string{"factors", "links", "devices", "logins", "externals", "api_keys"} {
		if p := plan(t, ctx, db, "SELECT 1 FROM "+table+" WHERE account = 'x'"); !strings.HasPrefix(p[0], "SEARCH") {
			t.Errorf("%s: %s", table, p)
		}
	}
}

// plan is how SQLite does a query.
func plan(t *testing.T, ctx context.Context, db *store.DB, query string) (steps []string) {
	t.Helper()
	rows, err := db.Rows(ctx, "EXPLAIN QUERY PLAN "+query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	if err := rows.Err(); err != nil || len(steps) == 0 {
		t.Fatal(query, steps, err)
	}
	return steps
}

// TestWriter is no test: it adds accounts until it is killed.
func TestWriter(t *testing.T) {
	dir := os.Getenv("STORE_TEST_WRITER")
	if dir == "" {
		t.Skip("only for TestCrash")
	}
	db := open(t, store.Config{Dir: dir})
	for n := 0; ; n++ {
		if err := db.Accounts().Create(context.Background(), named(fmt.Sprintf("%s%06d", os.Getenv("STORE_TEST_NAME"), n))); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("made %s%06d\n", os.Getenv("STORE_TEST_NAME"), n)
	}
}

// What was answered is there after a crash, and the file is whole.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	made := map[string]bool{}
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWriter$")
		cmd.Env = append(os.Environ(), "STORE_TEST_WRITER="+dir, fmt.Sprintf("STORE_TEST_NAME=%c", 'a'+round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(700*time.Millisecond, func() { _ = cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "made "); ok && len(name) == 7 {
				made[name] = true
			}
		}
		_ = cmd.Wait()
		db := open(t, store.Config{Dir: dir})
		for name := range made {
			if _, err := db.Accounts().ByName(t.Context(), name); err != nil {
				t.Errorf("round %d: %s: %v", round, name, err)
			}
		}
		var ok string
		if err := db.Row(t.Context(), "PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
			t.Errorf("round %d: the file: %s, %v", round, ok, err)
		}
	}
	if len(made) < 3 {
		t.Errorf("only %d accounts were made", len(made))
	}
}

func BenchmarkStore(b *testing.B) {
	for name, at := range map[string]place{"SQLite": inFile, "PostgreSQL": inServer} {
		b.Run(name, func(b *testing.B) {
			db := at(b)()
			ctx := context.Background()
			if err := db.Accounts().Create(ctx, ann()); err != nil {
				b.Fatal(err)
			}
			if err := db.Accounts().AddFactor(ctx, account.Factor{ID: "t", Account: "id-ann", Kind: account.TOTP}); err != nil {
				b.Fatal(err)
			}
			if _, err := db.Sessions().Put(ctx, aSession("ann", 0), 10); err != nil {
				b.Fatal(err)
			}
			b.Run("account by name", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := db.Accounts().ByName(ctx, "ann"); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("session", func(b *testing.B) {
				b.ReportAllocs()
				h := hashOf("ann0")
				for b.Loop() {
					if _, err := db.Sessions().Get(ctx, h); err != nil {
						b.Fatal(err)
					}
				}
			})
			step := int64(0)
			b.Run("use factor", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := db.Accounts().UseFactor(ctx, "t", step, step+1, nil, noon); err != nil {
						b.Fatal(err)
					}
					step++
				}
			})
		})
	}
}
