package upstream_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/upstream"
)

// BenchmarkProxy compares a pool with a bare ReverseProxy of the same
// transport settings. Both include the front server, the client and the
// backend, so what is to be compared is the difference.
func BenchmarkProxy(b *testing.B) {
	for _, load := range []struct {
		name         string
		method       string
		body, answer []byte
	}{
		{"GET", "GET", nil, bytes.Repeat([]byte("x"), 2000)},
		{"POST", "POST", bytes.Repeat([]byte("x"), 1000), bytes.Repeat([]byte("x"), 200)},
		{"download", "GET", nil, bytes.Repeat([]byte("x"), 1<<20)},
	} {
		back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write(load.answer)
		}))
		target, _ := url.Parse(back.URL)
		pool, err := upstream.New(upstream.Config{To: []string{back.URL}})
		if err != nil {
			b.Fatal(err)
		}
		for name, h := range map[string]http.Handler{
			"bare": &httputil.ReverseProxy{
				Rewrite: func(pr *httputil.ProxyRequest) {
					pr.SetURL(target)
					pr.Out.Host = pr.In.Host
					pr.SetXForwarded()
				},
				Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256, IdleConnTimeout: 4 * time.Second, ResponseHeaderTimeout: time.Minute},
			},
			"pool": http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
				pool.Serve(w, merlon.NewRequest(hr), upstream.Call{})
			}),
		} {
			b.Run(load.name+"/"+name, func(b *testing.B) {
				front := httptest.NewServer(h)
				defer front.Close()
				b.ReportAllocs()
				b.SetBytes(int64(len(load.answer)))
				for b.Loop() {
					hr, _ := http.NewRequest(load.method, front.URL+"/a/b?c=d", bytes.NewReader(load.body))
					hr.Header.Set("User-Agent", "Mozilla/5.0")
					hr.Header.Set("Accept-Language", "en")
					hr.Header.Set("Accept-Encoding", "gzip, br")
					res, err := front.Client().Do(hr)
					if err != nil {
						b.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
			})
		}
		back.Close()
	}
}
