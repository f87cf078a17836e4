package demo

import (
	"bytes"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"runtime"
	"strings"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static
var static embed.FS

// staticFiles serves the style sheet and the pictures.
func staticFiles() http.Handler {
	files := http.FileServerFS(static)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "max-age=300")
		files.ServeHTTP(w, r)
	})
}

type pages map[string]*template.Template

func parsePages() (pages, error) {
	all := pages{}
	for _, name := range []string{
		"home", "product", "search", "login", "register", "account", "order",
		"admin", "tools", "import", "drop", "holes", "error", "notfound",
	} {
		t, err := template.ParseFS(templateFiles, "templates/layout.html", "templates/"+name+".html")
		if err != nil {
			return nil, err
		}
		all[name] = t
	}
	return all, nil
}

// A view is what a page's template is given.
type view struct {
	Title   string
	Here    string // the path of the page, for the navigation
	Query   string // what was searched for
	Visitor visitor
	Me      *user // nil if not logged in
	Gated   bool  // whether a proxy says that it stands in front
	Notice  string
	Problem string
	Data    any
}

func (s *Shop) view(r *http.Request, title string) view {
	v := view{Title: title, Here: r.URL.Path, Gated: r.Header.Get("X-Forwarded-For") != ""}
	v.Visitor, _ = readVisitor(r)
	if u, err := s.me(r); err == nil {
		v.Me = &u
	}
	return v
}

