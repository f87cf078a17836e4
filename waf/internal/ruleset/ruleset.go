// Package ruleset is the text of a guard's rules, as every engine is given it:
// in order, each piece with the place that it came from.
//
// It finds files and cuts them into directives. It understands none of them.
package ruleset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/corazawaf/coraza-coreruleset/v4"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// A Source is a text in SecLang: a file of the operator's, or one of Merlon's
// own texts.
type Source struct {
	Setting string // that names it: "rules[0]"; empty for what is Merlon's own
	Path    string // of the file, as the setting names it; empty if it is none
	Name    string // of the file, absolute: names of files in it are relative to its folder
	Text    string
}

// Bad is the error that says that a source cannot be used, from which line on
// and why.
func (s Source) Bad(line int, reason string) error {
	switch {
	case s.Setting == "":
		return errors.New("the rules cannot be loaded: " + reason)
	case s.Path == "":
		return merlon.BadSetting(s.Setting, "", reason)
	}
	return merlon.BadSetting(s.Setting, fmt.Sprintf("%s:%d", s.Path, line), reason)
}

// Read returns the files that a setting names.
func Read(setting string, paths []string) ([]Source, error) {
	var out []Source
	var errs []error
	for i, path := range paths {
		s := Source{Setting: fmt.Sprintf("%s[%d]", setting, i), Path: path}
		text, err := os.ReadFile(path)
		if err == nil {
			s.Name, err = filepath.Abs(path)
		}
		if err != nil {
			errs = append(errs, merlon.BadSetting(s.Setting, path, err.Error()))
			continue
		}
		s.Text = string(text)
		out = append(out, s)
	}
	return out, errors.Join(errs...)
}

// A Directive is one directive of a source, without comments.
type Directive struct {
	Line int // where it begins
	Text string
}

// Unfinished reports whether the source ended in the middle.
func (d Directive) Unfinished() bool { return strings.HasSuffix(d.Text, "\\\n") }

// Directives cuts the text as Coraza does: at line ends that are not escaped
// and not between backquotes.
func (s Source) Directives() []Directive {
	var out []Directive
	var cur strings.Builder
	start, quoted := 0, false
	end := func() {
		if cur.Len() > 0 {
			out = append(out, Directive{start, cur.String()})
			cur.Reset()
		}
	}
	for i, line := range strings.Split(s.Text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if cur.Len() == 0 {
			start = i + 1
		}
		cur.WriteString(line + "\n")
		switch {
		case !quoted && strings.HasSuffix(line, "`"):
			quoted = true
		case quoted && line[0] == '`':
			quoted = false
		}
		if !quoted && !strings.HasSuffix(line, `\`) {
			end()
		}
	}
	end()
	return out
}

// Files are where rules are read from: the Core Rule Set, whose names begin
// with @, and the disk.
type Files struct{}

// Open satisfies fs.FS, for files of the Core Rule Set.
func (Files) Open(name string) (fs.File, error) { return coreruleset.FS.Open(name) }

// ReadFile returns a file. A folder before a name of the Core Rule Set is
// ignored, so that files on disk can include it.
func (Files) ReadFile(name string) ([]byte, error) {
	if filepath.IsAbs(name) && !strings.Contains(name, "/@") {
		return os.ReadFile(name)
	}
	return fs.ReadFile(coreruleset.FS, name)
}

// Glob returns the files that a pattern matches, in order. That none does is
// an error.
func (Files) Glob(pattern string) ([]string, error) {
	var found []string
	var err error
	if i := strings.Index(pattern, "/@"); i >= 0 {
		pattern = pattern[i+1:]
	}
	if filepath.IsAbs(pattern) {
		found, err = filepath.Glob(pattern)
	} else {
		found, err = fs.Glob(coreruleset.FS, pattern)
	}
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no file matches %s", pattern)
	}
	return found, err
}

// Scoring reports whether a rule sets the anomaly score up or acts on it.
// Without these nothing would be judged at all.
func Scoring(id int) bool {
	switch id / 1000 {
	case 901, 949, 959, 980:
		return true
	}
	return false
}

// parts of a message, and the variables that rules read them from.
var parts = []struct {
	target    message.Target
	variables []string
}{
	{message.Args, []string{"ARGS", "ARGS_GET", "ARGS_POST"}},
	{message.ArgsNames, []string{"ARGS_NAMES", "ARGS_GET_NAMES", "ARGS_POST_NAMES"}},
	{message.Headers, []string{"REQUEST_HEADERS"}},
	{message.HeaderNames, []string{"REQUEST_HEADERS_NAMES"}},
	{message.Cookies, []string{"REQUEST_COOKIES"}},
	{message.CookieNames, []string{"REQUEST_COOKIES_NAMES"}},
	{message.URI, []string{"REQUEST_URI", "REQUEST_URI_RAW", "REQUEST_LINE", "REQUEST_FILENAME", "REQUEST_BASENAME", "QUERY_STRING"}},
	{message.BodyText, []string{"REQUEST_BODY"}},
	{message.XMLContent, []string{"XML", "REQUEST_XML"}},
	{message.Files, []string{"FILES", "FILES_NAMES", "MULTIPART_FILENAME", "MULTIPART_NAME"}},
	{message.PartHeaders, []string{"MULTIPART_PART_HEADERS"}},
	{message.Answer, []string{"RESPONSE_BODY", "RESPONSE_HEADERS"}},
}

// Variables are those that rules read a part of a message from.
func Variables(t message.Target) []string {
	for _, p := range parts {
		if p.target == t {
			return p.variables
		}
	}
	return nil
}

// TargetOf is the part of a message that a variable belongs to; empty if none.
func TargetOf(variable string) message.Target {
	for _, p := range parts {
		if slices.Contains(p.variables, variable) {
			return p.target
		}
	}
	return ""
}
