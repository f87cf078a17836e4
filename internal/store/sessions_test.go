package store_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/identity/session/sessiontest"
	"github.com/merlon-dev/merlon/internal/store"
)

func hashOf(text string) session.Hash { return sha256.Sum256([]byte(text)) }

// aSession is one that began n seconds after noon.
func aSession(account string, n int) session.Session {
	begin := noon.Add(time.Duration(n) * time.Second)
	return session.Session{
		Hash: hashOf(fmt.Sprint(account, n)), ID: fmt.Sprint("s-", account, n), Account: account, Site: "shop", Methods: []string{"password", "totp"}, Level: 2,
		Created: begin, Issued: begin, Proved: begin, Raised: begin, Seen: begin, Until: begin.Add(24 * time.Hour), Expires: begin.Add(time.Hour),
		Client: netip.MustParseAddr("203.0.113.7"), Agent: "Firefox", Rights: "r", Issuer: "https://id.example", Subject: "sub-" + account, SID: fmt.Sprint("sid", n),
	}
}

func put(t *testing.T, s session.Store, list ...session.Session) {
	t.Helper()
	for _, one := range list {
		if _, err := s.Put(t.Context(), one, 100); err != nil {
			t.Fatal(err)
		}
	}
}

// What package session asks of every store.
func TestSessionStore(t *testing.T) {
	for name, at := range map[string]place{"SQLite": inFile, "PostgreSQL": inServer} {
		t.Run(name, func(t *testing.T) {
			sessiontest.TestStore(t, func(t *testing.T) (one, other session.Store) {
				open := at(t)
				return open().Sessions(), open().Sessions()
			})
			if name == "PostgreSQL" {
				sessiontest.TestWatch(t, func(t *testing.T) (one, other session.Store) {
					open := at(t)
					return open().Sessions(), open().Sessions()
				})
			}
		})
	}
}

func TestSessionsComeBackAsTheyWere(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Sessions()
		want := aSession("ann", 0)
		bare := session.Session{Hash: hashOf("bare"), ID: "b", Account: "ann", Issued: noon, Expires: noon.Add(time.Hour), Until: noon.Add(time.Hour)}
		put(t, s, want, bare)
		for _, w := range []session.Session{want, bare} {
			got, err := s.Get(ctx, w.Hash)
			wants(t, "get", err, nil)
			same(t, "get", got, w)
		}
		_, err := s.Get(ctx, hashOf("other"))
		wants(t, "another", err, session.ErrNotFound)
	})
}

// Trap 49: the bound of sessions at once also holds for those that begin at once.
func TestOldestSessionsEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Sessions()
		put(t, s, aSession("ann", 3), aSession("ann", 1), aSession("ann", 2), aSession("bob", 0))
		ended, err := s.Put(ctx, aSession("ann", 0), 3) // older than all, yet never itself
		wants(t, "put", err, nil)
		same(t, "ended", ended, []session.Hash{hashOf("ann1")})
		ended, err = s.Put(ctx, aSession("ann", 4), 2)
		wants(t, "put", err, nil)
		same(t, "ended", ended, []session.Hash{hashOf("ann2"), hashOf("ann0")})
		race(t, open, nil, func(db *store.DB, n int) error {
			_, err := db.Sessions().Put(context.Background(), aSession("ann", 10+n), 5)
			return err
		})
		list, err := s.List(ctx, "ann", noon)
		if err != nil || len(list) != 5 {
			t.Errorf("trap 49: %d sessions, %v", len(list), err)
		}
	})
}

func TestTouch(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Sessions()
		one := aSession("ann", 0)
		put(t, s, one)
		for _, c := range []struct{ seen, expires, wantSeen, wantExpires time.Duration }{
			{time.Minute, 2 * time.Hour, time.Minute, 2 * time.Hour},
			{time.Second, time.Hour, time.Minute, 2 * time.Hour}, // trap 49: a clock that was set back
			{time.Hour, 100 * time.Hour, time.Hour, 24 * time.Hour},
			{2 * time.Hour, 200 * time.Hour, 2 * time.Hour, 24 * time.Hour},
		} {
			wants(t, "touch", s.Touch(ctx, one.Hash, noon.Add(c.seen), noon.Add(c.expires)), nil)
			got, err := s.Get(ctx, one.Hash)
			wants(t, "get", err, nil)
			same(t, "seen", got.Seen, noon.Add(c.wantSeen))
			same(t, "expires", got.Expires, noon.Add(c.wantExpires))
		}
		wants(t, "another", s.Touch(ctx, hashOf("x"), noon, noon), session.ErrNotFound)
	})
}

