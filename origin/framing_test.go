package origin_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/origin"
)

// A house is an edge with a real server behind it that notes what it sees.
type house struct {
	addr    string
	edge    *origin.Edge
	ln      *origin.Listener
	mu      sync.Mutex
	seen    []string // "METHOD target body", whole requests only
	broken  int      // requests whose body failed
	refused []origin.Refusal
}

func newEdge(t testing.TB, c origin.EdgeConfig) *origin.Edge {
	t.Helper()
	e, err := origin.NewEdge(c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newHouse(t testing.TB, c origin.EdgeConfig, handler http.HandlerFunc) *house {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &house{addr: ln.Addr().String(), edge: newEdge(t, c)}
	if handler == nil {
		handler = func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") }
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if r.Header.Get("Upgrade") != "" {
			err = nil
		}
		h.mu.Lock()
		if err != nil {
			h.broken++
		} else {
			h.seen = append(h.seen, strings.TrimSpace(r.Method+" "+r.RequestURI+" "+string(body)))
		}
		h.mu.Unlock()
		if err != nil {
			merlon.Respond(w, merlon.NewRequest(r), merlon.BodyFailed(err))
			return
		}
		handler(w, r)
	})}
	h.edge.Tune(srv)
	h.ln = h.edge.Listen(deep{ln}, nil, h.note)
	go func() { _ = srv.Serve(h.ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return h
}

// deep gives connections much room for what is to be sent, as the kernel does
// for distant clients.
type deep struct{ net.Listener }

func (d deep) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if tc, ok := c.(*net.TCPConn); ok {
		_ = tc.SetWriteBuffer(4 << 20)
	}
	return c, err
}

func (h *house) note(r origin.Refusal) {
	h.mu.Lock()
	h.refused = append(h.refused, r)
	h.mu.Unlock()
}

func (h *house) requests() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.seen...)
}

func (h *house) reasons() []merlon.Reason {
	h.mu.Lock()
	defer h.mu.Unlock()
	var rs []merlon.Reason
	for _, r := range h.refused {
		rs = append(rs, r.Decision.Reason)
	}
	return rs
}

// send writes raw bytes, says that there are no more, and reads all answers.
func (h *house) send(t testing.TB, raw string) string {
	t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	b, _ := io.ReadAll(c)
	return string(b)
}

// sendAndWait writes raw bytes and reads until the server closes; a client that
// says there are no more counts as gone for net/http.
func (h *house) sendAndWait(t testing.TB, raw string) string {
	t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c)
	return string(b)
}

// statuses lists the status codes of a stream of answers.
func statuses(t testing.TB, answers string) []int {
	t.Helper()
	var codes []int
	br := bufio.NewReader(strings.NewReader(answers))
	for {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			return codes
		}
		_, _ = io.Copy(io.Discard, res.Body)
		codes = append(codes, res.StatusCode)
	}
}

const okHead = "GET / HTTP/1.1\r\nHost: shop.example.com\r\n"

