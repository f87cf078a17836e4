package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/merlon-dev/merlon/waf"
)

// An Edit is a change of a file that has been worked out, and not yet written.
type Edit struct {
	Text    []byte        // the whole file with the change
	Setting string        // the list that grows: "sites[0].routes[1].waf.exclude"
	Line    int           // where the route or site begins that the list belongs to, from 1
	Added   []waf.Exclude // what was added; nothing if all of it is excluded already
}

// A HandError says that a file has a form that is not edited, so that a person
// must do it.
type HandError struct {
	File    string
	Line    int
	Setting string // where the change belongs: "sites[0].routes[1]"
	Why     string
}

func (e *HandError) Error() string {
	return fmt.Sprintf("%s:%d: %s: %s, so it must be edited by hand", e.File, e.Line, e.Setting, e.Why)
}

// A Scope is where an exclusion holds.
type Scope struct {
	Site   string // the first of the site's hosts
	Route  string // the route's path; empty for what no route matches
	Shadow bool   // for the WAF's shadow only
}

// ExcludeIn works out the change of a file's text after which the WAF excludes
// what is added within the scope. What is excluded there already, or by what
// is inherited, is not added again.
//
// Everything else in the text stays as it is, comments and spaces included,
// and the changed text is read again: an Edit is returned only if it says
// exactly what the old one said and the exclusions. Whether the rules exist is
// for [waf.New].
func ExcludeIn(name string, text []byte, s Scope, add []waf.Exclude) (*Edit, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: is larger than %d MiB", name, maxFile>>20)
	}
	f, err := Parse(name, text)
	if err != nil {
		return nil, err
	}
	i, j, err := f.find(s.Site, s.Route)
	if err != nil {
		return nil, err
	}
	place := fmt.Sprintf("sites[%d]", i)
	if j >= 0 {
		place = fmt.Sprintf("%s.routes[%d]", place, j)
	}
	keys := []string{"waf", "exclude"}
	if s.Shadow {
		keys = []string{"waf", "shadow", "exclude"}
	}
	edit := &Edit{Text: text, Setting: place + "." + strings.Join(keys, "."), Line: 1}
	if tk := f.places[place]; tk != nil {
		edit.Line = tk.Position.Line
	}
	if s.Shadow && f.effective(i, j).Shadow() == nil {
		return nil, fmt.Errorf("%s: the WAF has no shadow where the request was", name)
	}
	edit.Added = missing(add, f.excluded(i, j, s.Shadow))
	if len(edit.Added) == 0 {
		return edit, nil
	}
	hand := func(why string) error { return &HandError{name, edit.Line, place, why} }
	e := newEditor(text, edit.Added)
	if err := e.insert(i, j, keys); err != nil {
		return nil, hand(err.Error())
	}
	edit.Text = e.result()
	f.exclude(i, j, s.Shadow, edit.Added)
	if after, err := Parse(name, edit.Text); err != nil || !same(f, after) {
		return nil, hand("its form is not one that can be added to")
	}
	return edit, nil
}

// find returns the numbers of the site and its route; the route's is -1 for
// the site itself.
func (f *File) find(site, route string) (i, j int, err error) {
	i = slices.IndexFunc(f.Sites, func(s Site) bool { return len(s.Host) > 0 && s.Host[0] == site })
	if i < 0 {
		return 0, 0, fmt.Errorf("%s: has no site whose host is %q, where the request was", f.name, site)
	}
	if route == "" {
		return i, -1, nil
	}
	j = slices.IndexFunc(f.Sites[i].Routes, func(r Route) bool { return r.Path == route })
	if j < 0 {
		return 0, 0, fmt.Errorf("%s: site %q has no route whose path is %q, where the request was", f.name, site, route)
	}
	return i, j, nil
}

// guards are those of a site, or of its route if there is one.
func (f *File) guards(i, j int) *Guards {
	if j < 0 {
		return &f.Sites[i].Guards
	}
	return &f.Sites[i].Routes[j].Guards
}

// effective are the guards' settings as they hold for a site or route: its
// own and what it inherits.
func (f *File) effective(i, j int) Guards {
	g := f.Sites[i].Guards.Under(f.Guards)
	if j >= 0 {
		g = f.Sites[i].Routes[j].Guards.Under(g)
	}
	return g
}

func (f *File) excluded(i, j int, shadow bool) []waf.Exclude {
	g := f.effective(i, j)
	c := g.WAF
	if shadow {
		c = g.Shadow()
	}
	if c == nil {
		return nil
	}
	return c.Exclude
}

