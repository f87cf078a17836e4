package portal

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/internal/webpage"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed static/portal.css
var styleSheet string

//go:embed static/portal.js
var script []byte

type pages map[string]*template.Template

// parsePages parses each page with the layout and the parts that pages share.
func parsePages() (pages, error) {
	all := pages{}
	names, err := fs.Glob(pageFiles, "pages/*.html")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		base := strings.TrimSuffix(path.Base(name), ".html")
		if base == "layout" || base == "parts" {
			continue
		}
		t, err := template.ParseFS(pageFiles, "pages/layout.html", "pages/parts.html", name)
		if err != nil {
			return nil, err
		}
		all[base] = t
	}
	return all, nil
}

// A page is what a handler wants to be shown.
type page struct {
	name   string // of the file in pages/
	status int    // 200 if 0
	// fail is the key of the text that says what went wrong, told at once to
	// who hears the page; args fill it in. Field is the input it is about.
	fail, field string
	args        []any
	notice      string // the key of good news
	pending     string // the desk's, for the forms
	data        any
	extra       url.Values // more hidden fields of the page's forms
	wide        bool
	formTo      string // another place that a form's answer may lead to
	refresh     string // where to go at once
	wait        time.Duration
	providers   []oidc.Button // all if nil
}

// A view is what a template is given.
type view struct {
	catalogue
	Page         string
	Brand        string
	Logo         string
	CSS, JS      string
	Nonce        string
	Token        string
	Pending      string
	Way          way
	Fail, Notice string
	Field        string
	Refresh      string
	Name         string // who is signed in
	Providers    []oidc.Button
	Register     bool
	Extra        url.Values
	Wide         bool
	Lang         string
	Data         any
}

// T returns a text of the catalogue.
func (v view) T(key string, args ...any) string { return v.get(key, args...) }

// Bad returns the attributes of an input that the failure is about, so that
// it has the focus and is read out together with it.
func (v view) Bad(field string) template.HTMLAttr {
	if v.Fail == "" || v.Field != field {
		return ""
	}
	return `autofocus aria-invalid="true" aria-describedby="fail"`
}

// First returns autofocus for the input to begin with if nothing went wrong.
func (v view) First() template.HTMLAttr {
	if v.Fail != "" && v.Field != "" {
		return ""
	}
	return "autofocus"
}

// Query returns the way as it stands in an address.
func (v view) Query() string { return v.Way.query() }

// Time writes a time for people and for machines.
func (v view) Time(t time.Time) template.HTML {
	if t.IsZero() {
		return template.HTML(template.HTMLEscapeString(v.T("never")))
	}
	t = t.UTC()
	return template.HTML(`<time datetime="` + t.Format(time.RFC3339) + `">` + t.Format("2006-01-02 15:04") + ` UTC</time>`)
}

// policy is the page's Content-Security-Policy. Nothing is loaded by place,
// also not from this origin, since the backend's files are there as well:
// only what carries the nonce.
func policy(nonce, formTo string) string {
	if formTo != "" {
		// Chrome holds what a form's answer leads to against form-action, too.
		formTo = " " + formTo
	}
	return "default-src 'none'; script-src 'nonce-" + nonce + "'; style-src 'nonce-" + nonce +
		"'; img-src 'self' data:; connect-src 'self'; form-action 'self'" + formTo +
		"; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
}

// show writes a page.
func (p *Portal) show(v *visit, pg page) {
	var n [16]byte
	_, _ = rand.Read(n[:])
	d := view{
		catalogue: v.text, Page: pg.name, Brand: p.brandFor(v), CSS: p.css.Path, JS: p.js.Path,
		Nonce: base64.RawURLEncoding.EncodeToString(n[:]), Token: p.token(v), Pending: pg.pending,
		Way: v.way, Field: pg.field, Refresh: pg.refresh, Data: pg.data,
		Providers: p.buttons, Register: p.env.Register == "open",
		Extra: pg.extra, Wide: pg.wide, Lang: v.text.tag.String(),
	}
	if p.logo != nil {
		d.Logo = p.logo.Path
	}
	if pg.providers != nil {
		d.Providers = pg.providers
	}
	if pg.fail != "" {
		d.Fail = v.text.get(pg.fail, pg.args...)
	}
	if pg.notice != "" {
		d.Notice = v.text.get(pg.notice, pg.args...)
	}
	if v.Identity != nil && v.Identity.Session != "" {
		d.Name = v.Identity.Name
	}
	var b bytes.Buffer
	if err := p.pages[pg.name].ExecuteTemplate(&b, "layout", d); err != nil {
		p.env.Log.Error("portal: a page cannot be made", "page", pg.name, "error", err)
		http.Error(v.w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h := v.w.Header()
	webpage.Secure(h)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", v.text.tag.String())
	h.Set("Content-Security-Policy", policy(d.Nonce, pg.formTo))
	h.Add("Vary", "Accept-Language")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	if pg.wait > 0 {
		h.Set("Retry-After", strconv.Itoa(seconds(pg.wait)))
	}
	status := pg.status
	if status == 0 {
		status = http.StatusOK
	}
	v.w.WriteHeader(status)
	if v.Method != http.MethodHead {
		_, _ = v.w.Write(b.Bytes()) // the browser may be gone
	}
}

func seconds(d time.Duration) int { return max(1, int((d+time.Second-1)/time.Second)) }

// static serves the files of the pages.
func (p *Portal) static(v *visit) {
	for _, f := range [...]*webpage.File{p.css, p.js, p.logo} {
		if f != nil && f.Path == v.URL.Path {
			f.ServeHTTP(v.w, v.Request.Request)
			return
		}
	}
	p.show(v, page{name: "error", status: http.StatusNotFound, fail: "error.missing"})
}
