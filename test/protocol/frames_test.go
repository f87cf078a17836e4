package protocol_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/merlon-dev/merlon/test/harness"
)

// A frameConn is an HTTP/2 connection that sends whatever it is told to.
type frameConn struct {
	*http2.Framer
	conn  *tls.Conn
	block bytes.Buffer
	enc   *hpack.Encoder
}

func dialFrames(t testing.TB, m *harness.Merlon, ca *x509.CertPool) *frameConn {
	t.Helper()
	conn, err := tls.Dial("tcp", m.HTTPS, &tls.Config{RootCAs: ca, ServerName: "localhost", NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := &frameConn{Framer: http2.NewFramer(conn, conn), conn: conn}
	c.AllowIllegalWrites = true
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.block)
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

// encode returns fields, written "name: value", as a header block.
func (c *frameConn) encode(fields ...string) []byte {
	c.block.Reset()
	for _, f := range fields {
		i := strings.Index(f[1:], ": ") + 1
		_ = c.enc.WriteField(hpack.HeaderField{Name: f[:i], Value: f[i+2:]}) // a buffer takes everything
	}
	return bytes.Clone(c.block.Bytes())
}

// request sends a request on a stream. Errors are left to outcome: the gateway
// may hang up in the middle of it.
func (c *frameConn) request(stream uint32, data string, fields ...string) {
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.encode(fields...), EndHeaders: true, EndStream: data == ""})
	if data != "" {
		_ = c.WriteData(stream, true, []byte(data))
	}
}

// outcome reads what becomes of a stream: the status of an answer, "reset" or
// "closed".
func (c *frameConn) outcome(stream uint32) string {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			if errors.Is(err, io.EOF) || strings.Contains(err.Error(), "reset by peer") {
				return "closed"
			}
			return err.Error()
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			return "closed"
		case *http2.RSTStreamFrame:
			if f.StreamID == stream && f.ErrCode != http2.ErrCodeNo {
				return "reset"
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream {
				return f.PseudoValue("status")
			}
		}
	}
}

// counted is a backend's view: requests that began, and those that it could
// read to their end.
type counted struct{ began, whole atomic.Int64 }

func (n *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.began.Add(1)
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	n.whole.Add(1)
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, "hello")
}

