package origin

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/merlon-dev/merlon"
)

// A flaw is what makes a request one that two programs could read
// differently, or one that no program should have to read.
type flaw struct {
	status int
	reason merlon.Reason
	rule   string // what must hold; for the operator
	where  []byte // the line it is in; valid only until the next read
}

// A judge holds the bytes that a client sent over one connection until they
// are known to be unambiguous HTTP/1 (RFC 9112), one message at a time. It
// reads every byte of heads and chunk framing once, and copies bodies only.
//
//	buf: [ gone | r: may be taken | ok: being judged | w: free ]
type judge struct {
	maxHeader, maxFields int

	buf       []byte
	r, ok, w  int
	start     int // where the message begins; -1 when some of it was taken
	line      int // where the line being judged begins
	seek      int // where to go on looking for its end
	state     state
	left      int64 // body or chunk bytes still to come
	excess    int64 // chunk framing bytes beyond what the data justifies
	trailer   int   // where the trailer section begins
	skipped   bool  // an empty line before the request line was dropped
	head      head
	headTaken bool // the head of the message was judged; it may have been taken
}

type state uint8

const (
	inHead state = iota
	inLength
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
	atEnd // the message is over; what follows waits until it is asked for
)

const (
	maxChunkLine = 256
	maxTrailer   = 2 << 10
	maxExcess    = 8 << 10 // net/http stops at twice that
	firstBuffer  = 4 << 10
)

// space returns room for more bytes from the client, none if the judge holds
// as much as it may.
func (j *judge) space() []byte {
	if j.w == len(j.buf) {
		if j.r > 0 {
			j.shift()
		} else if most := j.maxHeader + firstBuffer; len(j.buf) < most {
			j.buf = append(make([]byte, 0, min(max(2*len(j.buf), firstBuffer), most)), j.buf...)
			j.buf = j.buf[:cap(j.buf)]
		}
	}
	return j.buf[j.w:]
}

// shift moves what is held to the front of the buffer.
func (j *judge) shift() {
	d := j.r
	copy(j.buf, j.buf[d:j.w])
	j.r, j.ok, j.w, j.line, j.seek, j.trailer = 0, j.ok-d, j.w-d, j.line-d, j.seek-d, j.trailer-d
	if j.start >= 0 {
		j.start -= d
	}
}

// take moves judged bytes into p.
func (j *judge) take(p []byte) int {
	n := copy(p, j.buf[j.r:j.ok])
	j.r += n
	if n > 0 && j.start < j.r {
		j.start = -1
	}
	if j.r == j.w {
		j.r, j.ok, j.w, j.line, j.seek, j.trailer = 0, 0, 0, 0, 0, 0
		if len(j.buf) > 4*firstBuffer { // do not keep what one long head needed
			j.buf = nil
		}
	}
	return n
}

// next begins the next message. Everything of the one before was taken.
func (j *judge) next() {
	j.state, j.start, j.line, j.seek = inHead, j.r, j.r, j.r
	j.left, j.excess, j.skipped, j.headTaken = 0, 0, false, false
	j.head = head{length: -1}
}

// begun reports whether bytes of a head that is not complete are held.
func (j *judge) begun() bool { return j.state == inHead && j.w > j.ok }

// direct returns how many bytes may go from the client straight to the
// reader, because they are body and nothing is held back before them.
func (j *judge) direct() int64 {
	if j.r == j.w && (j.state == inLength || j.state == inChunk) {
		return j.left
	}
	return 0
}

// went tells of n bytes that did.
func (j *judge) went(n int) {
	j.left -= int64(n)
	if j.left == 0 {
		j.dataEnded()
	}
}

func (j *judge) dataEnded() {
	if j.state == inLength {
		j.state = atEnd
	} else {
		j.state = inChunkEnd
	}
}

// advance judges what is held, as far as it goes. A flaw in what follows a
// head that nobody has seen yet takes the head with it.
func (j *judge) advance() *flaw {
	for j.state != atEnd {
		more, f := j.step()
		if f != nil {
			if j.start >= 0 {
				j.ok = j.start
			}
			return f
		}
		if !more {
			return nil
		}
	}
	return nil
}