func TestRotate(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Sessions()
		one := aSession("ann", 0)
		put(t, s, one)
		next := func(n int) session.Session {
			s := one
			s.Hash, s.Issued = hashOf(fmt.Sprint("next", n)), noon.Add(time.Minute)
			return s
		}
		stranger := next(0)
		stranger.Account = "bob"
		wants(t, "another account's", s.Rotate(ctx, one.Hash, noon, stranger), session.ErrNotFound)
		stranger = next(0)
		stranger.ID = "other"
		wants(t, "another id's", s.Rotate(ctx, one.Hash, noon, stranger), session.ErrNotFound)
		won := race(t, open, session.ErrNotFound, func(db *store.DB, n int) error {
			return db.Sessions().Rotate(context.Background(), one.Hash, noon.Add(10*time.Second), next(n))
		})
		list, err := s.List(ctx, "ann", noon)
		if err != nil || won != 1 || len(list) != 1 || list[0].ID != one.ID {
			t.Fatalf("%d won; %+v, %v", won, list, err)
		}
		old, err := s.Get(ctx, one.Hash)
		if err != nil || !old.Retired || !old.Expires.Equal(noon.Add(10*time.Second)) {
			t.Errorf("the old one is %+v, %v", old, err)
		}
		wants(t, "touching what is retired", s.Touch(ctx, one.Hash, noon, noon.Add(time.Hour)), session.ErrNotFound)
		ended, err := s.End(ctx, session.Where{Account: "ann", ID: one.ID})
		if err != nil || len(ended) != 2 {
			t.Errorf("ended %v, %v", ended, err)
		}
	})
}

func TestEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx, s := t.Context(), open().Sessions()
		for _, c := range []struct {
			name  string
			where session.Where
			want  string // who is left
		}{
			{"nothing said", session.Where{}, "ann1 ann2 bob1"},
			{"an id alone", session.Where{ID: "s-ann1"}, "ann1 ann2 bob1"},
			{"a subject without an issuer", session.Where{Subject: "sub-ann"}, "ann1 ann2 bob1"},
			{"an issuer alone", session.Where{Issuer: "https://id.example"}, "ann1 ann2 bob1"},
			{"all of an account", session.Where{Account: "ann"}, "bob1"},
			{"one", session.Where{Account: "ann", ID: "s-ann1"}, "ann2 bob1"},
			{"another's", session.Where{Account: "bob", ID: "s-ann1"}, "ann1 ann2 bob1"},
			{"all but one", session.Where{Account: "ann", Except: "s-ann1"}, "ann1 bob1"},
			{"a provider's subject", session.Where{Issuer: "https://id.example", Subject: "sub-ann"}, "bob1"},
			{"a provider's session", session.Where{Issuer: "https://id.example", SID: "sid1"}, "ann2"},
			{"both", session.Where{Issuer: "https://id.example", SID: "sid1", Subject: "sub-ann"}, "ann2 bob1"},
			{"another provider's", session.Where{Issuer: "https://other.example", SID: "sid1"}, "ann1 ann2 bob1"},
		} {
			all := []session.Session{aSession("ann", 1), aSession("ann", 2), aSession("bob", 1)}
			_, err := s.End(ctx, session.Where{Issuer: all[0].Issuer, Subject: "sub-ann"})
			wants(t, "clean", err, nil)
			_, err = s.End(ctx, session.Where{Account: "bob"})
			wants(t, "clean", err, nil)
			put(t, s, all...)
			ended, err := s.End(ctx, c.where)
			wants(t, c.name, err, nil)
			left := ""
			for _, one := range all {
				if _, err := s.Get(ctx, one.Hash); err == nil {
					left += " " + one.ID[len("s-"):]
				}
			}
			same(t, c.name, left, " "+c.want)
			for _, h := range ended {
				if _, err := s.Get(ctx, h); err == nil {
					t.Errorf("%s: one that is there is told as ended", c.name)
				}
			}
			same(t, c.name+": how many", len(ended), 3-len(c.want)/5-1)
		}
	})
}

