package traffic_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/test/harness"
)

// perAddress is the default of max_connections_per_address. What is one too
// many is accepted and closed, and the kernel's table is not read in a moment:
// a few are seen that are not held.
const (
	perAddress = 512
	closing    = 16
)

// Slow headers, slow bodies and slow readers, by slowhttptest: an address holds
// no more connections than the bound, every slow one is cut, and another
// address is served all the while.
func TestSlowClients(t *testing.T) {
	tool, err := exec.LookPath("slowhttptest")
	if err != nil {
		t.Skip("there is no slowhttptest here: apt-get install slowhttptest")
	}
	const site = "sites: [{host: 127.0.0.1, upstream: BACKEND}, {host: localhost, upstream: BACKEND}]\n"
	for _, c := range []struct {
		name, config string
		args         string
		least, most  int // connections that are held at the worst moment
	}{
		// More than one address may have.
		{"headers", site, "-H -c 700 -r 350 -i 1 -x 8 -u https://%s/", 300, perAddress},
		{"bodies", site, "-B -c 400 -r 100 -i 1 -s 8192 -x 8 -u https://%s/", 200, 400},
		// An answer may stall four times as long as the others: see slow_grace.
		{"readers", "slow_grace: 2s\n" + site, "-X -c 400 -r 100 -n 1 -w 256 -y 512 -z 16 -u https://%s/big", 200, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := serve(t, c.config, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/big" {
					w.Header().Set("Content-Type", "application/octet-stream")
					_, _ = io.WriteString(w, strings.Repeat("merlon. ", 1<<18)) // 2 MiB
					return
				}
				hello(w, r)
			})
			other := p.from("127.0.0.2")
			idle := steady(t, other, func(n int) bool { return n < 250 })

			ctx, cancel := context.WithTimeout(t.Context(), 70*time.Second)
			defer cancel()
			args := append(strings.Fields(fmt.Sprintf(c.args, p.HTTPS)), "-l", "60", "-p", "5", "-v", "1")
			began := time.Now()
			var out []byte
			var ended atomic.Bool
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer ended.Store(true)
				out, _ = exec.CommandContext(ctx, tool, args...).CombinedOutput() // it is told by what it says
			}()
			peak := 0
			busy := steady(t, other, func(n int) bool {
				if n%10 == 0 {
					peak = max(peak, harness.Held(t, p.HTTPS, "127.0.0.1"))
				}
				return !ended.Load()
			})
			<-done
			took := time.Since(began)
			t.Logf("over after %v; held at most %d connections; another address: p50 %v and p99 %v at rest, %v and %v of %d requests during it (p99 %.1f times)",
				took.Round(100*time.Millisecond), peak, quantile(idle, .5), quantile(idle, .99), quantile(busy, .5), quantile(busy, .99), len(busy),
				float64(quantile(busy, .99))/float64(quantile(idle, .99)))
			// Its words when all have been closed by the server before its time is up.
			if !strings.Contains(string(out), "No open connections left") {
				t.Errorf("not every slow connection was cut:\n%s", out)
			}
			if peak < c.least || peak > c.most+closing {
				t.Errorf("%d connections were held, want %d to %d", peak, c.least, c.most)
			}
			if p99 := quantile(busy, .99); p99 > 2*time.Second {
				t.Errorf("another address waited %v", p99)
			}
			eventually(t, "all are closed", func() bool { return harness.Held(t, p.HTTPS, "127.0.0.1") == 0 })
		})
	}
}

// steady asks for a page fifty times a second at most while go on says so, and
// returns how long each answer took. All must be answered.
func steady(t *testing.T, a *asker, goOn func(n int) bool) (took []time.Duration) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; goOn(n); n++ {
		got := a.get("/")
		if got.Status != http.StatusOK {
			t.Fatalf("request %d: %d %.300s", n, got.Status, got.Body)
		}
		took = append(took, got.Took)
		<-tick.C
	}
	return took
}
