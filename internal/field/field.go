// Package field finds the values of a named field of a request: in its query,
// in a form, in JSON of any depth and in a GraphQL operation. What a lenient
// backend would find under that name is found, and a body that cannot be read
// for certain is an error, never an empty answer.
//
// It reads no more than the first [MaxBody] bytes and undoes no content
// coding. A persisted GraphQL operation whose variables have other names than the field
// tells nothing, and what comes by WebSocket or gRPC is not read.
package field

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"

	"github.com/merlon-dev/merlon"
)

const (
	// MaxBody is how many bytes of a body are looked at.
	MaxBody = 64 << 10
	// MaxValues is how many values a field may have.
	MaxValues = 32
	// MaxDepth is how deep JSON may be nested.
	MaxDepth = 32

	maxVariables = 8 // how deep the variables of a GraphQL operation are searched
	maxParts     = 256
)

var (
	// ErrTooMany: the field has more than [MaxValues] values.
	ErrTooMany = errors.New("the field has too many values")
	// ErrUnreadable: the request is malformed, longer than [MaxBody], or in a
	// content type, content coding or charset that is not understood. A backend
	// may find values there all the same.
	ErrUnreadable = errors.New("the request's fields cannot be read")
)

// Values returns every value that a request gives to a field, in the order of
// query and body. It is empty if there is none. The values found so far are
// returned beside [ErrTooMany] and [ErrUnreadable]; any other error is one of
// reading the body, for [merlon.BodyFailed].
//
// A name is compared without regard to case, since some backends do not have
// any. In query, urlencoded and multipart forms it is the literal name, also
// with brackets after it ("email[]"), as PHP spells it ("user.name" is
// user_name there), and as a path in brackets ("user[name]"). In JSON a name
// with dots or brackets is a path of members, through arrays where there are
// any; it begins at the outermost object, or at those in an outermost array.
// Strings, numbers and truth values count, also inside an array or object that
// has the name. In a GraphQL request it is also the name of an argument, and of
// a member of the variables up to 8 deep.
// Members and fields that come more than once count each time.
func Values(r *merlon.Request, name string) ([]string, error) {
	if r.URL.RawQuery == "" && (r.Request.Body == nil || r.Request.Body == http.NoBody) {
		return nil, nil
	}
	f := finder{name: name, parts: strings.Split(dotted(name), ".")}
	if r.URL.RawQuery != "" {
		if err := f.form(r.URL.RawQuery); err != nil {
			return f.values, err
		}
	}
	if r.Request.Body == nil || r.Request.Body == http.NoBody {
		return f.values, nil
	}
	body, whole, err := r.Peek(MaxBody)
	if err != nil {
		return f.values, err
	}
	if err = f.body(r.Header, body); err == nil || !whole && errors.Is(err, ErrUnreadable) {
		if !whole {
			err = unreadable("is longer than %d bytes", MaxBody)
		}
	}
	return f.values, err
}

func unreadable(format string, args ...any) error {
	return fmt.Errorf("%w: the body "+format, append([]any{ErrUnreadable}, args...)...)
}

// A finder looks for one field.
type finder struct {
	name   string
	parts  []string // the name as a path
	values []string
}

func (f *finder) add(value string) error {
	if len(f.values) == MaxValues {
		return ErrTooMany
	}
	f.values = append(f.values, value)
	return nil
}

// body looks at a body, in every way in which its type may be meant.
func (f *finder) body(h http.Header, body []byte) error {
	for _, v := range h["Content-Encoding"] {
		if v != "" && !strings.EqualFold(v, "identity") {
			// Who does not undo it may read the same bytes as something else.
			return unreadable("has the content coding %q", v[:min(len(v), 40)])
		}
	}
	if len(body) == 0 {
		return nil
	}
	types := h["Content-Type"]
	if len(types) > 1 {
		return unreadable("has two content types")
	}
	media, params := "", map[string]string(nil)
	if len(types) == 1 {
		var err error
		if media, params, err = mime.ParseMediaType(types[0]); err != nil || starred(types[0]) {
			return unreadable("has a malformed content type")
		}
	}
	if cs, ok := params["charset"]; ok && !knownCharset(cs) {
		return unreadable("has the charset %q", cs[:min(len(cs), 40)])
	}
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	switch {
	case media == "application/x-www-form-urlencoded":
		if looksLikeJSON(body) {
			// Many read JSON whatever it says it is.
			if err := f.json(body); errors.Is(err, ErrTooMany) {
				return err
			}
		}
		return f.form(string(body))
	case media == "multipart/form-data":
		return f.multipart(body, params["boundary"])
	case media == "application/graphql":
		return f.graphQL([]string{string(body)}, nil)
	case isJSON(media) || looksLikeJSON(body):
		return f.json(body)
	}
	return unreadable("has the content type %q, which is not understood", media[:min(len(media), 40)])
}

// starred reports whether a parameter may be in the encoding of RFC 2231, such
// as boundary*0=x or name*=x. Where a plain one stands beside it, one
// reader takes this and another that. What is quoted does not count.
func starred(field string) bool {
	quoted := false
	for i := 0; i < len(field); i++ {
		switch field[i] {
		case '"':
			quoted = !quoted
		case '\\':
			if quoted {
				i++
			}
		case '*':
			if !quoted {
				return true
			}
		}
	}
	return false
}