// Trap 49: an id that is handed out while all sessions are being ended ends, too.
func TestNothingOutlivesEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		ctx := t.Context()
		a, b := open().Sessions(), open().Sessions()
		for n := range 50 {
			one := aSession("ann", n)
			issuer := one.Issuer
			put(t, a, one)
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := range 20 { // a chain of rotations
					next := one
					next.Hash = hashOf(fmt.Sprint(n, "-", i))
					if a.Rotate(context.Background(), one.Hash, one.Expires, next) != nil {
						return
					}
					one = next
				}
			})
			wg.Go(func() {
				time.Sleep(time.Duration(n%10) * 300 * time.Microsecond)
				var err error
				if n%2 == 0 {
					_, err = b.End(ctx, session.Where{Account: "ann"})
				} else {
					_, err = b.End(ctx, session.Where{Issuer: issuer, Subject: "sub-ann"})
				}
				wants(t, "end", err, nil)
			})
			wg.Wait()
			left, err := b.End(ctx, session.Where{Account: "ann"})
			if err != nil || len(left) > 0 {
				t.Fatalf("%d sessions outlived their end, %v", len(left), err)
			}
		}
	})
}

func TestGone(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		s := open().Sessions()
		var all, want []session.Hash
		for n := range 600 {
			h := hashOf(fmt.Sprint("ann", n))
			all = append(all, h)
			if n%60 == 0 {
				put(t, s, aSession("ann", n))
			} else {
				want = append(want, h)
			}
		}
		for _, n := range []int{0, 1, 16, 17, 256, 257, 600} {
			got, err := s.Gone(t.Context(), all[:n])
			wants(t, "gone", err, nil)
			same(t, fmt.Sprint(n), len(got), n-(n+59)/60)
			if n == 600 {
				same(t, "gone", got, want)
			}
		}
	})
}

func TestExpiredSessionsAreForgotten(t *testing.T) {
	onBoth(t, func(t *testing.T, open func() *store.DB) {
		s := open().Sessions()
		put(t, s, aSession("ann", 0), aSession("bob", 26*3600))
		_, err := s.Get(t.Context(), hashOf("ann0"))
		wants(t, "a day after its end", err, session.ErrNotFound)
	})
}

// Ending many tells of all of them, and a lost server ends the watch.
func TestManyEndsAreTold(t *testing.T) {
	open := inServer(t)
	one, other := open(), open()
	for n := range 250 {
		if _, err := one.Sessions().Put(t.Context(), aSession("ann", n), 1000); err != nil {
			t.Fatal(err)
		}
	}
	ready, told, left := make(chan struct{}), make(chan int, 10), make(chan error, 1)
	go func() {
		left <- other.Sessions().Watch(t.Context(), func() { close(ready) }, func(h []session.Hash) { told <- len(h) })
	}()
	<-ready
	if _, err := one.Sessions().End(t.Context(), session.Where{Account: "ann"}); err != nil {
		t.Fatal(err)
	}
	got := 0
	for got < 250 {
		select {
		case n := <-told:
			got += n
		case <-time.After(10 * time.Second):
			t.Fatalf("told of %d", got)
		}
	}
	if err := one.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-left:
		if err == nil {
			t.Error("a watch that was lost has no error")
		}
	case <-time.After(10 * time.Second):
		t.Error("the watch goes on although its connection is lost")
	}
}

// A server that was restarted is found again.
func TestRestartedServer(t *testing.T) {
	open := inServer(t)
	db := open()
	create(t, db.Accounts(), named("ann"))
	if err := db.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := open().Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := db.Accounts().ByName(t.Context(), "ann"); err != nil {
			t.Error(err)
		}
	}
}
