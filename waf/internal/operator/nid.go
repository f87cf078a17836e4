package operator

import (
	"fmt"
	"regexp"
	"strings"
)

// nid is @validateNid: it matches the numbers of persons that a pattern finds
// and that are valid in a country. It looks at the first ten finds.
type nid struct {
	valid func(string) bool
	re    *regexp.Regexp
}

func newNID(arg string) (Operator, error) {
	country, expr, _ := strings.Cut(arg, " ")
	n := nid{}
	switch country {
	case "cl":
		n.valid = validCL
	case "us":
		n.valid = validUS
	default:
		return nil, fmt.Errorf("country %q: want cl or us, and a pattern", country)
	}
	if expr == "" {
		return nil, fmt.Errorf("no pattern")
	}
	var err error
	n.re, err = regexp.Compile(expr)
	return n, err
}

func (n nid) Match(value, _ string) bool {
	var c Captures
	return n.Capture(value, "", &c)
}

// Capture sets the fields whose numbers are those of the valid finds.
func (n nid) Capture(value, _ string, c *Captures) bool {
	found := false
	for i, at := range n.re.FindAllStringIndex(value, len(c.Values)) {
		if s := value[at[0]:at[1]]; n.valid(s) {
			c.set(i, s)
			found = true
		}
	}
	return found
}

// validCL tests the check digit of a Chilean RUT.
func validCL(s string) bool {
	if len(s) < 8 {
		return false
	}
	s = strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' || r == 'k' {
			return r
		}
		return -1
	}, strings.ToLower(s))
	if s == "" {
		return false
	}
	sum, factor := 0, 2
	for n := number(s[:len(s)-1]); n != 0; n /= 10 {
		sum += n % 10 * factor
		if factor++; factor == 8 {
			factor = 2
		}
	}
	return s[len(s)-1] == "0k987654321"[sum%11]
}

// validUS tests a social security number of the United States.
func validUS(s string) bool {
	s = strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return r
		}
		return -1
	}, s)
	if len(s) < 9 {
		return false
	}
	area := number(s[:3])
	if area == 0 || area >= 740 || area == 666 || s[3:5] == "00" || s[5:9] == "0000" {
		return false
	}
	row, same := true, true
	for i := 1; i < len(s); i++ {
		row = row && s[i] == s[i-1]+1
		same = same && s[i] == s[i-1]
	}
	return !row && !same
}

// restPath is @restpath: a path with {names} of parts. It does not tell the
// parts: there is no variable for them.
type restPath struct{ re *regexp.Regexp }

func newRESTPath(arg string) (Operator, error) {
	expr := regexp.MustCompile(`\{([^}]+)\}`).ReplaceAllString(arg, `(?P<$1>[^?/]+)`)
	re, err := regexp.Compile(expr)
	return restPath{re}, err
}

func (p restPath) Match(value, _ string) bool { return p.re.MatchString(value) }