func (j *judge) step() (more bool, f *flaw) {
	switch j.state {
	case inLength, inChunk:
		n := min(j.left, int64(j.w-j.ok))
		j.ok += int(n)
		j.left -= n
		if j.left > 0 {
			return false, nil
		}
		j.dataEnded()
		return true, nil
	case inChunkEnd:
		if j.w-j.ok < 2 {
			if j.w > j.ok && j.buf[j.ok] != '\r' {
				return false, j.badChunk("chunk data must end with CRLF")
			}
			return false, nil
		}
		if j.buf[j.ok] != '\r' || j.buf[j.ok+1] != '\n' {
			return false, j.badChunk("chunk data must end with CRLF")
		}
		j.ok += 2
		j.state, j.line, j.seek = inChunkSize, j.ok, j.ok
		return true, nil
	case inChunkSize:
		return j.chunkSize()
	case inTrailer:
		return j.trailerLine()
	default:
		return j.headLine()
	}
}

// nextLine returns the next line without its CRLF; found is false if it is
// not complete.
func (j *judge) nextLine() (line []byte, found bool, f *flaw) {
	i := bytes.IndexByte(j.buf[j.seek:j.w], '\n')
	if i < 0 {
		j.seek = j.w
		return nil, false, nil
	}
	end := j.seek + i
	line = j.buf[j.line:end]
	if len(line) == 0 || line[len(line)-1] != '\r' {
		return nil, false, &flaw{http.StatusBadRequest, BadFraming, "lines must end with CRLF, not with a bare LF", line}
	}
	j.line, j.seek = end+1, end+1
	return line[:len(line)-1], true, nil
}

func (j *judge) headLine() (more bool, f *flaw) {
	line, found, f := j.nextLine()
	if f != nil {
		return false, f
	}
	if size := j.seek - j.ok; size > j.maxHeader {
		if j.head.lines == 0 {
			return false, &flaw{http.StatusRequestURITooLong, HeaderTooLarge, "the request line must fit into max_header", nil}
		}
		return false, &flaw{http.StatusRequestHeaderFieldsTooLarge, HeaderTooLarge, "the header must fit into max_header", nil}
	}
	if !found {
		return false, nil
	}
	switch {
	case len(line) == 0 && j.head.lines == 0:
		// One empty line may come before a request line (RFC 9112, 2.2).
		// It is dropped, not passed on.
		if j.skipped {
			return false, &flaw{http.StatusBadRequest, BadRequestLine, "a request must begin with its request line", nil}
		}
		j.skipped = true
		j.r, j.ok, j.start = j.line, j.line, j.line
		return true, nil
	case len(line) == 0:
		return true, j.headEnded()
	case j.head.lines == 0:
		f = j.head.requestLine(line, j.line-2-len(line)-j.start)
	case j.head.lines > j.maxFields:
		f = &flaw{http.StatusRequestHeaderFieldsTooLarge, HeaderTooLarge, "there must be no more than max_header_fields fields", nil}
	default:
		f = j.head.field(line, j.line-2-len(line)-j.start)
	}
	if f != nil && f.where == nil {
		f.where = line
	}
	j.head.lines++
	return true, f
}

// headEnded decides about the head as a whole and lets it go.
func (j *judge) headEnded() *flaw {
	h := &j.head
	if f := h.whole(j.buf[j.start:j.line]); f != nil {
		return f
	}
	if !h.websocket {
		for i := h.nUpgrades - 1; i >= 0; i-- {
			j.cut(j.start+int(h.upgrades[i].from), j.start+int(h.upgrades[i].to))
		}
	}
	j.ok, j.headTaken = j.line, true
	switch {
	case h.chunked:
		j.state = inChunkSize
	case h.length > 0:
		j.state, j.left = inLength, h.length
	default:
		j.state = atEnd
	}
	return nil
}

// cut takes bytes before the current line out of what is held.
func (j *judge) cut(from, to int) {
	copy(j.buf[from:], j.buf[to:j.w])
	d := to - from
	j.w, j.line, j.seek = j.w-d, j.line-d, j.seek-d
}

