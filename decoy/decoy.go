// Package decoy refuses paths that no legitimate client asks for, such as
// /.env, and says so: who asks for one is looking for a way in.
//
// It keeps nothing secret by itself. What it gives is certainty about a client,
// which package ban acts on; an attacker who knows the list leaves it alone.
package decoy

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/merlon-dev/merlon"
)

// Config configures a [Guard]. The zero Config has the built-in decoys.
type Config struct {
	// Paths are decoys beside the built-in ones: an exact path, or one that ends
	// in /** for all that is below it, such as a link that only robots.txt
	// names, and forbids. Letter case, slashes too many and parameters after a
	// semicolon do not matter. No page may link to one
	// where people can follow it. Default: none. Example:
	//
	//	paths: [/backup.tar.gz, /admin-old/**]
	Paths []string `yaml:"paths,omitempty" inherit:"join"`
	// Except are built-in decoys that are none here, because the application
	// does serve them. Default: none. Example:
	//
	//	except: [/.env]
	Except []string `yaml:"except,omitempty" inherit:"join"`
}

const (
	// NoDecoy: the path is not a decoy's.
	NoDecoy merlon.Reason = "no-decoy"
	// DecoyTouched: the client asked for a path that nobody has a reason to ask
	// for. If the application serves it, name it in except, or take it out of
	// paths.
	DecoyTouched merlon.Reason = "decoy-touched"
)

// builtIn are files that hold secrets, or the traces of break-ins, and that no
// server hands out on purpose. Nothing below /.well-known/ is among them, and
// nothing that a browser, a crawler or a common product asks for by itself:
// not /.DS_Store, which careless copies of a folder hold, and not
// /wp-login.php, since the site may be WordPress.
var builtIn = []string{
	"/.aws/credentials", "/.docker/config.json", "/.env", "/.env.bak", "/.env.production", "/.git/config",
	"/.htpasswd", "/.kube/config", "/.ssh/id_ed25519", "/.ssh/id_rsa", "/.svn/wc.db",
	"/etc/passwd", "/etc/shadow", "/vendor/phpunit/phpunit/src/util/php/eval-stdin.php",
	"/wp-config.php.bak", "/wp-config.php.save", "/wp-config.php~",
}

const maxPaths = 1000

// A Guard refuses decoys.
type Guard struct {
	exact map[string]bool // folded
	below []string        // folded, with a slash at the end
}

// New returns a Guard.
func New(c Config) (*Guard, error) {
	g := &Guard{exact: make(map[string]bool, len(builtIn)+len(c.Paths))}
	for _, p := range builtIn {
		g.exact[p] = true
	}
	var errs []error
	bad := func(setting string, i int, value, rule string) {
		errs = append(errs, merlon.BadSetting(setting+"["+strconv.Itoa(i)+"]", value, rule))
	}
	for i, p := range c.Except {
		if f := strings.ToLower(p); slices.Contains(builtIn, f) {
			delete(g.exact, f)
		} else {
			bad("except", i, p, "must be a built-in decoy: "+strings.Join(builtIn, ", "))
		}
	}
	if len(c.Paths) > maxPaths {
		bad("paths", maxPaths, c.Paths[maxPaths], "must be one of at most 1000")
	}
	for i, p := range c.Paths {
		folder, below := strings.CutSuffix(p, "/**")
		if rule := broken(p, folder, below); rule != "" {
			bad("paths", i, p, rule)
			continue
		}
		if below {
			g.below = append(g.below, strings.ToLower(folder)+"/")
		} else {
			g.exact[strings.ToLower(p)] = true
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return g, nil
}

// broken says what is wrong with one of paths.
func broken(p, folder string, below bool) string {
	f := strings.ToLower(p)
	switch {
	case !strings.HasPrefix(p, "/") || p == "/" || below && folder == "":
		return "must be a path such as /backup.zip, or /old/** for all below it, but not the whole site"
	case strings.ContainsAny(folder, "*?[]{}\\#%") || !utf8.ValidString(p):
		return "must be a decoded path without wildcards, but for /** at its end"
	case f == "/robots.txt" || f == "/favicon.ico" || within(f, "/.well-known"):
		return "must not be what browsers and crawlers ask for by themselves"
	case within(f, "/.merlon"):
		return "must leave /.merlon/ to Merlon's own pages"
	}
	return ""
}

func within(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// Name returns "decoy".
func (g *Guard) Name() string { return "decoy" }

// Middleware puts the guard in front of next.
func (g *Guard) Middleware(next http.Handler) http.Handler { return merlon.Middleware(g)(next) }

// Check refuses a decoy as if there were nothing.
func (g *Guard) Check(r *merlon.Request) merlon.Decision {
	path := strings.ToLower(r.Path)
	decoy := g.find(path)
	if loose := loosen(path); decoy == "" && loose != path {
		decoy = g.find(loose)
	}
	if decoy == "" {
		return merlon.Pass(NoDecoy)
	}
	d := merlon.Refuse(http.StatusNotFound, DecoyTouched)
	d.Findings = []merlon.Finding{{Rule: decoy, Part: "path", Value: shorten(r.Path), Message: "is a decoy"}}
	if slices.Contains(builtIn, decoy) {
		d.Remedy = "decoy:\n  except: [\"" + decoy + "\"]"
	}
	return d
}

// find returns the decoy that a path in small letters is, or nothing.
func (g *Guard) find(path string) string {
	if g.exact[path] {
		return path
	}
	for _, folder := range g.below {
		if strings.HasPrefix(path, folder) || path == folder[:len(folder)-1] {
			return folder + "**"
		}
	}
	return ""
}

// loosen returns a path as servers read it that do not mind slashes too many,
// encoded ones, parameters after a semicolon, and dots and blanks at the end of
// a name. Scanners try these.
func loosen(path string) string {
	if !strings.ContainsAny(path, ";% ") && !strings.Contains(path, "//") && !strings.HasSuffix(path, "/") && !strings.HasSuffix(path, ".") {
		return path
	}
	var b strings.Builder
	for name := range strings.SplitSeq(strings.ReplaceAll(path, "%2f", "/"), "/") {
		name, _, _ = strings.Cut(name, ";")
		if name = strings.TrimRight(name, ". "); name != "" {
			b.WriteString("/" + name)
		}
	}
	return b.String()
}

const shown = 120 // bytes of a client's path that a finding repeats

func shorten(s string) string {
	if len(s) <= shown {
		return s
	}
	return strings.ToValidUTF8(s[:shown], "") + "…"
}
