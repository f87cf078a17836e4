package operator

import (
	"strings"

	"github.com/corazawaf/libinjection-go"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

// Slow reports whether an operator costs so much for each byte that it had
// better not be asked twice. Two of those that are equal answer alike.
func Slow(o Operator) bool { return o == Operator(xss{}) || o == Operator(sqli{}) }

// xss is @detectXSS.
type xss struct{}

// Match first asks for what no find can be without: the states of
// libinjection's parser in which it finds anything are entered with "<", or,
// for values of attributes, with "=".
func (xss) Match(value, _ string) bool {
	if strings.IndexByte(value, '<') < 0 && strings.IndexByte(value, '=') < 0 {
		return false
	}
	return libinjection.IsXSS(value)
}

func (xss) Required() match.Requirement { return needs(setOf("<=")) }

// sqli is @detectSQLi. libinjection takes microseconds and allocates for every
// word, so it is asked only about values that may be suspicious.
type sqli struct{}

func (sqli) Match(value, _ string) bool {
	if !suspicious(value) {
		return false
	}
	found, _ := libinjection.IsSQLi(value)
	return found
}

// Capture sets the fingerprint.
func (sqli) Capture(value, _ string, c *Captures) bool {
	if !suspicious(value) {
		return false
	}
	found, fingerprint := libinjection.IsSQLi(value)
	if found {
		c.set(0, fingerprint)
	}
	return found
}
