package seclang

import "fmt"

// An Error is a directive that cannot be taken.
type Error struct {
	File      string
	Line      int    // of the directive's first line
	Source    int    // which of the sources given to Parse was being read
	Directive string // as written; empty if the text is not one
	Msg       string
	// Unsupported says that the directive is sound and that Coraza does what
	// it says, but this package does not know it. Otherwise it is a mistake.
	Unsupported bool
}

// Error names the place, the directive and what is wrong with it.
func (e *Error) Error() string {
	s := ""
	if e.File != "" {
		s = fmt.Sprintf("%s:%d: ", e.File, e.Line)
	}
	if e.Directive != "" {
		s += e.Directive + ": "
	}
	return s + e.Msg
}

// mistake is an error whose place is filled in later.
func mistake(format string, args ...any) error {
	return &Error{Msg: fmt.Sprintf(format, args...)}
}

// unsupported is the same for what Coraza could do.
func unsupported(format string, args ...any) error {
	return &Error{Msg: fmt.Sprintf(format, args...) + " is not supported by the native engine", Unsupported: true}
}
