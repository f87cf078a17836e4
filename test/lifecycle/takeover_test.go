package lifecycle_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
)

// soak is how long the load goes on: MERLON_SOAK, or 12 seconds.
func soak(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("MERLON_SOAK")
	if text == "" {
		return 12 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Nobody notices reloads, a broken file, or that another Merlon takes over:
// under load, HTTP/1.1 and HTTP/2 with kept connections and long streams, not
// one request fails.
func TestNoRequestIsLost(t *testing.T) {
	t.Parallel()
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stream" {
			hello(w, r)
			return
		}
		for i := range chunks {
			_, _ = fmt.Fprintf(w, "%03d\n", i)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	})
	text := "limit: {rate: 100000/s, burst: 100000}\nsites:\n  - host: localhost\n    upstream: " + b.URL + "\n"
	file := configure(t, text)
	first := harness.Serve(t, harness.Options{}, "-c", file)
	l := startLoad(t, first)
	kept := dialHTTP1(t, first)
	kept.ask(t, false)

	step := soak(t) / 6
	time.Sleep(step)
	reloads := func(n int, why string) {
		t.Helper()
		soon(t, why, func() bool { return strings.Count(first.Output(), "configuration reloaded") == n })
		time.Sleep(step)
	}
	first.Signal(t, syscall.SIGHUP)
	reloads(1, "the reload after SIGHUP")
	rewrite(t, file, strings.Replace(text, "burst: 100000", "burst: 100000, hide_headers: true", 1))
	reloads(2, "the reload after the file was changed")
	if kept.ask(t, false).Header.Get("RateLimit") != "" {
		t.Error("a kept connection is still served under the old configuration")
	}
	rewrite(t, file, strings.Replace(text, "upstream:", "upsteam:", 1))
	soon(t, "the error about the broken file", func() bool {
		return strings.Contains(first.Output(), "configuration not reloaded; the old one goes on") && strings.Contains(first.Output(), "upsteam")
	})
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	reloads(3, "the reload after the file was replaced")

	second := harness.Serve(t, harness.Options{Data: first.Data,
		Addrs: map[string]string{"https": first.HTTPS, "http": first.HTTP, "admin": first.Admin}}, "-c", file)
	if n := l.closes.Load(); n != 0 {
		t.Errorf("%d answers carried Connection: close before anything was stopped", n)
	}
	stopped := make(chan struct{})
	go func() { first.Stop(t); close(stopped) }()
	soon(t, "the first to stop", func() bool { return strings.Contains(first.Output(), "stopping") })
	time.Sleep(100 * time.Millisecond)
	kept.ask(t, true)
	<-stopped
	time.Sleep(step)

	l.end(t)
	verified(t, second)
}

const chunks = 25 // of a stream, one every 100 ms

// A load is clients that ask without a pause until it ends.
type load struct {
	stop             chan struct{}
	wg               sync.WaitGroup
	asked, streams   atomic.Int64
	closes, failures atomic.Int64
	log              chan string
}

func startLoad(t *testing.T, m *harness.Merlon) *load {
	l := &load{stop: make(chan struct{}), log: make(chan string, 20)}
	for i := range 12 {
		c := client(t, m, i%2 == 0)
		l.wg.Go(func() { l.repeat(c, url(m, "/page"), i) })
		if i < 4 {
			l.wg.Go(func() { l.repeat(c, url(m, "/stream"), 0) })
		}
	}
	t.Cleanup(func() { l.finish() })
	return l
}

func (l *load) finish() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.wg.Wait()
}

func (l *load) end(t *testing.T) {
	t.Helper()
	l.finish()
	t.Logf("%d requests, %d streams, %d answers with Connection: close, %d failures",
		l.asked.Load(), l.streams.Load(), l.closes.Load(), l.failures.Load())
	if l.asked.Load() < 500 || l.streams.Load() < 8 {
		t.Error("that was no load")
	}
	if l.closes.Load() == 0 {
		t.Error("no answer carried Connection: close while the first was stopping")
	}
	if l.failures.Load() > 0 {
		close(l.log)
		for text := range l.log {
			t.Error(text)
		}
	}
}

// repeat asks; every third request is a POST, which net/http does not send
// again by itself once it has begun.
func (l *load) repeat(c *http.Client, target string, i int) {
	stream := strings.HasSuffix(target, "/stream")
	for ; ; i++ {
		select {
		case <-l.stop:
			return
		default:
		}
		var res *http.Response
		var err error
		if !stream && i%3 == 0 {
			res, err = c.Post(target, "application/json", strings.NewReader(`{"name":"value"}`))
		} else {
			res, err = c.Get(target)
		}
		if err := l.check(res, err, stream); err != nil {
			l.failures.Add(1)
			select {
			case l.log <- time.Now().Format("15:04:05.000 ") + err.Error():
			default:
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (l *load) check(res *http.Response, err error, stream bool) error {
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("%s after %d bytes: %w", res.Proto, len(body), err)
	}
	if res.Close {
		l.closes.Add(1)
	}
	want := len("hello")
	if stream {
		want = chunks * len("000\n")
		l.streams.Add(1)
	} else {
		l.asked.Add(1)
	}
	if res.StatusCode != http.StatusOK || len(body) != want {
		return fmt.Errorf("%s: %d, %q", res.Proto, res.StatusCode, body)
	}
	return nil
}

// A conn is one HTTP/1.1 connection over TLS, without a client's help.
type conn struct {
	*tls.Conn
	r *bufio.Reader
}

func dialHTTP1(t testing.TB, m *harness.Merlon) conn {
	t.Helper()
	c, err := tls.Dial("tcp", m.HTTPS, &tls.Config{RootCAs: m.CA(t), ServerName: "localhost", NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
	return conn{c, bufio.NewReader(c)}
}

// ask sends one request; its answer must say whether the connection closes.
func (c conn) ask(t testing.TB, closes bool) *http.Response {
	t.Helper()
	if _, err := io.WriteString(c, "GET /kept HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || string(body) != "hello" || res.Close != closes {
		t.Errorf("%d %q, Connection: close %v, want %v; %v", res.StatusCode, body, res.Close, closes, err)
	}
	return res
}
