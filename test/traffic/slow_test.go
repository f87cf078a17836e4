package traffic_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/test/harness"
)

// perAddress is the default of max_connections_per_address. What is one too
// many is accepted and closed, and the kernel's table is not read in a moment:
// some are seen that are not held.
const (
	perAddress = 512
	closing    = 100
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
		{"headers", site, "-H -c 900 -r 450 -i 1 -x 8 -u https://%s/", 300, perAddress},
		{"bodies", site, "-B -c 400 -r 100 -i 1 -s 8192 -x 8 -u https://%s/", 200, 400},
		// An answer may stall four times as long as the others: see slow_grace.
		{"readers", "slow_grace: 1s\n" + site, "-X -c 100 -r 50 -n 1 -w 256 -y 512 -z 16 -u https://%s/16MiB", 50, 100},
		// Such an answer would be with the kernel alone, if that took all of it.
		{"readers of little", "slow_grace: 1s\n" + site, "-X -c 400 -r 100 -n 1 -w 256 -y 512 -z 16 -u https://%s/256KiB", 200, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := serve(t, c.config, func(w http.ResponseWriter, r *http.Request) {
				var size merlon.Size
				if size.UnmarshalText([]byte(r.URL.Path[1:])) != nil {
					hello(w, r)
					return
				}
				w.Header().Set("Content-Type", "application/octet-stream")
				for range size / merlon.KiB {
					_, _ = w.Write(make([]byte, merlon.KiB)) // until the gateway hangs up
				}
			})
			other := p.from("127.0.0.2")
			idle := steady(t, other, func(n int) bool { return n < 250 })

			slow := exec.CommandContext(t.Context(), tool, append(strings.Fields(fmt.Sprintf(c.args, p.HTTPS)), "-l", "90", "-p", "5", "-v", "1")...)
			var out bytes.Buffer
			slow.Stdout, slow.Stderr = &out, &out
			began := time.Now()
			if err := slow.Start(); err != nil {
				t.Fatal(err)
			}
			peak, held := 0, 0
			busy := steady(t, other, func(n int) bool {
				if n%10 == 0 {
					held = harness.Held(t, p.HTTPS, "127.0.0.1")
					peak = max(peak, held)
				}
				return time.Since(began) < 80*time.Second && (peak < c.least || held > 0)
			})
			took := time.Since(began)
			_ = slow.Process.Kill() // it may have ended, as no connection is left
			_ = slow.Wait()
			t.Logf("over after %v; held at most %d connections; another address: p50 %v and p99 %v at rest, %v and %v of %d requests during it (p99 %.1f times)",
				took.Round(100*time.Millisecond), peak, quantile(idle, .5), quantile(idle, .99), quantile(busy, .5), quantile(busy, .99), len(busy),
				float64(quantile(busy, .99))/float64(quantile(idle, .99)))
			if held > 1 { // one may be the tool's own probe
				t.Errorf("%d slow connections are not cut\n%s", held, &out)
			}
			if peak < c.least || peak > c.most+closing {
				t.Errorf("%d connections were held, want %d to %d\n%s", peak, c.least, c.most, &out)
			}
			// Each was answered; the times say more about this machine.
			if p50 := quantile(busy, .5); p50 > 2*time.Second {
				t.Errorf("another address waited %v as a rule", p50)
			}
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
