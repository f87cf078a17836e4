package origin_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/origin"
	"github.com/pires/go-proxyproto"
)

// secure starts an https server on an edge and returns its address, a client
// that trusts it, and what was refused.
func secure(t *testing.T, c origin.EdgeConfig, h http.Handler) (addr string, client func(h2 bool) *http.Client, house *house) {
	t.Helper()
	donor := httptest.NewTLSServer(nil) // for its certificate, which is for example.com and 127.0.0.1
	t.Cleanup(donor.Close)
	config := &tls.Config{Certificates: donor.TLS.Certificates, NextProtos: []string{"h2", "http/1.1", "acme-tls/1"}}
	pool := x509.NewCertPool()
	pool.AddCert(donor.Certificate())

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	house = newBareHouse(t, c, ln.Addr().String())
	srv := &http.Server{Handler: house.edge.Pace(h)}
	house.edge.Tune(srv)
	house.ln = house.edge.Listen(ln, config, house.note)
	go func() { _ = srv.Serve(house.ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	client = func(h2 bool) *http.Client {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(!h2)
		tr.Protocols.SetHTTP2(h2)
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr, Timeout: 20 * time.Second}
	}
	return ln.Addr().String(), client, house
}

func newBareHouse(t *testing.T, c origin.EdgeConfig, addr string) *house {
	return &house{addr: addr, edge: newEdge(t, c)}
}

func (h *house) waitFor(t *testing.T, reason merlon.Reason) origin.Refusal {
	t.Helper()
	for range 500 {
		h.mu.Lock()
		for _, r := range h.refused {
			if r.Decision.Reason == reason {
				h.mu.Unlock()
				return r
			}
		}
		h.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s was not reported; reported: %v", reason, h.reasons())
	return origin.Refusal{}
}

func TestTLSListener(t *testing.T) {
	addr, client, h := secure(t, origin.EdgeConfig{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s tls=%t %s %d", r.Proto, r.TLS != nil, r.TLS.NegotiatedProtocol, len(body))
	}))
	big := strings.Repeat("x", 3<<20)
	for _, h2 := range []bool{false, true} {
		res, err := client(h2).Post("https://"+addr+"/", "text/plain", strings.NewReader(big))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		want := "HTTP/1.1 tls=true http/1.1 3145728"
		if h2 {
			want = "HTTP/2.0 tls=true h2 3145728"
		}
		if string(b) != want && string(b) != strings.Replace(want, "true http/1.1", "true ", 1) {
			t.Errorf("h2=%t: %q, want %q", h2, b, want)
		}
	}
	t.Run("plain HTTP gets no content", func(t *testing.T) {
		if got := h.send(t, okHead+"\r\n"); strings.Contains(got, "HTTP") {
			t.Errorf("answered %q", got)
		}
		h.waitFor(t, origin.BadHandshake)
	})
	t.Run("smuggling over TLS", func(t *testing.T) {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, okHead+"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+strings.Repeat("x", 100<<10))
		b, _ := io.ReadAll(c)
		if got := statuses(t, string(b)); fmt.Sprint(got) != "[400]" {
			t.Errorf("answered %v: %q", got, b)
		}
	})
	t.Run("another protocol ends after its handshake", func(t *testing.T) {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"acme-tls/1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if b, err := io.ReadAll(c); len(b) > 0 || isTimeout(err) {
			t.Errorf("read %q, %v", b, err)
		}
	})
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

func TestStalledHandshakesHoldUpNobody(t *testing.T) {
	t.Parallel()
	addr, client, h := secure(t, origin.EdgeConfig{HandshakeTimeout: time.Second}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	var stalled []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		stalled = append(stalled, c)
	}
	began := time.Now()
	res, err := client(true).Get("https://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if d := time.Since(began); d > 800*time.Millisecond {
		t.Errorf("another client waited %v", d)
	}
	for _, c := range stalled {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); isTimeout(err) {
			t.Fatal("a stalled handshake is still open")
		}
	}
	h.waitFor(t, origin.BadHandshake)
}

