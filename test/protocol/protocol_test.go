// Package protocol_test probes what lies below requests at the real binary:
// HTTP/2 frames and TLS handshakes.
package protocol_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/merlon-dev/merlon/test/harness"
)

func TestMain(m *testing.M) {
	defer harness.Cleanup()
	m.Run()
}

// backend starts a server that the gateway stands in front of.
func backend(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// configure writes a configuration and returns its path.
func configure(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "merlon.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
