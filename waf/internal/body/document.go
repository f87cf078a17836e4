package body

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// Document returns the JSON object, array or string that a text begins with:
// what a reader finds that asks for JSON and not for the declared type. What
// comes after it is rest. That it may be one, had the text not ended, is
// unfinished.
func Document(text []byte) (doc, rest []byte, unfinished bool) {
	rest = bytes.TrimLeft(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), space)
	if len(rest) == 0 {
		return nil, nil, true
	}
	if rest[0] != '{' && rest[0] != '[' && rest[0] != '"' {
		return nil, rest, false
	}
	dec := json.NewDecoder(bytes.NewReader(rest))
	if err := dec.Decode(&json.RawMessage{}); err != nil {
		return nil, rest, errors.Is(err, io.ErrUnexpectedEOF)
	}
	n := dec.InputOffset()
	return rest[:n], bytes.TrimLeft(rest[n:], space), false
}

// space is what may stand between the parts of JSON (RFC 8259, section 2).
const space = " \t\r\n"

// AddDocument adds the values of such a document to b, which is of another
// kind.
func AddDocument(b *message.Body, doc []byte, most int) error {
	as := message.Body{Kind: message.JSON}
	err := Parse(&as, doc, Options{Most: most})
	b.Args = append(b.Args, as.Args...)
	return err
}
