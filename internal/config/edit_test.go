package config_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/waf"
)

var one = waf.Exclude{Rule: waf.RuleIDs{1}, Target: waf.Args, Name: "q"}

var (
	added    = regexp.MustCompile(`«(?:([^«»¦]*)¦)?([^«»]*)»`)
	routeOfA = "/r"
)

// routeIn is the route that a golden text is about.
func routeIn(text string) string {
	if strings.Contains(text, "path: "+routeOfA) {
		return routeOfA
	}
	return ""
}

func TestExcludeIn(t *testing.T) {
	a, err := txtar.ParseFile("testdata/exclude.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range a.Files {
		for _, eol := range []string{"\n", "\r\n", "\n at the end of the file"} {
			t.Run(c.Name+fmt.Sprintf("%q", eol), func(t *testing.T) {
				text := string(c.Data)
				if strings.HasSuffix(text, "\n»\n") { // a mark cannot stand before the next file
					text = strings.TrimSuffix(text, "\n")
				}
				switch eol {
				case "\r\n":
					text = strings.ReplaceAll(text, "\n", "\r\n")
				case "\n at the end of the file":
					if strings.HasSuffix(text, "\n»") {
						text = strings.TrimSuffix(text, "\n»") + "»"
						i := strings.LastIndex(text, "\n«")
						text = text[:i] + "«\n" + text[i+len("\n«"):]
					} else {
						text = strings.TrimSuffix(text, "\n")
					}
				}
				before, want := added.ReplaceAllString(text, "$1"), added.ReplaceAllString(text, "$2")
				scope := config.Scope{Site: "a", Route: routeIn(text), Shadow: strings.Contains(c.Name, "the shadow of")}
				e, err := config.ExcludeIn("f", []byte(before), scope, []waf.Exclude{one})
				if err != nil {
					t.Fatal(err)
				}
				if string(e.Text) != want {
					t.Errorf("got\n%s\nwant\n%s", e.Text, want)
				}
				if !reflect.DeepEqual(e.Added, []waf.Exclude{one}) || !strings.HasPrefix(e.Setting, "sites[") || e.Line < 1 {
					t.Errorf("%+v", e)
				}
				again, err := config.ExcludeIn("f", e.Text, scope, []waf.Exclude{one})
				if err != nil || len(again.Added) > 0 || string(again.Text) != want {
					t.Errorf("a second time: %+v %v", again, err)
				}
			})
		}
	}
}

func TestExcludeInLeavesWhatStands(t *testing.T) {
	add := []waf.Exclude{{Rule: waf.RuleIDs{1, 2}, Target: waf.Args, Name: "q"}}
	for _, c := range []struct{ name, have, want string }{
		{"the same", "{rule: [1, 2], target: args, name: q}", ""},
		{"the same in two", "{rule: 1, target: args, name: q}, {rule: 2, target: args, name: q}", ""},
		{"every argument", "{rule: [2, 1, 3], target: args}", ""},
		{"the rules wholly", "{rule: 1}, {rule: 2}", ""},
		{"one of the rules", "{rule: 2, target: args}", "{rule: 1, target: args, name: q}"},
		{"another argument", "{rule: [1, 2], target: args, name: p}", "{rule: [1, 2], target: args, name: q}"},
		{"another part", "{rule: [1, 2], target: cookies}", "{rule: [1, 2], target: args, name: q}"},
		{"a tag that nobody knows", "{tag: x}", "{rule: [1, 2], target: args, name: q}"},
	} {
		for _, form := range []string{
			"waf: {exclude: [%s]}\nsites: [{host: a, routes: [{path: /r}]}]\n",
			"sites: [{host: a, waf: {exclude: [%s]}, routes: [{path: /r}]}]\n",
			"sites: [{host: a, routes: [{path: /r, waf: {exclude: [%s]}}]}]\n",
		} {
			text := fmt.Sprintf(form, c.have)
			e, err := config.ExcludeIn("f", []byte(text), config.Scope{Site: "a", Route: "/r"}, add)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, x := range e.Added {
				got += config.Inline(x)
			}
			if got != c.want || (got == "") != (string(e.Text) == text) {
				t.Errorf("%s: %q was added to\n%s", c.name, got, text)
			}
		}
	}
	none := config.Scope{Site: "a", Shadow: true}
	if _, err := config.ExcludeIn("f", []byte("sites: [{host: a, waf: {}}]"), none, add); err == nil || !strings.Contains(err.Error(), "f: the WAF has no shadow where the request was") {
		t.Errorf("a shadow that is gone: %v", err)
	}
	elsewhere := "sites: [{host: a, routes: [{path: /r}, {path: /x, waf: {exclude: [{rule: 1}, {rule: 2}]}}]}]"
	if e, err := config.ExcludeIn("f", []byte(elsewhere), config.Scope{Site: "a", Route: "/r"}, add); err != nil || len(e.Added) == 0 {
		t.Errorf("what another route excludes counts: %v", err)
	}
	tag := []waf.Exclude{{Tag: "attack-sqli", Target: waf.Args}}
	if e, err := config.ExcludeIn("f", []byte("waf: {exclude: [{tag: attack-sqli}]}\nsites: [{host: a}]"), config.Scope{Site: "a"}, tag); err != nil || len(e.Added) > 0 {
		t.Errorf("a tag was added twice: %v", err)
	}
}

func TestExcludeInRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"another site", "sites: [{host: b}]", `f: has no site whose host is "a"`},
		{"a second name of a site", "sites: [{host: [b, a]}]", `f: has no site whose host is "a"`},
		{"another route", "sites: [{host: a, routes: [{path: /x}]}]", `f: site "a" has no route whose path is "/r"`},
		{"an anchor", "sites:\n  - host: a\n    waf: &w {}\n    routes: [{path: /r, waf: *w}]", "anchors and aliases are not used here"},
		{"text for waf", "sites: [{host: a, routes: [{path: /r, waf: yes}]}]", "must be settings of the form key: value"},
		{"a list for waf", "sites: [{host: a, routes: [{path: /r, waf: [a]}]}]", "must be settings of the form key: value"},
		{"text for exclude", "sites: [{host: a, routes: [{path: /r, waf: {exclude: x}}]}]", "must be a list"},
		{"no YAML", "sites: [", "f:1:"},
		{"too much", strings.Repeat("# no\n", 1<<20), "f: is larger than 4 MiB"},
		{"a key without a colon", "sites: [{host: a, routes: [{path: /r, waf}]}]", "f:1: sites[0].routes[0]: its form is not one that can be added to, so it must be edited by hand"},
		{"a pair without braces", "\nsites: [{host: a,\n  routes: [path: /r]}]", "f:3: sites[0].routes[0]: its form"},
		{"an item without braces", "sites: [{host: a, routes: [{path: /r, waf: {exclude: [rule: 2]}}]}]", "f:1: sites[0].routes[0]: its form"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := config.ExcludeIn("f", []byte(c.text), config.Scope{Site: "a", Route: "/r"}, []waf.Exclude{one})
			if e != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if _, hand := errors.AsType[*config.HandError](err); hand != strings.Contains(c.want, "its form") {
				t.Errorf("%T", err)
			}
		})
	}
}

