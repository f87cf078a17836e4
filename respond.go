package merlon

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"strconv"
	"strings"
)

// A problem is an RFC 9457 problem document. Beside the status it tells only
// the id, which the operator can look the cause up by.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	ID     string `json:"id"`
}

//go:embed refusal.html
var refusalHTML string

// refusalStyleHash lets the page's own style through its own policy.
var refusalStyleHash = styleHash(refusalHTML)

func styleHash(page string) string {
	_, rest, _ := strings.Cut(page, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	return base64.StdEncoding.EncodeToString(sum[:])
}

var refusalPage = template.Must(template.New("refusal").Parse(refusalHTML))

// idPlace stands for the request's id in a page that is made in advance.
const idPlace = "ID-OF-THE-REQUEST"

// refusalPages are the pages of all statuses that have a text, each cut where
// the id belongs: a flood of refusals must not cost a template each.
var refusalPages = func() map[int][2]string {
	pages := map[int][2]string{}
	for status := 400; status < 600; status++ {
		if http.StatusText(status) != "" {
			before, after, _ := strings.Cut(refusalText(status, idPlace), idPlace)
			pages[status] = [2]string{before, after}
		}
	}
	return pages
}()

func refusalText(status int, id string) string {
	var b strings.Builder
	if err := refusalPage.Execute(&b, problem{Title: http.StatusText(status), Status: status, ID: id}); err != nil {
		panic(err) // the template is fixed; writing to a Builder cannot fail
	}
	return b.String()
}

// refusalPageOf returns the page of a refusal.
func refusalPageOf(status int, id string) string {
	page, ok := refusalPages[status]
	if !ok {
		return refusalText(status, id)
	}
	return page[0] + template.HTMLEscapeString(id) + page[1]
}

// Respond words a refusal: a page for browsers that navigate, an
// application/problem+json document (RFC 9457) for everything else. A browser
// that is challenged is sent to where it can prove itself. It is the
// only place that does. The public text is the status and the request's id;
// the id is in X-Request-Id, too.
func Respond(w http.ResponseWriter, r *Request, d Decision) {
	p := problem{Type: "about:blank", Title: http.StatusText(d.Code()), Status: d.Code(), ID: r.ID}
	if d.Problem != "" {
		p.Type = d.Problem
	}
	h := w.Header()
	AddHeader(h, d.Header)
	h.Set("X-Request-Id", r.ID)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Vary", "Accept")
	h.Del("Content-Encoding")
	if d.Close {
		h.Set("Connection", "close")
	}
	if d.Location != "" && OpensPage(r.Request) {
		h.Set("Location", d.Location)
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	var body strings.Builder
	if OpensPage(r.Request) {
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'sha256-"+refusalStyleHash+"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		body.WriteString(refusalPageOf(d.Code(), r.ID))
	} else {
		h.Set("Content-Type", "application/problem+json")
		if err := json.NewEncoder(&body).Encode(p); err != nil {
			panic(err)
		}
	}
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(d.Code())
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(body.String())) // the client may be gone; there is nobody left to tell
	}
}

// OpensPage reports whether hr looks like a person's browser opening a page, be
// it by a form.
func OpensPage(hr *http.Request) bool {
	if m := hr.Header.Get("Sec-Fetch-Mode"); m != "" && m != "navigate" {
		return false
	}
	for field := range strings.SplitSeq(hr.Header.Get("Accept"), ",") {
		media, _, _ := strings.Cut(field, ";")
		switch strings.TrimSpace(media) {
		case "text/html", "application/xhtml+xml":
			return true
		case "application/json", "application/problem+json":
			return false
		}
	}
	return false
}
