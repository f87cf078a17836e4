// Package bantest holds a store of bans to what package ban asks of it. It
// knows nothing of how a store fails; that is for the store's own tests.
package bantest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/ban"
)

// noon is when the bans of these tests begin.
func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC) }

// A aBan lasts so many minutes from noon.
func aBan(site, key string, minutes int) ban.Ban {
	return ban.Ban{
		Site: site, Key: key, Since: noon(), Until: noon().Add(time.Duration(minutes) * time.Minute),
		Times: 1, Why: "touched a decoy, \"/.env\" – ünïcode", By: "merlon",
	}
}

// An Open opens one new empty store twice, as two processes do.
type Open func(t *testing.T) (one, other ban.Store)

// TestStore runs every promise of [ban.Store] against fresh stores.
func TestStore(t *testing.T, open Open) {
	for name, test := range map[string]func(t *testing.T, one, other ban.Store){
		"bans come back as they were":           comeBack,
		"the version tells what has changed":    versions,
		"the one that ends later stays":         laterStays,
		"what is lifted is gone":                lifted,
		"what has ended long ago is forgotten":  forgotten,
		"beyond the bound the next to end go":   bounded,
		"many at once lose nothing":             parallel,
		"a context that has ended ends a step":  cancelled,
		"site and key are told apart, any text": apart,
	} {
		t.Run(name, func(t *testing.T) {
			one, other := open(t)
			test(t, one, other)
		})
	}
}

func put(t *testing.T, s ban.Store, list ...ban.Ban) {
	t.Helper()
	if dropped, err := s.Put(t.Context(), list, 1000, noon()); err != nil || dropped != 0 {
		t.Fatalf("put: %d dropped, %v", dropped, err)
	}
}

func list(t *testing.T, s ban.Store) []ban.Ban {
	t.Helper()
	l, _, err := s.List(t.Context(), "none")
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(l, func(a, b ban.Ban) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Site, b.Site)) })
	return l
}

func has(t *testing.T, s ban.Store, want ...ban.Ban) {
	t.Helper()
	slices.SortFunc(want, func(a, b ban.Ban) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Site, b.Site)) })
	if got := list(t, s); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func comeBack(t *testing.T, one, other ban.Store) {
	has(t, one)
	a, b := aBan("shop.example.com", "client 203.0.113.7", 5), aBan("", "user 01J", 60)
	b.Times, b.Why, b.By = 7, "", "root (sudo by ann)"
	put(t, one, a, b)
	has(t, other, a, b)
	put(t, one) // nothing is no mistake
	has(t, other, a, b)
}

func versions(t *testing.T, one, other ban.Store) {
	ctx := t.Context()
	l, v0, err := one.List(ctx, "")
	if err != nil || len(l) != 0 || v0 != "" {
		t.Errorf("empty: %v, version %q, %v", l, v0, err)
	}
	put(t, one, aBan("", "user a", 1))
	l, v1, err := other.List(ctx, v0)
	if err != nil || len(l) != 1 || v1 == v0 {
		t.Errorf("one: %v, version %q, %v", l, v1, err)
	}
	if l, v, err := other.List(ctx, v1); err != nil || len(l) != 0 || v != v1 {
		t.Errorf("unchanged: %v, version %q, want %q, %v", l, v, v1, err)
	}
	if _, err := other.Lift(ctx, "", "user a"); err != nil {
		t.Fatal(err)
	}
	if l, v, err := one.List(ctx, v1); err != nil || len(l) != 0 || v == v1 || v == "" {
		t.Errorf("lifted: %v, version %q, %v", l, v, err)
	}
}

func laterStays(t *testing.T, one, other ban.Store) {
	long, short := aBan("s", "user a", 60), aBan("s", "user a", 1)
	short.Times = 3
	put(t, one, long)
	put(t, other, short)
	has(t, one, long)
	longer := aBan("s", "user a", 61)
	longer.Times, longer.Why = 4, "again"
	put(t, other, longer)
	has(t, one, longer)
	same := longer
	same.Why = "at the same moment"
	put(t, one, same)
	has(t, other, same)
}

