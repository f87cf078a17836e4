package body

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// Bounds of multipart forms.
const (
	maxParts      = 1000
	maxPartHeader = 8 << 10
)

// A Multipart reads a multipart/form-data body that is pushed into it.
// It accepts only what every parser reads in the same way (RFC 7578 in the
// form that browsers and libraries send): CRLF line ends, no preamble and no
// epilogue, no folded header lines, the delimiter nowhere but where it counts.
type Multipart struct {
	dash  []byte // "--" + boundary
	whole string // the whole body, if it is there at once
	data  []byte // pushed, and not yet understood
	kept  []byte // what data is kept in between pushes
	at    int64  // offset in the body of data[0]
	mark  int64  // offset of the delimiter that the current part began with
	state readerState

	room      int64 // for fields and part headers together
	most      int
	parts     []message.Part // begun since the last Take
	args      []message.Pair // completed since the last Take
	begun     int            // parts
	fields    int            // that are not files, begun
	inspected int64

	// The current part.
	file bool
	name string
	size int64
	text []byte // of a field
}

type readerState uint8

const (
	atStart readerState = iota
	afterDelimiter
	inHeader
	inContent
	afterEnd
)

// NewMultipart returns a reader of a form whose fields and part headers are
// not longer than limit together, and are not more than most.
func NewMultipart(boundary string, limit int64, most int) *Multipart {
	return &Multipart{room: limit, most: most, dash: []byte("--" + boundary)}
}

// parseMultipart reads a whole form, which is both s and text.
func parseMultipart(b *message.Body, s string, text []byte, o Options) error {
	r := NewMultipart(o.Boundary, o.Limit, o.Most)
	r.whole = s
	r.parts = make([]message.Part, 0, min(bytes.Count(text, r.dash), maxParts))
	if err := r.Feed(text); err != nil {
		return err
	}
	if err := r.Finish(); err != nil {
		return err
	}
	r.Take(b)
	return nil
}

// Understood returns up to which offset everything that is not content of a
// file is known: the start of an unfinished part, or how far its file has
// been read.
func (r *Multipart) Understood() int64 {
	if r.InFile() {
		return r.at
	}
	return r.mark
}

// InFile reports whether the content of a file is being read.
func (r *Multipart) InFile() bool { return r.state == inContent && r.file }

// Feed reads on. It does not keep b.
func (r *Multipart) Feed(b []byte) error {
	if len(r.data) == 0 {
		r.data = b
	} else {
		r.kept = append(r.kept, b...)
		r.data = r.kept
	}
	for {
		more, err := r.step()
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if r.whole == "" {
		r.kept = append(r.kept[:0], r.data...)
		r.data = r.kept
	}
	return nil
}

// Finish must be called at the end of the body.
func (r *Multipart) Finish() error {
	if r.state != afterEnd || len(r.data) > 0 && !bytes.Equal(r.data, crlf) {
		return errors.New("is a multipart form that does not end with its closing delimiter")
	}
	return nil
}

var (
	crlf      = []byte("\r\n")
	headerEnd = []byte("\r\n\r\n")
)

func (r *Multipart) drop(n int) {
	r.data = r.data[n:]
	r.at += int64(n)
}

// next returns the first n bytes of data as a string that stays.
func (r *Multipart) next(n int) string {
	if r.whole != "" {
		return r.whole[r.at : r.at+int64(n)]
	}
	return string(r.data[:n])
}

// step reads one piece and reports whether there may be another.
func (r *Multipart) step() (bool, error) {
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
		if len(r.data) > len(crlf) || !bytes.HasPrefix(crlf, r.data) {
			return false, errors.New("is a multipart form with text after its end")
		}
		return false, nil
	}
}

func (r *Multipart) stepStart() (bool, error) {
	if bytes.HasPrefix(r.data, crlf) && r.at == 0 {
		r.drop(len(crlf))
	}
	if len(r.data) < len(r.dash) {
		if !bytes.HasPrefix(r.dash, r.data) && !bytes.HasPrefix(crlf, r.data) {
			return false, errors.New("is a multipart form that does not begin with its delimiter")
		}
		return false, nil
	}
	if !bytes.HasPrefix(r.data, r.dash) {
		return false, errors.New("is a multipart form that does not begin with its delimiter")
	}
	r.mark = r.at
	r.drop(len(r.dash))
	r.state = afterDelimiter
	return true, nil
}

func (r *Multipart) stepDelimiter() (bool, error) {
	if len(r.data) < 2 {
		return false, nil
	}
	switch string(r.data[:2]) {
	case "\r\n":
		if r.begun++; r.begun > maxParts {
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

func (r *Multipart) stepHeader() (bool, error) {
	end := bytes.Index(r.data[:min(len(r.data), maxPartHeader)], headerEnd)
	if end < 0 {
		if len(r.data) >= maxPartHeader {
			return false, fmt.Errorf("is a multipart form with a part header of more than %d bytes", maxPartHeader)
		}
		return false, nil
	}
	p, err := parsePart(r.next(end))
	if err != nil {
		return false, err
	}
	if err := r.begin(p); err != nil {
		return false, err
	}
	r.drop(end + len(headerEnd))
	r.state = inContent
	return true, nil
}

func (r *Multipart) stepContent() (bool, error) {
	i := bytes.Index(r.data, r.dash)
	if i < 0 {
		// The tail may be the beginning of a delimiter.
		n := len(r.data) - len(r.dash) - len(crlf) + 1
		if n <= 0 {
			return false, nil
		}
		err := r.content(n)
		r.drop(n)
		return false, err
	}
	if i < len(crlf) || !bytes.HasSuffix(r.data[:i], crlf) {
		return false, errors.New("is a multipart form with its delimiter in the middle of a line")
	}
	n := i - len(crlf)
	if err := r.end(n); err != nil {
		return false, err
	}
	r.mark = r.at + int64(n)
	r.drop(i + len(r.dash))
	r.state = afterDelimiter
	return true, nil
}
