package portal

import (
	"errors"
	"mime"
	"net/http"
	"net/url"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/internal/webpage"
)

// maxForm is the longest form that the pages send, a passkey's answer among
// them.
const maxForm = 64 << 10

// A visit is one request on its way through the portal.
type visit struct {
	*merlon.Request
	w      http.ResponseWriter
	origin string     // the site's, from the configuration
	form   url.Values // what was sent; of GET, the query
	text   catalogue
	secret string // see formSecret
	way    way
}

// A way is where a log-in is to end, carried from page to page in hidden
// fields. All of it is what a browser says, and is checked where it is used.
type way struct {
	Return string // a path on this site
	Ticket string // of a kept request, see package resume
	Need   string // how strong a proof is wanted; empty for any
}

func wayOf(f url.Values) way {
	w := way{Return: account.SafeReturn(f.Get("return_to")), Ticket: f.Get("resume"), Need: f.Get("need")}
	if len(w.Ticket) > 64 {
		w.Ticket = ""
	}
	var s account.Strength
	if s.UnmarshalText([]byte(w.Need)) != nil {
		w.Need = ""
	}
	return w
}

// query returns w as it is written in an address.
func (w way) query() string {
	q := url.Values{}
	if w.Return != "" && w.Return != "/" {
		q.Set("return_to", w.Return)
	}
	if w.Ticket != "" {
		q.Set("resume", w.Ticket)
	}
	if w.Need != "" {
		q.Set("need", w.Need)
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// end returns where to go once it is done.
func (w way) end() string {
	if w.Ticket != "" {
		return Prefix + "resume?" + url.Values{"ticket": {w.Ticket}}.Encode()
	}
	return account.SafeReturn(w.Return)
}

func (w way) strength() account.Strength {
	var s account.Strength
	_ = s.UnmarshalText([]byte(w.Need)) // wayOf has looked at it
	return s
}

// LogInPath returns where somebody signs in to then go to returnTo, a path of
// the site, or to have the kept request of a ticket sent again.
func LogInPath(returnTo, ticket string) string {
	return Prefix + "login" + way{Return: returnTo, Ticket: ticket}.query()
}

// ProvePath returns where somebody who is signed in proves it again, at least
// as strongly as need says.
func ProvePath(need account.Strength, returnTo, ticket string) string {
	w := way{Return: returnTo, Ticket: ticket}
	if need != account.None {
		w.Need = need.String()
	}
	return Prefix + "prove" + w.query()
}

var errForm = errors.New("portal: not a form of ours")

// read takes in what was sent, and leaves the body in its place: a request
// may have to be kept.
func (v *visit) read() error {
	if v.Method != http.MethodPost {
		v.form = v.URL.Query()
		v.way = wayOf(v.form)
		return nil
	}
	media, _, err := mime.ParseMediaType(v.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return errForm
	}
	body, whole, err := v.Peek(maxForm)
	if err != nil || !whole {
		return errForm
	}
	if v.form, err = url.ParseQuery(string(body)); err != nil {
		return errForm
	}
	for _, values := range v.form {
		if len(values) > 1 {
			return errForm // no form of ours has a field twice
		}
	}
	v.way = wayOf(v.form)
	return nil
}

func (v *visit) scheme() string {
	if v.TLS != nil {
		return "https"
	}
	return "http"
}

// sessionID names the session, if somebody is signed in by one. Keys and
// tokens are for programs, which have no business here.
func (v *visit) sessionID() string {
	if v.Identity == nil {
		return ""
	}
	return v.Identity.Session
}

func (v *visit) desk() identity.Visit {
	return identity.Visit{Request: v.Request, Header: v.w.Header(), Origin: v.origin}
}

// to sends the browser on by a new request of its own (303: a POST with a
// password in it is never repeated elsewhere, RFC 9700, 4.12).
func (v *visit) to(path string) {
	h := v.w.Header()
	webpage.Secure(h)
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Location", path)
	v.w.WriteHeader(http.StatusSeeOther)
}
