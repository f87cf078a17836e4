package traffic_test

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/test/harness"
)

const remembering = `
off: [waf]
class: {report: {at_once: 2, queue: -1}}
sites:
  - host: localhost
    upstream: BACKEND
    routes:
      - {path: /few/**, limit: {rate: 1/h, burst: 3}}
      - {path: /report/**, throttle: {class: report}}
`

// What is counted, banned and under way outlives a reload; what is banned also
// a new start.
func TestAReloadForgetsNothing(t *testing.T) {
	t.Parallel()
	b := newWorks()
	p := serve(t, remembering, b.answer)
	spender, hostile, worker, other := p.from("127.0.70.1"), p.from("127.0.70.2"), p.from("127.0.70.3"), p.from("127.0.70.4")
	for i := range 4 {
		spender.get("/few/x").want(t, "of three", []int{200, 200, 200, 429}[i])
	}
	hostile.get("/.env").want(t, "a decoy", 404)
	eventually(t, "banned", func() bool { return hostile.get("/").Status == 403 })
	end := b.hold()
	working := b.start(t.Context(), t, worker, 2, 2)

	text, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	for round, change := range []string{"\n", "\nlimit: {concurrent: {client: 77}}\n"} {
		write(t, p.config, string(text)+change)
		p.Signal(t, syscall.SIGHUP)
		eventually(t, "the reload", func() bool { return strings.Count(p.Output(), "configuration reloaded") > round })
		spender.get("/few/x").want(t, "of three, after a reload", 429)
		other.get("/few/x").want(t, "another", 200)
		hostile.get("/").want(t, "banned, after a reload", 403)
		other.get("/report/x").want(t, "a third report at once, after a reload", 503)
	}
	end()
	for range 2 {
		(<-working).want(t, "work that outlived two reloads", 200)
	}
	other.get("/report/x").want(t, "a report afterwards", 200)
	if n := b.most.Load(); n != 2 {
		t.Errorf("the backend had %d at once", n)
	}

	p.Stop(t)
	again := &place{t: t, config: p.config, Merlon: harness.Serve(t, harness.Options{Data: p.Data}, "-c", p.config)}
	eventually(t, "banned, after a new start", func() bool { return again.from("127.0.70.2").get("/").Status == 403 })
	again.from("127.0.70.4").get("/").want(t, "another, after a new start", 200)
}

// Guards that are only monitored count and tell, but let everything pass.
func TestMonitoredTrafficPasses(t *testing.T) {
	t.Parallel()
	b := newWorks()
	p := serve(t, "monitor: [all]\n"+strings.Replace(remembering, "off: [waf]", "ban: {strikes: 3}\nchallenge: {when: always}", 1), b.answer)
	a := p.from("127.0.71.1")
	for _, path := range []string{"/few/x", "/few/x", "/few/x", "/few/x", "/.env", attack, attack, attack, attack, "/"} {
		a.get(path).want(t, path, 200)
	}
	end := b.hold()
	working := b.start(context.Background(), t, a, 6, 6)
	end()
	for range 6 {
		(<-working).want(t, "one of six at once", http.StatusOK)
	}
	for _, why := range []string{"rate-exceeded", "decoy-touched", "attack", "work-required", "class-full"} {
		if list := p.Events(t, 1, told(why)); len(list) == 0 {
			t.Errorf("%s is not told", why)
		}
	}
	// What is only looked at is held against nobody.
	if out := p.run("ban", "list"); strings.Contains(out, "127.0.71.1") {
		t.Errorf("merlon ban list:\n%s", out)
	}
}

// told matches events in which some guard gave a reason, whether it was obeyed
// or not.
func told(why string) func(ledger.Event) bool {
	return func(e ledger.Event) bool {
		return slices.ContainsFunc(e.Verdicts, func(v ledger.Verdict) bool { return string(v.Reason) == why })
	}
}
