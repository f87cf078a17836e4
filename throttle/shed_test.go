package throttle_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/throttle"
)

func shedding(t testing.TB, latency time.Duration) *throttle.Guard {
	return guard(t, throttle.Config{Shed: throttle.ShedConfig{Latency: latency}}, throttle.Classes{}, throttle.NewPool(nil))
}

// A backend is one whose answers take longer the more it has to give at once.
type backend struct {
	base, each time.Duration
	now        atomic.Int64
	broken     atomic.Bool // answers never, until a client gives up
	status     int
}

// serve is one request's way through the guard and b. It returns what the
// guard decided, how long the answer took, and how many b worked on then.
func (b *backend) serve(g *throttle.Guard) (d merlon.Decision, took time.Duration, load int64) {
	r := merlon.NewRequest(httptest.NewRequest("GET", "/", nil))
	gate := merlon.NewGate(g)
	d = gate.Check(r)
	if !d.Passed() {
		gate.Done(r, merlon.Outcome{Status: d.Code(), Guard: "throttle"})
		return d, 0, 0
	}
	load = b.now.Add(1)
	began := time.Now()
	if b.broken.Load() {
		time.Sleep(time.Minute)
		b.now.Add(-1)
		gate.Done(r, merlon.Outcome{Status: 504, Upstream: true})
		return d, time.Since(began), load
	}
	time.Sleep(b.base + time.Duration(load)*b.each)
	b.now.Add(-1)
	gate.CheckResponse(r, &http.Response{StatusCode: max(b.status, 200), Body: http.NoBody})
	gate.Done(r, merlon.Outcome{Status: 200, Upstream: true})
	return d, time.Since(began), load
}

// load sends a request every gap for as long as for, and counts.
func (b *backend) load(g *throttle.Guard, gap, during time.Duration) (passed, shed, slow, most int64) {
	var p, s, l, m atomic.Int64
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(gap) {
		go func() {
			d, took, load := b.serve(g)
			if !d.Passed() {
				s.Add(1)
				return
			}
			p.Add(1)
			if took > 800*time.Millisecond {
				l.Add(1)
			}
			if load > m.Load() {
				m.Store(load)
			}
		}()
		synctest.Wait()
	}
	return p.Load(), s.Load(), l.Load(), m.Load()
}

// Overloaded, a backend whose latency grows with what it has at once is given
// as much as it can do in time, and all again when the load is gone.
func TestShedSettlesNearTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := shedding(t, 800*time.Millisecond)
		b := &backend{base: 100 * time.Millisecond, each: 10 * time.Millisecond} // 70 at once take 800 ms
		b.load(g, 5*time.Millisecond, 60*time.Second)                            // 200 a second: far more than it can
		passed, shed, slow, most := b.load(g, 5*time.Millisecond, 60*time.Second)
		t.Logf("overloaded: %d passed, %d shed, %d slow, at most %d at once", passed, shed, slow, most)
		if shed == 0 || most > 80 {
			t.Errorf("%d at once, though 70 take as long as they may", most)
		}
		// 56 at once, four fifths of 70, are answered in 660 ms: 85 a second.
		if passed < 60*60 {
			t.Errorf("only %d passed in a minute: it could do 85 a second", passed)
		}
		if slow > passed/4 {
			t.Errorf("%d of %d were slow", slow, passed)
		}
		b.load(g, 50*time.Millisecond, 30*time.Second)
		passed, shed, _, _ = b.load(g, 50*time.Millisecond, 30*time.Second) // 20 a second
		if shed != 0 || passed < 590 {
			t.Errorf("when the load was gone %d passed and %d were shed", passed, shed)
		}
		time.Sleep(time.Hour)
	})
}

func TestHealthyBackendIsNeverShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := shedding(t, 800*time.Millisecond)
		b := &backend{base: 700 * time.Millisecond}
		if _, shed, _, most := b.load(g, 2*time.Millisecond, 10*time.Second); shed != 0 || most < 300 {
			t.Errorf("%d shed, %d at once", shed, most)
		}
		// The application's own failures, which clients can cause.
		failing := &backend{base: 700 * time.Millisecond, status: 500}
		if _, shed, _, _ := failing.load(g, 2*time.Millisecond, 10*time.Second); shed != 0 {
			t.Errorf("%d shed by 500", shed)
		}
		time.Sleep(time.Hour)
	})
}

// A backend that hangs is found out before anything ends, is tried again one
// by one, and gets all when it is back.
func TestShedHangingBackendAndRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := shedding(t, 800*time.Millisecond)
		b := &backend{base: 50 * time.Millisecond}
		b.load(g, 10*time.Millisecond, 5*time.Second)
		b.broken.Store(true)
		passed, shed, _, _ := b.load(g, 10*time.Millisecond, 30*time.Second)
		if passed > 400 || shed < 2500 {
			t.Errorf("a backend that hangs was given %d, %d were shed", passed, shed)
		}
		b.load(g, 50*time.Millisecond, time.Minute)
		passed, shed, _, _ = b.load(g, 50*time.Millisecond, 10*time.Minute)
		if passed < 5 || passed > 20 {
			t.Errorf("tried again %d times in ten minutes, %d shed", passed, shed)
		}
		b.broken.Store(false)
		b.load(g, 20*time.Millisecond, 90*time.Second)
		if _, shed, _, _ = b.load(g, 20*time.Millisecond, time.Minute); shed != 0 {
			t.Errorf("%d are shed though it is back", shed)
		}
		time.Sleep(time.Hour)
	})
}

