package config

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/merlon-dev/merlon/waf"
)

// errForm is told where the text is not what the library's tree says of it, or
// is of a form that nobody has thought of.
var errForm = errors.New("its form is not one that can be added to")

// An editor gathers insertions into a text: the tree says where something
// stands, the text itself stays as it is. Every place that the tree names is
// looked up in the text first.
type editor struct {
	text    []byte
	starts  []int // where each line begins
	eol     string
	items   []string // what goes into the list, each on one line
	changes []splice
}

// A splice puts text in the place of the n bytes at an offset.
type splice struct {
	at, n int
	text  string
}

func newEditor(text []byte, add []waf.Exclude) *editor {
	e := &editor{text: text, starts: []int{0}, eol: "\n"}
	for i, c := range text {
		if c == '\n' {
			e.starts = append(e.starts, i+1)
		}
	}
	if i := bytes.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		e.eol = "\r\n"
	}
	for _, x := range add {
		e.items = append(e.items, Inline(x))
	}
	return e
}

func (e *editor) put(at, n int, text string) {
	e.changes = append(e.changes, splice{at, n, text})
}

// result is the text with all changes made.
func (e *editor) result() []byte {
	slices.SortStableFunc(e.changes, func(a, b splice) int { return cmp.Compare(a.at, b.at) })
	var out []byte
	done := 0
	for _, c := range e.changes {
		out = append(append(out, e.text[done:c.at]...), c.text...)
		done = c.at + c.n
	}
	return append(out, e.text[done:]...)
}

// line is the text of a line, from 1, without its end.
func (e *editor) line(n int) string {
	if n < 1 || n > len(e.starts) {
		return ""
	}
	end := len(e.text)
	if n < len(e.starts) {
		end = e.starts[n] - 1
	}
	return strings.TrimSuffix(string(e.text[e.starts[n-1]:end]), "\r")
}

// offset finds a token in the text, which must begin with what is wanted.
func (e *editor) offset(tk *token.Token, want string) (int, error) {
	if tk == nil || tk.Position == nil || tk.Position.Line < 1 || tk.Position.Line > len(e.starts) {
		return 0, errForm
	}
	at := e.starts[tk.Position.Line-1]
	for range tk.Position.Column - 1 { // columns count characters
		_, n := utf8.DecodeRune(e.text[at:])
		at += n
	}
	if !bytes.HasPrefix(e.text[at:], []byte(want)) {
		return 0, errForm
	}
	return at, nil
}

// grow adds the items to the list that stands below node under the keys, and
// makes what is missing on the way. flow: node stands within braces.
func (e *editor) grow(node ast.Node, keys []string, flow bool) error {
	if len(keys) == 0 {
		return e.addItems(node, flow)
	}
	pairs := pairsOf(node)
	if len(pairs) == 0 && !isFlow(node) {
		return errForm
	}
	pair := pairOf(node, keys[0])
	switch {
	case pair == nil && isFlow(node):
		return e.addFlowKey(node.(*ast.MappingNode), keys)
	case flow && !isFlow(node): // a pair within brackets that has no braces
		return errForm
	case pair == nil:
		return e.addBlockKey(pairs, keys)
	case pair.Value.Type() == ast.NullType:
		return e.fill(pair, keys[1:], isFlow(node))
	}
	return e.grow(pair.Value, keys[1:], isFlow(node))
}

// inline is the items below the keys, within braces.
func (e *editor) inline(keys []string) string {
	if len(keys) == 0 {
		return "[" + strings.Join(e.items, ", ") + "]"
	}
	return "{" + keys[0] + ": " + e.inline(keys[1:]) + "}"
}

// block is the items below the keys, line by line.
func (e *editor) block(keys []string, indent int) []string {
	space := strings.Repeat(" ", indent)
	if len(keys) > 0 {
		return append([]string{space + keys[0] + ":"}, e.block(keys[1:], indent+2)...)
	}
	var lines []string
	for _, item := range e.items {
		lines = append(lines, space+"- "+item)
	}
	return lines
}

func (e *editor) addFlowKey(m *ast.MappingNode, keys []string) error {
	end, err := e.offset(m.End, "}")
	if err != nil {
		return err
	}
	text := keys[0] + ": " + e.inline(keys[1:])
	before := strings.TrimRight(string(e.text[:end]), " \t")
	switch {
	case len(m.Values) == 0:
		at, err := e.offset(m.Start, "{")
		e.put(at+1, 0, text)
		return err
	case strings.HasSuffix(before, ","):
		e.put(len(before), 0, " "+text)
		return nil
	case !strings.HasSuffix(before, "\n"):
		e.put(len(before), 0, ", "+text)
		return nil
	}
	// The last line may be a comment: what is new goes first.
	key := m.Values[0].Key.GetToken()
	at, err := e.offset(key, "")
	gap := " "
	if key.Position.Line != m.Start.Position.Line {
		gap = e.eol + strings.Repeat(" ", key.Position.Column-1)
	}
	e.put(at, 0, text+","+gap)
	return err
}

// addBlockKey adds a key to a mapping: behind the others, but before a site's
// routes, among which it would be overlooked.
func (e *editor) addBlockKey(pairs []*ast.MappingValueNode, keys []string) error {
	last := pairs[len(pairs)-1]
	if n := len(pairs); n > 1 && last.Key.GetToken().Value == "routes" {
		last = pairs[n-2]
	}
	indent := pairs[0].Key.GetToken().Position.Column - 1
	return e.after(lastLine(last), e.block(keys, indent), indent)
}

