// Package traffic makes requests as browsers send them to a shop, of which no
// two are alike: paths, arguments, session cookies and bodies differ, while
// the rest of the header is what a browser repeats. The same seed makes the
// same requests.
//
// It is for benchmarks: the values are ordinary and few rules of a WAF have
// anything to say about them. It tells nothing about false alarms.
package traffic

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
)

// A Kind is one sort of request.
type Kind struct {
	Name   string
	Attack bool // whether a WAF is to refuse it
	make   func(*maker)
}

// Kinds are all there are.
func Kinds() []Kind {
	return []Kind{
		{"GET", false, (*maker).page},
		{"JSON 1 kB", false, (*maker).order},
		{"form 500 B", false, (*maker).settings},
		{"multipart 1.3 kB", false, (*maker).upload},
		{"SQLi GET", true, (*maker).injection},
	}
}

// A Stream makes requests of one kind.
type Stream struct {
	kind Kind
	m    maker
	same []byte // what is repeated; nil if every request differs
}

// Fresh returns a stream in which every request differs. Streams of different
// numbers have different requests.
func (k Kind) Fresh(seed, number uint64) *Stream {
	return &Stream{kind: k, m: maker{rand: rand.New(rand.NewPCG(seed, number))}}
}

// Repeat returns a stream that repeats one request.
func (k Kind) Repeat(seed uint64) *Stream {
	return &Stream{kind: k, same: bytes.Clone(k.Fresh(seed, 0).Next())}
}

// Next returns the next request as it is sent. It is valid until the next call.
func (s *Stream) Next() []byte {
	if s.same != nil {
		return s.same
	}
	s.m.wire.Reset()
	s.kind.make(&s.m)
	return s.m.wire.Bytes()
}

// Parse reads what Next returned as a server would; it keeps none of it.
func Parse(wire []byte) (*http.Request, error) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.Clone(wire))))
	if err != nil {
		return nil, err
	}
	r.RemoteAddr = "192.0.2.7:50124"
	return r, nil
}

// maker writes one request after the other.
type maker struct {
	rand *rand.Rand
	wire bytes.Buffer
	body bytes.Buffer
}

// page is a browser's navigation.
func (m *maker) page() {
	fmt.Fprintf(&m.wire, "GET %s?", m.path())
	for i := range 1 + m.rand.IntN(4) {
		if i > 0 {
			m.wire.WriteByte('&')
		}
		m.argument()
	}
	m.navigate()
	m.wire.WriteString("\r\n")
}

// injection asks a search page for more than it should tell.
func (m *maker) injection() {
	fmt.Fprintf(&m.wire, "GET %s?q=%s", m.path(), escape(m.attack()))
	m.navigate()
	m.wire.WriteString("\r\n")
}

// order is what a page's script sends: about 50 values.
func (m *maker) order() {
	b := &m.body
	b.Reset()
	fmt.Fprintf(b, `{"order":"%s","customer":{"name":"%s","mail":"%s","city":"%s"},"lines":[`, m.hex(8), m.name(), m.mail(), m.place())
	for i := range 11 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, `{"sku":"%s-%d","name":"%s %s","count":%d,"price":%d.%d0}`, m.hex(2), m.number(10_000), m.word(), m.word(), 1+m.number(9), 1+m.number(90), m.number(10))
	}
	fmt.Fprintf(b, `],"gift":%t,"note":"%s"}`, m.number(2) == 0, m.prose(12))
	fmt.Fprintf(&m.wire, "POST /api/orders/%d", m.number(1_000_000))
	m.call("application/json")
	m.finish()
}

// settings is a form of 20 fields.
func (m *maker) settings() {
	b := &m.body
	b.Reset()
	for i, field := range fields {
		if i > 0 {
			b.WriteByte('&')
		}
		fmt.Fprintf(b, "%s=%s", field, escape(m.value()))
	}
	fmt.Fprintf(&m.wire, "POST /account/%d/settings", m.number(1_000_000))
	m.navigate()
	m.wire.WriteString("Origin: http://" + host + "\r\nContent-Type: application/x-www-form-urlencoded\r\n")
	m.finish()
}

// upload is a form with one small file.
func (m *maker) upload() {
	boundary := "----WebKitFormBoundary" + m.hex(8)
	b := &m.body
	b.Reset()
	for _, field := range []string{"title", "album", "note"} {
		fmt.Fprintf(b, "--%s\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n", boundary, field, m.prose(3+m.number(5)))
	}
	fmt.Fprintf(b, "--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%s-%d.txt\"\r\nContent-Type: text/plain\r\n\r\n", boundary, m.word(), m.number(1000))
	for b.Len() < 1200 {
		fmt.Fprintf(b, "%s.\n", m.prose(8))
	}
	fmt.Fprintf(b, "\r\n--%s--\r\n", boundary)
	fmt.Fprintf(&m.wire, "POST /albums/%d", m.number(1_000_000))
	m.navigate()
	m.wire.WriteString("Origin: http://" + host + "\r\nContent-Type: multipart/form-data; boundary=" + boundary + "\r\n")
	m.finish()
}

// finish ends the header and adds the body.
func (m *maker) finish() {
	fmt.Fprintf(&m.wire, "Content-Length: %d\r\n\r\n", m.body.Len())
	m.wire.Write(m.body.Bytes())
}
