package waf

import (
	"bytes"
	"errors"
	"fmt"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// Bounds of multipart forms.
const (
	maxParts      = 1000
	maxPartHeader = 8 << 10
)

// A partSink is told what a multipart form consists of. An error ends it.
type partSink interface {
	begin(p message.Part) error
	data(b []byte) error // of the part that was begun last
	end()
}

// A multipartReader reads a multipart/form-data body that is pushed into it.
// It accepts only what every parser reads in the same way (RFC 7578 in the
// form that browsers and libraries send): CRLF line ends, no preamble and no
// epilogue, no folded header lines, the delimiter nowhere but where it counts.
type multipartReader struct {
	dash  []byte // "--" + boundary
	sink  partSink
	buf   []byte // pushed, and not yet understood
	at    int64  // offset in the body of buf[0]
	mark  int64  // offset of the delimiter that the current part began with
	state readerState
	file  bool // the current part is a file
	parts int
}

type readerState uint8

const (
	atStart readerState = iota
	afterDelimiter
	inHeader
	inContent
	afterEnd
)

func newMultipartReader(boundary string, sink partSink) *multipartReader {
	return &multipartReader{dash: []byte("--" + boundary), sink: sink}
}

// understood returns up to which offset everything that is not content of a
// file is known: the start of an unfinished part, or how far its file has
// been read.
func (r *multipartReader) understood() int64 {
	if r.inFile() {
		return r.at
	}
	return r.mark
}

// inFile reports whether the content of a file is being read.
func (r *multipartReader) inFile() bool { return r.state == inContent && r.file }

// feed reads on.
func (r *multipartReader) feed(b []byte) error {
	r.buf = append(r.buf, b...)
	for {
		more, err := r.step()
		if err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
}

// finish must be called at the end of the body.
func (r *multipartReader) finish() error {
	if r.state != afterEnd || len(r.buf) > 0 && !bytes.Equal(r.buf, crlf) {
		return errors.New("is a multipart form that does not end with its closing delimiter")
	}
	return nil
}

var (
	crlf      = []byte("\r\n")
	headerEnd = []byte("\r\n\r\n")
)

func (r *multipartReader) drop(n int) {
	r.buf = r.buf[:copy(r.buf, r.buf[n:])]
	r.at += int64(n)
}

// step reads one piece and reports whether there may be another.
func (r *multipartReader) step() (bool, error) {
	switch r.state {
	case atStart:
		return r.stepStart()
	case afterDelimiter:
		return r.stepDelimiter()
	case inHeader:
		return r.stepHeader()
	case inContent:
		return r.stepContent()
	default:
		if len(r.buf) > len(crlf) || !bytes.HasPrefix(crlf, r.buf) {
			return false, errors.New("is a multipart form with text after its end")
		}
		return false, nil
	}
}

func (r *multipartReader) stepStart() (bool, error) {
	if bytes.HasPrefix(r.buf, crlf) && r.at == 0 {
		r.drop(len(crlf))
	}
	if len(r.buf) < len(r.dash) {
		if !bytes.HasPrefix(r.dash, r.buf) && !bytes.HasPrefix(crlf, r.buf) {
			return false, errors.New("is a multipart form that does not begin with its delimiter")
		}
		return false, nil
	}
	if !bytes.HasPrefix(r.buf, r.dash) {
		return false, errors.New("is a multipart form that does not begin with its delimiter")
	}
	r.mark = r.at
	r.drop(len(r.dash))
	r.state = afterDelimiter
	return true, nil
}

func (r *multipartReader) stepDelimiter() (bool, error) {
	if len(r.buf) < 2 {
		return false, nil
	}
	switch string(r.buf[:2]) {
	case "\r\n":
		if r.parts++; r.parts > maxParts {
			return false, fmt.Errorf("is a multipart form of more than %d parts", maxParts)
		}
		r.state = inHeader
	case "--":
		r.state = afterEnd
	default:
		return false, errors.New("is a multipart form with a delimiter that goes on in its line")
	}
	r.drop(2)
	return true, nil
}

func (r *multipartReader) stepHeader() (bool, error) {
	end := bytes.Index(r.buf[:min(len(r.buf), maxPartHeader)], headerEnd)
	if end < 0 {
		if len(r.buf) >= maxPartHeader {
			return false, fmt.Errorf("is a multipart form with a part header of more than %d bytes", maxPartHeader)
		}
		return false, nil
	}
	p, err := parsePart(string(r.buf[:end]))
	if err != nil {
		return false, err
	}
	r.file = p.File
	if err := r.sink.begin(p); err != nil {
		return false, err
	}
	r.drop(end + len(headerEnd))
	r.state = inContent
	return true, nil
}

func (r *multipartReader) stepContent() (bool, error) {
	i := bytes.Index(r.buf, r.dash)
	if i < 0 {
		// The tail may be the beginning of a delimiter.
		n := len(r.buf) - len(r.dash) - len(crlf) + 1
		if n <= 0 {
			return false, nil
		}
		err := r.sink.data(r.buf[:n])
		r.drop(n)
		return false, err
	}
	if i < len(crlf) || !bytes.HasSuffix(r.buf[:i], crlf) {
		return false, errors.New("is a multipart form with its delimiter in the middle of a line")
	}
	if err := r.sink.data(r.buf[:i-len(crlf)]); err != nil {
		return false, err
	}
	r.sink.end()
	r.mark = r.at + int64(i-len(crlf))
	r.drop(i + len(r.dash))
	r.state = afterDelimiter
	return true, nil
}

// parsePart reads the header of a part.
func parsePart(text string) (message.Part, error) {
	var p message.Part
	seen := map[string]bool{}
	for line := range strings.SplitSeq(text, "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) || hasControls(value) {
			return p, errors.New("is a multipart form with a malformed part header")
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if seen[name] {
			return p, errors.New("is a multipart form with a repeated part header field")
		}
		seen[name] = true
		value = strings.Trim(value, " \t")
		p.Header = append(p.Header, message.Pair{Name: name, Value: value})
		if name == "Content-Disposition" {
			if err := readDisposition(&p, value); err != nil {
				return p, err
			}
		}
	}
	if !seen["Content-Disposition"] {
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
	params := map[string]string{}
	for rest != "" {
		name, value, after, err := cutParam(rest)
		if err != nil {
			return err
		}
		if _, twice := params[name]; twice {
			return fmt.Errorf("is a multipart form with a part that has two parameters %q", shorten(name))
		}
		if strings.Contains(name, "*") && name != "filename*" {
			return fmt.Errorf("is a multipart form with a part that has the parameter %q", shorten(name))
		}
		params[name] = value
		rest = after
	}
	name, ok := params["name"]
	if !ok || strings.Contains(name, `\`) {
		return errors.New("is a multipart form with a part that has no plain name")
	}
	p.Name = name
	return readFileNames(p, params)
}

func readFileNames(p *message.Part, params map[string]string) error {
	if ext, ok := params["filename*"]; ok {
		charset, rest, ok1 := strings.Cut(ext, "'")
		_, escaped, ok2 := strings.Cut(rest, "'")
		name, err := url.PathUnescape(escaped)
		if !ok1 || !ok2 || err != nil || !knownCharset(charset) {
			return errors.New("is a multipart form with a malformed filename*")
		}
		addFileName(p, name)
	}
	addFileName(p, params["filename"])
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

// cutParam cuts ` name="value"` off a list of parameters.
func cutParam(s string) (name, value, rest string, err error) {
	bad := errors.New("is a multipart form with a malformed Content-Disposition")
	name, after, ok := strings.Cut(strings.TrimLeft(s, " \t"), "=")
	if !ok || !isToken(name) {
		return "", "", "", bad
	}
	name = strings.ToLower(name)
	if quoted, ok := strings.CutPrefix(after, `"`); ok {
		value, rest, ok = strings.Cut(quoted, `"`)
		if !ok || strings.HasSuffix(value, `\`) {
			return "", "", "", bad
		}
		rest = strings.TrimLeft(rest, " \t")
		if rest != "" && rest[0] != ';' || rest == ";" {
			return "", "", "", bad
		}
		return name, value, strings.TrimPrefix(rest, ";"), nil
	}
	value, rest, more := strings.Cut(after, ";")
	value = strings.TrimRight(value, " \t")
	if !isToken(value) || more && rest == "" {
		return "", "", "", bad
	}
	return name, value, rest, nil
}
