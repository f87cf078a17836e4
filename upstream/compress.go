package upstream

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/merlon-dev/merlon"
)

const (
	leastCompressed = 1 << 10 // below, the coding costs more than it saves
	mostCompressing = 256     // at a time and pool; an encoder holds up to 1 MiB
)

// compress encodes an answer for the client where that is of use and safe. It
// runs after the response guards, which see the answer as the backend sent it.
func (p *Pool) compress(r *merlon.Request, query string, res *http.Response) {
	h := res.Header
	if !compressible(r, res) {
		return
	}
	if !varies(h) {
		h.Add("Vary", "Accept-Encoding")
	}
	if mixes(r, query, res) {
		return
	}
	coding := accepted(r.Header["Accept-Encoding"])
	if coding == "" {
		return
	}
	enc := p.encoders.get(coding)
	if enc == nil {
		return
	}
	c := &compressor{src: res.Body, enc: enc, p: p, coding: coding, in: p.buffers.Get(), flush: res.ContentLength < 0}
	enc.Reset(&c.out)
	res.Body, res.ContentLength = c, -1
	h.Set("Content-Encoding", coding)
	h.Del("Content-Length")
	h.Del("Accept-Ranges")
	if tag := h.Get("Etag"); strings.HasPrefix(tag, `"`) {
		h.Set("Etag", "W/"+tag) // RFC 9110, section 8.8.3.3: other bytes, same meaning
	}
}

// compressible reports whether the answer is one that compression may change
// and makes shorter.
func compressible(r *merlon.Request, res *http.Response) bool {
	h := res.Header
	switch {
	case r.Method == http.MethodHead,
		res.StatusCode < 200, res.StatusCode == http.StatusNoContent, res.StatusCode == http.StatusResetContent,
		res.StatusCode == http.StatusPartialContent, res.StatusCode == http.StatusNotModified,
		res.ContentLength >= 0 && res.ContentLength < leastCompressed,
		h["Content-Encoding"] != nil, h["Content-Range"] != nil,
		// These vouch for the bytes as they are.
		h["Content-Digest"] != nil, h["Repr-Digest"] != nil, h["Digest"] != nil, h["Content-Md5"] != nil, h["Signature"] != nil,
		directive(h, "no-transform"):
		return false
	}
	return textual(mediaType(h))
}

func mediaType(h http.Header) string {
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(t))
}

func textual(t string) bool {
	switch t {
	case "text/event-stream":
		return false
	case "application/json", "application/javascript", "application/x-javascript", "application/xml", "application/wasm",
		"application/x-ndjson", "application/yaml", "application/graphql-response+json", "application/vnd.ms-fontobject",
		"image/svg+xml", "image/bmp", "image/x-icon", "image/vnd.microsoft.icon", "font/ttf", "font/otf":
		return true
	}
	return strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+json") || strings.HasSuffix(t, "+xml")
}

// mixes reports whether the answer may hold both a secret and something that
// another site has chosen, so that its length tells of the secret (BREACH).
// That is so if the request or the answer is somebody's own (a cookie,
// Authorization, a client certificate, an identity) and the request had a
// query or a body, is not a read, or was started by another site. What is the
// same for everybody is exempt: answers that are public, and style sheets,
// scripts, fonts and the like with a cache life or a date.
func mixes(r *merlon.Request, query string, res *http.Response) bool {
	own := r.Identity != nil || r.Header["Cookie"] != nil || r.Header["Authorization"] != nil ||
		r.TLS != nil && len(r.TLS.PeerCertificates) > 0 || res.Header["Set-Cookie"] != nil
	if !own || shared(res.Header) {
		return false
	}
	site := r.Header.Get("Sec-Fetch-Site")
	return query != "" || r.ContentLength != 0 || r.Method != http.MethodGet || site == "cross-site" || site == "same-site"
}

func shared(h http.Header) bool {
	if h["Set-Cookie"] != nil || directive(h, "private") || directive(h, "no-store") {
		return false
	}
	if directive(h, "public") {
		return true
	}
	switch t := mediaType(h); {
	case t == "text/css", t == "text/javascript", t == "application/javascript", t == "application/wasm",
		strings.HasPrefix(t, "font/"), strings.HasPrefix(t, "image/"), t == "application/vnd.ms-fontobject":
		return h["Last-Modified"] != nil || directive(h, "immutable") || directive(h, "max-age")
	}
	return false
}

