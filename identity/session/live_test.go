package session_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon/identity/session"
)

func TestWhatIsKnownMakesRoom(t *testing.T) {
	w := withRealClock(t, session.Config{})
	_, c := w.begin("ann")
	open := w.m.Crowd(c)
	before := open()
	w.holds("among very many", c)
	if n := w.m.Live(); n != session.PerShard {
		t.Errorf("%d are known, want %d", n, session.PerShard)
	}
	// Of 16 that are looked at, one without connections goes first.
	if after := open(); after < before-1 {
		t.Errorf("%d connections were closed", before-after)
	}
}

func TestTouching(t *testing.T) {
	down := errors.New("down")
	t.Run("a store that fails is told later", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		s, c := w.begin("ann", "password", "totp")
		w.holds("read", c)
		w.clock.add(10 * time.Minute)
		w.store.setErr(down)
		w.holds("what was read just now holds", c)
		w.store.setErr(nil)
		w.clock.add(time.Second)
		w.holds("again", c)
		if got, err := w.store.Get(t.Context(), s.Hash); err != nil || !got.Seen.Equal(w.clock.Now()) {
			t.Errorf("the store says %v: %v", got.Seen, err)
		}
	})
	t.Run("a person's requests within the step are not told", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		s, c := w.begin("ann", "password", "totp")
		w.clock.add(59 * time.Second)
		w.holds("in use", c)
		if got, err := w.store.Get(t.Context(), s.Hash); err != nil || !got.Seen.Equal(s.Seen) {
			t.Errorf("the store was told after 59 seconds: %v", err)
		}
	})
	t.Run("what ended elsewhere is noticed at once", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		_, c := w.begin("ann", "password", "totp")
		w.holds("read", c)
		if _, err := w.store.End(t.Context(), session.Where{Account: "ann"}); err != nil {
			t.Fatal(err)
		}
		w.clock.add(10 * time.Minute)
		w.refuses("touched", request(c), session.Ended)
	})
	t.Run("what was rotated elsewhere has its grace", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		s, c := w.begin("ann", "password", "totp")
		w.holds("read", c)
		w.clock.add(10 * time.Minute)
		next := s
		next.Hash[0]++
		if err := w.store.Rotate(t.Context(), s.Hash, w.clock.Now().Add(5*time.Second), next); err != nil {
			t.Fatal(err)
		}
		w.holds("in grace", c)
		w.clock.add(5 * time.Second)
		w.refuses("after it", request(c), session.Ended)
	})
}

func TestStoreThatPanics(t *testing.T) {
	w := withRealClock(t, session.Config{})
	_, c := w.begin("ann")
	w.store.panics.Store(true)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("nobody was told")
			}
		}()
		_, _ = w.m.Prove(request(c))
	}()
	w.store.panics.Store(false)
	w.holds("the next", c)
}

func TestStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := withRealClock(t, session.Config{})
		_, c := w.begin("ann")
		w.store.hangs.Store(true)
		began := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { w.refuses("it hangs", request(c), session.Unavailable) })
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wg.Go(func() {
			time.Sleep(time.Millisecond)
			r := request(c)
			r.Request = r.WithContext(impatient)
			w.refuses("it hangs", r, session.Unavailable)
			if took := time.Since(began); took > 1100*time.Millisecond {
				t.Errorf("a client that is gone is waited for %v", took)
			}
		})
		wg.Wait()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("ten that wait together waited %v", took)
		}
		w.store.hangs.Store(false)
		w.holds("when it answers again", c)
		w.shut()
	})
}

func TestHashText(t *testing.T) {
	var h session.Hash
	for _, bad := range []string{"", "00", h.String()[1:] + "g", h.String() + "0"} {
		if err := h.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is a hash", bad)
		}
	}
	if err := h.UnmarshalText([]byte("ff" + h.String()[2:])); err != nil || h[0] != 0xff {
		t.Error(h, err)
	}
}
