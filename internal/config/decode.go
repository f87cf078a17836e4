package config

import (
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
)

// A decoder fills Go values from YAML nodes. The library parses, and decodes
// every scalar; the walk over mappings and lists is ours so that one run finds
// every mistake, each with its place, where the library stops at the first.
type decoder struct {
	problems Problems
	nodes    map[string]*token.Token // setting path → where it is written
}

// parse returns the one document of a file, or nil for an empty one.
func (d *decoder) parse(text []byte) ast.Node {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		d.fail("", nil, err)
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case doc.Body.Type() == ast.CommentType:
		case body != nil:
			d.add("", doc.Body.GetToken(), "", "must be one YAML document, not several")
		default:
			body = doc.Body
		}
	}
	return body
}

func (d *decoder) value(path string, node ast.Node, v reflect.Value) {
	d.nodes[path] = node.GetToken()
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
	case decodesItself(v):
		d.leaf(path, node, v)
	case v.Kind() == reflect.Struct:
		d.mapping(path, node, v)
	case v.Kind() == reflect.Slice:
		d.list(path, node, v)
	default:
		d.leaf(path, node, v)
	}
}

var duration = reflect.TypeFor[time.Duration]()

func decodesItself(v reflect.Value) bool {
	switch v.Addr().Interface().(type) {
	case yaml.InterfaceUnmarshaler, yaml.BytesUnmarshaler, yaml.NodeUnmarshaler, encoding.TextUnmarshaler:
		return true
	}
	return v.Type() == duration
}

func (d *decoder) leaf(path string, node ast.Node, v reflect.Value) {
	if err := yaml.NodeToValue(node, v.Addr().Interface(), yaml.Strict()); err != nil {
		d.fail(path, node, err)
	}
}

func (d *decoder) list(path string, node ast.Node, v reflect.Value) {
	seq, ok := node.(*ast.SequenceNode)
	if !ok {
		d.add(path, node.GetToken(), text(node), "must be a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values)))
	for i, item := range seq.Values {
		d.value(fmt.Sprintf("%s[%d]", path, i), item, v.Index(i))
	}
}

func (d *decoder) mapping(path string, node ast.Node, v reflect.Value) {
	var pairs []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		d.add(path, node.GetToken(), text(node), "must be settings of the form key: value")
		return
	}
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
			d.add(at, key, "", "is set twice")
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
		tk, value = node.GetToken(), text(node)
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
	}
	d.add(path, tk, value, rule)
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
