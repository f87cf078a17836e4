package portal

import (
	"io/fs"

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