func knownCharset(cs string) bool {
	switch strings.ToLower(cs) {
	case "utf-8", "utf8", "us-ascii":
		return true
	}
	return false
}

func isJSON(media string) bool {
	switch media {
	case "application/json", "text/json", "application/x-ndjson", "application/jsonl":
		return true
	}
	return strings.HasSuffix(media, "+json")
}

func looksLikeJSON(body []byte) bool {
	body = bytes.TrimLeft(body, " \t\r\n")
	return len(body) > 0 && (body[0] == '{' || body[0] == '[')
}

// form looks at a query or an urlencoded body.
func (f *finder) form(text string) error {
	var bad error
	var queries, variables []string
	for text != "" {
		var pair string
		pair, text, _ = strings.Cut(text, "&")
		if pair == "" {
			continue
		}
		if strings.Contains(pair, ";") {
			bad = fmt.Errorf("%w: a form's pairs may be parted by \";\" or not", ErrUnreadable)
		}
		k, v, _ := strings.Cut(pair, "=")
		key, err1 := url.QueryUnescape(k)
		value, err2 := url.QueryUnescape(v)
		if err1 != nil || err2 != nil {
			bad = fmt.Errorf("%w: a form has a malformed escape", ErrUnreadable)
			continue
		}
		switch {
		case f.named(key):
			if err := f.add(value); err != nil {
				return err
			}
		case strings.EqualFold(key, "query") && strings.Contains(value, "{"):
			queries = append(queries, value)
		case strings.EqualFold(key, "variables"):
			variables = append(variables, value)
		}
	}
	if queries != nil || variables != nil {
		if err := f.graphQL(queries, variables); err != nil {
			return err
		}
	}
	return bad
}

// named reports whether a form's field is the one that is looked for.
func (f *finder) named(key string) bool {
	if strings.EqualFold(key, f.name) {
		return true
	}
	whole := key
	key, _, _ = strings.Cut(strings.TrimLeft(key, " "), "\x00")
	if !strings.Contains(f.name, "[") {
		key, _, _ = strings.Cut(key, "[")
	}
	if strings.EqualFold(php.Replace(key), php.Replace(f.name)) {
		return true
	}
	path, name := strings.ToLower(dotted(whole)), strings.ToLower(dotted(f.name))
	return strings.HasPrefix(path, name) && (len(path) == len(name) || path[len(name)] == '.')
}

// dotted returns a name with brackets as a path: user.email for user[email],
// which many read from a form as they read the path from JSON.
func dotted(name string) string {
	first, rest, ok := strings.Cut(name, "[")
	if !ok || first == "" {
		return name
	}
	for part := range strings.SplitSeq(rest, "[") {
		if part, _, _ = strings.Cut(part, "]"); part != "" {
			first += "." + part
		}
	}
	return first
}

var php = strings.NewReplacer(" ", "_", ".", "_")

// multipart looks at a multipart form. Files count too: what is one is told
// apart in different ways.
func (f *finder) multipart(body []byte, boundary string) error {
	if boundary == "" {
		return unreadable("is a multipart form without a boundary")
	}
	mr := multipart.NewReader(bytes.NewReader(body), boundary)
	var queries, variables []string
	for n := 0; ; n++ {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			return f.graphQL(queries, variables)
		}
		if err != nil || n == maxParts {
			return unreadable("is a malformed multipart form, or one of more than %d parts", maxParts)
		}
		name := p.FormName()
		if name == "" || len(p.Header["Content-Disposition"]) != 1 || starred(p.Header["Content-Disposition"][0]) {
			return unreadable("is a multipart form with a part that has no plain name")
		}
		mine, lower := f.named(name), strings.ToLower(name)
		// As forms of GraphQL are, and as its requests with files are:
		// github.com/jaydenseric/graphql-multipart-request-spec.
		gql := lower == "query" || lower == "variables" || lower == "operations"
		if !mine && !gql {
			continue
		}
		value, err := text(p)
		if err == nil && mine {
			err = f.add(value)
		}
		switch {
		case err != nil:
			return err
		case lower == "query" && strings.Contains(value, "{"):
			queries = append(queries, value)
		case lower == "variables":
			variables = append(variables, value)
		case lower == "operations" && looksLikeJSON([]byte(value)):
			if err := f.json([]byte(value)); err != nil {
				return err
			}
		}
	}
}

// text returns what a part holds.
func text(p *multipart.Part) (string, error) {
	switch strings.ToLower(p.Header.Get("Content-Transfer-Encoding")) {
	case "", "7bit", "8bit", "binary":
	default:
		return "", unreadable("is a multipart form with an encoded part")
	}
	if ct := p.Header.Get("Content-Type"); ct != "" {
		_, params, err := mime.ParseMediaType(ct)
		if cs, ok := params["charset"]; err != nil || ok && !knownCharset(cs) {
			return "", unreadable("is a multipart form with a part of a charset that is not understood")
		}
	}
	value, err := io.ReadAll(p)
	if err != nil {
		return "", unreadable("is a malformed multipart form")
	}
	return string(value), nil
}
