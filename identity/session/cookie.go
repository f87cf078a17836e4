package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
)

// Cookie is the name of the session's cookie. Browsers take one with this
// prefix only from the host itself, over TLS and for all its paths, so that no
// sub-domain and no page in the clear can plant it (RFC 6265bis, 4.1.3.2).
const Cookie = "__Host-merlon"

// idSize is the size of an id in bytes, idText that of its text.
const (
	idSize = 32
	idText = 43
)

// newID returns a new id as the cookie has it, and its hash.
func newID() (string, Hash) {
	var id [idSize]byte
	_, _ = rand.Read(id[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(id[:]), sha256.Sum256(id[:])
}

// Has reports whether h has a cookie that may be a session's.
func Has(h http.Header) bool {
	_, err := hashOf(h)
	return err == nil
}

// hashOf returns the hash of the one session cookie among the Cookie fields
// of h; [merlon.ErrNoProof] if there is none. With two, which of them a
// browser was meant to send is anyone's guess.
func hashOf(h http.Header) (Hash, error) {
	found := 0
	var text string
	for _, field := range h["Cookie"] {
		for part := range strings.SplitSeq(field, ";") {
			if v, ok := ours(part); ok {
				text = v
				found++
			}
		}
	}
	switch {
	case found == 0:
		return Hash{}, merlon.ErrNoProof
	case found > 1:
		return Hash{}, errTwoCookies
	}
	hash, ok := parseID(text)
	if !ok {
		return Hash{}, errBadCookie
	}
	return hash, nil
}

// allHashes returns the hashes of the well-formed session cookies of h, up to
// a number.
func allHashes(h http.Header, most int) []Hash {
	var found []Hash
	for _, field := range h["Cookie"] {
		for part := range strings.SplitSeq(field, ";") {
			if text, ok := ours(part); ok {
				if hash, ok := parseID(text); ok && len(found) < most {
					found = append(found, hash)
				}
			}
		}
	}
	return found
}

// ours returns the value of a part of a Cookie field that is a session cookie.
func ours(part string) (string, bool) {
	name, value, ok := strings.Cut(strings.Trim(part, " \t"), "=")
	return value, ok && name == Cookie
}

// parseID returns the hash of an id's text. Each id has one text only.
func parseID(text string) (Hash, bool) {
	// 43 characters are 258 bits: the last two must be zero.
	if len(text) != idText || strings.IndexByte("AEIMQUYcgkosw048", text[idText-1]) < 0 {
		return Hash{}, false
	}
	var b [idText]byte
	copy(b[:], text)
	var id [idSize]byte
	if n, err := base64.RawURLEncoding.Decode(id[:], b[:]); err != nil || n != idSize {
		return Hash{}, false
	}
	return sha256.Sum256(id[:]), true
}

// cookie returns the cookie for a new id.
func (m *Manager) cookie(id string, s *Session, now time.Time) *http.Cookie {
	c := &http.Cookie{
		Name: Cookie, Value: id, Path: "/",
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
	if m.keep {
		c.MaxAge = max(1, int(s.Until.Sub(now)/time.Second))
	}
	return c
}

// Clear makes h tell the browser to forget the session: its cookie, and what
// the site has stored and cached. Other cookies stay, since some, such as the
// one by which a known device is told, are meant to outlive a session.
func Clear(h http.Header) {
	h.Add("Set-Cookie", (&http.Cookie{
		Name: Cookie, Path: "/", MaxAge: -1,
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}).String())
	h.Set("Clear-Site-Data", `"cache", "storage"`)
}

// Strip takes the session cookie out of a request's header, so that a backend
// never sees it.
func Strip(h http.Header) {
	fields := h["Cookie"]
	var kept []string
	for i, field := range fields {
		if !strings.Contains(field, Cookie) {
			if kept != nil {
				kept = append(kept, field)
			}
			continue
		}
		if kept == nil {
			kept = append(make([]string, 0, len(fields)), fields[:i]...)
		}
		var parts []string
		for part := range strings.SplitSeq(field, ";") {
			if _, ok := ours(part); !ok {
				parts = append(parts, part)
			}
		}
		if rest := strings.TrimLeft(strings.Join(parts, ";"), " \t"); rest != "" {
			kept = append(kept, rest)
		}
	}
	switch {
	case kept == nil:
	case len(kept) == 0:
		delete(h, "Cookie")
	default:
		h["Cookie"] = kept
	}
}
