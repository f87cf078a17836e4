package main

import (
	"bytes"
	"encoding"
	"fmt"
	"path"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/invopop/jsonschema"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/upstream"
)

// settings returns the schema and the page of every setting.
func settings(s *source) (*jsonschema.Schema, []byte) {
	r := &jsonschema.Reflector{
		FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, ExpandedStruct: true,
		Mapper: mapped,
		Namer:  typeName,
		LookupComment: func(t reflect.Type, field string) string {
			name := t.PkgPath() + "." + t.Name()
			if field == "" {
				return oneParagraph(s.types[name])
			}
			return oneParagraph(s.fields[name+"."+field])
		},
	}
	schema := r.Reflect(&config.File{})
	schema.Title = "merlon.yaml"
	p := &page{src: s}
	p.WriteString("# Configuration\n\n" + intro)
	p.structure("", reflect.TypeFor[config.File](), 0)
	return schema, p.Bytes()
}

// typeName tells the packages' Configs apart.
func typeName(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Name() == "" {
		return ""
	}
	return path.Base(t.PkgPath()) + t.Name()
}

// Beside the mapping, some settings have a short form.
var shortForms = map[reflect.Type]*jsonschema.Schema{
	reflect.TypeFor[challenge.Allow](): {OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "object"}}},
	reflect.TypeFor[config.Names]():    {OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "array", Items: &jsonschema.Schema{Type: "string"}}}},
}

var textMarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

func mapped(t reflect.Type) *jsonschema.Schema {
	if s, ok := shortForms[t]; ok {
		return s
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{Type: "string", Examples: []any{"30s"}}
	case t == reflect.TypeFor[upstream.Config]():
		return nil
	case t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface && reflect.PointerTo(t).Implements(textMarshaler):
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}}}
	case t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface && decodesItself(t) && t.Kind() == reflect.Slice:
		return &jsonschema.Schema{}
	}
	return nil
}

func decodesItself(t reflect.Type) bool {
	_, ok := reflect.PointerTo(t).MethodByName("UnmarshalYAML")
	return ok
}

const intro = `This page is generated from the code: every setting, what it means and what holds without it.

A configuration is one YAML file. Unknown settings, settings that stand twice and values that cannot be
used are errors with line and column; ` + "`merlon check`" + ` tells them all at once. Anchors and aliases are
not used. Durations are written "30s", "5m", "1h"; sizes "512KiB", "1MiB", "2GiB". A secret never stands
in the file, only where it is: ` + "`env:NAME` or `file:/path`" + `. ` + "`merlon config schema`" + ` prints a JSON Schema for
editors. On the command line, ` + "`serve` and `check`" + ` take the most common settings as flags, which go
before the file.

The settings of guards (` + "`monitor`, `off`, `address`, `decoy`, `ban`, `limit`, `challenge`, `waf`,\n`backend_login`, `csrf`, `require`, `throttle`, `headers`" + `) may stand at the top, on a
site and on a route. The setting nearest to the request holds, one by one; lists such as ` + "`waf.exclude`, `limit.limits`, `ban.allow`" + `
add up, and what a site requires, its routes require too.
Changes take effect on SIGHUP or as soon as the file is saved, except ` + "`listen`, `data`, `ledger`,\n`record`, `telemetry`, `store`, `redis`, `key`, `lease`, `inspect_memory`, `identity.mail`, `identity.attempts.places`" + ` and whether people sign in, which need a restart.

`

type page struct {
	bytes.Buffer
	src  *source
	seen []reflect.Type
}

var example = regexp.MustCompile(`(?s)\s*Example:\s*(.*)$`)

// structure writes one table for t, and then those of the structures in it.
func (p *page) structure(path string, t reflect.Type, depth int) {
	for _, s := range p.seen {
		if s == t {
			return
		}
	}
	p.seen = append(p.seen, t)
	if path != "" {
		fmt.Fprintf(p, "\n## `%s`\n\n%s\n", path, strings.TrimSpace(p.src.types[t.PkgPath()+"."+t.Name()]))
	}
	p.WriteString("\n| setting | meaning |\n|---|---|\n")
	var below []struct {
		path string
		t    reflect.Type
	}
	p.rows(t, func(name string, ft reflect.Type, doc string) {
		fmt.Fprintf(p, "| `%s` | %s |\n", name, cell(doc))
		list := ""
		for ft.Kind() == reflect.Pointer || ft.Kind() == reflect.Slice || ft.Kind() == reflect.Map {
			switch ft.Kind() {
			case reflect.Slice:
				list = "[]"
			case reflect.Map:
				list = ".NAME"
			}
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct && strings.HasPrefix(ft.PkgPath(), module) && !reflect.PointerTo(ft).Implements(textMarshaler) {
			at := name + list
			if path != "" {
				at = path + "." + at
			}
			below = append(below, struct {
				path string
				t    reflect.Type
			}{at, ft})
		}
	})
	for _, b := range below {
		p.structure(b.path, b.t, depth+1)
	}
}

func (p *page) rows(t reflect.Type, row func(name string, t reflect.Type, doc string)) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case opts == "inline":
			p.rows(f.Type, row)
		case name == "" || name == "-" || !f.IsExported():
		default:
			row(name, f.Type, p.src.fields[t.PkgPath()+"."+t.Name()+"."+f.Name])
		}
	}
}

// cell makes one table cell of a comment; its example becomes code.
func cell(doc string) string {
	doc = strings.TrimSpace(doc)
	ex := ""
	if m := example.FindStringSubmatch(doc); m != nil {
		doc = doc[:len(doc)-len(m[0])]
		ex = m[1]
	}
	text := oneParagraph(doc)
	if ex != "" {
		ex = strings.TrimSuffix(strings.TrimSpace(ex), ".")
		if strings.Contains(ex, "\n") {
			var lines []string
			for line := range strings.SplitSeq(ex, "\n") {
				if strings.TrimSpace(line) != "" {
					lines = append(lines, "`"+strings.ReplaceAll(strings.TrimPrefix(line, "\t"), "`", "")+"`")
				}
			}
			ex = strings.Join(lines, "<br>")
		} else {
			ex = "`" + strings.ReplaceAll(ex, "`", "") + "`"
		}
		text += " Example: " + ex
	}
	return strings.ReplaceAll(text, "|", "\\|")
}

func oneParagraph(text string) string { return strings.Join(strings.Fields(text), " ") }
