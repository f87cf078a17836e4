package limit_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/merlontest"
)

// atlas knows a few addresses.
type atlas struct{}

func (atlas) Country(a netip.Addr) string {
	switch a.String()[:3] {
	case "198":
		return "DE"
	case "203":
		return "FR"
	}
	return ""
}

func (atlas) ASN(a netip.Addr) uint {
	switch a.String()[:3] {
	case "198":
		return 64500
	case "203":
		return 64501
	}
	return 0
}

// A gate is both halves of a guard, with a clock.
type gate struct {
	*merlon.Gate
	now time.Time
}

func newGate(t testing.TB, c limit.Config) *gate {
	t.Helper()
	return gateOn(t, c, count.NewMemory(count.MemoryConfig{Keys: 1 << 12}))
}

func gateOn(t testing.TB, c limit.Config, s count.Store) *gate {
	t.Helper()
	g, err := limit.New(c, s, atlas{})
	if err != nil {
		t.Fatal(err)
	}
	guards := []merlon.Guard{g}
	if k := g.Known(); k != nil {
		guards = append(guards, k)
	}
	return &gate{merlon.NewGate(guards...), time.Now()}
}

// from makes a request: the wire text, then who and what it is.
func (g *gate) from(t testing.TB, wire string, set ...func(*merlon.Request)) *merlon.Request {
	r := merlontest.Request(t, wire)
	r.Received, r.Site, r.Route = g.now, "shop.example.com", "/api/**"
	for _, f := range set {
		f(r)
	}
	return r
}

// ask sends a request from start to end.
func (g *gate) ask(t testing.TB, wire string, set ...func(*merlon.Request)) (*merlon.Request, merlon.Decision) {
	r := g.from(t, wire, set...)
	d := g.Check(r)
	g.Done(r, merlon.Outcome{Status: 200})
	return r, d
}

// passes counts how many of n requests at once pass.
func (g *gate) passes(t testing.TB, n int, wire string, set ...func(*merlon.Request)) int {
	passed := 0
	for range n {
		if _, d := g.ask(t, wire, set...); d.Passed() {
			passed++
		}
	}
	return passed
}

func client(a string) func(*merlon.Request) {
	return func(r *merlon.Request) { r.Client = netip.MustParseAddr(a) }
}

func route(path string) func(*merlon.Request) { return func(r *merlon.Request) { r.Route = path } }

func site(host string) func(*merlon.Request) { return func(r *merlon.Request) { r.Site = host } }

func user(subject string) func(*merlon.Request) { return who(merlon.Identity{Subject: subject}) }

func who(id merlon.Identity) func(*merlon.Request) {
	return func(r *merlon.Request) { r.Identity = &id }
}

func ja4(print string) func(*merlon.Request) { return func(r *merlon.Request) { r.JA4 = print } }

func further(l ...limit.Limit) limit.Config {
	return limit.Config{Rate: limit.Rate{Off: true}, Limits: l}
}

