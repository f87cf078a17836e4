package waf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
	"golang.org/x/text/encoding/charmap"

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
	if tooDeep(s, maxDepth) {
		return errors.New("is JSON nested too deep")
	}
	if !gjson.Valid(s) {
		return errors.New("is not valid JSON")
	}
	f := flattener{b: b, most: most, room: max(len(s)*maxFlattened, flattenedMatters)}
	return f.walk(gjson.Parse(s), "json")
}

type flattener struct {
	b       *message.Body
	most    int
	room    int
	lengths int
}

func (f *flattener) walk(v gjson.Result, path string) error {
	var failed error
	n := 0
	v.ForEach(func(key, value gjson.Result) bool {
		name := ""
		if key.Type == gjson.String {
			name = path + "." + key.Str
		} else {
			name = path + "." + strconv.Itoa(n)
			n++
		}
		switch value.Type {
		case gjson.JSON:
			failed = f.walk(value, name)
		case gjson.String:
			failed = f.leaf(name, value.Str)
		case gjson.Null:
			failed = f.leaf(name, "")
		default:
			failed = f.leaf(name, value.Raw)
		}
		return failed == nil
	})
	if failed != nil || n == 0 {
		return failed
	}
	// The length of an array is an argument, too, but not one that counts.
	if f.lengths++; f.lengths > f.most {
		return errTooMany
	}
	return f.add(path, strconv.Itoa(n))
}

func (f *flattener) leaf(name, value string) error {
	if len(f.b.Args)-f.lengths >= f.most {
		return errTooMany
	}
	return f.add(name, value)
}

func (f *flattener) add(name, value string) error {
	if f.room -= len(name) + len(value); f.room < 0 {
		return errors.New("is JSON whose paths are much longer than its values")
	}
	f.b.Args = append(f.b.Args, message.Pair{Name: name, Value: value})
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

// parseXML collects the texts and attribute values. The reader is as lenient
// as HTML is, so that what a lenient server would find is found.
func parseXML(b *message.Body, text []byte, most int, refuseDoctype bool) error {
	dec := xml.NewDecoder(bytes.NewReader(text))
	dec.Strict = false
	dec.AutoClose = xml.HTMLAutoClose
	dec.Entity = xml.HTMLEntity
	dec.CharsetReader = charsetReader
	depth := 0
	for {
		tok, err := dec.RawToken()
		if err == io.EOF {
			break
		}
		if err != nil {
			return errors.New("is not valid XML: " + err.Error())
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return errors.New("is XML nested too deep")
			}
			for _, a := range t.Attr {
				b.Attrs = append(b.Attrs, a.Value)
				if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" && a.Name.Local != "schemaLocation" && a.Value != "" {
					// The CRS looks at texts alone, but values are values.
					b.Texts = append(b.Texts, a.Value)
				}
			}
		case xml.EndElement:
			depth--
		case xml.CharData:
			if s := strings.TrimSpace(string(t)); s != "" {
				b.Texts = append(b.Texts, s)
			}
		case xml.Directive:
			if refuseDoctype {
				return errDoctype
			}
		}
		if len(b.Texts) > most || len(b.Attrs) > most {
			return errTooMany
		}
	}
	if depth != 0 {
		return errors.New("is not valid XML: elements are not closed")
	}
	return nil
}

// charsetReader converts the encodings that a declaration may name. Others are
// refused: in them, bytes do not stand for what they look like.
func charsetReader(label string, r io.Reader) (io.Reader, error) {
	switch strings.ToLower(label) {
	case "utf8", "us-ascii":
		return r, nil
	case "iso-8859-1":
		return charmap.ISO8859_1.NewDecoder().Reader(r), nil
	case "iso-8859-15":
		return charmap.ISO8859_15.NewDecoder().Reader(r), nil
	case "windows-1252":
		return charmap.Windows1252.NewDecoder().Reader(r), nil
	}
	return nil, errors.New("the encoding " + shorten(label) + " cannot be inspected")
}
