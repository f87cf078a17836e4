package waf

import (
	"net/http"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon"
)

// An evaluator applies a rule set to messages. It is told what was parsed,
// and parses only the request line and the Cookie field itself.
type evaluator interface {
	// request judges a request. The exchange must be closed, also when the
	// request was denied; it is nil if there is an error.
	request(m *message) (exchange, verdict, error)
}

// An exchange is what the rules remember of a request until its answer.
type exchange interface {
	// response judges an answer. body is nil where it is not to be judged.
	response(a *answer) (verdict, error)
	close()
}

// A message is a request as the rules see it.
type message struct {
	client string
	port   int
	method string
	uri    string // as sent
	proto  string
	host   string
	header []pair
	body   body
}

// An answer is a response as the rules see it.
type answer struct {
	status int
	proto  string
	header []pair
	body   []byte
}

// A pair is a name and a value. Repeated names are repeated pairs.
type pair struct{ name, value string }

// A body is a request's body as the rules see it: parsed, and only as far as
// it has been read.
type body struct {
	kind  kind
	text  []byte // of a form or text: the whole of it
	args  []pair // form fields, JSON leaves, multipart fields
	attrs []string
	texts []string // XML
	parts []part   // multipart
}

// A verdict is what the rules say.
type verdict struct {
	deny      bool
	by        int // the denying rule
	score     int
	threshold int
	hits      []hit
}

// A hit is a rule that matched and had a say in the verdict.
type hit struct {
	rule    int
	score   int // added to the anomaly score; 0 for rules that only deny
	message string
	spots   []spot
}

// A spot is where a rule matched.
type spot struct {
	target Target // empty if nothing in the message
	name   string
	value  string
	head   bool // matched by the rule's own first condition, so it can be excluded
}

func newMessage(r *merlon.Request) *message {
	m := &message{
		client: r.Client.String(),
		method: r.Method,
		uri:    r.RequestURI,
		proto:  r.Proto,
		host:   r.Host,
	}
	if !r.Client.IsValid() {
		m.client = ""
	}
	if m.uri == "" {
		m.uri = r.URL.RequestURI()
	}
	m.header = make([]pair, 0, len(r.Header)+2)
	// net/http keeps these two apart from the others.
	if r.Host != "" {
		m.header = append(m.header, pair{"Host", r.Host})
	}
	m.header = appendHeader(m.header, r.Header)
	for _, te := range r.TransferEncoding {
		m.header = append(m.header, pair{"Transfer-Encoding", te})
	}
	return m
}

// appendHeader adds every field in a fixed order, so that the same request is
// always judged in the same way.
func appendHeader(to []pair, h http.Header) []pair {
	start := len(to)
	for k, values := range h {
		for _, v := range values {
			to = append(to, pair{k, v})
		}
	}
	slices.SortStableFunc(to[start:], func(a, b pair) int { return strings.Compare(a.name, b.name) })
	return to
}
