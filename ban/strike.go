package ban

import (
	"context"
	"fmt"
	"hash/maphash"
	"net/http"
	"net/netip"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/count"
)

// countWait bounds how long counting may take after the answer.
const countWait = time.Second

// weight is what a refusal by a guard costs, in tenths of a strike. A decoy is
// worth a ban. Guards that are not named here refuse what ordinary people and
// programs cause.
func (g *Guard) weight(guard string) int64 {
	switch guard {
	case "decoy":
		return g.strikes.Burst
	case "origin", "waf", "stuffing":
		return tenths
	case "limit", "challenge":
		return 1
	}
	return 0
}

// challenged reports whether r was not refused for good, but told how to be
// let in.
func challenged(r *merlon.Request) bool {
	for _, v := range r.Verdicts() {
		if !v.Decision.Passed() {
			return v.Decision.Effect == merlon.Challenge
		}
	}
	return false
}

// byPage reports whether a page made a browser send r: its picture, its link,
// its script. Pages are written by others, who may mean to get their visitors
// banned. Browsers say so by Fetch Metadata (W3C), those before 2023 and those
// that are asked in the clear by Referer only.
func byPage(r *merlon.Request) bool {
	if site := r.Header["Sec-Fetch-Site"]; len(site) > 0 {
		return site[0] != "none"
	}
	return r.Header["Referer"] != nil
}

// looking reports whether a backend's answer is one that people get now and
// then, and those who look for what is not there get all the time.
func looking(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return true
	}
	return false
}

// Done counts how r ended.
func (g *Guard) Done(r *merlon.Request, o merlon.Outcome) {
	switch {
	case o.Guard != "" && o.Status == http.StatusMisdirectedRequest && r.Site == "":
		g.wrong(r) // no site serves the host: it is looked for what is not there
	case o.Guard != "" && (o.Status >= 500 || o.Status == http.StatusMisdirectedRequest):
		// Our own lack of something, or a connection that a client uses again for
		// another site (RFC 9110, 15.5.20).
	case o.Guard != "":
		cost := g.weight(o.Guard)
		if challenged(r) {
			cost = min(cost, 1) // what opens no page, such as a script's request, cannot do better
		}
		if cost > 0 {
			g.strike(r, o.Guard, cost)
		}
	case o.Upstream && looking(o.Status):
		g.wrong(r)
	case o.Upstream && o.Status >= 200 && o.Status < 400:
		g.right(r)
	}
}

// A culprit is whom something is held against.
type culprit struct {
	id     *merlon.Identity // nil: the client
	client netip.Addr       // as in [plain]
}

// culprit returns whom r is held against; ok is false if that is nobody.
func (g *Guard) culprit(r *merlon.Request, id *merlon.Identity) (c culprit, ok bool) {
	c.id = id
	if r.Client.IsValid() {
		c.client = plain(r.Client)
		if g.allowed(c.client) {
			return c, false
		}
	}
	return c, c.id != nil || r.Client.IsValid() && !forwards(r, c.client)
}

// forwards reports whether the client seems to be a proxy that trusted_proxies
// should name: a private address that tells of others. To ban it would be to
// ban everybody.
func forwards(r *merlon.Request, a netip.Addr) bool {
	return (a.IsLoopback() || a.IsPrivate()) && (r.Header["X-Forwarded-For"] != nil || r.Header["Forwarded"] != nil)
}

func (c *culprit) key() string {
	if c.id != nil {
		return keyOfIdentity(c.id)
	}
	return KeyOf(c.client)
}

// hash tells culprits apart without allocation.
func (c *culprit) hash(seed maphash.Seed, site string) uint64 {
	h := maphash.String(seed, site)
	if c.id == nil {
		a := c.client
		if a.Is6() {
			b := a.As16()
			clear(b[8:])
			a = netip.AddrFrom16(b)
		}
		return h ^ maphash.Comparable(seed, a)
	}
	if byKey(c.id) {
		return h ^ maphash.String(seed, c.id.Session)
	}
	return h ^ maphash.String(seed, c.id.Subject)
}

