package seclang

import (
	"regexp"
	"slices"
	"strings"
)

// others are the variables that Coraza has and this package has not.
var others = strings.Fields(`ARGS_PATH AUTH_TYPE DURATION ENV FILES_TMPNAMES FILES_TMP_CONTENT FULL_REQUEST FULL_REQUEST_LENGTH
	GEO INBOUND_DATA_ERROR IP JSON MULTIPART_BOUNDARY_QUOTED MULTIPART_BOUNDARY_WHITESPACE MULTIPART_CRLF_LF_LINES
	MULTIPART_DATA_AFTER MULTIPART_DATA_BEFORE MULTIPART_DUPLICATE_PART_HEADER MULTIPART_FILENAME_CHARSET
	MULTIPART_FILENAME_LANGUAGE MULTIPART_FILE_LIMIT_EXCEEDED MULTIPART_HEADER_FOLDING MULTIPART_INVALID_HEADER_FOLDING
	MULTIPART_INVALID_PART MULTIPART_INVALID_QUOTING MULTIPART_LF_LINE MULTIPART_MISSING_SEMICOLON
	MULTIPART_UNMATCHED_BOUNDARY OUTBOUND_DATA_ERROR PATH_INFO REMOTE_HOST REQBODY_PROCESSOR_ERROR
	REQBODY_PROCESSOR_ERROR_MSG RESPONSE_ARGS RESPONSE_XML RES_BODY_ERROR RES_BODY_ERROR_MSG RES_BODY_PROCESSOR
	RES_BODY_PROCESSOR_ERROR RES_BODY_PROCESSOR_ERROR_MSG SERVER_ADDR SERVER_PORT SESSIONID STATUS_LINE TIME TIME_DAY
	TIME_EPOCH TIME_HOUR TIME_MIN TIME_MON TIME_SEC TIME_WDAY TIME_YEAR URLENCODED_ERROR USERID`)

func lookup(name string) (Variable, error) {
	if v, ok := Lookup(name); ok {
		return v, nil
	}
	if slices.Contains(others, strings.ToUpper(name)) {
		return Unknown, unsupported("the variable %s", name)
	}
	return Unknown, mistake("there is no variable %q", name)
}

// A targetSpec is one item of a list of variables.
type targetSpec struct {
	Target
	negated bool // an exception
}

// parseTargets reads "ARGS|!ARGS:/x|y/|&TX:n|XML:/*".
func (p *parser) parseTargets(text string) ([]targetSpec, error) {
	var out []targetSpec
	for rest, more := text, true; more; {
		var t targetSpec
		var err error
		if t, rest, more, err = p.parseTarget(rest); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// parseTarget reads the first item of a list and returns what follows it.
func (p *parser) parseTarget(text string) (t targetSpec, rest string, more bool, err error) {
	switch {
	case strings.HasPrefix(text, "!"):
		t.negated, text = true, text[1:]
	case strings.HasPrefix(text, "&"):
		t.Count, text = true, text[1:]
	}
	end := strings.IndexAny(text, ":|")
	if end < 0 {
		end = len(text)
	}
	name := text[:end]
	if t.Var, err = lookup(name); err != nil {
		return t, "", false, err
	}
	if end == len(text) || text[end] == '|' {
		_, rest, more = strings.Cut(text[end:], "|")
		return t, rest, more, nil
	}
	text = text[end+1:]
	if !t.Var.Keyed() {
		return t, "", false, mistake("%s has no keys to select by", name)
	}
	key, pattern, rest, more, err := cutSelector(name, text)
	if err == nil {
		t.Selector, err = p.selector(t.Var, key, pattern, t.negated)
	}
	return t, rest, more, err
}

// cutSelector reads what follows "NAME:", a key, or a pattern between slashes,
// perhaps in quotes, in which | has no meaning.
func cutSelector(name, text string) (key string, pattern bool, rest string, more bool, err error) {
	if name == "XML" { // in capitals; a slash begins a path then
		key, rest, more = strings.Cut(text, "|")
		if key != "/*" && key != "//@*" {
			return "", false, "", false, mistake("XML:%s selects nothing: only XML:/* and XML://@* do", key)
		}
		return key, false, rest, more, nil
	}
	body, quoted := strings.CutPrefix(text, "'")
	if !strings.HasPrefix(body, "/") {
		key, rest, more = strings.Cut(text, "|")
		if key == "" || strings.ContainsAny(key, "/'") {
			return "", false, "", false, mistake("%s:%s: a key holds no / or ' and is not empty; write a pattern as /…/", name, key)
		}
		return key, false, rest, more, nil
	}
	body = body[1:]
	end := closingSlash(body)
	if end < 0 {
		return "", false, "", false, mistake("%s:/%s: the pattern is not closed by a /", name, body)
	}
	key, rest = body[:end], body[end+1:]
	if quoted {
		var ok bool
		if rest, ok = strings.CutPrefix(rest, "'"); !ok {
			return "", false, "", false, mistake("%s:'/%s/: the quote is not closed", name, key)
		}
	}
	if rest == "" {
		return key, true, "", false, nil
	}
	if rest[0] != '|' || len(rest) == 1 {
		return "", false, "", false, mistake("%s:/%s/: another variable must follow, after a |", name, key)
	}
	return key, true, rest[1:], true, nil
}

// closingSlash finds the first slash that is not escaped.
func closingSlash(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '/':
			return i
		}
	}
	return -1
}

// selector makes a Selector. Coraza lower-cases what is compared with keys of
// variables that are not case-sensitive, and compares exceptions with the
// lower-case key of any variable.
func (p *parser) selector(v Variable, key string, pattern, exception bool) (Selector, error) {
	if !pattern {
		if exception || !v.CaseSensitive() {
			key = strings.ToLower(key)
		}
		return Selector{Key: key}, nil
	}
	if key == "" {
		return Selector{}, mistake("%s://: the pattern is empty", v)
	}
	if !v.CaseSensitive() {
		if c := upperEscape(key); c != 0 {
			return Selector{}, mistake("%s:/%s/: the pattern is read in lower case, where \\%c means something else", v, key, c)
		}
		key = strings.ToLower(key)
	}
	re, err := p.compile(key)
	return Selector{Regex: re}, err
}

// upperEscape finds an escape like \S.
func upperEscape(pattern string) byte {
	for i := 0; i+1 < len(pattern); i++ {
		if pattern[i] != '\\' {
			continue
		}
		i++
		if c := pattern[i]; 'A' <= c && c <= 'Z' {
			return c
		}
	}
	return 0
}

// compile keeps patterns, since sets of rules repeat them.
func (p *parser) compile(pattern string) (*regexp.Regexp, error) {
	if re, ok := p.patterns[pattern]; ok {
		return re, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, mistake("%v", err)
	}
	p.patterns[pattern] = re
	return re, nil
}

// addTargets appends targets to a condition, and exceptions to its targets of
// the same variable. An exception for another variable changes nothing.
func (l *Link) addTargets(list []targetSpec) {
	for _, t := range list {
		if !t.negated {
			l.Targets = append(l.Targets, t.Target)
			continue
		}
		for i := range l.Targets {
			if l.Targets[i].Var == t.Var {
				l.Targets[i].Except = append(l.Targets[i].Except, t.Selector)
			}
		}
	}
}
