package waf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
)

// An Exclude turns rules off, by number or by tag: wholly, or for one part of
// the message, or for one name in that part.
type Exclude struct {
	// Rule is the number of the rule, or a list of numbers. Example:
	//
	//	rule: 942100
	Rule RuleIDs `yaml:"rule,omitempty"`
	// Tag is a tag that the rules have, instead of numbers. Example:
	//
	//	tag: attack-sqli
	Tag string `yaml:"tag,omitempty"`
	// Target is the part of the message in which the rules shall not look:
	// args (query parameters, form fields; JSON fields under json.…),
	// args_names, headers, header_names, cookies, cookie_names, uri, body
	// (the raw text of a form or text), xml, files (file names),
	// part_headers, response. Default: the rules are off. Example:
	//
	//	target: args
	Target Target `yaml:"target,omitempty"`
	// Name is the name of the argument, header or cookie; * stands for any
	// characters, \* for a star, \\ for a backslash. Default: the whole target.
	// Example:
	//
	//	name: json.items.*.text
	Name string `yaml:"name,omitempty"`
}

// RuleIDs are numbers of rules; in YAML, one number or a list.
type RuleIDs []int

// UnmarshalYAML reads one number or a list of numbers.
func (r *RuleIDs) UnmarshalYAML(unmarshal func(any) error) error {
	var one int
	if err := unmarshal(&one); err == nil {
		*r = RuleIDs{one}
		return nil
	}
	var list []int
	if err := unmarshal(&list); err != nil {
		return err
	}
	*r = list
	return nil
}

// MarshalYAML writes a single number without brackets.
func (r RuleIDs) MarshalYAML() (any, error) {
	if len(r) == 1 {
		return r[0], nil
	}
	return []int(r), nil
}

// A Target is a part of a message.
type Target = message.Target

// The parts of a message that a rule can be kept from looking at.
const (
	Args        = message.Args        // query parameters, form, JSON and multipart fields
	ArgsNames   = message.ArgsNames   // their names
	Headers     = message.Headers     // values of header fields
	HeaderNames = message.HeaderNames // their names
	Cookies     = message.Cookies     // values of cookies
	CookieNames = message.CookieNames // their names
	URI         = message.URI         // the request line, path and query string as a whole
	Body        = message.BodyText    // the raw text of a form or text body
	XML         = message.XMLContent  // texts and attributes of an XML body
	Files       = message.Files       // file names and their fields' names
	PartHeaders = message.PartHeaders // header fields of multipart parts
	Response    = message.Answer      // the answer's body and header
)

var targets = []Target{Args, ArgsNames, Headers, HeaderNames, Cookies, CookieNames, URI, Body, XML, Files, PartHeaders, Response}

// named are the targets whose parts have names.
var named = []Target{Args, ArgsNames, Headers, HeaderNames, Cookies, CookieNames, PartHeaders}

// Rules of Merlon's own that can be excluded like those of the CRS.
const (
	ruleDoctype = 99031 // an XML document type declaration
)

// Rules of the CRS that Merlon enforces itself, before the CRS is asked.
const (
	ruleNoType     = 920340
	ruleNoTypeBody = 920640
)

// An exclusion is a checked Exclude with its rules looked up.
type exclusion struct {
	rules  []int
	target Target
	name   string
}

type exclusions []exclusion

// off reports whether a rule is excluded wholly.
func (x exclusions) off(rule int) bool {
	for _, e := range x {
		if e.target == "" && slices.Contains(e.rules, rule) {
			return true
		}
	}
	return false
}

// newExclusions checks the settings against the rules that are loaded.
func newExclusions(list []Exclude, loaded map[int]message.RuleInfo) (exclusions, []error) {
	var out exclusions
	var errs []error
	for i, x := range list {
		bad := func(field, value, rule string) {
			errs = append(errs, merlon.BadSetting(fmt.Sprintf("exclude[%d]%s", i, field), value, rule))
		}
		e := exclusion{target: x.Target, name: x.Name}
		switch {
		case len(x.Rule) == 0 && x.Tag == "":
			bad("", "", "must name a rule or a tag")
		case len(x.Rule) > 0 && x.Tag != "":
			bad("", "", "must name a rule or a tag, not both")
		}
		for _, id := range x.Rule {
			if _, ok := loaded[id]; !ok && id != ruleDoctype {
				bad(".rule", strconv.Itoa(id), "must be the number of a rule that is loaded")
			} else if ruleset.Scoring(id) {
				bad(".rule", strconv.Itoa(id), "must not be a rule that adds up or acts on the score; use monitor or off")
			}
			e.rules = append(e.rules, id)
		}
		if x.Tag != "" {
			e.rules = withTag(loaded, x.Tag)
			if len(e.rules) == 0 {
				bad(".tag", x.Tag, "must be a tag of a rule that is loaded")
			}
		}
		if x.Target != "" && !slices.Contains(targets, x.Target) {
			bad(".target", string(x.Target), "must be one of "+joinTargets(targets))
		} else if x.Name != "" && !slices.Contains(named, x.Target) {
			bad(".name", x.Name, "needs a target whose parts have names: "+joinTargets(named))
		}
		out = append(out, e)
	}
	return out, errs
}

func withTag(loaded map[int]message.RuleInfo, tag string) []int {
	var ids []int
	for id, info := range loaded {
		if slices.Contains(info.Tags, tag) && !ruleset.Scoring(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func joinTargets(list []Target) string {
	s := make([]string, len(list))
	for i, t := range list {
		s[i] = string(t)
	}
	return strings.Join(s, ", ")
}

// sources writes the exclusions, each as rules that are read last. Rules are
// removed after all else: a rule that is gone has no targets to change.
func (x exclusions) sources() []ruleset.Source {
	var narrowed, removed []ruleset.Source
	for i, e := range x {
		s := ruleset.Source{Setting: fmt.Sprintf("exclude[%d]", i)}
		for _, id := range e.rules {
			if e.target != "" {
				s.Text += fmt.Sprintf("SecRuleUpdateTargetById %d \"%s\"\n", id, e.variables())
			} else if id != ruleDoctype {
				s.Text += fmt.Sprintf("SecRuleRemoveById %d\n", id)
			}
		}
		switch {
		case s.Text == "":
		case e.target != "":
			narrowed = append(narrowed, s)
		default:
			removed = append(removed, s)
		}
	}
	return append(narrowed, removed...)
}

// variables lists what the rules shall not look at.
func (e exclusion) variables() string {
	var vars []string
	for _, v := range ruleset.Variables(e.target) {
		s := "!" + v
		if e.name != "" {
			s += ":/^" + namePattern(e.name) + "$/"
		}
		vars = append(vars, s)
	}
	return strings.Join(vars, "|")
}

// namePattern spells a name so that nothing in it has a meaning to SecLang or
// to regular expressions. Coraza compares it with the lower-case name.
func namePattern(name string) string {
	var b strings.Builder
	b.WriteString("(?s)")
	text := []rune(strings.ToLower(name))
	for i := 0; i < len(text); i++ {
		r := text[i]
		if r == '\\' && i+1 < len(text) && (text[i+1] == '*' || text[i+1] == '\\') {
			i++
			fmt.Fprintf(&b, `\x{%x}`, text[i])
			continue
		}
		switch {
		case r == '*':
			b.WriteString(".*")
		case r < 0x80 && isAlnum(byte(r)):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\x{%x}`, r)
		}
	}
	return b.String()
}

// exactName spells a name so that it stands for itself alone.
func exactName(name string) string { return exactly.Replace(name) }

var exactly = strings.NewReplacer(`\`, `\\`, `*`, `\*`)
