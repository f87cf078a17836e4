package ban_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/ban/bantest"
)

func TestMemory(t *testing.T) {
	bantest.TestStore(t, func(*testing.T) (one, other ban.Store) {
		m := ban.NewMemory()
		return m, m
	})
}

// byHand bans as the command line does.
func (w *world) byHand(key, site string) {
	w.Helper()
	k, err := ban.ParseKey(key)
	if err != nil {
		w.Fatal(err)
	}
	b := ban.Ban{Site: site, Key: k, Since: w.now(), Until: w.until(time.Hour), Times: 1, Why: "by hand", By: "root"}
	if _, err := w.store.Put(context.Background(), []ban.Ban{b}, ban.Most, w.now()); err != nil {
		w.Fatal(err)
	}
	w.sync()
}

func (w *world) sync() {
	w.Helper()
	if err := w.bans.Sync(context.Background()); err != nil {
		w.Fatal(err)
	}
}

// Two replicas and the command line share one store.
func TestReplicas(t *testing.T) {
	store := ban.NewMemory()
	one := newWorld(t, ban.Config{First: time.Hour}, options{store: store})
	two := newWorld(t, ban.Config{First: time.Hour}, options{store: store, clock: one.clock})
	one.times(1, visit{path: "/.env"})
	two.wants(visit{}, "") // not told yet
	one.sync()
	two.sync()
	two.wants(visit{}, ban.Banned)
	if ok, err := store.Lift(t.Context(), "shop.example.com", "client "+office); !ok || err != nil {
		t.Fatal(ok, err)
	}
	one.sync()
	two.sync()
	one.wants(visit{}, "")
	two.wants(visit{}, "")
	two.byHand("user u-eve", "")
	one.sync()
	one.wants(visit{header: "Cookie: s=eve"}, ban.Banned)
	two.byHand("network 198.0.0.0/8", "")
	one.sync()
	one.wants(visit{client: other}, ban.Banned)
}

// Run does what Sync does, each second and at once.
func TestRun(t *testing.T) {
	store := ban.NewMemory()
	one := newWorld(t, ban.Config{First: time.Hour}, options{store: store})
	two := newWorld(t, ban.Config{First: time.Hour}, options{store: store, clock: one.clock})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { one.bans.Run(ctx) })
	wg.Go(func() { two.bans.Run(ctx) })
	one.times(1, visit{path: "/.env"})
	for end := time.Now().Add(30 * time.Second); two.visit(visit{}).Passed(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the other replica has not heard of the ban")
		}
	}
	cancel()
	wg.Wait()
	// What is imposed as the process ends is not lost.
	done, cancel := context.WithCancel(t.Context())
	cancel()
	one.times(1, visit{client: other, path: "/.env"})
	one.bans.Run(done)
	if l, _, err := store.List(t.Context(), ""); err != nil || len(l) != 2 {
		t.Errorf("%+v %v", l, err)
	}
}

// A reload's new guards find the bans of the old ones.
func TestReload(t *testing.T) {
	w := newWorld(t, ban.Config{First: time.Hour}, options{})
	w.times(1, visit{path: "/.env"})
	newWorld(t, ban.Config{}, options{bans: w.bans, clock: w.clock}).wants(visit{}, ban.Banned)
}

// A store can be broken.
type failing struct {
	ban.Store
	mu  sync.Mutex
	err error
}

func (f *failing) set(err error) { f.mu.Lock(); defer f.mu.Unlock(); f.err = err }
func (f *failing) broken() error { f.mu.Lock(); defer f.mu.Unlock(); return f.err }
func (f *failing) Put(ctx context.Context, l []ban.Ban, n int, now time.Time) (int, error) {
	if err := f.broken(); err != nil {
		return 0, err
	}
	return f.Store.Put(ctx, l, n, now)
}
func (f *failing) List(ctx context.Context, have string) ([]ban.Ban, string, error) {
	if err := f.broken(); err != nil {
		return nil, "", err
	}
	return f.Store.List(ctx, have)
}

// A store that is down: what is known holds, what is new holds here and is
// written later, and it is told once.
func TestStoreDown(t *testing.T) {
	store := &failing{Store: ban.NewMemory()}
	w := newWorld(t, ban.Config{First: time.Hour}, options{store: store})
	w.times(1, visit{path: "/.env"})
	w.sync()
	store.set(errors.New("gone away"))
	for range 5 {
		if err := w.bans.Sync(t.Context()); err == nil {
			t.Error("the failure is not told")
		}
	}
	w.wants(visit{}, ban.Banned)
	w.times(1, visit{client: other, path: "/.env"})
	w.wants(visit{client: other}, ban.Banned)
	_ = w.bans.Sync(t.Context())
	if l, _, _ := store.Store.List(t.Context(), ""); len(l) != 1 {
		t.Fatalf("%+v", l)
	}
	store.set(nil)
	w.sync()
	w.sync()
	if l, _, _ := store.Store.List(t.Context(), ""); len(l) != 2 {
		t.Errorf("not written later: %+v", l)
	}
	if n := w.of(ban.BansUnshared); len(n) != 1 || !n[0].Alarm() || !strings.Contains(n[0].Err.Error(), "gone away") {
		t.Errorf("told %+v", n)
	}
	if n := w.of(ban.BansShared); len(n) != 1 || n[0].Alarm() {
		t.Errorf("told %+v", n)
	}
}

