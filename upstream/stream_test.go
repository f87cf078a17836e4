package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/upstream"
)

func echo(t testing.TB) *httptest.Server {
	up := websocket.Upgrader{}
	return backend(t, func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			kind, p, err := conn.ReadMessage()
			if err != nil {
				return
			}
			_ = conn.WriteMessage(kind, p)
		}
	})
}

func dialWS(t testing.TB, f *front) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(f.URL, "http")+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func say(conn *websocket.Conn, text string) error {
	if err := conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, p, err := conn.ReadMessage()
	if err == nil && string(p) != text {
		err = fmt.Errorf("echoed %q", p)
	}
	return err
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 300 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error(what)
}

func TestWebSocket(t *testing.T) {
	f := newFront(t, upstream.Config{To: []string{echo(t).URL}}, setup{})
	conn := dialWS(t, f)
	for _, text := range []string{"hello", strings.Repeat("x", 1<<20)} {
		if err := say(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	if s := f.pool.Stats(); s.WebSockets != 1 || s.Backends[0].InFlight != 1 {
		t.Errorf("%+v", s)
	}
	_ = conn.Close()
	eventually(t, "the closed WebSocket still counts", func() bool {
		s := f.pool.Stats()
		return s.WebSockets == 0 && s.Backends[0].InFlight == 0
	})
}

func TestWebSocketIdleIsClosed(t *testing.T) {
	f := newFront(t, upstream.Config{To: []string{echo(t).URL}, Timeouts: upstream.Timeouts{Stream: 150 * time.Millisecond}}, setup{})
	conn := dialWS(t, f)
	for range 4 {
		time.Sleep(60 * time.Millisecond)
		if err := say(conn, "alive"); err != nil {
			t.Fatal("closed though it was used:", err)
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	_, _, err := conn.ReadMessage()
	if ne := net.Error(nil); err == nil || errors.As(err, &ne) && ne.Timeout() {
		t.Error("an idle WebSocket stayed open:", err)
	}
}

func TestWebSocketEndsWithItsContext(t *testing.T) {
	ctx, revoke := context.WithCancel(context.Background())
	f := newFront(t, upstream.Config{To: []string{echo(t).URL}}, setup{ctx: func(c context.Context) context.Context {
		c, cancel := context.WithCancel(c)
		context.AfterFunc(ctx, cancel)
		return c
	}})
	conn := dialWS(t, f)
	if err := say(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	revoke()
	_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	if _, _, err := conn.ReadMessage(); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Error("outlived its session:", err)
	}
}

func TestCloseWaitsForWebSocketsAndThenEndsThem(t *testing.T) {
	f := newFront(t, upstream.Config{To: []string{echo(t).URL}}, setup{})
	conn := dialWS(t, f)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { f.pool.Close(ctx); close(done) }()
	time.Sleep(50 * time.Millisecond)
	if err := say(conn, "still here"); err != nil {
		t.Fatal("closed before its time:", err)
	}
	cancel()
	<-done
	if err := say(conn, "gone"); err == nil {
		t.Error("a WebSocket outlived the pool")
	}
}

// A backend that does not switch must not get a tunnel, and nothing but
// WebSocket may ask for one.
func TestNoTunnelPastTheGuards(t *testing.T) {
	const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	const accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
	const inner = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
	upgraded := func(accept string) string {
		return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + accept + "\r\n\r\nHELLO"
	}
	for _, c := range []struct {
		name, head, answer string
		status             int
	}{
		{"the real thing passes", "Connection: Upgrade\r\nUpgrade: websocket\r\n" + key, upgraded(accept), 101},
		{"answered 400", "Connection: Upgrade\r\nUpgrade: websocket\r\n" + key, "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno", 400},
		{"answered 426 to a bad version", "Connection: Upgrade\r\nUpgrade: websocket\r\n" + strings.Replace(key, "13", "777", 1), "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", 426},
		{"answered 101 by something that computes no accept", "Connection: Upgrade\r\nUpgrade: websocket\r\n" + key, upgraded("wrong"), 502},
		{"answered 101 to a bad version", "Connection: Upgrade\r\nUpgrade: websocket\r\n" + strings.Replace(key, "13", "777", 1), upgraded(accept), 502},
		{"h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 502},
		{"h2c beside websocket", "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n" + key, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 502},
		{"another protocol than asked for", "Connection: Upgrade\r\nUpgrade: websocket\r\n" + key, strings.Replace(upgraded(accept), "Upgrade: websocket", "Upgrade: h2c", 1), 502},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			var head http.Header
			var extra string
			url := rawBackend(t, func(conn net.Conn, br *bufio.Reader) {
				r, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, c.answer)
				_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				b, _ := io.ReadAll(br)
				mu.Lock()
				defer mu.Unlock()
				if head == nil { // a later request has a connection of its own
					head, extra = r.Header, string(b)
				}
			})
			f := newFront(t, upstream.Config{To: []string{url}}, setup{})
			conn, err := net.Dial("tcp", f.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: a\r\n"+c.head+"\r\n")
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || res.StatusCode != c.status {
				t.Fatalf("%v %v, want %d", res, err, c.status)
			}
			_, _ = io.WriteString(conn, inner)
			time.Sleep(150 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			if c.status == 101 {
				if extra != inner {
					t.Errorf("the tunnel carried %q", extra)
				}
				return
			}
			// The next request on the connection reaches the backend only as a
			// request of its own, through the guards: never on this tunnel.
			if strings.Contains(extra, "/admin") && !strings.Contains(extra, "X-Request-Id") {
				t.Errorf("tunnelled: %q", extra)
			}
			if strings.Contains(c.head, "h2c") && (head.Get("Upgrade") != "" || head.Get("Http2-Settings") != "") {
				t.Errorf("the backend was asked to switch: %v", head)
			}
		})
	}
}

func TestEventsArriveAsTheyAreSent(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "text/plain"} {
		next := make(chan struct{})
		b := backend(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			for i := range 3 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				_ = http.NewResponseController(w).Flush()
				<-next
			}
		})
		f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{})
		hr, _ := http.NewRequest("GET", f.URL, nil)
		hr.Header.Set("Accept-Encoding", "identity")
		res, err := f.Client().Do(hr)
		if err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(res.Body)
		for i := range 3 {
			line, err := br.ReadString('\n')
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatal(line, err)
			}
			_, _ = br.ReadString('\n')
			next <- struct{}{}
		}
		_ = res.Body.Close()
	}
}

