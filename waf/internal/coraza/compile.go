package coraza

import (
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
	root := &files{sources: map[string]*ruleset.Source{}}
	conf := corazawaf.NewWAFConfig().WithRootFS(root)
	for i := range sources {
		name := filepath.Join(sources[i].Dir, fmt.Sprintf("#%d", i))
		root.sources[name] = &sources[i]
		conf = conf.WithDirectivesFromFile(name)
	}
	waf, err := corazawaf.NewWAF(experimental.WAFConfigWithRuleObserver(conf, observe))
	switch {
	case err == nil:
		return waf, nil
	case root.reading == nil:
		return nil, err
	default:
		return nil, root.reading.Bad(reasonOf(err))
	}
}

// files is the file system that Coraza reads rules from: every source is a
// file of its own, so that what cannot be read can be told.
type files struct {
	ruleset.Files
	sources map[string]*ruleset.Source
	reading *ruleset.Source // the last that was begun
}

// ReadFile returns a source or a file that one names.
func (f *files) ReadFile(name string) ([]byte, error) {
	if s, ok := f.sources[name]; ok {
		f.reading = s
		return []byte(s.Text), nil
	}
	return f.Files.ReadFile(name)
}

// Glob finds files from where the source that includes them is. Coraza looks
// for them from the root alone.
func (f *files) Glob(pattern string) ([]string, error) {
	if f.reading != nil && !strings.HasPrefix(pattern, "@") && !filepath.IsAbs(pattern) {
		pattern = filepath.Join(f.reading.Dir, pattern)
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