// A store that has lost everything gets it back.
func TestStoreFlushed(t *testing.T) {
	store := &failing{Store: ban.NewMemory()}
	w := newWorld(t, ban.Config{First: time.Hour}, options{store: store})
	w.times(1, visit{path: "/.env"})
	w.sync()
	store.Store = ban.NewMemory()
	w.sync()
	w.wants(visit{}, ban.Banned)
	w.sync()
	if l, _, _ := store.Store.List(t.Context(), ""); len(l) != 1 {
		t.Errorf("%+v", l)
	}
	w.wants(visit{}, ban.Banned)
	// What is lifted afterwards stays lifted.
	if _, err := store.Lift(t.Context(), "shop.example.com", "client "+office); err != nil {
		t.Fatal(err)
	}
	w.sync()
	w.sync()
	w.wants(visit{}, "")
}

// A smaller ban that has ended does not hide a larger one.
func TestEndedBanDoesNotHideTheNetworks(t *testing.T) {
	w := newWorld(t, ban.Config{First: time.Minute}, options{store: ban.NewMemory()})
	w.times(1, visit{path: "/.env"})
	w.byHand("network 203.0.0.0/16", "shop.example.com")
	w.pass(30 * time.Second) // the snapshot still has both
	w.wants(visit{}, ban.Banned)
	w.pass(40 * time.Second)
	w.wants(visit{}, ban.Banned)
	w.pass(time.Hour)
	w.wants(visit{}, "")
}

// There are never more than Most, and those that go are those that end soonest.
func TestBound(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a hundred thousand bans")
	}
	w := newWorld(t, ban.Config{First: time.Hour}, options{})
	w.times(1, visit{path: "/.env"}) // ends first
	w.pass(time.Second)
	for i := range ban.Most + 10 {
		w.bans.Impose(ban.Ban{Key: fmt.Sprintf("client 10.%d.%d.%d", i>>16, i>>8&255, i&255), Why: "test"}, 2*time.Hour, 2*time.Hour)
	}
	w.wants(visit{}, "")
	last := ban.Most + 9
	w.wants(visit{client: fmt.Sprintf("10.%d.%d.%d", last>>16, last>>8&255, last&255)}, ban.Banned)
	if n := w.of(ban.BansFull); len(n) != 1 || !n[0].Alarm() || n[0].Entries == 0 {
		t.Errorf("told %+v", n)
	}
}

func TestKeys(t *testing.T) {
	for text, want := range map[string]string{
		"203.0.113.7":                "client 203.0.113.7",
		"client 203.0.113.7":         "client 203.0.113.7",
		"::ffff:203.0.113.7":         "client 203.0.113.7",
		"64:ff9b::203.0.113.7":       "client 203.0.113.7",
		"203.0.113.0/24":             "network 203.0.113.0/24",
		"203.0.113.9/24":             "network 203.0.113.0/24",
		"network 203.0.113.7/32":     "client 203.0.113.7",
		"2001:db8:0:1::5":            "network 2001:db8:0:1::/64",
		"2001:DB8:0:1::5/128":        "network 2001:db8:0:1::5/128",
		"network 2001:db8::/32":      "network 2001:db8::/32",
		"user 01J9ZX":                "user 01J9ZX",
		"user https://id.example#42": "user https://id.example#42",
		"key mk_4f":                  "key mk_4f",
	} {
		got, err := ban.ParseKey(text)
		if err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", text, got, err, want)
		}
		if again, err := ban.ParseKey(got); err != nil || again != got {
			t.Errorf("%q becomes %q, %v", got, again, err)
		}
	}
	for _, text := range []string{
		"", "user ", "key ", "alice", "user a\nb", "user \xff", "user " + strings.Repeat("a", 400), "0.0.0.0/0", "10.0.0.0/7", "::/0", "2000::/3",
		"fe80::1%eth0", "203.0.113.7-203.0.113.9", "client", "network 10.8", "client user a", "203.0.113.7 ",
	} {
		if got, err := ban.ParseKey(text); err == nil {
			t.Errorf("%q is taken as %q", text, got)
		}
	}
	for _, odd := range []string{"a\nb", "\xff", strings.Repeat("a", 400), ""} {
		if k, err := ban.ParseKey(ban.KeyOfUser(odd)); err != nil || k != ban.KeyOfUser(odd) || k == ban.KeyOfUser(odd+"x") {
			t.Errorf("%.10q: %q %v", odd, k, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"203.0.113.7", "network 2001:db8::/32", "user a", "key mk_", "::ffff:1.2.3.4/120", "64:ff9b::1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := ban.ParseKey(text)
		if err != nil {
			return
		}
		if again, err := ban.ParseKey(key); err != nil || again != key {
			t.Errorf("%q becomes %q, and that %q, %v", text, key, again, err)
		}
	})
}
