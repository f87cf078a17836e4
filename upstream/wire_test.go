package upstream_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/upstream"
)

// raw sends bytes to the front and returns all that comes back.
func raw(t testing.TB, f *front, wire string) string {
	t.Helper()
	conn, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, wire); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(conn)
	return string(b)
}

func rawStatus(t testing.TB, f *front, wire string) int {
	t.Helper()
	var status int
	_, _ = fmt.Sscanf(raw(t, f, wire), "HTTP/1.1 %d", &status)
	return status
}

// rawBackend answers every connection by a function on its bytes.
func rawBackend(t testing.TB, serve func(net.Conn, *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn, bufio.NewReader(conn))
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// answers reads one request and writes fixed bytes.
func answers(wire string) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, br *bufio.Reader) {
		if r, err := http.ReadRequest(br); err == nil {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(conn, wire)
		}
	}
}

func hangs(conn net.Conn, _ *bufio.Reader) { _, _ = io.Copy(io.Discard, conn) }

func TestFailingBackends(t *testing.T) {
	ok := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, c := range []struct {
		name   string
		serve  func(net.Conn, *bufio.Reader)
		status int // 0: the answer breaks off
		reason merlon.Reason
	}{
		{"an ordinary answer passes", answers(ok), 200, ""},
		{"an answer that the connection's end delimits passes", answers("HTTP/1.1 200 OK\r\n\r\nok"), 200, ""},
		{"accepts and never answers", hangs, 504, upstream.Timeout},
		{"closes at once", func(net.Conn, *bufio.Reader) {}, 502, upstream.Closed},
		{"closes after the request", answers(""), 502, upstream.Closed},
		{"closes in the header", answers("HTTP/1.1 200 OK\r\nX: y\r\n"), 502, upstream.Closed},
		{"closes in the body", answers("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + strings.Repeat("x", 100000)), 0, upstream.Closed},
		{"closes in a chunk", answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"), 0, upstream.Closed},
		{"stalls in the body", func(c net.Conn, br *bufio.Reader) {
			answers("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")(c, br)
			hangs(c, br)
		}, 504, upstream.Timeout},
		{"stalls in a long body", func(c net.Conn, br *bufio.Reader) {
			answers("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 100000))(c, br)
			hangs(c, br)
		}, 0, upstream.Timeout},
		{"closes in a short body", answers("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), 502, upstream.Closed},
		{"garbage", answers("\x00\x01\x02 nothing like HTTP\r\n\r\n"), 502, upstream.BadResponse},
		{"garbage in a chunk size", answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhe"), 0, upstream.BadResponse},
		{"endless header", answers("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"), 502, upstream.BadResponse},
		{"endless headers", answers("HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: b\r\n", 50000) + "\r\n"), 502, upstream.BadResponse},
		{"a header within the bound passes", answers("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 30<<10) + "\r\nContent-Length: 2\r\n\r\nok"), 200, ""},
		{"two lengths", answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"), 502, upstream.BadResponse},
		{"signed length", answers("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"), 502, upstream.BadResponse},
		{"unknown transfer coding", answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nok"), 502, upstream.BadResponse},
		{"a carriage return inside a value", answers("HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b=c\r\nContent-Length: 2\r\n\r\nok"), 502, upstream.BadResponse},
		{"NUL inside a value", answers("HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok"), 502, upstream.BadResponse},
		{"a space in a name", answers("HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 2\r\n\r\nok"), 502, upstream.BadResponse},
		{"status 099", answers("HTTP/1.1 099 No\r\nContent-Length: 2\r\n\r\nok"), 502, upstream.BadResponse},
		{"status 101 that nobody asked for", answers("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), 502, upstream.BadResponse},
		{"status 101 without a protocol", answers("HTTP/1.1 101 Switching Protocols\r\n\r\n"), 502, upstream.BadResponse},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFront(t, upstream.Config{To: []string{rawBackend(t, c.serve)},
				Timeouts: upstream.Timeouts{ResponseHeader: 100 * time.Millisecond, Stall: 100 * time.Millisecond}}, setup{})
			got := raw(t, f, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
			res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil)
			if err != nil && c.status == 0 {
				res = &http.Response{Body: io.NopCloser(broken{})} // nothing was sent yet: as good
			} else if err != nil {
				t.Fatalf("%v: %q", err, got)
			}
			body, err := io.ReadAll(res.Body)
			if c.status == 0 {
				if err == nil {
					t.Errorf("the client was given a whole answer: %d bytes", len(body))
				}
				if d := f.last(t); d.Reason != c.reason || !d.begun {
					t.Errorf("told %+v", d)
				}
				return
			}
			if res.StatusCode != c.status {
				t.Errorf("status %d, want %d", res.StatusCode, c.status)
			}
			if c.reason == "" {
				if err != nil || len(f.failed) > 0 {
					t.Errorf("%v, told %+v", err, f.failed)
				}
				return
			}
			d := f.last(t)
			if d.Reason != c.reason || d.begun || d.Err == nil || len(d.Findings) == 0 {
				t.Errorf("told %+v", d)
			}
			if !strings.Contains(res.Header.Get("Content-Type"), "problem+json") {
				t.Errorf("answered %q", body)
			}
		})
	}
}

func TestNothingListens(t *testing.T) {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	addr := l.Addr().String()
	_ = l.Close()
	f := newFront(t, upstream.Config{To: []string{"http://" + addr}}, setup{})
	res, _ := get(t, f, "/")
	if d := f.last(t); res.StatusCode != 502 || d.Reason != upstream.Unreachable {
		t.Errorf("%d %+v", res.StatusCode, d)
	}
	// As soon as it is back it is asked again: there is no other.
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skip(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	if res, _ := get(t, f, "/"); res.StatusCode != 200 {
		t.Error(res.StatusCode)
	}
}

// A broken backend must cost nothing that stays.
func TestFailuresLeaveNothingBehind(t *testing.T) {
	urls := []string{
		rawBackend(t, hangs), rawBackend(t, answers("garbage")), rawBackend(t, answers("")),
		rawBackend(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf")),
		"http://127.0.0.1:1",
	}
	var fronts []*front
	for _, u := range urls {
		fronts = append(fronts, newFront(t, upstream.Config{To: []string{u},
			Timeouts: upstream.Timeouts{ResponseHeader: 20 * time.Millisecond, Idle: 10 * time.Millisecond}}, setup{}))
	}
	round := func(n int) {
		for range n {
			for _, f := range fronts {
				raw(t, f, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			}
		}
	}
	round(3)
	goroutines, files := settle()
	round(30)
	for range 50 {
		g, fd := settle()
		if g <= goroutines+3 && fd <= files+3 {
			return
		}
	}
	g, fd := settle()
	t.Errorf("goroutines %d → %d, descriptors %d → %d", goroutines, g, files, fd)
}

func settle() (goroutines, files int) {
	time.Sleep(50 * time.Millisecond)
	entries, _ := os.ReadDir("/proc/self/fd")
	return runtime.NumGoroutine(), len(entries)
}

func TestABackendThatNeverReads(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	url := rawBackend(t, func(net.Conn, *bufio.Reader) { <-stop })
	f := newFront(t, upstream.Config{To: []string{url}, Timeouts: upstream.Timeouts{Stall: 200 * time.Millisecond}}, setup{})
	res, err := f.Client().Post(f.URL, "application/octet-stream", io.LimitReader(zeros{}, 64<<20))
	if err == nil {
		_ = res.Body.Close()
	}
	if d := f.last(t); d.Reason != upstream.Timeout || d.Code() != 504 {
		t.Errorf("%+v", d)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
