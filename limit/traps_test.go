package limit_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/limit"
)

// Ways around a rate limit that have worked elsewhere, one by one.
func TestWaysAround(t *testing.T) {
	ten := limit.Config{Rate: limit.Rate{Count: 10, Per: time.Hour}, By: limit.By{"client"}}
	for name, attack := range map[string]func(*testing.T){
		"a double burst at the edge of a window": func(t *testing.T) {
			g := newGate(t, limit.Config{Rate: rate(t, "60/min"), Burst: 10})
			passed := 0
			for range 2000 { // two seconds around any edge that there may be
				passed += g.passes(t, 1, "GET /")
				g.now = g.now.Add(time.Millisecond)
			}
			if passed != 11 {
				t.Errorf("%d in two seconds, want the burst of 10 and one regained", passed)
			}
		},
		"looking before counting": func(t *testing.T) { // and streams of one HTTP/2 connection
			g := newGate(t, ten)
			var passed atomic.Int64
			var wg sync.WaitGroup
			start := make(chan struct{})
			for range 100 {
				r := g.from(t, "GET /")
				wg.Go(func() {
					<-start
					if g.Gate.Check(r).Passed() {
						passed.Add(1)
					}
				})
			}
			close(start)
			wg.Wait()
			if passed.Load() != 10 {
				t.Errorf("%d of 100 at once, want 10", passed.Load())
			}
		},
		"made-up header values": func(t *testing.T) {
			c := ten
			c.Limits = []limit.Limit{{By: limit.By{"header X-Api-Key"}, Rate: rate(t, "5/h")}}
			g := newGate(t, c)
			passed := 0
			for i := range 1000 {
				passed += g.passes(t, 1, fmt.Sprintf("GET /\nX-Api-Key: %d", i))
			}
			if passed != 10 {
				t.Errorf("%d of 1000 with a key each, want the client's own 10", passed)
			}
			// Nor if that is the only limit written: the default stays.
			g = newGate(t, limit.Config{Rate: rate(t, "5/h"), By: limit.By{"header X-Api-Key"}})
			passed = 0
			for i := range 2000 {
				passed += g.passes(t, 1, fmt.Sprintf("GET /\nX-Api-Key: %d", i))
			}
			if passed != 500 {
				t.Errorf("%d of 2000 with a key each, want the default burst of 500", passed)
			}
		},
		"made-up headers do not push out what is counted": func(t *testing.T) {
			s := count.NewMemory(count.MemoryConfig{Keys: 8})
			c := limit.Config{Rate: limit.Rate{Off: true}, Limits: []limit.Limit{{By: limit.By{"header X"}, Rate: rate(t, "5/h")}}}
			g := gateOn(t, c, s)
			if n := g.passes(t, 10, "GET /\nX: mine"); n != 5 {
				t.Fatal(n)
			}
			for i := range 1000 {
				g.passes(t, 1, fmt.Sprintf("GET /\nX: %d", i))
			}
			if n := g.passes(t, 10, "GET /\nX: mine"); n != 0 {
				t.Errorf("%d after the table was filled", n)
			}
		},
		"another address of one IPv6 home": func(t *testing.T) {
			g := newGate(t, ten)
			passed := 0
			for i := range 1000 {
				passed += g.passes(t, 1, "GET /", client(fmt.Sprintf("2001:db8:1:2:%x::%x", i, i)))
			}
			if passed != 10 {
				t.Errorf("%d of 1000 addresses of a /64, want 10", passed)
			}
		},
		"a colleague behind the same address": func(t *testing.T) {
			c := limit.Config{Limits: []limit.Limit{{By: limit.By{"user"}, Rate: rate(t, "20/h")}}}
			g := newGate(t, c)
			if n := g.passes(t, 100, "GET /", user("mallory")); n != 20 {
				t.Errorf("mallory: %d", n)
			}
			if n := g.passes(t, 100, "GET /", user("ann")); n != 20 {
				t.Errorf("ann, whom mallory sits beside: %d, want 20", n)
			}
		},
		"another spelling of a route": func(t *testing.T) {
			g := newGate(t, limit.Config{Rate: rate(t, "10/h")})
			passed := 0
			for range 5 {
				for _, path := range []string{"/api/x", "/API/X", "/api/%78", "/api//x", "/api/x/", "/api/x;v=1", "/api/x?a=b"} {
					passed += g.passes(t, 1, "GET "+path) // the route is the configuration's pattern
				}
			}
			if passed != 10 {
				t.Errorf("%d of 35, want 10", passed)
			}
		},
		"what fails is free": func(t *testing.T) {
			g := newGate(t, ten)
			for i, o := range []merlon.Outcome{
				{Status: 404, Upstream: true}, {Status: 401, Guard: "access"}, {Status: 403, Guard: "waf"}, {Status: 500}, {}, {Status: 413, Guard: "limit"},
			} {
				r := g.from(t, []string{"GET /", "OPTIONS /", "POST /", "HEAD /"}[i%4])
				g.Check(r)
				g.Done(r, o)
			}
			if n := g.passes(t, 100, "OPTIONS /"); n != 4 {
				t.Errorf("%d after six that failed, want 4", n)
			}
		},
		"one limit's refusal uses up another": func(t *testing.T) {
			c := further(limit.Limit{By: limit.By{"client"}, Rate: rate(t, "10/h")}, limit.Limit{By: limit.By{"route"}, Rate: rate(t, "3/h")})
			g := newGate(t, c)
			if n := g.passes(t, 50, "GET /", route("/a")); n != 3 {
				t.Fatal(n)
			}
			if n := g.passes(t, 2, "GET /", route("/b")) + g.passes(t, 50, "GET /", route("/c")) + g.passes(t, 50, "GET /", route("/d")); n != 7 {
				t.Errorf("%d elsewhere, want what is left of the client's ten: 7", n)
			}
		},
		"time going back": func(t *testing.T) {
			g := newGate(t, limit.Config{Rate: rate(t, "10/s"), Burst: 5, Quota: limit.Quota{Count: 8, Per: limit.Day}})
			g.now = time.Now().Truncate(24 * time.Hour).Add(36 * time.Hour)
			if n := g.passes(t, 50, "GET /"); n != 5 {
				t.Fatal(n)
			}
			for _, back := range []time.Duration{time.Second, time.Minute, time.Hour} {
				g.now = g.now.Add(-back)
				if n := g.passes(t, 50, "GET /"); n != 0 {
					t.Errorf("%d for a clock that went back by %s", n, back)
				}
			}
			g.now = g.now.Add(10 * time.Second)
			if n := g.passes(t, 50, "GET /"); n == 0 || n > 3 {
				t.Errorf("ten seconds later %d pass, want what is left of the day's 8", n)
			}
		},
	} {
		t.Run(name, attack)
	}
}

