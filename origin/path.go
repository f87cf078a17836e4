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
	errTwice     = errors.New("a path must hold no dot, slash, backslash or NUL that is encoded twice")
	errOverlong  = errors.New("a path must hold no overlong UTF-8")
)

// CanonicalPath returns the one decoded spelling of u's path on which routes
// and policies are matched, or why there is none. An encoded slash stays
// encoded, as "%2F", for it separates nothing; it cannot be mistaken for an
// encoded percent sign, because "%252F" is refused. What is returned is for
// matching; the backend is sent the path as the client wrote it.
func CanonicalPath(u *url.URL) (string, error) {
	if u.RawPath == "" && plainPath(u.Path) {
		return u.Path, nil
	}
	raw := u.EscapedPath() // as it is forwarded: net/url may have written it anew
	switch {
	case raw == "":
		return "/", nil
	case raw == "*" && u.Host == "": // OPTIONS, for the server as a whole
		return raw, nil
	case raw[0] != '/':
		return "", errNoSlash
	}
	path, err := decode(raw)
	if err != nil {
		return "", err
	}
	if err := judgePath(path); err != nil {
		return "", err
	}
	return path, nil
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

// decode undoes percent encoding once, but for slashes.
func decode(raw string) (string, error) {
	if strings.IndexByte(raw, '%') < 0 {
		return raw, nil
	}
	var b strings.Builder
	b.Grow(len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			b.WriteByte(raw[i])
			continue
		}
		if i+2 >= len(raw) || hexValue[raw[i+1]] < 0 || hexValue[raw[i+2]] < 0 {
			return "", errEncoding
		}
		if c := byte(hexValue[raw[i+1]]<<4 | hexValue[raw[i+2]]); c != '/' {
			if c == '%' && hides(raw[i+3:]) {
				return "", errTwice
			}
			b.WriteByte(c)
		} else {
			b.WriteString("%2F")
		}
		i += 2
	}
	return b.String(), nil
}

// hides reports whether what follows an encoded percent sign makes it, once or
// more often decoded, a character that has a meaning in paths.
func hides(rest string) bool {
	for len(rest) >= 2 && rest[:2] == "25" {
		rest = rest[2:]
	}
	if len(rest) < 2 {
		return false
	}
	switch strings.ToLower(rest[:2]) {
	case "00", "2e", "2f", "5c", "c0", "c1":
		return true
	}
	return false
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
