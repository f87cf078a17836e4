package challenge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/gaissmai/bart"

	"github.com/merlon-dev/merlon"
)

// What [Allow.Kind] can be, beside the names of shapes.
const (
	kindCrawlers   = "crawlers"
	kindNoDefaults = "no-defaults"
)

var shapes = map[string]func(*merlon.Request) bool{
	"git": isGit, "packages": isPackage, "feeds": isFeed, "well-known": isWellKnown,
}

var defaults = []Allow{{Kind: "git"}, {Kind: "packages"}, {Kind: "well-known"}, {Kind: kindCrawlers}}

// rules say who need not prove anything.
type rules struct {
	list     []rule // without those about crawlers
	crawlers []rule // asked last, since they may have to wait
	known    *Crawlers
}

// A rule is one [Allow].
type rule struct {
	shape   func(*merlon.Request) bool // nil: any
	path    string                     // empty: any
	from    *bart.Lite                 // nil: anywhere
	vendors []string                   // of rules about crawlers
}

func newRules(list []Allow, known *Crawlers) (*rules, []error) {
	var errs []error
	a := &rules{known: known}
	all := list
	if !slices.ContainsFunc(list, func(w Allow) bool { return w.Kind == kindNoDefaults }) {
		all = slices.Concat(list, defaults)
	}
	if len(list) > 1000 {
		return a, []error{merlon.BadSetting("allow", "", "must be at most 1000 rules")}
	}
	for i, w := range all {
		place := "allow[" + strconv.Itoa(i) + "]"
		r, bad := newRule(w)
		for _, err := range bad {
			errs = append(errs, merlon.Within(place, err))
		}
		switch {
		case len(bad) > 0 || w.Kind == kindNoDefaults:
		case r.vendors == nil:
			a.list = append(a.list, r)
		case known == nil:
			errs = append(errs, merlon.BadSetting(place, "", "needs something that looks names up"))
		default:
			a.crawlers = append(a.crawlers, r)
		}
	}
	return a, errs
}

func newRule(w Allow) (r rule, errs []error) {
	bad := func(setting, value, text string) { errs = append(errs, merlon.BadSetting(setting, value, text)) }
	switch w.Kind {
	case "":
	case kindCrawlers:
		r.vendors = vendorNames()
	case kindNoDefaults:
		if w.Path != "" || len(w.From) > 0 || len(w.Crawlers) > 0 {
			bad("kind", w.Kind, "must stand alone")
		}
	default:
		if r.shape = shapes[w.Kind]; r.shape == nil {
			bad("kind", w.Kind, "must be one of crawlers, git, packages, feeds, well-known, no-defaults, or path, from or crawlers must be set instead")
		}
	}
	if w.Kind == "" && w.Path == "" && len(w.From) == 0 && len(w.Crawlers) == 0 {
		bad("", "", "must say who is meant, such as git or {path: /webhooks/**}")
	}
	if len(w.Crawlers) > 0 {
		if w.Kind != "" && w.Kind != kindCrawlers {
			bad("crawlers", "", "must not stand beside kind: "+w.Kind)
		}
		r.vendors = w.Crawlers
	}
	for _, name := range w.Crawlers {
		if !slices.Contains(vendorNames(), name) {
			bad("crawlers", name, "must be one of "+strings.Join(vendorNames(), ", "))
		}
	}
	if r.path = w.Path; w.Path != "" && (!strings.HasPrefix(w.Path, "/") || !doublestar.ValidatePattern(w.Path)) {
		bad("path", w.Path, `must be a path pattern such as "/webhooks/**"`)
	}
	for i, text := range w.From {
		p, err := network(text)
		if err != nil {
			bad("from["+strconv.Itoa(i)+"]", text, err.Error())
			continue
		}
		if r.from == nil {
			r.from = new(bart.Lite)
		}
		r.from.Insert(p)
	}
	return r, errs
}

func vendorNames() (names []string) {
	for _, v := range vendors {
		names = append(names, v.name)
	}
	return names
}

// network reads an address or a network.
func network(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, errors.New("must be an address such as 192.0.2.7 or a network such as 10.8.0.0/16")
	case p.Addr().Is4In6():
		return p, errors.New("must be written as an IPv4 or an IPv6 network")
	case p != p.Masked():
		return p, fmt.Errorf("must have no bits beyond its length; %s has none", p.Masked())
	}
	return p, nil
}

// holds reports whether everything that the rule says of a request holds, but
// for who the crawler is.
func (w *rule) holds(r *merlon.Request) bool {
	return (w.from == nil || r.Client.IsValid() && w.from.Contains(r.Client)) &&
		(w.path == "" || doublestar.MatchUnvalidated(w.path, r.Path)) &&
		(w.shape == nil || w.shape(r))
}

// match reports whether a rule lets r go on, and what is odd about it if not.
func (a *rules) match(r *merlon.Request) (ok bool, odd string) {
	for i := range a.list {
		if a.list[i].holds(r) {
			return true, ""
		}
	}
	v := vendorOf(one(r, "User-Agent"))
	if v == nil || !r.Client.IsValid() {
		return false, ""
	}
	for i := range a.crawlers {
		if w := &a.crawlers[i]; slices.Contains(w.vendors, v.name) && w.holds(r) {
			if a.known.confirm(r.Context(), v, r.Client, r.Received) {
				return true, ""
			}
			return false, "says that it is a crawler of " + v.name + "; the names of its address do not, or could not be looked up"
		}
	}
	return false, ""
}

// literally has a pattern mean what it says.
var literally = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `{`, `\{`, `}`, `\}`)

// remedy is the smallest rule that lets r go on.
func remedy(r *merlon.Request) string {
	if !r.Client.IsValid() {
		return ""
	}
	escaped := literally.Replace(r.Path)
	return fmt.Sprintf("challenge:\n  allow: [{path: %s, from: %q}]", strconv.QuoteToASCII(escaped), r.Client)
}
