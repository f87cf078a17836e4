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
	changed := false
	for i := 0; ; {
		next := firstIn(s, i, &startBytes)
		if next == len(s) && !changed {
			return s, false
		}
		d = append(d, s[i:next]...)
		if next == len(s) {
			return a.take(d), true
		}
		i = next
		rest := s[i:]
		switch {
		case startsComment(rest):
			i += 2
		case strings.HasPrefix(rest, "<!--"):
			i += 4
		case strings.HasPrefix(rest, "--") || rest[0] == '#':
			return a.take(d), true
		default:
			d = append(d, rest[0])
			i++
			continue
		}
		changed = true
		end, ok := commentEnd(s, i)
		switch {
		case !ok:
			return a.take(append(d, ' ')), true
		case end == len(s):
			return a.take(append(d, 0)), true
		}
		d = append(d, s[end])
		i = end + 1
	}
}

// commentEnd is the place after the end of a comment.
func commentEnd(s string, i int) (int, bool) {
	for ; i < len(s); i++ {
		if s[i] == '*' && endsComment(s[i:]) {
			return i + 2, true
		}
		if s[i] == '-' && strings.HasPrefix(s[i:], "-->") {
			return i + 3, true
		}
	}
	return i, false
}

// noComments: nothing that starts or ends a comment, as removeComments and
// removeCommentsChar know them.
func noComments(s string) bool {
	for i := range len(s) {
		switch s[i] {
		case '*', '#':
			return false
		case '-':
			if i > 0 && s[i-1] == '-' {
				return false
			}
		}
	}
	return true
}

// removeCommentsChar removes what starts and ends comments.
func removeCommentsChar(a *Arena, s string) (string, bool) {
	d := a.room(len(s))
	for i := 0; i < len(s); {
		next := firstIn(s, i, &markBytes)
		d = append(d, s[i:next]...)
		if next == len(s) {
			break
		}
		i = next
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

// startBytes begin a comment, markBytes what begins or ends one.
var startBytes, markBytes = table("/<-#"), table("/*<-#")

func table(bytes string) (t [256]bool) {
	for i := range len(bytes) {
		t[bytes[i]] = true
	}
	return t
}

// firstIn is the place of the first of some bytes from i on.
func firstIn(s string, i int, t *[256]bool) int {
	for i < len(s) && !t[s[i]] {
		i++
	}
	return i
}