func TestWebSocketPassesThrough(t *testing.T) {
	t.Parallel()
	// A backend that agrees if asked, and echoes what no HTTP parser would
	// accept; or that does not agree.
	agree := true
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !agree || r.Header.Get("Upgrade") == "" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(c, rw)
	}))
	defer backend.Close()
	target, _ := url.Parse(backend.URL)
	proxy := &httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) { pr.SetURL(target) }}
	h := newHouse(t, origin.EdgeConfig{IdleTimeout: time.Second, HeaderTimeout: time.Second, SlowGrace: time.Second}, proxy.ServeHTTP)
	ask := okHead + "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

	t.Run("agreed", func(t *testing.T) {
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		frames := []byte("\x81\x85early GET \x00\n\r bare \r\n\r\n")
		_, _ = c.Write(append([]byte(okHead+"\r\n"+ask), frames...)) // frames before 101 must not be lost, nor read as HTTP
		br := bufio.NewReader(c)
		for _, want := range []int{403, 101} {
			res, err := http.ReadResponse(br, nil)
			if err != nil || res.StatusCode != want {
				t.Fatalf("answered %+v, %v; want %d", res, err, want)
			}
			if want == 403 {
				_, _ = io.Copy(io.Discard, res.Body)
			}
		}
		got := make([]byte, len(frames))
		if _, err := io.ReadFull(br, got); err != nil || !bytes.Equal(got, frames) {
			t.Fatalf("echoed %q, %v", got, err)
		}
		time.Sleep(1500 * time.Millisecond) // quiet for longer than every timeout
		more := bytes.Repeat([]byte("\x82\x7f\x00\xff"), 50000)
		go func() { _, _ = c.Write(more) }()
		got = make([]byte, len(more))
		if _, err := io.ReadFull(br, got); err != nil || !bytes.Equal(got, more) {
			t.Fatalf("echoed wrongly: %v", err)
		}
	})
	t.Run("not agreed: what follows is HTTP and judged", func(t *testing.T) {
		agree = false
		answers := h.sendAndWait(t, ask+okHead+"X : a\r\n\r\n")
		if got := statuses(t, answers); fmt.Sprint(got) != "[403 400]" {
			t.Errorf("answered %v, want [403 400]: %q", got, answers)
		}
	})
}

func TestAnswersThatLookLike101ChangeNothing(t *testing.T) {
	h := newHouse(t, origin.EdgeConfig{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "8204")
		_, _ = w.Write(bytes.Repeat([]byte("x"), 8192))
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, "HTTP/1.1 101") // a write of its own
	})
	answers := h.sendAndWait(t, okHead+"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+okHead+"X : a\r\n\r\n")
	if got := statuses(t, answers); fmt.Sprint(got) != "[200 400]" {
		t.Errorf("answered %v, want [200 400]", got)
	}
	if got := h.reasons(); len(got) != 1 || got[0] != origin.BadHeader {
		t.Errorf("reported %v: the second request was not judged", got)
	}
}

func TestProxyProtocol(t *testing.T) {
	h := newHouse(t, origin.EdgeConfig{TrustedProxies: []string{"127.0.0.1"}, ProxyProtocol: true}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.RemoteAddr)
	})
	get := okHead + "Connection: close\r\n\r\n"
	v2 := func(header *proxyproto.Header) string {
		b, err := header.Format()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	client := &net.TCPAddr{IP: net.ParseIP("198.51.100.7"), Port: 4711}
	here := &net.TCPAddr{IP: net.ParseIP("203.0.113.1"), Port: 443}
	for _, c := range []struct{ name, header, want string }{
		{"version 1", "PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\r\n", "198.51.100.7:4711"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "[2001:db8::7]:4711"},
		{"version 2", v2(proxyproto.HeaderProxyFromAddrs(2, client, here)), "198.51.100.7:4711"},
		{"version 2, the proxy itself", v2(&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL}), "127.0.0.1:"},
		{"unknown", "PROXY UNKNOWN\r\n", "127.0.0.1:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := h.send(t, c.header+get); !strings.Contains(got, "\r\n\r\n"+c.want) {
				t.Errorf("answered %q, want the client %s", got, c.want)
			}
		})
	}
	for name, raw := range map[string]string{"none": get, "garbage": "PROXY TCP4 x y z\r\n" + get, "bare LF": "PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\n" + get} {
		t.Run("refused: "+name, func(t *testing.T) {
			if got := h.send(t, raw); got != "" {
				t.Errorf("answered %q", got)
			}
			h.waitFor(t, origin.BadHandshake)
		})
	}
	t.Run("from a stranger it is a bad request", func(t *testing.T) {
		h := newHouse(t, origin.EdgeConfig{TrustedProxies: []string{"192.0.2.1"}, ProxyProtocol: true}, nil)
		if got := statuses(t, h.send(t, "PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\r\n"+get)); fmt.Sprint(got) != "[400]" {
			t.Errorf("answered %v", got)
		}
	})
}

