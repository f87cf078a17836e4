package lifecycle_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/gorilla/websocket"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/merlon-dev/merlon/test/harness"
)

// long is a text that is worth compressing.
var long = strings.Repeat("All that is the case is a world of facts. ", 400)

// app is a backend that speaks everything that HTTP has.
type app struct {
	goOn chan struct{} // lets the event stream go on
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/ws":
		echo(w, r)
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: first\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-a.goOn:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "data: last\n\n")
	case "/trailers":
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("X-Sum", "42")
	case "/wanted":
		body, _ := io.ReadAll(r.Body) // net/http says 100 Continue now
		_, _ = w.Write(body)
	case "/unwanted":
		w.WriteHeader(http.StatusUnprocessableEntity)
	case "/file":
		http.ServeContent(w, r, "file.bin", time.Unix(1e9, 0), strings.NewReader("0123456789"))
	case "/personal":
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "secret"})
		fallthrough
	default:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, long)
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	c, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	for {
		kind, message, err := c.ReadMessage()
		if err != nil {
			return
		}
		if err := c.WriteMessage(kind, append([]byte("echo "), message...)); err != nil {
			return
		}
	}
}

// Everything that applications use of HTTP works with every guard on.
func TestProtocols(t *testing.T) {
	t.Parallel()
	a := &app{goOn: make(chan struct{}, 2)}
	b := backend(t, a.ServeHTTP)
	m := harness.Serve(t, harness.Options{}, "-c", configure(t,
		"sites:\n  - host: localhost\n    upstream: "+b.URL+"\n    routes:\n      - path: /grpc.health.v1.Health/*\n        upstream: h2c://"+grpcBackend(t)+"\n"))

	t.Run("other spellings of a route", func(t *testing.T) {
		c := client(t, m, true)
		for _, path := range []string{"/grpc.health.v1.health/Check", "/GRPC.health.v1.Health/Check", "/grpc.health.v1.Health;a/Check"} {
			res, body := get(t, c, url(m, path))
			refused(t, res, body, 400)
		}
		c.CloseIdleConnections()
	})
	t.Run("WebSocket", func(t *testing.T) { webSocket(t, m) })
	t.Run("gRPC", func(t *testing.T) { gRPC(t, m) })
	for _, h2 := range []bool{false, true} {
		c := client(t, m, h2)
		run := func(name string, f func(*testing.T)) { t.Run(fmt.Sprintf("%s, HTTP/2 %v", name, h2), f) }
		run("the protocol that was asked for", func(t *testing.T) {
			if res, _ := get(t, c, url(m, "/")); res.ProtoMajor == 2 != h2 {
				t.Error(res.Proto)
			}
		})
		run("event stream", func(t *testing.T) { eventStream(t, m, c, a) })
		run("trailers", func(t *testing.T) {
			res, body := get(t, c, url(m, "/trailers"))
			if body != "body" || res.Trailer.Get("X-Sum") != "42" {
				t.Errorf("%q, trailers %v", body, res.Trailer)
			}
		})
		run("100 Continue", func(t *testing.T) { expectContinue(t, m, c) })
		run("range", func(t *testing.T) {
			r := request(t, "GET", url(m, "/file"), nil)
			r.Header.Set("Range", "bytes=2-5")
			res, body := do(t, c, r)
			if res.StatusCode != 206 || body != "2345" || res.Header.Get("Content-Range") != "bytes 2-5/10" {
				t.Errorf("%d %q %s", res.StatusCode, body, res.Header.Get("Content-Range"))
			}
		})
		run("HEAD", func(t *testing.T) {
			res, body := do(t, c, request(t, "HEAD", url(m, "/file"), nil))
			if res.StatusCode != 200 || body != "" || res.ContentLength != 10 {
				t.Errorf("%d %q, length %d", res.StatusCode, body, res.ContentLength)
			}
		})
		run("compression", func(t *testing.T) { compression(t, m, c) })
		c.CloseIdleConnections()
	}
	verified(t, m)
	if list := events(t, m, "--kind", "refusal"); len(list) != 4 { // the foreign WebSocket and the other spellings
		t.Errorf("events: %+v", list)
	}
}

