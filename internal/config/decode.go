package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/merlon-dev/merlon/secrets"
)

// A decoder fills Go values from YAML nodes. The library parses, and decodes
// every scalar; the walk over mappings and lists is ours so that one run finds
// every mistake, each with its place, where the library stops at the first.
type decoder struct {
	problems Problems
	nodes    map[string]*token.Token // setting path → where it is written
	written  []string                // settings that have a value
	broken   bool                    // it is not YAML, so nothing is known of what it says
}

// parse returns the one document of a file, or nil for an empty one.
func (d *decoder) parse(text []byte) ast.Node {
	// The library counts some line ends of two characters twice.
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	// A key that stands twice is for mapping to tell, with its name.
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.fail("", nil, err)
		d.broken = true
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case doc.Body.Type() == ast.CommentType:
		case body != nil:
			d.add("", first(doc.Body), "", "must be one YAML document, not several")
		default:
			body = doc.Body
		}
	}
	return body
}

func (d *decoder) value(path string, node ast.Node, v reflect.Value) {
	d.nodes[path] = first(node)
	switch node.(type) {
	case *ast.AnchorNode, *ast.AliasNode:
		d.add(path, node.GetToken(), "", "must be written out: anchors and aliases are not used here")
		return
	}
	if v.Kind() == reflect.Pointer && node.Type() != ast.NullType {
		v.Set(reflect.New(v.Type().Elem()))
		d.value(path, node, v.Elem())
		return
	}
	switch {
	case node.Type() == ast.NullType: // "key:" with nothing behind it is the zero value
	case decodesItself(v) && !written(node, v):
		d.leaf(path, node, v)
	case v.Kind() == reflect.Struct:
		d.mapping(path, node, v)
	case v.Kind() == reflect.Slice:
		d.list(path, node, v)
	case v.Kind() == reflect.Map && v.Type().Elem().Kind() == reflect.Struct:
		d.named(path, node, v)
	default:
		d.leaf(path, node, v)
	}
}

// first is where a node begins: the library's token of a mapping is a colon.
func first(node ast.Node) *token.Token {
	switch n := node.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return node.GetToken()
}

const setTwice = "is set twice"

const secretRule = "must be a reference such as env:NAME or file:/path, never the secret itself"

var (
	duration = reflect.TypeFor[time.Duration]()
	secret   = reflect.TypeFor[secrets.Ref]()
)

func decodesItself(v reflect.Value) bool {
	switch v.Addr().Interface().(type) {
	case yaml.InterfaceUnmarshaler, yaml.BytesUnmarshaler, yaml.NodeUnmarshaler, encoding.TextUnmarshaler:
		return true
	}
	return v.Type() == duration
}

// written reports whether what has short forms is written out, so that every
// mistake in it can be told.
func written(node ast.Node, v reflect.Value) bool {
	return v.Kind() == reflect.Struct && (node.Type() == ast.MappingType || node.Type() == ast.MappingValueType)
}

func (d *decoder) leaf(path string, node ast.Node, v reflect.Value) {
	err := yaml.NodeToValue(node, v.Addr().Interface(), yaml.Strict())
	var shape *yaml.UnexpectedNodeTypeError
	switch {
	case err == nil && v.CanInt() && node.Type() == ast.FloatType: // the library would cut it off
		d.add(path, first(node), text(node), "must be a whole number")
	case err == nil:
		d.written = append(d.written, path)
	case v.Type() == secret: // what stands here may be the secret itself
		d.add(path, first(node), "", secretRule)
	case v.Type() == duration:
		d.add(path, first(node), text(node), "must be a duration such as 30s, 5m or 1h")
	case errors.As(err, &shape) && decodesItself(v):
		d.add(path, first(node), text(node), "must be "+shortForm(v.Type()))
	default:
		d.fail(path, node, err)
	}
}

// shortForm is what may stand for a setting that is read by its own type.
func shortForm(t reflect.Type) string {
	if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Int {
		return "a whole number or a list of them"
	}
	return quoted("text or a list of texts")
}

// quoted says what helps where text was taken for a mapping: the library
// splits what holds a colon in a list within braces.
func quoted(what string) string { return what + ", in quotes if it holds a colon" }

