// Package body reads the bodies of requests: it tells by the declared type how
// one is to be read, decompresses it, and cuts it into the names and values
// that an application could find in it.
//
// What two parsers would read differently is an error. It judges nothing, does
// not look into files, and leaves types that have no text in them unread.
package body

import (
	"errors"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// Errors that have an answer of their own; all others mean that a body is
// malformed.
var (
	ErrTooMany = errors.New("more values than are inspected")
	ErrTooLong = errors.New("longer than what is inspected")
	ErrDoctype = errors.New("has a document type declaration, which can hide text from inspection")
)

// Options say how a body is read.
type Options struct {
	Boundary      string // of a multipart form
	Limit         int64  // of the fields of a multipart form together
	Most          int    // values
	RefuseDoctype bool   // in XML
}

// Parse reads a whole body of the kind b.Kind into b. The names and values in
// b are parts of text where nothing had to be decoded: text must not be
// changed as long as any of them is in use.
func Parse(b *message.Body, text []byte, o Options) error {
	// Not a copy: text does not change, as said above, and the strings keep
	// its memory.
	s := unsafe.String(unsafe.SliceData(text), len(text))
	switch b.Kind {
	case message.Form, message.Text:
		b.Text = s
		return parseForm(b, s, o.Most)
	case message.JSON:
		return parseJSON(b, s, o.Most)
	case message.XML:
		return parseXML(b, text, o.Most, o.RefuseDoctype)
	case message.Multipart:
		return parseMultipart(b, s, text, o)
	}
	return nil
}

// texts makes many short strings in few pieces of memory, none of which is
// written again.
type texts struct {
	piece []byte
	next  int // the size of the next piece, at least
}

const (
	firstPiece = 1 << 10
	lastPiece  = 64 << 10
)

// room returns an empty slice that up to n bytes may be appended to.
func (t *texts) room(n int) []byte {
	if cap(t.piece)-len(t.piece) < n {
		t.next = min(max(2*t.next, firstPiece), lastPiece)
		t.piece = make([]byte, 0, max(n, t.next))
	}
	return t.piece[len(t.piece):]
}

// keep makes a string of what was appended to the last room.
func (t *texts) keep(b []byte) string {
	t.piece = t.piece[:len(t.piece)+len(b)]
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// maxShown is how much of a value an error shows, in bytes.
const maxShown = 200

// shorten makes any text fit for an error.
func shorten(s string) string {
	if len(s) > maxShown {
		cut := maxShown - len("…")
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
