package transform

import (
	"bytes"
	"strings"
)

// normalisePath resolves "//", "." and "..". "." becomes empty, "/" becomes
// "//", and a path that ended with a slash ends with one again.
func normalisePath(a *Arena, s string) (string, bool) {
	if s == "" {
		return s, false
	}
	return a.end(clean(a.room(len(s)+1), s, '/'), s)
}

// normalisePathWin also reads "\" as "/", and drops what Windows drops: the
// name of a stream, and dots and spaces at the end of names.
func normalisePathWin(a *Arena, s string) (string, bool) {
	if s == "" {
		return s, false
	}
	d := clean(a.room(len(s)+1), s, '\\')
	return a.end(dropTrails(dropStream(d)), s)
}

// tidy: a path that has nothing to resolve, or to be added to its end.
func tidy(s string) bool {
	i := strings.IndexByte(s, '/')
	if i < 0 {
		return s != "."
	}
	for ; i < len(s); i++ {
		if s[i] == '/' && (i+1 == len(s) || s[i+1] == '/' || s[i+1] == '.') {
			return false
		}
	}
	return s[0] != '.'
}

// tidyWin is tidy for Windows, without anything to cut.
func tidyWin(s string) bool {
	if s == "" || s[len(s)-1] == '.' || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		switch s[i] {
		case '\\', ':':
			return false
		case '/':
			if i > 0 && (s[i-1] == '.' || s[i-1] == ' ') {
				return false
			}
		}
	}
	return tidy(s)
}

// clean appends the clean form of s to d, which is empty. other is a second
// separator.
func clean(d []byte, s string, other byte) []byte {
	isSlash := func(i int) bool { return s[i] == '/' || s[i] == other }
	if isSlash(0) {
		d = append(d, '/')
	}
	root := len(d) // what ".." cannot remove
	for i := 0; i < len(s); {
		if isSlash(i) {
			i++
			continue
		}
		end := i
		for end < len(s) && !isSlash(end) {
			end++
		}
		name := s[i:end]
		i = end
		switch {
		case name == ".":
		case name == ".." && len(d) > root:
			d = d[:max(root, bytes.LastIndexByte(d, '/'))]
		case name == ".." && isSlash(0):
		default:
			if n := len(d); n > 0 && d[n-1] != '/' {
				d = append(d, '/')
			}
			d = append(d, name...)
			if name == ".." {
				root = len(d)
			}
		}
	}
	if len(d) > 0 && isSlash(len(s)-1) {
		d = append(d, '/')
	}
	return d
}

// dropStream cuts the last name of a path at its first colon. The colon after
// the letter of a drive stays.
func dropStream(d []byte) []byte {
	drive := 0
	if len(d) >= 2 && d[1] == ':' && (d[0]|0x20)-'a' <= 25 {
		drive = 2
	}
	end := len(d)
	slash := end > drive && d[end-1] == '/'
	if slash {
		end--
	}
	last := drive + bytes.LastIndexByte(d[drive:end], '/') + 1
	colon := bytes.IndexByte(d[last:end], ':')
	if colon < 0 {
		return d
	}
	d = d[:last+colon]
	if slash {
		d = append(d, '/')
	}
	return d
}

// dropTrails cuts dots and spaces off the end of each name, and drops names
// that are nothing else, unless they are dots only.
func dropTrails(d []byte) []byte {
	if !hasTrails(d) {
		return d
	}
	n, first := 0, true
	for i := 0; i <= len(d); {
		name := d[i:nameEnd(d, i)]
		i += len(name) + 1
		if !dots(name) {
			if name = bytes.TrimRight(name, ". "); len(name) == 0 {
				continue
			}
		}
		if !first {
			d[n] = '/'
			n++
		}
		first = false
		n += copy(d[n:], name)
	}
	return d[:n]
}

func hasTrails(d []byte) bool {
	for i := 0; i <= len(d); {
		name := d[i:nameEnd(d, i)]
		i += len(name) + 1
		if !dots(name) && (name[len(name)-1] == '.' || name[len(name)-1] == ' ') {
			return true
		}
	}
	return false
}

// nameEnd is where the name that starts at i ends.
func nameEnd(d []byte, i int) int {
	if j := bytes.IndexByte(d[i:], '/'); j >= 0 {
		return i + j
	}
	return len(d)
}

// dots reports whether a name is dots only, or empty.
func dots(name []byte) bool {
	for _, c := range name {
		if c != '.' {
			return false
		}
	}
	return true
}