var (
	item     = `"[a-z0-9-]{1,50}";r=\d{1,15};t=\d{1,15}`
	items    = regexp.MustCompile(`^` + item + `$`)
	policy   = `"[a-z0-9-]{1,50}";q=\d{1,15}(?:;qu="(?:content-bytes|concurrent-requests)")?(?:;w=\d{1,15})?`
	policies = regexp.MustCompile(`^` + policy + `(?:, ` + policy + `)*$`)
)

// What the fields say must be true, and must tell nobody who is who.
func TestFieldTruth(t *testing.T) {
	c := limit.Config{
		Rate: rate(t, "60/min"), Burst: 20, Quota: limit.Quota{Count: 30, Per: limit.Day}, Bytes: limit.Bytes{Size: 100 * merlon.KiB, Per: time.Hour},
		Concurrent: limit.Concurrent{Client: 5}, Cost: 2,
		Limits: []limit.Limit{
			{By: limit.By{"user"}, Rate: rate(t, "7/min"), Cost: 1}, {By: limit.By{"key"}, Concurrent: 3}, {Name: "hourly", By: limit.By{"tenant", "route"}, Quota: limit.Quota{Count: 1000, Per: limit.Hour}},
		},
	}
	g := newGate(t, c)
	id := who(merlon.Identity{Subject: "ann-secret", Tenant: "acme-secret", Session: "session-secret", Methods: []string{"key"}})
	header := func(r *merlon.Request, d merlon.Decision) http.Header {
		h := http.Header{}
		r.AddHeader(h)
		merlon.AddHeader(h, d.Header)
		return h
	}
	want := `"default";q=20;w=20, "default-quota";q=30;w=86400, "default-bytes";q=102400;qu="content-bytes";w=3600, "user";q=7;w=60, ` +
		`"key";q=3;qu="concurrent-requests", "hourly";q=1000;w=3600, "default-concurrent";q=5;qu="concurrent-requests"`
	refused := 0
	for i := range 400 {
		g.now = g.now.Add(400 * time.Millisecond)
		r, d := g.ask(t, "GET /", id)
		h := header(r, d)
		if got := h.Values("RateLimit-Policy"); len(got) != 1 || got[0] != want || !policies.MatchString(got[0]) {
			t.Fatalf("RateLimit-Policy: %q\nwant %q", got, want)
		}
		if got := h.Values("RateLimit"); len(got) != 1 || !items.MatchString(got[0]) {
			t.Fatalf("RateLimit: %q", got)
		}
		if text := fmt.Sprint(h); strings.Contains(text, "secret") || strings.Contains(text, "192.0.2") || strings.Contains(text, "pk=") {
			t.Fatalf("the fields tell who it is: %s", text)
		}
		name, rest, _ := strings.Cut(h.Get("RateLimit"), ";r=")
		left, wait, _ := strings.Cut(rest, ";t=")
		if i == 0 && (name != `"user"` || left != "6") {
			t.Errorf("the first: %s, want the tightest, which is user", h.Get("RateLimit"))
		}
		if d.Passed() {
			if h.Get("Retry-After") != "" {
				t.Error("Retry-After on a request that passed")
			}
			continue
		}
		refused++
		retry, err := strconv.Atoi(h.Get("Retry-After"))
		secs, _ := strconv.Atoi(wait)
		if err != nil || left != "0" || retry < secs || retry < 1 {
			t.Errorf("refused: %v", h)
		}
		if d.Code() != 429 || !strings.HasSuffix(d.Problem, "#quota-exceeded") {
			t.Errorf("refused with %d %s", d.Code(), d.Problem)
		}
	}
	if refused == 0 || refused == 400 {
		t.Errorf("%d of 400 refused", refused)
	}
}