func TestClientLeavingCancelsTheBackend(t *testing.T) {
	began, cancelled := make(chan struct{}), make(chan struct{})
	b := backend(t, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(cancelled)
	})
	f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{})
	ctx, cancel := context.WithCancel(context.Background())
	hr, _ := http.NewRequestWithContext(ctx, "GET", f.URL, nil)
	go func() { <-began; cancel() }()
	if res, err := f.Client().Do(hr); err == nil {
		_ = res.Body.Close()
	}
	select {
	case <-cancelled:
	case <-time.After(5 * time.Second):
		t.Fatal("the backend works for nobody")
	}
	if d := f.last(t); d.Reason != upstream.ClientClosed || d.Code() != upstream.StatusClientClosed {
		t.Errorf("%+v", d)
	}
}

func TestRefusedWhileStreaming(t *testing.T) {
	var got atomic.Int64
	b := backend(t, func(_ http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		got.Store(n)
		if err == nil {
			t.Error("the backend took the refused body for a whole one")
		}
	})
	gate := merlon.NewGate(lateGuard{})
	f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{prepare: func(r *merlon.Request) { gate.Check(r) }})
	res, err := f.Client().Post(f.URL, "text/plain", strings.NewReader(strings.Repeat("x", 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if d := f.last(t); d.Reason != "late" || res.StatusCode != 413 {
		t.Errorf("%d %+v", res.StatusCode, d)
	}
}

type lateGuard struct{}

func (lateGuard) Name() string { return "late" }
func (lateGuard) Check(r *merlon.Request) merlon.Decision {
	r.WrapBody(func(body io.ReadCloser, refuse func(merlon.Decision) error) io.ReadCloser {
		return &lateBody{body, refuse, 0}
	})
	return merlon.Pass("")
}

type lateBody struct {
	io.ReadCloser
	refuse func(merlon.Decision) error
	n      int
}

func (b *lateBody) Read(p []byte) (int, error) {
	if b.n > 100000 {
		return 0, b.refuse(merlon.Refuse(413, "late"))
	}
	n, err := b.ReadCloser.Read(p)
	b.n += n
	return n, err
}

func TestExpectContinue(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})
	f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{})
	conn, _ := net.Dial("tcp", f.Listener.Addr().String())
	defer conn.Close()
	br := bufio.NewReader(conn)
	_, _ = io.WriteString(conn, "POST /yes HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	if line, err := br.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatal(line, err)
	}
	_, _ = br.ReadString('\n')
	_, _ = io.WriteString(conn, "hello")
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	if got := raw(t, f, "POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403") {
		t.Errorf("%q", got)
	}
}

