package stuffing

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
	"golang.org/x/text/unicode/norm"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/internal/field"
	"github.com/merlon-dev/merlon/internal/loose"
)

// A pattern is a path of the log-in, in lower case.
type pattern struct {
	text  string // loosened
	told  string // as it is configured
	exact bool
}

func patterns(paths List) []pattern {
	var list []pattern
	for _, p := range paths {
		told := loose.Case(p)
		list = append(list, pattern{loosen(told), told, !strings.ContainsAny(p, `*?[{\`)})
	}
	return list
}

// loosen returns a path as backends read it that are not strict: without
// parameters, empty segments, and what Windows takes off the end, and with
// slashes that are still encoded.
func loosen(path string) string {
	path = strings.ReplaceAll(path, "%2f", "/")
	for {
		begin := strings.IndexByte(path, ';')
		if begin < 0 {
			break
		}
		rest := ""
		if end := strings.IndexByte(path[begin:], '/'); end >= 0 {
			rest = path[begin+end:]
		}
		path = path[:begin] + rest
	}
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	path = strings.TrimRight(path, "/. ")
	last := strings.LastIndexByte(path, '/')
	if name, _, _ := strings.Cut(path[last+1:], "."); last > 0 && (name == "index" || name == "default") {
		return path[:last] // what a folder is answered with
	}
	return path
}

// isLogin reports whether the backend may take r for a log-in.
func (g *Guard) isLogin(r *merlon.Request) bool {
	return g.isPath(r.Path) && (g.loggingIn(r.Request) || g.disguised(r))
}

// disguised reports whether a request has a method that is not one of those
// that log in, and is none the less what a lenient backend takes for a log-in: a
// GET or HEAD with a password, any with a user and a password, or a POST whose
// field _method says otherwise.
func (g *Guard) disguised(r *merlon.Request) bool {
	has := func(name string) bool {
		found, _ := field.Values(r, name) // what there is of it
		return len(found) > 0
	}
	switch strings.ToUpper(r.Method) {
	case http.MethodGet, http.MethodHead:
		return has(g.c.PasswordField)
	case http.MethodPost:
		return g.overridden(r, func(m string) bool { return slices.Contains(g.c.Methods, m) })
	}
	return has(g.c.PasswordField) && slices.ContainsFunc(g.c.UserField, has)
}

// overridden reports whether a field asks for a request to be taken for one with
// a method that is wanted.
func (g *Guard) overridden(r *merlon.Request, wanted func(string) bool) bool {
	found, _ := field.Values(r, "_method")
	return slices.ContainsFunc(found, func(m string) bool { return wanted(strings.ToUpper(m)) })
}

// plain reports whether r is a log-in as it is told, and no other thing that
// only may be one. A backend may answer well to what it does not take for one,
// such as a page for every path and method, and nobody must be taken for a user
// by that.
func (g *Guard) plain(r *merlon.Request) bool {
	if !slices.Contains(g.c.Methods, r.Method) {
		return false
	}
	for _, name := range overrides {
		if slices.ContainsFunc(r.Header[name], func(m string) bool { return !strings.EqualFold(strings.TrimSpace(m), r.Method) }) {
			return false
		}
	}
	if g.overridden(r, func(m string) bool { return m != r.Method }) {
		return false
	}
	path := strings.TrimRight(loose.Case(r.Path), "/")
	return slices.ContainsFunc(g.paths, func(p pattern) bool {
		return path == p.text || path == strings.TrimRight(p.told, "/") || !p.exact && doublestar.MatchUnvalidated(p.text, path)
	})
}

// isPath reports whether the backend may take a path for the log-in's.
func (g *Guard) isPath(path string) bool {
	path = loose.Case(path)
	loose := loosen(path)
	script := behindScript(loose)
	for _, p := range g.paths {
		if p.exact && (same(p.text, loose) || same(p.text, script)) {
			return true
		}
		if !p.exact && slices.ContainsFunc([]string{path, loose, script, bare(loose), bare(script)}, func(reading string) bool {
			return doublestar.MatchUnvalidated(p.text, reading)
		}) {
			return true
		}
	}
	return false
}

// bare returns a path without an extension.
func bare(path string) string {
	last := strings.LastIndexByte(path, '/') + 1
	if dot := strings.IndexByte(path[last:], '.'); dot > 0 {
		return path[:last+dot]
	}
	return path
}

// same also takes a path with the extension that some frameworks read as the
// form of the answer, /login.json, and one with more behind the name of a
// script, which is then told it (RFC 3875, PATH_INFO): /login.php/x.
func same(want, path string) bool {
	rest, ok := strings.CutPrefix(path, want)
	switch {
	case !ok:
		return false
	case rest == "" || rest[0] == '.':
		return true
	}
	return rest[0] == '/' && isScript(want[strings.LastIndexByte(want, '/')+1:])
}

// isScript reports whether a name is one of those that servers run with the
// rest of the path.
func isScript(name string) bool {
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "php", "php5", "php7", "phtml", "cgi", "pl", "py", "rb", "fcgi", "asp", "aspx", "ashx", "asmx", "jsp", "cfm", "dll", "exe":
		return strings.Contains(name, ".")
	}
	return false
}

// behindScript returns what a script that answers all paths is told: /login for
// /index.php/login.
func behindScript(path string) string {
	for at := 0; ; {
		end := strings.IndexByte(path[min(at+1, len(path)):], '/')
		if end < 0 {
			return path
		}
		end += at + 1
		if isScript(path[at+1 : end]) {
			return path[end:]
		}
		at = end
	}
}

var overrides = [...]string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}

func (g *Guard) loggingIn(hr *http.Request) bool {
	if slices.Contains(g.c.Methods, strings.ToUpper(hr.Method)) {
		return true
	}
	for _, name := range overrides {
		for _, m := range hr.Header[name] {
			if slices.Contains(g.c.Methods, strings.ToUpper(strings.TrimSpace(m))) {
				return true
			}
		}
	}
	return false
}

// A try is one guess in a request.
type try struct {
	user     string // folded; empty if none is named
	password string
}

// read returns the tries that a request makes, or why that cannot be told. None
// are made only where the log-in's path is shared.
func (g *Guard) read(r *merlon.Request) ([]try, *merlon.Decision) {
	var users []string
	for _, name := range g.c.UserField {
		found, d := g.values(r, name)
		if d != nil {
			return nil, d
		}
		for _, u := range found {
			users = append(users, g.fold(u))
		}
	}
	passwords, d := g.values(r, g.c.PasswordField)
	if d != nil {
		return nil, d
	}
	if len(users) == 0 && len(passwords) > 0 && !g.c.Shared {
		// Some backends look for a name in cookies, too.
		return nil, unreadable("a password, and no field with the user's name", nil)
	}
	if len(passwords) <= 1 {
		// A form with a field for the name and one for the address leaves one empty.
		users = slices.DeleteFunc(users, func(u string) bool { return u == "" })
	}
	if g.c.Shared && len(users) == 0 && len(passwords) == 0 {
		return nil, nil
	}
	tries, ok := pair(users, passwords)
	switch {
	case !ok:
		return nil, unreadable(fmt.Sprintf("%d users and %d passwords, so that nobody can tell which belong together", len(users), len(passwords)), nil)
	case len(tries) > g.c.AtOnce:
		d := merlon.Refuse(http.StatusBadRequest, LoginBatch)
		d.Findings = []merlon.Finding{{Part: "body", Message: fmt.Sprintf("%d tries in one request; at_once allows %d", len(tries), g.c.AtOnce)}}
		if len(tries) <= 20 {
			d.Remedy = "backend_login:\n  at_once: " + strconv.Itoa(len(tries))
		}
		return nil, &d
	}
	return tries, nil
}

// pair puts users and passwords together, in order, or one with each of the
// others. The same pair twice is one guess.
func pair(users, passwords []string) (tries []try, ok bool) {
	if len(users) > 1 && len(passwords) > 1 && len(users) != len(passwords) {
		return nil, false
	}
	at := func(list []string, i int) string {
		switch len(list) {
		case 0:
			return ""
		case 1:
			return list[0]
		}
		return list[i]
	}
	for i := range max(len(users), len(passwords), 1) {
		t := try{at(users, i), at(passwords, i)}
		if !slices.Contains(tries, t) {
			tries = append(tries, t)
		}
	}
	return tries, true
}

func (g *Guard) values(r *merlon.Request, name string) ([]string, *merlon.Decision) {
	values, err := field.Values(r, name)
	switch {
	case err == nil:
		return values, nil
	case errors.Is(err, field.ErrUnreadable):
		return nil, unreadable("", err)
	case errors.Is(err, field.ErrTooMany):
		d := merlon.Refuse(http.StatusBadRequest, LoginBatch)
		d.Err = err
		return nil, &d
	}
	d := merlon.BodyFailed(err)
	return nil, &d
}

func unreadable(message string, err error) *merlon.Decision {
	d := merlon.Refuse(http.StatusBadRequest, LoginUnreadable)
	if err != nil {
		d.Err, message = err, err.Error()
	}
	d.Findings = []merlon.Finding{{Part: "body", Message: message}}
	return &d
}

// fold returns the one form of a name that the backend may write in several:
// beside what account.Fold does, databases drop accents when they compare, and
// invisible letters, and bytes that are none, are a way to look like somebody
// else. What cannot be a name
// may be a password typed too early, and is told by a keyed hash.
func (g *Guard) fold(name string) string {
	s := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Cc) {
			return -1
		}
		return r
	}, norm.NFKD.String(strings.TrimSpace(name))))
	if s == "" {
		return ""
	}
	if f, err := account.Fold(s); err == nil {
		return f
	}
	s = strings.ToLower(strings.Join(strings.Fields(s), " "))
	return "(no name) " + hex.EncodeToString(keyed(g.names, []byte(s))[:8])
}