// Whoever waits for as long as Retry-After says is let in.
func TestRetryAfterIsEnough(t *testing.T) {
	for name, c := range map[string]limit.Config{
		"a rate":          {Rate: rate(t, "7/min"), Burst: 3},
		"a cost":          {Rate: rate(t, "7/min"), Burst: 10, Cost: 7},
		"a quota":         {Quota: limit.Quota{Count: 5, Per: limit.Hour}},
		"bytes":           {Bytes: limit.Bytes{Size: 5 * merlon.KiB, Per: time.Hour}},
		"several":         {Rate: rate(t, "7/min"), Burst: 3, Quota: limit.Quota{Count: 5, Per: limit.Hour}},
		"by user as well": further(limit.Limit{By: limit.By{"user"}, Rate: rate(t, "3/h")}, limit.Limit{By: limit.By{"client"}, Rate: rate(t, "50/h")}),
	} {
		g := newGate(t, c)
		for range 5 {
			d := merlon.Decision{}
			for range 1000 {
				if _, d = g.ask(t, "GET /", user("ann")); !d.Passed() {
					break
				}
			}
			retry, err := strconv.Atoi(d.Header.Get("Retry-After"))
			if d.Passed() || err != nil {
				t.Fatalf("%s: %+v", name, d)
			}
			g.now = g.now.Add(time.Duration(retry) * time.Second)
			if _, d := g.ask(t, "GET /", user("ann")); !d.Passed() {
				t.Errorf("%s: after %d seconds: %+v", name, retry, d)
			}
		}
	}
}