// directive reports whether Cache-Control names a directive.
func directive(h http.Header, name string) bool {
	for _, v := range h["Cache-Control"] {
		for part := range strings.SplitSeq(v, ",") {
			d, arg, _ := strings.Cut(part, "=")
			if strings.EqualFold(strings.TrimSpace(d), name) {
				return strings.TrimSpace(arg) != "0"
			}
		}
	}
	return false
}

func varies(h http.Header) bool {
	for _, v := range h["Vary"] {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part == "*" || strings.EqualFold(part, "Accept-Encoding") {
				return true
			}
		}
	}
	return false
}

// codings in the order in which equal wishes are granted.
var codings = [...]string{"zstd", "br", "gzip"}

// accepted returns the content coding that the client likes best (RFC 9110,
// section 12.5.3), or nothing.
func accepted(fields []string) string {
	var quality [len(codings)]float64
	var given [len(codings)]bool
	rest := 0.0
	seen := 0
	for _, f := range fields {
		for part := range strings.SplitSeq(f, ",") {
			if seen++; seen > 32 {
				return ""
			}
			name, q := weighed(part)
			if name == "*" {
				rest = q
			}
			for i, c := range codings {
				if name == c || c == "gzip" && name == "x-gzip" {
					quality[i], given[i] = q, true
				}
			}
		}
	}
	best, found := 0.0, ""
	for i, c := range codings {
		q := quality[i]
		if !given[i] && c == "gzip" {
			q = rest // "*" from a client that may know nothing newer
		}
		if q > best {
			best, found = q, c
		}
	}
	return found
}

func weighed(part string) (name string, q float64) {
	name, params, _ := strings.Cut(part, ";")
	name = strings.ToLower(strings.TrimSpace(name))
	if params == "" {
		return name, 1
	}
	_, p, err := mime.ParseMediaType("a/a;" + params)
	if err != nil {
		return name, 0
	}
	if p["q"] == "" {
		return name, 1
	}
	q, err = strconv.ParseFloat(p["q"], 64)
	if err != nil || !(q >= 0 && q <= 1) {
		return name, 0
	}
	return name, q
}

type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// encoders keeps encoders for use again, and bounds how many are in use.
type encoders struct {
	zstd, brotli, gzip sync.Pool
	used               atomic.Int64
}

// get returns nil if too many are in use.
func (e *encoders) get(coding string) encoder {
	if e.used.Add(1) > mostCompressing {
		e.used.Add(-1)
		return nil
	}
	if enc, ok := e.pool(coding).Get().(encoder); ok {
		return enc
	}
	switch coding {
	case "zstd":
		w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // the options are fixed
		}
		return w
	case "br":
		return brotli.NewWriterOptions(nil, brotli.WriterOptions{Quality: 4, LGWin: 18})
	default:
		w, err := gzip.NewWriterLevel(nil, 5)
		if err != nil {
			panic(err)
		}
		return w
	}
}

func (e *encoders) put(coding string, enc encoder) {
	enc.Reset(nil)
	e.pool(coding).Put(enc)
	e.used.Add(-1)
}

func (e *encoders) pool(coding string) *sync.Pool {
	switch coding {
	case "zstd":
		return &e.zstd
	case "br":
		return &e.brotli
	default:
		return &e.gzip
	}
}

// A compressor is an answer's body, encoded as it is read. It holds no more
// than one buffer of the backend's and what came of it.
type compressor struct {
	src    io.ReadCloser
	enc    encoder // nil once given back
	p      *Pool
	coding string
	in     []byte
	out    bytes.Buffer
	flush  bool // the answer may be streaming: hold nothing back
	err    error
}

func (c *compressor) Read(p []byte) (int, error) {
	for c.out.Len() == 0 {
		if c.err != nil {
			return 0, c.err
		}
		if c.enc == nil {
			return 0, http.ErrBodyReadAfterClose
		}
		c.err = c.fill()
	}
	return c.out.Read(p)
}

func (c *compressor) fill() error {
	n, err := c.src.Read(c.in)
	if n > 0 {
		if _, werr := c.enc.Write(c.in[:n]); werr != nil {
			return werr
		}
		if c.flush && err == nil {
			if werr := c.enc.Flush(); werr != nil {
				return werr
			}
		}
	}
	if err == io.EOF {
		// Only a whole answer gets an end: a broken one must stay broken.
		if werr := c.enc.Close(); werr != nil {
			return werr
		}
	}
	return err
}

func (c *compressor) Close() error {
	if c.enc != nil {
		c.p.encoders.put(c.coding, c.enc)
		c.p.buffers.Put(c.in)
		c.enc, c.in = nil, nil
	}
	return c.src.Close()
}
