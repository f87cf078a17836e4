package upstream_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/upstream"
)

// A backend sees nothing of a short body that does not come to its end, or
// that a guard refuses at its end.
func TestShortBodiesAreWholeOrNotSent(t *testing.T) {
	var asked atomic.Int32
	b := backend(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	gate := merlon.NewGate(endGuard{})
	guarded := setup{prepare: func(r *merlon.Request) { gate.Check(r) }}
	const head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\n"

	f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{})
	conn, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, head+"12345")
	_ = conn.(*net.TCPConn).CloseWrite()
	f.last(t)
	_ = conn.Close()

	f = newFront(t, upstream.Config{To: []string{b.URL}}, guarded)
	if status := rawStatus(t, f, head+"1234567890"); status != 413 || f.last(t).Reason != "end" {
		t.Errorf("%d %+v", status, f.last(t))
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the backend was asked %d times", n)
	}
}

// endGuard refuses a body when it has been read.
type endGuard struct{}

func (endGuard) Name() string { return "end" }
func (endGuard) Check(r *merlon.Request) merlon.Decision {
	r.WrapBody(func(body io.ReadCloser, refuse func(merlon.Decision) error) io.ReadCloser {
		return &endBody{body, refuse}
	})
	return merlon.Pass("")
}

type endBody struct {
	io.ReadCloser
	refuse func(merlon.Decision) error
}

func (b *endBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		err = b.refuse(merlon.Refuse(413, "end"))
	}
	return n, err
}

// Short and long bodies arrive as they were, also at a second backend.
func TestBodiesArriveAsTheyWere(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || int64(len(body)) != r.ContentLength {
			t.Errorf("%d bytes, %d announced, %v", len(body), r.ContentLength, err)
		}
		_, _ = w.Write(body)
	}
	f := newFront(t, upstream.Config{To: []string{dead(t), backend(t, echo).URL}}, setup{})
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "GET", "OPTIONS"} {
		for _, n := range []int{1, 1000, 4 << 10, 16 << 10, 16<<10 + 1, 100_000} {
			body := strings.Repeat("0123456789", n/10+1)[:n]
			for _, header := range [][]string{nil, {"Idempotency-Key", "1"}} {
				res, got := do(t, f, method, "/", strings.NewReader(body), header...)
				if res.StatusCode != 200 || got != body {
					t.Errorf("%s of %d bytes: %s, %d bytes", method, n, res.Status, len(got))
				}
			}
		}
	}
}

// What left on a connection that was kept is not sent again, whatever the
// request says about itself.
func TestWhatLeftOnAKeptConnectionIsNotSentAgain(t *testing.T) {
	for _, header := range [][]string{nil, {"Idempotency-Key", "1"}, {"X-Idempotency-Key", "1"}} {
		var asked atomic.Int32
		once := func(conn net.Conn, br *bufio.Reader) {
			for n := 0; ; n++ {
				r, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				asked.Add(1)
				if n == 1 {
					return // without an answer
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		}
		f := newFront(t, upstream.Config{To: []string{rawBackend(t, once)}}, setup{})
		if res, _ := do(t, f, "POST", "/", strings.NewReader("pay"), header...); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
		res, _ := do(t, f, "POST", "/", strings.NewReader("pay"), header...)
		if res.StatusCode != 502 || asked.Load() != 2 {
			t.Errorf("%v: %s, asked %d times", header, res.Status, asked.Load())
		}
	}
}

// A backend that takes a short body and says nothing is given up.
func TestSilenceAfterAShortBody(t *testing.T) {
	c := upstream.Config{To: []string{rawBackend(t, hangs)}}
	c.Timeouts.ResponseHeader = 200 * time.Millisecond
	f := newFront(t, c, setup{})
	res, _ := do(t, f, "POST", "/", strings.NewReader("hello"))
	if res.StatusCode != 504 || f.last(t).Reason != upstream.Timeout {
		t.Errorf("%s %+v", res.Status, f.last(t))
	}
}

// The header and a short body are one piece.
func TestAShortBodyGoesWithTheHeader(t *testing.T) {
	first := make(chan string, 1)
	f := newFront(t, upstream.Config{To: []string{rawBackend(t, func(conn net.Conn, _ *bufio.Reader) {
		piece := make([]byte, 8<<10)
		n, _ := conn.Read(piece)
		first <- string(piece[:n])
	})}}, setup{})
	do(t, f, "POST", "/", strings.NewReader("the whole body"))
	if piece := <-first; !strings.HasSuffix(piece, "the whole body") {
		t.Errorf("%q", piece)
	}
}
