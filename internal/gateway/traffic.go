package gateway

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/decoy"
	"github.com/merlon-dev/merlon/geo"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/stuffing"
	"github.com/merlon-dev/merlon/throttle"
)

// traffic are the guards of one route that judge by what came before: how much,
// how often, by whom. Several of them look twice, before and after it is known
// who is asking.
type traffic struct {
	decoy     *decoy.Guard
	ban       *ban.Guard
	limit     *limit.Guard
	challenge *challenge.Guard
	stuffing  *stuffing.Guard // nil if the backend owns no log-in here
	throttle  *throttle.Guard // nil if nothing is bounded here
}

// common builds what all routes use.
func (b *builder) common() {
	f := b.file
	if n := f.InspectMemory; n != 0 && (n < 16*merlon.MiB || n > 1024*merlon.GiB) {
		b.errs = append(b.errs, merlon.BadSetting("inspect_memory", n.String(), "must be from 16MiB to 1024GiB"))
	}
	if f.Lease != 0 && (f.Lease < 2 || f.Lease > 1000) {
		b.errs = append(b.errs, merlon.BadSetting("lease", strconv.Itoa(f.Lease), "must be from 2 to 1000"))
	} else if f.Lease != 0 && f.Redis == "" {
		b.errs = append(b.errs, merlon.BadSetting("lease", strconv.Itoa(f.Lease), "needs redis: there is nothing to take from otherwise"))
	}
	var err error
	b.classes, err = throttle.NewClasses(f.Class)
	b.fail("class", err)
	if len(f.Geo) > 0 {
		db, i, err := geo.Open(f.Geo...)
		if err != nil {
			b.errs = append(b.errs, merlon.BadSetting(fmt.Sprintf("geo[%d]", i), f.Geo[i], err.Error()))
		} else {
			b.geo = db
		}
	}
	pages := challenge.PagesEnv{Key: b.env.State.Key, Count: b.env.State.Counts}
	if c, on := f.SignIn(); on {
		pages.Brand = c.Portal.Brand.Name
	}
	b.g.challenges, err = challenge.NewPages(pages)
	b.fail("challenge", err)
}

// traffic builds the guards of one route.
func (b *builder) traffic(setting, site string, c config.Guards) (t traffic) {
	st := b.env.State
	tries := b.g.tries
	if b.g.people == nil {
		tries = nil
	}
	fail := func(section string, err error) { b.fail(setting+"."+section, err) }
	var err error
	t.decoy, err = decoy.New(orZero(c.Decoy))
	fail("decoy", err)
	t.challenge, err = challenge.New(orZero(c.Challenge), challenge.Env{
		Key: st.Key, Load: st.load(site), Crawlers: st.Crawlers, Tries: tries,
	})
	fail("challenge", err)
	if c.BackendLogin != nil {
		env := stuffing.Env{Key: st.Key, Store: st.Tries, Notify: func(n attempts.Notice) { attacked(b.env, "stuffing", n) }, Watch: names(c.Monitor, "stuffing")}
		if t.challenge != nil && !names(c.Off, "challenge") {
			env.Passed = t.challenge.Passed
		}
		t.stuffing, err = stuffing.New(*c.BackendLogin, env)
		fail("backend_login", err)
	}
	env := ban.Env{Bans: st.Bans, Tries: tries, Who: b.g.who, Exempt: st.Crawlers.Sent}
	if t.stuffing != nil {
		env.KnownDevice, env.Device = t.stuffing.KnownDevice, t.stuffing.Device
	}
	t.ban, err = ban.New(orZero(c.Ban), env)
	fail("ban", err)
	lc := orZero(c.Limit)
	t.limit, err = limit.New(lc, st.Counts, b.places())
	if err == nil && b.env.replay {
		t.limit, err = limit.New(timeless(lc), st.Counts, b.places())
	}
	fail("limit", err)
	if c.Throttle != nil {
		t.throttle, err = throttle.New(*c.Throttle, b.classes, st.Classes)
		fail("throttle", err)
	}
	return t
}

// places returns where addresses are, or nil if there is no database.
func (b *builder) places() limit.Geo {
	if b.geo == nil {
		return nil
	}
	return b.geo
}

// tries reports whether a request brings something that may prove who sent it.
// A session's cookie is looked up, since one that is made up would have the WAF
// inspect what a banned client or a flood sends; it would be refused all the
// same. Who sends a key or a token that does not hold is to be told so.
func (g *Gateway) tries(r *merlon.Request) bool {
	if g.people == nil || g.people.guard == nil || !g.people.guard.Tries(r) {
		return false
	}
	return !g.people.guard.TriesSession(r) || g.people.guard.Who(r) != nil
}

// who returns who has sent a request that was refused before that was found
// out, or nil. Passwords are not looked at for it, since that costs too much.
func (g *Gateway) who(r *merlon.Request) *merlon.Identity {
	if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); g.people == nil || g.people.guard == nil || strings.EqualFold(scheme, "Basic") {
		return nil
	}
	return g.people.guard.Who(r)
}

// work says where a browser gets a pass, for refusals that one would lift.
func (e *exchange) work(d merlon.Decision) merlon.Decision {
	c := e.route.traffic.challenge
	if c == nil || d.Location != "" {
		return d
	}
	to, opens := "/", merlon.OpensPage(e.r.Request)
	switch from, err := url.Parse(e.r.Referer()); {
	case opens && (e.r.Method == http.MethodGet || e.r.Method == http.MethodHead):
		to = e.r.URL.RequestURI()
	case err == nil && from.Host == e.r.Host: // the page with the form or script
		to = from.RequestURI()
	}
	if opens {
		d.Location = c.Page(to)
		return d
	}
	d.Header = d.Header.Clone()
	if d.Header == nil {
		d.Header = http.Header{}
	}
	d.Header.Set(challenge.Header, c.Page(to))
	return d
}
