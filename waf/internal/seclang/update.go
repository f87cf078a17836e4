package seclang

import (
	"slices"
	"strings"
)

// remove drops the rules of which out says so.
func (p *parser) remove(out func(*Rule) bool) {
	p.rules = slices.DeleteFunc(p.rules, func(r *Rule) bool {
		if r.ID == 0 || !out(r) {
			return false
		}
		delete(p.byID, r.ID)
		return true
	})
}

func (p *parser) removeByID(args string) error {
	if args == "" {
		return mistake("the numbers of rules are missing")
	}
	for _, s := range strings.Fields(args) {
		from, to, err := parseRange(s)
		if err != nil {
			return err
		}
		p.remove(func(r *Rule) bool { return from <= r.ID && r.ID <= to })
	}
	return nil
}

func (p *parser) removeByTag(tag string) error {
	p.remove(func(r *Rule) bool { return slices.Contains(r.Tags, tag) })
	return anything(tag)
}

func (p *parser) removeByMsg(msg string) error {
	p.remove(func(r *Rule) bool { return r.Links[0].Msg.String() == msg })
	return anything(msg)
}

// rulesToUpdate reads NUMBER TEXT or RANGE… TEXT. A number that no rule has is
// a mistake, a range without rules is none. More after a single number would
// be dropped by Coraza.
func (p *parser) rulesToUpdate(args string) (list []*Rule, text string, err error) {
	words := strings.Fields(args)
	if len(words) < 2 {
		return nil, "", mistake("must be the number of a rule or a range, and what to change, without spaces in it")
	}
	last := len(words) - 1
	for i, w := range words[:last] {
		from, to, err := parseRange(w)
		if err != nil {
			return nil, "", err
		}
		if from == to {
			if i != last-1 {
				return nil, "", mistake("only one number can be named; write a directive for each")
			}
			if p.byID[from] == nil {
				return nil, "", mistake("there is no rule %d before this line", from)
			}
		}
		for _, r := range p.rules {
			if from <= r.ID && r.ID <= to {
				list = append(list, r)
			}
		}
	}
	return list, strings.Trim(words[last], `"`), nil
}

func (p *parser) updateTargetByID(args string) error {
	list, text, err := p.rulesToUpdate(args)
	if err != nil {
		return err
	}
	return p.updateTargets(list, text)
}

func (p *parser) updateTargetByTag(args string) error {
	words := strings.Fields(args)
	if len(words) != 2 {
		return mistake("must be a tag and variables, without spaces in them")
	}
	tag := strings.Trim(words[0], `"`)
	var list []*Rule
	for _, r := range p.rules {
		if slices.Contains(r.Tags, tag) {
			list = append(list, r)
		}
	}
	return p.updateTargets(list, strings.Trim(words[1], `"`))
}

// updateTargets changes what the first conditions of rules look at.
func (p *parser) updateTargets(list []*Rule, text string) error {
	targets, err := p.parseTargets(text)
	if err != nil {
		return err
	}
	for _, r := range list {
		r.Links[0].addTargets(targets)
	}
	return nil
}

// updateActionByID adds actions to the first conditions of rules, or changes
// those that a rule can have once.
func (p *parser) updateActionByID(args string) error {
	list, text, err := p.rulesToUpdate(args)
	if err != nil {
		return err
	}
	changes, err := cutActions(text)
	if err != nil {
		return err
	}
	for _, a := range changes {
		switch a.name {
		case "id", "phase", "chain":
			return mistake("%s cannot be changed", a.name)
		case "block":
			return mistake("block would let pass here; write deny or pass")
		}
	}
	for _, a := range changes {
		for _, r := range list {
			if err := p.apply(r, a); err != nil {
				return err
			}
		}
	}
	return nil
}
