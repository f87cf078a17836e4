// Package operator is the operators of the rule language: each tests one
// value of a message.
//
// They answer as those of Coraza 3.8.1 do. Differences are on purpose and at
// compile time: an argument that Coraza would ignore in part is an error, as
// is a macro where Coraza would take it for text. Operators that ask something
// other than the value (a name server, a program, a database) do not exist
// here.
package operator

import (
	"fmt"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/match"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// An Operator tests a value. It may be used by several goroutines at once.
type Operator interface {
	// Match tests value. arg is the operator's argument with the macros in it
	// expanded; only operators that take one (TakesArgument) look at it.
	Match(value, arg string) bool
}

// A Capturer is an operator that also tells what it found.
type Capturer interface {
	Operator
	// Capture is Match, and sets in c what was found. What it does not set
	// stays as it was, also if it does not match.
	Capture(value, arg string, c *Captures) bool
}

// A Screened operator knows what every value that it accepts has in it.
type Screened interface {
	Required() match.Requirement
}

// Captures are what rules read as TX:0 to TX:9. Coraza never clears them in a
// transaction: what one match sets stays until another sets the same field.
type Captures struct {
	Values [10]string
	N      int  // fields from N on were never set
	Set    bool // any was
}

func (c *Captures) set(i int, value string) {
	c.Values[i] = value
	c.N = max(c.N, i+1)
	c.Set = true
}

// New makes the operator that a rule names.
func New(op *seclang.Operator) (Operator, error) {
	o, err := newOperator(op)
	if err != nil && op.Name == "rx" {
		return nil, err // names it already
	}
	if err != nil {
		return nil, fmt.Errorf("@%s %.200q: %w", op.Name, op.Arg, err)
	}
	return o, nil
}

func newOperator(op *seclang.Operator) (Operator, error) {
	if test, ok := numberTests[op.Name]; ok {
		return test, nil
	}
	if test, ok := textTests[op.Name]; ok {
		return newText(op, test), nil
	}
	if !op.Arg.Static() {
		return nil, fmt.Errorf("takes no macro")
	}
	arg := op.Arg.String()
	switch op.Name {
	case "rx":
		return newPattern(arg)
	case "pm":
		return newWords(strings.Split(arg, " ")), nil
	case "pmFromFile":
		return newWords(op.Lines), nil
	case "ipMatch":
		return newAddresses(strings.Split(arg, ","))
	case "ipMatchFromFile":
		return newAddresses(strings.Split(strings.Join(op.Lines, ","), ","))
	case "detectSQLi":
		return sqli{}, nil
	case "detectXSS":
		return xss{}, nil
	case "validateByteRange":
		return newByteRange(arg)
	case "validateUrlEncoding":
		return urlEncoding{}, nil
	case "validateUtf8Encoding":
		return utf8Encoding{}, nil
	case "validateNid":
		return newNID(arg)
	case "restpath":
		return newRESTPath(arg)
	case "unconditionalMatch":
		return constant(true), nil
	case "noMatch":
		return constant(false), nil
	}
	return nil, fmt.Errorf("no such operator")
}

// TakesArgument reports whether an operator looks at the argument of Match.
func TakesArgument(name string) bool {
	return numberTests[name] != nil || textTests[name] != nil
}

type constant bool

func (c constant) Match(string, string) bool { return bool(c) }
