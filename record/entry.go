package record

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
)

// An Entry is one recorded request. Where a secret was, its text has "z" for
// every letter, "0" for every digit and "_" for everything else.
type Entry struct {
	Time       time.Time
	ID         string // as the client was told
	Remote     string // address and port of the connection
	TLS        bool
	ServerName string // that the TLS connection was made for
	Proto      string
	Method     string
	Target     string // as it stood in the request line
	Host       string
	Header     http.Header
	Chunked    bool
	Length     int64  // of the body as declared; -1 if it was not
	Body       []byte // nil unless Whole
	Whole      bool   // Body is recorded, or there is none
	Outcome    Outcome
}

// An Outcome is what became of a request.
type Outcome struct {
	Status   int           // that the client was sent; 0 if it was sent none
	Guard    string        // the guard that refused the request; empty if all let it pass
	Reason   merlon.Reason // why it did
	Findings []Finding     // what it saw
	Hidden   bool          // it refused for something that is not recorded
}

// A Finding is what a guard saw, without the value.
type Finding struct {
	Rule, Part string
}

// Bounds of one encoded entry: a head of a mebibyte, a body of another.
const (
	version  = 1
	maxEntry = 4 << 20
)

var errEntry = errors.New("record: not an entry of this version")

// headSize is about how much memory an entry takes without its body.
func (e *Entry) headSize() int64 {
	n := 512 + len(e.Target) + len(e.Host)
	for k, values := range e.Header {
		n += len(k) + 16
		for _, v := range values {
			n += len(v) + 16
		}
	}
	return int64(n)
}

// appendEntry appends e to b: a length and so many bytes.
func appendEntry(b []byte, e *Entry) []byte {
	p := []byte{version}
	text := func(s string) {
		p = binary.AppendUvarint(p, uint64(len(s)))
		p = append(p, s...)
	}
	flag := func(on bool) {
		if on {
			p = append(p, 1)
		} else {
			p = append(p, 0)
		}
	}
	p = binary.AppendVarint(p, e.Time.UnixNano())
	for _, s := range []string{e.ID, e.Remote, e.ServerName, e.Proto, e.Method, e.Target, e.Host} {
		text(s)
	}
	flag(e.TLS)
	flag(e.Chunked)
	flag(e.Whole)
	p = binary.AppendVarint(p, e.Length)
	p = binary.AppendUvarint(p, uint64(len(e.Header)))
	for _, k := range slices.Sorted(maps.Keys(e.Header)) {
		text(k)
		p = binary.AppendUvarint(p, uint64(len(e.Header[k])))
		for _, v := range e.Header[k] {
			text(v)
		}
	}
	text(string(e.Body))
	o := &e.Outcome
	p = binary.AppendVarint(p, int64(o.Status))
	text(o.Guard)
	text(string(o.Reason))
	flag(o.Hidden)
	p = binary.AppendUvarint(p, uint64(len(o.Findings)))
	for _, f := range o.Findings {
		text(f.Rule)
		text(f.Part)
	}
	b = binary.AppendUvarint(b, uint64(len(p)))
	return append(b, p...)
}

// A byteReader is what entries are read from.
type byteReader interface {
	io.Reader
	io.ByteReader
}

// readEntry reads what appendEntry wrote. The error is io.EOF at the end.
func readEntry(r byteReader) (Entry, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return Entry{}, err
	}
	if n > maxEntry {
		return Entry{}, errEntry
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Entry{}, err
	}
	return parseEntry(p)
}

// fields reads the parts of an entry. After the first mistake every part is
// empty.
type fields struct {
	p   []byte
	bad bool
}

func (f *fields) fail() { f.p, f.bad = nil, true }

func (f *fields) uint() uint64 {
	v, n := binary.Uvarint(f.p)
	if n <= 0 {
		f.fail()
		return 0
	}
	f.p = f.p[n:]
	return v
}

func (f *fields) int() int64 {
	v, n := binary.Varint(f.p)
	if n <= 0 {
		f.fail()
		return 0
	}
	f.p = f.p[n:]
	return v
}

func (f *fields) text() string {
	n := f.uint()
	if n > uint64(len(f.p)) {
		f.fail()
		return ""
	}
	s := string(f.p[:n])
	f.p = f.p[n:]
	return s
}

func (f *fields) flag() bool {
	v := f.uint()
	if v > 1 {
		f.fail()
	}
	return v == 1
}

// count reads how many things follow, each of at least one byte.
func (f *fields) count() int {
	n := f.uint()
	if n > uint64(len(f.p)) {
		f.fail()
		return 0
	}
	return int(n)
}

func parseEntry(p []byte) (Entry, error) {
	if len(p) == 0 || p[0] != version {
		return Entry{}, errEntry
	}
	f := &fields{p: p[1:]}
	e := Entry{Time: time.Unix(0, f.int()).UTC(), Header: http.Header{}}
	for _, s := range []*string{&e.ID, &e.Remote, &e.ServerName, &e.Proto, &e.Method, &e.Target, &e.Host} {
		*s = f.text()
	}
	e.TLS, e.Chunked, e.Whole = f.flag(), f.flag(), f.flag()
	e.Length = f.int()
	for range f.count() {
		k := f.text()
		if _, twice := e.Header[k]; twice {
			f.fail()
			break
		}
		values := make([]string, f.count())
		for i := range values {
			values[i] = f.text()
		}
		e.Header[k] = values
	}
	if b := f.text(); b != "" {
		e.Body = []byte(b)
	}
	o := &e.Outcome
	o.Status, o.Guard, o.Reason, o.Hidden = int(f.int()), f.text(), merlon.Reason(f.text()), f.flag()
	for range f.count() {
		o.Findings = append(o.Findings, Finding{f.text(), f.text()})
	}
	if f.bad || len(f.p) > 0 {
		return Entry{}, errEntry
	}
	return e, nil
}

// Request returns what net/http made of the request, for it to be judged
// again. If the body was not recorded there is none, but the declared length
// stands.
func (e *Entry) Request() (*http.Request, error) {
	target := e.Target
	authority := e.Method == http.MethodConnect && !strings.HasPrefix(target, "/")
	if authority {
		target = "http://" + target
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", e.ID, err)
	}
	if authority {
		u.Scheme = ""
	}
	major, minor, _ := http.ParseHTTPVersion(e.Proto)
	hr := &http.Request{
		Method: e.Method, URL: u, RequestURI: e.Target, Host: e.Host, Header: e.Header.Clone(),
		Proto: e.Proto, ProtoMajor: major, ProtoMinor: minor,
		RemoteAddr: e.Remote, Body: http.NoBody, ContentLength: e.Length,
	}
	if e.TLS {
		hr.TLS = &tls.ConnectionState{ServerName: e.ServerName, HandshakeComplete: true}
	}
	if e.Chunked {
		hr.TransferEncoding = []string{"chunked"}
	}
	if len(e.Body) > 0 {
		hr.Body = io.NopCloser(bytes.NewReader(e.Body))
		if e.Length >= 0 {
			hr.ContentLength = int64(len(e.Body)) // shorter if a file was left out
		}
	}
	return hr, nil
}
