package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/geo"
	"github.com/merlon-dev/merlon/identity/account"
)

// A Rule lets some log in from somewhere at some time.
type Rule struct {
	// Users are log-in names that the rule is for; with groups, either is
	// enough. Default: everybody. Example:
	//
	//	users: [ann@example.com]
	Users []string `yaml:"users,omitempty"`
	// Groups are groups that the rule is for. Default: everybody. Example:
	//
	//	groups: [ops]
	Groups []string `yaml:"groups,omitempty"`
	// From are the addresses and networks that they may come from. Default:
	// anywhere. Example:
	//
	//	from: [10.8.0.0/16, "2001:db8:1::/48"]
	From []string `yaml:"from,omitempty"`
	// Countries are the countries that they may come from, by two letters (ISO
	// 3166). An address that the database does not know comes from none.
	// Default: any. Example:
	//
	//	countries: [DE, US]
	Countries []string `yaml:"countries,omitempty"`
	// When is the time that they may be there: days, hours and a time zone.
	// Hours may pass midnight and then belong to the day they begin on.
	// Default: always. Example:
	//
	//	when: "Mon-Fri 07:00-20:00 Europe/Berlin"
	When string `yaml:"when,omitempty"`
}

// Rules say who may log in from where and when. Without any, everybody may.
type Rules struct {
	rules     []rule
	countries *geo.DB
}

type rule struct {
	users, groups map[string]bool
	anybody       bool
	from          []netip.Prefix
	countries     map[string]bool
	when          *window
}

