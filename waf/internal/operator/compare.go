package operator

import (
	"math"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/match"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// A numberTest compares a value with the argument. What is no number is 0.
type numberTest func(value, arg int) bool

func (t numberTest) Match(value, arg string) bool { return t(number(value), number(arg)) }

var numberTests = map[string]numberTest{
	"eq": func(v, a int) bool { return v == a },
	"ge": func(v, a int) bool { return v >= a },
	"gt": func(v, a int) bool { return v > a },
	"le": func(v, a int) bool { return v <= a },
	"lt": func(v, a int) bool { return v < a },
}

// number is the first result of strconv.Atoi, without the error, which would
// have to be allocated: 0 if s is no number, the nearest int if it is one that
// is too large, even if something else follows the digit that was too much.
func number(s string) int {
	negative := false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		negative = s[0] == '-'
		s = s[1:]
	}
	n := uint64(0)
	for i := range len(s) {
		d := uint64(s[i] - '0')
		if d > 9 {
			return 0
		}
		if n > (math.MaxUint64-d)/10 {
			n = math.MaxUint64
			break
		}
		n = n*10 + d
	}
	switch {
	case !negative && n > math.MaxInt:
		return math.MaxInt
	case negative && n > math.MaxInt:
		return math.MinInt
	case negative:
		return -int(n)
	}
	return int(n)
}

// A textTest compares a value with the argument.
type textTest func(value, arg string) bool

var textTests = map[string]textTest{
	"beginsWith": strings.HasPrefix,
	"contains":   strings.Contains,
	"endsWith":   strings.HasSuffix,
	"streq":      func(value, arg string) bool { return value == arg },
	"strmatch":   strings.Contains,
	"within":     func(value, arg string) bool { return strings.Contains(arg, value) },
}

type text struct {
	textTest
	required match.Requirement
}

func newText(op *seclang.Operator, test textTest) text {
	t := text{textTest: test}
	if op.Name != "within" && op.Arg.Static() {
		t.required = oneOf([]string{lower(op.Arg.String())})
	}
	return t
}

func (t text) Match(value, arg string) bool { return t.textTest(value, arg) }

func (t text) Required() match.Requirement { return t.required }

// oneOf requires one of some literals, in small letters.
func oneOf(literals []string) match.Requirement {
	r := match.Requirement{Literals: literals}
	for _, l := range literals {
		if l == "" {
			return match.Requirement{}
		}
		for i := range len(l) {
			// Folding could take the byte for part of a letter.
			r.Bytes = r.Bytes || l[i] >= 0x80
		}
	}
	return r
}

// lower makes ASCII letters small.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = lowerByte(c)
	}
	return string(b)
}

func lowerByte(c byte) byte {
	if c-'A' <= 25 {
		return c | 0x20
	}
	return c
}
