package throttle_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/throttle"
)

func shaping(t testing.TB, b throttle.Bandwidth, p *throttle.Pool) *throttle.Guard {
	return guard(t, throttle.Config{Bandwidth: b}, throttle.Classes{}, p)
}

// download is the time that an answer of n bytes takes to a client.
func download(t testing.TB, g *throttle.Guard, addr string, n int) time.Duration {
	r := merlon.NewRequest(httptest.NewRequest("GET", "/", nil))
	r.Client = netip.MustParseAddr(addr)
	gate := merlon.NewGate(g)
	gate.Check(r)
	defer gate.Done(r, ended)
	want := make([]byte, n)
	_, _ = rand.Read(want)
	res := &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewReader(want))}
	if d := gate.CheckResponse(r, res); !d.Passed() {
		t.Errorf("%+v", d)
	}
	began := time.Now()
	got, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), n, err)
	}
	return time.Since(began)
}

// about holds a time to what bytes at a rate take, less what comes at once.
func about(t testing.TB, what string, took, want time.Duration) {
	t.Helper()
	if took > want || took < want-want/8-300*time.Millisecond {
		t.Errorf("%s took %s, want about %s", what, took, want)
	}
}

func TestBandwidth(t *testing.T) {
	const MiB = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		g := shaping(t, throttle.Bandwidth{Client: MiB}, throttle.NewPool(nil))
		about(t, "an answer", download(t, g, "192.0.2.1", 10*MiB), 10*time.Second)

		r := merlon.NewRequest(httptest.NewRequest("POST", "/", bytes.NewReader(make([]byte, 10*MiB))))
		g.Check(r)
		began := time.Now()
		if n, err := io.Copy(io.Discard, r.Body); n != 10*MiB || err != nil {
			t.Errorf("%d %v", n, err)
		}
		about(t, "an upload", time.Since(began), 10*time.Second)
		g.Done(r, ended)

		if took := download(t, g, "192.0.2.9", 100<<10); took != 0 {
			t.Errorf("a small answer took %s", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		g := shaping(t, throttle.Bandwidth{Client: MiB}, throttle.NewPool(nil))
		took := make(chan time.Duration, 20)
		for i := range 20 { // ten of one client share, ten of others do not
			go func() {
				addr := "192.0.2.1"
				if i >= 10 {
					addr = netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}).String()
				}
				took <- download(t, g, addr, MiB)
			}()
		}
		var times []time.Duration
		for range 20 {
			times = append(times, <-took)
		}
		about(t, "others' answers", times[9], time.Second)
		about(t, "one client's ten answers", times[19], 10*time.Second)
	})
	synctest.Test(t, func(t *testing.T) { // all together, and by two replicas
		g := shaping(t, throttle.Bandwidth{Route: 4 * MiB}, throttle.NewPool(func() int { return 2 }))
		took := make(chan time.Duration, 10)
		for i := range 10 {
			go func() {
				took <- download(t, g, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}).String(), 2*MiB)
			}()
		}
		var last time.Duration
		for range 10 {
			last = <-took
		}
		about(t, "20 MiB at half of 4 MiB/s", last, 10*time.Second)
	})
	synctest.Test(t, func(t *testing.T) { // a client that is slowed down takes nothing from others
		g := shaping(t, throttle.Bandwidth{Client: MiB / 16, Route: MiB}, throttle.NewPool(nil))
		for range 200 {
			go download(t, g, "192.0.2.1", MiB/16)
		}
		time.Sleep(5 * time.Second)
		about(t, "another's answer", download(t, g, "192.0.2.2", MiB/4), 4*time.Second)
		time.Sleep(time.Hour)
	})
}

// A body flows: it comes in small pieces, not after a long silence.
func TestBandwidthFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, rate := range []throttle.ByteRate{1 << 10, 10 << 10, 1 << 20, 1 << 40} {
			g := shaping(t, throttle.Bandwidth{Client: rate}, throttle.NewPool(nil))
			r := by("a")
			g.Check(r)
			res := &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewReader(make([]byte, 1<<20)))}
			g.CheckResponse(r, res)
			buf := make([]byte, 1<<20)
			for range 5 {
				began := time.Now()
				n, err := res.Body.Read(buf)
				if err != nil || n > 32<<10 || time.Since(began) > time.Second {
					t.Errorf("at %s: %d bytes after %s, %v", rate, n, time.Since(began), err)
				}
			}
			g.Done(r, ended)
		}
	})
}

// Whoever waits for bandwidth stops when the request ends.
func TestBandwidthHonoursTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := shaping(t, throttle.Bandwidth{Client: 1 << 10}, throttle.NewPool(nil))
		ctx, leave := context.WithCancel(t.Context())
		r := by("a")
		r.Request = r.Request.WithContext(ctx)
		g.Check(r)
		res := &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewReader(make([]byte, 1<<20)))}
		g.CheckResponse(r, res)
		began := time.Now()
		time.AfterFunc(10*time.Second, leave)
		if _, err := io.Copy(io.Discard, res.Body); err == nil || time.Since(began) != 10*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		g.Done(r, merlon.Outcome{})
		for range 100 { // what they would have had is there for others
			r := by("a")
			ctx, leave := context.WithCancel(t.Context())
			r.Request = r.Request.WithContext(ctx)
			leave()
			g.Check(r)
			res := &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewReader(make([]byte, 1<<20)))}
			g.CheckResponse(r, res)
			_, _ = io.Copy(io.Discard, res.Body)
			g.Done(r, merlon.Outcome{})
		}
		if took := download(t, g, "192.0.2.1", 4<<10); took > 6*time.Second {
			t.Errorf("4 KiB at 1 KiB/s took %s", took)
		}
	})
}

// More clients than there is room for share; nothing grows.
func TestBandwidthTableIsBounded(t *testing.T) {
	g := shaping(t, throttle.Bandwidth{Client: 1 << 20}, throttle.NewPool(nil))
	var open []*merlon.Request
	hr := httptest.NewRequest("GET", "/", nil)
	for i := range 100_000 {
		r := &merlon.Request{Request: hr}
		r.Client = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if d := g.Check(r); !d.Passed() {
			t.Fatalf("%+v", d)
		}
		open = append(open, r)
	}
	if n := throttle.Clients(g); n > 65_536 || n < 60_000 {
		t.Errorf("%d clients are told apart", n)
	}
	for _, r := range open {
		g.Done(r, ended)
	}
	if n := throttle.Clients(g); n != 0 {
		t.Errorf("%d clients are kept though nothing is under way", n)
	}
}
