package throttle_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/throttle"
	"github.com/merlon-dev/merlon/upstream"
)

func timed(t testing.TB, d time.Duration) *throttle.Guard {
	return guard(t, throttle.Config{Timeout: d}, throttle.Classes{}, throttle.NewPool(nil))
}

func TestDeadlineEndsTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := timed(t, 30*time.Second)
		gate, r, began := merlon.NewGate(g), by("a"), time.Now()
		gate.Check(r)
		if at, ok := r.Context().Deadline(); !ok || at.Sub(began) != 30*time.Second {
			t.Errorf("%s %t", at, ok)
		}
		if merlon.From(r.Request) != r {
			t.Error("the request is not found again")
		}
		child, cancel := context.WithCancel(r.Context()) // as upstream makes one
		defer cancel()
		<-child.Done()
		if time.Since(began) != 30*time.Second {
			t.Errorf("after %s", time.Since(began))
		}
		late, ok := errors.AsType[*merlon.LateRefusal](context.Cause(child))
		if !ok || late.Guard != "throttle" || late.Decision.Code() != 504 || late.Decision.Reason != throttle.TimedOut {
			t.Errorf("%v", context.Cause(child))
		}
		if r.RefusedBy() != "throttle" {
			t.Errorf("%+v", r.Verdicts())
		}
		gate.Done(r, merlon.Outcome{Status: 504, Upstream: true})
	})
}

func TestDoneEndsTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, r := timed(t, time.Minute), by("a")
		gate := merlon.NewGate(g)
		gate.Check(r)
		gate.Done(r, ended)
		if !errors.Is(context.Cause(r.Context()), context.Canceled) {
			t.Errorf("%v", context.Cause(r.Context()))
		}
		time.Sleep(time.Hour)
		if r.RefusedBy() != "" {
			t.Errorf("refused when it was over: %+v", r.Verdicts())
		}
	})
}

// A monitored timeout is recorded and ends nothing.
func TestDeadlineMonitored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, r := merlon.NewGate(merlon.Monitor(timed(t, time.Second))), by("a")
		gate.Check(r)
		time.Sleep(time.Minute)
		if err := r.Context().Err(); err != nil {
			t.Errorf("%v", err)
		}
		v := r.Verdicts()
		if last := v[len(v)-1].Decision; last.Reason != throttle.TimedOut || !last.Monitored {
			t.Errorf("%+v", v)
		}
		gate.Done(r, ended)
	})
}

// The earlier deadline counts: the route's, the class's, the client's own.
func TestEarliestDeadline(t *testing.T) {
	for _, c := range []struct {
		name         string
		route, class time.Duration
		grpc         string
		want         time.Duration
	}{
		{"the route's", time.Second, time.Minute, "", time.Second},
		{"the class's", time.Minute, time.Second, "", time.Second},
		{"the class's alone", 0, time.Second, "", time.Second},
		{"the client's", time.Minute, time.Minute, "500m", 500 * time.Millisecond},
		{"a client's that waits for longer", time.Second, time.Minute, "1H", time.Second},
		{"a client's that makes no sense", time.Second, time.Minute, "soon", time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := guard(t, throttle.Config{Class: "work", Timeout: c.route}, classes(t, map[string]throttle.ClassConfig{"work": {Timeout: c.class}}), throttle.NewPool(nil))
			r := by("a")
			if c.grpc != "" {
				r.Header.Set("Content-Type", "application/grpc+proto")
				r.Header.Set("Grpc-Timeout", c.grpc)
			}
			g.Check(r)
			at, _ := r.Context().Deadline()
			if got := time.Until(at); got != c.want {
				t.Errorf("%s: %s, want %s", c.name, got, c.want)
			}
			g.Done(r, ended)
		})
	}
}

func TestTellDeadline(t *testing.T) {
	for _, c := range []struct {
		name, contentType string
		theirs            []string // Grpc-Timeout
		own               string   // Merlon-Timeout, as the client sends it
		timeout           time.Duration
		want              string
		grpc              string
	}{
		{name: "seconds", timeout: 2500 * time.Millisecond, want: "2.500"},
		{name: "what clients say is dropped", own: "9999", timeout: time.Second, want: "1.000"},
		{name: "also without a timeout", own: "9999"},
		{name: "gRPC", contentType: "application/grpc", timeout: time.Minute, want: "60.000", grpc: "60000000u"},
		{name: "gRPC, more patient", contentType: "application/grpc+proto", theirs: []string{"2M"}, timeout: time.Minute, want: "60.000", grpc: "60000000u"},
		{name: "gRPC, less patient", contentType: "application/grpc", theirs: []string{"3S"}, timeout: time.Minute, want: "3.000", grpc: "3S"},
		{name: "gRPC, nonsense", contentType: "application/grpc", theirs: []string{"-1S"}, timeout: time.Second, want: "1.000", grpc: "1000000u"},
		{name: "gRPC, twice", contentType: "application/grpc", theirs: []string{"1n", "9H"}, timeout: time.Second, want: "1.000", grpc: "1000000u"},
		{name: "gRPC without a timeout", contentType: "application/grpc", theirs: []string{"2M"}, grpc: "2M"},
		{name: "not gRPC", contentType: "application/json", theirs: []string{"2M"}, timeout: time.Minute, want: "60.000", grpc: "2M"},
		{name: "not gRPC, though it begins so", contentType: "application/grpcx", timeout: time.Minute, want: "60.000"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := by("a")
			if c.contentType != "" {
				r.Header.Set("Content-Type", c.contentType)
			}
			if c.theirs != nil {
				r.Header["Grpc-Timeout"] = c.theirs
			}
			if c.own != "" {
				r.Header.Set(throttle.TimeoutHeader, c.own)
			}
			g := timed(t, c.timeout)
			g.Check(r)
			for range 2 { // as the gateway does, once more when it has stripped what is its own
				if got := strings.Join(r.Header[throttle.TimeoutHeader], "|"); got != c.want {
					t.Errorf("%s: %q, want %q", c.name, got, c.want)
				}
				if got := strings.Join(r.Header["Grpc-Timeout"], "|"); got != c.grpc {
					t.Errorf("%s: grpc %q, want %q", c.name, got, c.grpc)
				}
				delete(r.Header, throttle.TimeoutHeader)
				throttle.TellDeadline(r)
			}
			g.Done(r, ended)
		})
	}
}

