package seclang

import "strings"

// maxLine bounds a line, as Coraza does. It drops silently what follows a
// longer one.
const maxLine = 64<<10 - 1

// A statement is a directive with its lines joined.
type statement struct {
	line int // the first
	text string
}

// cut returns the name of the directive and the rest. Quotes around the whole
// of the rest are taken off.
func (s statement) cut() (name, rest string) {
	name, rest, _ = strings.Cut(s.text, " ")
	if len(rest) >= 3 && rest[0] == '"' && rest[len(rest)-1] == '"' {
		rest = strings.Trim(rest, `"`)
	}
	return name, rest
}

// statements cuts a text at the ends of lines that are not escaped by a
// backslash and not between backquotes. Comments and empty lines count
// nowhere, not even between the lines of a directive. With an error, it
// returns what stands before the mistake, and its line.
func statements(text string) (out []statement, line int, err error) {
	var joined strings.Builder
	start, quoted, open := 0, false, false
	for rest := text; rest != ""; {
		var l string
		l, rest, _ = strings.Cut(rest, "\n")
		line++
		if len(l) > maxLine {
			return out, line, mistake("the line is longer than %d bytes; break it with a backslash", maxLine)
		}
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' {
			continue
		}
		if !open {
			start, open = line, true
		}
		switch {
		case !quoted && strings.HasSuffix(l, "`"):
			quoted = true
		case quoted && l[0] == '`':
			quoted = false
		}
		if quoted {
			joined.WriteString(l + "\n")
			continue
		}
		body, more := strings.CutSuffix(l, `\`)
		joined.WriteString(body)
		if !more {
			out = append(out, statement{start, joined.String()})
			joined.Reset()
			open = false
		}
	}
	switch {
	case quoted:
		return out, start, mistake("the backquote is not closed; close it by a line that begins with one")
	case open:
		return out, start, mistake("the directive is not finished: its last line ends with a backslash")
	}
	return out, 0, nil
}