// Each row has two requests that are counted together, and one that is not.
func TestBy(t *testing.T) {
	type request struct {
		wire string
		set  []func(*merlon.Request)
	}
	by := func(set ...func(*merlon.Request)) request { return request{"GET /", set} }
	wire := func(text string, set ...func(*merlon.Request)) request { return request{text, set} }
	apiKey := func(name string) func(*merlon.Request) {
		return who(merlon.Identity{Subject: "ann", Methods: []string{"key"}, Session: name})
	}
	roles := func(names ...string) func(*merlon.Request) {
		return who(merlon.Identity{Subject: names[0], Roles: names})
	}
	form := func(body string) string {
		return "POST /login\nContent-Type: application/x-www-form-urlencoded\n\n" + body
	}
	json := func(body string) string { return "POST /login\nContent-Type: application/json\n\n" + body }
	a, b := client("192.0.2.1"), client("198.51.100.7")
	for _, c := range []struct {
		by               string
		one, same, other request
	}{
		{"client", by(a), by(a, route("/other"), user("ann")), by(b)},
		{"client", by(client("2001:db8:1:2::1")), by(client("2001:db8:1:2:9::1")), by(client("2001:db8:1:3::1"))},
		{"network", by(a), by(client("192.0.2.200")), by(client("192.0.3.1"))},
		{"network", by(client("2001:db8:1:2::1")), by(client("2001:db8:1:ffff::1")), by(client("2001:db8:2::1"))},
		{"asn", by(client("198.51.100.1")), by(client("198.18.0.1")), by(client("203.0.113.1"))},
		{"asn", by(a), by(a), by(client("192.0.2.2"))}, // known to nobody: each for itself
		{"country", by(client("198.51.100.1")), by(client("198.18.0.1")), by(client("203.0.113.1"))},
		{"country", by(a), by(a), by(client("192.0.2.2"))},
		{"ja4", by(a, ja4("t13d1516h2")), by(b, ja4("t13d1516h2")), by(a, ja4("t12i0102h1"))},
		{"ja4", by(a), by(a), by(b)}, // not known, as behind a proxy: each client for itself
		{"user", by(a, user("ann")), by(b, user("ann"), route("/other")), by(a, user("bob"))},
		{"user", by(a), by(a), by(b)}, // nobody signed in: each client for itself
		{"user", by(a), by(a, who(merlon.Identity{})), by(a, user("192.0.2.1"))},
		{"role", by(a, roles("x", "y")), by(b, roles("y", "x", "x")), by(a, roles("x"))},
		{"role", by(a), by(a, user("ann")), by(b)},
		{"session", by(a, who(merlon.Identity{Subject: "ann", Session: "s1"})), by(b, who(merlon.Identity{Subject: "ann", Session: "s1"})),
			by(a, who(merlon.Identity{Subject: "ann", Session: "s2"}))},
		{"key", by(a, apiKey("k1")), by(b, apiKey("k1")), by(a, apiKey("k2"))},
		{"key", by(a), by(a, who(merlon.Identity{Subject: "ann", Session: "s1"})), by(a, apiKey("s1"))}, // a session is no key
		{"tenant", by(a, who(merlon.Identity{Subject: "ann", Tenant: "acme"})), by(b, who(merlon.Identity{Subject: "bob", Tenant: "acme"})),
			by(a, who(merlon.Identity{Subject: "ann", Tenant: "other"}))},
		{"header x-tenant", wire("GET /\nX-Tenant: a", a), wire("GET /\nx-tenant:  a ", b), wire("GET /\nX-Tenant: b", a)},
		{"header X-Tenant", wire("GET /", a), wire("GET /", a), wire("GET /", b)},
		{"header X-Tenant", wire("GET /\nX-Tenant: a\nX-Tenant: b", a), wire("GET /\nX-Tenant: a\nX-Tenant: b", b), wire("GET /\nX-Tenant: a", a)},
		{"header X-Tenant", wire("GET /\nX-Tenant: "+strings.Repeat("x", 2000), a), wire("GET /\nX-Tenant: "+strings.Repeat("x", 2001), a), wire("GET /\nX-Tenant: x", a)},
		{"field email", wire(form("email=Admin"), a), wire(json(`{"email":"admin "}`), b), wire(form("email=admin2"), a)},
		{"field email", wire(form("email=ADMIN"), a), wire(form("email=%EF%BC%A1%EF%BC%A4%EF%BC%AD%EF%BC%A9%EF%BC%AE"), b), wire(form("email="), a)},
		{"field email", wire(form("email=ad+min+x"), a), wire(form("email=AD++Min+x+"), b), wire(form("email=ad"), a)},
		{"field email", wire(json(`[{"email":"x"},{"email":"y"}]`), a), wire(form("email=y"), b), wire(form("email=z"), b)},
		{"field email", wire(form("email=x&email=X&email=+x"), a), wire(form("email=x"), b), wire(form("email=z"), a)}, // one value, once
		{"field email", wire("GET /?email=ann", a), wire(form("email=ann"), b), wire("GET /", a)},
		{"field email", wire("GET /", a), wire(form("email="), a), wire("GET /", b)},
		{"route", by(a), by(b, user("ann")), by(a, route("/other"))},
		{"site", by(a), by(b, route("/other")), by(a, site("other.example.com"))},
		{"user, route", by(a, user("ann")), by(b, user("ann")), by(a, user("ann"), route("/other"))},
		{"route, user", by(a, user("ann")), by(b, user("ann")), by(a, user("bob"))},
		{"header X-A, header X-B", wire("GET /\nX-A: a\nX-B: b", a), wire("GET /\nX-B: b\nX-A: a", b), wire("GET /\nX-A: b\nX-B: a", a)},
	} {
		words := limit.By(strings.Split(c.by, ", "))
		for i, l := range []limit.Limit{
			{By: words, Rate: rate(t, "1/h")}, {By: words, Quota: limit.Quota{Count: 1, Per: limit.Month}},
			{By: words, Bytes: limit.Bytes{Size: merlon.KiB, Per: time.Hour}},
		} {
			g := newGate(t, further(l))
			got := ""
			for _, r := range []request{c.one, c.same, c.other} {
				_, d := g.ask(t, r.wire, r.set...)
				got += fmt.Sprint(d.Passed(), " ")
			}
			if got != "true false true " {
				t.Errorf("by %s (%d): %s, want the second to be counted with the first, and the third not", c.by, i, got)
			}
		}
	}
}

