package waf

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/andybalholm/brotli"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf/internal/body"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// responseWait is how long an answer of unknown length is held back until
// enough of it is there to be judged. Answers that trickle are streams.
const responseWait = 2 * time.Second

func (g *Guard) judgeResponse(r *merlon.Request, x *exchange, res *http.Response) merlon.Decision {
	a := &message.Response{Status: res.StatusCode, Proto: res.Proto, Header: appendHeader(nil, res.Header)}
	whole, coding := true, ""
	if judged(res) {
		var head []byte
		head, whole = holdBack(res)
		coding, _ = body.Coding(res.Header["Content-Encoding"])
		a.Body, coding = inflate(head, coding)
		a.Header = plainHeader(a.Header)
		whole = whole && len(a.Body) < responseLimit
	}
	v, err := x.rules.Response(a)
	if err != nil {
		return merlon.Unable(err)
	}
	if v.Deny {
		d := merlon.Refuse(http.StatusBadGateway, ResponseLeak)
		d.Findings = describe(v, responsePart)
		d.Remedy = remedy(v)
		return disputed(d, v)
	}
	d := passed(ResponseClean, v)
	if whole {
		return d
	}
	if rules, ok := x.rules.(message.Continuer); ok {
		g.watchRest(r, res, x, rules, a.Body, coding)
		return d
	}
	d.Findings = append(d.Findings, inspected(int64(len(a.Body)), res.ContentLength, coding != "", "the rest passed uninspected: this engine judges beginnings"))
	return d
}

// plainHeader describes the body as the rules get it: not compressed, its type
// spelt as they compare it.
func plainHeader(h []message.Pair) []message.Pair {
	h = slices.DeleteFunc(h, func(p message.Pair) bool { return p.Name == "Content-Encoding" })
	for i, p := range h {
		if p.Name == "Content-Type" {
			media, rest, _ := strings.Cut(p.Value, ";")
			h[i].Value = strings.ToLower(strings.TrimSpace(media)) + ";" + rest
		}
	}
	return h
}

func responsePart(s message.Spot) string {
	if s.Target == Response && s.Name != "" {
		return "header of the answer"
	}
	return "answer"
}

// judged reports whether an answer's body is to be held back: text that people
// read (CRS's list), of a coding that is understood, and not a stream.
func judged(res *http.Response) bool {
	if res.Body == nil || res.Body == http.NoBody || res.ContentLength == 0 || res.StatusCode < 200 {
		return false
	}
	if res.Request != nil && res.Request.Method == http.MethodHead || res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified {
		return false
	}
	media, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(media)) {
	case "text/html", "text/plain", "text/xml":
	default:
		return false
	}
	coding, err := body.Coding(res.Header["Content-Encoding"])
	return err == nil && (coding == "" || coding == "br" || strings.HasSuffix(coding, "gzip"))
}

// holdBack reads the beginning of an answer and puts it back in its place.
func holdBack(res *http.Response) (head []byte, whole bool) {
	if res.ContentLength > 0 {
		head = make([]byte, min(res.ContentLength, responseLimit))
		n, _ := io.ReadFull(res.Body, head) // an error comes again when the rest is read
		head = head[:n]
		res.Body = &joined{bytes.NewReader(head), res.Body}
		return head, int64(len(head)) == res.ContentLength
	}
	p := newPump(res.Body)
	head, whole = p.collect(responseLimit, responseWait)
	res.Body = p
	return head, whole
}

// joined is a body whose head has been read.
type joined struct {
	head *bytes.Reader
	rest io.ReadCloser
}

func (j *joined) Read(p []byte) (int, error) {
	if j.head.Len() > 0 {
		return j.head.Read(p)
	}
	return j.rest.Read(p)
}

func (j *joined) Close() error { return j.rest.Close() }

// A pump reads a body in a goroutine of its own, one piece ahead, so that
// whoever waits for it can stop waiting.
type pump struct {
	body   io.ReadCloser
	pieces chan piece
	stop   chan struct{}
	head   []byte // collected, not delivered
	err    error  // after head
}

type piece struct {
	b   []byte
	err error
}

func newPump(body io.ReadCloser) *pump {
	p := &pump{body: body, pieces: make(chan piece), stop: make(chan struct{})}
	go func() {
		for {
			b := make([]byte, 32<<10)
			n, err := body.Read(b)
			select {
			case p.pieces <- piece{b[:n], err}:
			case <-p.stop:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return p
}

// collect waits for the body's first bytes, but not longer than that.
func (p *pump) collect(most int, wait time.Duration) (head []byte, whole bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for len(p.head) < most && p.err == nil {
		select {
		case next := <-p.pieces:
			p.head, p.err = append(p.head, next.b...), next.err
		case <-timer.C:
			return p.head, false
		}
	}
	return p.head, p.err == io.EOF
}

// waits reports whether there will be something to read before long.
func (p *pump) waits(most time.Duration) bool {
	if len(p.head) > 0 || p.err != nil {
		return true
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case next := <-p.pieces:
		p.head, p.err = next.b, next.err
		return true
	case <-p.stop:
		return true
	case <-timer.C:
		return false
	}
}

func (p *pump) Read(b []byte) (int, error) {
	for len(p.head) == 0 && p.err == nil {
		select {
		case next := <-p.pieces:
			p.head, p.err = next.b, next.err
		case <-p.stop:
			return 0, http.ErrBodyReadAfterClose
		}
	}
	if len(p.head) == 0 {
		return 0, p.err
	}
	n := copy(b, p.head)
	p.head = p.head[n:]
	return n, nil
}

func (p *pump) Close() error {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	return p.body.Close()
}

// inflate decompresses as much of an answer as is judged at once. What cannot
// be is judged as it stands, without coding.
func inflate(b []byte, coding string) (text []byte, as string) {
	var r io.Reader
	switch coding {
	case "br":
		r = brotli.NewReader(bytes.NewReader(b))
	case "gzip", "x-gzip":
		zr, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return b, ""
		}
		r = zr
	default:
		return b[:min(len(b), responseLimit)], ""
	}
	plain, err := io.ReadAll(io.LimitReader(r, responseLimit))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && len(plain) == 0 {
		return b, ""
	}
	return plain, coding
}