// A request that is malformed as HTTP/2 reaches no backend, whichever way it is
// refused; what differs from it by the malformed part alone passes.
func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	var seen counted
	m := harness.Serve(t, harness.Options{}, "--upstream", backend(t, seen.ServeHTTP).URL)
	ca := m.CA(t)
	get := []string{":method: GET", ":scheme: https", ":path: /", ":authority: localhost"}
	post := []string{":method: POST", ":scheme: https", ":path: /", ":authority: localhost", "content-type: application/x-www-form-urlencoded"}
	opaque := []string{":method: POST", ":scheme: https", ":path: /", ":authority: localhost", "content-type: application/octet-stream"}
	good := int64(0)
	with := func(base []string, more ...string) []string { return append(base[:len(base):len(base)], more...) }
	for _, tt := range []struct {
		name   string
		fields []string
		data   string
		want   string // outcomes, any of them
	}{
		{"a request", get, "", "200"},
		{"a form", with(post, "content-length: 4"), "a=bc", "200"},
		{"a file", with(opaque, "content-length: 4"), "a=bc", "200"},
		{"TE: trailers", with(get, "te: trailers"), "", "200"},
		{"a form longer than it says", with(post, "content-length: 1"), "a=bc", "reset closed"},
		{"a form shorter than it says", with(post, "content-length: 10"), "a=bc", "reset closed 400"},
		{"a length that is none", with(post, "content-length: +4"), "a=bc", "reset closed 400 403"},
		{"a name in upper case", with(get, "X-Upper: 1"), "", "reset closed"},
		{"Connection", with(get, "connection: keep-alive"), "", "reset closed 400"},
		{"Keep-Alive", with(get, "keep-alive: timeout=5"), "", "reset closed 400"},
		{"Proxy-Connection", with(get, "proxy-connection: keep-alive"), "", "reset closed 400"},
		{"Transfer-Encoding", with(post, "transfer-encoding: chunked"), "0\r\n\r\n", "reset closed 400"},
		{"Upgrade", with(get, "upgrade: websocket"), "", "reset closed 400"},
		{"TE: gzip", with(get, "te: gzip"), "", "reset closed 400"},
		{"CR and LF in a value", with(get, "x-a: 1\r\nx-b: 2"), "", "reset closed"},
		{"LF in a value", with(get, "x-a: 1\nx-b: 2"), "", "reset closed"},
		{"NUL in a value", with(get, "x-a: 1\x00"), "", "reset closed"},
		{"a space in a name", with(get, "x a: 1"), "", "reset closed"},
		{"LF in the path", []string{get[0], get[1], ":path: /\nx: y", get[3]}, "", "reset closed 400"},
		{"LF in the method", []string{":method: GET / HTTP/1.1\nx:", get[1], get[2], get[3]}, "", "reset closed 400"},
		{"LF in the authority", []string{get[0], get[1], get[2], ":authority: localhost\nx: y"}, "", "reset closed 400 421"},
		{"an authority with user information", []string{get[0], get[1], get[2], ":authority: me@localhost"}, "", "reset closed 400 421"},
		{"two authorities", with(get, ":authority: other"), "", "reset closed"},
		{"two equal authorities", with(get, get[3]), "", "reset closed"},
		{"two paths", with(get, ":path: /admin"), "", "reset closed"},
		{"no path", []string{get[0], get[1], get[3]}, "", "reset closed"},
		{"an empty path", []string{get[0], get[1], ":path: ", get[3]}, "", "reset closed 400"},
		{"a path without its slash", []string{get[0], get[1], ":path: admin", get[3]}, "", "reset closed 400"},
		{"no method", get[1:], "", "reset closed"},
		{"no scheme", []string{get[0], get[2], get[3]}, "", "reset closed"},
		{"an unknown pseudo-header", with(get, ":admin: 1"), "", "reset closed"},
		{"a pseudo-header of answers", with(get, ":status: 200"), "", "reset closed"},
		{"a pseudo-header after a field", []string{get[0], get[1], get[2], "x-a: 1", get[3]}, "", "reset closed"},
		// These two come last: they may begin at the backend behind their outcome.
		{"a file longer than it says", with(opaque, "content-length: 1"), "a=bc", "reset closed"},
		{"a file shorter than it says", with(opaque, "content-length: 10"), "a=bc", "reset closed 400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			began, whole := seen.began.Load(), seen.whole.Load()
			if tt.want == "200" {
				good++
			}
			c := dialFrames(t, m, ca)
			c.request(1, tt.data, tt.fields...)
			got := c.outcome(1)
			if !strings.Contains(" "+tt.want+" ", " "+got+" ") {
				t.Errorf("%s, want one of: %s", got, tt.want)
			}
			began, whole = seen.began.Load()-began, seen.whole.Load()-whole
			if tt.want == "200" && whole != 1 || tt.want != "200" && whole != 0 {
				t.Errorf("the backend read %d requests", whole)
			}
			// An opaque body streams: its beginning may be on its way when
			// its length turns out wrong.
			if tt.want != "200" && began != 0 && !strings.HasPrefix(tt.name, "a file") {
				t.Errorf("%d requests began at the backend", began)
			}
		})
	}
	time.Sleep(100 * time.Millisecond) // for what is still on its way
	if n := seen.whole.Load(); n != good {
		t.Errorf("the backend read %d requests, want %d", n, good)
	}
}

// What net/http does not refuse although it is malformed reaches the backend in
// one reading only: the one that the guards judged.
func TestOneReading(t *testing.T) {
	t.Parallel()
	type reading struct {
		target, host, body string
		lengths            []string
	}
	var got atomic.Pointer[reading]
	m := harness.Serve(t, harness.Options{}, "--upstream", backend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // compared below
		got.Store(&reading{r.RequestURI, r.Host, string(body), r.Header["Content-Length"]})
		page(w, r)
	}).URL)
	ca := m.CA(t)
	for _, tt := range []struct {
		name   string
		data   string
		fields []string
		want   reading
	}{
		{"two lengths, of which the first is right", "a=bc", []string{":method: POST", ":scheme: https", ":path: /", ":authority: localhost",
			"content-type: application/x-www-form-urlencoded", "content-length: 4", "content-length: 40"}, reading{"/", "localhost", "a=bc", []string{"4"}}},
		{"a space in the path", "", []string{":method: GET", ":scheme: https", ":path: / HTTP/1.1", ":authority: localhost"},
			reading{target: "/%20HTTP/1.1", host: "localhost"}},
		{"two hosts and no authority", "", []string{":method: GET", ":scheme: https", ":path: /", "host: localhost", "host: other"},
			reading{target: "/", host: "localhost"}},
		{"another host than the authority", "", []string{":method: GET", ":scheme: https", ":path: /", ":authority: localhost", "host: other"},
			reading{target: "/", host: "localhost"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got.Store(nil)
			c := dialFrames(t, m, ca)
			c.request(1, tt.data, tt.fields...)
			answer, r := c.outcome(1), got.Load()
			if r == nil {
				if answer == "200" {
					t.Error("answered 200 without the backend")
				}
				return // refused: better still
			}
			if !reflect.DeepEqual(*r, tt.want) {
				t.Errorf("the backend reads %+v, want %+v", *r, tt.want)
			}
		})
	}
}
