package seclang

import (
	"strconv"
	"strings"
)

// An action as it is written, with its name in lower case.
type action struct{ name, value string }

// A kind says how an action is merged with others.
type kind uint8

const (
	effect     kind = iota // done at each match, or how to match
	about                  // what is said about the rule; not by default
	disruptive             // one per rule
)

// An actionSpec says how an action changes a rule.
type actionSpec struct {
	kind  kind
	bare  bool // takes no value
	apply func(p *parser, r *Rule, value string) error
}

func flag(k kind, set func(r *Rule)) actionSpec {
	return actionSpec{k, true, func(_ *parser, r *Rule, _ string) error { set(r); return nil }}
}

func decide(d Disruptive) actionSpec {
	return flag(disruptive, func(r *Rule) { r.Disruptive = d })
}

// note checks what is not kept.
func note(check func(value string) error) actionSpec {
	return actionSpec{about, false, func(_ *parser, _ *Rule, value string) error { return check(value) }}
}

// actions by lower-case name.
var actions = map[string]actionSpec{
	"id":       {kind: about, apply: setID},
	"phase":    {kind: about, apply: setPhase},
	"severity": {kind: about, apply: setSeverity},
	"tag":      {kind: about, apply: addTag},
	"msg":      {kind: about, apply: setMsg},
	"rev":      note(anything),
	"ver":      note(anything),
	"accuracy": note(oneToNine),
	"maturity": note(oneToNine),

	"log":        flag(effect, func(r *Rule) { r.Log = true }),
	"nolog":      flag(effect, func(r *Rule) { r.Log = false }),
	"auditlog":   flag(effect, func(*Rule) {}),
	"noauditlog": flag(effect, func(*Rule) {}),
	"capture":    flag(effect, func(r *Rule) { r.Links[0].Capture = true }),
	"multimatch": flag(effect, func(r *Rule) { r.Links[0].MultiMatch = true }),
	"chain":      flag(effect, func(*Rule) {}),
	"logdata":    {kind: effect, apply: setLogData},
	"initcol":    {kind: effect, apply: ignoreInitCol},
	"status":     {kind: effect, apply: setStatus},
	"skip":       {kind: effect, apply: setSkip},
	"skipafter":  {kind: effect, apply: setSkipAfter},
	"t":          {kind: effect, apply: addTransformation},
	"setvar":     {kind: effect, apply: addSetVar},
	"ctl":        {kind: effect, apply: addCtl},

	"block":    decide(Pass), // unless another default takes its place
	"pass":     decide(Pass),
	"deny":     decide(Deny),
	"drop":     decide(Drop),
	"allow":    {kind: disruptive, apply: setAllow},
	"redirect": {kind: disruptive, apply: setRedirect},
}

func (a action) kind() kind { return actions[a.name].kind }

func (p *parser) apply(r *Rule, a action) error {
	spec := actions[a.name]
	var err error
	if spec.bare && a.value != "" {
		err = mistake("takes no value")
	} else {
		err = spec.apply(p, r, a.value)
	}
	if e, ok := err.(*Error); ok {
		return &Error{Msg: strings.TrimSuffix(a.name+":"+a.value, ":") + ": " + e.Msg, Unsupported: e.Unsupported}
	}
	return err
}

// cutActions cuts a list at its commas, and each action at its first colon.
// Neither counts between single quotes or after a backslash. Of several
// disruptive actions the last one stays.
func cutActions(text string) ([]action, error) {
	out := make([]action, 0, 1+strings.Count(text, ","))
	var err error
	add := func(from, colon, to int) {
		a := action{name: text[from:to]}
		if colon >= 0 {
			a = action{text[from:colon], unquote(strings.TrimSpace(text[colon+1 : to]))}
		}
		a.name = strings.ToLower(strings.TrimSpace(a.name))
		if e := a.known(); e != nil && err == nil {
			err = e
		}
		out = append(out, a)
	}
	from, colon, quoted := 0, -1, false
	for i := 1; i < len(text); i++ { // the first byte never counts
		if text[i-1] == '\\' {
			continue
		}
		switch c := text[i]; {
		case c == '\'':
			quoted = !quoted
		case quoted:
		case c == ':' && colon < 0:
			colon = i
		case c == ',':
			add(from, colon, i)
			from, colon = i+1, -1
		}
	}
	add(from, colon, len(text))
	if quoted && err == nil {
		err = mistake("a quote (') is not closed, so that the actions after it are not read")
	}
	return lastDisruptive(out), err
}

