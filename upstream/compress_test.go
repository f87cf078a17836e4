package upstream_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/upstream"
)

var page = strings.Repeat("<p>a line of a page that is long enough</p>\n", 3000)

func decode(t testing.TB, coding, body string) string {
	t.Helper()
	var r io.Reader = strings.NewReader(body)
	switch coding {
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = z
	case "br":
		r = brotli.NewReader(r)
	case "zstd":
		z, err := zstd.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		r = z
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(coding, err)
	}
	return string(b)
}

func TestCompression(t *testing.T) {
	html := []string{"Content-Type", "text/html; charset=utf-8"}
	with := func(more ...string) []string { return append(append([]string{}, html...), more...) }
	all := "gzip, deflate, br, zstd"
	for _, c := range []struct {
		name    string
		answer  []string
		request []string
		path    string
		want    string
	}{
		{"zstd is liked best", html, []string{"Accept-Encoding", all}, "/", "zstd"},
		{"br", html, []string{"Accept-Encoding", "br, gzip"}, "/", "br"},
		{"gzip", html, []string{"Accept-Encoding", "gzip"}, "/", "gzip"},
		{"as the client weighs it", html, []string{"Accept-Encoding", "zstd;q=0.1, br;q=0.2, gzip;q=0.9"}, "/", "gzip"},
		{"q=0 forbids", html, []string{"Accept-Encoding", "zstd;q=0, br;q=0, gzip;q=0"}, "/", ""},
		{"a star means gzip", html, []string{"Accept-Encoding", "*"}, "/", "gzip"},
		{"a star does not mean what is forbidden", html, []string{"Accept-Encoding", "gzip;q=0, *"}, "/", ""},
		{"identity", html, []string{"Accept-Encoding", "identity"}, "/", ""},
		{"nothing asked", html, []string{"Accept-Encoding", ""}, "/", ""},
		{"json", []string{"Content-Type", "application/problem+json"}, []string{"Accept-Encoding", "gzip"}, "/", "gzip"},
		{"images are compressed already", []string{"Content-Type", "image/png"}, []string{"Accept-Encoding", all}, "/", ""},
		{"short", html, []string{"Accept-Encoding", all}, "/short", ""},
		{"encoded by the backend", with("Content-Encoding", "gzip"), []string{"Accept-Encoding", all}, "/", "gzip (the backend's)"},
		{"no-transform", with("Cache-Control", "public, no-transform"), []string{"Accept-Encoding", all}, "/", ""},
		{"vouched for", with("Content-Digest", "sha-256=:x:"), []string{"Accept-Encoding", all}, "/", ""},

		{"somebody's own page by their own click", html, []string{"Accept-Encoding", "gzip", "Cookie", "s=1", "Sec-Fetch-Site", "same-origin"}, "/", "gzip"},
		{"somebody's own page with input", html, []string{"Accept-Encoding", "gzip", "Cookie", "s=1", "Sec-Fetch-Site", "same-origin"}, "/?q=guess", ""},
		{"somebody's own page, asked for by another site", html, []string{"Accept-Encoding", "gzip", "Cookie", "s=1", "Sec-Fetch-Site", "cross-site"}, "/search/guess", ""},
		{"by token, with input", html, []string{"Accept-Encoding", "gzip", "Authorization", "Bearer x"}, "/?q=guess", ""},
		{"sets a cookie, with input", with("Set-Cookie", "s=1"), []string{"Accept-Encoding", "gzip"}, "/?q=guess", ""},
		{"nobody's page with input", html, []string{"Accept-Encoding", "gzip"}, "/?q=guess", "gzip"},
		{"public with input", with("Cache-Control", "public, max-age=60"), []string{"Accept-Encoding", "gzip", "Cookie", "s=1"}, "/?q=guess", "gzip"},
		{"a script with a version", []string{"Content-Type", "text/javascript", "Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT"}, []string{"Accept-Encoding", "gzip", "Cookie", "s=1"}, "/?v=3", "gzip"},
		{"a script made for somebody", []string{"Content-Type", "text/javascript"}, []string{"Accept-Encoding", "gzip", "Cookie", "s=1"}, "/?callback=guess", ""},
		{"private, though a script with a date", []string{"Content-Type", "text/javascript", "Last-Modified", "x", "Cache-Control", "private"}, []string{"Accept-Encoding", "gzip", "Cookie", "s=1"}, "/?callback=guess", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := backend(t, func(w http.ResponseWriter, r *http.Request) {
				for i := 0; i < len(c.answer); i += 2 {
					w.Header().Add(c.answer[i], c.answer[i+1])
				}
				w.Header().Set("Etag", `"v1"`)
				if r.URL.Path == "/short" {
					_, _ = io.WriteString(w, "short")
					return
				}
				_, _ = io.WriteString(w, page)
			})
			f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{})
			res, body := get(t, f, c.path, c.request...)
			coding := res.Header.Get("Content-Encoding")
			want, backends := strings.CutSuffix(c.want, " (the backend's)")
			if coding != want {
				t.Fatalf("coding %q, want %q", coding, want)
			}
			switch {
			case backends:
				if body != page || res.Header.Get("Etag") != `"v1"` {
					t.Error("encoded twice")
				}
			case want == "":
				if c.path != "/short" && body != page || res.Header.Get("Etag") != `"v1"` {
					t.Errorf("changed: %d bytes, %v", len(body), res.Header)
				}
			default:
				if decode(t, coding, body) != page {
					t.Error("not the same page")
				}
				if len(body) > len(page)/5 || res.Header.Get("Etag") != `W/"v1"` || !strings.Contains(res.Header.Get("Vary"), "Accept-Encoding") || res.ContentLength > 0 && int(res.ContentLength) != len(body) {
					t.Errorf("%d bytes, %v", len(body), res.Header)
				}
			}
		})
	}
}

