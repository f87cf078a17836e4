package config

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon"
)

// A Problem is one mistake in a configuration.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`   // from 1; 0 if the setting is not in a file
	Column  int    `json:"column,omitempty"` // from 1
	Setting string `json:"setting,omitempty"`
	Value   string `json:"value,omitempty"`
	Rule    string `json:"rule"`
}

// Error reads "merlon.yaml:3:5: sites[0].host "x y": must be a host name".
func (p Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
	}
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", p.Line, p.Column)
	}
	if b.Len() > 0 {
		b.WriteString(" ")
	}
	if p.Setting != "" {
		b.WriteString(p.Setting)
		if p.Value != "" {
			fmt.Fprintf(&b, " %q", p.Value)
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Rule)
	return b.String()
}

// Problems are all mistakes in a configuration, in the order of the file.
type Problems []Problem

// Error is one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) tidy() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Setting, b.Setting))
	})
	return slices.CompactFunc(ps, func(a, b Problem) bool {
		return a.Line == b.Line && a.Column == b.Column && a.Value == b.Value && a.Rule == b.Rule
	})
}

// Explain turns what a constructor returned into Problems with their places in
// the file. Setting paths are from the top: "sites[0].waf.paranoia". A setting
// that was inherited is found where it is written.
func (f *File) Explain(err error) Problems {
	var ps, unread Problems
	for _, e := range flatten(err) {
		if inner, ok := errors.AsType[Problems](e); ok {
			ps, unread = append(ps, inner...), append(unread, inner...)
		} else if se, ok := errors.AsType[*merlon.SettingError](e); ok {
			if p := f.locate(se); !unread.cover(p.Setting) {
				ps = append(ps, p)
			}
		} else {
			ps = append(ps, Problem{File: f.name, Rule: e.Error()})
		}
	}
	return ps.tidy()
}

// cover reports whether a setting could not be read, or what it is part of:
// then what a constructor says is about a value that nobody wrote.
func (ps Problems) cover(setting string) bool {
	for _, p := range ps {
		rest, ok := strings.CutPrefix(setting, p.Setting)
		if ok && p.Setting != "" && p.Rule != setTwice && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	return []error{err}
}

func (f *File) locate(se *merlon.SettingError) Problem {
	p := Problem{File: f.name, Setting: se.Setting, Value: se.Value, Rule: se.Rule}
	for _, path := range f.inherited(se.Setting) {
		if tk := f.places[path]; tk != nil {
			p.Setting, p.Line, p.Column = path, tk.Position.Line, tk.Position.Column
			return p
		}
	}
	for path := se.Setting; path != ""; { // what is missing is placed at what it is missing from
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
		if path == "" && p.Value != "" {
			break // it is not missing, but stands elsewhere: on the command line
		}
		if tk := f.places[path]; tk != nil {
			p.Line, p.Column = tk.Position.Line, tk.Position.Column
			return p
		}
	}
	return p
}

// inherited lists where a setting may be written: on its route, its site, or
// at the top.
func (f *File) inherited(setting string) []string {
	site, rest, ok := strings.Cut(setting, "].")
	if !ok || !strings.HasPrefix(setting, "sites[") {
		return []string{setting}
	}
	prefixes := []string{site + "].", ""}
	if route, below, ok := strings.Cut(rest, "]."); ok && strings.HasPrefix(rest, "routes[") {
		prefixes = append([]string{site + "]." + route + "]."}, prefixes...)
		rest = below
	}
	if path := f.added(prefixes, rest); path != "" {
		return []string{path}
	}
	var list []string
	for _, prefix := range prefixes {
		list = append(list, prefix+rest)
	}
	return list
}

// added finds an item of a list that adds up, in which the items of the top
// come first and those of the route last.
func (f *File) added(prefixes []string, setting string) string {
	section, rest, _ := strings.Cut(setting, ".")
	name, rest, _ := strings.Cut(rest, "[")
	number, rest, _ := strings.Cut(rest, "]")
	n, err := strconv.Atoi(number)
	if err != nil || !addsUp(section, name) {
		return ""
	}
	for _, prefix := range slices.Backward(prefixes) {
		item := func(i int) string { return fmt.Sprintf("%s%s.%s[%d]", prefix, section, name, i) }
		for i := 0; f.places[item(i)] != nil; i++ {
			if n == 0 {
				return item(i) + rest
			}
			n--
		}
	}
	return ""
}

func addsUp(section, name string) bool {
	fields := map[string]reflect.StructField{}
	for f := range reflect.TypeFor[Guards]().Fields() {
		n, _ := tag(f)
		fields[n] = f
	}
	t := fields[section].Type
	if t == nil || t.Kind() != reflect.Pointer {
		return false
	}
	for f := range t.Elem().Fields() {
		if n, _ := tag(f); n == name {
			return joins(f)
		}
	}
	return false
}