// Operators see which limit it was and whose; secrets are seen by nobody.
func TestFindings(t *testing.T) {
	id := who(merlon.Identity{Subject: "ann", Roles: []string{"staff"}, Tenant: "acme", Session: "SECRET", Methods: []string{"key"}})
	for by, want := range map[string]string{
		"client": "client 192.0.2.1", "network": "network 192.0.2.0/24", "asn": "client 192.0.2.1, without asn", "user": "user ann", "role": "role staff",
		"session": "session", "key": "key", "tenant": "tenant acme", "header X-Key": "header X-Key", "field q": "field q", "route": "route /api/**",
		"site": "site shop.example.com", "header X-None": "client 192.0.2.1, without header X-None",
	} {
		g := newGate(t, further(limit.Limit{Name: "mine", By: limit.By{by}, Rate: rate(t, "2/h"), Burst: 1}))
		wire := "GET /?q=SECRET\nX-Key: SECRET"
		g.ask(t, wire, id)
		_, d := g.ask(t, wire, id)
		if d.Passed() || len(d.Findings) != 1 {
			t.Fatalf("by %s: %+v", by, d)
		}
		if f := d.Findings[0]; f.Rule != "mine" || f.Part != want || f.Value != "2/h" || strings.Contains(fmt.Sprintf("%+v", d), "SECRET") {
			t.Errorf("by %s: %+v", by, f)
		}
	}
}

// The site's one limit holds on all routes together, unless a route says
// something else; what is by route holds on each.
func TestOneCountOverAllRoutes(t *testing.T) {
	s := count.NewMemory(count.MemoryConfig{Keys: 1 << 10})
	siteWide := limit.Limit{By: limit.By{"client"}, Rate: rate(t, "5/h")}
	a, b := gateOn(t, further(siteWide), s), gateOn(t, further(siteWide), s) // two routes that inherit it
	if n := a.passes(t, 3, "GET /", route("/a")) + b.passes(t, 9, "GET /", route("/b")); n != 5 {
		t.Errorf("%d over two routes, want 5", n)
	}
	costly := further(siteWide)
	costly.Cost = 5
	c := gateOn(t, costly, s) // a heavy route of the same site
	if n := c.passes(t, 9, "GET /", route("/c")); n != 0 {
		t.Errorf("%d on a route whose requests cost 5", n)
	}
	if n := c.passes(t, 9, "GET /", route("/c"), client("192.0.2.9")); n != 1 {
		t.Errorf("%d on a route whose requests cost 5, want 1", n)
	}
	if n := a.passes(t, 9, "GET /", route("/a"), site("other.example.com")); n != 5 {
		t.Errorf("%d on another site, want 5", n)
	}
	own := siteWide
	own.Rate = rate(t, "2/h")
	if n := gateOn(t, further(own), s).passes(t, 9, "GET /", route("/d")); n != 2 {
		t.Errorf("%d on a route with a limit of its own, want 2", n)
	}
	own = siteWide
	own.Burst = 2
	if n := gateOn(t, further(own), s).passes(t, 9, "GET /", route("/e")); n != 2 {
		t.Errorf("%d on a route with a burst of its own, want 2", n)
	}
	own.Rate = rate(t, "2/min")
	if n := gateOn(t, further(own), s).passes(t, 9, "GET /", route("/f")); n != 2 {
		t.Errorf("%d on a route with the same burst and another rate, want 2", n)
	}
	each := limit.Limit{By: limit.By{"client", "route"}, Rate: rate(t, "5/h")}
	a = gateOn(t, further(each), s)
	if n := a.passes(t, 9, "GET /", route("/a")) + a.passes(t, 9, "GET /", route("/b")); n != 10 {
		t.Errorf("%d by route, want 5 on each of two", n)
	}
}

// A name that clients can spell into parts of the key must not meet another's.
func TestKeysDoNotMeet(t *testing.T) {
	g := newGate(t, further(limit.Limit{By: limit.By{"user", "route"}, Rate: rate(t, "1/h")}))
	for _, r := range [][2]string{{"a", "b"}, {"ab", ""}, {"", "ab"}, {"a\x01b", ""}, {"a", "\x01b"}, {"192.0.2.1", "b"}, {"\xc0\x00\x02\x01", "b"}, {"\x00\x02\x01", "b"}, {"\x04\xc0\x00\x02\x01", "b"}} {
		if n := g.passes(t, 3, "GET /", user(r[0]), route(r[1])); n != 1 {
			t.Errorf("%q: %d passed, want 1", r, n)
		}
	}
	if n := g.passes(t, 3, "GET /", route("b")); n != 1 {
		t.Errorf("nobody: %d passed, want 1", n)
	}
}
