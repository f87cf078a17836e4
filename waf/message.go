package waf

import (
	"net/http"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

func newMessage(r *merlon.Request) *message.Request {
	m := &message.Request{
		Client: r.Client.String(),
		Method: r.Method,
		URI:    r.RequestURI,
		Proto:  r.Proto,
		Host:   r.Host,
	}
	if !r.Client.IsValid() {
		m.Client = ""
	}
	if m.URI == "" {
		m.URI = r.URL.RequestURI()
	}
	m.Header = make([]message.Pair, 0, len(r.Header)+2)
	// net/http keeps these two apart from the others.
	if r.Host != "" {
		m.Header = append(m.Header, message.Pair{Name: "Host", Value: r.Host})
	}
	m.Header = appendHeader(m.Header, r.Header)
	for _, te := range r.TransferEncoding {
		m.Header = append(m.Header, message.Pair{Name: "Transfer-Encoding", Value: te})
	}
	return m
}

// appendHeader adds every field in a fixed order, so that the same request is
// always judged in the same way.
func appendHeader(to []message.Pair, h http.Header) []message.Pair {
	start := len(to)
	for k, values := range h {
		for _, v := range values {
			to = append(to, message.Pair{Name: k, Value: v})
		}
	}
	slices.SortStableFunc(to[start:], func(a, b message.Pair) int { return strings.Compare(a.Name, b.Name) })
	return to
}
