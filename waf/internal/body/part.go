package body

import (
	"errors"
	"fmt"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// parsePart reads the header of a part.
func parsePart(text string) (message.Part, error) {
	var p message.Part
	var seen nameSet
	p.Header = make([]message.Pair, 0, strings.Count(text, "\r\n")+1)
	for line := range strings.SplitSeq(text, "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) || hasControls(value) {
			return p, errors.New("is a multipart form with a malformed part header")
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if !seen.add(name) {
			return p, errors.New("is a multipart form with a repeated part header field")
		}
		value = strings.Trim(value, " \t")
		p.Header = append(p.Header, message.Pair{Name: name, Value: value})
		if name == "Content-Disposition" {
			if err := readDisposition(&p, value); err != nil {
				return p, err
			}
		}
	}
	if seen.add("Content-Disposition") {
		return p, errors.New("is a multipart form with a part without Content-Disposition")
	}
	return p, nil
}

func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !isAlnum(c) && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

func hasControls(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

// readDisposition reads the value of Content-Disposition (RFC 7578, section
// 4.2). What parsers disagree about is an error.
func readDisposition(p *message.Part, v string) error {
	kind, rest, _ := strings.Cut(v, ";")
	if !strings.EqualFold(strings.Trim(kind, " \t"), "form-data") {
		return errors.New("is a multipart form with a part that is not form-data")
	}
	var seen nameSet
	var known dispositionParams
	for rest != "" {
		name, value, after, err := cutParam(rest)
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return fmt.Errorf("is a multipart form with a part that has two parameters %q", shorten(name))
		}
		if strings.Contains(name, "*") && name != "filename*" {
			return fmt.Errorf("is a multipart form with a part that has the parameter %q", shorten(name))
		}
		known.set(name, value)
		rest = after
	}
	if !known.named || strings.Contains(known.name, `\`) {
		return errors.New("is a multipart form with a part that has no plain name")
	}
	p.Name = known.name
	return readFileNames(p, known)
}

type dispositionParams struct {
	name, fileName, extended string
	named, isExtended        bool // the parameter is there
}

func (d *dispositionParams) set(name, value string) {
	switch name {
	case "name":
		d.name, d.named = value, true
	case "filename":
		d.fileName = value
	case "filename*":
		d.extended, d.isExtended = value, true
	}
}

func readFileNames(p *message.Part, known dispositionParams) error {
	if known.isExtended {
		charset, rest, ok1 := strings.Cut(known.extended, "'")
		_, escaped, ok2 := strings.Cut(rest, "'")
		name, err := url.PathUnescape(escaped)
		if !ok1 || !ok2 || err != nil || !knownCharset(charset) {
			return errors.New("is a multipart form with a malformed filename*")
		}
		addFileName(p, name)
	}
	addFileName(p, known.fileName)
	return nil
}

// addFileName adds a file name and, where backslashes may escape, its other
// reading. A part with an empty one is a field without a file.
func addFileName(p *message.Part, name string) {
	if name == "" {
		return
	}
	p.File = true
	p.FileNames = append(p.FileNames, name)
	if plain := strings.ReplaceAll(name, `\`, ""); plain != name && plain != "" {
		p.FileNames = append(p.FileNames, plain)
	}
}

var errDisposition = errors.New("is a multipart form with a malformed Content-Disposition")

// cutParam cuts ` name="value"` off a list of parameters.
func cutParam(s string) (name, value, rest string, err error) {
	name, after, ok := strings.Cut(strings.TrimLeft(s, " \t"), "=")
	if !ok || !isToken(name) {
		return "", "", "", errDisposition
	}
	name = strings.ToLower(name)
	if quoted, ok := strings.CutPrefix(after, `"`); ok {
		value, rest, ok = strings.Cut(quoted, `"`)
		if !ok || strings.HasSuffix(value, `\`) {
			return "", "", "", errDisposition
		}
		rest = strings.TrimLeft(rest, " \t")
		if rest != "" && rest[0] != ';' || rest == ";" {
			return "", "", "", errDisposition
		}
		return name, value, strings.TrimPrefix(rest, ";"), nil
	}
	value, rest, more := strings.Cut(after, ";")
	value = strings.TrimRight(value, " \t")
	if !isToken(value) || more && rest == "" {
		return "", "", "", errDisposition
	}
	return name, value, rest, nil
}

// A nameSet is a set of names, usually of few.
type nameSet struct {
	few  [8]string
	n    int
	more map[string]bool
}

// add reports whether the name is new.
func (s *nameSet) add(name string) bool {
	if slices.Contains(s.few[:s.n], name) || s.more[name] {
		return false
	}
	if s.n < len(s.few) {
		s.few[s.n] = name
		s.n++
		return true
	}
	if s.more == nil {
		s.more = map[string]bool{}
	}
	s.more[name] = true
	return true
}
