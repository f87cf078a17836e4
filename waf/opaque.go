package waf

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf/internal/body"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// firstLook is how much of an opaque body is looked at to tell that it is
// none.
const firstLook = 4 << 10

// readOpaque leaves a body unread that has a type without text. Many
// applications read JSON whatever its type says, so that what is JSON all the
// same is judged as that.
func (g *Guard) readOpaque(r *merlon.Request, m *message.Request) (seen, *merlon.Decision) {
	unread := seen{partly: true, total: r.ContentLength}
	if media, _, _ := strings.Cut(strings.ToLower(r.Header.Get("Content-Type")), ";"); strings.HasPrefix(strings.TrimSpace(media), "application/grpc") {
		// Its client may wait for the answer's beginning before it sends anything.
		r.WrapBody(func(src io.ReadCloser, refuse func(merlon.Decision) error) io.ReadCloser {
			return &frames{ReadCloser: src, refuse: refuse}
		})
		return unread, nil
	}
	if r.Header["Expect"] != nil {
		// It is the backend that tells the client to go on, or does not.
		r.WrapBody(func(src io.ReadCloser, refuse func(merlon.Decision) error) io.ReadCloser {
			return &awaited{ReadCloser: src, refuse: refuse, guard: g, request: *m}
		})
		return unread, nil
	}
	return g.readDocument(m, r.ContentLength, r.Peek)
}

// readDocument reads the JSON document that a body begins with, if it does.
// What peek returns is as from [merlon.Request.Peek].
func (g *Guard) readDocument(m *message.Request, length int64, peek func(limit int64) (head []byte, whole bool, err error)) (seen, *merlon.Decision) {
	for _, most := range []int64{firstLook, g.limit} {
		head, whole, err := peek(most)
		if err != nil {
			d := merlon.BodyFailed(err)
			return seen{}, &d
		}
		doc, rest, unfinished := body.Document(head)
		if unfinished && !whole {
			continue
		}
		if doc == nil {
			return seen{partly: true, total: length}, nil
		}
		m.Body.Kind = message.JSON
		if err := body.AddDocument(&m.Body, doc, g.arguments); err != nil {
			return seen{}, g.unparsable(err)
		}
		return seen{partly: !whole || len(rest) > 0, inspected: int64(len(doc)), total: length}, nil
	}
	return seen{}, g.tooLarge(length)
}

// awaited is the body of a client that sends it once it is told to go on. It
// is judged when the first of it is wanted: the document it begins with is held
// back until then, up to the guard's limit.
type awaited struct {
	io.ReadCloser
	refuse  func(merlon.Decision) error
	guard   *Guard
	request message.Request

	judged bool
	head   []byte // read, and not delivered
	err    error  // what ended the reading, or refused the rest
}

func (a *awaited) Read(p []byte) (int, error) {
	if !a.judged {
		a.judged = true
		a.judge()
	}
	if len(a.head) > 0 {
		n := copy(p, a.head)
		a.head = a.head[n:]
		return n, nil
	}
	if a.err != nil {
		return 0, a.err
	}
	return a.ReadCloser.Read(p)
}

// peek is [merlon.Request.Peek] for a body that is read later.
func (a *awaited) peek(limit int64) (head []byte, whole bool, err error) {
	if a.err == nil {
		var more []byte
		more, a.err = io.ReadAll(io.LimitReader(a.ReadCloser, limit+1-int64(len(a.head))))
		a.head = append(a.head, more...)
		if a.err == nil && int64(len(a.head)) <= limit {
			a.err = io.EOF
		}
	}
	if a.err != nil && a.err != io.EOF {
		return nil, false, a.err
	}
	return a.head[:min(limit, int64(len(a.head)))], a.err == io.EOF, nil
}

func (a *awaited) judge() {
	_, d := a.guard.readDocument(&a.request, 0, a.peek)
	if a.err != nil && a.err != io.EOF {
		a.head = nil // the error is the client's, and told as that
		return
	}
	if d == nil && a.request.Body.Kind == message.JSON {
		x, v, err := a.guard.engine.Request(&a.request)
		switch {
		case err != nil:
			unable := merlon.Unable(err)
			d = &unable
		case v.Deny:
			denied := a.guard.denied(&a.request, v)
			d = &denied
		}
		if err == nil {
			x.Close()
		}
	}
	if d == nil {
		return
	}
	d.Close = true
	if err := a.refuse(*d); err != nil {
		a.head, a.err = nil, err
	}
}

// frames is the body of a gRPC request on its way to the upstream. Its first
// byte is a flag, or base64: what begins as JSON does is no gRPC.
type frames struct {
	io.ReadCloser
	refuse func(merlon.Decision) error
	seen   bool
	err    error
}

func (f *frames) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.ReadCloser.Read(p)
	if n > 0 && !f.seen {
		f.seen = true
		if bytes.IndexByte([]byte("{[\" \t\r\n\xef"), p[0]) >= 0 {
			d := refuse(http.StatusBadRequest, Malformed, errors.New("is no gRPC, as its type says, but text"))
			d.Findings = []merlon.Finding{{Part: "body", Message: d.Err.Error()}}
			if f.err = f.refuse(*d); f.err != nil {
				return 0, f.err
			}
		}
	}
	return n, err
}