func webSocket(t *testing.T, m *harness.Merlon) {
	d := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: m.CA(t)}, HandshakeTimeout: 10 * time.Second}
	target := "wss" + strings.TrimPrefix(url(m, "/ws"), "https")
	c, _, err := d.Dial(target, http.Header{"Origin": {url(m, "")}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, message := range []string{"one", strings.Repeat("x", 100000)} {
		if err := c.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.ReadMessage(); err != nil || string(got) != "echo "+message {
			t.Fatalf("%.20q %v", got, err)
		}
	}
	evil, res, err := d.Dial(target, http.Header{"Origin": {"https://evil.example"}, "Cookie": {"session=secret"}})
	if err == nil {
		_ = evil.Close()
		t.Fatal("another site's page can open a WebSocket")
	}
	if !errors.Is(err, websocket.ErrBadHandshake) || res.StatusCode != 403 {
		t.Errorf("another site's page: %v", err)
	}
}

func eventStream(t *testing.T, m *harness.Merlon, c *http.Client, a *app) {
	res, err := c.Get(url(m, "/events"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r := bufio.NewReader(res.Body)
	if line, err := r.ReadString('\n'); line != "data: first\n" {
		t.Fatalf("%q %v", line, err)
	}
	a.goOn <- struct{}{} // only now may the backend go on
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "\ndata: last\n\n" {
		t.Errorf("%q %v", rest, err)
	}
}

// expectContinue shows that a body is sent when the backend wants it, and not
// before.
func expectContinue(t *testing.T, m *harness.Merlon, c *http.Client) {
	for _, wanted := range []bool{true, false} {
		path := "/unwanted"
		if wanted {
			path = "/wanted"
		}
		sent := &counted{r: strings.NewReader("the body")}
		told := false
		r := request(t, "POST", url(m, path), sent)
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got100Continue: func() { told = true }}))
		r.ContentLength = int64(len("the body"))
		r.Header.Set("Expect", "100-continue")
		r.Header.Set("Content-Type", "application/octet-stream")
		began := time.Now()
		res, body := do(t, c, r)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: the client was left to wait %v", path, took)
		}
		switch {
		case wanted && (res.StatusCode != 200 || body != "the body" || !told):
			t.Errorf("%s: %d %q, told to go on %v", path, res.StatusCode, body, told)
		case !wanted && res.StatusCode != 422, // over HTTP/2, net/http does not tell Merlon that the client waits
			!wanted && res.ProtoMajor == 1 && (sent.n.Load() > 0 || told || !res.Close):
			t.Errorf("%s: %d, %d bytes sent, told to go on %v", path, res.StatusCode, sent.n.Load(), told)
		}
	}
}

type counted struct {
	r io.Reader
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func compression(t *testing.T, m *harness.Merlon, c *http.Client) {
	ask := func(path, accept string) (*http.Response, string) {
		r := request(t, "GET", url(m, path), nil)
		r.Header.Set("Accept-Encoding", accept)
		return do(t, c, r)
	}
	decode := map[string]func(io.Reader) (io.Reader, error){
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"br":   func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil },
		"zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
	}
	for coding, reader := range decode {
		res, body := ask("/page", coding)
		if res.Header.Get("Content-Encoding") != coding || len(body) > len(long)/4 || !strings.Contains(res.Header.Get("Vary"), "Accept-Encoding") {
			t.Errorf("%s: %q, %d bytes, Vary %q", coding, res.Header.Get("Content-Encoding"), len(body), res.Header["Vary"])
			continue
		}
		r, err := reader(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var plain bytes.Buffer
		if _, err := io.Copy(&plain, r); err != nil || plain.String() != long {
			t.Errorf("%s: %d bytes when decoded, %v", coding, plain.Len(), err)
		}
	}
	for _, row := range []struct{ path, accept string }{
		{"/page", "identity"},
		{"/page", "gzip;q=0"},
		{"/personal?q=chosen-by-others", "gzip, br, zstd"}, // BREACH: secrets and input in one answer
	} {
		if res, body := ask(row.path, row.accept); res.Header.Get("Content-Encoding") != "" || body != long {
			t.Errorf("%s, %s: %q, %d bytes", row.path, row.accept, res.Header.Get("Content-Encoding"), len(body))
		}
	}
}

type healthServer struct {
	healthpb.UnimplementedHealthServer
}

func (healthServer) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-sum", "42"))
	if r.Service == "none" {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func (healthServer) Watch(_ *healthpb.HealthCheckRequest, s healthpb.Health_WatchServer) error {
	for range 3 {
		if err := s.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}); err != nil {
			return err
		}
	}
	return status.Error(codes.DataLoss, "half way")
}

func grpcBackend(t *testing.T) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, healthServer{})
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	return ln.Addr().String()
}

func gRPC(t *testing.T, m *harness.Merlon) {
	conn, err := grpc.NewClient("passthrough:///"+m.HTTPS, grpc.WithAuthority("localhost"),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: m.CA(t), ServerName: "localhost"})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := healthpb.NewHealthClient(conn)
	var trailer metadata.MD
	res, err := c.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Trailer(&trailer))
	if err != nil || res.Status != healthpb.HealthCheckResponse_SERVING || strings.Join(trailer["x-sum"], "") != "42" {
		t.Errorf("%v %v, trailers %v", res, err, trailer)
	}
	if _, err := c.Check(ctx, &healthpb.HealthCheckRequest{Service: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("a refusal by the backend: %v", err)
	}
	s, err := c.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for err == nil {
		if _, err = s.Recv(); err == nil {
			n++
		}
	}
	if n != 3 || status.Code(err) != codes.DataLoss {
		t.Errorf("a stream that ends badly: %d messages, %v", n, err)
	}
}
