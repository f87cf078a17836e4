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
	sortByName(to[start:])
	return to
}

// sortByName sorts fields, and keeps those of one name in order. Most headers
// are short, and most names differ in their first eight bytes.
func sortByName(list []message.Pair) {
	var heads [40]uint64
	if len(list) > len(heads) {
		slices.SortStableFunc(list, func(a, b message.Pair) int { return strings.Compare(a.Name, b.Name) })
		return
	}
	for i, p := range list {
		head, k := headOf(p.Name), i
		for ; k > 0 && (head < heads[k-1] || head == heads[k-1] && p.Name < list[k-1].Name); k-- {
			heads[k], list[k] = heads[k-1], list[k-1]
		}
		heads[k], list[k] = head, p
	}
}

// headOf is the first eight bytes of a name as a number, which is in the same
// order.
func headOf(name string) (n uint64) {
	for i := range 8 {
		n <<= 8
		if i < len(name) {
			n |= uint64(name[i])
		}
	}
	return n
}