func (f *File) exclude(i, j int, shadow bool, add []waf.Exclude) {
	at := &f.guards(i, j).WAF
	if *at == nil {
		*at = &waf.Config{}
	}
	if shadow {
		at = &(*at).Shadow
		if *at == nil {
			*at = &waf.Config{}
		}
	}
	(*at).Exclude = append(slices.Clone((*at).Exclude), add...)
}

// same reports whether two files say the same, wherever they say it.
func same(a, b *File) bool {
	bare := func(f *File) File {
		c := *f
		c.places, c.Guards.written = nil, nil
		c.Sites = slices.Clone(c.Sites)
		for i := range c.Sites {
			s := &c.Sites[i]
			s.Guards.written = nil
			s.Routes = slices.Clone(s.Routes)
			for j := range s.Routes {
				s.Routes[j].Guards.written = nil
			}
		}
		return c
	}
	return reflect.DeepEqual(bare(a), bare(b))
}

// missing returns what of add is not excluded by any of have.
func missing(add, have []waf.Exclude) []waf.Exclude {
	var list []waf.Exclude
	for _, a := range add {
		covered := func(same func(h waf.Exclude) bool) bool {
			return slices.ContainsFunc(have, func(h waf.Exclude) bool {
				wide := h.Target == "" || h.Target == a.Target && (h.Name == "" || h.Name == a.Name)
				return wide && same(h)
			})
		}
		if a.Tag != "" {
			if !covered(func(h waf.Exclude) bool { return h.Tag == a.Tag }) {
				list = append(list, a)
			}
			continue
		}
		a.Rule = slices.DeleteFunc(slices.Clone(a.Rule), func(id int) bool {
			return covered(func(h waf.Exclude) bool { return slices.Contains(h.Rule, id) })
		})
		if len(a.Rule) > 0 {
			list = append(list, a)
		}
	}
	return list
}

// Inline writes an exclusion on one line: {rule: 942100, target: args, name: q}.
func Inline(x waf.Exclude) string {
	var parts []string
	if len(x.Rule) > 0 {
		ids := make([]string, len(x.Rule))
		for i, id := range x.Rule {
			ids[i] = strconv.Itoa(id)
		}
		one := ids[0]
		if len(ids) > 1 {
			one = "[" + strings.Join(ids, ", ") + "]"
		}
		parts = append(parts, "rule: "+one)
	}
	for _, p := range []struct{ key, value string }{{"tag", x.Tag}, {"target", string(x.Target)}, {"name", x.Name}} {
		if p.value != "" {
			parts = append(parts, p.key+": "+scalar(p.value))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// scalar writes a text so that YAML reads it as that text: as it stands where
// nothing in it could be taken for something else, in quotes otherwise.
func scalar(s string) string {
	plain := s != "" && isLetter(s[0])
	for i := range len(s) {
		plain = plain && (isLetter(s[i]) || s[i] >= '0' && s[i] <= '9' || strings.IndexByte("_-./+", s[i]) >= 0)
	}
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "null", "y", "n":
		plain = false
	}
	if plain {
		return s
	}
	return strconv.Quote(s) // YAML's double-quoted style knows Go's escapes
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// insert finds the route's place in the text and puts the exclusions there.
func (e *editor) insert(i, j int, keys []string) error {
	d := &decoder{}
	at := d.parse(e.text)
	path := []any{"sites", i}
	if j >= 0 {
		path = append(path, "routes", j)
	}
	flow := false
	for _, step := range path {
		flow = flow || isFlow(at)
		at = child(at, step)
		if at == nil {
			return errForm
		}
	}
	return e.grow(at, keys, flow)
}

// child is the value of a mapping's key or a list's item; nil if there is none.
func child(n ast.Node, step any) ast.Node {
	switch step := step.(type) {
	case string:
		if p := pairOf(n, step); p != nil {
			return p.Value
		}
	case int:
		if seq, ok := n.(*ast.SequenceNode); ok && step < len(seq.Values) {
			return seq.Values[step]
		}
	}
	return nil
}

func pairsOf(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}

func pairOf(n ast.Node, key string) *ast.MappingValueNode {
	for _, p := range pairsOf(n) {
		if p.Key.GetToken().Value == key {
			return p
		}
	}
	return nil
}

// isFlow reports whether a node is written in braces or brackets.
func isFlow(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.IsFlowStyle
	case *ast.SequenceNode:
		return n.IsFlowStyle
	}
	return false
}
