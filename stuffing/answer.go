package stuffing

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon"
)

// What the backend's answer says about a try.
type result uint8

const (
	wrong result = iota
	right
	unsure
)

// maxAnswer is how many bytes of an answer are looked at.
const maxAnswer = 64 << 10

// CheckResponse learns from the backend's answer what came of the tries. After
// a right one the browser is known, and a cookie says so. Nobody gets in as a
// canary; that it is one counts when the answer is out, so that nothing tells it
// from a user whom the backend does not know.
func (g *Guard) CheckResponse(r *merlon.Request, res *http.Response) merlon.Decision {
	l := g.release(r)
	if l == nil {
		return merlon.Decision{Effect: merlon.Allow}
	}
	if l.canary != nil {
		g.hold(r, &login{canary: l.canary})
	}
	switch g.judge(r, res) {
	case unsure:
		l.unsure()
		return merlon.Pass(LoginUnsure)
	case wrong:
		l.wrong()
		return merlon.Pass(LoginFailed)
	}
	if l.canary != nil {
		l.wrong()
		return sprung(l.canary)
	}
	if len(l.tries) > 1 {
		// Which of them was right cannot be told, and one's own account among
		// them must not pay for the others.
		l.wrong()
		return merlon.Pass(LoginSucceeded)
	}
	if !l.plain {
		l.unsure()
		return merlon.Pass(LoginUnsure)
	}
	if !l.tickets[0].Right() {
		return merlon.Pass(LoginMisread)
	}
	d := merlon.Pass(LoginSucceeded)
	if user := l.tries[0].user; user != "" && g.knows(res) {
		d.Header = http.Header{"Set-Cookie": {g.devices.remember(l.found, placeOf(r), user)}}
	}
	return d
}

// Done settles the tries of which no answer was seen. What may have been looked
// at stays counted: whoever hangs up before the answer must not guess for free.
func (g *Guard) Done(r *merlon.Request, o merlon.Outcome) {
	l := g.release(r)
	if l != nil && l.canary != nil {
		defer g.throttle.Canary(context.WithoutCancel(r.Context()), *l.canary)
	}
	switch {
	case l == nil || len(l.tickets) == 0:
	case !o.Upstream:
		l.void()
	case o.Status >= 500 || unlooked(o.Status):
		l.unsure()
	case o.Status < 200 || o.Status >= 400 || o.Guard != "" || len(l.tries) > 1:
		l.wrong()
	case l.canary != nil, slices.Contains(g.c.Failed.Status, o.Status) || len(g.c.Failed.Location)+len(g.c.Failed.Body) > 0 || g.c.Success.Cookie != "":
		l.wrong()
	case !l.plain:
		l.unsure()
	default:
		l.tickets[0].Right()
	}
}

// knows reports whether a right try's answer is proof enough for a browser to be
// known by it. What GraphQL answers the client chooses itself: a query for
// something else, with a user and a password among its variables, succeeds. And
// a page without the words for a wrong try may say that there was none.
func (g *Guard) knows(res *http.Response) bool {
	return g.c.Success.Cookie != "" || !g.c.Shared && (len(g.c.Failed.Body) == 0 || res.StatusCode >= 300)
}

func (l *login) wrong() {
	for _, t := range l.tickets {
		t.Failed()
	}
}

func (l *login) unsure() {
	for _, t := range l.tickets {
		t.Unsure()
	}
}

func (l *login) void() {
	for _, t := range l.tickets {
		t.Void()
	}
}

// judge reads an answer. Whatever the client did wrong is a wrong try: a
// backend that answers 400 to some wrong passwords must not be a way round.
func (g *Guard) judge(r *merlon.Request, res *http.Response) result {
	f := &g.c.Failed
	switch s := res.StatusCode; {
	case s >= 500 || s < 200:
		return unsure
	case s >= 400 || slices.Contains(f.Status, s):
		return wrong
	case g.c.Success.Cookie != "":
	case unlooked(s):
		return unsure
	case s >= 300 && g.toLogin(r, res.Header.Get("Location")):
		return wrong
	}
	if len(f.Location) > 0 && res.StatusCode >= 300 {
		to := res.Header.Get("Location")
		if to == "" || slices.ContainsFunc(f.Location, func(p string) bool { return matches(p, target(to)) }) {
			return wrong
		}
	}
	if c := g.c.Success.Cookie; c != "" && !slices.ContainsFunc(res.Cookies(), func(got *http.Cookie) bool {
		return got.Name == c && got.Value != "" && got.MaxAge >= 0
	}) {
		return wrong
	}
	switch {
	case len(f.Body) > 0:
		if failedBody(res, f.Body) {
			return wrong
		}
	case len(f.Location) > 0 && g.c.Success.Cookie == "" && res.StatusCode < 300:
		return unsure // one that redirects wrong tries redirects right ones, too: this was none for it
	}
	return right
}

// unlooked reports whether an answer tells where to send the same request, that
// there is nothing new, or a part that the client has chosen. A backend that wants /login/ as /login says so
// before it looks at any password, and must not make a browser known by that.
func unlooked(status int) bool {
	switch status {
	case http.StatusPartialContent, http.StatusMovedPermanently, http.StatusNotModified, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// toLogin reports whether a redirect leads back to the log-in: to its form, or
// to its path in another spelling.
func (g *Guard) toLogin(r *merlon.Request, location string) bool {
	to, err := r.URL.Parse(location)
	return location != "" && err == nil && loosen(strings.ToLower(to.Path)) != "" && g.isPath(to.Path)
}

// target returns the path and query of a Location.
func target(location string) string {
	if _, rest, ok := strings.Cut(location, "://"); ok {
		_, path, _ := strings.Cut(rest, "/")
		return "/" + path
	}
	if rest, ok := strings.CutPrefix(location, "//"); ok {
		_, path, _ := strings.Cut(rest, "/")
		return "/" + path
	}
	if location != "" && location[0] != '/' {
		return "/" + location // relative to the log-in's own folder; patterns may begin with *
	}
	return location
}

// matches compares a text with a pattern in which * is anything.
func matches(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, parts[0])
	if !ok {
		return false
	}
	last := len(parts) - 1
	for _, p := range parts[1:last] {
		i := strings.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return strings.HasSuffix(text, parts[last])
}

// failedBody reports whether the answer has one of the texts, or cannot be
// read. It leaves the answer as it was.
func failedBody(res *http.Response, texts List) bool {
	head, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	rest := io.Reader(res.Body)
	if err != nil {
		rest = broken{err}
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), rest), res.Body}
	switch strings.ToLower(strings.Join(res.Header["Content-Encoding"], ",")) {
	case "", "identity":
	case "gzip", "x-gzip":
		zr, err := gzip.NewReader(bytes.NewReader(head))
		if err != nil {
			return true
		}
		head, _ = io.ReadAll(io.LimitReader(zr, maxAnswer)) // what there is of it
	default:
		return true
	}
	return err != nil || slices.ContainsFunc(texts, func(t string) bool { return bytes.Contains(head, []byte(t)) })
}

type broken struct{ error }

func (b broken) Read([]byte) (int, error) { return 0, b.error }
