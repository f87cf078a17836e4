package seclang

import (
	"fmt"
	"strings"
)

// A directive does what one statement says.
type directive func(p *parser, args string) error

// directives that make and change rules, by lower-case name. Those that only
// set something are in settings; Include, which leads back here, is in neither.
var directives = map[string]directive{
	"secrule":                  (*parser).secRule,
	"secaction":                (*parser).secAction,
	"secmarker":                (*parser).secMarker,
	"secdefaultaction":         (*parser).secDefaultAction,
	"secdataset":               (*parser).secDataset,
	"secruleremovebyid":        (*parser).removeByID,
	"secruleremovebytag":       (*parser).removeByTag,
	"secruleremovebymsg":       (*parser).removeByMsg,
	"secruleupdatetargetbyid":  (*parser).updateTargetByID,
	"secruleupdatetargetbytag": (*parser).updateTargetByTag,
	"secruleupdateactionbyid":  (*parser).updateActionByID,
}

// directive takes one statement.
func (p *parser) directive(s statement) {
	name, args := s.cut()
	lower := strings.ToLower(name)
	if lower != "secrule" && lower != "secaction" {
		p.closeChain()
	}
	do, ok := directives[lower]
	if lower == "include" {
		do, ok = (*parser).include, true
	}
	if ok {
		if err := do(p, args); err != nil {
			p.fail(name, err)
		}
		return
	}
	check, ok := settings[lower]
	if !ok {
		p.fail(fmt.Sprintf("%.40s", name), unknownDirective(lower))
		return
	}
	if err := check(args); err != nil {
		p.fail(name, err)
		return
	}
	if lower == "secresponsebodymimetypesclear" {
		lower = "secresponsebodymimetype"
	}
	p.settings[lower] = args
}

// closeChain sees to it that no chain is left open.
func (p *parser) closeChain() {
	if r := p.open; r != nil && r.ID != 0 {
		p.fail("", &Error{File: r.File, Line: r.Line, Source: r.source, Directive: "SecRule",
			Msg: "the chain is not finished: its next rule must follow"})
	}
	p.open = nil
}

func (p *parser) secMarker(args string) error {
	if args == "" {
		return mistake("the name is missing")
	}
	p.rules = append(p.rules, &Rule{Marker: args, File: p.file, Line: p.at.line, Severity: -1})
	return nil
}

// secDataset reads a list of entries between backquotes, with a name.
func (p *parser) secDataset(args string) error {
	name, list, ok := strings.Cut(args, " ")
	if !ok || name == "" {
		return mistake("must be a name and a list between backquotes, one entry to a line")
	}
	p.datasets[name] = entries(strings.Trim(list, "`"))
	return nil
}

// checkMarkers finds rules that skip to a marker that does not follow. They
// would skip all the rest.
func (p *parser) checkMarkers() {
	seen := map[string]bool{}
	for i := len(p.rules) - 1; i >= 0; i-- {
		r := p.rules[i]
		if r.Marker != "" {
			seen[r.Marker] = true
		}
		if r.SkipAfter != "" && !seen[r.SkipAfter] {
			p.fail("", &Error{File: r.File, Line: r.Line, Source: r.source, Directive: "SecRule",
				Msg: "skipAfter:" + r.SkipAfter + ": no SecMarker of this name follows"})
		}
	}
}