func TestSlowClients(t *testing.T) {
	t.Parallel()
	config := origin.EdgeConfig{HeaderTimeout: time.Second, IdleTimeout: time.Second, SlowGrace: time.Second, MinRate: 10 * merlon.KiB}
	huge := bytes.Repeat([]byte("x"), 1<<20)
	h := newHouse(t, config, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/huge":
			for range 64 {
				if _, err := w.Write(huge); err != nil {
					return
				}
			}
		case "/stream":
			for range 3 {
				time.Sleep(1200 * time.Millisecond) // the server is slow, not the client
				_, _ = io.WriteString(w, "tick\n")
				_ = http.NewResponseController(w).Flush()
			}
		}
	})
	dial := func(t *testing.T, first string) net.Conn {
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
		_, _ = io.WriteString(c, first)
		return c
	}
	// trickle sends bytes one by one for as long as the server takes them.
	trickle := func(c net.Conn, s string) {
		for i := range s {
			if _, err := c.Write([]byte(s[i : i+1])); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	t.Run("group", func(t *testing.T) {
		t.Run("header byte by byte", func(t *testing.T) {
			t.Parallel()
			c := dial(t, "")
			go trickle(c, okHead+strings.Repeat("X: y\r\n", 50))
			b, _ := io.ReadAll(c)
			if got := statuses(t, string(b)); fmt.Sprint(got) != "[408]" {
				t.Errorf("answered %v, want [408]", got)
			}
			h.waitFor(t, origin.SlowHeader)
		})
		t.Run("body byte by byte", func(t *testing.T) {
			t.Parallel()
			c := dial(t, "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
			go trickle(c, strings.Repeat("x", 100))
			began := time.Now()
			b, _ := io.ReadAll(c)
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("it took %v to give up", d)
			}
			if got := statuses(t, string(b)); fmt.Sprint(got) != "[408]" {
				t.Errorf("answered %v, want [408]: %q", got, b)
			}
			if r := h.waitFor(t, origin.SlowBody); !r.Late || r.Answered {
				t.Errorf("reported %+v, want a late refusal", r)
			}
		})
		t.Run("nothing at all", func(t *testing.T) {
			t.Parallel()
			c := dial(t, "")
			if b, err := io.ReadAll(c); len(b) > 0 || isTimeout(err) {
				t.Errorf("read %q, %v; want to be closed without a word", b, err)
			}
		})
		t.Run("idle after a request", func(t *testing.T) {
			t.Parallel()
			c := dial(t, okHead+"\r\n")
			if b, err := io.ReadAll(c); fmt.Sprint(statuses(t, string(b))) != "[200]" || isTimeout(err) {
				t.Errorf("read %q, %v; want one answer, then to be closed", b, err)
			}
		})
		t.Run("answer not read", func(t *testing.T) {
			t.Parallel()
			dial(t, "GET /huge HTTP/1.1\r\nHost: a\r\n\r\n")
			h.waitFor(t, origin.SlowReader)
		})
		t.Run("answer read slowly, but fast enough", func(t *testing.T) {
			t.Parallel()
			c := dial(t, "")
			_ = c.(*net.TCPConn).SetReadBuffer(16 << 10)
			_, _ = io.WriteString(c, "GET /huge HTTP/1.1\r\nHost: a\r\n\r\n")
			buf := make([]byte, 8<<10)
			for range 24 { // so slowly that the server's kernel makes no room for seconds on end
				if _, err := io.ReadFull(c, buf); err != nil {
					t.Fatalf("was cut off: %v", err)
				}
				time.Sleep(400 * time.Millisecond)
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, r := range h.refused {
				if r.Client.String() == c.LocalAddr().String() {
					t.Errorf("was refused: %+v", r)
				}
			}
		})
		t.Run("a stream on which the server is quiet", func(t *testing.T) {
			t.Parallel()
			c := dial(t, "GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			b, err := io.ReadAll(c)
			if strings.Count(string(b), "tick") != 3 || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
		})
		t.Run("a body that pauses for less than the grace", func(t *testing.T) {
			t.Parallel()
			c := dial(t, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n")
			for range 3 {
				time.Sleep(600 * time.Millisecond)
				_, _ = c.Write(huge[:20000])
			}
			b, _ := io.ReadAll(c)
			if got := statuses(t, string(b)); fmt.Sprint(got) != "[200]" {
				t.Errorf("answered %v", got)
			}
		})
	})
}

func TestSlowHTTP2Clients(t *testing.T) {
	t.Parallel()
	huge := bytes.Repeat([]byte("x"), 16<<10)
	gone := make(chan error, 1)
	addr, client, _ := secure(t, origin.EdgeConfig{SlowGrace: time.Second, MinRate: 100 * merlon.KiB}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/huge" {
			var err error
			for range 4096 {
				if _, err = w.Write(huge); err != nil {
					break
				}
			}
			gone <- err
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			merlon.Respond(w, merlon.NewRequest(r), merlon.BodyFailed(err))
		}
	}))
	c := client(true)
	t.Run("group", func(t *testing.T) {
		t.Run("stalled body", func(t *testing.T) {
			t.Parallel()
			pr, pw := io.Pipe()
			defer pw.Close()
			go func() { _, _ = pw.Write([]byte("x")) }()
			res, err := c.Post("https://"+addr+"/", "text/plain", pr)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != http.StatusRequestTimeout {
				t.Errorf("answered %d, want 408", res.StatusCode)
			}
		})
		t.Run("quiet gRPC stream", func(t *testing.T) {
			t.Parallel()
			pr, pw := io.Pipe()
			time.AfterFunc(1500*time.Millisecond, func() { pw.Close() })
			res, err := c.Post("https://"+addr+"/", "application/grpc", pr)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				t.Errorf("answered %d, want 200", res.StatusCode)
			}
		})
		t.Run("answer not read", func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			hr, _ := http.NewRequestWithContext(ctx, "GET", "https://"+addr+"/huge", nil)
			res, err := c.Do(hr)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			select {
			case err := <-gone:
				if err == nil {
					t.Error("all of it was written")
				}
			case <-time.After(8 * time.Second):
				t.Error("the handler still waits")
			}
		})
	})
}

