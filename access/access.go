// Package access decides whether somebody may: who must be signed in where,
// with which role, how well proved and how lately.
//
// It judges the identity that package identity has proved, and asks for a
// better proof where one would help. What belongs to whom inside the
// application, it does not know.
package access

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
)

// Config configures a [Guard]. The zero Config requires nothing. In a file the
// word "login" alone stands for {login: true}, and "anyone" for {anyone: true}.
// What a site requires, its routes require too, beside what is their own.
type Config struct {
	// Anyone lifts what the site requires, on a route that is for everybody.
	// It stands alone. Default: false. Example:
	//
	//	require: anyone
	Anyone bool `yaml:"anyone,omitempty"`
	// Login: somebody must be signed in, whoever it is; so it is with everything
	// below, too. Default: false. Example:
	//
	//	require: login
	Login bool `yaml:"login,omitempty"`
	// User names those who may, by log-in name, or by subject as `merlon user
	// list -o json` shows it; one of them is enough.
	// Default: whoever has what else is required. Example:
	//
	//	require: {user: [ann, bob@example.com]}
	User List `yaml:"user,omitempty"`
	// Group is what they must be in; of several, one. Default: none. Example:
	//
	//	require: {group: [ops, staff]}
	Group List `yaml:"group,omitempty"`
	// Role is what they must have; of several, one. Default: none. Example:
	//
	//	require: {role: member}
	Role List `yaml:"role,omitempty"`
	// Scope is what a key or token must be good for; of several, one. People
	// who sign in with a browser have none, and pass. Default: none. Example:
	//
	//	require: {scope: orders:read}
	Scope List `yaml:"scope,omitempty"`
	// MFA is how well they must be proved: any (two factors) or
	// phishing-resistant (a passkey or a security key). Default: none. Example:
	//
	//	require: {mfa: phishing-resistant}
	MFA account.Strength `yaml:"mfa,omitempty"`
	// Fresh is how long ago a person may have proved it at most. Who did so
	// earlier proves it again, and the request goes on, if a page's form sent
	// it. From 10s to 24h. Default: as long as the session lasts. Example:
	//
	//	require: {fresh: 5m}
	Fresh time.Duration `yaml:"fresh,omitempty"`
	// From are the addresses and networks that they may come from. Default:
	// anywhere. Example:
	//
	//	require: {from: [10.8.0.0/16, "2001:db8:1::/48"]}
	From []netip.Prefix `yaml:"from,omitempty"`
}

// A List is one word or a list of them.
type List []string

// UnmarshalYAML reads a word or a list.
func (l *List) UnmarshalYAML(decode func(any) error) error {
	var one string
	if err := decode(&one); err == nil {
		*l = List{one}
		return nil
	}
	return decode((*[]string)(l))
}

// UnmarshalYAML reads the short forms.
func (c *Config) UnmarshalYAML(decode func(any) error) error {
	var word string
	if err := decode(&word); err == nil {
		switch word {
		case "login":
			*c = Config{Login: true}
		case "anyone":
			*c = Config{Anyone: true}
		default:
			return errors.New(`must be "login", "anyone" or settings such as {role: member}`)
		}
		return nil
	}
	type plain Config
	return decode((*plain)(c))
}

// Under returns c below what a site, or the whole file, requires: both hold.
// Of lists with the same name the nearer one does. MFA, Fresh and From can only
// become stricter.
func (c Config) Under(outer Config) Config {
	if c.Anyone || outer.Anyone {
		return c
	}
	c.Login = c.Login || outer.Login
	for _, l := range []struct{ own, outer *List }{{&c.User, &outer.User}, {&c.Group, &outer.Group}, {&c.Role, &outer.Role}, {&c.Scope, &outer.Scope}} {
		if len(*l.own) == 0 {
			*l.own = *l.outer
		}
	}
	c.MFA = max(c.MFA, outer.MFA)
	if c.Fresh == 0 || outer.Fresh > 0 && outer.Fresh < c.Fresh {
		c.Fresh = outer.Fresh
	}
	c.From = within(c.From, outer.From)
	return c
}

