package seclang

import (
	"strconv"
	"strings"
)

// transformations by lower-case name, with what they are called. Two names of
// one are one.
var transformations = func() map[string]string {
	m := map[string]string{"normalizepath": "normalisePath", "normalizepathwin": "normalisePathWin"}
	for _, name := range strings.Fields(`base64Decode base64DecodeExt base64Encode cmdLine compressWhitespace cssDecode escapeSeqDecode
		hexDecode hexEncode htmlEntityDecode jsDecode length lowercase md5 normalisePath normalisePathWin removeComments
		removeCommentsChar removeNulls removeWhitespace replaceComments replaceNulls sha1 trim trimLeft trimRight uppercase
		urlDecode urlDecodeUni urlEncode utf8toUnicode`) {
		m[strings.ToLower(name)] = name
	}
	return m
}()

func addTransformation(_ *parser, r *Rule, value string) error {
	link := r.Links[0]
	if value == "none" {
		link.Transformations = nil
		return nil
	}
	name, ok := transformations[strings.ToLower(value)]
	switch {
	case strings.EqualFold(value, "none"):
		return mistake("must be written in lower case to have an effect")
	case !ok:
		return mistake("there is no such transformation")
	}
	link.Transformations = append(link.Transformations, name)
	return nil
}

// addSetVar reads tx.NAME=VALUE and !tx.NAME.
func addSetVar(_ *parser, r *Rule, value string) error {
	key, text, given := strings.Cut(value, "=")
	key, remove := strings.CutPrefix(key, "!")
	collection, name, _ := strings.Cut(key, ".")
	if strings.ToUpper(collection) != "TX" || strings.TrimSpace(name) == "" {
		return mistake("must be tx.NAME=VALUE or !tx.NAME")
	}
	if !given && !remove {
		return mistake("the value is missing, like setvar:tx.%s=1", name)
	}
	set := SetVar{Remove: remove}
	var err error
	if set.Name, err = parseMacro(name); err != nil {
		return err
	}
	if given {
		if set.Value, err = parseMacro(text); err != nil {
			return err
		}
	}
	r.Links[0].Actions = append(r.Links[0].Actions, set)
	return nil
}

// ctls say how the value of a ctl is read.
var ctls = map[string]func(p *parser, c *Ctl) error{
	"ruleRemoveById":           (*parser).ctlRange,
	"ruleRemoveByTag":          (*parser).ctlName,
	"ruleRemoveByMsg":          (*parser).ctlName,
	"ruleRemoveTargetById":     (*parser).ctlTargetByID,
	"ruleRemoveTargetByTag":    (*parser).ctlTarget,
	"ruleRemoveTargetByMsg":    (*parser).ctlTarget,
	"ruleEngine":               ctlValue(oneOf("On", "Off", "DetectionOnly")),
	"forceRequestBodyVariable": ctlValue(oneOf("On", "Off")),
	"auditEngine":              ctlValue(oneOf("On", "Off", "RelevantOnly")),
	"auditLogParts":            ctlValue(anything),
	"debugLogLevel":            ctlValue(debugLevel),
	"requestBodyProcessor":     (*parser).ctlProcessor,
}

func addCtl(p *parser, r *Rule, value string) error {
	name, arg, _ := strings.Cut(value, "=")
	read, ok := ctls[name]
	if !ok {
		switch name {
		case "requestBodyAccess", "requestBodyLimit", "responseBodyAccess", "responseBodyLimit", "responseBodyProcessor",
			"forceResponseBodyVariable":
			return unsupported("ctl:%s", name)
		case "hashEngine", "hashEnforcement":
			return mistake("does nothing, in Coraza neither; take it out")
		}
		return mistake("there is no ctl of this name; mind capitals, like ctl:ruleRemoveById=1000")
	}
	c := Ctl{Name: name, Value: arg}
	if err := read(p, &c); err != nil {
		return err
	}
	r.Links[0].Actions = append(r.Links[0].Actions, c)
	return nil
}

func ctlValue(check func(string) error) func(*parser, *Ctl) error {
	return func(_ *parser, c *Ctl) error { return check(c.Value) }
}

func (p *parser) ctlName(c *Ctl) error {
	if c.Value == "" || strings.Contains(c.Value, ";") {
		return mistake("must name one tag or message, without ;")
	}
	return nil
}

func (p *parser) ctlProcessor(c *Ctl) error {
	c.Value = strings.ToUpper(c.Value)
	return oneOf("URLENCODED", "MULTIPART", "JSON", "XML", "RAW")(c.Value)
}

func (p *parser) ctlRange(c *Ctl) (err error) {
	c.From, c.To, err = parseRange(c.Value)
	return err
}

// parseRange reads 1000 or 1000-1999.
func parseRange(s string) (from, to int, err error) {
	a, b, isRange := strings.Cut(s, "-")
	if !isRange {
		b = a
	}
	from, err = strconv.Atoi(a)
	if err == nil {
		to, err = strconv.Atoi(b)
	}
	if err != nil || from < 1 || from > to {
		return 0, 0, mistake("%q must be the number of a rule or a range of them, like 1000-1999", s)
	}
	return from, to, nil
}

func (p *parser) ctlTargetByID(c *Ctl) error {
	if err := p.ctlTarget(c); err != nil {
		return err
	}
	return p.ctlRange(c)
}

// ctlTarget reads VALUE;VARIABLE or VALUE;VARIABLE:KEY. The key runs to the
// end; a pattern stands between slashes.
func (p *parser) ctlTarget(c *Ctl) error {
	value, target, ok := strings.Cut(c.Value, ";")
	if !ok || value == "" {
		return mistake("must be like ctl:%s=VALUE;ARGS:name", c.Name)
	}
	name, key, selects := strings.Cut(target, ":")
	v, err := lookup(strings.TrimSpace(name))
	if err != nil {
		return err
	}
	c.Value, c.Target = value, v
	if !selects {
		return nil
	}
	key = strings.TrimSpace(key)
	switch {
	case !v.Keyed():
		return mistake("%s has no keys to select by", v)
	case key == "":
		return mistake("the key is missing")
	case len(key) > 1 && key[0] == '/' && closingSlash(key[1:]) >= 0 && key[len(key)-1] == '/':
		return p.ctlPattern(c, key[1:len(key)-1])
	}
	c.Key = strings.ToLower(key)
	return nil
}

// ctlPattern takes a pattern as it stands; it is compared with lower-case keys.
func (p *parser) ctlPattern(c *Ctl, pattern string) (err error) {
	if pattern == "" {
		return mistake("the pattern is empty")
	}
	c.Regex, err = p.compile(pattern)
	return err
}
