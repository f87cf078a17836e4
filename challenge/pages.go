package challenge

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/count"
	"github.com/merlon-dev/merlon/secrets"
)

// Prefix is where the pages are on every site: this path, and all below it.
const Prefix = "/.merlon/challenge"

// ours reports whether a path is one of the pages.
func ours(path string) bool {
	rest, ok := strings.CutPrefix(path, Prefix)
	return ok && (rest == "" || rest[0] == '/')
}

func pagePath(d demand) string {
	return Prefix + "?bits=" + strconv.Itoa(d.bits) + "&wait=" + strconv.Itoa(int(d.wait/time.Second))
}

func withReturn(page, to string) string { return page + "&to=" + url.QueryEscape(to) }

// PagesEnv is what [Pages] needs from outside.
type PagesEnv struct {
	Key   secrets.Key
	Count count.Store // bounds passes for waiting
	Brand string      // shown above; the site's host if empty
}

// Pages serves the page on which browsers prove themselves, for all sites.
// It must be asked with requests that [merlon.From] knows.
type Pages struct{}

// NewPages returns Pages.
func NewPages(env PagesEnv) (*Pages, error) { return &Pages{}, nil }

func (p *Pages) ServeHTTP(w http.ResponseWriter, hr *http.Request) {}