// Every value of a field has its count, and more than can be looked at is
// refused: nobody hides a name behind thirty others.
func TestManyValues(t *testing.T) {
	g := newGate(t, further(limit.Limit{By: limit.By{"field user"}, Rate: rate(t, "1/h")}))
	list := func(from, to int) string {
		var b strings.Builder
		b.WriteString("POST /\nContent-Type: application/json\n\n[")
		for i := from; i < to; i++ {
			fmt.Fprintf(&b, `{"user":"u%d"},`, i)
		}
		return strings.TrimSuffix(b.String(), ",") + "]"
	}
	if _, d := g.ask(t, list(0, 20)); !d.Passed() {
		t.Fatalf("%+v", d)
	}
	for i := range 20 {
		if _, d := g.ask(t, list(i, i+1), client("198.51.100.7")); d.Reason != limit.RateExceeded {
			t.Errorf("u%d was not counted: %+v", i, d)
		}
	}
	if _, d := g.ask(t, list(19, 30)); d.Reason != limit.RateExceeded || len(d.Findings) != 1 {
		t.Errorf("one of several: %+v", d)
	}
	if _, d := g.ask(t, list(20, 21)); !d.Passed() {
		t.Errorf("what was refused with others was counted: %+v", d)
	}
}

// What cannot be read for certain may hold any name. It is refused, and not
// for free.
func TestUnclearFields(t *testing.T) {
	many := "POST /\nContent-Type: application/x-www-form-urlencoded\n\n" + strings.Repeat("user=a&", 40)
	for i := range 40 {
		many = strings.Replace(many, "user=a", fmt.Sprintf("user=b%d", i), 1)
	}
	for name, wire := range map[string]string{
		"too many values": many, "broken JSON": "POST /\nContent-Type: application/json\n\n{\"user\":",
		"an unknown type":          "POST /\nContent-Type: application/x-unknown\n\nuser=ann",
		"longer than is looked at": "POST /\nContent-Type: application/json\n\n{\"x\":\"" + strings.Repeat("x", 1<<17) + "\",\"user\":\"ann\"}",
	} {
		g := newGate(t, limit.Config{Rate: rate(t, "1/h"), Burst: 3, Limits: []limit.Limit{{By: limit.By{"field user"}, Rate: rate(t, "100/s")}}})
		for range 3 {
			if _, d := g.ask(t, wire); d.Reason != limit.FieldUnclear || d.Code() != http.StatusBadRequest || len(d.Findings) != 1 {
				t.Errorf("%s: %+v", name, d)
			}
		}
		if _, d := g.ask(t, wire); d.Reason != limit.RateExceeded {
			t.Errorf("%s: four requests were free: %+v", name, d)
		}
	}
}

// A body that is waited for is a request under way.
func TestWaitingForABodyTakesAPlace(t *testing.T) {
	c := limit.Config{Rate: rate(t, "5/h"), Limits: []limit.Limit{{By: limit.By{"field user"}, Rate: rate(t, "100/s"), Concurrent: 1}}}
	c.Concurrent.Client = 1
	g := newGate(t, c)
	arrived, body := make(chan struct{}), make(chan struct{})
	slow := g.from(t, "POST /\nContent-Type: application/json\n\n{}")
	slow.Request.Body = bodyFunc(func(p []byte) (int, error) {
		close(arrived)
		<-body
		return 0, errors.New("gone")
	})
	done := make(chan merlon.Decision)
	go func() { done <- g.Check(slow) }()
	<-arrived
	for range 3 {
		if _, d := g.ask(t, "GET /"); d.Reason != limit.ClientBusy {
			t.Errorf("while a body is waited for: %+v", d)
		}
	}
	close(body)
	if d := <-done; d.Reason != merlon.BodyUnreadable {
		t.Errorf("a body that broke off: %+v", d)
	}
	g.Done(slow, merlon.Outcome{})
	if _, d := g.ask(t, "GET /"); !d.Passed() {
		t.Errorf("the place was not given back: %+v", d)
	}
	if _, d := g.ask(t, "GET /"); d.Reason != limit.RateExceeded {
		t.Errorf("what was refused as busy was free: %+v", d)
	}
}