// within returns the networks of inner that are in outer, and those of outer
// that are in inner. If the two have nothing in common, nobody is let in.
func within(inner, outer []netip.Prefix) []netip.Prefix {
	if len(inner) == 0 || len(outer) == 0 {
		return slices.Concat(inner, outer)
	}
	var both []netip.Prefix
	for _, a := range inner {
		for _, b := range outer {
			if a.Overlaps(b) { // then one is in the other
				if a.Bits() < b.Bits() {
					a = b
				}
				both = append(both, a)
			}
		}
	}
	if both == nil {
		return []netip.Prefix{nowhere}
	}
	return both
}

// nowhere is a network that nobody comes from: the discard-only block's first
// address (RFC 6666).
var nowhere = netip.MustParsePrefix("100::/128")

const (
	// Met: what the route requires is met, or it requires nothing.
	Met merlon.Reason = "requirements-met"
	// LoginRequired: nobody is signed in. A browser is sent to the log-in page.
	LoginRequired merlon.Reason = "login-required"
	// StrongerProofRequired: the route asks for more factors than were proved.
	// A browser is sent to the page where they can be.
	StrongerProofRequired merlon.Reason = "stronger-proof-required"
	// FreshProofRequired: the last proof is longer ago than fresh allows. A
	// browser is sent to the page where it can be renewed.
	FreshProofRequired merlon.Reason = "fresh-proof-required"
	// NotForThisUser: who is signed in has not the user name, group or role
	// that the route requires.
	NotForThisUser merlon.Reason = "not-for-this-user"
	// ScopeMissing: the key or token is not good for this. Make one with the
	// scope, or take it out of require.
	ScopeMissing merlon.Reason = "scope-missing"
	// NotFromHere: the client's address is not in from.
	NotFromHere merlon.Reason = "not-from-here"
)

// A Guard holds a route to what it requires.
type Guard struct {
	c        Config
	names    []string
	subjects []string
	now      func() time.Time
}

