package origin

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Why a path is refused.
var (
	errNoSlash   = errors.New("a path must begin with a slash")
	errEncoding  = errors.New("a path must hold no broken percent encoding")
	errControl   = errors.New("a path must hold no NUL or other control characters")
	errBackslash = errors.New("a path must hold no backslash, raw or encoded")
	errDots      = errors.New("a path must hold no dot segments, raw, encoded, with parameters or in look-alike characters")
	errOverlong  = errors.New("a path must hold no overlong UTF-8")
)

// ErrEncodedTwice is the error of [CanonicalPath] for a path that is harmless
// however often it is decoded, but holds a dot or slash that is encoded more
// than once: a backend that decodes again sees other segments. Links to other
// sites written into a path look like that, and routes that take them can say
// so; the path is returned with the error, so that the route can be found.
var ErrEncodedTwice = errors.New("a path must hold no dot or slash that is encoded twice, unless the route allows it")

// CanonicalPath returns the one decoded spelling of u's path on which routes
// and policies are matched, or why there is none. An encoded slash stays
// encoded, as "%2F", for it separates nothing; it cannot be mistaken for one
// that is encoded twice, which stays as it is. What is returned is for
// matching; the backend is sent the path as the client wrote it.
func CanonicalPath(u *url.URL) (string, error) {
	if u.RawPath == "" && plainPath(u.Path) {
		return u.Path, nil
	}
	raw := u.EscapedPath() // as it is forwarded: net/url may have written it anew
	switch {
	case u.Opaque != "":
		return "", errNoSlash
	case raw == "":
		return "/", nil
	case raw == "*" && u.Host == "": // OPTIONS, for the server as a whole
		return raw, nil
	case raw[0] != '/':
		return "", errNoSlash
	}
	path, percent, err := decode(raw, "%", "%2F")
	if err != nil {
		return "", err
	}
	if err := judgePath(path); err != nil {
		return "", err
	}
	if !percent {
		return path, nil
	}
	// A backend may decode what is left once more, or more often.
	next, _, err := decode(raw, "%", "/")
	if err != nil {
		return "", err
	}
	twice := false
	for {
		more := decodeLoosely(next)
		if more == next {
			break
		}
		if err := judgePath(more); err != nil {
			return "", err
		}
		twice = twice || strings.Count(more, "/") > strings.Count(next, "/") || strings.Count(more, ".") > strings.Count(next, ".")
		next = more // and shorter
	}
	if !twice {
		return path, nil
	}
	path, _, err = decode(raw, "%25", "%2F")
	if err != nil {
		return "", err
	}
	return path, ErrEncodedTwice
}

// decodeLoosely undoes percent encoding once, as programs do that do not mind
// broken ones.
func decodeLoosely(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && hexValue[s[i+1]] >= 0 && hexValue[s[i+2]] >= 0 {
			b.WriteByte(byte(hexValue[s[i+1]]<<4 | hexValue[s[i+2]]))
			i += 2
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// plainPath reports whether a path needs no closer look: there is nothing in
// it to decode, and no segment begins with a dot.
func plainPath(p string) bool {
	if p == "" || p[0] != '/' {
		return false
	}
	for i := 0; i < len(p); i++ {
		c := p[i]
		if c <= ' ' || c >= 0x7f || c == '%' || c == '\\' || c == '.' && p[i-1] == '/' {
			return false
		}
	}
	return true
}

// decode undoes percent encoding once, but writes encoded slashes and percent
// signs as asked, and reports whether there were any of the latter.
func decode(raw, sign, slash string) (path string, percent bool, err error) {
	if strings.IndexByte(raw, '%') < 0 {
		return raw, false, nil
	}
	var b strings.Builder
	b.Grow(len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			b.WriteByte(raw[i])
			continue
		}
		if i+2 >= len(raw) || hexValue[raw[i+1]] < 0 || hexValue[raw[i+2]] < 0 {
			return "", false, errEncoding
		}
		switch c := byte(hexValue[raw[i+1]]<<4 | hexValue[raw[i+2]]); c {
		case '/':
			b.WriteString(slash)
		case '%':
			percent = true
			b.WriteString(sign)
		default:
			b.WriteByte(c)
		}
		i += 2
	}
	return b.String(), percent, nil
}

func judgePath(path string) error {
	ascii := true
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c < ' ' || c == 0x7f:
			return errControl
		case c == '\\':
			return errBackslash
		case c >= 0x80:
			ascii = false
		}
	}
	if !ascii {
		if overlong(path) {
			return errOverlong
		}
		path = lookAlikes.Replace(path)
	}
	for segment := range strings.SplitSeq(strings.ReplaceAll(path, "%2F", "/"), "/") {
		segment, _, _ = strings.Cut(segment, ";")
		// Windows drops spaces at the end of a name, some programs at its
		// beginning.
		if s := strings.Trim(segment, " "); s == "." || s == ".." {
			return errDots
		}
	}
	return nil
}

