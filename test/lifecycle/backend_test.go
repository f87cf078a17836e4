package lifecycle_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/test/harness"
	"github.com/merlon-dev/merlon/upstream"
)

// rawBackend accepts connections and leaves each to f.
func rawBackend(t testing.TB, f func(net.Conn)) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return "http://" + ln.Addr().String()
}

// says reads a request's header and answers with text, if any.
func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, text)
		}
	}
}

// A backend that fails costs its own requests only: each is answered at once
// and clearly, and leaves nothing behind.
func TestBackendsThatFail(t *testing.T) {
	t.Parallel()
	killed := httptest.NewServer(http.HandlerFunc(hello))
	hung := rawBackend(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	route := func(path, to string) string {
		return "      - path: " + path + "\n        upstream: {to: [\"" + to + "\"], timeouts: {dial: 1s, response_header: 300ms, stall: 300ms}}\n"
	}
	file := configure(t, "limit: {rate: off}\nsites:\n  - host: localhost\n    upstream: "+backend(t, hello).URL+"\n    routes:\n"+
		route("/killed", killed.URL)+
		route("/hung", hung)+
		route("/garbage", rawBackend(t, says("this is not HTTP\r\n\r\n")))+
		route("/two-lengths", rawBackend(t, says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")))+
		route("/early", rawBackend(t, says("")))+
		route("/half-header", rawBackend(t, says("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")))+
		route("/half-body", rawBackend(t, says("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf"))))
	m := harness.Serve(t, harness.Options{}, "-c", file)
	c := client(t, m, false)

	if res, body := get(t, c, url(m, "/killed")); res.StatusCode != 200 || body != "hello" {
		t.Fatalf("before it is killed: %d %s", res.StatusCode, body)
	}
	killed.CloseClientConnections()
	killed.Close()

	rows := []struct {
		path   string
		status int
		reason merlon.Reason
	}{
		{"/killed", 502, upstream.Unreachable},
		{"/hung", 504, upstream.Timeout},
		{"/garbage", 502, upstream.BadResponse},
		{"/two-lengths", 502, upstream.BadResponse},
		{"/early", 502, upstream.Closed},
		{"/half-header", 502, upstream.Closed},
	}
	for _, row := range rows {
		t.Run(row.path[1:], func(t *testing.T) {
			began := time.Now()
			res, body := get(t, c, url(m, row.path))
			id := refused(t, res, body, row.status)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("answered after %v", took)
			}
			if e := event(t, m, id); e.Reason != row.reason || e.Guard != upstream.Name {
				t.Errorf("event: %s %s, want %s", e.Guard, e.Reason, row.reason)
			}
		})
	}
	t.Run("half-body", func(t *testing.T) {
		halfBody(t, c, url(m, "/half-body"))
	})
	t.Run("nothing is left behind", func(t *testing.T) {
		idle := func() (float64, int) {
			c.CloseIdleConnections()
			return m.Metric(t, "go_goroutines"), m.FDs(t)
		}
		time.Sleep(200 * time.Millisecond)
		routines, fds := idle()
		for range 30 {
			for _, row := range rows {
				if row.path == "/hung" {
					continue // these wait, and are asked side by side below
				}
				res, body := get(t, c, url(m, row.path))
				refused(t, res, body, row.status)
			}
			halfBody(t, c, url(m, "/half-body"))
		}
		done := make(chan struct{})
		for range 50 {
			go func() {
				defer func() { done <- struct{}{} }()
				res, err := c.Get(url(m, "/hung"))
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				if res.StatusCode != 504 {
					t.Errorf("a hung backend: %d", res.StatusCode)
				}
			}()
		}
		for range 50 {
			<-done
		}
		var r float64
		var f int
		soon(t, "goroutines and descriptors to go back", func() bool {
			r, f = idle()
			return r <= routines+3 && f <= fds+3
		})
		t.Logf("goroutines %v, then %v; descriptors %d, then %d", routines, r, fds, f)
	})
	if res, body := get(t, c, url(m, "/")); res.StatusCode != 200 || body != "hello" {
		t.Errorf("a sound backend beside them: %d %s", res.StatusCode, body)
	}
	verified(t, m, c)
}

// halfBody asks for an answer that breaks off: the client must notice.
func halfBody(t *testing.T, c *http.Client, target string) {
	t.Helper()
	res, err := c.Get(target)
	if err != nil {
		return
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err == nil && res.StatusCode < 500 {
		t.Errorf("half an answer was passed on as a whole one: %d, %d bytes", res.StatusCode, len(body))
	}
}