// scope is the site that a ban is for.
func (g *Guard) scope(r *merlon.Request) string {
	if g.c.Everywhere {
		return ""
	}
	return r.Site
}

// countKey is where what a culprit does is counted.
func (g *Guard) countKey(r *merlon.Request, what, key string) count.Key {
	return make(count.Key, 0, 128).With("ban").With(what).With(g.scope(r)).With(key)
}

// after returns a context in which counting goes on when the client has gone.
func after(r *merlon.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), countWait)
}

// strike counts a refusal, and bans.
func (g *Guard) strike(r *merlon.Request, guard string, cost int64) {
	id := r.Identity
	if id == nil && g.env.Who != nil && g.env.Tries != nil && g.env.Tries(r) {
		id = g.env.Who(r) // the guard that refused stands before identity
	}
	c, ok := g.culprit(r, id)
	if !ok {
		return
	}
	if byPage(r) {
		cost = 1
	}
	ctx, cancel := after(r)
	defer cancel()
	why := fmt.Sprintf("refused too often, at last by %s, request %s", guard, r.ID)
	decoy := cost >= g.strikes.Burst && guard == "decoy"
	if decoy {
		why = "touched a decoy, request " + r.ID
	}
	for _, key := range g.keys(r, c) {
		counted := g.countKey(r, "strikes", key)
		if decoy || g.bans.take(ctx, counted, g.strikes, cost) {
			g.impose(ctx, r, key, why, counted, g.strikes)
		}
	}
}

// keys returns what is banned for what c has done: who that is, and the browser
// by which an address would not be shut out.
func (g *Guard) keys(r *merlon.Request, c culprit) []string {
	keys := []string{c.key()}
	if c.id == nil {
		if d := g.device(r); d != "" {
			keys = append(keys, d)
		}
	}
	return keys
}

// wrong counts an answer of the backend that says there is nothing, and bans. A
// path that is asked for again and again, by a program that waits for it, is
// counted once.
func (g *Guard) wrong(r *merlon.Request) {
	c, ok := g.culprit(r, r.Identity)
	if !ok {
		return
	}
	site := g.scope(r)
	window := g.window()
	h := c.hash(g.bans.paths.seed, site)
	if !g.bans.paths.add(h^maphash.String(g.bans.paths.seed, r.Path), window) {
		return
	}
	cost := int64(tenths)
	if byPage(r) {
		cost = 1
	}
	ctx, cancel := after(r)
	defer cancel()
	g.bans.owing.add(c.hash(g.bans.owing.seed, site), window)
	for _, key := range g.keys(r, c) {
		counted := g.countKey(r, "errors", key)
		if g.bans.take(ctx, counted, g.errors, cost) {
			why := "asked for too much that is not there or not allowed, at last in request " + r.ID
			g.impose(ctx, r, key, why, counted, g.errors)
		}
	}
}

// right gives back what one wrong answer cost, to who has had some lately.
func (g *Guard) right(r *merlon.Request) {
	c, ok := g.culprit(r, r.Identity)
	if !ok || !g.bans.owing.has(c.hash(g.bans.owing.seed, g.scope(r)), g.window()) {
		return
	}
	ctx, cancel := after(r)
	defer cancel()
	for _, key := range g.keys(r, c) {
		g.bans.give(ctx, g.countKey(r, "errors", key), g.errors, -tenths)
	}
}

// window numbers the times of length Within.
func (g *Guard) window() uint64 {
	return uint64(g.bans.now().UnixNano() / int64(g.c.Within))
}

// impose bans, and begins to count anew.
func (g *Guard) impose(ctx context.Context, r *merlon.Request, key, why string, counted count.Key, q count.Quota) {
	if g.env.Exempt != nil && g.env.Exempt(r) {
		return
	}
	g.bans.impose(Ban{Site: g.scope(r), Key: key, Why: why}, g.c.First, g.c.Longest)
	g.bans.give(ctx, counted, q, -q.Burst)
}
