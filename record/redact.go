package record

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon/ledger"
)

// mask hides s: as long as it was, so that a guard that counts still counts
// the same, and of characters that no rule takes offence at. A letter is "z"
// rather than "x", or masks would read as hexadecimal numbers.
func mask(s string) string {
	b := []byte(s)
	for i, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c >= 0x80:
			b[i] = 'z'
		case '0' <= c && c <= '9':
			b[i] = '0'
		default:
			b[i] = '_'
		}
	}
	return string(b)
}

// A redactor takes secrets out of one request, and remembers where.
type redactor struct {
	names map[string]bool // of arguments, cookies and headers
	any   bool            // an argument, or a part of the path, was masked
}

// redact takes the secrets out of e. If it cannot tell where they are in the
// body, that is left out.
func redact(e *Entry, k kind) {
	r := &redactor{names: map[string]bool{}}
	e.Target = r.target(e.Target)
	for name, values := range e.Header {
		for i, v := range values {
			values[i] = r.header(name, v)
		}
	}
	if len(e.Body) > 0 {
		var ok bool
		if e.Body, ok = r.body(e.Body, k, e.Header); !ok {
			e.Body, e.Whole = nil, false
		}
	}
	for i := range e.Outcome.Findings {
		e.Outcome.Hidden = e.Outcome.Hidden || r.hid(e.Outcome.Findings[i].Part)
	}
}

// hide masks the value of an argument.
func (r *redactor) hide(name, value string) string {
	if value == "" {
		return ""
	}
	r.any = true
	r.names[strings.ToLower(name)] = true
	return mask(value)
}

// value masks the value of an argument as far as its name or its text says
// that it is a secret.
func (r *redactor) value(name, value string) string {
	if ledger.SecretName(name) {
		return r.hide(name, value)
	}
	out := text(value)
	if out != value {
		r.hide(name, value)
	}
	return out
}

// text masks the secrets in s; all of it if they are percent-encoded.
func text(s string) string {
	if len(s) < 10 && !strings.ContainsAny(s, "=:%") {
		return s // no secret that can be told is so short
	}
	out := ledger.Mask(s, mask)
	if plain := ledger.Unescape(out); plain != out && holdsSecret(plain) {
		return mask(s)
	}
	return out
}

func holdsSecret(s string) bool { return ledger.Mask(s, mask) != s }

// hid reports whether what a guard saw in this part of the request was masked.
// Parts are written in words: `query parameter "q"`, `cookie "id"`, `request
// line`. It would rather say so once too often.
func (r *redactor) hid(part string) bool {
	if part == "" { // a score
		return false
	}
	if header, ok := strings.CutPrefix(part, "header "); ok && !strings.HasPrefix(header, `"`) {
		return r.names[strings.ToLower(header)]
	}
	i := strings.IndexByte(part, '"')
	if i < 0 {
		return r.any
	}
	name, err := strconv.Unquote(part[i:])
	if err != nil || strings.HasSuffix(name, "…") { // shortened
		return r.any || strings.Contains(part, "cookie")
	}
	name = strings.ToLower(name)
	return r.names[name] || r.names[name[strings.LastIndexByte(name, '.')+1:]] // of a JSON field, the last name is remembered
}

// target masks the secrets in a request target, or another address.
func (r *redactor) target(s string) string {
	path, query, asked := strings.Cut(s, "?")
	path = r.path(path)
	if !asked {
		return path
	}
	return path + "?" + r.pairs(query)
}

func (r *redactor) path(s string) string {
	segments := strings.Split(s, "/")
	for i, segment := range segments {
		params := strings.Split(segment, ";")
		for j, p := range params {
			if name, value, ok := strings.Cut(p, "="); ok && ledger.SecretName(ledger.Unescape(name)) {
				params[j] = name + "=" + r.hide(name, value)
			} else {
				params[j] = r.value("", p)
			}
		}
		segments[i] = strings.Join(params, ";")
	}
	whole := strings.Join(segments, "/")
	if !strings.Contains(whole, "@") || text(whole) == whole {
		return whole
	}
	// user:password@host in an address
	for i := range segments {
		segments[i] = r.hide("", segments[i])
	}
	return strings.Join(segments, "/")
}

// pairs masks the secrets in name=value&name=value.
func (r *redactor) pairs(s string) string {
	var b strings.Builder
	for s != "" {
		pair, sep := s, ""
		if i := strings.IndexAny(s, "&;"); i >= 0 {
			pair, sep = s[:i], s[i:i+1]
		}
		s = s[len(pair)+len(sep):]
		name, value, ok := strings.Cut(pair, "=")
		plain := ledger.Unescape(name)
		b.WriteString(r.value("", name))
		if ok {
			b.WriteByte('=')
			b.WriteString(r.value(plain, value))
		}
		b.WriteString(sep)
	}
	return b.String()
}

// header masks the secrets in one header field. Of a cookie the name is kept,
// of credentials the scheme.
func (r *redactor) header(name, value string) string {
	seen := strings.ToLower(name)
	switch {
	case name == "Cookie":
		return r.cookies(value)
	case name == "Authorization" || name == "Proxy-Authorization":
		r.names[seen] = true
		if scheme, credentials, ok := strings.Cut(value, " "); ok {
			return scheme + " " + mask(credentials)
		}
		return mask(value)
	case ledger.SecretName(name):
		r.names[seen] = true
		return mask(value)
	}
	out := value
	if strings.Contains(value, "?") { // Referer, and what proxies say the address was
		out = r.target(value)
	}
	if out = text(out); out != value {
		r.names[seen] = true
	}
	return out
}

func (r *redactor) cookies(s string) string {
	r.names["cookie"] = true
	all := strings.Split(s, ";")
	for i, c := range all {
		name, value, ok := strings.Cut(c, "=")
		r.names[strings.ToLower(strings.TrimSpace(name))] = true
		if !ok {
			value = c // some take it for a name, others for a value
		}
		trimmed := strings.TrimLeft(value, " ")
		space := value[:len(value)-len(trimmed)]
		all[i] = space + mask(trimmed)
		if ok {
			all[i] = name + "=" + all[i]
		}
	}
	return strings.Join(all, ";")
}

// declared returns the one value of a header field; empty if there is none or
// several.
func declared(h http.Header, name string) string {
	if v := h[name]; len(v) == 1 {
		return v[0]
	}
	return ""
}
