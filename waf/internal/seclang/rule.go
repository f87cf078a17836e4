package seclang

import "strings"

// phase2 are the default actions of phase 2 until SecDefaultAction sets some.
const phase2 = "phase:2,log,auditlog,pass"

// secRule reads VARIABLES "OPERATOR" "ACTIONS".
func (p *parser) secRule(args string) error {
	variables, operator, todo, err := cutRule(args)
	if err != nil {
		return p.broken(args, err)
	}
	link := &Link{Line: p.at.line}
	targets, err := p.parseTargets(variables)
	if err != nil {
		return p.broken(todo, err)
	}
	link.addTargets(targets)
	if len(link.Targets) == 0 {
		return p.broken(todo, mistake("%q names no variable to look at", variables))
	}
	if link.Op, err = p.parseOperator(operator); err != nil {
		return p.broken(todo, err)
	}
	return p.add(link, todo)
}

// secAction reads "ACTIONS".
func (p *parser) secAction(args string) error {
	if strings.TrimSpace(args) == "" {
		return mistake("the actions are missing")
	}
	return p.add(&Link{Line: p.at.line}, unquote(args))
}

// cutRule cuts the three parts of a SecRule. Only \" means something else
// than it says, in the operator.
func cutRule(args string) (variables, operator, todo string, err error) {
	variables, rest, _ := strings.Cut(strings.Trim(args, " "), " ")
	rest, ok := strings.CutPrefix(strings.TrimLeft(rest, " "), `"`)
	end := closingQuote(rest)
	if !ok || end < 0 {
		return "", "", "", mistake(`must be VARIABLES "OPERATOR" "ACTIONS", with spaces between them`)
	}
	operator = strings.ReplaceAll(rest[:end], `\"`, `"`)
	rest = strings.TrimLeft(rest[end+1:], " ")
	if rest == "" {
		return variables, operator, "", nil
	}
	if len(rest) < 2 || rest[0] != '"' || rest[len(rest)-1] != '"' {
		return "", "", "", mistake(`the actions must stand between quotes ("), and nothing after them`)
	}
	return variables, operator, rest[1 : len(rest)-1], nil
}

// closingQuote finds the first quote that is not escaped.
func closingQuote(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// unquote takes one pair of quotes off.
func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// broken says that a rule was not taken. If others are chained to it, they
// are read for their own mistakes only.
func (p *parser) broken(text string, err error) error {
	p.open = nil
	for a := range strings.SplitSeq(text, ",") {
		if strings.EqualFold(strings.Trim(a, " \"'"), "chain") {
			p.open = &Rule{}
		}
	}
	return err
}

// add makes a rule of a condition and its actions, or chains it to the rule
// that waits for it.
func (p *parser) add(link *Link, text string) error {
	r := &Rule{Phase: 2, File: p.file, Line: p.at.line, Links: []*Link{link}, Severity: -1, source: p.source}
	first := p.open
	chain, err := p.applyAll(r, text, first != nil)
	if err != nil {
		return p.broken(text, err)
	}
	switch {
	case first != nil:
		first.Links = append(first.Links, link)
		r = first
	case r.ID == 0:
		err = mistake("the number is missing, like id:1000")
	case p.byID[r.ID] != nil:
		other := p.byID[r.ID]
		err = mistake("id:%d is the number of another rule, %s:%d", r.ID, other.File, other.Line)
	default:
		p.byID[r.ID] = r
		p.rules = append(p.rules, r)
	}
	if err != nil {
		return p.broken(text, err)
	}
	p.open = nil
	if chain {
		p.open = r
	}
	return nil
}

// applyAll gives a rule its actions and those that are the default of its
// phase, and tells whether another rule is chained to it.
func (p *parser) applyAll(r *Rule, text string, member bool) (chain bool, err error) {
	if text == "" { // not even the default ones
		return false, nil
	}
	own, err := cutActions(text)
	if err != nil {
		return false, err
	}
	for _, a := range own {
		if err := a.fits(member); err != nil {
			return false, err
		}
		if a.kind() == about {
			if err := p.apply(r, a); err != nil {
				return false, err
			}
		}
	}
	defaults, err := p.defaultsOf(r.Phase)
	if err != nil {
		return false, err
	}
	for _, a := range merge(own, defaults) {
		if a.kind() == about {
			continue
		}
		if err := p.apply(r, a); err != nil {
			return false, err
		}
		chain = chain || a.name == "chain"
	}
	return chain, nil
}

// fits refuses actions that have no effect in a chained rule.
func (a action) fits(member bool) error {
	if !member {
		return nil
	}
	switch {
	case a.kind() == disruptive:
		return mistake("%s stands in a chained rule; what a chain does is said by its first rule", a.name)
	case a.name == "id", a.name == "skip", a.name == "skipafter":
		return mistake("%s stands in a chained rule; it belongs to the first rule of the chain", a.name)
	}
	return nil
}

func (p *parser) defaultsOf(phase int) ([]action, error) {
	if p.defaults[phase] == nil && phase == 2 {
		return cutActions(phase2)
	}
	return p.defaults[phase], nil
}

// merge puts the default actions before a rule's own. The default disruptive
// action stands in for a missing one, and for block.
func merge(own, defaults []action) []action {
	if defaults == nil {
		return own
	}
	var out, instead []action
	for _, a := range defaults {
		if a.kind() == disruptive {
			instead = []action{a}
		} else {
			out = append(out, a)
		}
	}
	for _, a := range own {
		switch {
		case a.name == "block":
		case a.kind() == disruptive:
			instead = nil
			out = append(out, a)
		default:
			out = append(out, a)
		}
	}
	return append(out, instead...)
}

// secDefaultAction sets the default actions of a phase, once.
func (p *parser) secDefaultAction(args string) error {
	list, err := cutActions(args)
	if err != nil {
		return err
	}
	phase, decides := 0, false
	for _, a := range list {
		switch {
		case a.name == "phase":
			if phase, err = parsePhase(a.value); err != nil {
				return err
			}
		case a.kind() == about || a.name == "t" || a.name == "chain":
			return mistake("%s cannot be a default", a.name)
		default:
			// Try it, so that a mistake is found here and not in each rule.
			if err := p.apply(&Rule{Links: []*Link{{}}}, a); err != nil {
				return err
			}
			decides = decides || a.kind() == disruptive
		}
	}
	switch {
	case phase == 0 || !decides:
		return mistake("must have a phase and one of allow, block, deny, drop, pass, redirect")
	case p.defaults[phase] != nil:
		return mistake("phase %d has its default actions already", phase)
	}
	p.defaults[phase] = list
	return nil
}

// settle fills in what rules leave open.
func (r *Rule) settle() {
	switch r.Disruptive {
	case Deny, Drop:
		if r.Status == 0 {
			r.Status = 403
		}
	case Redirect:
		switch r.Status {
		case 301, 302, 303, 307:
		default:
			r.Status = 302
		}
	}
}
