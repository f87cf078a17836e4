package limit

import (
	"fmt"
	"io"
	"net/http"

	"github.com/merlon-dev/merlon"
)

// tooLarge refuses a body of at least n bytes. The connection is closed, since
// the client may be sending the rest already.
func (g *Guard) tooLarge(n int64) refusal {
	d := merlon.Refuse(http.StatusRequestEntityTooLarge, BodyTooLarge)
	d.Close = true
	d.Findings = []merlon.Finding{{
		Rule: "body", Part: "body", Value: fmt.Sprint(n),
		Message: fmt.Sprintf("longer than %s", merlon.Size(g.body)),
	}}
	return refusal(d)
}

func (g *Guard) declaredTooLarge(n int64) refusal {
	d := g.tooLarge(n)
	d.Remedy = fmt.Sprintf("limit:\n  body: %s", merlon.Size(n))
	return d
}

// watchBody cuts off a body of undeclared length where it passes the bound.
func (g *Guard) watchBody(r *merlon.Request) {
	r.WrapBody(func(body io.ReadCloser, refuse func(merlon.Decision) error) io.ReadCloser {
		return &boundedBody{ReadCloser: body, left: g.body, over: func() error {
			return refuse(g.tooLarge(g.body + 1).with(nil))
		}}
	})
}

// A boundedBody delivers no byte beyond the bound unless over lets it.
type boundedBody struct {
	io.ReadCloser
	left int64
	over func() error
	free bool // over has let it: the guard is only monitored
	err  error
}

// Read delivers what is within the bound, then asks.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	if b.free || int64(n) <= b.left {
		b.left -= int64(n)
		return n, err
	}
	if b.err = b.over(); b.err != nil {
		return int(b.left), b.err
	}
	b.free = true
	return n, err
}
