// Package sessiontest holds the promises of a [session.Store] as a test that
// every store runs.
//
// It cannot know how a store fails, so that is for the store's own tests.
package sessiontest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/session"
)

// Open returns two replicas' views of one store in which there is nothing yet.
// They may be one.
type Open func(t *testing.T) (one, other session.Store)

// New returns a session of an account that begins at a time and lasts an hour,
// a day at most.
func New(account string, at time.Time) session.Session {
	at = at.UTC().Truncate(time.Microsecond)
	s := session.Session{
		ID: rand.Text(), Account: account, Site: "shop.example", Methods: []string{"password", "totp"}, Level: 2,
		Created: at, Issued: at, Proved: at, Raised: at, Seen: at, Until: at.Add(24 * time.Hour), Expires: at.Add(time.Hour),
		Client: netip.MustParseAddr("2001:db8::1"), Agent: "Mozilla/5.0 „curly“", Rights: "r",
	}
	_, _ = rand.Read(s.Hash[:])
	return s
}

// now is the same for every session of a test: only differences count.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// TestStore tests what every store promises.
func TestStore(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, one, other session.Store)
	}{
		{"what is put is got", whatIsPutIsGot},
		{"what is not there is not found", notThere},
		{"touching moves the end to later only", touching},
		{"one too many ends the oldest", oneTooMany},
		{"trap 49: fifty at once leave as many as may be", fiftyAtOnce},
		{"rotating retires the old id", rotating},
		{"trap 49: of twenty that rotate, one can", rotatingAtOnce},
		{"what ends while it is rotated is gone", endingRotated},
		{"ending selects", ending},
		{"the list has what holds, the newest first", listing},
		{"many are asked about at once", gone},
	} {
		t.Run(c.name, func(t *testing.T) {
			one, other := open(t)
			c.test(t, one, other)
		})
	}
}

// TestWatch tests a store that tells other replicas what ends.
func TestWatch(t *testing.T, open Open) {
	one, other := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready, told, left := make(chan struct{}), make(chan session.Hash, 100), make(chan error, 1)
	go func() {
		left <- other.Watch(ctx, func() { close(ready) }, func(hashes []session.Hash) {
			for _, h := range hashes {
				told <- h
			}
		})
	}()
	wait(t, ready, "the watch is not ready")
	expect := func(why string, want ...session.Hash) {
		t.Helper()
		for range want {
			select {
			case h := <-told:
				if !slices.Contains(want, h) {
					t.Errorf("%s: told of %s, which is none of those that ended", why, h)
				}
			case <-time.After(2 * time.Second):
				t.Fatalf("%s: nobody was told", why)
			}
		}
	}
	a, b, c := New("ann", now()), New("ann", now().Add(time.Second)), New("ann", now().Add(2*time.Second))
	put(t, one, a, 1)
	put(t, one, b, 1)
	expect("one too many", a.Hash)
	put(t, one, c, 2)
	end(t, one, session.Where{Account: "ann"})
	expect("ended", b.Hash, c.Hash)
	cancel()
	select {
	case err := <-left:
		if err == nil {
			t.Error("a watch that is over returns no error")
		}
	case <-time.After(2 * time.Second):
		t.Error("the watch goes on although its context is done")
	}
}

func whatIsPutIsGot(t *testing.T, one, other session.Store) {
	full := New("account {with} strange: *?[x] \"signs\"", now())
	full.Issuer, full.Subject, full.SID = "https://idp.example/", "{sub}", "sid:1"
	full.Hint = bytes.Repeat([]byte{0, 0xff, '"'}, session.MaxHint/3)
	plain := session.Session{
		Hash: New("", now()).Hash, ID: rand.Text(), Account: "bob", Methods: []string{"passkey"}, Level: 3,
		Created: now(), Issued: now(), Proved: now(), Raised: now(), Seen: now(), Until: now().Add(time.Hour), Expires: now().Add(time.Hour),
	}
	mapped := New("eve", now())
	mapped.Client = netip.MustParseAddr("192.0.2.7")
	for _, s := range []session.Session{full, plain, mapped} {
		put(t, one, s, 10)
		has(t, other, s)
	}
}

