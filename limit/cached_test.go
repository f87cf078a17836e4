package limit_test

import (
	"net/http"
	"testing"

	"github.com/merlon-dev/merlon/limit"
)

// A cache must not tell others what was left to one client once.
func TestKeepFromCaches(t *testing.T) {
	for _, c := range []struct {
		name, value string
		told        bool
	}{
		{"X-Nothing", "", true},
		{"Cache-Control", "no-store", true},
		{"Cache-Control", "private, No-Cache", true},
		{"Cache-Control", "max-age=0, must-revalidate", true},
		{"Cache-Control", "public, max-age=3600", false},
		{"Cache-Control", "s-maxage=60", false},
		{"Cache-Control", "private, max-age=60", false},
		{"Expires", "Thu, 01 Jan 2099 00:00:00 GMT", false},
		{"Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT", false},
	} {
		h := http.Header{"Ratelimit": {`"default";r=1;t=1`}, "Ratelimit-Policy": {`"default";q=5;w=5`}, "Etag": {`"x"`}}
		h.Set(c.name, c.value)
		limit.KeepFromCaches(h)
		if told := h.Get("RateLimit") != "" && h.Get("RateLimit-Policy") != ""; told != c.told || h.Get("Etag") == "" {
			t.Errorf("%s: %s: %v", c.name, c.value, h)
		}
	}
}
