package resume

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/merlon-dev/merlon"
)

const cookieName = "merlon-resume"

// maxTicketBody bounds the body in which a ticket comes back.
const maxTicketBody = 256

// IsForm reports whether a page's form sent r, as a navigation of the whole
// window: the one kind of request that a page can send again as it was.
func IsForm(r *merlon.Request) bool {
	if r.Method != http.MethodPost || len(r.Header["Content-Encoding"]) > 0 || len(r.TransferEncoding) > 0 {
		return false
	}
	if m := r.Header.Get("Sec-Fetch-Mode"); m != "" && m != "navigate" {
		return false
	}
	if d := r.Header.Get("Sec-Fetch-Dest"); d != "" && d != "document" {
		return false
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return false
	}
	return media == "application/x-www-form-urlencoded" || media == "multipart/form-data" || media == "text/plain"
}

// Swap puts a kept request back in the place of r if r is the form that
// brings its ticket back: the body, its length and its type; method and
// target must be those of the kept one. It must run before any guard looks at
// the body. No error and false: r is an ordinary request. [ErrGone]: the
// ticket is no longer good, and r must not go on. The caller must refuse it
// if the session is not that of Kept.For.
func (k *Keeper) Swap(r *merlon.Request) (Kept, bool, error) {
	ticket, err := ticketOf(r)
	if ticket == "" || err != nil {
		return Kept{}, false, err
	}
	what, err := k.Take(r, ticket)
	if err != nil {
		return Kept{}, false, err
	}
	if what.Method != r.Method || what.Target != r.URL.RequestURI() {
		return Kept{}, false, ErrGone
	}
	r.Body = io.NopCloser(bytes.NewReader(what.Body))
	r.ContentLength = int64(len(what.Body))
	r.Header.Del("Content-Length")
	r.Header.Set("Content-Type", what.ContentType)
	return what, true, nil
}

// ticketOf returns the ticket that r's body consists of. It looks at bodies
// only of browsers that were given a ticket, and only at short ones.
func ticketOf(r *merlon.Request) (string, error) {
	if r.Method != http.MethodPost || r.ContentLength <= int64(len(Field)) || r.ContentLength > maxTicketBody ||
		r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || browserSecret(r.Request) == "" {
		return "", nil
	}
	body, whole, err := r.Peek(maxTicketBody)
	if err != nil || !whole {
		return "", err
	}
	value, ok := strings.CutPrefix(string(body), Field+"=")
	if !ok || strings.ContainsAny(value, "&=") {
		return "", nil
	}
	ticket, err := url.QueryUnescape(value)
	if err != nil {
		return "", nil
	}
	return ticket, nil
}

// browserSecret returns the secret in the cookie that binds tickets to this
// browser. Two of them mean that somebody has put one there.
func browserSecret(hr *http.Request) string {
	cookies := hr.CookiesNamed(nameFor(hr))
	if len(cookies) != 1 || len(cookies[0].Value) != 43 {
		return ""
	}
	return cookies[0].Value
}

// nameFor returns the cookie's name: one that only this host can set, and
// only over TLS; without TLS, which is for loopback, browsers refuse it.
func nameFor(hr *http.Request) string {
	if hr.TLS != nil {
		return "__Host-" + cookieName
	}
	return cookieName
}

// newCookie is Lax: the form that brings the ticket back comes from our own
// page, but the way there may have led over an identity provider.
func newCookie(hr *http.Request, secret string) *http.Cookie {
	return &http.Cookie{
		Name: nameFor(hr), Value: secret, Path: "/", MaxAge: int(Lifetime.Seconds()),
		Secure: hr.TLS != nil, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}
