package seclang

import (
	"errors"
	"path"
	"regexp"
	"strings"
)

// A Source is a text to read.
type Source struct {
	// Name is what errors call the text. If it is a path, names of files in
	// the text are relative to its directory.
	Name string
	Text string
}

// A Reader gives the files that a text names. Names that begin with @ are
// passed as they are written, as absolute ones are.
type Reader interface {
	ReadFile(name string) ([]byte, error)
	Glob(pattern string) ([]string, error)
}

// Bounds of what is read. Coraza has the first one too.
const (
	maxIncludes = 100
	maxText     = 64 << 20 // of all files
	maxErrors   = 100
)

// Parse reads texts one after the other, as if they were one. The error joins
// an *Error for each directive that cannot be taken.
func Parse(read Reader, sources ...Source) (*Ruleset, error) {
	p := &parser{
		read:     read,
		settings: map[string]string{},
		byID:     map[int]*Rule{},
		patterns: map[string]*regexp.Regexp{},
		datasets: map[string][]string{},
	}
	for i, s := range sources {
		p.source = i
		p.text(s.Name, s.Text)
	}
	p.checkMarkers()
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	for _, r := range p.rules {
		r.settle()
	}
	return &Ruleset{Rules: p.rules, Settings: p.settings}, nil
}

// A parser is the state between directives.
type parser struct {
	read     Reader
	rules    []*Rule
	settings map[string]string
	byID     map[int]*Rule
	defaults [6][]action // by phase; nil if none are set
	datasets map[string][]string
	patterns map[string]*regexp.Regexp

	open *Rule // whose chain is not finished

	source   int
	file     string
	at       statement
	includes int
	size     int // of all files so far
	errs     []error
}

// text reads one text, and then whatever was read before it goes on.
func (p *parser) text(name, text string) {
	file, at := p.file, p.at
	p.file = name
	list, line, err := statements(text)
	for _, s := range list {
		p.at = s
		p.directive(s)
		if len(p.errs) > maxErrors {
			break
		}
	}
	if err != nil {
		p.at = statement{line: line}
		p.fail("", err)
	}
	p.closeChain()
	p.file, p.at = file, at
}

// fail records an error, once its place is known.
func (p *parser) fail(directive string, err error) {
	if len(p.errs) > maxErrors {
		return
	}
	if len(p.errs) == maxErrors {
		directive, err = "", mistake("there are more mistakes")
	}
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Msg: err.Error()}
	}
	if e.Line == 0 {
		e.File, e.Line, e.Source, e.Directive = p.file, p.at.line, p.source, directive
	}
	p.errs = append(p.errs, e)
}

// resolve makes the name of a file in a text one for the Reader.
func (p *parser) resolve(name string) string {
	if strings.HasPrefix(name, "@") || path.IsAbs(name) {
		return name
	}
	return path.Join(path.Dir(p.file), name)
}

func (p *parser) readFile(name string) (string, error) {
	b, err := p.read.ReadFile(name)
	if err != nil {
		return "", mistake("%v", err)
	}
	if p.size += len(b); p.size > maxText {
		return "", mistake("%s: the files have more than %d MiB together", name, maxText>>20)
	}
	return string(b), nil
}

// include reads the files that a name or pattern stands for.
func (p *parser) include(pattern string) error {
	if p.includes++; p.includes > maxIncludes {
		return mistake("%s: there are more than %d directives of this kind; do the files include each other?", pattern, maxIncludes)
	}
	pattern = strings.TrimSpace(pattern)
	if pattern == "" {
		return mistake("the name of a file is missing")
	}
	names := []string{p.resolve(pattern)}
	if strings.Contains(pattern, "*") {
		var err error
		if names, err = p.read.Glob(names[0]); err != nil {
			return mistake("%s: %v", pattern, err)
		}
		if len(names) == 0 {
			return mistake("%s: no file matches", pattern)
		}
	}
	for _, name := range names {
		text, err := p.readFile(name)
		if err != nil {
			return err
		}
		p.text(name, text)
		if len(p.errs) > maxErrors {
			break
		}
	}
	return nil
}

// readLines reads the entries of a data file.
func (p *parser) readLines(name string) ([]string, error) {
	text, err := p.readFile(p.resolve(name))
	if err != nil {
		return nil, err
	}
	for l := range strings.Lines(text) {
		if len(l) > maxLine {
			return nil, mistake("%s: a line is longer than %d bytes", name, maxLine)
		}
	}
	return entries(text), nil
}

// entries are the lines of a text without comments and empty lines.
func entries(text string) []string {
	var out []string
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" && l[0] != '#' {
			out = append(out, l)
		}
	}
	return out
}