func TestCompressionOff(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, page)
	})
	f := newFront(t, upstream.Config{To: []string{b.URL}, NoCompression: true}, setup{})
	if res, body := get(t, f, "/", "Accept-Encoding", "gzip"); res.Header.Get("Content-Encoding") != "" || body != page {
		t.Error(res.Header)
	}
}

// Guards read what the backend sent; the client gets it compressed.
func TestCompressionComesAfterTheGuards(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "identity" {
			t.Error("the backend may encode its answer")
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, page)
	})
	f := newFront(t, upstream.Config{To: []string{b.URL}}, setup{call: upstream.Call{Plain: true, Response: func(res *http.Response) merlon.Decision {
		body, err := io.ReadAll(res.Body)
		if err != nil || string(body) != page {
			t.Error("the guard did not see the page")
		}
		res.Body = io.NopCloser(strings.NewReader(strings.ReplaceAll(page, "line", "LINE")))
		return merlon.Pass("")
	}}})
	res, body := get(t, f, "/", "Accept-Encoding", "br")
	if res.Header.Get("Content-Encoding") != "br" || !strings.Contains(decode(t, "br", body), "a LINE of") {
		t.Error(res.Header)
	}
}

// A broken answer must not get a proper end from the encoder.
func TestCompressedBrokenAnswerStaysBroken(t *testing.T) {
	url := rawBackend(t, answers("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 999999\r\n\r\n"+strings.Repeat(page, 4)))
	f := newFront(t, upstream.Config{To: []string{url}}, setup{})
	hr, _ := http.NewRequest("GET", f.URL, nil)
	hr.Header.Set("Accept-Encoding", "gzip")
	res, err := f.Client().Do(hr)
	if err == nil {
		defer res.Body.Close()
		part, err := io.ReadAll(res.Body)
		if err == nil {
			t.Error("half a page looks whole")
		}
		if z, err := gzip.NewReader(bytes.NewReader(part)); err == nil {
			if _, err := io.ReadAll(z); err == nil {
				t.Error("half a page was given a proper end")
			}
		}
	}
	if d := f.last(t); d.Reason != upstream.Closed || !d.begun {
		t.Errorf("%+v", d)
	}
}
