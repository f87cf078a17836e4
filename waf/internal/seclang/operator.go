package seclang

import (
	"net"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

// An operatorSpec says how the argument of an operator is read.
type operatorSpec struct {
	name string // if it is another
	read func(p *parser, op *Operator, arg string) error
}

// operators by name, which is case-sensitive.
var operators = map[string]operatorSpec{
	"beginsWith":           {read: readMacro},
	"contains":             {read: readMacro},
	"endsWith":             {read: readMacro},
	"eq":                   {read: readMacro},
	"ge":                   {read: readMacro},
	"gt":                   {read: readMacro},
	"le":                   {read: readMacro},
	"lt":                   {read: readMacro},
	"streq":                {read: readMacro},
	"strmatch":             {read: readMacro},
	"within":               {read: readMacro},
	"rx":                   {read: readPattern},
	"restpath":             {read: readRestPath},
	"pm":                   {read: readLiteral},
	"pmFromFile":           {read: readFile},
	"pmf":                  {name: "pmFromFile", read: readFile},
	"pmFromDataset":        {name: "pmFromFile", read: readDataset},
	"ipMatch":              {read: readAddresses},
	"ipMatchFromFile":      {read: readAddressFile},
	"ipMatchF":             {name: "ipMatchFromFile", read: readAddressFile},
	"ipMatchFromDataset":   {name: "ipMatchFromFile", read: readAddressDataset},
	"detectSQLi":           {read: readLiteral},
	"detectXSS":            {read: readLiteral},
	"noMatch":              {read: readLiteral},
	"unconditionalMatch":   {read: readLiteral},
	"validateByteRange":    {read: readByteRange},
	"validateNid":          {read: readNid},
	"validateUrlEncoding":  {read: readLiteral},
	"validateUtf8Encoding": {read: readLiteral},
}

// parseOperator reads @NAME ARGUMENT, !@NAME ARGUMENT, PATTERN or !PATTERN.
func (p *parser) parseOperator(text string) (*Operator, error) {
	op := &Operator{}
	rest, negated := strings.CutPrefix(text, "!")
	op.Negated = negated
	rest, named := strings.CutPrefix(rest, "@")
	if !named {
		rest = "rx " + rest
	}
	name, arg, _ := strings.Cut(rest, " ")
	op.Name = strings.TrimSpace(name)
	spec, ok := operators[op.Name]
	if !ok {
		if slices.Contains([]string{"geoLookup", "inspectFile", "rbl", "validateSchema"}, op.Name) {
			return nil, unsupported("the operator @%s", op.Name)
		}
		return nil, mistake("there is no operator @%s; mind capitals, like @beginsWith", op.Name)
	}
	err := spec.read(p, op, strings.TrimSpace(arg))
	if e, ok := err.(*Error); ok {
		return nil, &Error{Msg: "@" + op.Name + ": " + e.Msg, Unsupported: e.Unsupported}
	}
	if spec.name != "" {
		op.Name = spec.name
	}
	return op, err
}

func readMacro(_ *parser, op *Operator, arg string) (err error) {
	op.Arg, err = parseMacro(arg)
	return err
}

func readLiteral(_ *parser, op *Operator, arg string) error {
	op.Arg = literal(arg)
	return nil
}

// highByte finds what may be the escape of a byte above 0x7f.
var highByte = regexp.MustCompile(`\\x[89a-fA-F{]`)

// readPattern sees that the pattern is one. Those that may speak of bytes are
// left to the package that knows how Coraza reads them.
func readPattern(_ *parser, op *Operator, arg string) error {
	op.Arg = literal(arg)
	var err error
	if highByte.MatchString(arg) {
		_, err = match.Compile(arg)
	} else {
		_, err = syntax.Parse("(?sm)"+arg, syntax.Perl)
	}
	if err != nil {
		return mistake("%v", err)
	}
	return nil
}

var pathToken = regexp.MustCompile(`\{([^}]+)\}`)

// readRestPath sees that the template makes a pattern.
func readRestPath(_ *parser, op *Operator, arg string) error {
	op.Arg = literal(arg)
	_, err := regexp.Compile(pathToken.ReplaceAllString(strings.ReplaceAll(arg, "/", `\/`), `(?P<$1>[^?/]+)`))
	if err != nil {
		return mistake("%v", err)
	}
	return nil
}

func readFile(p *parser, op *Operator, arg string) (err error) {
	if arg == "" {
		return mistake("the name of the file is missing")
	}
	op.Arg = literal(arg)
	op.Lines, err = p.readLines(arg)
	return err
}

func readDataset(p *parser, op *Operator, arg string) error {
	list, ok := p.datasets[arg]
	if !ok {
		return mistake("%q must be the name of a SecDataset that stands before", arg)
	}
	op.Arg, op.Lines = literal(arg), list
	return nil
}

func readAddresses(_ *parser, op *Operator, arg string) error {
	op.Arg = literal(arg)
	return checkAddresses(strings.Split(arg, ","))
}

func readAddressFile(p *parser, op *Operator, arg string) error {
	if err := readFile(p, op, arg); err != nil {
		return err
	}
	return splitAddresses(op)
}

func readAddressDataset(p *parser, op *Operator, arg string) error {
	if err := readDataset(p, op, arg); err != nil {
		return err
	}
	if len(op.Lines) == 0 {
		return mistake("the SecDataset %q is empty", arg)
	}
	return splitAddresses(op)
}

// splitAddresses makes one line of each address.
func splitAddresses(op *Operator) error {
	lines := op.Lines
	op.Lines = nil
	for _, l := range lines {
		for a := range strings.SplitSeq(l, ",") {
			if a = strings.TrimSpace(a); a != "" {
				op.Lines = append(op.Lines, a)
			}
		}
	}
	return checkAddresses(op.Lines)
}

// checkAddresses finds what is no address, which Coraza leaves out.
func checkAddresses(list []string) error {
	for _, a := range list {
		a = strings.TrimSpace(a)
		if a == "" {
			continue
		}
		_, _, err := net.ParseCIDR(a)
		if net.ParseIP(a) == nil && err != nil {
			return mistake("%q is no address and no network, like 192.0.2.0/24", a)
		}
	}
	return nil
}

func readByteRange(_ *parser, op *Operator, arg string) error {
	op.Arg = literal(arg)
	if arg == "" {
		return nil // everything matches
	}
	for r := range strings.SplitSeq(arg, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(r), "-")
		if !isRange {
			to = from
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if errA != nil || errB != nil || a < 0 || b > 255 || a > b {
			return mistake("%q must be a byte or a range of bytes, like 32-126", r)
		}
	}
	return nil
}

func readNid(_ *parser, op *Operator, arg string) error {
	op.Arg = literal(arg)
	country, pattern, _ := strings.Cut(arg, " ")
	if _, err := regexp.Compile(pattern); err != nil || pattern == "" || country != "cl" && country != "us" {
		return mistake("must be cl or us and a pattern")
	}
	return nil
}