type bodyFunc func([]byte) (int, error)

func (f bodyFunc) Read(p []byte) (int, error) { return f(p) }
func (f bodyFunc) Close() error               { return nil }

func TestByIsReadFromYAML(t *testing.T) {
	for text, want := range map[string]string{
		"by: user": "user", "by: [user, route]": "user,route", "by: header X-Tenant": "header X-Tenant",
		"by: [header X-Tenant, field email]": "header X-Tenant,field email", "by:\n- user\n- site": "user,site",
	} {
		var c limit.Config
		if err := yaml.Unmarshal([]byte(text), &c); err != nil || strings.Join(c.By, ",") != want {
			t.Errorf("%s: %q, %v", text, c.By, err)
		}
	}
	for _, text := range []string{"by: {user: 1}", "by: [[user]]"} {
		var c limit.Config
		if err := yaml.Unmarshal([]byte(text), &c); err == nil {
			t.Errorf("%s was read as %q", text, c.By)
		}
	}
}

func TestByMistakes(t *testing.T) {
	s := count.NewMemory(count.MemoryConfig{Keys: 8})
	for by, want := range map[string]string{
		"ip": "client, network, asn", "User": "client, network", "": "client, network", "user x": "client, network", "header": "must name",
		"header ": "must name", "header X Y": "header field", "header Host": "must not be Host", "header host": "must not be Host",
		"field": "must name", "field " + strings.Repeat("x", 65): "must name", "header X\x00": "must name", "asn": "geo", "country": "geo",
	} {
		_, err := limit.New(limit.Config{By: limit.By{by}}, s, nil)
		_, inList := limit.New(limit.Config{Limits: []limit.Limit{{By: limit.By{"client", by}, Rate: rate(t, "1/s")}}}, s, nil)
		for place, err := range map[string]error{"by": err, "limits[0].by": inList} {
			se, ok := errors.AsType[*merlon.SettingError](err)
			if !ok || se.Setting != place || se.Value != by || !strings.Contains(se.Rule, want) {
				t.Errorf("%q: %v, want a mistake in %s about %q", by, err, place, want)
			}
		}
	}
	for _, twice := range []limit.By{{"user", "user"}, {"header x-a", "header X-A"}, {"field a", "field b"}} {
		if _, err := limit.New(limit.Config{By: twice}, s, nil); err == nil {
			t.Errorf("%q: no mistake", twice)
		}
	}
}

// Whatever can be written can be used, and has a name that can be told.
func FuzzBy(f *testing.F) {
	for _, s := range []string{"user", "header X-Tenant", "field email", "field e\u00e9", "header", "client", "field \n", "Field a"} {
		f.Add(s, "route")
	}
	s := count.NewMemory(count.MemoryConfig{Keys: 8})
	f.Fuzz(func(t *testing.T, one, two string) {
		c := limit.Config{Limits: []limit.Limit{{By: limit.By{one, two}, Rate: limit.Rate{Count: 1, Per: time.Hour}, Burst: 1}}}
		g, err := limit.New(c, s, atlas{})
		if err != nil {
			return
		}
		r := merlontest.Request(t, "GET /")
		r.Route = one + two
		gate := merlon.NewGate(g)
		if k := g.Known(); k != nil {
			gate = merlon.NewGate(g, k)
		}
		d := gate.Check(r)
		gate.Done(r, merlon.Outcome{})
		if !d.Passed() {
			return // an earlier input counted as the same
		}
		h := http.Header{}
		r.AddHeader(h)
		policy, item := h.Get("RateLimit-Policy"), h.Get("RateLimit")
		if !policies.MatchString(policy) || !items.MatchString(item) {
			t.Errorf("%q, %q: %q, %q cannot be read", one, two, policy, item)
		}
	})
}