// New returns a Guard.
func New(c Config) (*Guard, error) {
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	if c.Anyone && !c.alone() {
		bad("anyone", "true", "must stand alone")
	}
	if c.Fresh != 0 && (c.Fresh < 10*time.Second || c.Fresh > 24*time.Hour) {
		bad("fresh", c.Fresh.String(), "must be from 10s to 24h")
	}
	for _, l := range []struct {
		name string
		list List
	}{{"group", c.Group}, {"role", c.Role}, {"scope", c.Scope}} {
		for _, word := range l.list {
			if strings.TrimSpace(word) != word || word == "" {
				bad(l.name, word, "must be a name without spaces around it")
			}
		}
	}
	var names, subjects []string
	for _, who := range c.User {
		folded, err := account.Fold(who)
		switch {
		case isSubject(who):
			subjects = append(subjects, who)
		case err != nil:
			bad("user", who, "must be a log-in name or a subject")
		default:
			names = append(names, folded)
		}
	}
	c.From = slices.Clone(c.From)
	for i, p := range c.From {
		if p.Addr().Is4In6() {
			bad("from", p.String(), "must be written as IPv4")
			continue
		}
		c.From[i] = p.Masked()
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Guard{c: c, names: names, subjects: subjects, now: time.Now}, nil
}

// isSubject tells subjects from log-in names, which are folded to small
// letters: Merlon's own are made by rand.Text, those of token issuers have a
// "#" after the issuer.
func isSubject(who string) bool {
	return strings.Contains(who, "#") || len(who) == 26 && strings.Trim(who, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// alone reports whether nothing but Anyone is set.
func (c Config) alone() bool {
	c.Anyone = false
	return !c.Required()
}

// Required reports whether c requires anything of anybody.
func (c Config) Required() bool {
	return !c.Anyone && (c.Login || c.byWho() || c.MFA > account.None || c.Fresh > 0 || len(c.From) > 0)
}

// ByIdentity reports whether c requires somebody to be signed in.
func (c Config) ByIdentity() bool {
	return !c.Anyone && (c.Login || c.byWho() || c.MFA > account.None || c.Fresh > 0)
}

func (c Config) byWho() bool {
	return len(c.User)+len(c.Group)+len(c.Role)+len(c.Scope) > 0
}

// Name returns "access".
func (g *Guard) Name() string { return "access" }

// Middleware puts the guard in front of next.
func (g *Guard) Middleware(next http.Handler) http.Handler { return merlon.Middleware(g)(next) }

// Strength is how well somebody must be proved to get in.
func (g *Guard) Strength() account.Strength { return g.c.MFA }

// Check compares r's identity with what is required. What a better proof could
// mend is a challenge; an address or a name that is not let in is a refusal
// first, so that nobody proves anything in vain.
func (g *Guard) Check(r *merlon.Request) merlon.Decision {
	c := &g.c
	if !c.Required() {
		return merlon.Pass(Met)
	}
	if len(c.From) > 0 && !slices.ContainsFunc(c.From, func(p netip.Prefix) bool { return p.Contains(r.Client) }) {
		d := merlon.Refuse(http.StatusForbidden, NotFromHere)
		d.Findings = []merlon.Finding{{Rule: "from", Part: "client " + r.Client.String()}}
		return d
	}
	if !c.ByIdentity() {
		return merlon.Pass(Met)
	}
	id := r.Identity
	if id == nil {
		return challenge(LoginRequired)
	}
	if d, ok := g.who(id); !ok {
		return d
	}
	if account.StrengthOf(id.Methods) < c.MFA {
		return g.prove(StrongerProofRequired)
	}
	if c.Fresh > 0 && !fresh(id.When, c.Fresh, g.now()) {
		return g.prove(FreshProofRequired)
	}
	return merlon.Pass(Met)
}

// who compares names, groups, roles and scopes.
func (g *Guard) who(id *merlon.Identity) (merlon.Decision, bool) {
	c := &g.c
	refuse := func(reason merlon.Reason, rule string, want List) (merlon.Decision, bool) {
		d := merlon.Refuse(http.StatusForbidden, reason)
		d.Findings = []merlon.Finding{{Rule: rule, Part: "user " + id.Name, Message: "must have one of: " + strings.Join(want, ", ")}}
		return d, false
	}
	switch {
	case len(c.User) > 0 && !slices.Contains(g.names, id.Name) && !slices.Contains(g.subjects, id.Subject):
		return refuse(NotForThisUser, "user", c.User)
	case len(c.Group) > 0 && !common(c.Group, id.Groups):
		return refuse(NotForThisUser, "group", c.Group)
	case len(c.Role) > 0 && !common(c.Role, id.Roles):
		return refuse(NotForThisUser, "role", c.Role)
	case len(c.Scope) > 0 && id.Scopes != nil && !common(c.Scope, id.Scopes):
		return refuse(ScopeMissing, "scope", c.Scope)
	}
	return merlon.Decision{}, true
}

func common(a List, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// fresh reports whether something was proved within d before now. What was
// proved in the future, or never by a person, was not.
func fresh(when time.Time, d time.Duration, now time.Time) bool {
	age := now.Sub(when)
	return !when.IsZero() && age >= -time.Second && age <= d
}

// prove asks for a better proof. A program is told how much better (RFC 9470),
// since nobody is there who could prove it at once.
func (g *Guard) prove(reason merlon.Reason) merlon.Decision {
	d := challenge(reason)
	text := `Bearer error="insufficient_user_authentication"`
	if g.c.Fresh > 0 {
		text += `, max_age="` + strconv.Itoa(int(g.c.Fresh.Seconds())) + `"`
	}
	d.Header = http.Header{"Www-Authenticate": {text}}
	return d
}

func challenge(reason merlon.Reason) merlon.Decision {
	return merlon.Decision{Effect: merlon.Challenge, Status: http.StatusUnauthorized, Reason: reason}
}
