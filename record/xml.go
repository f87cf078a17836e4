package record

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"

	"github.com/merlon-dev/merlon/ledger"
)

// xml masks text and attributes where they stand. A document with a type
// declaration is not recorded: what its entities hold cannot be told.
func (r *redactor) xml(b []byte) ([]byte, bool) {
	out := bytes.Clone(b)
	d := xml.NewDecoder(bytes.NewReader(b))
	open := []element{{}}
	for {
		from := d.InputOffset()
		token, err := d.Token()
		if err == io.EOF {
			return out, len(open) == 1
		}
		if err != nil {
			return nil, false
		}
		at := open[len(open)-1]
		span := out[from:d.InputOffset()]
		switch tok := token.(type) {
		case xml.StartElement:
			name := tok.Name.Local
			at = element{name, at.secret || ledger.SecretName(name)}
			open = append(open, at)
			if !r.attributes(span, tok.Attr, at) {
				return nil, false
			}
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			r.charData(span, string(tok), at)
		case xml.Directive:
			return nil, false
		case xml.Comment, xml.ProcInst:
			if text(string(span)) != string(span) {
				return nil, false
			}
		}
	}
}

// An element is one that a walk through XML is in.
type element struct {
	name   string
	secret bool
}

func (r *redactor) charData(span []byte, plain string, at element) {
	if strings.TrimSpace(plain) == "" || !at.secret && text(plain) == plain {
		return
	}
	const cdata, end = "<![CDATA[", "]]>"
	if bytes.HasPrefix(span, []byte(cdata)) {
		span = span[len(cdata) : len(span)-len(end)]
	}
	copy(span, r.hide(at.name, string(span)))
}

// attributes masks the values in a tag, which hold what attrs hold.
func (r *redactor) attributes(tag []byte, attrs []xml.Attr, at element) bool {
	for _, a := range attrs {
		eq := bytes.IndexByte(tag, '=')
		quote := bytes.IndexAny(tag, `"'`)
		if eq < 0 || quote < eq || len(bytes.TrimSpace(tag[eq+1:quote])) > 0 {
			return false
		}
		tag = tag[quote:]
		end := bytes.IndexByte(tag[1:], tag[0])
		if end < 0 {
			return false
		}
		value := tag[1 : 1+end]
		name := a.Name.Local
		if at.secret || ledger.SecretName(name) || text(a.Value) != a.Value {
			copy(value, r.hide(name, string(value)))
		}
		tag = tag[end+2:]
	}
	return true
}
