package account

import (
	"net/url"
	"strings"
)

// MaxReturn is how long a path to return to may be: with what else a sealed
// cookie holds it has to fit into the 4096 bytes that browsers take.
const MaxReturn = 2048

// SafeReturn returns where to send a browser after it has logged in: the path
// and query on this host that to is, or "/" if to is anything else. Whatever a
// browser might take for another host's address is refused (ASVS 5.0, 3.7.2):
// "//host", "/\host", schemes, control characters that browsers drop, and the
// percent-encoded forms of these in the path, which something behind us might
// decode.
func SafeReturn(to string) string {
	if len(to) > MaxReturn || !strings.HasPrefix(to, "/") {
		return "/"
	}
	for i := range len(to) {
		if c := to[i]; c <= ' ' || c >= 0x7f || c == '\\' || c == '#' {
			return "/"
		}
	}
	path, _, _ := strings.Cut(to, "?")
	decoded, err := url.PathUnescape(path)
	if err != nil || strings.Contains(decoded, "//") || strings.Contains(decoded, `\`) || strings.IndexFunc(decoded, isControl) >= 0 {
		return "/"
	}
	return to
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
