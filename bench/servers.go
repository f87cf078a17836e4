package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	corazahttp "github.com/corazawaf/coraza/v3/http"
)

// runAs is what the program is when it starts itself as another process.
func runAs(args []string) error {
	switch args[0] {
	case engineName:
		return measureEngines(args[1:])
	case identityName:
		return measureProofs(args[1:])
	case decideMode:
		return measureDecisions(args[1:])
	case countMode:
		return serveCounting(args[1], args[2])
	case "serve-refusing":
		return serveRefusing(args[1], args[2])
	case "serve-backend":
		return serveBackend(args[1])
	case "serve-bare":
		return serve(args[1], bareProxy(args[2]))
	default:
		return serveCoraza(args[1], args[2])
	}
}

var page = []byte("<!doctype html><title>shop</title>" + strings.Repeat("<p>A blue mug, and a red one.</p>", 40))

// serveBackend is what every gateway passes to.
func serveBackend(addr string) error {
	return serve(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	}))
}

// bareProxy is the least that a Go gateway can be.
func bareProxy(backend string) http.Handler {
	to := &url.URL{Scheme: "http", Host: backend}
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host; r.SetXForwarded() },
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	}
}

// serveCoraza is the bare proxy behind Coraza's own middleware: requests and
// answers by the whole CRS, with its prefilter, and nothing logged.
func serveCoraza(addr, backend string) error {
	waf, err := newCoraza("SecRxPreFilter On")
	if err != nil {
		return err
	}
	return serve(addr, corazahttp.WrapHandler(waf, bareProxy(backend)))
}

// serveRefusing answers 429 to all, in clear text and over TLS: what refusing
// costs in Go at least.
func serveRefusing(clear, secure string) error {
	ln, err := net.Listen("tcp", secure)
	if err != nil {
		return err
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = w.Write([]byte(`{"type":"about:blank","title":"Too Many Requests","status":429}`))
	})
	s := httptest.NewUnstartedServer(h)
	if err := s.Listener.Close(); err != nil {
		return err
	}
	s.Listener, s.EnableHTTP2 = ln, true
	s.StartTLS()
	return serve(clear, h)
}

func serve(addr string, h http.Handler) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return (&http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}).Serve(ln)
}