func TestRangesAndBodilessAnswers(t *testing.T) {
	text := strings.Repeat("0123456789", 1000)
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(304)
		default:
			w.Header().Set("Content-Type", "text/plain")
			http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(text))
		}
	})
	f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{})
	if res, body := get(t, f, "/", "Range", "bytes=5-14", "Accept-Encoding", "gzip"); res.StatusCode != 206 || body != "5678901234" || res.Header.Get("Content-Range") != "bytes 5-14/10000" {
		t.Error(res.Status, body, res.Header)
	}
	if res, body := do(t, f, "HEAD", "/", nil, "Accept-Encoding", "gzip"); res.StatusCode != 200 || res.ContentLength != 10000 || body != "" {
		t.Error(res.Status, res.ContentLength)
	}
	if res, _ := get(t, f, "/204"); res.StatusCode != 204 {
		t.Error(res.Status)
	}
	if res, _ := get(t, f, "/304"); res.StatusCode != 304 || res.Header.Get("Etag") != `"x"` {
		t.Error(res.Status, res.Header)
	}
}

func TestTrailers(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum, Set-Cookie")
		_, _ = io.WriteString(w, "body")
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("X-Sum", "42")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set(http.TrailerPrefix+"X-Late", "1")
		w.Header().Set(http.TrailerPrefix+"Content-Type", "text/html")
	})
	for _, h2 := range []bool{false, true} {
		f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{h2: h2})
		res, _ := get(t, f, "/")
		if res.Trailer.Get("X-Sum") != "42" || res.Trailer.Get("X-Late") != "1" {
			t.Errorf("h2 %v: %v", h2, res.Trailer)
		}
		if res.Trailer.Get("Set-Cookie") != "" || res.Trailer.Get("Content-Type") != "" {
			t.Errorf("h2 %v: forbidden trailers passed: %v", h2, res.Trailer)
		}
	}
}

func TestLargeBodiesStream(t *testing.T) {
	const size = 512 << 20
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Got", fmt.Sprint(n))
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.CopyN(w, zeros{}, size)
	})
	f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{})
	var peak, before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var most uint64
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				runtime.ReadMemStats(&peak)
				most = max(most, peak.HeapInuse)
			}
		}
	})
	res, err := f.Client().Post(f.URL, "application/octet-stream", io.LimitReader(zeros{}, size))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	close(stop)
	wg.Wait()
	if err != nil || n != size || res.Header.Get("X-Got") != fmt.Sprint(size) {
		t.Error(n, err, res.Header.Get("X-Got"))
	}
	if most > before.HeapInuse+32<<20 {
		t.Errorf("the heap grew from %d to %d", before.HeapInuse, most)
	}
}