func TestInlineReadsBack(t *testing.T) {
	for _, name := range []string{"q", "a b", `"`, `\`, "'", "#", "a: b", "a #b", "{", "]", "1", "1e3", "0x1", "true", "No", "~", "null", "-", "- a", "*", "&a", "!x", "%", "@", "\n", "\t", "\x00\x7f\u0085\u2028\ufeff", "ä", "😀", "json.a.0.b", ".", "+1", "_", "<<", "="} {
		for _, x := range []waf.Exclude{{Rule: waf.RuleIDs{942100}, Target: waf.Args, Name: name}, {Rule: waf.RuleIDs{1, 2}}, {Tag: name}} {
			f, err := config.Parse("f", []byte("waf: {exclude: ["+config.Inline(x)+"]}"))
			if err != nil {
				t.Errorf("%s: %v", config.Inline(x), err)
			} else if got := f.WAF.Exclude; !reflect.DeepEqual(got, []waf.Exclude{x}) {
				t.Errorf("%+v was read back as %+v", x, got)
			}
		}
	}
}

// effective lists what is excluded where, by "site" and "site/route".
func effective(f *config.File) map[string][]waf.Exclude {
	all := map[string][]waf.Exclude{}
	note := func(place string, g config.Guards) {
		all[place] = nil
		if g.WAF != nil {
			all[place] = g.WAF.Exclude
		}
	}
	for _, s := range f.Sites {
		site := s.Guards.Under(f.Guards)
		name := strings.Join(s.Host, ",")
		note(name, site)
		for _, r := range s.Routes {
			note(name+r.Path, r.Guards.Under(site))
		}
	}
	return all
}

// grew checks that the effective exclusions grew by what was added on one
// route, or on a site and its routes, and nowhere else.
func grew(t *testing.T, before, after *config.File, site, route string, add []waf.Exclude) {
	t.Helper()
	was, is := effective(before), effective(after)
	if len(was) != len(is) {
		t.Fatalf("%d places became %d", len(was), len(is))
	}
	for place, have := range was {
		want := have
		switch {
		case route != "" && place == site+route, route == "" && place == site:
			want = slices.Concat(have, add)
		case route == "" && strings.HasPrefix(place, site+"/"): // the site's go before the route's
			if len(is[place]) != len(have)+len(add) {
				t.Errorf("%s: %v, was %v", place, is[place], have)
			}
			continue
		}
		if got := is[place]; len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", place, got, want)
		}
	}
}

// without takes every exclusion away, so that the rest can be compared.
func without(f *config.File) []any {
	bare := func(g config.Guards) []any {
		w := waf.Config{}
		if g.WAF != nil {
			w = *g.WAF
			w.Exclude = nil
		}
		return []any{w, g.Monitor, g.Off, g.Limit, g.CSRF, g.Address, g.Headers}
	}
	list := append([]any{f.Listen, f.Data, f.TLS, f.EdgeConfig, f.Ledger, f.Telemetry}, bare(f.Guards)...)
	for _, s := range f.Sites {
		list = append(append(list, s.Host, s.Upstream), bare(s.Guards)...)
		for _, r := range s.Routes {
			list = append(append(list, r.Path, r.Upstream), bare(r.Guards)...)
		}
	}
	return list
}

// A writer writes a random configuration in random form.
type writer struct {
	rand *rand.Rand
	strings.Builder
}

func (w *writer) pick(all ...string) string { return all[w.rand.IntN(len(all))] }

// remark is now and then a comment or an empty line, between two lines.
func (w *writer) remark(indent int) {
	if w.rand.IntN(4) == 0 {
		w.WriteString(w.pick("\n", "# top\n", strings.Repeat(" ", indent)+"# ü: here\n", strings.Repeat(" ", indent+2)+"# deeper\n"))
	}
}

// A value is one of text, a list of values, and pairs.
type (
	pair struct {
		key   string
		value any
	}
	pairs []pair
)

func (w *writer) inline(v any) string {
	space := w.pick("", "", " ")
	switch v := v.(type) {
	case pairs:
		var list []string
		for _, p := range v {
			list = append(list, p.key+": "+w.inline(p.value))
		}
		return "{" + space + strings.Join(list, space+", ") + space + "}"
	case []any:
		var list []string
		for _, x := range v {
			list = append(list, w.inline(x))
		}
		return "[" + space + strings.Join(list, space+", ") + space + "]"
	case nil:
		return w.pick("", "~", "null")
	}
	return fmt.Sprint(v)
}

// block writes a value behind its key or dash.
func (w *writer) block(v any, indent int, dash bool) {
	space := strings.Repeat(" ", indent)
	switch v := v.(type) {
	case pairs:
		if len(v) == 0 || w.rand.IntN(4) == 0 {
			break
		}
		for i, p := range v {
			if i > 0 || !dash {
				if i == 0 {
					w.WriteString(w.pick("", "", " # pairs") + "\n")
				}
				w.remark(indent)
				w.WriteString(space)
			}
			w.WriteString(w.pick(p.key, p.key, `"`+p.key+`"`) + ":")
			w.block(p.value, indent+w.rand.IntN(3)+1, false)
		}
		return
	case []any:
		if len(v) == 0 || w.rand.IntN(4) == 0 {
			break
		}
		w.WriteString(w.pick("", "", " # list") + "\n")
		for _, x := range v {
			w.remark(indent)
			w.WriteString(space + "- ")
			w.block(x, indent+2, true)
		}
		return
	case nil:
		w.WriteString(w.pick("", " ~", " null") + "\n")
		return
	}
	if !dash {
		w.WriteString(" ")
	}
	w.WriteString(w.inline(v) + w.pick("", "", " # x") + "\n")
}

func (w *writer) waf() any {
	if w.rand.IntN(5) == 0 {
		return nil
	}
	p := pairs{}
	if w.rand.IntN(2) == 0 {
		p = append(p, pair{"paranoia", 1 + w.rand.IntN(4)})
	}
	if w.rand.IntN(2) == 0 {
		list := []any{}
		for range w.rand.IntN(3) {
			list = append(list, pairs{{"rule", 2 + w.rand.IntN(9)}, {"target", "args"}}[:1+w.rand.IntN(2)])
		}
		p = append(p, pair{"exclude", list})
	}
	if w.rand.IntN(3) == 0 {
		p = append(p, pair{"limit", "2MiB"})
	}
	return p
}

func (w *writer) guards(p pairs) pairs {
	for _, x := range []pair{{"waf", w.waf()}, {"off", []any{"csrf"}}, {"limit", pairs{{"burst", 3}}}} {
		if w.rand.IntN(2) == 0 {
			p = append(p, x)
		}
	}
	w.rand.Shuffle(len(p), func(i, j int) { p[i], p[j] = p[j], p[i] })
	return p
}

// file writes a file, and names a site and a route in it.
func (w *writer) file() (site, route string) {
	var sites []any
	for i := range 1 + w.rand.IntN(3) {
		s := pairs{{"host", fmt.Sprintf("h%d", i)}}
		site, route = s[0].value.(string), ""
		var routes []any
		for j := range w.rand.IntN(3) {
			route = fmt.Sprintf("/%d", j)
			routes = append(routes, w.guards(pairs{{"path", route}}))
		}
		if routes != nil {
			s = append(s, pair{"routes", routes})
		}
		sites = append(sites, w.guards(s))
	}
	top := w.guards(pairs{{"sites", sites}})
	for top == nil {
		top = w.guards(nil)
	}
	w.block(top, 0, true)
	return site, w.pick("", route)
}

// In every configuration that can be written, exactly the exclusion is added,
// and what cannot be edited is rare.
func TestExcludeInAnyForm(t *testing.T) {
	const n = 1000
	hand := 0
	for seed := range uint64(n) {
		w := &writer{rand: rand.New(rand.NewPCG(seed, 1))}
		site, route := w.file()
		before, err := config.Parse("f", []byte(w.String()))
		if err != nil {
			t.Fatalf("seed %d: the test's own file: %v\n%s", seed, err, w)
		}
		e, err := config.ExcludeIn("f", []byte(w.String()), config.Scope{Site: site, Route: route}, []waf.Exclude{one})
		if err != nil {
			hand++
			t.Logf("seed %d: %v\n%s", seed, err, w)
			continue
		}
		after, err := config.Parse("f", e.Text)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, e.Text)
		}
		grew(t, before, after, site, route, []waf.Exclude{one})
		if !reflect.DeepEqual(without(before), without(after)) {
			t.Errorf("something else changed")
		}
		if t.Failed() {
			t.Fatalf("seed %d:\n%s\nbecame\n%s", seed, w, e.Text)
		}
	}
	if hand > n/100 {
		t.Errorf("%d of %d could not be edited", hand, n)
	}
}

// FuzzExcludeIn: whatever the file, an edit keeps all of its text, except
// words for nothing, and adds exactly the exclusion.
func FuzzExcludeIn(f *testing.F) {
	a, err := txtar.ParseFile("testdata/exclude.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range a.Files {
		f.Add(added.ReplaceAllString(string(c.Data), "$1"), "q")
	}
	f.Add("sites:\r\n- host: a # b\r\n  waf:\r\n\r\n", "a: '\"\x00")
	f.Fuzz(func(t *testing.T, text, name string) {
		before, err := config.Parse("f", []byte(text))
		if err != nil {
			return
		}
		add := []waf.Exclude{{Rule: waf.RuleIDs{1}, Target: waf.Args, Name: strings.ToValidUTF8(name, "?")}}
		e, err := config.ExcludeIn("f", []byte(text), config.Scope{Site: "a", Route: routeIn(text)}, add)
		if err != nil {
			return
		}
		after, err := config.Parse("f", e.Text)
		if err != nil {
			t.Fatal(err)
		}
		rest := string(e.Text)
		for _, line := range strings.SplitAfter(text, "\n") {
			for _, word := range strings.Fields(line) {
				switch strings.Trim(word, "{},[]") {
				case "~", "null", "Null", "NULL":
					continue
				}
				for _, c := range []byte(word) {
					_, behind, ok := strings.Cut(rest, string([]byte{c}))
					if !ok {
						t.Fatalf("%q is not in what follows: %q", word, rest)
					}
					rest = behind
				}
			}
		}
		if len(e.Added) > 0 && !reflect.DeepEqual(without(before), without(after)) {
			t.Error("something else changed")
		}
		if !slices.ContainsFunc(before.Sites, func(s config.Site) bool { return len(s.Host) != 1 || strings.ContainsAny(s.Host[0], "/") }) {
			grewOnce(t, before, after, e)
		}
	})
}

// grewOnce is grew for files whose places may have the same names.
func grewOnce(t *testing.T, before, after *config.File, e *config.Edit) {
	was, is := 0, 0
	for _, x := range []struct {
		f *config.File
		n *int
	}{{before, &was}, {after, &is}} {
		count := func(g config.Guards) {
			if g.WAF != nil {
				*x.n += len(g.WAF.Exclude)
			}
		}
		count(x.f.Guards)
		for _, s := range x.f.Sites {
			count(s.Guards)
			for _, r := range s.Routes {
				count(r.Guards)
			}
		}
	}
	if is != was+len(e.Added) {
		t.Errorf("%d exclusions became %d", was, is)
	}
}
