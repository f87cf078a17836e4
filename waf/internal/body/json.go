package body

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// maxDepth is how deep JSON and XML may nest.
const maxDepth = 512

// maxFlattened is how many times its own length a JSON document may become
// when the path of every leaf is spelt out; short ones are not measured.
const (
	maxFlattened     = 8
	flattenedMatters = 64 << 10
)

// parseJSON turns each leaf into an argument named by its path, "json.a.0.b",
// as Coraza does. A repeated name is a repeated argument.
func parseJSON(b *message.Body, s string, most int) error {
	nested := strings.Count(s, "{") + strings.Count(s, "[")
	if nested > maxDepth && tooDeep(s, maxDepth) {
		return errors.New("is JSON nested too deep")
	}
	if !gjson.Valid(s) {
		return errors.New("is not valid JSON")
	}
	// Before every leaf stands one of these, and every array is a value itself.
	values := 1 + strings.Count(s, ",") + 2*nested
	f := flattener{s: s, most: most, room: max(len(s)*maxFlattened, flattenedMatters)}
	f.args = make([]message.Pair, 0, min(values, 2*most))
	f.path = append(make([]byte, 0, 256), "json"...)
	err := f.document()
	b.Args = f.args
	return err
}

// A flattener reads JSON that is known to be valid.
type flattener struct {
	s       string
	i       int // what is read next
	args    []message.Pair
	texts   texts
	path    []byte // of the value that is read
	most    int
	room    int
	lengths int
}

// document reads a value that stands alone as if it were in an array.
func (f *flattener) document() error {
	f.space()
	if c := f.s[f.i]; c == '{' || c == '[' {
		return f.value()
	}
	n := len(f.path)
	f.path = append(f.path, ".0"...)
	if err := f.value(); err != nil {
		return err
	}
	f.path = f.path[:n]
	return f.length(1)
}

// value reads the next value.
func (f *flattener) value() error {
	switch f.s[f.i] {
	case '{':
		return f.object()
	case '[':
		return f.array()
	case '"':
		return f.leaf(f.text())
	case 'n':
		f.i += len("null")
		return f.leaf("")
	}
	start := f.i
	for f.i < len(f.s) && f.s[f.i] > ' ' && f.s[f.i] != ',' && f.s[f.i] != ']' && f.s[f.i] != '}' {
		f.i++
	}
	return f.leaf(f.s[start:f.i])
}

func (f *flattener) object() error {
	n := len(f.path)
	f.i++
	for f.more('}') {
		key := f.text()
		f.space()
		f.i++ // the colon
		f.space()
		f.path = append(append(f.path[:n], '.'), key...)
		if err := f.value(); err != nil {
			return err
		}
	}
	f.path = f.path[:n]
	return nil
}

func (f *flattener) array() error {
	n := len(f.path)
	f.i++
	k := 0
	for ; f.more(']'); k++ {
		f.path = strconv.AppendInt(append(f.path[:n], '.'), int64(k), 10)
		if err := f.value(); err != nil {
			return err
		}
	}
	f.path = f.path[:n]
	if k == 0 {
		return nil
	}
	return f.length(k)
}

// more goes to the next member of an object or array, or behind its end.
func (f *flattener) more(end byte) bool {
	for ; ; f.i++ {
		switch c := f.s[f.i]; {
		case c == end:
			f.i++
			return false
		case c > ' ' && c != ',':
			return true
		}
	}
}

func (f *flattener) space() {
	for f.s[f.i] <= ' ' {
		f.i++
	}
}

// text reads a string.
func (f *flattener) text() string {
	f.i++
	start, escaped := f.i, false
	for ; f.s[f.i] != '"'; f.i++ {
		if f.s[f.i] == '\\' {
			escaped = true
			f.i++
		}
	}
	raw := f.s[start:f.i]
	f.i++
	if !escaped {
		return raw
	}
	return f.unescape(raw)
}

// unescape decodes a string. Half a surrogate pair becomes U+FFFD.
func (f *flattener) unescape(raw string) string {
	b := f.texts.room(len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c != '\\' {
			b = append(b, c)
			continue
		}
		i++
		switch c = raw[i]; c {
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r := hex4(raw[i+1:])
			i += 4
			if utf16.IsSurrogate(r) && len(raw) > i+6 && raw[i+1:i+3] == `\u` {
				if both := utf16.DecodeRune(r, hex4(raw[i+3:])); both != '\uFFFD' {
					r = both
					i += 6
				}
			}
			b = utf8.AppendRune(b, r)
		default:
			b = append(b, c)
		}
	}
	return f.texts.keep(b)
}

func hex4(s string) rune {
	return rune(unhex(s[0]))<<12 | rune(unhex(s[1]))<<8 | rune(unhex(s[2]))<<4 | rune(unhex(s[3]))
}

func (f *flattener) leaf(value string) error {
	if len(f.args)-f.lengths >= f.most {
		return ErrTooMany
	}
	return f.add(value)
}

// length adds the length of an array, which is an argument, too, but not one
// that counts.
func (f *flattener) length(n int) error {
	if f.lengths++; f.lengths > f.most {
		return ErrTooMany
	}
	return f.add(strconv.Itoa(n))
}

func (f *flattener) add(value string) error {
	if f.room -= len(f.path) + len(value); f.room < 0 {
		return errors.New("is JSON whose paths are much longer than its values")
	}
	name := f.texts.keep(append(f.texts.room(len(f.path)), f.path...))
	f.args = append(f.args, message.Pair{Name: name, Value: value})
	return nil
}

// tooDeep looks before any parser recurses.
func tooDeep(s string, most int) bool {
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
