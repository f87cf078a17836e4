// Package lifecycle_test runs the real binary in front of real backends, and
// shows what a gateway must keep up from its start to its end: every protocol,
// reloads, a successor, failing backends, hostile clients, bounded memory.
//
// MERLON_SOAK=60s makes the load go on for a minute, MERLON_FULL=1 the large
// bodies two gigabytes.
package lifecycle_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/test/harness"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait most of the time: few cores are no reason for a queue.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	defer harness.Cleanup()
	m.Run()
}

// attack is a value that the WAF refuses in any parameter.
const attack = "1' OR '1'='1' UNION SELECT name, password FROM users--"

// backend starts a server that the gateway stands in front of.
func backend(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// hello answers every request with a page.
func hello(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, "hello")
}

// configure writes a configuration and returns its path.
func configure(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "merlon.yaml")
	rewrite(t, path, text)
	return path
}

func rewrite(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// client returns a client with connections of its own that speaks HTTP/2, or
// only HTTP/1.1. It asks for no compression by itself.
func client(t testing.TB, m *harness.Merlon, h2 bool) *http.Client {
	t.Helper()
	c := m.Client(t)
	tr := c.Transport.(*http.Transport)
	tr.DisableCompression = true
	tr.ExpectContinueTimeout = 20 * time.Second
	if !h2 {
		tr.ForceAttemptHTTP2 = false
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return c
}

// url is an address on a gateway whose site is localhost or any host.
func url(m *harness.Merlon, path string) string {
	_, port, _ := net.SplitHostPort(m.HTTPS)
	return "https://localhost:" + port + path
}

// get asks, and returns the answer with its whole body.
func get(t testing.TB, c *http.Client, target string) (*http.Response, string) {
	t.Helper()
	return do(t, c, request(t, "GET", target, nil))
}

func request(t testing.TB, method, target string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func do(t testing.TB, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return res, string(body)
}

// refused checks that an answer is a problem document with the status, whose
// id is also in X-Request-Id, and returns the id.
func refused(t testing.TB, res *http.Response, body string, status int) string {
	t.Helper()
	var p struct {
		Type, Title, ID string
		Status          int
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Errorf("not a problem document: %d %q", res.StatusCode, body)
		return ""
	}
	if res.StatusCode != status || p.Status != status || p.ID == "" || p.ID != res.Header.Get("X-Request-Id") ||
		res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s %+v, X-Request-Id %q; want %d as a problem document", res.StatusCode,
			res.Header.Get("Content-Type"), p, res.Header.Get("X-Request-Id"), status)
	}
	return p.ID
}

// events returns what `merlon events` tells, the filter given as flags.
func events(t testing.TB, m *harness.Merlon, flags ...string) []ledger.Event {
	t.Helper()
	out, code := m.Run(t, append([]string{"events", "-o", "json", "--limit", "0"}, flags...)...)
	if code != 0 {
		t.Fatalf("merlon events: exit code %d", code)
	}
	var list []ledger.Event
	for line := range strings.Lines(out) {
		var e ledger.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		list = append(list, e)
	}
	return list
}

// event returns the one event of a request, which may be a moment late.
func event(t testing.TB, m *harness.Merlon, id string) ledger.Event {
	t.Helper()
	var list []ledger.Event
	soon(t, "the event of "+id, func() bool {
		list = events(t, m, "--id", id)
		return len(list) > 0
	})
	if len(list) != 1 {
		t.Errorf("%d events with the id %s", len(list), id)
	}
	return list[0]
}

// verified stops the gateway and checks that its log holds together. Clients
// that keep connections open would be waited for.
func verified(t testing.TB, m *harness.Merlon, clients ...*http.Client) {
	t.Helper()
	http.DefaultClient.CloseIdleConnections() // the harness's
	for _, c := range clients {
		c.CloseIdleConnections()
	}
	m.Stop(t)
	if out, code := m.Run(t, "events", "verify"); code != 0 || !strings.HasPrefix(out, "untouched: ") {
		t.Errorf("merlon events verify: exit code %d\n%s", code, out)
	}
}

// soon waits for what must come true within some seconds.
func soon(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}
