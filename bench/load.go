package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A workload makes requests of which no two are the same.
type workload struct {
	name string
	make func(base string, n int64) *http.Request
}

const clients = 4

// fire sends requests for a while and returns how many were answered, and the
// last status.
func (w workload) fire(ctx context.Context, addr string, each time.Duration) (n int64, status int, err error) {
	tr := &http.Transport{MaxIdleConnsPerHost: clients, DisableCompression: true}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, each)
	defer cancel()
	var count, serial, last atomic.Int64
	var failed atomic.Pointer[error]
	start := time.Now().UnixNano() % 1e9
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				res, err := tr.RoundTrip(w.make("http://"+addr, start+serial.Add(1)))
				if err != nil {
					failed.Store(&err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				last.Store(int64(res.StatusCode))
				count.Add(1)
			}
		})
	}
	wg.Wait()
	if p := failed.Load(); p != nil {
		return 0, 0, *p
	}
	if count.Load() == 0 {
		return 0, 0, fmt.Errorf("no request was answered")
	}
	return count.Load(), int(last.Load()), nil
}

func workloads() []workload {
	return []workload{
		{"GET", func(base string, n int64) *http.Request {
			return browser("GET", fmt.Sprintf("%s/catalogue/mugs?page=%d&sort=price&q=blue+mug+%d", base, n%50, n), "", nil)
		}},
		{"JSON POST 1 kB", func(base string, n int64) *http.Request {
			var b strings.Builder
			fmt.Fprintf(&b, `{"order":%d,"customer":{"name":"Ann Example %d","city":"Utrecht"},"lines":[`, n, n)
			for i := range 14 {
				fmt.Fprintf(&b, `{"sku":"MUG-%04d","name":"Blue mug, large","count":%d},`, (n+int64(i)*37)%10000, i+1)
			}
			b.WriteString(`{"sku":"LAST","name":"Gift wrap","count":1}]}`)
			return browser("POST", base+"/api/orders", "application/json", []byte(b.String()))
		}},
		{"form POST 600 B", func(base string, n int64) *http.Request {
			v := url.Values{}
			for i := range 18 {
				v.Set(fmt.Sprintf("field_%02d", i), fmt.Sprintf("value of it %d", n+int64(i)))
			}
			return browser("POST", base+"/account/settings", "application/x-www-form-urlencoded", []byte(v.Encode()))
		}},
		{"SQLi GET", func(base string, n int64) *http.Request {
			return browser("GET", fmt.Sprintf("%s/search?q=%d'+UNION+SELECT+password+FROM+users--+-", base, n), "", nil)
		}},
	}
}

func browser(method, target, media string, body []byte) *http.Request {
	r, err := http.NewRequest(method, target, bytes.NewReader(body))
	if err != nil {
		panic(err) // the workloads are fixed
	}
	for k, v := range map[string]string{
		"User-Agent":      "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
		"Accept":          "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
		"Accept-Language": "en-GB,en;q=0.9,nl;q=0.8", "Accept-Encoding": "gzip, deflate, br, zstd",
		"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document",
		"Cookie": "session=3f1b2c4d5e6f708192a3b4c5d6e7f809; theme=dark; lang=en", "Referer": target[:strings.Index(target[8:], "/")+8] + "/",
		"Upgrade-Insecure-Requests": "1",
	} {
		r.Header.Set(k, v)
	}
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	r.Host = "shop.example.com"
	return r
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

// serveBare is the least that a Go gateway can be.
func serveBare(addr, backend string) error {
	to := &url.URL{Scheme: "http", Host: backend}
	return serve(addr, &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host; r.SetXForwarded() },
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	})
}

func serve(addr string, h http.Handler) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return (&http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}).Serve(ln)
}