func notThere(t *testing.T, one, _ session.Store) {
	ctx, s := t.Context(), New("ann", now())
	if _, err := one.Get(ctx, s.Hash); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if err := one.Touch(ctx, s.Hash, now(), now()); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Touch: %v", err)
	}
	if err := one.Rotate(ctx, s.Hash, now(), New("ann", now())); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Rotate: %v", err)
	}
	list(t, one, "ann", now())
	for _, w := range []session.Where{{Account: "ann"}, {Issuer: "i", SID: "s"}, {Issuer: "i", Subject: "s"}} {
		if n := end(t, one, w); len(n) != 0 {
			t.Errorf("End(%+v) ended %d", w, len(n))
		}
	}
}

func touching(t *testing.T, one, other session.Store) {
	ctx, s := t.Context(), New("ann", now())
	put(t, one, s, 10)
	touch := func(seen, expires time.Duration) {
		t.Helper()
		if err := other.Touch(ctx, s.Hash, s.Created.Add(seen), s.Created.Add(expires)); err != nil {
			t.Fatal(err)
		}
	}
	touch(10*time.Minute, 70*time.Minute)
	s.Seen, s.Expires = s.Created.Add(10*time.Minute), s.Created.Add(70*time.Minute)
	has(t, one, s)
	touch(5*time.Minute, 65*time.Minute) // trap 49: the clock went back
	has(t, one, s)
	touch(23*time.Hour+30*time.Minute, 25*time.Hour) // trap 49: never beyond the absolute end
	s.Seen, s.Expires = s.Created.Add(23*time.Hour+30*time.Minute), s.Until
	has(t, one, s)

	next := New("ann", now())
	next.ID = s.ID
	if err := one.Rotate(ctx, s.Hash, now().Add(5*time.Second), next); err != nil {
		t.Fatal(err)
	}
	if err := one.Touch(ctx, s.Hash, now(), now().Add(time.Hour)); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("a retired session was touched: %v", err)
	}
}

func oneTooMany(t *testing.T, one, other session.Store) {
	at := now()
	var all []session.Session
	for i := range 4 {
		s := New("ann", at.Add(time.Duration(i)*time.Second))
		all = append(all, s)
	}
	bystander := New("bob", at.Add(-time.Minute))
	bystander.Expires = bystander.Until
	put(t, one, bystander, 3)
	for _, s := range all[:3] {
		if ended := put(t, one, s, 3); len(ended) != 0 {
			t.Errorf("%d ended although there is room", len(ended))
		}
	}
	if ended := put(t, other, all[3], 3); !reflect.DeepEqual(ended, []session.Hash{all[0].Hash}) {
		t.Errorf("ended %v, want the oldest", ended)
	}
	list(t, one, "ann", at, all[3], all[2], all[1])
	lost(t, one, all[0])

	// A retired id belongs to a session that is counted once, and ends with it.
	next := all[1]
	next.Hash = New("", at).Hash
	if err := one.Rotate(t.Context(), all[1].Hash, at.Add(5*time.Second), next); err != nil {
		t.Fatal(err)
	}
	list(t, one, "ann", at, all[3], all[2], next)
	late := New("ann", at.Add(-time.Hour)) // trap 49: the clock went back
	late.Until, late.Expires = at.Add(time.Hour), at.Add(time.Hour)
	put(t, one, late, 3)
	lost(t, one, next)
	lost(t, one, all[1])
	list(t, one, "ann", at, all[3], all[2], late)

	// With a smaller bound several end.
	last := New("ann", at.Add(time.Minute))
	if ended := put(t, one, last, 1); len(ended) != 3 {
		t.Errorf("%d ended, want 3", len(ended))
	}
	list(t, one, "ann", at, last)

	// What has expired is not counted, and need not be there.
	later := New("ann", last.Expires.Add(time.Second))
	put(t, one, later, 1)
	list(t, one, "ann", later.Issued, later)
	has(t, one, bystander)
}

