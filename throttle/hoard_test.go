package throttle_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/throttle"
)

// A stream is a request that lasts until its context ends.
type stream struct {
	*merlon.Request
	done chan struct{}
}

// open begins what the backend answers with head, or says why not.
func open(gate *merlon.Gate, tenant string, head http.Response) (*stream, merlon.Decision) {
	r := by(tenant)
	d := gate.Check(r)
	if !d.Passed() {
		gate.Done(r, merlon.Outcome{Status: d.Code(), Guard: r.RefusedBy()})
		return nil, d
	}
	gate.CheckResponse(r, &head)
	s := &stream{r, make(chan struct{})}
	go func() {
		<-r.Context().Done()
		gate.Done(r, merlon.Outcome{Status: 200, Upstream: true})
		close(s.done)
	}()
	return s, d
}

func (s *stream) open() bool { return s.Context().Err() == nil }

// Who fills a class with WebSockets or event streams keeps nobody out, and does
// not lose the last one; other work ends by itself.
func TestHoardedStreams(t *testing.T) {
	socket := http.Response{StatusCode: http.StatusSwitchingProtocols}
	events := http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}}}
	report := http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/pdf"}}}
	for _, c := range []struct {
		name   string
		hoard  []http.Response // what one tenant has
		others int             // how many others get a place
		left   []bool          // which of the hoard are there then
	}{
		{"WebSockets", []http.Response{socket, socket, socket, socket}, 3, []bool{true, false, false, false}},
		{"event streams", []http.Response{events, socket, events, events}, 3, []bool{true, false, false, false}},
		{"a stream and reports", []http.Response{report, socket, report, report}, 0, []bool{true, true, true, true}},
		{"streams and reports", []http.Response{report, socket, report, socket}, 1, []bool{true, true, true, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, p := one(t, throttle.ClassConfig{AtOnce: 4, Wait: 10 * time.Second, Timeout: time.Hour})
				gate := merlon.NewGate(g)
				var hoard, others []*stream
				for _, head := range c.hoard {
					s, _ := open(gate, "greedy", head)
					hoard = append(hoard, s)
				}
				if _, d := open(gate, "greedy", socket); d.Reason != throttle.QueueTimeout {
					t.Errorf("one more for who has all: %s", d.Reason)
				}
				for _, other := range []string{"ann", "bob", "cat", "dan"} {
					if s, _ := open(gate, other, socket); s != nil {
						others = append(others, s)
					}
				}
				if len(others) != c.others {
					t.Errorf("%d others got in, want %d", len(others), c.others)
				}
				for i, s := range hoard {
					if s.open() != c.left[i] {
						t.Errorf("the %d. of the hoard is there: %v", i+1, s.open())
					}
					if late, ok := errors.AsType[*merlon.LateRefusal](context.Cause(s.Context())); !s.open() && (!ok || late.Verdict.Decision.Reason != throttle.StreamEnded) {
						t.Errorf("the %d. ended by %v", i+1, context.Cause(s.Context()))
					}
				}
				if s := stat(t, p); s.Running > 4 || s.Waiting != 0 {
					t.Errorf("%+v", s)
				}
				time.Sleep(2 * time.Hour) // the time of all is up
				for _, s := range append(hoard, others...) {
					<-s.done
				}
			})
		})
	}
}

// One who waits ends one stream, whatever else of theirs waits too, and not at
// once.
func TestHoardsEndOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := one(t, throttle.ClassConfig{AtOnce: 4, Wait: 10 * time.Second, Timeout: time.Hour})
		gate := merlon.NewGate(g)
		var hoard []*stream
		for range 4 {
			s, _ := open(gate, "greedy", http.Response{StatusCode: http.StatusSwitchingProtocols})
			hoard = append(hoard, s)
		}
		count := func() (n int) {
			for _, s := range hoard {
				if s.open() {
					n++
				}
			}
			return n
		}
		for range 3 {
			go open(gate, "ann", http.Response{StatusCode: 200})
		}
		time.Sleep(4 * time.Second)
		if n := count(); n != 4 {
			t.Errorf("%d are left before anybody has waited for long", n)
		}
		time.Sleep(10 * time.Second)
		if n := count(); n != 3 {
			t.Errorf("%d are left, want 3", n)
		}
		// Who says that they wait for a moment only ends nothing.
		r := by("bob")
		r.Request = httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Grpc-Timeout", "100m")
		if d := gate.Check(r); d.Passed() {
			t.Error("a hasty one got a place")
		}
		gate.Done(r, merlon.Outcome{Status: 503, Guard: "throttle"})
		if n := count(); n != 3 {
			t.Errorf("%d are left for one in haste, want 3", n)
		}
		time.Sleep(2 * time.Hour)
	})
}

// Those who wait at the same time all get a place.
func TestHoardMakesRoomForAll(t *testing.T) {
	for range 20 { // in any order
		synctest.Test(t, func(t *testing.T) {
			g, p := one(t, throttle.ClassConfig{AtOnce: 4, Wait: 10 * time.Second, Timeout: time.Hour})
			gate := merlon.NewGate(g)
			for range 4 {
				open(gate, "greedy", http.Response{StatusCode: http.StatusSwitchingProtocols})
			}
			for _, other := range []string{"ann", "bob", "cat"} {
				go func() {
					if s, d := open(gate, other, http.Response{StatusCode: http.StatusSwitchingProtocols}); s == nil {
						t.Errorf("%s: %s", other, d.Reason)
					}
				}()
			}
			time.Sleep(20 * time.Second)
			if s := stat(t, p); s.Running != 4 || s.Waiting != 0 {
				t.Errorf("%+v", s)
			}
			time.Sleep(2 * time.Hour)
		})
	}
}

// A monitored guard ends nothing.
func TestHoardMonitored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := one(t, throttle.ClassConfig{AtOnce: 2, Wait: time.Second, Timeout: time.Hour})
		gate := merlon.NewGate(merlon.Monitor(g))
		list := []*merlon.Request{by("greedy"), by("greedy"), by("ann")}
		for _, r := range list {
			if d := gate.Check(r); !d.Passed() {
				t.Fatal(d.Reason)
			}
			gate.CheckResponse(r, &http.Response{StatusCode: http.StatusSwitchingProtocols})
		}
		for _, r := range list {
			if r.Context().Err() != nil {
				t.Error(context.Cause(r.Context()))
			}
			gate.Done(r, ended)
		}
	})
}