func lifted(t *testing.T, one, other ban.Store) {
	ctx := t.Context()
	here, there, all := aBan("here", "user a", 1), aBan("there", "user a", 1), aBan("", "user a", 1)
	put(t, one, here, there, all)
	if ok, err := other.Lift(ctx, "here", "user a"); err != nil || !ok {
		t.Errorf("lift: %v, %v", ok, err)
	}
	if ok, err := one.Lift(ctx, "here", "user a"); err != nil || ok {
		t.Errorf("lift again: %v, %v", ok, err)
	}
	has(t, one, there, all)
	put(t, one, here)
	has(t, other, here, there, all)
}

func forgotten(t *testing.T, one, other ban.Store) {
	old, fresh := aBan("s", "user old", 1), aBan("s", "user fresh", 30)
	put(t, one, old, fresh)
	late := aBan("s", "user late", 0)
	late.Since, late.Until = noon().Add(ban.Remembered+10*time.Minute), noon().Add(ban.Remembered+time.Hour)
	if dropped, err := other.Put(t.Context(), []ban.Ban{late}, 1000, late.Since); err != nil || dropped != 0 {
		t.Errorf("put: %d dropped, %v; what is forgotten is not counted", dropped, err)
	}
	has(t, one, fresh, late)
}

func bounded(t *testing.T, one, other ban.Store) {
	put(t, one, aBan("s", "user 5", 5), aBan("s", "user 1", 1), aBan("s", "user 3", 3))
	two, four := aBan("s", "user 2", 2), aBan("s", "user 4", 4)
	dropped, err := other.Put(t.Context(), []ban.Ban{two, four}, 3, noon())
	if err != nil || dropped != 2 {
		t.Errorf("%d dropped, %v, want 2", dropped, err)
	}
	has(t, one, aBan("s", "user 3", 3), four, aBan("s", "user 5", 5))
}

func parallel(t *testing.T, one, other ban.Store) {
	const writers, each = 8, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			s := []ban.Store{one, other}[w%2]
			for i := range each {
				// Half of the keys are everybody's.
				b := aBan("s", fmt.Sprintf("user %d-%d", w*(i%2), i), 1+w)
				if _, err := s.Put(t.Context(), []ban.Ban{b}, 1000, noon()); err != nil {
					t.Error(err)
				}
				if _, _, err := s.List(t.Context(), ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := list(t, one)
	if want := each/2 + each/2*writers; len(got) != want {
		t.Errorf("%d bans, want %d", len(got), want)
	}
	for _, b := range got {
		if b.Key == "user 0-0" && b.Until != noon().Add(writers*time.Minute) {
			t.Errorf("%s ends at %s, not when the last to end does", b.Key, b.Until)
		}
	}
}

func cancelled(t *testing.T, one, _ ban.Store) {
	if _, ok := one.(*ban.Memory); ok {
		return // does not wait for anything
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := one.Put(ctx, []ban.Ban{aBan("s", "user a", 1)}, 10, noon()); err == nil {
		t.Error("put went on")
	}
	if _, _, err := one.List(ctx, ""); err == nil {
		t.Error("list went on")
	}
	has(t, one)
}

func apart(t *testing.T, one, other ban.Store) {
	bans := []ban.Ban{
		aBan("a", "user b c", 1), aBan("a user", "user b c", 1), aBan("", "user a|b", 1), aBan("", "user '); DROP TABLE bans; --", 1),
		aBan("", "user A", 1), aBan("", "user a", 1), aBan("", "user ä\r\n{x}", 1), aBan("[2001:db8::1]", "network 2001:db8::/64", 1),
	}
	put(t, one, bans...)
	has(t, other, bans...)
}