// The time in the queue comes off what the backend is told.
func TestDeadlineAfterQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := one(t, throttle.ClassConfig{AtOnce: 1, Wait: time.Minute})
		held, r := by("a"), by("b")
		g.Check(held)
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Grpc-Timeout", "10S")
		r.Received = time.Now()
		in := make(chan string, 1)
		ask(t, g, r, "b", in)
		time.Sleep(4 * time.Second)
		g.Done(held, ended)
		if got := <-in; got != "b" {
			t.Fatal(got)
		}
		if got := r.Header.Get(throttle.TimeoutHeader); got != "6.000" {
			t.Errorf("%q", got)
		}
		if got := r.Header.Get("Grpc-Timeout"); got != "6000000u" {
			t.Errorf("%q", got)
		}
		impatient := by("c")
		impatient.Header.Set("Content-Type", "application/grpc")
		impatient.Header.Set("Grpc-Timeout", "2S")
		impatient.Received = time.Now()
		began := time.Now()
		unavailable(t, g.Check(impatient), throttle.QueueTimeout)
		if time.Since(began) != 2*time.Second {
			t.Errorf("waited %s for a client that waits 2s", time.Since(began))
		}
	})
}

// Through the real upstream: 504 if nothing was sent, broken off otherwise, and
// the backend's work is cancelled.
func TestDeadlineThroughUpstream(t *testing.T) {
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) { throughUpstream(t, scheme) })
	}
}

func throughUpstream(t *testing.T, scheme string) {
	cancelled := make(chan struct{}, 2)
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			_, _ = w.Write([]byte("half a "))
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
		cancelled <- struct{}{}
	}))
	backend.Config.Protocols = new(http.Protocols)
	backend.Config.Protocols.SetHTTP1(true)
	backend.Config.Protocols.SetUnencryptedHTTP2(true)
	backend.Start()
	defer backend.Close()
	pool, err := upstream.New(upstream.Config{To: []string{strings.Replace(backend.URL, "http", scheme, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan merlon.Decision, 2)
	g := timed(t, 300*time.Millisecond)
	front := httptest.NewServer(g.Middleware(http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		pool.Serve(w, merlon.From(hr), upstream.Call{Failed: func(d merlon.Decision, begun bool) {
			told <- d
			if !begun {
				merlon.Respond(w, merlon.From(hr), d)
			}
		}})
	})))
	defer front.Close()
	res, err := http.Get(front.URL + "/nothing")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	<-cancelled
	if d := <-told; res.StatusCode != 504 || d.Reason != throttle.TimedOut {
		t.Errorf("%s %+v", res.Status, d)
	}
	res, err = http.Get(front.URL + "/begun")
	if err != nil {
		t.Fatal(err)
	}
	part, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	<-cancelled
	if d := <-told; res.StatusCode != 200 || string(part) != "half a " || err == nil || d.Reason != throttle.TimedOut {
		t.Errorf("%s %q %v %+v", res.Status, part, err, d)
	}
}

// What is read is what was meant: within its unit, and as the backend reads it.
func FuzzGRPCTimeout(f *testing.F) {
	for _, s := range []string{"1S", "99999999H", "100000000S", "0n", "-1S", "+1S", "1 S", "1", "S", "", "１S", "1_0S", "0x1S", "1.5S", "1s", "12345678u"} {
		f.Add(s, int64(time.Minute))
	}
	f.Fuzz(func(t *testing.T, s string, limit int64) {
		d := time.Duration(limit)
		if d < 100*time.Millisecond || d > 24*time.Hour {
			d = time.Minute
		}
		r := by("a")
		r.Header.Set("Content-Type", "application/grpc")
		r.Header["Grpc-Timeout"] = []string{s}
		// A deadline far enough ahead that the test's own time does not matter.
		ctx, cancel := context.WithTimeout(r.Context(), d)
		defer cancel()
		r.Request = r.Request.WithContext(ctx)
		throttle.TellDeadline(r)
		got := r.Header.Get("Grpc-Timeout")
		if !grammatical(got) {
			t.Fatalf("%q became %q", s, got)
		}
		if grammatical(s) && got != s && value(s) < 0.99*d.Seconds()-1 {
			t.Errorf("%q, less than %s, became %q", s, d, got)
		}
		if v := value(got); v > d.Seconds() {
			t.Errorf("%q became %q, more than %s", s, got, d)
		}
	})
}

// grammatical is PROTOCOL-HTTP2.md's TimeoutValue TimeoutUnit.
func grammatical(s string) bool {
	if len(s) < 2 || len(s) > 9 || !strings.Contains("HMSmun", s[len(s)-1:]) {
		return false
	}
	return strings.Trim(s[:len(s)-1], "0123456789") == ""
}

func value(s string) float64 {
	n, _ := strconv.ParseFloat(s[:len(s)-1], 64)
	return n * map[string]float64{"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}[s[len(s)-1:]]
}
