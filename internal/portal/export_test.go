package portal

import (
	"io/fs"
	"net/http"
	"net/http/httptest"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/internal/portal/mail"
)

// Choose returns the language that accept gets, and a text in it.
func Choose(files fs.FS, accept, key string, args ...any) (string, error) {
	t, err := loadTexts(files)
	if err != nil {
		return "", err
	}
	c := t.choose(accept)
	return c.tag.String() + " " + c.get(key, args...), nil
}

// Write words a letter without sending it.
func (l *Letters) Write(in identity.Letter) mail.Letter { return l.write(in) }

// Sources is what a consent page lets its form lead to.
func Sources(host string) string { return sources(host) }

// Contrast is how well one color can be read on the other, as WCAG has it.
func Contrast(a, b string) (float64, error) {
	x, err := parseColor(a)
	if err != nil {
		return 0, err
	}
	y, err := parseColor(b)
	return contrast(x, y), err
}

// Style is the style sheet as it is served.
func (p *Portal) Style() string {
	w := httptest.NewRecorder()
	p.css.ServeHTTP(w, httptest.NewRequest(http.MethodGet, p.css.Path, nil))
	return w.Body.String()
}
