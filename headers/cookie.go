package headers

import (
	"net/http"
	"strings"
)

// maxCookie is more than any browser stores (RFC 6265bis: 4096 bytes of name
// and value, 1024 of an attribute).
const maxCookie = 8 << 10

func (p *Policy) applyCookies(secure bool, h http.Header) {
	own := h["Set-Cookie"]
	if len(own) == 0 {
		return
	}
	hardened := make([]string, 0, len(own))
	for _, c := range own {
		if c, ok := p.harden(c, secure); ok {
			hardened = append(hardened, c)
		}
	}
	if len(hardened) == 0 {
		delete(h, "Set-Cookie")
		return
	}
	h["Set-Cookie"] = hardened
}

// harden adds the attributes that the cookie lacks. It only ever appends, so
// name and value stay the upstream's bytes, and of attributes that are there
// twice browsers obey the last (RFC 6265bis, 5.7). It is not ok with what
// browsers would ignore, and with cookies that have no name, which are sent
// back as if they had another's.
func (p *Policy) harden(c string, secure bool) (string, bool) {
	if len(c) > maxCookie || hasControl(c) {
		return "", false
	}
	pair, attributes, _ := strings.Cut(c, ";")
	name, _, ok := strings.Cut(pair, "=")
	if name = trim(name); !ok || name == "" {
		return "", false
	}
	var isSecure, httpOnly, sameSite bool
	for a := range strings.SplitSeq(attributes, ";") {
		key, value, hasValue := strings.Cut(a, "=")
		switch key = trim(key); {
		case isWord(key, "SameSite"):
			value = trim(value)
			sameSite = isWord(value, "Lax") || isWord(value, "Strict") || isWord(value, "None")
		case hasValue: // "Secure=" followed by too much is ignored
		case isWord(key, "Secure"):
			isSecure = true
		case isWord(key, "HttpOnly"):
			httpOnly = true
		}
	}
	var more [3]string
	if secure && !isSecure {
		more[0] = "; Secure"
	}
	if !httpOnly && !p.readable[name] {
		more[1] = "; HttpOnly"
	}
	if !sameSite {
		more[2] = "; SameSite=Lax"
	}
	return c + more[0] + more[1] + more[2], true
}

func hasControl(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}
