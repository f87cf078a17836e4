package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/merlon-dev/merlon/ledger"
)

// A kind is how the secrets in a body are found. A body of no known kind is
// not recorded.
type kind uint8

const (
	noKind kind = iota
	form
	jsonBody
	xmlBody
	multipartForm
)

// kindOf reads what a request declares of its body.
func kindOf(h http.Header) kind {
	media, params, err := mime.ParseMediaType(declared(h, "Content-Type"))
	if err != nil || len(h["Content-Encoding"]) > 0 {
		return noKind
	}
	switch strings.ToLower(params["charset"]) {
	case "", "utf-8", "utf8", "us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252":
	default:
		return noKind
	}
	_, sub, _ := strings.Cut(media, "/")
	switch {
	case media == "application/x-www-form-urlencoded":
		return form
	case media == "multipart/form-data":
		return multipartForm
	case sub == "json", media == "application/csp-report", strings.HasSuffix(sub, "+json"):
		return jsonBody
	case sub == "xml", strings.HasSuffix(sub, "+xml"):
		return xmlBody
	}
	return noKind
}

// body returns b without its secrets, or false if they cannot be told.
func (r *redactor) body(b []byte, k kind, h http.Header) ([]byte, bool) {
	switch k {
	case form:
		return []byte(r.pairs(string(b))), true
	case jsonBody:
		return r.json(b)
	case xmlBody:
		return r.xml(b)
	case multipartForm:
		_, params, err := mime.ParseMediaType(declared(h, "Content-Type"))
		if err != nil || params["boundary"] == "" {
			return nil, false
		}
		return r.multipart(b, params["boundary"])
	}
	return nil, false
}

// A level is an object or array that a walk through JSON is in.
type level struct {
	object bool
	name   string // that it stands under
	secret bool
}

// json masks strings and numbers where they stand.
func (r *redactor) json(b []byte) ([]byte, bool) {
	if !json.Valid(b) {
		return nil, false
	}
	out := bytes.Clone(b)
	stack := []level{{}}
	key := false // a name comes next
	at := level{}
	for i := 0; i < len(b); i++ {
		top := stack[len(stack)-1]
		switch c := b[i]; {
		case c == '{' || c == '[':
			stack = append(stack, level{c == '{', at.name, at.secret})
			key, at = c == '{', level{name: at.name, secret: at.secret}
		case c == '}' || c == ']':
			stack = stack[:len(stack)-1]
		case c == ',':
			key, at = top.object, level{name: top.name, secret: top.secret}
		case c == '"':
			end := i + 1 + stringEnd(b[i+1:])
			var name string
			if key && json.Unmarshal(b[i:end+1], &name) != nil {
				return nil, false
			}
			if key {
				at.name, at.secret = name, top.secret || ledger.SecretName(name)
			}
			r.jsonString(out[i:end+1], at.name, at.secret && !key)
			key, i = false, end
		case at.secret && '0' <= c && c <= '9':
			out[i] = '1' // a number of zeros would not be JSON
			r.hide(at.name, "0")
		}
	}
	return out, true
}

// jsonString masks a string, quotes and all, where it stands.
func (r *redactor) jsonString(s []byte, name string, secret bool) {
	raw, plain := string(s[1:len(s)-1]), ""
	out := ledger.Mask(raw, mask)
	// What is a secret once the escapes are undone is one, too.
	if secret || json.Unmarshal([]byte(`"`+out+`"`), &plain) != nil || text(plain) != plain {
		out = mask(raw)
	}
	if out != raw {
		r.hide(name, raw)
		copy(s[1:], out)
	}
}

// stringEnd returns where the JSON string that s is in ends.
func stringEnd(s []byte) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(s)
}

// multipart masks the fields of a form where they stand, and leaves the
// contents of files out. What two readers might take for different parts is
// not recorded.
func (r *redactor) multipart(b []byte, boundary string) ([]byte, bool) {
	delimiter := []byte("\r\n--" + boundary)
	parts := bytes.Split(append([]byte("\r\n"), b...), delimiter)
	last := len(parts) - 1
	if last < 1 || len(parts[0]) > 0 || strings.TrimRight(string(parts[last]), "\r\n") != "--" ||
		last-1 != countParts(b, boundary) {
		return nil, false
	}
	var out bytes.Buffer
	for _, p := range parts[1:last] {
		head, content, ok := bytes.Cut(p, []byte("\r\n\r\n"))
		if !ok || !bytes.HasPrefix(head, []byte("\r\n")) {
			return nil, false
		}
		name, file, ok := partOf(head[2:])
		if !ok {
			return nil, false
		}
		out.Write(delimiter)
		out.Write(head)
		out.WriteString("\r\n\r\n")
		if !file {
			out.WriteString(r.value(name, string(content)))
		}
	}
	out.Write(delimiter)
	out.Write(parts[last])
	return out.Bytes()[2:], true
}

// countParts returns how many parts mime/multipart sees, or -1.
func countParts(b []byte, boundary string) int {
	mr := multipart.NewReader(bytes.NewReader(b), boundary)
	for n := 0; ; n++ {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			return n
		}
		if err == nil {
			_, err = io.Copy(io.Discard, p)
		}
		if err != nil {
			return -1
		}
	}
}

// partOf reads the head of a part. It is not ok if the content is coded, or
// made of parts itself.
func partOf(head []byte) (name string, file, ok bool) {
	h, err := textproto.NewReader(bufReader(head)).ReadMIMEHeader()
	if err != nil {
		return "", false, false
	}
	disposition := http.Header(h)
	media, params, err := mime.ParseMediaType(declared(disposition, "Content-Disposition"))
	if err != nil || media != "form-data" || len(h["Content-Transfer-Encoding"]) > 0 ||
		strings.HasPrefix(strings.ToLower(strings.TrimSpace(h.Get("Content-Type"))), "multipart/") {
		return "", false, false
	}
	_, file = params["filename"]
	return params["name"], file, true
}

func bufReader(head []byte) *bufio.Reader {
	return bufio.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("\r\n\r\n")))
}