func fiftyAtOnce(t *testing.T, one, other session.Store) {
	const atMost = 5
	all := make([]session.Session, 50)
	at := now()
	var wg sync.WaitGroup
	for i := range all {
		all[i] = New("ann", at.Add(time.Duration(i)*time.Millisecond))
		wg.Go(func() {
			store := one
			if i%2 == 1 {
				store = other
			}
			if _, err := store.Put(t.Context(), all[i], atMost); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	there := 0
	for _, s := range all {
		if _, err := one.Get(t.Context(), s.Hash); err == nil {
			there++
		} else if !errors.Is(err, session.ErrNotFound) {
			t.Fatal(err)
		}
	}
	l, err := one.List(t.Context(), "ann", at)
	if err != nil || len(l) != atMost || there != atMost {
		t.Errorf("%d are listed and %d can be used, want %d: %v", len(l), there, atMost, err)
	}
}

func rotating(t *testing.T, one, other session.Store) {
	ctx, at := t.Context(), now()
	s := New("ann", at)
	s.Issuer, s.SID = "https://idp.example", "1"
	put(t, one, s, 10)
	next := s
	next.Hash, next.Level, next.Issued = New("", at).Hash, 3, at.Add(time.Minute)
	for _, wrong := range []func(*session.Session){
		func(s *session.Session) { s.Account = "bob" },
		func(s *session.Session) { s.ID = "another" },
	} {
		n := next
		wrong(&n)
		if err := other.Rotate(ctx, s.Hash, at.Add(5*time.Second), n); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("rotated into another session: %v", err)
		}
		lost(t, one, n)
	}
	if err := other.Rotate(ctx, s.Hash, at.Add(5*time.Second), next); err != nil {
		t.Fatal(err)
	}
	has(t, one, next)
	s.Retired, s.Expires = true, at.Add(5*time.Second)
	has(t, one, s)
	list(t, one, "ann", at, next)
	again := next
	again.Hash = New("", at).Hash
	if err := one.Rotate(ctx, s.Hash, at.Add(5*time.Second), again); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("a retired id was rotated: %v", err)
	}
	lost(t, one, again)
	if ended := end(t, other, session.Where{Issuer: "https://idp.example", SID: "1"}); len(ended) != 2 {
		t.Errorf("%d ids ended, want the new and the retired", len(ended))
	}
	lost(t, one, s)
	lost(t, one, next)
}

func rotatingAtOnce(t *testing.T, one, other session.Store) {
	s := New("ann", now())
	put(t, one, s, 10)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 20 {
		wg.Go(func() {
			next := s
			next.Hash = New("", now()).Hash
			err := []session.Store{one, other}[i%2].Rotate(t.Context(), s.Hash, now().Add(5*time.Second), next)
			if err != nil && !errors.Is(err, session.ErrNotFound) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if l, err := one.List(t.Context(), "ann", now()); err != nil || won != 1 || len(l) != 1 {
		t.Errorf("%d rotated it, %d are listed, want one: %v", won, len(l), err)
	}
}

func endingRotated(t *testing.T, one, other session.Store) {
	for range 50 {
		s := New("ann", now())
		put(t, one, s, 10)
		next := s
		next.Hash = New("", now()).Hash
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := one.Rotate(t.Context(), s.Hash, now().Add(5*time.Second), next); err != nil && !errors.Is(err, session.ErrNotFound) {
				t.Error(err)
			}
		})
		wg.Go(func() { end(t, other, session.Where{Account: "ann", ID: s.ID}) })
		wg.Wait()
		lost(t, one, s)
		lost(t, one, next)
	}
}

func ending(t *testing.T, one, other session.Store) {
	at := now()
	make := func(account, issuer, subject, sid string) session.Session {
		s := New(account, at)
		s.Issuer, s.Subject, s.SID = issuer, subject, sid
		put(t, one, s, 10)
		return s
	}
	a1, a2, a3 := make("ann", "", "", ""), make("ann", "https://a", "7", "x"), make("ann", "https://a", "7", "y")
	b1, b2 := make("bob", "https://a", "8", "x"), make("bob", "https://b", "7", "x")
	for _, c := range []struct {
		where session.Where
		want  []session.Session
	}{
		{session.Where{}, nil},
		{session.Where{ID: a1.ID}, nil},
		{session.Where{Except: a1.ID}, nil},
		{session.Where{Issuer: "https://a"}, nil},
		{session.Where{Subject: "7"}, nil},
		{session.Where{SID: "x"}, nil},
		{session.Where{Account: "bob", ID: a1.ID}, nil}, // only one's own
		{session.Where{Account: "ann", ID: a1.ID}, []session.Session{a1}},
		{session.Where{Issuer: "https://a", Subject: "7", SID: "x"}, []session.Session{a2}},
		{session.Where{Issuer: "https://b", SID: "x"}, []session.Session{b2}},
		{session.Where{Issuer: "https://a", Subject: "8"}, []session.Session{b1}},
		{session.Where{Account: "ann", Except: a3.ID}, nil},
		{session.Where{Account: "ann"}, []session.Session{a3}},
	} {
		var want []session.Hash
		for _, s := range c.want {
			has(t, one, s)
			want = append(want, s.Hash)
		}
		found, err := other.Find(t.Context(), c.where)
		if err != nil || len(found) != len(want) || len(found) > 0 && found[0].Hash != want[0] {
			t.Errorf("Find(%+v) found %d, want %d: %v", c.where, len(found), len(want), err)
		}
		if got := end(t, other, c.where); !slices.Equal(got, want) {
			t.Errorf("End(%+v) ended %d, want %d", c.where, len(got), len(want))
		}
		for _, s := range c.want {
			lost(t, one, s)
		}
	}

	// Of two accounts that one provider session stands for, both end.
	c1, c2 := make("ann", "https://c", "1", "z"), make("bob", "https://c", "2", "z")
	if got, err := one.Find(t.Context(), session.Where{Issuer: "https://c", SID: "z"}); err != nil || len(got) != 2 {
		t.Errorf("%d found, want 2: %v", len(got), err)
	}
	if got := end(t, one, session.Where{Issuer: "https://c", SID: "z"}); len(got) != 2 {
		t.Errorf("%d ended, want 2", len(got))
	}
	lost(t, one, c1)
	lost(t, one, c2)
	// All but one.
	d1, d2, d3 := make("ann", "", "", ""), make("ann", "", "", ""), make("ann", "", "", "")
	if got := end(t, one, session.Where{Account: "ann", Except: d2.ID}); len(got) != 2 {
		t.Errorf("%d ended, want 2", len(got))
	}
	lost(t, one, d1)
	lost(t, one, d3)
	has(t, other, d2)
}

func listing(t *testing.T, one, other session.Store) {
	at := now()
	old, young, short := New("ann", at), New("ann", at.Add(time.Second)), New("ann", at.Add(2*time.Second))
	short.Expires = at.Add(time.Minute)
	for _, s := range []session.Session{young, old, short, New("bob", at)} {
		put(t, one, s, 10)
	}
	list(t, other, "ann", at, short, young, old)
	list(t, other, "ann", at.Add(time.Minute), young, old)
	list(t, other, "ann", at.Add(2*time.Hour))
	list(t, other, "nobody", at)
}

func gone(t *testing.T, one, other session.Store) {
	var hashes, want []session.Hash
	for i := range 2500 {
		s := New("a"+strconv.Itoa(i%100), now())
		hashes = append(hashes, s.Hash)
		if i%25 == 0 {
			put(t, one, s, 100)
		} else {
			want = append(want, s.Hash)
		}
	}
	got, err := other.Gone(t.Context(), hashes)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range [][]session.Hash{got, want} {
		slices.SortFunc(l, func(a, b session.Hash) int { return bytes.Compare(a[:], b[:]) })
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d are gone, want %d", len(got), len(want))
	}
	if got, err := other.Gone(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("of none, %d are gone: %v", len(got), err)
	}
}

func put(t *testing.T, store session.Store, s session.Session, atMost int) []session.Hash {
	t.Helper()
	ended, err := store.Put(t.Context(), s, atMost)
	if err != nil {
		t.Fatal(err)
	}
	return ended
}

func end(t *testing.T, store session.Store, w session.Where) []session.Hash {
	t.Helper()
	ended, err := store.End(t.Context(), w)
	if err != nil {
		t.Errorf("End(%+v): %v", w, err)
	}
	return ended
}

// has checks that s is there as it is.
func has(t *testing.T, store session.Store, s session.Session) {
	t.Helper()
	got, err := store.Get(t.Context(), s.Hash)
	if err != nil {
		t.Errorf("a session is not there: %v", err)
	} else if !reflect.DeepEqual(got, s) {
		t.Errorf("got  %+v\nwant %+v", got, s)
	}
}

func lost(t *testing.T, store session.Store, s session.Session) {
	t.Helper()
	if _, err := store.Get(t.Context(), s.Hash); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("a session is there that should not be: %v", err)
	}
}

func list(t *testing.T, store session.Store, account string, at time.Time, want ...session.Session) {
	t.Helper()
	got, err := store.List(t.Context(), account, at)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("%d are listed, want %d", len(got), len(want))
		return
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("%d. in the list is %+v\nwant %+v", i, got[i], want[i])
		}
	}
}

func wait(t *testing.T, c <-chan struct{}, why string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(2 * time.Second):
		t.Fatal(why)
	}
}
