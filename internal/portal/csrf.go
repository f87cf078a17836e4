package portal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"

	"github.com/merlon-dev/merlon"
)

// A form's token says that a page of ours that this browser was shown sent
// it, in this session or, before there is one, with this cookie (login CSRF:
// nobody can be signed in to a stranger's account by a stranger's page). It
// stands beside the csrf guard's own check of where a form comes from.

const (
	formCookie = "merlon-form"
	tokenField = "csrf"
	nonceLen   = 16
)

// formCookieName is a name that only this host can set, where there is TLS.
func formCookieName(hr *http.Request) string {
	if hr.TLS != nil {
		return "__Host-" + formCookie
	}
	return formCookie
}

// formSecret returns what the browser's forms are bound to, and gives it one
// if it has none.
func (v *visit) formSecret() string {
	if v.secret != "" {
		return v.secret
	}
	if v.secret = sentSecret(v.Request); v.secret == "" {
		v.secret = randomText()
		http.SetCookie(v.w, &http.Cookie{
			Name: formCookieName(v.Request.Request), Value: v.secret, Path: "/",
			Secure: v.TLS != nil, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		})
	}
	return v.secret
}

// sentSecret returns the secret in the cookie; two cookies mean that somebody
// has put one there.
func sentSecret(r *merlon.Request) string {
	cookies := r.CookiesNamed(formCookieName(r.Request))
	if len(cookies) != 1 || len(cookies[0].Value) != 43 {
		return ""
	}
	return cookies[0].Value
}

func randomText() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// token returns a token for a form on the page being made. It is another one
// each time, so that a compressed page gives nothing away (BREACH).
func (p *Portal) token(v *visit) string {
	nonce := make([]byte, nonceLen, nonceLen+sha256.Size)
	_, _ = rand.Read(nonce)
	return base64.RawURLEncoding.EncodeToString(p.tokenMAC(nonce, v.formSecret(), v.sessionID()))
}

func (p *Portal) tokenMAC(nonce []byte, secret, session string) []byte {
	m := hmac.New(sha256.New, p.formKey)
	m.Write(nonce)
	for _, part := range [...]string{secret, session} {
		sum := sha256.Sum256([]byte(part))
		m.Write(sum[:])
	}
	return m.Sum(nonce)
}

// ownForm reports whether a page of ours sent the request.
func (p *Portal) ownForm(v *visit) bool {
	if site := v.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	// Merlon's own pages never make a browser send "null": see the
	// Referrer-Policy in page.go.
	if o := v.Header.Get("Origin"); o != "" && o != v.origin && o != v.scheme()+"://"+v.Host {
		return false
	}
	secret := sentSecret(v.Request)
	sent, err := base64.RawURLEncoding.DecodeString(v.form.Get(tokenField))
	if secret == "" || err != nil || len(sent) != nonceLen+sha256.Size {
		return false
	}
	return hmac.Equal(sent, p.tokenMAC(sent[:nonceLen:nonceLen], secret, v.sessionID()))
}
