package field

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

// operations looks at the texts of GraphQL operations. Values that stand there
// as literals are added; of variables that stand for the field it returns how
// often each is used. What no GraphQL server would take is left alone.
func (f *finder) operations(texts []string) (uses map[string]int, err error) {
	uses = map[string]int{}
	for _, text := range texts {
		op := operation{f: f, name: f.parts[len(f.parts)-1], uses: uses, defaults: map[string][]string{}}
		if err := op.read(text); err != nil {
			return nil, err
		}
		for variable, values := range op.defaults {
			for range uses[variable] {
				for _, v := range values {
					if err := f.add(v); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	return uses, nil
}

// An operation is the text of one, as it is being read.
type operation struct {
	f        *finder
	name     string // of the argument
	uses     map[string]int
	defaults map[string][]string // what variables are if nothing is said

	depth    int    // of open brackets
	value    int    // above 0: what is in this many brackets is a value of the field
	variable string // the one that is being defined
	defining bool   // the default of that one follows
}

// read goes through the tokens (GraphQL specification, section 2.1) with those
// before each in view.
func (op *operation) read(text string) error {
	var last [3]token // the last one first
	for {
		t, rest, ok := next(text)
		if !ok {
			return nil
		}
		if last[0].is("$") && t.kind == name {
			if op.value > 0 || op.argument(last[1], last[2]) {
				op.uses[t.text]++
			}
			op.variable, op.defining = t.text, false
		} else if err := op.token(t, op.argument(last[0], last[1])); err != nil {
			return err
		}
		last = [3]token{t, last[0], last[1]}
		text = rest
	}
}

// argument reports whether what follows these is the argument's value. An alias
// looks the same, but is followed by a name.
func (op *operation) argument(last, before token) bool {
	return last.is(":") && before.kind == name && strings.EqualFold(before.text, op.name)
}

func (op *operation) token(t token, mine bool) error {
	switch {
	case t.kind == literal && (mine || op.value > 0):
		return op.f.add(t.text)
	case t.kind == literal && op.defining && len(op.defaults[op.variable]) < MaxValues:
		op.defaults[op.variable] = append(op.defaults[op.variable], t.text)
	case t.kind != punct:
	case t.text == "=":
		op.defining = op.variable != ""
	case strings.Contains("{[(", t.text):
		op.depth++
		if mine && t.text != "(" && op.value == 0 {
			op.value = op.depth
		}
	case strings.Contains("}])", t.text):
		if op.depth == op.value {
			op.value = 0
		}
		op.depth = max(0, op.depth-1)
		if t.text == ")" {
			op.variable, op.defining = "", false
		}
	}
	return nil
}

const (
	punct = iota + 1
	name
	literal // a string or number
)

type token struct {
	kind int
	text string
}

func (t token) is(sign string) bool { return t.kind == punct && t.text == sign }

var (
	ignored = regexp.MustCompile(`^(?:[\s,]|\x{feff}|#[^\r\n]*)+`)
	words   = regexp.MustCompile(`^[_A-Za-z][_0-9A-Za-z]*`)
	numbers = regexp.MustCompile(`^-?[0-9][-+.0-9eE]*`)
	blocks  = regexp.MustCompile(`(?s)^"""((?:\\"""|.)*?)"""`)
	strs    = regexp.MustCompile(`^"((?:\\.|[^"\\\r\n])*)"`)
	wide    = regexp.MustCompile(`\\\\|\\u\{0*([0-9A-Fa-f]{1,6})\}`)
)

// next takes a token off text; ok is false at the end, and where none can be.
func next(text string) (t token, rest string, ok bool) {
	text = text[len(ignored.FindString(text)):]
	if text == "" {
		return token{}, "", false
	}
	if m := words.FindString(text); m != "" {
		return token{name, m}, text[len(m):], true
	}
	if m := numbers.FindString(text); m != "" {
		return token{literal, number(m)}, text[len(m):], true
	}
	if m := blocks.FindStringSubmatch(text); m != nil {
		value := strings.TrimSpace(strings.ReplaceAll(m[1], `\"""`, `"""`))
		return token{literal, value}, text[len(m[0]):], true
	}
	if text[0] == '"' {
		m := strs.FindStringSubmatch(text)
		if m == nil {
			return token{}, "", false
		}
		value, ok := unquote(m[1])
		return token{literal, value}, text[len(m[0]):], ok
	}
	return token{punct, text[:1]}, text[1:], true
}

// unquote undoes the escapes of a string: JSON's, and \u{…}.
func unquote(s string) (value string, ok bool) {
	s = wide.ReplaceAllStringFunc(s, func(m string) string {
		n, err := strconv.ParseUint(wide.FindStringSubmatch(m)[1], 16, 32)
		if err != nil { // an escaped backslash
			return m
		}
		b, _ := json.Marshal(string(rune(n)))
		return string(b[1 : len(b)-1])
	})
	s = strings.ReplaceAll(s, "\t", `\t`)
	err := json.Unmarshal([]byte(`"`+s+`"`), &value)
	return value, err == nil
}
