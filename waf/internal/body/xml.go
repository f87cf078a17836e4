package body

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"

	"golang.org/x/text/encoding/charmap"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

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
				return ErrDoctype
			}
		}
		if len(b.Texts) > most || len(b.Attrs) > most {
			return ErrTooMany
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
