package body

import (
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/message"
)

// parseForm reads names and values as a lenient server would: what is not a
// valid escape stands for itself.
func parseForm(b *message.Body, s string, most int) error {
	b.Args = make([]message.Pair, 0, min(strings.Count(s, "&")+1, most))
	var t texts
	for s != "" {
		var field string
		field, s, _ = strings.Cut(s, "&")
		if field == "" {
			continue
		}
		if len(b.Args) >= most {
			return ErrTooMany
		}
		b.Args = append(b.Args, readField(field, &t))
	}
	return nil
}

func readField(field string, t *texts) message.Pair {
	name, value, _ := strings.Cut(field, "=")
	return message.Pair{Name: unescape(name, t), Value: unescape(value, t)}
}

func unescape(s string, t *texts) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	b := t.room(len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			b = append(b, ' ')
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
		default:
			b = append(b, c)
		}
	}
	return t.keep(b)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}
