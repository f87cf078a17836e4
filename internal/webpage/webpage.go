// Package webpage holds what all pages of Merlon's own have in common: the fields
// that every answer carries, and files that browsers may keep for ever. It knows
// no templates and no texts; each package of pages has its own.
package webpage

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// Secure sets what every answer says. The referrer policy lets browsers send our
// own origin with our forms, which no-referrer would turn into "null", but never
// a path or query: links with secrets stay here.
func Secure(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "strict-origin")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Robots-Tag", "noindex")
}

// A File is part of a page, at a path that changes with its content.
type File struct {
	Path  string
	media string
	bytes []byte
}

// NewFile returns the file with a content. Named "/static/page.css", it is at
// "/static/page.HASH.css"; media is what its Content-Type says.
func NewFile(name string, content []byte, media string) *File {
	sum := sha256.Sum256(content)
	ending := path.Ext(name)
	return &File{strings.TrimSuffix(name, ending) + "." + hex.EncodeToString(sum[:8]) + ending, media, content}
}

// ServeHTTP writes the file. Opened by itself it loads nothing. Its policy is
// also that of a worker, which sandbox would take the origin from.
func (f *File) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	Secure(h)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Content-Type", f.media)
	h.Set("Content-Length", strconv.Itoa(len(f.bytes)))
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(f.bytes) // the browser may be gone
	}
}
