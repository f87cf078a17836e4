package attempts_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/secrets"
)

func newBackend(t *testing.T, s attempts.Store) *world {
	t.Helper()
	k, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, now: time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)}
	few := attempts.Schedule{Free: 3, First: 10 * time.Second, Longest: time.Hour, Forget: time.Hour}
	w.th, err = attempts.NewBackend(attempts.Config{}, attempts.BackendConfig{
		Users: few, Addresses: few, Share: 60, Least: 20, Passes: 2, Now: func() time.Time { return w.now },
		All: attempts.Schedule{Free: 5, First: time.Second, Longest: 4 * time.Second, Forget: 10 * time.Second},
	}, k, s, func(n attempts.Notice) { w.notices = append(w.notices, n) })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func far(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 1}) }

func backendTry(n int, user string) attempts.Try {
	return attempts.Try{Kind: attempts.Backend, Place: "shop", Account: user, Client: far(n), Password: fmt.Sprint("p", n, user)}
}

// fail makes a try that fails, and returns what had to wait instead.
func (w *world) failAt(try attempts.Try) attempts.Wait {
	k, wait := w.th.Begin(ctx, try)
	if wait.OK() {
		k.Failed()
	}
	return wait
}

func TestBackendBuckets(t *testing.T) {
	t.Run("distinct addresses of one account", func(t *testing.T) {
		w := newBackend(t, nil)
		for i := range 4 {
			if wait := w.failAt(backendTry(i, "ann")); !wait.OK() {
				t.Fatalf("%d: %+v", i, wait)
			}
		}
		if wait := w.failAt(backendTry(9, "ann")); wait.By != "addresses" {
			t.Errorf("%+v", wait)
		}
	})
	t.Run("distinct accounts of one address", func(t *testing.T) {
		w := newBackend(t, nil)
		for i := range 4 {
			if wait := w.failAt(backendTry(1, fmt.Sprint("user", i))); !wait.OK() {
				t.Fatalf("%d: %+v", i, wait)
			}
		}
		if wait := w.failAt(backendTry(1, "ann")); wait.By != "users" {
			t.Errorf("%+v", wait)
		}
	})
	t.Run("places share nothing", func(t *testing.T) {
		w := newBackend(t, nil)
		for i := range 9 {
			w.failAt(backendTry(i, "ann"))
		}
		other := backendTry(1, "ann")
		other.Place = "blog"
		if wait := w.failAt(other); !wait.OK() {
			t.Errorf("%+v", wait)
		}
	})
	t.Run("a pass is good for few tries, wherever", func(t *testing.T) {
		w := newBackend(t, nil)
		for i := range 9 {
			w.failAt(backendTry(i, "ann"))
		}
		for i := range 4 {
			try := backendTry(i, "ann")
			try.Pass = "p"
			wait := w.failAt(try)
			if i < 3 && !wait.OK() || i == 3 && wait.By != "pass" {
				t.Errorf("%d: %+v", i, wait)
			}
		}
	})
	t.Run("one success of one's own forgives others nothing", func(t *testing.T) {
		w := newBackend(t, nil)
		for i := range 4 {
			w.failAt(backendTry(1, fmt.Sprint("user", i)))
		}
		w.now = w.now.Add(11 * time.Second)
		k, wait := w.th.Begin(ctx, backendTry(1, "eve"))
		if !wait.OK() {
			t.Fatalf("%+v", wait)
		}
		k.Succeeded()
		k.Succeeded()
		w.failAt(backendTry(1, "user8"))
		if wait := w.failAt(backendTry(1, "user9")); wait.By != "users" {
			t.Errorf("%+v", wait)
		}
	})
	t.Run("forgiven", func(t *testing.T) {
		w := newBackend(t, nil)
		for i := range 30 {
			w.failAt(backendTry(i, "ann"))
		}
		if err := w.th.ForgiveAt(ctx, "shop", "ann"); err != nil {
			t.Fatal(err)
		}
		if wait := w.failAt(backendTry(99, "ann")); !wait.OK() {
			t.Errorf("%+v", wait)
		}
	})
}

func TestBackendShare(t *testing.T) {
	succeed := func(w *world, n int) {
		if k, wait := w.th.Begin(ctx, backendTry(n, fmt.Sprint("user", n))); wait.OK() {
			k.Succeeded()
		}
	}
	w := newBackend(t, nil)
	for i := range 100 { // a minute in which most are right
		succeed(w, i)
		if i%4 == 0 {
			w.failAt(backendTry(i, fmt.Sprint("user", i)))
		}
	}
	if w.th.Strained() {
		t.Error("a fifth fails, as on every Monday")
	}
	w = newBackend(t, nil)
	for range 100 {
		w.failAt(backendTry(1, "ann"))
		w.failAt(attempts.Try{Kind: attempts.Backend, Client: far(1)})
	}
	if w.th.Strained() {
		t.Error("one address alone has strained the log-in")
	}
	for i := range 20 {
		w.failAt(backendTry(i, fmt.Sprint("user", i)))
	}
	if !w.th.Strained() || w.told(attempts.RateHigh) != 1 {
		t.Errorf("strained %v, told %d times", w.th.Strained(), w.told(attempts.RateHigh))
	}
	in := 0
	for i := range 100 {
		if wait := w.failAt(backendTry(200+i, fmt.Sprint("other", i))); wait.OK() {
			in++
		} else if wait.By != "all" || wait.For > 4*time.Second {
			t.Fatalf("%+v", wait)
		}
	}
	if in > 6 {
		t.Errorf("%d got in while the log-in is strained", in)
	}
	k, wait := w.th.Begin(ctx, attempts.Try{Kind: attempts.Backend, Place: "shop", Account: "ann", Client: far(1), Device: []byte("d")})
	if !wait.OK() {
		t.Errorf("a known device waits with others: %+v", wait)
	} else {
		k.Succeeded()
	}
	w.now = w.now.Add(11 * time.Minute)
	if w.th.Strained() {
		t.Error("for ever")
	}
}

func TestUnsure(t *testing.T) {
	w := newBackend(t, nil)
	let := 0
	for range 200 {
		if k, wait := w.th.Begin(ctx, backendTry(1, "ann")); wait.OK() {
			let++
			k.Unsure()
		}
	}
	if let < 10 || let > 20 {
		t.Errorf("%d were let in", let)
	}
}
