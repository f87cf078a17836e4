package ban_test

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/decoy"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/merlontest"
)

// A clock is moved by hand.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Now().UnixNano())
	return c
}

func (c *clock) now() time.Time       { return time.Unix(0, c.at.Load()) }
func (c *clock) pass(d time.Duration) { c.at.Add(int64(d)) }
func (c *clock) drive(all ...*ban.Bans) {
	for _, b := range all {
		b.SetNow(c.now)
	}
}
func (c *clock) until(d time.Duration) time.Time { return c.now().Add(d) }

// notices are what the operator was told.
type notices struct {
	mu  sync.Mutex
	all []ban.Notice
}

func (n *notices) add(one ban.Notice) { n.mu.Lock(); defer n.mu.Unlock(); n.all = append(n.all, one) }

func (n *notices) of(reason merlon.Reason) (found []ban.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, one := range n.all {
		if one.Reason == reason {
			found = append(found, one)
		}
	}
	return found
}

// A world is a gate with everything that bans are about: who brings the cookie
// "s=ann" is ann, other cookies prove nobody, keys begin with mk_.
type world struct {
	testing.TB
	*clock
	*notices
	store ban.Store
	bans  *ban.Bans
	guard *ban.Guard
	gate  *merlon.Gate
}

type options struct {
	store       ban.Store
	bans        *ban.Bans
	clock       *clock
	notices     *notices
	monitored   bool
	knownDevice func(*merlon.Request) bool
	device      func(*merlon.Request) string
	exempt      func(*merlon.Request) bool
	stranger    bool // nobody is known before identity
}

func newWorld(t testing.TB, c ban.Config, o options) *world {
	t.Helper()
	w := &world{TB: t, clock: o.clock, notices: o.notices, store: o.store, bans: o.bans}
	if w.notices == nil {
		w.notices = &notices{}
	}
	if w.clock == nil {
		w.clock = newClock()
	}
	if w.bans == nil {
		w.bans = ban.NewBans(o.store, count.NewMemory(count.MemoryConfig{Keys: 1 << 12}), w.notices.add)
		w.drive(w.bans)
	}
	env := ban.Env{Bans: w.bans, Tries: tries, Who: who, KnownDevice: o.knownDevice, Device: o.device, Exempt: o.exempt}
	if o.stranger {
		env.Who = nil
	}
	var err error
	if w.guard, err = ban.New(c, env); err != nil {
		t.Fatal(err)
	}
	d, err := decoy.New(decoy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var first, second merlon.Guard = w.guard, w.guard.Known()
	if o.monitored {
		first, second = merlon.Monitor(first), merlon.Monitor(second)
	}
	w.gate = merlon.NewGate(first, d, refuser("origin"), refuser("limit"), refuser("challenge"), refuser("waf"), identity{}, second,
		refuser("stuffing"), refuser("csrf"), refuser("access"))
	return w
}

// A refuser refuses what is below its own path.
type refuser string

func (n refuser) Name() string { return string(n) }
func (n refuser) Check(r *merlon.Request) merlon.Decision {
	if strings.HasPrefix(r.Path, "/"+string(n)) {
		return merlon.Refuse(http.StatusForbidden, "refused")
	}
	return merlon.Pass("fine")
}

type identity struct{}

func (identity) Name() string { return "identity" }
func (identity) Check(r *merlon.Request) merlon.Decision {
	if strings.HasPrefix(r.Path, "/identity") {
		return merlon.Refuse(http.StatusUnauthorized, "refused")
	}
	r.Identity = who(r)
	return merlon.Pass("fine")
}

func tries(r *merlon.Request) bool { return r.Header["Cookie"] != nil || r.Header["X-Api-Key"] != nil }

func who(r *merlon.Request) *merlon.Identity {
	if k := r.Header.Get("X-API-Key"); strings.HasPrefix(k, "mk_") {
		return &merlon.Identity{Subject: "u-" + strings.TrimPrefix(k, "mk_"), Session: k, Methods: []string{account.ByKey}}
	}
	if name, ok := strings.CutPrefix(r.Header.Get("Cookie"), "s="); ok && name != "forged" {
		return &merlon.Identity{Subject: "u-" + name, Session: "session", Methods: []string{account.ByPassword}}
	}
	return nil
}

const (
	office = "203.0.113.7"
	other  = "198.51.100.9"
)

// A visit is one request from start to end.
type visit struct {
	client, site, path string
	header             string // lines
	status             int    // of the backend; 200 if zero
}

func (w *world) visit(v visit) merlon.Decision {
	if v.client == "" {
		v.client = office
	}
	if v.path == "" {
		v.path = "/"
	}
	if v.site == "" {
		v.site = "shop.example.com"
	}
	if v.status == 0 {
		v.status = http.StatusOK
	}
	r := merlontest.Request(w, "GET "+v.path+"\n"+v.header)
	r.Client, r.Site, r.Received = netip.MustParseAddr(v.client), v.site, w.now()
	d := w.gate.Check(r)
	o := merlon.Outcome{Status: v.status, Upstream: d.Passed()}
	if !d.Passed() {
		o.Status, o.Guard = d.Code(), r.RefusedBy()
	}
	w.gate.Done(r, o)
	return d
}

func (w *world) times(n int, v visit) {
	for range n {
		w.visit(v)
	}
}

// wants checks the reason of a refusal; none means that the request passes.
func (w *world) wants(v visit, reason merlon.Reason) {
	w.Helper()
	d := w.visit(v)
	switch {
	case reason == "" && !d.Passed():
		w.Errorf("%+v was refused: %s", v, d.Reason)
	case reason != "" && (d.Passed() || d.Reason != reason):
		w.Errorf("%+v: %s %s, want a refusal, %s", v, d.Effect, d.Reason, reason)
	}
}
