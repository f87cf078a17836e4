package stuffing_test

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/stuffing"
)

// BenchmarkCheck: what the guard costs a request that is no log-in, and a
// guesser who is refused.
func BenchmarkCheck(b *testing.B) {
	b.Run("no log-in", func(b *testing.B) {
		w := newWorld(b, config(), stuffing.Env{})
		r := merlon.NewRequest(httptest.NewRequest("POST", "https://"+site+"/api/orders/1", nil))
		b.ReportAllocs()
		for b.Loop() {
			w.guard.Check(r)
		}
	})
	b.Run("refused", func(b *testing.B) {
		w := newWorld(b, config(), stuffing.Env{Watch: true})
		for i := range 100 {
			w.try("203.0.113.9", fmt.Sprint("user", i), "x")
		}
		b.ReportAllocs()
		for b.Loop() {
			r := merlon.NewRequest(loginRequest(form, "email=owner%40example.com&password=x"))
			r.Site = site
			if w.guard.Check(r); w.guard.Underway() > 0 {
				w.guard.Done(r, merlon.Outcome{})
			}
		}
	})
}
