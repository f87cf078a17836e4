// Package seclang reads the rule language of ModSecurity as far as the OWASP
// Core Rule Set 4, its set-up file and ordinary rules of users need it.
//
// What is not on its lists of directives, variables, operators,
// transformations and actions is an error that names file and line: a rule
// that is not understood must not seem to protect. What is, is read as Coraza
// 3.8.1 reads it; where Coraza passes over a mistake, so that a rule would do
// less than it says, that is an error too. The package reads rules; it does
// not judge anything.
package seclang

import "regexp"

// A Ruleset is everything that was read, in order, with SecRuleRemoveBy*,
// SecRuleUpdateTargetBy*, SecRuleUpdateActionById and SecDefaultAction
// applied.
type Ruleset struct {
	Rules []*Rule
	// Settings are the directives that set something, the last of each, by
	// lower-case name: "secargumentslimit" → "1000".
	Settings map[string]string
}

// A Rule is a SecRule with its chain, a SecAction or a SecMarker.
type Rule struct {
	ID     int // 0 for markers
	Phase  int // 1 to 5; 0 for markers: they stand in every phase
	Marker string
	File   string
	Line   int

	Links []*Link // the rule's own condition, and those chained to it

	Tags     []string
	Severity int // 0 (emergency) to 7 (debug); -1 if not given
	Log      bool

	Disruptive Disruptive
	Status     int    // of Deny, Drop and Redirect; never 0 for them
	Location   string // of Redirect
	Allow      AllowScope
	Skip       int    // how many rules to skip on a match
	SkipAfter  string // the marker to skip to on a match

	source int // where it was read, for errors found later
}

// A Disruptive is what a rule does with a request that it matches.
type Disruptive uint8

// What a rule can do.
const (
	Pass Disruptive = iota
	Deny
	Drop
	Redirect
	Allow
)

// An AllowScope says which rules Allow skips.
type AllowScope uint8

// The scopes of Allow: all further rules but those of phase 5, those of the
// phase, those of phases 1 and 2.
const (
	AllowAll AllowScope = iota
	AllowPhase
	AllowRequest
)

// A Link is one condition of a rule and what is done at each of its matches.
type Link struct {
	Line            int
	Targets         []Target
	Op              *Operator // nil: matches always, once (SecAction)
	Transformations []string  // canonical names, "none" applied
	MultiMatch      bool
	Capture         bool
	Msg, LogData    Macro
	Actions         []Action // setvar and ctl, in order
}

// An Operator is a test of one value.
type Operator struct {
	Name    string // without @, in canonical spelling: "rx", "pmFromFile"
	Negated bool
	Arg     Macro
	// Lines are the entries of the file or SecDataset that a …FromFile or
	// …FromDataset operator names, without comments and empty lines. The
	// operator is called …FromFile in both cases.
	Lines []string
}

// A Target is a variable, or some of the values of one.
type Target struct {
	Var   Variable
	Count bool // & : the number of values, as one value
	Selector
	// Except are compared with the lower-case key, also of variables that are
	// case-sensitive; their own Keys are lower-case, their patterns may not be.
	Except []Selector
}

// A Selector chooses values of a variable by their key. The zero Selector
// chooses all. Keys of variables that are not case-sensitive are lower-case.
type Selector struct {
	Key   string
	Regex *regexp.Regexp
}

// An Action changes something at each match of a link.
type Action interface{ action() }

// SetVar is setvar:tx.name=value. A value that expands to +n or -n adds or
// subtracts.
type SetVar struct {
	Name   Macro // without "tx.", not yet lower-cased
	Value  Macro
	Remove bool // setvar:!tx.name
}

// Ctl is ctl:name=value.
type Ctl struct {
	Name  string // as in the manual: "ruleRemoveTargetById"
	Value string
	// From and To are the range of rule numbers of …ById.
	From, To int
	// Target is what a ruleRemoveTarget… removes, with a Selector like those
	// of Target.Except.
	Target Variable
	Selector
}

func (SetVar) action() {}
func (Ctl) action()    {}

// A Macro is a text with places for values: "%{tx.score} of %{tx.limit}".
type Macro []Token

// A Token is a literal text or a variable.
type Token struct {
	Text string // the text; of a variable, what stands for it if it has no value
	Var  Variable
	Key  string // lower-case
}

// String returns the macro as it was written.
func (m Macro) String() string {
	s := ""
	for _, t := range m {
		if t.Var == Unknown {
			s += t.Text
		} else {
			s += "%{" + t.Text + "}"
		}
	}
	return s
}

// Static reports whether the macro is the same text for every request.
func (m Macro) Static() bool {
	for _, t := range m {
		if t.Var != Unknown {
			return false
		}
	}
	return true
}