// NewRules returns the rules of a configuration.
func NewRules(c Config) (*Rules, error) {
	rs := &Rules{}
	var errs []error
	needs := false
	for i, r := range c.Login {
		compiled, err := r.compile()
		if err != nil {
			errs = append(errs, merlon.Within(fmt.Sprintf("login[%d]", i), err))
		}
		needs = needs || len(r.Countries) > 0
		rs.rules = append(rs.rules, compiled)
	}
	switch {
	case c.Countries != "":
		db, _, err := geo.Open(c.Countries)
		if err != nil {
			errs = append(errs, merlon.BadSetting("countries", c.Countries, err.Error()))
		}
		rs.countries = db
	case needs:
		errs = append(errs, merlon.BadSetting("countries", "", "must name a database, because a login rule has countries"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return rs, nil
}

func (r Rule) compile() (rule, error) {
	out := rule{anybody: len(r.Users)+len(r.Groups) == 0}
	var errs []error
	bad := func(setting, value, what string) { errs = append(errs, merlon.BadSetting(setting, value, what)) }
	for setting, list := range map[string][]string{"users": r.Users, "groups": r.Groups, "from": r.From, "countries": r.Countries} {
		if list != nil && len(list) == 0 {
			bad(setting, "", "must not be empty; leave it out where it does not matter")
		}
	}
	out.users = make(map[string]bool, len(r.Users))
	for i, u := range r.Users {
		name, err := account.Fold(u)
		if err != nil {
			bad(fmt.Sprintf("users[%d]", i), u, err.Error())
		}
		out.users[name] = true
	}
	out.groups = make(map[string]bool, len(r.Groups))
	for i, g := range r.Groups {
		if g == "" {
			bad(fmt.Sprintf("groups[%d]", i), g, "must not be empty")
		}
		out.groups[g] = true
	}
	for i, f := range r.From {
		p, rule := network(f)
		if rule != "" {
			bad(fmt.Sprintf("from[%d]", i), f, rule)
		}
		out.from = append(out.from, p)
	}
	if len(r.Countries) > 0 {
		out.countries = make(map[string]bool, len(r.Countries))
	}
	for i, c := range r.Countries {
		if len(c) != 2 || c[0] < 'A' || c[0] > 'Z' || c[1] < 'A' || c[1] > 'Z' {
			bad(fmt.Sprintf("countries[%d]", i), c, "must be two capital letters (ISO 3166), such as DE")
		}
		out.countries[c] = true
	}
	if r.When != "" {
		w, err := parseWindow(r.When)
		if err != nil {
			bad("when", r.When, err.Error())
		}
		out.when = w
	}
	return out, errors.Join(errs...)
}

// network reads an address or a network. Names are none: what they stand for
// changes, and the name server decides who may log in.
func network(text string) (netip.Prefix, string) {
	const rule = "must be an address or a network such as 10.8.0.0/16"
	if a, err := netip.ParseAddr(text); err == nil {
		if a.Is4In6() || a.Zone() != "" {
			return netip.Prefix{}, "must be written as IPv4, without ::ffff: and without a zone"
		}
		return netip.PrefixFrom(a, a.BitLen()), ""
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, rule
	case p.Addr().Is4In6():
		return netip.Prefix{}, "must be written as IPv4, without ::ffff:"
	case p != p.Masked():
		return netip.Prefix{}, "has bits beyond its length; write " + p.Masked().String()
	}
	return p, ""
}

// allow reports whether a user may log in, or stay logged in, from an address.
func (rs *Rules) allow(name string, groups []string, client netip.Addr, now time.Time) bool {
	if len(rs.rules) == 0 {
		return true
	}
	client = client.Unmap().WithZone("")
	country := "?" // looked up at most once
	for i := range rs.rules {
		r := &rs.rules[i]
		if !r.anybody && !r.users[name] && !slices.ContainsFunc(groups, func(g string) bool { return r.groups[g] }) {
			continue
		}
		if len(r.from) > 0 && !slices.ContainsFunc(r.from, func(p netip.Prefix) bool { return p.Contains(client) }) {
			continue
		}
		if r.countries != nil {
			if country == "?" {
				country = rs.countries.Country(client)
			}
			if !r.countries[country] {
				continue
			}
		}
		if r.when != nil && !r.when.contains(now) {
			continue
		}
		return true
	}
	return false
}

// Weak says what about the rules their author may not have meant.
func (rs *Rules) Weak() []string {
	if len(rs.rules) == 0 {
		return nil
	}
	var out []string
	if !slices.ContainsFunc(rs.rules, func(r rule) bool { return r.anybody }) {
		out = append(out, "login: whom no rule names by user or group cannot log in at all, administrators included")
	}
	return out
}

// LocksOut reports whether, of the accounts given, none could log in from
// anywhere at any time.
func (rs *Rules) LocksOut(accounts []account.Account) bool {
	if len(rs.rules) == 0 || len(accounts) == 0 {
		return false
	}
	for _, a := range accounts {
		for _, r := range rs.rules {
			if r.anybody || r.users[a.Name] || slices.ContainsFunc(a.Groups, func(g string) bool { return r.groups[g] }) {
				return false
			}
		}
	}
	return true
}

// A window is a part of each week.
type window struct {
	days       [7]bool
	begin, end int // minutes of the day; an end before the beginning is on the next day
	zone       *time.Location
}

var dayNames = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// parseWindow reads "Mon-Fri,Sun 07:00-20:00 Europe/Berlin"; the days may be
// "daily" or be left out.
func parseWindow(text string) (*window, error) {
	fields := strings.Fields(text)
	if len(fields) == 2 {
		fields = append([]string{"daily"}, fields...)
	}
	if len(fields) != 3 {
		return nil, errors.New(`must be days, hours and a time zone, such as "Mon-Fri 07:00-20:00 Europe/Berlin"`)
	}
	w := &window{}
	if err := w.parseDays(fields[0]); err != nil {
		return nil, err
	}
	begin, end, ok := strings.Cut(fields[1], "-")
	var okBegin, okEnd bool
	w.begin, okBegin = clock(begin)
	w.end, okEnd = clock(end)
	if !ok || !okBegin || !okEnd || w.begin == w.end || w.begin == 24*60 {
		return nil, errors.New("hours must be such as 07:00-20:00; 00:00-24:00 is the whole day")
	}
	if fields[2] == "Local" {
		return nil, errors.New("must name a time zone, such as Europe/Berlin or UTC")
	}
	zone, err := time.LoadLocation(fields[2])
	if err != nil {
		return nil, errors.New("must end with a time zone, such as Europe/Berlin or UTC")
	}
	w.zone = zone
	return w, nil
}

func (w *window) parseDays(text string) error {
	if text == "daily" {
		w.days = [7]bool{true, true, true, true, true, true, true}
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		i, j := slices.Index(dayNames, first), slices.Index(dayNames, last)
		if i < 0 || j < 0 {
			return errors.New("days must be such as Mon-Fri or Sat,Sun, or daily")
		}
		for ; ; i = (i + 1) % 7 {
			w.days[i] = true
			if i == j {
				break
			}
		}
	}
	return nil
}

// clock reads "07:30" as minutes of the day.
func clock(s string) (int, bool) {
	if len(s) != 5 || s[2] != ':' {
		return 0, false
	}
	for _, i := range []int{0, 1, 3, 4} {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	h, m := int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	return h*60 + m, h < 24 && m < 60 || h == 24 && m == 0
}

// contains reports whether t is in the window, by the clock on the wall there.
func (w *window) contains(t time.Time) bool {
	t = t.In(w.zone)
	at, day := t.Hour()*60+t.Minute(), int(t.Weekday())
	if w.begin < w.end {
		return w.days[day] && at >= w.begin && at < w.end
	}
	return w.days[day] && at >= w.begin || w.days[(day+6)%7] && at < w.end
}