// fill gives a value to a key that has none.
func (e *editor) fill(pair *ast.MappingValueNode, keys []string, flow bool) error {
	tk := pair.Key.GetToken()
	at, err := e.offset(tk, "")
	if err != nil {
		return err
	}
	for _, key := range []string{tk.Value, `"` + tk.Value + `"`, `'` + tk.Value + `'`} {
		rest, ok := strings.CutPrefix(string(e.text[at:]), key)
		if !ok {
			continue
		}
		colon := len(rest) - len(strings.TrimLeft(rest, " "))
		if !strings.HasPrefix(rest[colon:], ":") {
			return errForm
		}
		behind := at + len(key) + colon + 1
		rest = strings.TrimLeft(rest[colon+1:], " \t")
		for _, null := range []string{"~", "null", "Null", "NULL"} {
			if strings.HasPrefix(rest, null) {
				e.put(len(e.text)-len(rest), len(null), e.inline(keys))
				return nil
			}
		}
		if flow {
			e.put(behind, 0, " "+e.inline(keys))
			return nil
		}
		indent := tk.Position.Column + 1
		return e.after(tk.Position.Line, e.block(keys, indent), indent)
	}
	return errForm
}

func (e *editor) addItems(node ast.Node, flow bool) error {
	seq, ok := node.(*ast.SequenceNode)
	switch {
	case !ok:
		return errForm
	case !seq.IsFlowStyle && !flow && len(seq.Values) > 0:
		indent := seq.Start.Position.Column - 1
		return e.after(lastLine(seq), e.block(nil, indent), indent)
	case !seq.IsFlowStyle:
		return errForm
	case len(seq.Values) == 0:
		at, err := e.offset(seq.Start, "[")
		e.put(at+1, 0, strings.Join(e.items, ", "))
		return err
	}
	last, ok := seq.Values[len(seq.Values)-1].(*ast.MappingNode)
	if !ok || !last.IsFlowStyle {
		return errForm
	}
	begin, err := e.offset(last.Start, "{")
	end, err2 := e.offset(last.End, "}")
	if err := cmp.Or(err, err2); err != nil {
		return err
	}
	e.addFlowItems(begin, end+1)
	return nil
}

// addFlowItems adds behind the last item of a list in brackets, which stands
// from begin to end: on lines of their own if that one has its own.
func (e *editor) addFlowItems(begin, end int) {
	start := bytes.LastIndexByte(e.text[:begin], '\n') + 1
	space := string(e.text[start:begin])
	rest, _, _ := strings.Cut(string(e.text[end:]), "\n")
	rest = strings.TrimSuffix(rest, "\r")
	tail, comma := strings.CutPrefix(strings.TrimLeft(rest, " \t"), ",")
	tail = strings.TrimLeft(tail, " \t")
	if strings.Trim(space, " ") != "" || tail != "" && tail[0] != '#' {
		e.put(end, 0, ", "+strings.Join(e.items, ", "))
		return
	}
	gap := e.eol + space
	text := gap + strings.Join(e.items, ","+gap)
	if comma {
		text += ","
	} else {
		e.put(end, 0, ",")
	}
	e.put(end+len(rest), 0, text)
}

// after puts lines behind a line, and behind the comments that belong to it:
// those that are indented like the new lines, and deeper than what follows.
func (e *editor) after(line int, lines []string, indent int) error {
	if line < 1 || line > len(e.starts) {
		return errForm
	}
	next := e.nextIndent(line)
	for ; line < len(e.starts); line++ {
		comment := strings.TrimLeft(e.line(line+1), " ")
		depth := len(e.line(line+1)) - len(comment)
		if !strings.HasPrefix(comment, "#") || depth < indent || depth <= next {
			break
		}
	}
	text := strings.Join(lines, e.eol)
	if line < len(e.starts) {
		e.put(e.starts[line], 0, text+e.eol)
	} else {
		e.put(len(e.text), 0, e.eol+text)
	}
	return nil
}

// nextIndent is how far the next line behind a line is indented that is
// neither empty nor a comment; -1 if there is none.
func (e *editor) nextIndent(line int) int {
	for n := line + 1; n <= len(e.starts); n++ {
		text := strings.TrimLeft(e.line(n), " ")
		if text != "" && text[0] != '#' {
			return len(e.line(n)) - len(text)
		}
	}
	return -1
}

// lastLine is the line on which a node ends.
func lastLine(n ast.Node) int {
	switch n := n.(type) {
	case *ast.MappingNode:
		if n.IsFlowStyle {
			return lineOf(n.End)
		}
		last := 0
		for _, p := range n.Values {
			last = max(last, lastLine(p))
		}
		return last
	case *ast.MappingValueNode:
		return max(lineOf(n.Key.GetToken()), lastLine(n.Value))
	case *ast.SequenceNode:
		if n.IsFlowStyle {
			return lineOf(n.End)
		}
		last := 0
		for i, v := range n.Values {
			last = max(last, lastLine(v))
			if i < len(n.Entries) {
				last = max(last, lineOf(n.Entries[i].Start))
			}
		}
		return last
	case *ast.NullNode: // often stands nowhere
		return 0
	case *ast.LiteralNode:
		return lineOf(n.Start) + strings.Count(strings.TrimRight(n.Value.GetToken().Origin, "\r\n "), "\n") + 1
	}
	tk := n.GetToken()
	return lineOf(tk) + strings.Count(strings.TrimSpace(tk.Origin), "\n")
}

func lineOf(tk *token.Token) int {
	if tk == nil || tk.Position == nil {
		return 0
	}
	return tk.Position.Line
}
