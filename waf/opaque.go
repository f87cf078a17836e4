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
	for _, most := range []int64{firstLook, g.limit} {
		head, whole, err := r.Peek(most)
		if err != nil {
			d := merlon.BodyFailed(err)
			return seen{}, &d
		}
		doc, rest, unfinished := body.Document(head)
		if unfinished && !whole {
			continue
		}
		if doc == nil {
			return unread, nil
		}
		m.Body.Kind = message.JSON
		if err := body.AddDocument(&m.Body, doc, g.arguments); err != nil {
			return seen{}, g.unparsable(err)
		}
		return seen{partly: !whole || len(rest) > 0, inspected: int64(len(doc)), total: r.ContentLength}, nil
	}
	return seen{}, g.tooLarge(r.ContentLength)
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
