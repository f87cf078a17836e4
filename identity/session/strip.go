package session

import (
	"net/http"
	"slices"
	"strings"
)

// own reports whether a cookie is Merlon's: the session, and what else browsers
// carry for it, such as the mark of a known one or a pass.
func own(name string) bool {
	return name == Cookie || strings.HasPrefix(name, Cookie+"-")
}

// StripCookies removes every cookie of Merlon's own from what goes to a backend.
func StripCookies(h http.Header) {
	fields := h["Cookie"]
	if !slices.ContainsFunc(fields, func(f string) bool { return strings.Contains(f, Cookie) }) {
		return
	}
	kept := make([]string, 0, len(fields))
	for _, field := range fields {
		var parts []string
		for part := range strings.SplitSeq(field, ";") {
			if name, _, _ := strings.Cut(strings.Trim(part, " \t"), "="); !own(strings.Trim(name, " \t")) {
				parts = append(parts, part)
			}
		}
		if rest := strings.TrimLeft(strings.Join(parts, ";"), " \t"); rest != "" {
			kept = append(kept, rest)
		}
	}
	if h["Cookie"] = kept; len(kept) == 0 {
		delete(h, "Cookie")
	}
}

// StripAnswer takes out of what a backend answers the cookies that only Merlon
// may set: a backend, or what is injected into one of a site's several, could
// plant the session of somebody else (fixation).
func StripAnswer(h http.Header) {
	planted := func(line string) bool {
		// Of one without a name some browsers send the value alone, as it is.
		name, _, _ := strings.Cut(strings.TrimLeft(line, " \t="), "=")
		return own(strings.Trim(name, " \t"))
	}
	if !slices.ContainsFunc(h["Set-Cookie"], planted) {
		return
	}
	if h["Set-Cookie"] = slices.DeleteFunc(slices.Clone(h["Set-Cookie"]), planted); len(h["Set-Cookie"]) == 0 {
		delete(h, "Set-Cookie")
	}
}
