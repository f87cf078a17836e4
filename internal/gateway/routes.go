package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ban"
	"github.com/merlon-dev/merlon/decoy"
	"github.com/merlon-dev/merlon/headers"
	"github.com/merlon-dev/merlon/internal/loose"
	"github.com/merlon-dev/merlon/limit"
	"github.com/merlon-dev/merlon/origin"
)

// hostTable finds the site of a canonical host: exact names first, then the
// wildcard one label up ("*.example.com"), then "*".
type hostTable map[string]*site

func (t hostTable) find(host string) *site {
	if s := t[host]; s != nil {
		return s
	}
	if _, parent, ok := strings.Cut(host, "."); ok {
		if s := t["*."+parent]; s != nil {
			return s
		}
	}
	return t["*"]
}

func (t hostTable) add(setting, host string, s *site) error {
	switch t[host] {
	case nil:
	case s:
		return merlon.BadSetting(setting, host, "stands in this site already")
	default:
		return merlon.BadSetting(setting, host, "is served by another site already")
	}
	t[host] = s
	return nil
}

// find returns the route for a path: of those that match, the one whose
// pattern begins with the most literal text; the site itself if none does.
func (s *site) find(path string) *route {
	for _, r := range s.routes {
		if matches(r.pattern, path) {
			return r
		}
	}
	return s.all
}

// conflict reports whether a backend that reads the path of a request to rt
// more loosely would take it for one of another route. Case counts for Merlon
// and for some backends only, so that patterns are compared without it.
func (s *site) conflict(path string, rt *route) bool {
	if len(s.routes) == 0 {
		return false
	}
	for _, reading := range append(origin.Readings(path), path) {
		if s.folded(reading) != rt {
			return true
		}
	}
	return false
}

// folded is find without regard to case.
func (s *site) folded(path string) *route {
	path = loose.Case(path)
	for _, r := range s.routes {
		if matches(loose.Case(r.pattern), path) {
			return r
		}
	}
	return s.all
}

func matches(pattern, path string) bool {
	return doublestar.MatchUnvalidated(pattern, path)
}

func checkPattern(pattern string) error {
	switch {
	case pattern == "":
		return merlon.BadSetting("path", "", `must be set, such as "/api/**"`)
	case !strings.HasPrefix(pattern, "/"):
		return merlon.BadSetting("path", pattern, `must begin with "/"`)
	case !doublestar.ValidatePattern(pattern):
		return merlon.BadSetting("path", pattern, `must be a path pattern such as "/api/**" or "/users/*/photo"`)
	}
	return nil
}

// checkForeign refuses a pattern that is for nothing but pages of Merlon's own,
// which the route would never get.
func checkForeign(pattern string, pages []string) error {
	begin := strings.ToLower(pattern)
	if i := strings.IndexAny(begin, "*?[{\\"); i >= 0 {
		begin = begin[:i]
	}
	for _, page := range pages {
		folder, below := strings.CutSuffix(page, "/**")
		if below && strings.HasPrefix(begin, folder+"/") || strings.EqualFold(pattern, folder) {
			return merlon.BadSetting("path", pattern, "must leave "+page+" to Merlon's own pages")
		}
	}
	return nil
}

// sortRoutes puts the most specific pattern first, whatever the order in the
// file: a security rule must not be shadowed by where it stands. Before them
// all are Merlon's own pages: nobody else may ask for passwords there.
func sortRoutes(routes []*route) (twice []error) {
	slices.SortStableFunc(routes, func(a, b *route) int {
		if (a.page != nil) != (b.page != nil) {
			if a.page != nil {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(literal(b.pattern), literal(a.pattern)), cmp.Compare(len(b.pattern), len(a.pattern)), cmp.Compare(a.pattern, b.pattern))
	})
	for i := range len(routes) - 1 {
		if routes[i].pattern == routes[i+1].pattern {
			twice = append(twice, merlon.BadSetting(fmt.Sprintf("routes[%d].path", routes[i+1].index), routes[i+1].pattern, "stands in this site already"))
		}
	}
	return twice
}

// literal is how much of a pattern must be matched to the letter; a pattern
// without wildcards is longer than any with them.
func literal(pattern string) int {
	i := strings.IndexAny(pattern, "*?[{\\")
	if i < 0 {
		return len(pattern) + 1
	}
	return i
}

// stranger builds what answers for hosts that no site serves. There is nothing
// to be had, but who looks for something there, as scanners do that ask by
// address, is held to what stands at the top of the file. They name no site, so
// they are banned at all. What is not for that place, such as a log-in, a
// challenge or the WAF, is not asked.
func (b *builder) stranger() {
	c, st := b.file.Guards, b.env.State
	r := &route{}
	l := &list{off: c.Off, monitor: c.Monitor, of: r}
	if b.env.replay {
		l.off = []string{"all"}
	}
	bg, err := ban.New(orZero(c.Ban), ban.Env{Bans: st.Bans, Exempt: st.Crawlers.Sent})
	b.fail("ban", err)
	dg, err := decoy.New(orZero(c.Decoy))
	b.fail("decoy", err)
	lg, err := limit.New(orZero(c.Limit), st.Counts, b.places())
	b.fail("limit", err)
	og, err := origin.New(origin.Config{})
	b.fail("address", err)
	r.headers, err = headers.New(orZero(c.Headers))
	b.fail("headers", err)
	l.addEach(bg, dg, lg) // in front of origin, which refuses all that comes here
	r.gate = merlon.NewGate(append(l.guards, og, refuseAll{})...)
	b.g.stranger = r
}

// refuseAll stands behind origin where no site serves a host: there is nothing
// that could be asked, whatever origin says.
type refuseAll struct{}

// Name returns "gateway".
func (refuseAll) Name() string { return "gateway" }

// Check refuses.
func (refuseAll) Check(*merlon.Request) merlon.Decision {
	return merlon.Refuse(421, NoSite)
}

// NoSite: no site is configured for the host that was asked for. Add it to a
// site's host if it is yours.
const NoSite merlon.Reason = "no-site"
