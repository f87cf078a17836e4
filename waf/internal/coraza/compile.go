package coraza

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	corazawaf "github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/experimental"
	"github.com/corazawaf/coraza/v3/types"

	"github.com/merlon-dev/merlon/waf/internal/ruleset"
)

// Compile builds plain Coraza, and tells observe of every rule that is read.
func Compile(sources []ruleset.Source, observe func(types.RuleMetadata)) (corazawaf.WAF, error) {
	root := &files{steps: map[string]*step{}}
	conf := corazawaf.NewWAFConfig().WithRootFS(root)
	var errs []error
	for _, s := range sources {
		for _, d := range s.Directives() {
			if d.Unfinished() { // Coraza would drop it silently
				errs = append(errs, s.Bad(d.Line, "the directive is not finished"))
				continue
			}
			conf = conf.WithDirectivesFromFile(root.add(s, d))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	waf, err := corazawaf.NewWAF(experimental.WAFConfigWithRuleObserver(conf, observe))
	switch at := root.reading; {
	case err == nil:
		return waf, nil
	case at == nil:
		return nil, err
	default:
		return nil, at.source.Bad(at.directive.Line, reasonOf(err))
	}
}

// files is the file system that Coraza reads rules from: every directive of a
// source is a file of its own, so that a mistake can be told by its line.
type files struct {
	ruleset.Files
	steps   map[string]*step
	reading *step // the last that was begun
}

type step struct {
	source    ruleset.Source
	directive ruleset.Directive
}

func (f *files) add(s ruleset.Source, d ruleset.Directive) (name string) {
	name = fmt.Sprintf("%s#%d", s.Name, len(f.steps))
	f.steps[name] = &step{s, d}
	return name
}

// ReadFile returns a step or a file that one names.
func (f *files) ReadFile(name string) ([]byte, error) {
	if s, ok := f.steps[name]; ok {
		f.reading = s
		return []byte(s.directive.Text), nil
	}
	return f.Files.ReadFile(name)
}

// Glob finds files from where the source that includes them is. Coraza looks
// for them from the root alone.
func (f *files) Glob(pattern string) ([]string, error) {
	if f.reading != nil && !strings.HasPrefix(pattern, "@") && !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(f.reading.source.Name), pattern)
	}
	return f.Files.Glob(pattern)
}

// reasonOf drops Coraza's account of how it came to read a directive.
func reasonOf(err error) string {
	s := err.Error()
	for _, prefix := range []string{"failed to parse string: ", "failed to readfile: "} {
		if i := strings.LastIndex(s, prefix); i >= 0 {
			s = s[i+len(prefix):]
		}
	}
	return s
}

var _ fs.ReadFileFS = (*files)(nil)
var _ fs.GlobFS = (*files)(nil)