func (d *decoder) list(path string, node ast.Node, v reflect.Value) {
	seq, ok := node.(*ast.SequenceNode)
	if !ok {
		d.add(path, first(node), text(node), "must be a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values)))
	for i, item := range seq.Values {
		d.value(fmt.Sprintf("%s[%d]", path, i), item, v.Index(i))
	}
}

// pairs returns what a mapping consists of, and tells if node is none.
func (d *decoder) pairs(path string, node ast.Node) []*ast.MappingValueNode {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	d.add(path, first(node), text(node), "must be settings of the form key: value")
	return nil
}

// named reads structs that the file gives names to.
func (d *decoder) named(path string, node ast.Node, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	for _, p := range d.pairs(path, node) {
		key := p.Key.GetToken()
		at, name := join(path, key.Value), reflect.ValueOf(key.Value)
		if v.MapIndex(name).IsValid() {
			d.add(at, key, "", setTwice)
			continue
		}
		one := reflect.New(v.Type().Elem()).Elem()
		d.value(at, p.Value, one)
		d.nodes[at] = key
		v.SetMapIndex(name, one)
	}
}

func (d *decoder) mapping(path string, node ast.Node, v reflect.Value) {
	pairs := d.pairs(path, node)
	fields := map[string]reflect.Value{}
	collect(v, fields)
	seen := map[string]bool{}
	for _, p := range pairs {
		key := p.Key.GetToken()
		at := join(path, key.Value)
		field, known := fields[key.Value]
		switch {
		case !known:
			d.add(at, key, "", "unknown setting; known here: "+names(fields))
		case seen[key.Value]:
			d.add(at, key, "", setTwice)
		default:
			d.value(at, p.Value, field)
			d.nodes[at] = key
			if p.Value.GetToken() != nil && isScalar(p.Value) {
				d.nodes[at] = p.Value.GetToken()
			}
		}
		seen[key.Value] = true
	}
}

// collect finds the settings of a struct, those of inlined structs included.
func collect(v reflect.Value, into map[string]reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, inline := tag(f)
		switch {
		case inline:
			collect(v.Field(i), into)
		case name != "":
			into[name] = v.Field(i)
		}
	}
}

// tag reads a field's yaml tag; the name is empty for what is no setting.
func tag(f reflect.StructField) (name string, inline bool) {
	name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if name == "-" || !f.IsExported() {
		return "", false
	}
	return name, opts == "inline"
}

func names(fields map[string]reflect.Value) string {
	var all []string
	for name := range fields {
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func isScalar(n ast.Node) bool {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode:
		return false
	}
	return true
}

func text(n ast.Node) string {
	if !isScalar(n) {
		return ""
	}
	return n.GetToken().Value
}

// fail adds an error of the library, at the place it names or else at node.
func (d *decoder) fail(path string, node ast.Node, err error) {
	var tk *token.Token
	value := ""
	if node != nil {
		tk, value = first(node), text(node)
	}
	rule := err.Error()
	var unknown *yaml.UnknownFieldError
	var typed *yaml.TypeError
	var ye yaml.Error
	if errors.As(err, &ye) {
		rule = ye.GetMessage()
		if t := ye.GetToken(); t != nil && (node == nil || t.Position.Offset != 0) {
			tk = t
		}
	}
	switch {
	case errors.As(err, &unknown):
		path, value, rule = join(path, tk.Value), "", "unknown setting"
	case errors.As(err, &typed):
		rule = "must be " + kindWords(typed.DstType)
		if node != nil && !isScalar(node) && typed.DstType.Kind() == reflect.String {
			rule = quoted(rule)
		}
	}
	d.add(path, tk, value, strings.TrimSuffix(rule, fmt.Sprintf(", not %q", value)))
}

func kindWords(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint, reflect.Uint64, reflect.Uint32, reflect.Uint16:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	default:
		return t.String()
	}
}

func (d *decoder) add(path string, tk *token.Token, value, rule string) {
	p := Problem{Setting: path, Value: value, Rule: rule}
	if tk != nil && tk.Position != nil {
		p.Line, p.Column = tk.Position.Line, tk.Position.Column
	}
	d.problems = append(d.problems, p)
}