func (j *judge) badChunk(rule string) *flaw {
	return &flaw{http.StatusBadRequest, BadFraming, rule, j.buf[j.ok:min(j.w, j.ok+maxChunkLine)]}
}

// chunkSize judges a chunk's first line (RFC 9112, 7.1). Extensions are
// allowed, within reason; nobody is known to need them.
func (j *judge) chunkSize() (more bool, f *flaw) {
	line, found, f := j.nextLine()
	if f != nil {
		return false, f
	}
	if j.seek-j.ok > maxChunkLine {
		return false, j.badChunk("a chunk's first line must be short")
	}
	if !found {
		return false, nil
	}
	var n int64
	i := 0
	for ; i < len(line) && hexValue[line[i]] >= 0; i++ {
		n = n<<4 | int64(hexValue[line[i]])
	}
	if i == 0 || i > 15 {
		return false, j.badChunk("a chunk size must be 1 to 15 hexadecimal digits")
	}
	if i < len(line) && (line[i] != ';' || !validExtension(line[i:])) {
		return false, j.badChunk("a chunk size must be followed by CRLF or a well-formed extension")
	}
	j.excess = max(0, j.excess+int64(len(line))+2-16-2*n)
	if j.excess > maxExcess {
		return false, j.badChunk("chunks must not be mostly framing")
	}
	if n == 0 {
		// Held back until it is known how the body ends.
		j.state, j.trailer = inTrailer, j.line
		return true, nil
	}
	j.ok, j.state, j.left = j.line, inChunk, n
	return true, nil
}

// validExtension checks *( ";" token [ "=" ( token / quoted-string ) ] ).
func validExtension(b []byte) bool {
	for len(b) > 0 {
		if b[0] != ';' {
			return false
		}
		n := tokenLen(b[1:])
		if n == 0 {
			return false
		}
		b = b[1+n:]
		if len(b) == 0 || b[0] != '=' {
			continue
		}
		b = b[1:]
		if len(b) > 0 && b[0] == '"' {
			end := bytes.IndexByte(b[1:], '"')
			if end < 0 || !cleanValue(b[1:1+end]) || bytes.IndexByte(b[1:1+end], '\\') >= 0 {
				return false
			}
			b = b[end+2:]
			continue
		}
		if n = tokenLen(b); n == 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// trailerLine judges the trailer section and, at its end, drops it: nothing
// that came after the body may be taken for something that came before.
func (j *judge) trailerLine() (more bool, f *flaw) {
	line, found, f := j.nextLine()
	if f != nil {
		return false, f
	}
	if j.seek-j.trailer > maxTrailer {
		return false, j.badChunk("the trailer section must be short")
	}
	if !found {
		return false, nil
	}
	if len(line) > 0 {
		name, _, f := cutField(line)
		if f == nil && forbiddenTrailer(name) {
			f = &flaw{http.StatusBadRequest, BadFraming, "a trailer must not be a field that frames, routes, authenticates or describes the request (RFC 9110, 6.5.1)", line}
		}
		return true, f
	}
	j.cut(j.trailer, j.line-2)
	j.ok, j.state = j.line, atEnd
	return true, nil
}

// forbiddenTrailer reports whether a field means something that a recipient
// must know before the body.
func forbiddenTrailer(name []byte) bool {
	if len(name) > maxIdentityName || isIdentity(string(name)) {
		return true
	}
	switch strings.ToLower(strings.ReplaceAll(string(name), "_", "-")) {
	case "content-length", "transfer-encoding", "host", "connection", "keep-alive", "te", "trailer", "upgrade",
		"expect", "max-forwards", "range", "cache-control", "pragma", "if-match", "if-none-match", "if-modified-since",
		"if-unmodified-since", "if-range", "authorization", "proxy-authorization", "proxy-authenticate", "proxy-connection",
		"www-authenticate", "cookie", "set-cookie", "origin", "referer", "content-encoding", "content-type", "content-range",
		"http2-settings", "sec-fetch-site", "sec-websocket-key":
		return true
	}
	return false
}
