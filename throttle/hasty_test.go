package throttle_test

import (
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/throttle"
)

// Clients that say they wait for a millisecond (grpc-timeout) do not make a
// healthy backend look slow, so that others are shed.
func TestHastyClientsCauseNoShedding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := throttle.Config{Timeout: 5 * time.Second, Shed: throttle.ShedConfig{Latency: 500 * time.Millisecond}}
		g := guard(t, c, throttle.Classes{}, throttle.NewPool(nil))
		for range 400 {
			hr := httptest.NewRequest("GET", "/", nil)
			hr.Header.Set("Content-Type", "application/grpc")
			hr.Header.Set("Grpc-Timeout", "1m")
			r, gate := merlon.NewRequest(hr), merlon.NewGate(g)
			if d := gate.Check(r); !d.Passed() {
				t.Fatalf("%+v", d)
			}
			<-r.Context().Done()
			gate.Done(r, merlon.Outcome{Status: 504, Upstream: true, Guard: "throttle"})
			time.Sleep(10 * time.Millisecond)
		}
		b := &backend{base: 100 * time.Millisecond}
		if passed, shed, _, _ := b.load(g, 5*time.Millisecond, time.Second); shed != 0 {
			t.Errorf("%d of %d are shed", shed, passed+shed)
		}
		time.Sleep(time.Hour)
	})
}
