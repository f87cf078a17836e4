package transform

import "strings"

func startsComment(s string) bool { return len(s) > 1 && s[0] == '/' && s[1] == '*' }

func endsComment(s string) bool { return len(s) > 1 && s[0] == '*' && s[1] == '/' }

// replaceComments makes a space of each comment of C, ended or not.
func replaceComments(a *Arena, s string) (string, bool) {
	i := strings.Index(s, "/*")
	if i < 0 {
		return s, false
	}
	d := a.room(len(s))
	for {
		d = append(append(d, s[:i]...), ' ')
		s = s[i+2:]
		end := strings.Index(s, "*/")
		if end < 0 {
			break
		}
		s = s[end+2:]
		if i = strings.Index(s, "/*"); i < 0 {
			d = append(d, s...)
			break
		}
	}
	return a.take(d), true
}

// removeComments removes comments of C, HTML, SQL and shells. What ends one
// kind ends the other. The byte after an end is never read as a start; if
// there is none it becomes NUL.
func removeComments(a *Arena, s string) (string, bool) {
	d := a.room(len(s) + 1)
	comment, changed := false, false
	for i := 0; i < len(s); {
		rest := s[i:]
		switch {
		case comment && (endsComment(rest) || strings.HasPrefix(rest, "-->")):
			comment = false
			i += 2
			if rest[0] == '-' {
				i++
			}
			if i < len(s) {
				d = append(d, s[i])
			} else {
				d = append(d, 0)
			}
			i++
		case comment:
			i++
		case startsComment(rest):
			comment, changed = true, true
			i += 2
		case strings.HasPrefix(rest, "<!--"):
			comment, changed = true, true
			i += 4
		case strings.HasPrefix(rest, "--") || rest[0] == '#':
			return a.take(d), true
		default:
			d = append(d, rest[0])
			i++
		}
	}
	if comment {
		d = append(d, ' ')
	}
	if !changed {
		return s, false
	}
	return a.take(d), true
}

// removeCommentsChar removes what starts and ends comments.
func removeCommentsChar(a *Arena, s string) (string, bool) {
	d := a.room(len(s))
	for i := 0; i < len(s); {
		rest := s[i:]
		switch {
		case startsComment(rest) || endsComment(rest):
			i += 2
		case strings.HasPrefix(rest, "<!--"):
			i += 4
		case strings.HasPrefix(rest, "-->"):
			i += 3
		case strings.HasPrefix(rest, "--"):
			i += 2
		case rest[0] == '#':
			i++
		default:
			d = append(d, rest[0])
			i++
		}
	}
	return a.end(d, s)
}
