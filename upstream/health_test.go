package upstream_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/upstream"
)

// named answers with its name, and 503 under /healthz while it is sick.
func named(t testing.TB, name string, sick *atomic.Bool) string {
	return backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && sick != nil && sick.Load() {
			w.WriteHeader(503)
			return
		}
		_, _ = io.WriteString(w, name)
	}).URL
}

// dead is an address where nothing listens.
func dead(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestFailover(t *testing.T) {
	for _, c := range []struct {
		name, method string
		body         string
		status       int
	}{
		{"a read goes to the next", "GET", "", 200},
		{"a write that could not leave goes to the next", "POST", "hello", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := backend(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				_, _ = w.Write(body)
			})
			for range 8 { // the first choice is random
				f := newFront(t, upstream.Config{To: []string{dead(t), dead(t), b.URL}}, setup{})
				res, body := do(t, f, c.method, "/", strings.NewReader(c.body))
				if res.StatusCode != c.status || body != c.body {
					t.Fatal(res.Status, body)
				}
			}
		})
	}
}

// What has left may have had its effect.
func TestWhatLeftIsNotSentAgain(t *testing.T) {
	for _, method := range []string{"POST", "GET"} {
		var asked atomic.Int32
		count := func(_ net.Conn, br *bufio.Reader) {
			if r, err := http.ReadRequest(br); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				asked.Add(1)
			}
		}
		f := newFront(t, upstream.Config{To: []string{rawBackend(t, count), rawBackend(t, count), rawBackend(t, count)}}, setup{})
		var body io.Reader
		if method == "POST" {
			body = strings.NewReader("pay")
		}
		res, _ := do(t, f, method, "/", body)
		if res.StatusCode != 502 || f.last(t).Reason != upstream.Closed || asked.Load() != 1 {
			t.Errorf("%s: %s, asked %d times", method, res.Status, asked.Load())
		}
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	var to []string
	for range 20 {
		to = append(to, dead(t))
	}
	f := newFront(t, upstream.Config{To: to}, setup{})
	res, _ := get(t, f, "/")
	down := 0
	for _, b := range f.pool.Stats().Backends {
		if !b.Healthy {
			down++
		}
	}
	if res.StatusCode != 502 || f.last(t).Reason != upstream.Unreachable || down != 3 {
		t.Errorf("%s, %d backends were tried", res.Status, down)
	}
}

func TestADeadBackendIsLeftAlone(t *testing.T) {
	f := newFront(t, upstream.Config{To: []string{dead(t), named(t, "b", nil)}}, setup{})
	for range 20 {
		if res, _ := get(t, f, "/"); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
	}
	if s := f.pool.Stats(); s.Backends[0].Healthy || !s.Backends[1].Healthy {
		t.Errorf("%+v", s)
	}
}

func TestHealthChecks(t *testing.T) {
	var sickA, sickB atomic.Bool
	f := newFront(t, upstream.Config{To: []string{named(t, "a", &sickA), named(t, "b", &sickB)},
		Health: &upstream.Health{Path: "/healthz", Interval: 100 * time.Millisecond, Timeout: 50 * time.Millisecond}}, setup{})
	state := func() string {
		s := f.pool.Stats()
		return fmt.Sprint(s.Backends[0].Healthy, s.Backends[1].Healthy)
	}
	sickA.Store(true)
	eventually(t, "a sick backend is not noticed", func() bool { return state() == "false true" })
	for range 20 {
		if _, body := get(t, f, "/"); body != "b" {
			t.Fatal("a sick backend was asked")
		}
	}
	sickB.Store(true)
	eventually(t, "the second sick backend is not noticed", func() bool { return state() == "false false" })
	res, _ := get(t, f, "/")
	if res.StatusCode != 503 || f.last(t).Reason != upstream.NoHealthyBackend || res.Header.Get("Retry-After") != "1" {
		t.Error(res.Status, res.Header)
	}
	sickA.Store(false)
	eventually(t, "a cured backend is not noticed", func() bool { return state() == "true false" })
	if _, body := get(t, f, "/"); body != "a" {
		t.Error(body)
	}
}