func (s *Shop) render(w http.ResponseWriter, status int, page string, v view) error {
	var b bytes.Buffer
	if err := s.pages[page].ExecuteTemplate(&b, "layout.html", v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	// HOLE (deliberate): no policy, no framing rule, and the server tells
	// what it is.
	w.Header().Set("Server", "GullKettle/1.4.2 (Ubuntu)")
	w.Header().Set("X-Powered-By", "Express")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the client may be gone; there is nobody left to tell
	return nil
}

// errNobody is what a page that needs somebody logged in fails with.
var errNobody = errors.New("nobody is logged in")

// fail answers a request that failed.
//
// HOLE (deliberate): it shows everybody the cause, the statement that was sent
// to the database and where in the program it happened.
func (s *Shop) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errNobody) {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	v := s.view(r, "Something broke")
	v.Data = map[string]any{"Error": err.Error(), "Trace": trace(err)}
	if err := s.render(w, http.StatusInternalServerError, "error", v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// A traced error remembers the statement and the place that it came from.
type traced struct {
	error
	statement string
	stack     []uintptr
}

func (t traced) Unwrap() error { return t.error }

func tracedError(err error, statement string) error {
	pc := make([]uintptr, 12)
	return traced{err, statement, pc[:runtime.Callers(2, pc)]}
}

// trace words a stack trace. The folders are those of a pretend server.
func trace(err error) string {
	t, ok := errors.AsType[traced](err)
	if !ok {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "statement: %s\ndatabase:  postgres://shop:kettle-61@10.0.0.7:5432/shop\n\ngoroutine 61 [running]:\n", t.statement)
	frames := runtime.CallersFrames(t.stack)
	for {
		f, more := frames.Next()
		file := f.File[strings.LastIndexByte(f.File, '/')+1:]
		fmt.Fprintf(&b, "%s(...)\n\t/srv/shop/%s:%d\n", f.Function[strings.LastIndexByte(f.Function, '/')+1:], file, f.Line)
		if !more {
			return b.String()
		}
	}
}

func (s *Shop) notFound(w http.ResponseWriter, r *http.Request) error {
	return s.render(w, http.StatusNotFound, "notfound", s.view(r, "Not found"))
}

func (s *Shop) holes(w http.ResponseWriter, r *http.Request) error {
	v := s.view(r, "The holes in this shop")
	v.Data = Attacks()
	return s.render(w, http.StatusOK, "holes", v)
}

// A product is a row of the products table.
type product struct {
	Slug, Name, Blurb, Story, Pic string
	Price                         cents
	Stock                         int
}

const productColumns = "slug, name, blurb, story, pic, price, stock"

func scanProduct(rs *sql.Rows, p *product) error {
	return rs.Scan(&p.Slug, &p.Name, &p.Blurb, &p.Story, &p.Pic, &p.Price, &p.Stock)
}

func (s *Shop) home(w http.ResponseWriter, r *http.Request) error {
	all, err := rows(r.Context(), s.db, scanProduct, "SELECT "+productColumns+" FROM products ORDER BY rowid")
	if err != nil {
		return err
	}
	v := s.view(r, "Things for the table")
	v.Data = all
	return s.render(w, http.StatusOK, "home", v)
}

// A reviewText is shown as it was typed.
type reviewText struct {
	ID     int
	Author string
	Text   template.HTML
	Mine   bool
}

func (s *Shop) productOf(r *http.Request, slug string) (product, error) {
	found, err := rows(r.Context(), s.db, scanProduct, "SELECT "+productColumns+" FROM products WHERE slug = ?", slug)
	if err == nil && len(found) == 0 {
		err = sql.ErrNoRows
	}
	if err != nil {
		return product{}, err
	}
	return found[0], nil
}

func (s *Shop) product(w http.ResponseWriter, r *http.Request) error {
	p, err := s.productOf(r, r.PathValue("slug"))
	if errors.Is(err, sql.ErrNoRows) {
		return s.notFound(w, r)
	}
	if err != nil {
		return err
	}
	v := s.view(r, p.Name)
	reviews, err := rows(r.Context(), s.db, func(rs *sql.Rows, t *reviewText) error {
		var text string
		err := rs.Scan(&t.ID, &t.Author, &text)
		// HOLE (deliberate): "people like to write bold and code", so
		// what they typed goes into everybody's page as it is.
		t.Text = template.HTML(text)
		t.Mine = v.Me != nil && v.Me.Name == t.Author
		return err
	}, "SELECT id, author, text FROM reviews WHERE slug = ? ORDER BY id DESC", p.Slug)
	if err != nil {
		return err
	}
	v.Data = map[string]any{"Product": p, "Reviews": reviews}
	return s.render(w, http.StatusOK, "product", v)
}

// maxReviews is how many reviews of one product are kept beside the first ones.
const maxReviews = 30

func (s *Shop) review(w http.ResponseWriter, r *http.Request) error {
	u, err := s.me(r)
	if err != nil {
		return errNobody
	}
	p, err := s.productOf(r, r.PathValue("slug"))
	if errors.Is(err, sql.ErrNoRows) {
		return s.notFound(w, r)
	}
	if err != nil {
		return err
	}
	text := strings.TrimSpace(r.PostFormValue("text"))
	if text != "" && len(text) <= 2000 {
		if _, err := s.db.ExecContext(r.Context(), "INSERT INTO reviews (slug, author, text, keep) VALUES (?, ?, ?, 0)", p.Slug, u.Name, text); err != nil {
			return err
		}
	}
	if _, err := s.db.ExecContext(r.Context(), `DELETE FROM reviews WHERE slug = ?1 AND keep = 0 AND id NOT IN
		(SELECT id FROM reviews WHERE slug = ?1 AND keep = 0 ORDER BY id DESC LIMIT ?2)`, p.Slug, maxReviews); err != nil {
		return err
	}
	http.Redirect(w, r, "/product/"+p.Slug+"#reviews", http.StatusSeeOther)
	return nil
}

func (s *Shop) deleteReview(w http.ResponseWriter, r *http.Request) error {
	u, err := s.me(r)
	if err != nil {
		return errNobody
	}
	var slug string
	err = s.db.QueryRowContext(r.Context(), "DELETE FROM reviews WHERE id = ? AND author = ? RETURNING slug", r.PathValue("id"), u.Name).Scan(&slug)
	if errors.Is(err, sql.ErrNoRows) {
		return s.notFound(w, r)
	}
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/product/"+slug+"#reviews", http.StatusSeeOther)
	return nil
}

// A hit is a row of a search.
type hit struct{ Name, Blurb, Slug string }

// Pictured reports whether there is a picture of what was found.
func (h hit) Pictured() bool {
	_, err := fs.Stat(static, "static/img/"+h.Slug+".svg")
	return err == nil
}

func (s *Shop) search(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query().Get("q")
	hits, err := s.find(r, q)
	if err != nil {
		// "A customer could not search for O'Brien's mug." Whoever closed
		// that ticket escaped the quote only after the query had failed.
		hits, err = s.find(r, strings.ReplaceAll(q, "'", "''"))
	}
	if err != nil {
		return err
	}
	v := s.view(r, "Search")
	v.Query = q
	v.Data = map[string]any{
		"Hits": hits,
		// HOLE (deliberate): what was searched for goes into the page as it is.
		"Term": template.HTML(q),
	}
	return s.render(w, http.StatusOK, "search", v)
}

// find is a HOLE (deliberate): what was searched for becomes part of the
// statement, so that a UNION reads any table.
func (s *Shop) find(r *http.Request, q string) ([]hit, error) {
	statement := "SELECT name, blurb, slug FROM products WHERE name || ' ' || blurb LIKE '%" + q + "%'"
	hits, err := rows(r.Context(), s.db, func(rs *sql.Rows, h *hit) error {
		return rs.Scan(&h.Name, &h.Blurb, &h.Slug)
	}, statement)
	if err != nil {
		return nil, tracedError(err, statement)
	}
	return hits, nil
}

// stockLevel tells programs how many of a product there are.
//
// HOLE (deliberate): what is wrong with the question is answered with the
// program's insides.
func (s *Shop) stockLevel(w http.ResponseWriter, r *http.Request) error {
	statement := "SELECT stock FROM products WHERE rowid = " + r.URL.Query().Get("product")
	ctx := r.Context()
	levels, err := rows(ctx, s.db, func(rs *sql.Rows, n *int) error { return rs.Scan(n) }, statement)
	if err != nil {
		return tracedError(err, statement)
	}
	if len(levels) == 0 {
		return s.notFound(w, r)
	}
	return writeJSON(w, map[string]int{"stock": levels[0]})
}