func lastDisruptive(list []action) []action {
	at, out := -1, list[:0]
	for _, a := range list {
		switch {
		case a.kind() != disruptive:
			out = append(out, a)
		case at < 0:
			at = len(out)
			out = append(out, a)
		default:
			out[at] = a
		}
	}
	return out
}

func (a action) known() error {
	if _, ok := actions[a.name]; ok {
		return nil
	}
	switch a.name {
	case "":
		return mistake("an action is missing before or after a comma")
	case "setenv":
		return unsupported("the action %s", a.name)
	case "exec", "expirevar":
		return mistake("the action %s does nothing, in Coraza neither; take it out", a.name)
	}
	return mistake("there is no action %q", a.name)
}

func parsePhase(value string) (int, error) {
	switch value {
	case "request":
		return 2, nil
	case "response":
		return 4, nil
	case "logging":
		return 5, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > 5 {
		return 0, mistake("phase:%s: must be 1 to 5, request, response or logging", value)
	}
	return n, nil
}

func setPhase(_ *parser, r *Rule, value string) (err error) {
	r.Phase, err = parsePhase(value)
	return err
}

func setID(_ *parser, r *Rule, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n <= 0 {
		return mistake("must be a number above 0")
	}
	r.ID = n
	return nil
}

func setSeverity(_ *parser, r *Rule, value string) error {
	if len(value) == 1 && '0' <= value[0] && value[0] <= '7' {
		r.Severity = int(value[0] - '0')
		return nil
	}
	for i, name := range severities {
		if strings.ToLower(value) == name {
			r.Severity = i
			return nil
		}
	}
	return mistake("must be 0 to 7 or %s", strings.Join(severities[:], ", "))
}

var severities = [...]string{"emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"}

func addTag(_ *parser, r *Rule, value string) error {
	r.Tags = append(r.Tags, value)
	return anything(value)
}

func oneToNine(value string) error {
	if n, err := strconv.Atoi(value); err != nil || n < 1 || n > 9 {
		return mistake("must be 1 to 9")
	}
	return nil
}

func setMsg(_ *parser, r *Rule, value string) (err error) {
	r.Links[0].Msg, err = parseMacro(unquote(value))
	return err
}

func setLogData(_ *parser, r *Rule, value string) (err error) {
	r.Links[0].LogData, err = parseMacro(value)
	return err
}

func setStatus(_ *parser, r *Rule, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 200 || n > 599 {
		return mistake("must be an HTTP status, 200 to 599")
	}
	r.Status = n
	return nil
}

// ignoreInitCol passes over what the CRS prepares for plug-ins. There are no
// collections that outlive a request, in Coraza neither; rules that name one
// are refused.
func ignoreInitCol(_ *parser, _ *Rule, value string) error {
	if !strings.Contains(value, "=") {
		return mistake("must be COLLECTION=KEY")
	}
	return nil
}

func setSkip(_ *parser, r *Rule, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		return mistake("must be the number of rules to skip")
	}
	r.Skip = n
	return nil
}

func setSkipAfter(_ *parser, r *Rule, value string) error {
	r.SkipAfter = unquote(value)
	return anything(r.SkipAfter)
}

func setAllow(_ *parser, r *Rule, value string) error {
	scopes := map[string]AllowScope{"": AllowAll, "phase": AllowPhase, "request": AllowRequest}
	scope, ok := scopes[value]
	if !ok {
		return mistake("must be allow, allow:phase or allow:request")
	}
	r.Disruptive, r.Allow = Allow, scope
	return nil
}

func setRedirect(_ *parser, r *Rule, value string) error {
	r.Disruptive, r.Location = Redirect, value
	return anything(value)
}
