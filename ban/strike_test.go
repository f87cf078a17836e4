package ban_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/merlontest"
)

func TestWeights(t *testing.T) {
	for _, c := range []struct {
		name   string
		v      visit
		passes int // how many do not ban yet, with ten strikes
	}{
		{"a decoy", visit{path: "/.env"}, 0},
		{"origin", visit{path: "/origin"}, 10},
		{"waf", visit{path: "/waf"}, 10},
		{"challenge", visit{path: "/challenge"}, 100},
		{"stuffing", visit{path: "/stuffing"}, 10},
		{"limit", visit{path: "/limit"}, 100},
		{"csrf", visit{path: "/csrf"}, 5000},
		{"identity", visit{path: "/identity"}, 5000},
		{"access", visit{path: "/access"}, 5000},
		{"by a program", visit{path: "/waf", header: "User-Agent: x"}, 10},
		{"typed into a browser", visit{path: "/.env", header: "Sec-Fetch-Site: none"}, 0},
		// Other people's pages must not get their visitors banned.
		{"another site's picture of a decoy", visit{path: "/.env", header: "Sec-Fetch-Site: cross-site\nSec-Fetch-Dest: image"}, 100},
		{"a link to a decoy in the forum", visit{path: "/.env", header: "Sec-Fetch-Site: same-origin\nSec-Fetch-Mode: navigate"}, 100},
		{"another site's link with a script", visit{path: "/waf", header: "Sec-Fetch-Site: cross-site"}, 100},
		{"a form that the WAF takes for an attack", visit{path: "/waf", header: "Sec-Fetch-Site: same-origin"}, 100},
		{"a form of an old browser", visit{path: "/waf", header: "Referer: http://shop.example.com/form"}, 100},
		{"a program that says where it comes from, and that it is typed", visit{path: "/waf", header: "Referer: x\nSec-Fetch-Site: none"}, 10},
		{"passed", visit{}, 5000},
		{"a backend that fails", visit{status: 502}, 5000},
		{"a proxy that is not trusted", visit{client: "10.0.0.1", path: "/.env", header: "X-Forwarded-For: 192.0.2.1"}, 5000},
		{"who says to be one", visit{path: "/.env", header: "X-Forwarded-For: 192.0.2.1"}, 0},
		{"a private address", visit{client: "10.0.0.1", path: "/.env"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, ban.Config{Strikes: 10}, options{})
			w.times(c.passes, c.v)
			if n := w.of(ban.Imposed); len(n) != 0 {
				t.Fatalf("banned too early: %+v", n)
			}
			if c.passes == 5000 {
				return
			}
			w.times(1, c.v)
			if n := w.of(ban.Imposed); len(n) != 1 {
				t.Errorf("%d bans", len(n))
			}
		})
	}
}

// Ordinary mistakes are spread over time, and cost nobody anything.
func TestPatientMistakesBanNobody(t *testing.T) {
	w := newWorld(t, ban.Config{}, options{})
	for range 2000 { // a page that sends what the WAF refuses, each second, for half an hour
		w.visit(visit{path: "/waf"})
		w.pass(time.Second)
	}
	if n := w.of(ban.Imposed); len(n) != 0 {
		t.Errorf("%+v", n)
	}
}

// What guards only monitor is held against nobody.
func TestMonitoredRefusalsAreNoStrikes(t *testing.T) {
	w := newWorld(t, ban.Config{Strikes: 1}, options{})
	w.gate = merlon.NewGate(w.guard, merlon.Monitor(refuser("waf")))
	w.times(500, visit{path: "/waf"})
	w.wants(visit{}, "")
}

// In monitor mode bans are made, and told, but not obeyed.
func TestMonitored(t *testing.T) {
	w := newWorld(t, ban.Config{}, options{monitored: true})
	w.times(1, visit{path: "/.env"})
	w.wants(visit{}, "")
	if n := w.of(ban.Imposed); len(n) != 1 {
		t.Errorf("%d bans", len(n))
	}
	w.times(3, visit{path: "/.env"})
	if n := w.of(ban.Imposed); len(n) != 1 {
		t.Errorf("%d bans of who is banned already", len(n))
	}
}

func TestBadAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		banned bool
		do     func(w *world)
	}{
		{"a scanner", true, func(w *world) {
			for i := range 102 {
				w.visit(visit{path: fmt.Sprint("/", i), status: 404})
			}
		}},
		{"a scanner that is told 403", true, func(w *world) {
			for i := range 102 {
				w.visit(visit{path: fmt.Sprint("/", i), status: 403})
			}
		}},
		{"a scanner between good answers", true, func(w *world) {
			for i := range 300 {
				w.visit(visit{path: fmt.Sprint("/", i), status: 404})
				if i%3 == 0 {
					w.visit(visit{})
				}
			}
		}},
		{"a page with a broken picture, reloaded", false, func(w *world) {
			for i := range 3000 {
				w.visit(visit{path: fmt.Sprint("/picture-", i), status: 404})
				w.visit(visit{})
			}
		}},
		{"a gallery of which every picture is missing", false, func(w *world) {
			for i := range 900 {
				w.visit(visit{path: fmt.Sprint("/picture-", i), status: 404, header: "Sec-Fetch-Site: same-origin\nSec-Fetch-Dest: image"})
			}
		}},
		{"a session that has ended, polled", false, func(w *world) {
			for i := range 3000 {
				w.visit(visit{path: fmt.Sprint("/api/", i%8), status: 401})
			}
		}},
		{"a program that waits for a file", false, func(w *world) {
			w.times(3000, visit{path: "/release.tar.gz", status: 404})
		}},
		{"a crawler of a site with dead links", false, func(w *world) {
			for i := range 3000 {
				w.visit(visit{path: fmt.Sprint("/old/", i), status: 404})
				w.pass(time.Second)
			}
		}},
		{"a backend that is down", false, func(w *world) {
			for i := range 3000 {
				w.visit(visit{path: fmt.Sprint("/", i), status: 503})
			}
		}},
		{"a backend that limits", false, func(w *world) {
			for i := range 3000 {
				w.visit(visit{path: fmt.Sprint("/", i), status: 429})
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, ban.Config{}, options{})
			c.do(w)
			if n := w.of(ban.Imposed); len(n) > 0 != c.banned {
				t.Errorf("bans: %+v", n)
			}
			if c.banned {
				w.wants(visit{}, ban.Banned)
			}
		})
	}
}

// impatient counts nothing for who has gone away, and can be broken.
type impatient struct {
	count.Store
	err error
}

func (s *impatient) Take(ctx context.Context, asks []count.Ask, results []count.Result, now time.Time) error {
	if s.err != nil {
		return s.err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.Store.Take(ctx, asks, results, now)
}

// Who does not wait for the answer is counted all the same, and counting that
// fails bans nobody and is told once in a while.
func TestCounting(t *testing.T) {
	counts := &impatient{Store: count.NewMemory(count.MemoryConfig{Keys: 8})}
	told := &notices{}
	w := newWorld(t, ban.Config{Strikes: 5}, options{bans: ban.NewBans(nil, counts, told.add)})
	w.drive(w.bans)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	away := func() {
		r := merlontest.Request(t, "GET /waf")
		r.Request = r.WithContext(gone)
		r.Client, r.Site = netip.MustParseAddr(office), "shop.example.com"
		w.gate.Check(r)
		w.gate.Done(r, merlon.Outcome{Status: 403, Guard: r.RefusedBy()})
	}
	for range 6 {
		away()
	}
	w.wants(visit{}, ban.Banned)
	counts.err = errors.New("no room")
	w.times(50, visit{client: other, path: "/waf"})
	w.wants(visit{client: other}, "")
	if n := told.of(ban.NotCounted); len(n) != 1 || !n[0].Alarm() || n[0].Err == nil {
		t.Errorf("told %+v", n)
	}
}