func TestConnectionCaps(t *testing.T) {
	h := newHouse(t, origin.EdgeConfig{MaxConnectionsPerAddress: 3}, nil)
	var conns []net.Conn
	open := func() (net.Conn, bool) {
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			return hanger{}, false // refused so fast that even the dialer saw it
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(c, okHead+"\r\n")
		_, err = http.ReadResponse(bufio.NewReader(c), nil)
		return c, err == nil
	}
	for range 3 {
		c, ok := open()
		if !ok {
			t.Fatal("refused below the cap")
		}
		conns = append(conns, c)
	}
	if c, ok := open(); ok {
		t.Error("served above the cap")
	} else {
		c.Close()
	}
	h.waitFor(t, origin.TooManyConnections)
	conns[0].Close()
	again := false
	for range 500 { // the server notices in its own time
		c, ok := open()
		defer c.Close()
		if again = ok; ok {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !again {
		t.Error("refused after another connection was closed")
	}
	for _, c := range conns[1:] {
		c.Close()
	}
}

// hanger is no connection.
type hanger struct{ net.Conn }

func (hanger) Close() error { return nil }

func TestFloodsMakeFewReports(t *testing.T) {
	h := newHouse(t, origin.EdgeConfig{MaxConnections: 1}, nil)
	hold, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	for range 200 {
		if c, err := net.Dial("tcp", h.addr); err == nil { // else it was refused already
			c.Close()
		}
	}
	h.waitFor(t, origin.TooManyConnections)
	if n := len(h.reasons()); n > 5 {
		t.Errorf("%d reports of 200 refused connections", n)
	}
}

func TestDrainHandsOutWhatIsUnderWay(t *testing.T) {
	addr, _, h := secure(t, origin.EdgeConfig{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") }))
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	time.Sleep(100 * time.Millisecond) // it is accepted, its handshake not done
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.ln.Drain() })
	time.Sleep(50 * time.Millisecond)
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	_, _ = io.WriteString(c, okHead+"Connection: close\r\n\r\n")
	b, _ := io.ReadAll(c)
	if got := statuses(t, string(b)); fmt.Sprint(got) != "[200]" {
		t.Errorf("answered %v, want [200]", got)
	}
	wg.Wait()
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("still listening after Drain")
	}
}