func TestHealthCheckKinds(t *testing.T) {
	moved := backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(302) }).URL
	hung := rawBackend(t, hangs)
	for _, c := range []struct {
		name    string
		to      string
		health  upstream.Health
		healthy bool
	}{
		{"3xx is healthy", moved, upstream.Health{Path: "/"}, true},
		{"unless only others are", moved, upstream.Health{Path: "/", Status: []int{200}}, false},
		{"hung is not", hung, upstream.Health{Path: "/"}, false},
		{"without a path a connection is enough", hung, upstream.Health{}, true},
		{"nothing listens", dead(t), upstream.Health{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.health.Interval, c.health.Timeout, c.health.UnhealthyAfter = 100*time.Millisecond, 30*time.Millisecond, 1
			f := newFront(t, upstream.Config{To: []string{c.to}, Health: &c.health}, setup{})
			time.Sleep(150 * time.Millisecond)
			eventually(t, "not found out", func() bool { return f.pool.Stats().Backends[0].Healthy == c.healthy })
		})
	}
}

func TestLeastRequests(t *testing.T) {
	hold := make(chan struct{})
	slow := backend(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-hold
		}
	}).URL
	var quick atomic.Int32
	other := backend(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-hold
		}
		quick.Add(1)
	}).URL
	f := newFront(t, upstream.Config{To: []string{slow, other}, MaxInFlight: 2}, setup{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { get(t, f, "/slow") })
	}
	eventually(t, "requests are not spread", func() bool {
		s := f.pool.Stats()
		return s.Backends[0].InFlight == 2 && s.Backends[1].InFlight == 2
	})
	res, _ := get(t, f, "/")
	if res.StatusCode != 503 || f.last(t).Reason != upstream.Busy || res.Header.Get("Retry-After") == "" {
		t.Error("beyond max_in_flight:", res.Status)
	}
	close(hold)
	wg.Wait()
	eventually(t, "places are not given back", func() bool {
		s := f.pool.Stats()
		return s.Backends[0].InFlight == 0 && s.Backends[1].InFlight == 0
	})
}

func TestSticky(t *testing.T) {
	var sick [3]atomic.Bool
	f := newFront(t, upstream.Config{To: []string{named(t, "a", &sick[0]), named(t, "b", &sick[1]), named(t, "c", &sick[2])},
		Sticky: &upstream.Sticky{}, Health: &upstream.Health{Path: "/healthz", Interval: 100 * time.Millisecond}}, setup{})
	res, first := get(t, f, "/")
	set := res.Header.Get("Set-Cookie")
	pair, attributes, _ := strings.Cut(set, "; ")
	if !strings.HasPrefix(pair, "__Host-merlon-backend=") || attributes != "Path=/; Secure; HttpOnly; SameSite=Lax" {
		t.Fatal(set)
	}
	if strings.Contains(set, "127.0.0.1") {
		t.Error("the cookie tells an address:", set)
	}
	for range 20 {
		res, body := get(t, f, "/", "Cookie", pair)
		if body != first || res.Header.Get("Set-Cookie") != "" {
			t.Fatal(body, res.Header)
		}
	}
	for _, forged := range []string{"__Host-merlon-backend=", "__Host-merlon-backend=" + first, "__Host-merlon-backend=http://169.254.169.254"} {
		if res, body := get(t, f, "/", "Cookie", forged); res.StatusCode != 200 || body > "c" {
			t.Error(forged, res.Status)
		}
	}
	sick[first[0]-'a'].Store(true)
	eventually(t, "not noticed", func() bool { return !f.pool.Stats().Backends[first[0]-'a'].Healthy })
	if res, body := get(t, f, "/", "Cookie", pair); body == first || res.Header.Get("Set-Cookie") == "" {
		t.Error("stuck to a sick backend")
	}
}

func TestStickyKey(t *testing.T) {
	t.Setenv("STICKY", "0123456789abcdef")
	c := upstream.Config{To: []string{named(t, "a", nil), named(t, "b", nil)}, Sticky: &upstream.Sticky{Cookie: "__Host-b", Key: "env:STICKY"}}
	res, body := get(t, newFront(t, c, setup{}), "/")
	pair, _, _ := strings.Cut(res.Header.Get("Set-Cookie"), ";")
	replica := newFront(t, c, setup{})
	for range 10 {
		if _, again := get(t, replica, "/", "Cookie", pair); again != body {
			t.Fatal("a replica with the same key sends the browser elsewhere")
		}
	}
	c.Sticky.Key = "env:NOT_SET_ANYWHERE"
	if _, err := upstream.New(c); err == nil || !strings.Contains(err.Error(), "sticky.key") {
		t.Error(err)
	}
}
