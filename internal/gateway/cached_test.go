package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestCachedAnswersTellNoLimits(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/logo" {
			w.Header().Set("Cache-Control", "public, max-age=3600")
		}
	}))
	defer s.Close()
	g := open(t, read(t, shop, s.URL))
	for path, want := range map[string]bool{"/": true, "/logo": false} {
		if res := g.send("GET", path, ""); (res.Header.Get("RateLimit") != "") != want || res.StatusCode != 200 {
			t.Errorf("%s: %s %v", path, res.Status, res.Header)
		}
	}
}