// 503 and its like say that the backend has too much, however fast they come.
func TestShedOverloadAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := shedding(t, 800*time.Millisecond)
		b := &backend{base: 100 * time.Millisecond, status: 503}
		b.load(g, 4*time.Millisecond, 20*time.Second)
		passed, shed, _, _ := b.load(g, 4*time.Millisecond, 10*time.Second)
		if shed == 0 || passed > 200 {
			t.Errorf("%d passed, %d shed", passed, shed)
		}
		time.Sleep(time.Hour)
		d, _, _ := b.serve(g)
		if !d.Passed() {
			t.Errorf("nothing is under way, and yet %+v", d)
		}
	})
}

func TestShedRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := shedding(t, 800*time.Millisecond)
		b := &backend{}
		b.broken.Store(true)
		b.load(g, 10*time.Millisecond, 10*time.Second)
		d, _, _ := b.serve(g)
		unavailable(t, d, throttle.Shed)
		time.Sleep(time.Hour)
	})
}

// slowly is a client that sends one byte a second.
type slowly struct{ n int }

func (s *slowly) Read(p []byte) (int, error) {
	if s.n == 0 {
		return 0, io.EOF
	}
	time.Sleep(time.Second)
	s.n--
	p[0] = 'x'
	return 1, nil
}

func (s *slowly) Close() error { return nil }

// Who sends slowly, or goes away, does not make the backend look slow, and
// holds none of its places.
func TestShedIsNotForClientsToCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := shedding(t, 800*time.Millisecond)
		for i := range 2000 {
			go func() {
				r := merlon.NewRequest(httptest.NewRequest("POST", "/", &slowly{30}))
				gate := merlon.NewGate(g)
				if d := gate.Check(r); !d.Passed() {
					t.Errorf("%+v", d)
				}
				o := merlon.Outcome{Status: 200, Upstream: true}
				if i%2 == 0 { // gives up half-way
					_, _ = io.CopyN(io.Discard, r.Body, 15)
					o.Status = 0
				} else {
					_, _ = io.Copy(io.Discard, r.Body)
					time.Sleep(100 * time.Millisecond)
					gate.CheckResponse(r, &http.Response{StatusCode: 200, Body: http.NoBody})
				}
				gate.Done(r, o)
			}()
		}
		for range 1000 { // and who leaves early
			go func() {
				r := merlon.NewRequest(httptest.NewRequest("GET", "/", nil))
				gate := merlon.NewGate(g)
				gate.Check(r)
				time.Sleep(200 * time.Millisecond)
				gate.Done(r, merlon.Outcome{Upstream: true})
			}()
		}
		b := &backend{base: 100 * time.Millisecond}
		if _, shed, _, _ := b.load(g, 10*time.Millisecond, 40*time.Second); shed != 0 {
			t.Errorf("%d shed", shed)
		}
		time.Sleep(time.Hour)
	})
}

// What was not whole when it came is judged when it is, before the backend has
// the end of it.
func TestShedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := shedding(t, 800*time.Millisecond)
		gate := merlon.NewGate(g)
		r := merlon.NewRequest(httptest.NewRequest("POST", "/", &slowly{20}))
		if d := gate.Check(r); !d.Passed() {
			t.Fatalf("%+v", d)
		}
		b := &backend{}
		b.broken.Store(true)
		b.load(g, 10*time.Millisecond, 10*time.Second)
		got, err := io.ReadAll(r.Body)
		late, ok := errors.AsType[*merlon.LateRefusal](err)
		if !ok {
			t.Fatalf("%q %v", got, err)
		}
		unavailable(t, late.Decision, throttle.Shed)
		gate.Done(r, merlon.Outcome{Status: 503, Guard: "throttle", Upstream: true})
		time.Sleep(time.Hour)
		again := merlon.NewRequest(httptest.NewRequest("POST", "/", strings.NewReader("a=1")))
		if d := gate.Check(again); !d.Passed() {
			t.Errorf("%+v", d)
		}
		if got, err := io.ReadAll(again.Body); err != nil || string(got) != "a=1" {
			t.Errorf("%q %v", got, err)
		}
	})
}

// An answer that comes before the end of the body leaves no place behind when
// the rest of it is read, nor does a request that was refused or has ended.
func TestShedAnsweredEarly(t *testing.T) {
	g := shedding(t, 800*time.Millisecond)
	gate := merlon.NewGate(g)
	r := merlon.NewRequest(httptest.NewRequest("POST", "/", strings.NewReader("a=1")))
	gate.Check(r)
	gate.CheckResponse(r, &http.Response{StatusCode: 413, Body: http.NoBody})
	gate.Done(r, merlon.Outcome{Status: 413, Upstream: true})
	if _, err := io.ReadAll(r.Body); err != nil {
		t.Error(err)
	}
	full := guard(t, throttle.Config{Class: "work", Shed: throttle.ShedConfig{Latency: time.Second}},
		classes(t, map[string]throttle.ClassConfig{"work": {AtOnce: 1, Queue: -1}}), throttle.NewPool(nil))
	full.Check(by("a"))
	refused := by("b")
	unavailable(t, full.Check(refused), throttle.ClassFull)
	full.Done(refused, merlon.Outcome{Status: 503})
	if n, m := throttle.Unanswered(g), throttle.Unanswered(full); n != 0 || m != 1 {
		t.Errorf("%d and %d are under way, want 0 and 1", n, m)
	}
}
