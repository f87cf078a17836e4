package body

import (
	"errors"
	"fmt"
	"mime"
	"regexp"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// builtinTypes are CRS's own list and what ordinary applications need beyond.
var builtinTypes = []string{
	"application/x-www-form-urlencoded", "multipart/form-data", "application/json", "text/xml", "application/xml",
	"text/plain", "application/octet-stream", "application/csp-report", "*/*+json", "*/*+xml",
	"application/grpc", "application/grpc+*", "application/grpc-web", "application/grpc-web+*", "application/grpc-web-text", "application/grpc-web-text+*",
	"application/protobuf", "application/x-protobuf", "application/vnd.google.protobuf",
}

// charsets are the CRS's and other names and subsets of UTF-8. In all of them the
// bytes that attacks are written with stand for themselves.
var charsets = []string{"utf-8", "iso-8859-1", "iso-8859-15", "windows-1252", "utf8", "us-ascii"}

// Types knows the content types that are accepted.
type Types struct {
	pattern string // matches the lower-case field value
	allowed *regexp.Regexp
	// exact are field values that are sent all the time.
	exact map[string]message.Kind
}

var typePattern = regexp.MustCompile(`^[a-z0-9!#$&^_.+*-]+/[a-z0-9!#$&^_.+*-]+$`)

// NewTypes accepts some types beside those that every application needs. A
// type is one without parameters; * stands for any characters.
func NewTypes(extra []string) (*Types, error) {
	var errs []error
	var alternatives []string
	add := func(t string) {
		alternatives = append(alternatives, strings.ReplaceAll(regexp.QuoteMeta(t), `\*`, `[^;\s/]*`))
	}
	for _, t := range builtinTypes {
		add(t)
	}
	for i, t := range extra {
		l := strings.ToLower(t)
		setting := fmt.Sprintf("content_types[%d]", i)
		switch {
		case !typePattern.MatchString(l):
			errs = append(errs, merlon.BadSetting(setting, t, "must be a media type without parameters, such as application/x-ndjson or image/*"))
		case l == "*/*":
			errs = append(errs, merlon.BadSetting(setting, t, "must not be every type: what is not known cannot be inspected"))
		default:
			add(l)
		}
	}
	p := `^(?:` + strings.Join(alternatives, "|") + `)\s*(?:;|$)`
	t := &Types{p, regexp.MustCompile(p), map[string]message.Kind{}}
	for _, media := range builtinTypes {
		for _, params := range []string{"", "; charset=utf-8", "; charset=UTF-8", ";charset=utf-8", ";charset=UTF-8"} {
			if k, boundary, err := t.parse(media + params); err == nil && boundary == "" {
				t.exact[media+params] = k
			}
		}
	}
	return t, errors.Join(errs...)
}

// Pattern matches the lower-case field values that are accepted.
func (t *Types) Pattern() string { return t.pattern }

// Addable reports whether a type is not accepted, but could be.
func (t *Types) Addable(media string) bool {
	return typePattern.MatchString(media) && !strings.Contains(media, "*") && !t.allowed.MatchString(media)
}

// Kind says how a body of the given Content-Type is to be read, and its
// boundary if it is a multipart form.
func (t *Types) Kind(value string) (k message.Kind, boundary string, err error) {
	if k, ok := t.exact[value]; ok {
		return k, "", nil
	}
	return t.parse(value)
}

func (t *Types) parse(value string) (k message.Kind, boundary string, err error) {
	for i := range len(value) {
		if value[i] >= 0x80 {
			return 0, "", errors.New("has characters that are not ASCII")
		}
	}
	media, params, err := mime.ParseMediaType(value)
	if err != nil {
		return 0, "", err
	}
	if !t.allowed.MatchString(media) {
		return 0, "", fmt.Errorf("%s is not accepted", media)
	}
	if cs, ok := params["charset"]; ok && !knownCharset(cs) {
		return 0, "", fmt.Errorf("the charset %q is not accepted", cs)
	}
	k = kindOf(media)
	if k == message.Multipart {
		boundary, err = theBoundary(value, params["boundary"])
	}
	return k, boundary, err
}

// Charsets are the names of encodings that are accepted.
func Charsets() []string { return slices.Clone(charsets) }

func knownCharset(cs string) bool {
	for _, known := range charsets {
		if strings.EqualFold(cs, known) {
			return true
		}
	}
	return false
}

func kindOf(media string) message.Kind {
	_, sub, _ := strings.Cut(media, "/")
	switch {
	case media == "application/x-www-form-urlencoded":
		return message.Form
	case media == "multipart/form-data":
		return message.Multipart
	case strings.HasPrefix(media, "application/grpc"):
		return message.Opaque // framed, also if what is in the frames is JSON
	case media == "application/csp-report", sub == "json", strings.HasSuffix(sub, "+json"), sub == "x-json":
		return message.JSON
	case sub == "xml", strings.HasSuffix(sub, "+xml"):
		return message.XML
	case strings.HasPrefix(media, "text/"), strings.HasSuffix(sub, "json"), strings.HasSuffix(sub, "json-seq"):
		return message.Text
	default:
		return message.Opaque
	}
}

// theBoundary returns the boundary if every parser would find that one. Some
// look for the first "boundary" in the field, wherever it stands, and take the
// space or the escape after its "=" as part of it.
func theBoundary(value, boundary string) (string, error) {
	lower := strings.ToLower(value)
	before, after, found := strings.Cut(lower, "boundary")
	switch {
	case !found || boundary == "":
		return "", errors.New("a multipart form must name its boundary")
	case !strings.HasSuffix(strings.TrimRight(before, " \t"), ";") || !strings.HasPrefix(after, "="),
		!strings.HasPrefix(strings.TrimPrefix(after[1:], `"`), strings.ToLower(boundary)):
		return "", errors.New("the boundary is not named plainly")
	case len(boundary) > 70: // RFC 2046, section 5.1.1
		return "", errors.New("the boundary is longer than 70 characters")
	}
	for _, c := range []byte(boundary) {
		if !isAlnum(c) && !strings.ContainsRune("'()+_./:=?-", rune(c)) {
			return "", errors.New("the boundary has characters that are read differently by different parsers")
		}
	}
	return boundary, nil
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
