package webpage_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/internal/webpage"
)

func TestFile(t *testing.T) {
	f := webpage.NewFile("/static/page.css", []byte("a{}"), "text/css")
	if g := webpage.NewFile("/static/page.css", []byte("b{}"), "text/css"); f.Path == g.Path {
		t.Error("another content is at the same path")
	}
	if !strings.HasPrefix(f.Path, "/static/page.") || !strings.HasSuffix(f.Path, ".css") {
		t.Error(f.Path)
	}
	for method, body := range map[string]string{"GET": "a{}", "HEAD": ""} {
		w := httptest.NewRecorder()
		f.ServeHTTP(w, httptest.NewRequest(method, f.Path, nil))
		h := w.Header()
		if w.Code != 200 || w.Body.String() != body || h.Get("Content-Length") != "3" || h.Get("Content-Type") != "text/css" {
			t.Errorf("%s: %d %v %q", method, w.Code, h, w.Body)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") || !strings.Contains(h.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %v", method, h)
		}
	}
}