func TestAmbiguousRequestsReachNoBackend(t *testing.T) {
	post := "POST / HTTP/1.1\r\nHost: a\r\n"
	for _, c := range []struct {
		name, raw string
		reason    merlon.Reason
		status    int
	}{
		{"length and chunked", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"chunked and length", post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"two lengths", post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", origin.BadFraming, 400},
		{"two equal lengths", post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", origin.BadFraming, 400},
		{"listed lengths", post + "Content-Length: 5,5\r\n\r\nhello", origin.BadFraming, 400},
		{"signed length", post + "Content-Length: +5\r\n\r\nhello", origin.BadFraming, 400},
		{"hexadecimal length", post + "Content-Length: 0x5\r\n\r\nhello", origin.BadFraming, 400},
		{"negative length", post + "Content-Length: -5\r\n\r\nhello", origin.BadFraming, 400},
		{"empty length", post + "Content-Length:\r\n\r\n", origin.BadFraming, 400},
		{"spaced length", post + "Content-Length: 5 0\r\n\r\nhello", origin.BadFraming, 400},
		{"overflowing length", post + "Content-Length: 18446744073709551617\r\n\r\nhello", origin.BadFraming, 400},
		{"length by underscore", post + "Content_Length: 5\r\n\r\nhello", origin.BadFraming, 400},
		{"coding by underscore", post + "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"unknown coding", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"two codings", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"coding twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"identity", post + "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", origin.BadFraming, 400},
		{"coding with a vertical tab", post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", origin.BadHeader, 400},
		{"coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"folded field", okHead + "X: a\r\n b\r\n\r\n", origin.BadFraming, 400},
		{"folded coding", post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", origin.BadFraming, 400},
		{"space before the colon", okHead + "X : a\r\n\r\n", origin.BadHeader, 400},
		{"tab before the colon", okHead + "X\t: a\r\n\r\n", origin.BadHeader, 400},
		{"no colon", okHead + "X\r\n\r\n", origin.BadHeader, 400},
		{"empty name", okHead + ": a\r\n\r\n", origin.BadHeader, 400},
		{"bad name", okHead + "X(: a\r\n\r\n", origin.BadHeader, 400},
		{"bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", origin.BadFraming, 400},
		{"bare LF after a field", "GET / HTTP/1.1\r\nHost: a\n\r\n", origin.BadFraming, 400},
		{"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", origin.BadFraming, 400},
		{"bare CR in a value", okHead + "X: a\rb\r\n\r\n", origin.BadHeader, 400},
		{"bare CR for CRLF", okHead + "X: a\rTransfer-Encoding: chunked\r\n\r\n", origin.BadHeader, 400},
		{"doubled CR", okHead + "X: a\r\r\n\r\n", origin.BadHeader, 400},
		{"NUL in a value", okHead + "X: a\x00b\r\n\r\n", origin.BadHeader, 400},
		{"DEL in a value", okHead + "X: a\x7fb\r\n\r\n", origin.BadHeader, 400},
		{"no host", "GET / HTTP/1.1\r\nX: a\r\n\r\n", origin.BadHost, 400},
		{"two hosts", okHead + "Host: b\r\n\r\n", origin.BadHost, 400},
		{"two equal hosts", okHead + "Host: shop.example.com\r\n\r\n", origin.BadHost, 400},
		{"empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", origin.BadHost, 400},
		{"host with user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", origin.BadHost, 400},
		{"host with path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", origin.BadHost, 400},
		{"host with list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", origin.BadHost, 400},
		{"host with a bad port", "GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", origin.BadHost, 400},
		{"target of another host", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", origin.BadHost, 400},
		{"target with user", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", origin.BadHost, 400},
		{"target of another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", origin.BadRequestLine, 400},
		{"target with fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", origin.BadRequestLine, 400},
		{"broken percent encoding", "GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n", origin.BadRequestLine, 400},
		{"relative target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", origin.BadRequestLine, 400},
		{"asterisk", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", origin.BadRequestLine, 400},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", origin.BadRequestLine, 400},
		{"space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", origin.BadRequestLine, 400},
		{"tab for a space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", origin.BadRequestLine, 400},
		{"no version", "GET /\r\nHost: a\r\n\r\n", origin.BadRequestLine, 400},
		{"lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n", origin.BadRequestLine, 400},
		{"another version", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", origin.BadRequestLine, 505},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", origin.BadRequestLine, 505},
		{"bad method", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", origin.BadRequestLine, 400},
		{"CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", origin.MethodRefused, 405},
		{"TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", origin.MethodRefused, 405},
		{"two empty lines first", "\r\n\r\n" + okHead + "\r\n", origin.BadRequestLine, 400},
		{"strange expectation", post + "Expect: y 100-continue\r\nContent-Length: 5\r\n\r\nhello", origin.BadHeader, 417},
		{"too many fields", okHead + strings.Repeat("X: a\r\n", 200) + "\r\n", origin.HeaderTooLarge, 431},
		{"too large a header", okHead + "X: " + strings.Repeat("a", 70<<10) + "\r\n\r\n", origin.HeaderTooLarge, 431},
		{"too long a target", "GET /" + strings.Repeat("a", 70<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", origin.HeaderTooLarge, 414},
		{"WebSocket and more", okHead + "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", origin.BadUpgrade, 400},
		{"WebSocket with a body", okHead + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx", origin.BadUpgrade, 400},
		{"WebSocket not listed", okHead + "Upgrade: websocket\r\n\r\n", origin.BadUpgrade, 400},
		{"WebSocket by POST", "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", origin.BadUpgrade, 400},
		{"chunk size with a sign", post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", origin.BadFraming, 400},
		{"chunk size in C", post + "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"empty chunk size", post + "Transfer-Encoding: chunked\r\n\r\n\r\na\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"space after a chunk size", post + "Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"overflowing chunk size", post + "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\na\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"bare LF after a chunk size", post + "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"bare LF in an extension", post + "Transfer-Encoding: chunked\r\n\r\n1;\na\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"bare CR in an extension", post + "Transfer-Encoding: chunked\r\n\r\n1;a\rb\r\na\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"long extension", post + "Transfer-Encoding: chunked\r\n\r\n1;a=" + strings.Repeat("b", 300) + "\r\na\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"data longer than its chunk", post + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", origin.BadFraming, 400},
		{"chunk without end", post + "Transfer-Encoding: chunked\r\n\r\n1\r\na0\r\n\r\n", origin.BadFraming, 400},
		{"trailer that frames", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", origin.BadFraming, 400},
		{"trailer that authenticates", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: x\r\n\r\n", origin.BadFraming, 400},
		{"trailer that names the client", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX_Forwarded_For: 1.2.3.4\r\n\r\n", origin.BadFraming, 400},
		{"folded trailer", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n c\r\n\r\n", origin.BadFraming, 400},
		{"long trailers", post + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("A: b\r\n", 500) + "\r\n", origin.BadFraming, 400},
		{"announced framing trailer", post + "Transfer-Encoding: chunked\r\nTrailer: A, Content-Length\r\n\r\n0\r\n\r\n", origin.BadFraming, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, origin.EdgeConfig{}, nil)
			answers := h.send(t, c.raw)
			if got := statuses(t, answers); len(got) != 1 || got[0] != c.status {
				t.Errorf("answered %v, want one %d: %q", got, c.status, answers)
			}
			if seen := h.requests(); len(seen) != 0 || h.broken != 0 {
				t.Errorf("the backend saw %q, and %d broken", seen, h.broken)
			}
			if got := h.reasons(); len(got) != 1 || got[0] != c.reason {
				t.Errorf("reported %v, want %s", got, c.reason)
			}
			if h.refused[0].ID == "" || !strings.Contains(answers, `"id":"`+h.refused[0].ID+`"`) || !strings.Contains(answers, "X-Request-Id: "+h.refused[0].ID) {
				t.Errorf("the answer does not show the reported id %q: %q", h.refused[0].ID, answers)
			}
			if !h.refused[0].Client.IsValid() || !h.refused[0].Answered {
				t.Errorf("report %+v lacks the client, or that it was answered", h.refused[0])
			}
		})
	}
}

func TestPlainRequestsReachTheBackendUnchanged(t *testing.T) {
	post := "POST /p HTTP/1.1\r\nHost: a\r\n"
	for _, c := range []struct {
		name, raw string
		want      []string
	}{
		{"GET", okHead + "\r\n", []string{"GET /"}},
		{"browser headers", okHead + "User-Agent: Mozilla/5.0 (caf\xe9)\r\nAccept: */*\r\nCookie: a=\"b\"; c=d\r\nX-Tab: a\tb\r\nX-Empty:\r\n\r\n", []string{"GET /"}},
		{"length", post + "Content-Length: 5\r\n\r\nhello", []string{"POST /p hello"}},
		{"length zero", post + "Content-Length: 0\r\n\r\n", []string{"POST /p"}},
		{"no body", post + "\r\n", []string{"POST /p"}},
		{"GET with body", "GET /p HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", []string{"GET /p hi"}},
		{"chunked", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", []string{"POST /p hello"}},
		{"chunked, other spelling", post + "transfer-encoding:CHUNKED\r\n\r\n05\r\nhello\r\n000\r\n\r\n", []string{"POST /p hello"}},
		{"chunk extension", post + "Transfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d e\";f\r\nhello\r\n0;z\r\n\r\n", []string{"POST /p hello"}},
		{"harmless trailer", post + "Transfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n5\r\nhello\r\n0\r\nDigest: x\r\n\r\n" + okHead + "\r\n", []string{"POST /p hello", "GET /"}},
		{"pipelined", okHead + "\r\n" + post + "Content-Length: 5\r\n\r\nhello" + post + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + okHead + "\r\n", []string{"GET /", "POST /p hello", "POST /p hi", "GET /"}},
		{"an empty line between", post + "Content-Length: 5\r\n\r\nhello\r\n" + okHead + "\r\n", []string{"POST /p hello", "GET /"}},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", []string{"GET /"}},
		{"absolute target", "GET http://A:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n", []string{"GET http://A:80/x?y"}},
		{"IPv6 host", "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", []string{"GET /"}},
		{"underscore host", "GET / HTTP/1.1\r\nHost: my_service:80\r\n\r\n", []string{"GET /"}},
		{"sloppy query", "GET /a?b=%zz&c={\"x\":[1|2]} HTTP/1.1\r\nHost: a\r\n\r\n", []string{"GET /a?b=%zz&c={\"x\":[1|2]}"}},
		{"raw UTF-8 target", "GET /caf\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", []string{"GET /caf\xc3\xa9"}},
		{"extension method", "PROPFIND /x HTTP/1.1\r\nHost: a\r\n\r\n", []string{"PROPFIND /x"}},
		{"expect", post + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", []string{"POST /p hello"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, size := range []int{1 << 20, 1, 7} { // as one packet, and torn
				h := newHouse(t, origin.EdgeConfig{}, nil)
				answers := ""
				if size > len(c.raw) {
					answers = h.send(t, c.raw)
				} else {
					answers = h.drip(t, c.raw, size)
				}
				if got := h.requests(); fmt.Sprint(got) != fmt.Sprint(c.want) {
					t.Errorf("in pieces of %d the backend saw %q, want %q; answers %q; refused %v", size, got, c.want, answers, h.reasons())
				}
			}
		})
	}
}

// drip sends raw in small pieces.
func (h *house) drip(t testing.TB, raw string, size int) string {
	t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	for i := 0; i < len(raw); i += size {
		if _, err := io.WriteString(c, raw[i:min(len(raw), i+size)]); err != nil {
			t.Fatal(err)
		}
		if i%16 == 0 {
			time.Sleep(50 * time.Microsecond)
		}
	}
	_ = c.(*net.TCPConn).CloseWrite()
	b, _ := io.ReadAll(c)
	return string(b)
}

func TestAnswersStayInOrder(t *testing.T) {
	h := newHouse(t, origin.EdgeConfig{}, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(50 * time.Millisecond) // the bad head is there long before the answer
		if err := r.Context().Err(); err != nil {
			t.Errorf("the good request was cancelled for the bad one: %v", err)
		}
		_, _ = io.WriteString(w, "hello")
	})
	answers := h.sendAndWait(t, okHead+"\r\n"+okHead+"X : a\r\n\r\n"+okHead+"\r\n")
	if got := statuses(t, answers); fmt.Sprint(got) != "[200 400]" {
		t.Errorf("answered %v, want [200 400]: %q", got, answers)
	}
	if got := h.requests(); len(got) != 1 {
		t.Errorf("the backend saw %q, want one request", got)
	}
}

func TestABadChunkFailsTheBodyThatIsUnderWay(t *testing.T) {
	h := newHouse(t, origin.EdgeConfig{}, nil)
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	time.Sleep(50 * time.Millisecond)
	_, _ = io.WriteString(c, "zz\r\n")
	b, _ := io.ReadAll(c)
	if got := statuses(t, string(b)); fmt.Sprint(got) != "[400]" {
		t.Errorf("answered %v, want [400]: %q", got, b)
	}
	if h.broken != 1 || len(h.requests()) != 0 {
		t.Errorf("%d broken bodies, want 1; whole: %q", h.broken, h.requests())
	}
	if len(h.refused) != 1 || !h.refused[0].Late || h.refused[0].Answered || h.refused[0].Decision.Reason != origin.BadFraming {
		t.Errorf("reported %+v, want one late bad-framing", h.refused)
	}
}

func TestOtherUpgradesAreTakenOut(t *testing.T) {
	var upgrade, settings, last string
	h := newHouse(t, origin.EdgeConfig{}, func(w http.ResponseWriter, r *http.Request) {
		upgrade, settings, last = r.Header.Get("Upgrade"), r.Header.Get("Http2-Settings"), r.Header.Get("X-Last")
	})
	answers := h.send(t, okHead+"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nX-Last: here\r\n\r\n")
	if got := statuses(t, answers); fmt.Sprint(got) != "[200]" || upgrade != "" || settings != "" || last != "here" {
		t.Errorf("answered %v; the backend saw Upgrade %q, HTTP2-Settings %q, X-Last %q", got, upgrade, settings, last)
	}
}

func TestSmugglingCorpus(t *testing.T) {
	const file = "../../shared/data/smuggling_raw.jsonl"
	f, err := os.Open(file)
	if err != nil {
		t.Skip("the corpus is not here: " + file)
	}
	defer f.Close()
	h := newHouse(t, origin.EdgeConfig{}, nil)
	rows, passed := 0, 0
	for dec := json.NewDecoder(f); ; rows++ {
		var row struct {
			Mutation, Type string
			Raw            string `json:"raw_b64"`
		}
		if err := dec.Decode(&row); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(row.Raw)
		if err != nil {
			t.Fatal(err)
		}
		before := len(h.requests())
		answers := h.send(t, string(raw))
		got, seen := statuses(t, answers), len(h.requests())-before
		switch {
		case seen == 0 && len(got) == 1 && got[0] == http.StatusBadRequest:
		case seen == 1 && len(got) >= 1 && got[0] == http.StatusOK:
			passed++
		default:
			t.Errorf("%s %s: %d requests at the backend, answers %v: %q", row.Mutation, row.Type, seen, got, raw[:200])
		}
	}
	if rows == 0 {
		t.Error("the corpus is empty")
	}
	t.Logf("%d rows, %d of them one plain request", rows, passed)
}

// FuzzFraming: what the edge lets pass is parsed by net/http to requests with
// the bodies that the edge saw, and never fails there; the bytes that passed
// are those sent, but for what is documented to be taken out.
func FuzzFraming(f *testing.F) {
	post := "POST / HTTP/1.1\r\nHost: a\r\n"
	for _, s := range []string{
		okHead + "\r\n", post + "Content-Length: 5\r\n\r\nhello" + okHead + "\r\n", "\r\n" + okHead + "\r\n",
		post + "Transfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nA: b\r\n\r\n" + okHead + "\r\n",
		post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", okHead + "Upgrade: h2c\r\nX: a\r\n\r\n" + okHead + "\r\n",
		"GET http://a/ HTTP/1.0\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		okHead + "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", post + "Trailer: x,\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET //a@b:c/%2f?%zz HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(s), uint8(3))
	}
	edge := newEdge(f, origin.EdgeConfig{})
	f.Fuzz(func(t *testing.T, raw []byte, piece uint8) {
		whole := passes(t, edge, raw, len(raw)+1)
		torn := passes(t, edge, raw, int(piece)+1)
		if !bytes.HasPrefix(torn, whole) {
			t.Fatalf("passes %q in one piece, %q torn: %q", whole, torn, raw)
		}
		br := bufio.NewReader(bytes.NewReader(whole))
		n := 0
		for {
			if _, err := br.Peek(1); err != nil {
				break
			}
			hr, err := http.ReadRequest(br)
			if err != nil {
				t.Fatalf("net/http cannot read request %d of what passed: %v\n%q\n%q", n, err, whole, raw)
			}
			if len(hr.TransferEncoding) > 0 && hr.ContentLength >= 0 || hr.Host == "" && hr.ProtoMinor == 1 {
				t.Fatalf("request %d is ambiguous: %+v", n, hr)
			}
			if _, err := io.Copy(io.Discard, hr.Body); err != nil && err != io.ErrUnexpectedEOF {
				t.Fatalf("the body of request %d fails in net/http: %v\n%q", n, err, whole)
			}
			if len(hr.Trailer) > 0 {
				for k, v := range hr.Trailer {
					if v != nil {
						t.Fatalf("a trailer passed: %s %q", k, v)
					}
				}
			}
			n++
		}
	})
}

// passes returns what comes out of the edge's connection for raw, read as
// net/http does.
func passes(t *testing.T, edge *origin.Edge, raw []byte, piece int) []byte {
	ln := &once{conn: &wire{in: raw, piece: piece}}
	l := edge.Listen(ln, nil, nil)
	defer l.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		out = append(out, buf[:n]...)
		if err != nil {
			return out
		}
	}
}

// once is a listener with one connection.
type once struct {
	conn net.Conn
	used bool
}

func (o *once) Accept() (net.Conn, error) {
	if o.used {
		return nil, net.ErrClosed
	}
	o.used = true
	return o.conn, nil
}
func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return &net.TCPAddr{} }

// wire is a connection that has received in already.
type wire struct {
	in    []byte
	piece int
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), w.piece)], w.in)
	w.in = w.in[n:]
	return n, nil
}
func (w *wire) Write(p []byte) (int, error)      { return len(p), nil }
func (w *wire) Close() error                     { return nil }
func (w *wire) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (w *wire) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4} }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

func BenchmarkFraming(b *testing.B) {
	head := "GET /products/42?ref=home&q=shoes HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" +
		"Connection: keep-alive\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nUpgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\n\r\n"
	edge := newEdge(b, origin.EdgeConfig{})
	ln := &once{conn: &again{wire{piece: 1 << 20}, []byte(head)}}
	l := edge.Listen(ln, nil, nil)
	defer l.Close()
	c, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 4096)
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		if n, err := c.Read(buf); err != nil || n != len(head) {
			b.Fatal(strconv.Itoa(n), err)
		}
	}
}

// again is a connection that receives the same over and over.
type again struct {
	wire
	same []byte
}

func (a *again) Read(p []byte) (int, error) { return copy(p, a.same), nil }
