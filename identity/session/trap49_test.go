package session_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/session"
)

func TestTrap49Fixation(t *testing.T) {
	t.Run("trap 49: an id that was made up is not adopted", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		planted := &http.Cookie{Name: session.Cookie, Value: strings.Repeat("A", 43)}
		w.refuses("before", request(planted), session.Ended)
		_, c, err := w.m.Begin(request(planted), session.Proof{Account: "ann", Methods: []string{"password"}})
		if err != nil || c.Value == planted.Value {
			t.Fatalf("the new id is the planted one: %v", err)
		}
		w.refuses("after", request(planted), session.Ended)
	})
	t.Run("trap 49: a session of the attacker's own ends when the victim logs in with it", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		_, planted := w.begin("bob")
		_, c, err := w.m.Begin(request(planted), session.Proof{Account: "ann", Methods: []string{"password"}})
		if err != nil {
			t.Fatal(err)
		}
		w.refuses("the planted", request(planted), session.Ended)
		if id := w.holds("the new", c); id.Subject != "ann" {
			t.Errorf("it is %s's", id.Subject)
		}
	})
	t.Run("trap 49: a planted second cookie proves nobody", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		_, ann := w.begin("ann")
		_, bob := w.begin("bob")
		w.refuses("two", request(bob, ann), session.TwoCookies)
		r := request(ann)
		r.Header.Add("Cookie", bob.String())
		w.refuses("in two fields", r, session.TwoCookies)
		w.refuses("the same twice", request(ann, ann), session.TwoCookies)
		// To log out ends both.
		if err := w.m.End(request(bob, ann)); err != nil {
			t.Fatal(err)
		}
		w.refuses("one", request(ann), session.Ended)
		w.refuses("the other", request(bob), session.Ended)
	})
}

func TestTrap49IDInURL(t *testing.T) {
	w := newWorld(t, session.Config{})
	_, c := w.begin("ann")
	for _, target := range []string{
		"https://shop.example/?" + session.Cookie + "=" + c.Value,
		"https://shop.example/;" + session.Cookie + "=" + c.Value,
		"https://shop.example/?Cookie=" + session.Cookie + "%3d" + c.Value,
		"https://" + session.Cookie + ":" + c.Value + "@shop.example/",
	} {
		r := merlon.NewRequest(httptest.NewRequest(http.MethodGet, target, nil))
		r.Site = "shop.example"
		if _, err := w.m.Prove(r); !errors.Is(err, merlon.ErrNoProof) {
			t.Errorf("trap 49: %s: %v", target, err)
		}
	}
	form := httptest.NewRequest(http.MethodPost, "https://shop.example/", strings.NewReader(session.Cookie+"="+c.Value))
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	form.Header.Set("Authorization", "Bearer "+c.Value)
	form.Header.Set("X-Session", c.Value)
	if _, err := w.m.Prove(merlon.NewRequest(form)); !errors.Is(err, merlon.ErrNoProof) {
		t.Errorf("trap 49: in a form: %v", err)
	}
}

func TestTrap49Rotation(t *testing.T) {
	t.Run("trap 49: rotated at log-in", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		_, c := w.begin("ann")
		_, next, err := w.m.Begin(request(c), session.Proof{Account: "ann", Methods: []string{"password"}})
		if err != nil || next.Value == c.Value {
			t.Fatalf("the id stayed: %v", err)
		}
		w.refuses("the old", request(c), session.Ended) // at once: it may have been somebody else's
		w.holds("the new", next)
	})
	t.Run("trap 49: rotated at step-up", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		s, c := w.begin("ann")
		w.holds("before", c)
		w.clock.add(10 * time.Minute)
		s2, next := w.stepUp(c, "password", "totp")
		if next.Value == c.Value || s2.ID != s.ID {
			t.Error("the id in the cookie must change, the name of the session must not")
		}
		now := w.clock.Now()
		if id := w.holds("the new", next); !slices.Equal(id.Methods, []string{"password", "totp"}) || !id.When.Equal(now) {
			t.Errorf("the new id proves %v at %v", id.Methods, id.When)
		}
		// For requests that were on their way, and it is worth no more than before.
		if id := w.holds("the old, in grace", c); !slices.Equal(id.Methods, []string{"password"}) || !id.When.Equal(s.Proved) {
			t.Errorf("the old id proves %v at %v", id.Methods, id.When)
		}
		if _, _, err := w.m.StepUp(request(c), session.Proof{Account: "ann", Methods: []string{"password"}}); err == nil {
			t.Error("the old id was stepped up again")
		}
		if n, err := w.m.List(t.Context(), "ann"); err != nil || len(n) != 1 {
			t.Errorf("%d are listed, want 1: %v", len(n), err)
		}
		w.clock.add(5 * time.Second)
		w.refuses("the old, after it", request(c), session.Ended)
		w.holds("the new, after it", next)
	})
	t.Run("trap 49: rotated when roles change", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		_, c := w.begin("ann")
		w.clock.add(time.Minute)
		renew := func(why string, c *http.Cookie) *http.Cookie {
			t.Helper()
			next, err := w.m.Renew(request(c))
			if err != nil {
				t.Fatalf("%s: %v", why, err)
			}
			return next
		}
		if renew("nothing has changed", c) != nil {
			t.Error("a new id although nothing has changed")
		}
		w.people.change("ann", func(a *account.Account) { a.Roles = []string{"admin", "member"} })
		w.m.Forget("ann")
		if id := w.holds("at once", c); !slices.Contains(id.Roles, "admin") {
			t.Errorf("the roles are %v", id.Roles)
		}
		handshake := request(c)
		handshake.Header.Set("Upgrade", "websocket")
		if next, err := w.m.Renew(handshake); next != nil || err != nil {
			t.Errorf("a handshake got a new id: %v", err)
		}
		next := renew("they have changed", c)
		if next == nil || next.Value == c.Value {
			t.Fatal("the id stayed")
		}
		if renew("already", c) != nil {
			t.Error("a second new id")
		}
		if renew("the new", next) != nil {
			t.Error("a new id for the new")
		}
		w.clock.add(5 * time.Second)
		w.refuses("the old", request(c), session.Ended)
		if id := w.holds("the new", next); !slices.Contains(id.Roles, "admin") {
			t.Errorf("the roles are %v", id.Roles)
		}
	})
}