// lookAlikes are what some backends' normalisation (NFKC, Windows "best fit")
// turns into path syntax.
var lookAlikes = strings.NewReplacer(
	"\uff0e", ".", "\u2024", ".", "\u2025", "..", "\ufe52", ".",
	"\uff0f", "/", "\u2044", "/", "\u2215", "/",
	"\uff3c", "/", "\u00a0", " ", "\u3000", " ",
)

// overlong reports whether s hides a character in a longer UTF-8 sequence than
// it needs (RFC 3629, 3). Bytes that are no UTF-8 at all pass: they are old
// Latin-1 links.
func overlong(s string) bool {
	if utf8.ValidString(s) {
		return false
	}
	cont := func(i int) bool { return i < len(s) && s[i]&0xc0 == 0x80 }
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case (c == 0xc0 || c == 0xc1) && cont(i+1),
			c == 0xe0 && cont(i+1) && s[i+1] < 0xa0 && cont(i+2),
			c == 0xf0 && cont(i+1) && s[i+1] < 0x90 && cont(i+2) && cont(i+3),
			c >= 0xf8 && cont(i+1) && cont(i+2) && cont(i+3):
			return true
		}
	}
	return false
}

// Readings returns the other ways in which backends are known to read a path
// that CanonicalPath returned: parameters dropped from segments, encoded
// slashes decoded, dots and spaces at the end of names dropped, runs of
// slashes and a last one dropped, lower case, and every combination. There are
// at most 31, none for an ordinary path.
func Readings(path string) []string {
	var steps []func(string) string
	if strings.Contains(path, "%2F") {
		steps = append(steps, func(p string) string { return strings.ReplaceAll(p, "%2F", "/") })
	}
	if strings.IndexByte(path, ';') >= 0 {
		steps = append(steps, func(p string) string { return eachSegment(p, dropParameters) })
	}
	if endsLoosely(path) {
		steps = append(steps, func(p string) string {
			return eachSegment(p, func(s string) string { return strings.TrimRight(s, ". ") })
		})
	}
	if len(steps) > 0 || strings.Contains(path, "//") || len(path) > 1 && path[len(path)-1] == '/' {
		steps = append(steps, collapse)
	}
	if lower := strings.ToLower(path); lower != path {
		steps = append(steps, strings.ToLower)
	}
	var readings []string
	for subset := 1; subset < 1<<len(steps); subset++ {
		p := path
		for i, step := range steps {
			if subset&(1<<i) != 0 {
				p = step(p)
			}
		}
		if p != path && !slices.Contains(readings, p) {
			readings = append(readings, p)
		}
	}
	return readings
}

// endsLoosely reports whether a segment may end in a dot or space.
func endsLoosely(path string) bool {
	for i := 0; i < len(path); i++ {
		if path[i] == '.' || path[i] == ' ' {
			if i+1 == len(path) || strings.IndexByte("/;%. ", path[i+1]) >= 0 {
				return true
			}
		}
	}
	return false
}

func dropParameters(segment string) string {
	segment, _, _ = strings.Cut(segment, ";")
	return segment
}

func eachSegment(path string, change func(string) string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = change(s)
	}
	return strings.Join(segments, "/")
}

// collapse makes one slash of many, and drops the last unless it is the only.
func collapse(p string) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] != '/' || i == 0 || p[i-1] != '/' {
			b.WriteByte(p[i])
		}
	}
	if s := b.String(); len(s) > 1 {
		return strings.TrimSuffix(s, "/")
	}
	return "/"
}
