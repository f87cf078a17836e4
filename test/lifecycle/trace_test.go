package lifecycle_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
)

// Where telemetry.traces names a collector, each request becomes a span there,
// and the backend is told of Merlon's trace, not of the client's.
func TestTracesReachTheCollector(t *testing.T) {
	spans := make(chan string, 16)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/v1/traces" {
			spans <- string(body)
		}
	}))
	defer collector.Close()
	parents := make(chan string, 16)
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { parents <- r.Header.Get("Traceparent") }))
	defer backend.Close()
	file := filepath.Join(t.TempDir(), "merlon.yaml")
	text := fmt.Sprintf("telemetry: {traces: %q}\nsites:\n  - host: \"*\"\n    upstream: %s\n", collector.URL, backend.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m := harness.Serve(t, harness.Options{}, "-c", file)
	req, err := http.NewRequest("GET", "https://localhost/traced", nil)
	if err != nil {
		t.Fatal(err)
	}
	const foreign = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	req.Header.Set("Traceparent", foreign)
	res, err := m.Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if p := <-parents; p == "" || strings.Contains(p, "0af7651916cd43dd8448eb211c80319c") {
		t.Errorf("the backend was told of the trace %q", p)
	}
	select {
	case s := <-spans:
		if !strings.Contains(s, res.Header.Get("X-Request-Id")) {
			t.Error("the span does not name the request")
		}
	case <-time.After(15 * time.Second):
		t.Error("no span came")
	}
}