func TestTrap49LogOut(t *testing.T) {
	w := newWorld(t, session.Config{})
	_, c := w.begin("ann")
	_, other := w.begin("ann")
	id := w.holds("before", c)
	_, c = w.stepUp(c, "password")
	if err := w.m.End(request(c)); err != nil {
		t.Fatal(err)
	}
	w.refuses("trap 49: after", request(c), session.Ended)
	if !isClosed(id.Done) {
		t.Error("trap 49: a connection that was open before the step-up still is")
	}
	w.holds("another of the account", other)
	if err := w.m.End(request(c)); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := w.m.End(request()); err != nil {
		t.Errorf("without a cookie: %v", err)
	}
	many := request()
	for range 1000 {
		many.AddCookie(c)
	}
	before := w.store.gets.Load()
	if err := w.m.End(many); err != nil || w.store.gets.Load()-before > 4 {
		t.Errorf("a thousand cookies made %d look-ups: %v", w.store.gets.Load()-before, err)
	}
}

// Nobody tells the manager: it finds out within a second.
func TestTrap49Disabled(t *testing.T) {
	for name, change := range map[string]func(*account.Account){
		"disabled":         func(a *account.Account) { a.Disabled = true },
		"password changed": func(a *account.Account) { a.ValidFrom = time.Now().Add(time.Microsecond) },
		"gone":             nil,
	} {
		t.Run("trap 49: "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := withRealClock(t, session.Config{})
				_, c := w.begin("ann")
				r, leave := open(c)
				id, err := w.m.Prove(r)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				if isClosed(id.Done) {
					t.Fatal("the connection is closed without a reason")
				}
				was := w.people.is("ann")
				if change == nil {
					w.people.remove("ann")
				} else {
					w.people.change("ann", change)
				}
				began := time.Now()
				<-id.Done
				if took := time.Since(began); took > time.Second {
					t.Errorf("the connection was open for %v", took)
				}
				w.refuses("after", request(c), session.Ended)
				w.people.change("ann", func(a *account.Account) { *a = was })
				w.m.Forget("ann")
				w.refuses("when the account is back", request(c), session.Ended)
				w.shut(leave)
			})
		})
	}
}

func TestTrap49Idle(t *testing.T) {
	t.Run("trap 49: polling does not refresh it", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		_, c := w.begin("ann", "password", "totp")
		for range 59 {
			w.clock.add(time.Minute)
			if _, err := w.m.Prove(polling(c)); err != nil {
				t.Fatal(err)
			}
		}
		w.clock.add(time.Minute)
		w.refuses("after an hour", polling(c), session.Ended)
		w.refuses("then", request(c), session.Ended)
	})
	t.Run("a person does", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		_, c := w.begin("ann", "password", "totp")
		for range 10 {
			w.clock.add(50 * time.Minute)
			w.holds("in use", c)
		}
		w.clock.add(time.Hour)
		w.refuses("after an hour", request(c), session.Ended)
	})
	t.Run("on another replica as well", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		other, err := session.New(session.Config{}, w.store, w.people)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		other.SetNow(w.clock.Now)
		_, c := w.begin("ann", "password", "totp")
		w.clock.add(50 * time.Minute)
		w.holds("here", c)
		w.clock.add(50 * time.Minute)
		if _, err := other.Prove(request(c)); err != nil {
			t.Errorf("there: %v", err)
		}
	})
	t.Run("any activity, if asked for", func(t *testing.T) {
		w := newWorld(t, session.Config{Activity: "any"})
		_, c := w.begin("ann", "password", "totp")
		for range 3 {
			w.clock.add(50 * time.Minute)
			if _, err := w.m.Prove(polling(c)); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("a connection that is open ends with it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := withRealClock(t, session.Config{AAL1: session.Limits{Idle: time.Minute}})
			_, c := w.begin("ann")
			r, leave := open(c)
			id, err := w.m.Prove(r)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			<-id.Done
			if took := time.Since(began); took > 61*time.Second {
				t.Errorf("it was open for %v", took)
			}
			w.shut(leave)
		})
	})
}

