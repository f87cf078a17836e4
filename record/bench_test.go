package record_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/record"
)

// BenchmarkRequest is what a request waits for: noting it down. What is lost
// is what the goroutine that masks, encrypts and writes did not keep up with.
func BenchmarkRequest(b *testing.B) {
	for name, hr := range map[string]*http.Request{"GET": browser("GET", ""), "POST 1 kB": browser("POST", strings.Repeat("a=tea&b=milk&", 80))} {
		b.Run(name, func(b *testing.B) {
			s := open(b, record.Config{})
			b.ReportAllocs()
			for b.Loop() {
				note(s, hr)
			}
			b.ReportMetric(float64(s.Stats().Lost)/float64(b.N), "lost/op")
		})
	}
}

// BenchmarkWriter is what the goroutine that masks, encrypts and writes takes.
func BenchmarkWriter(b *testing.B) {
	for name, hr := range map[string]*http.Request{"GET": browser("GET", ""), "POST 1 kB": browser("POST", strings.Repeat("a=tea&b=milk&", 80))} {
		b.Run(name, func(b *testing.B) {
			s := open(b, record.Config{})
			for n := uint64(0); b.Loop(); n++ {
				note(s, hr)
				for n-s.Stats().Written > 1000 && s.Stats().Written <= n {
					time.Sleep(10 * time.Microsecond)
				}
			}
			if err := s.Close(); err != nil || s.Stats().Lost > 0 {
				b.Fatal(err, s.Stats())
			}
		})
	}
}

func note(s *studio, hr *http.Request) {
	tape := s.Begin(hr)
	body := tape.Body(io.NopCloser(strings.NewReader("")))
	if hr.ContentLength > 0 {
		body = tape.Body(io.NopCloser(strings.NewReader(hr.Header.Get("X-Body"))))
	}
	_, _ = io.Copy(io.Discard, body)
	tape.End("7K3QWZ5VJ2M4N6P7R2T4V6X2Y4", record.Outcome{Status: 200})
}

func browser(method, body string) *http.Request {
	hr := request(method, "https://shop.example.com/products/teapot?colour=green&page=2", "", body)
	for k, v := range map[string]string{
		"User-Agent":      "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"Accept":          "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
		"Accept-Language": "en-GB,en;q=0.5", "Accept-Encoding": "gzip, deflate, br, zstd",
		"Referer": "https://shop.example.com/products?sort=price&page=1",
		"Cookie":  "session=8d7f0a4c52be4f1e9a2b; theme=dark; lang=en", "Sec-Fetch-Dest": "document",
		"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Upgrade-Insecure-Requests": "1",
		"Priority": "u=0, i",
	} {
		hr.Header.Set(k, v)
	}
	if body != "" {
		hr.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		hr.Header.Set("X-Body", body) // where note finds it again
	}
	return hr
}
