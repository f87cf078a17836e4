package lifecycle_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
)

// Clients that send their header or body byte by byte are given up in time,
// and meanwhile everybody else is served.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	m := harness.Serve(t, harness.Options{}, "-c", configure(t,
		"header_timeout: 2s\nslow_grace: 1s\nsites:\n  - host: localhost\n    upstream: "+backend(t, hello).URL+"\n"))

	const slow = 50
	took := make(chan time.Duration, slow)
	for range slow {
		c := dialHTTP1(t, m)
		go func() {
			began := time.Now()
			go drip(c, "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
			_, _ = io.Copy(io.Discard, c.r) // until it is closed
			took <- time.Since(began)
		}()
	}
	c := client(t, m, false)
	served := 0
	for left := slow; left > 0; {
		select {
		case d := <-took:
			left--
			if d < time.Second || d > 5*time.Second {
				t.Errorf("a slow header was given up after %v", d)
			}
		default:
			began := time.Now()
			if res, body := get(t, c, url(m, "/")); res.StatusCode != 200 || body != "hello" {
				t.Fatalf("meanwhile: %d %s", res.StatusCode, body)
			}
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("meanwhile an answer took %v", d)
			}
			served++
			time.Sleep(20 * time.Millisecond)
		}
	}
	t.Logf("%d requests were answered while %d slow ones were waited for", served, slow)
	if served < 10 {
		t.Errorf("only %d requests were answered meanwhile", served)
	}
	for _, contentType := range []string{"application/json", "application/octet-stream"} {
		t.Run("slow body of "+contentType, func(t *testing.T) {
			c := dialHTTP1(t, m)
			go drip(c, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: "+contentType+"\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat(" ", 10))
			res, err := http.ReadResponse(c.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			refused(t, res, string(body), 408)
			if !res.Close {
				t.Error("the connection must close")
			}
		})
	}
	verified(t, m, c)
	slowHeaders := uint64(0)
	for _, e := range events(t, m, "--reason", "slow-header") {
		slowHeaders += max(1, e.Count)
	}
	if slowHeaders != slow {
		t.Errorf("%d events of slow headers, want %d", slowHeaders, slow)
	}
	if n := len(events(t, m, "--reason", "slow-body")); n != 2 {
		t.Errorf("%d events of slow bodies, want 2", n)
	}
}

// drip sends text at once and then a byte ten times a second, until it cannot.
func drip(w io.Writer, text string) {
	_, err := io.WriteString(w, text)
	for err == nil {
		time.Sleep(100 * time.Millisecond)
		_, err = io.WriteString(w, "a")
	}
}