func TestTrap49Absolute(t *testing.T) {
	t.Run("trap 49: activity does not extend it", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		_, c := w.begin("ann", "password", "totp")
		for range 47 {
			w.clock.add(30 * time.Minute)
			w.holds("within the day", c)
		}
		w.clock.add(30 * time.Minute)
		w.refuses("after a day", request(c), session.Ended)
	})
	t.Run("trap 49: proving again and changed roles do not extend it", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		s, c := w.begin("ann", "password", "totp")
		for i := range 47 {
			w.clock.add(30 * time.Minute)
			var s2 session.Session
			if s2, c = w.stepUp(c, "password", "totp"); !s2.Until.Equal(s.Until) {
				t.Fatalf("the end moved from %v to %v", s.Until, s2.Until)
			}
			w.clock.add(6 * time.Second)
			w.people.change("ann", func(a *account.Account) { a.Roles = []string{strings.Repeat("r", i+1)} })
			w.m.Forget("ann")
			next, err := w.m.Renew(request(c))
			if err != nil || next == nil {
				t.Fatal(next, err)
			}
			c = next
			w.clock.add(-6 * time.Second)
		}
		w.clock.add(30 * time.Minute)
		w.refuses("after a day", request(c), session.Ended)
	})
	t.Run("a higher level has a nearer end", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		_, c := w.begin("ann")
		w.clock.add(20 * time.Hour)
		w.holds("a day's use", c)
		s, c := w.stepUp(c, "password", "totp")
		if want := w.clock.Now().Add(24 * time.Hour); !s.Until.Equal(want) || s.Level != 2 {
			t.Errorf("level %d until %v, want %v", s.Level, s.Until, want)
		}
		w.clock.add(time.Hour)
		w.refuses("idle for an hour", request(c), session.Ended)
	})
	t.Run("shorter limits hold for sessions that exist", func(t *testing.T) {
		w := newWorld(t, session.Config{})
		_, c := w.begin("ann")
		later, err := session.New(session.Config{AAL1: session.Limits{Idle: 10 * time.Minute, Absolute: 20 * time.Minute}}, w.store, w.people)
		if err != nil {
			t.Fatal(err)
		}
		defer later.Close()
		later.SetNow(w.clock.Now)
		w.clock.add(9 * time.Minute)
		if _, err := later.Prove(request(c)); err != nil {
			t.Errorf("nine minutes: %v", err)
		}
		w.clock.add(9 * time.Minute)
		if _, err := later.Prove(request(c)); err != nil {
			t.Errorf("eighteen minutes: %v", err)
		}
		w.clock.add(2 * time.Minute)
		if _, err := later.Prove(request(c)); err == nil {
			t.Error("twenty minutes: it holds")
		}
	})
}

func TestTrap49AtMost(t *testing.T) {
	w := withRealClock(t, session.Config{AtMost: 3})
	ids := make([]*merlon.Identity, 50)
	cookies := make([]*http.Cookie, 50)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			_, c, err := w.m.Begin(request(), session.Proof{Account: "ann", Methods: []string{"password"}})
			if err != nil {
				t.Error(err)
				return
			}
			cookies[i] = c
			ids[i], _ = w.m.Prove(request(c)) // it may have ended already
		})
	}
	wg.Wait()
	hold := 0
	for i, c := range cookies {
		if _, err := w.m.Prove(request(c)); err == nil {
			hold++
		} else if ids[i] != nil && !isClosed(ids[i].Done) {
			t.Error("trap 49: a session ended and its connections do not know")
		}
	}
	if hold != 3 {
		t.Errorf("trap 49: %d sessions hold, want 3", hold)
	}
}

func TestTrap49ClockGoesBack(t *testing.T) {
	w := newWorld(t, session.Config{})
	s, c := w.begin("ann")
	w.clock.add(10 * time.Minute)
	w.holds("before", c)
	w.clock.add(-50 * time.Second)
	w.holds("trap 49: less than a minute back", c)
	got, err := w.store.Get(t.Context(), s.Hash)
	if err != nil || got.Seen.Before(s.Created.Add(10*time.Minute)) {
		t.Errorf("trap 49: Seen went back with it: %v %v", got.Seen, err)
	}
	w.clock.add(-time.Minute)
	w.refuses("trap 49: two minutes back: its age is unknown", request(c), session.FromFuture)
	w.clock.add(-time.Hour)
	w.refuses("trap 49: before it began", request(c), session.FromFuture)
	w.clock.add(time.Hour + 2*time.Minute)
	w.holds("when it is right again", c)
}
