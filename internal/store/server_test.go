package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/secrets"
)

// A server is a PostgreSQL of our own that listens on a socket in a folder of
// its own.
type server struct {
	dir  string
	cmd  *exec.Cmd
	skip string // why there is none
	err  error
	n    atomic.Int64
}

var (
	postgresOnce sync.Once
	postgres     server
)

func TestMain(m *testing.M) {
	code := m.Run()
	postgres.stop()
	os.Exit(code)
}

// newDatabase returns the URL of an empty database in PostgreSQL.
func newDatabase(t testing.TB) string {
	t.Helper()
	postgresOnce.Do(postgres.start)
	if postgres.skip != "" {
		t.Skip(postgres.skip)
	}
	if postgres.err != nil {
		t.Fatal(postgres.err)
	}
	admin, err := sql.Open("pgx", postgres.url("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	name := fmt.Sprintf("t%d", postgres.n.Add(1))
	if _, err := admin.ExecContext(t.Context(), "CREATE DATABASE "+name+" STRATEGY file_copy"); err != nil {
		t.Fatal(err)
	}
	return postgres.url(name)
}

func (s *server) url(database string) string {
	return "postgres:///" + database + "?" + url.Values{"host": {s.dir}, "user": {"merlon"}}.Encode()
}

// nobody runs the server where we are root, which it refuses to run as.
const nobody = 65534

func (s *server) start() {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		s.skip = "there is no PostgreSQL here: apt-get install postgresql"
		return
	}
	bin := filepath.Dir(found[len(found)-1])
	if s.dir, s.err = os.MkdirTemp("/tmp", "merlon-pg"); s.err != nil { // a socket's path must be short
		return
	}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir = s.dir
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
		return cmd
	}
	if os.Getuid() == 0 {
		if s.err = os.Chown(s.dir, nobody, nobody); s.err != nil {
			return
		}
	}
	data := filepath.Join(s.dir, "data")
	if out, err := command("initdb", "--no-sync", "--auth=trust", "--username=merlon", "--encoding=UTF8", "--locale=C.UTF-8", "-D", data).CombinedOutput(); err != nil {
		s.err = fmt.Errorf("initdb: %w\n%s", err, out)
		return
	}
	s.cmd = command("postgres", "-D", data, "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=400")
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		s.err = err
		return
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if s.err = s.cmd.Start(); s.err != nil {
		return
	}
	s.err = s.wait()
}

// wait waits until the server answers.
func (s *server) wait() error {
	db, err := sql.Open("pgx", s.url("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if err = db.PingContext(context.Background()); err == nil {
			return nil
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, log)
		}
	}
}

func (s *server) stop() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Signal(syscall.SIGQUIT) // at once; nothing is to be kept
		_ = s.cmd.Wait()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// A place makes a function that opens one new database, as often as one likes.
type place func(t testing.TB) func() *store.DB

// onBoth runs a test over an empty database of either kind.
func onBoth(t *testing.T, test func(t *testing.T, open func() *store.DB)) {
	t.Helper()
	for name, at := range map[string]place{"SQLite": inFile, "PostgreSQL": inServer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, at(t))
		})
	}
}

func inFile(t testing.TB) func() *store.DB {
	dir := t.TempDir()
	return func() *store.DB { return open(t, store.Config{Dir: dir}) }
}

func inServer(t testing.TB) func() *store.DB {
	url := newDatabase(t)
	return func() *store.DB { return open(t, store.Config{URL: secrets.New(url)}) }
}

func open(t testing.TB, c store.Config) *store.DB {
	t.Helper()
	db, err := store.Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// race runs try in 50 goroutines at once, over two open databases, and returns
// how many had no error; the others' error must be want.
func race(t *testing.T, open func() *store.DB, want error, try func(db *store.DB, n int) error) int {
	t.Helper()
	const runners = 50
	dbs := []*store.DB{open(), open()}
	for _, db := range dbs {
		if err := db.Warm(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	errs := make([]error, runners)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for n := range runners {
		wg.Go(func() {
			<-start
			errs[n] = try(dbs[n%len(dbs)], n)
		})
	}
	close(start)
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, want):
			t.Errorf("lost with %v, want %v", err, want)
		}
	}
	return won
}
