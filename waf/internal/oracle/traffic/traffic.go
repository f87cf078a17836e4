// Package traffic makes messages to compare engines by: of requests on the
// wire, of payloads put into every place of a request and changed in the ways
// that attackers change them, of ordinary use, and of patterns.
//
// All that is random comes from a seed. Nothing in it judges.
package traffic

import (
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/body"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// client is where requests come from.
const client = "192.0.2.1"

// A Reader makes messages of requests as net/http reads them.
type Reader struct{ types *body.Types }

// NewReader knows the types of bodies that are accepted by default.
func NewReader() (*Reader, error) {
	t, err := body.NewTypes(nil)
	if err != nil {
		return nil, err
	}
	return &Reader{t}, nil
}

// Request reads a request as the guard does, but refuses nothing: a body of
// no known type is read as text, and one that is malformed as far as it can be.
func (r *Reader) Request(hr *http.Request) (*message.Request, error) {
	m := &message.Request{Client: client, Port: 40000, Method: hr.Method, URI: hr.RequestURI, Proto: hr.Proto, Host: hr.Host}
	if hr.Host != "" {
		m.Header = append(m.Header, message.Pair{Name: "Host", Value: hr.Host})
	}
	start := len(m.Header)
	for k, values := range hr.Header {
		for _, v := range values {
			m.Header = append(m.Header, message.Pair{Name: k, Value: v})
		}
	}
	slices.SortStableFunc(m.Header[start:], func(a, b message.Pair) int { return strings.Compare(a.Name, b.Name) })
	for _, te := range hr.TransferEncoding {
		m.Header = append(m.Header, message.Pair{Name: "Transfer-Encoding", Value: te})
	}
	text, err := io.ReadAll(hr.Body)
	if err != nil || len(text) == 0 {
		return m, err
	}
	r.body(&m.Body, hr, text)
	return m, nil
}

const bodyLimit = 1 << 20

func (r *Reader) body(b *message.Body, hr *http.Request, text []byte) {
	kind, boundary, err := r.types.Kind(hr.Header.Get("Content-Type"))
	if err != nil {
		kind = message.Text
	}
	if coding, err := body.Coding(hr.Header["Content-Encoding"]); err == nil && coding != "" {
		if plain, err := body.Decode(coding, text, bodyLimit); err == nil {
			text = plain
		}
	}
	b.Kind = kind
	_ = body.Parse(b, text, body.Options{Boundary: boundary, Limit: bodyLimit, Most: 1000}) // as far as it can be read
}

// Payloads are the values in requests, each once: arguments, as they are sent
// and decoded, cookies, header fields and paths.
func Payloads(requests []*message.Request) []string {
	seen := map[string]bool{}
	var out []string
	add := func(s string) {
		if s != "" && len(s) < 4000 && !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	fields := func(s string) {
		for field := range strings.SplitSeq(s, "&") {
			_, v, _ := strings.Cut(field, "=")
			add(v)
			add(unescape(v))
		}
	}
	for _, m := range requests {
		path, query, _ := strings.Cut(m.URI, "?")
		add(unescape(path))
		fields(query)
		for _, h := range m.Header {
			switch h.Name {
			case "Cookie":
				for c := range strings.SplitSeq(h.Value, ";") {
					_, v, _ := strings.Cut(c, "=")
					add(v)
				}
			case "Host", "Accept", "Connection", "Content-Length":
			default:
				add(h.Value)
			}
		}
		add(m.Body.Text)
		for _, a := range m.Body.Args {
			add(a.Name)
			add(a.Value)
		}
		for _, s := range slices.Concat(m.Body.Attrs, m.Body.Texts) {
			add(s)
		}
		for _, p := range m.Body.Parts {
			for _, s := range p.FileNames {
				add(s)
			}
		}
	}
	return out
}

// unescape decodes what can be decoded.
func unescape(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			b = append(b, ' ')
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}
