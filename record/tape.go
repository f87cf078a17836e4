package record

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// A Tape is one request while it is recorded. The methods do nothing on a nil
// Tape.
type Tape struct {
	r     *Recorder
	entry Entry
	kind  kind

	mu    sync.Mutex // the transport may still read the body when the answer has ended
	body  []byte
	held  int64 // bytes set aside for this tape
	ended bool
	whole bool // the body was read to its end
	over  bool // the body is not recorded
}

func newTape(r *Recorder, hr *http.Request) *Tape {
	t := &Tape{r: r, kind: kindOf(hr.Header), entry: Entry{
		Time: time.Now().UTC(), Remote: hr.RemoteAddr, TLS: hr.TLS != nil, Proto: hr.Proto,
		Method: hr.Method, Target: hr.RequestURI, Host: hr.Host, Header: hr.Header.Clone(),
		Length: hr.ContentLength, Chunked: len(hr.TransferEncoding) > 0,
	}}
	if hr.TLS != nil {
		t.entry.ServerName = hr.TLS.ServerName
	}
	t.whole = hr.Body == nil || hr.Body == http.NoBody || hr.ContentLength == 0
	t.over = !t.whole && (t.kind == noKind || hr.ContentLength > int64(r.c.Body))
	return t
}

// Body returns a body that is recorded as it is read.
func (t *Tape) Body(body io.ReadCloser) io.ReadCloser {
	if t == nil || t.whole || t.over || body == nil {
		return body
	}
	return &tapedBody{body, t}
}

type tapedBody struct {
	io.ReadCloser
	t *Tape
}

func (b *tapedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.t.saw(p[:n], err == io.EOF)
	return n, err
}

func (t *Tape) saw(p []byte, end bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.over {
		return
	}
	n := int64(len(p))
	if int64(len(t.body))+n > int64(t.r.c.Body) || !t.r.hold(n) {
		t.over, t.body = true, nil
		t.release()
		return
	}
	t.held += n
	t.body = append(t.body, p...)
	t.whole = t.whole || end || int64(len(t.body)) == t.entry.Length
}

func (t *Tape) release() {
	t.r.held.Add(-t.held)
	t.held = 0
}

// End hands the request over to be written, with what became of it. It does
// not wait.
func (t *Tape) End(id string, o Outcome) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.entry.ID, t.entry.Outcome = id, o
	if t.entry.Whole = t.whole && !t.over; t.entry.Whole {
		t.entry.Body = t.body
	}
	t.body = nil
	head := t.entry.headSize()
	if !t.r.hold(head) {
		t.lose()
		return
	}
	t.held += head
	if t.r.closed.Load() {
		t.lose()
		return
	}
	select {
	case t.r.queue <- t:
	default:
		t.lose()
	}
}

func (t *Tape) lose() {
	t.release()
	t.r.lost.Add(1)
}
