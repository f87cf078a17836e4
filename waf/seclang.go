package waf

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/types/variables"

	"github.com/merlon-dev/merlon"
)

// responseLimit is how much of an answer is judged, as Coraza recommends.
const responseLimit = 512 << 10

// directives returns the set-up that is read before the CRS rules.
func directives(c Config, t mediaTypes) string {
	set := func(name string, v any) string { return fmt.Sprintf(",setvar:'tx.%s=%v'", name, v) }
	withType := func(id int, pattern, ctl string) string {
		return fmt.Sprintf("SecRule REQUEST_HEADERS:Content-Type \"@rx %s\" \"id:%d,phase:1,pass,nolog,t:none,t:lowercase,ctl:%s\"\n", pattern, id, ctl)
	}
	var known strings.Builder
	for _, cs := range charsets {
		known.WriteString("|" + cs + "| ")
	}
	return "Include @coraza.conf-recommended\n" +
		fmt.Sprintf("SecArgumentsLimit %d\n", c.Arguments) +
		"SecAction \"id:99000,phase:1,pass,nolog,t:none" +
		set("blocking_paranoia_level", c.Paranoia) +
		set("inbound_anomaly_score_threshold", c.Threshold) +
		set("outbound_anomaly_score_threshold", c.OutboundThreshold) +
		set("allowed_methods", "GET HEAD POST OPTIONS PUT PATCH DELETE") +
		set("allowed_request_content_type_charset", strings.TrimSpace(known.String())) +
		// Without content-encoding, which Merlon decodes, and expect, which
		// net/http answers.
		set("restricted_headers_basic", "/proxy/ /lock-token/ /content-range/ /if/ /x-http-method-override/ /x-http-method/ /x-method-override/ /x-middleware-subrequest/") +
		"\"\n" +
		withType(99001, t.pattern, "ruleRemoveById=920420") +
		withType(99002, `^(?:application/csp-report|[^;\s/]+/(?:[^;\s/]*\+)?json)\s*(?:;|$)`, "requestBodyProcessor=JSON") +
		withType(99003, `^[^;\s/]+/(?:[^;\s/]*\+)?xml\s*(?:;|$)`, "requestBodyProcessor=XML") +
		// Coraza's own screen before regular expressions is faster, but
		// misses matches (of rule 942220, for one).
		"SecRxPreFilter Off\n" +
		"Include @crs-setup.conf.example\n" +
		ownRules
}

// Rules of the set-up that deny on their own account.
const (
	ruleQueryArguments = 99004
	ruleBodyArguments  = 99005
	ruleBadURI         = 99006
)

// ownRules are what Merlon adds to the CRS. Their ids are 99100 and up.
//
// 99004 to 99006 are those that newer versions of Coraza recommend.
// 99101: a value that is no more than a name, a quote and the beginning of a
// comment (admin' -- ) ends a query early. libinjection misses some spellings.
const ownRules = `SecRule ARGUMENTS_LIMIT_REACHED "@eq 1" "id:99004,phase:1,t:none,log,deny,status:413,msg:'Too many arguments in the query'"
SecRule ARGUMENTS_LIMIT_REACHED "@eq 1" "id:99005,phase:2,t:none,log,deny,status:413,msg:'Too many arguments in the body'"
SecRule URI_PARSE_ERROR "@eq 1" "id:99006,phase:1,t:none,log,deny,status:400,msg:'The request target cannot be parsed'"
SecRule ARGS "@rx ^[\w.@+ -]{0,64}['\"\x60][\s)]*;?\s*(?:--[\s-]*|#\s*|/\*.*)$" \
    "id:99101,phase:2,block,t:none,t:urlDecodeUni,msg:'SQL authentication bypass: a quote and a comment end the query',\
    tag:'application-multi',tag:'attack-sqli',tag:'paranoia-level/1',severity:'CRITICAL',\
    setvar:'tx.inbound_anomaly_score_pl1=+%{tx.critical_anomaly_score}'"
`

// enforced is read last: what no file of rules may change.
func enforced(c Config) string {
	return "SecRuleEngine On\nSecAuditEngine Off\nSecRequestBodyAccess On\n" +
		// Merlon bounds what it reads; this only keeps Coraza from bounding
		// it a second time, or from writing it to disk.
		fmt.Sprintf("SecRequestBodyLimit %d\nSecRequestBodyInMemoryLimit %d\n", 2*int64(c.Limit), 2*int64(c.Limit)) +
		fmt.Sprintf("SecResponseBodyAccess On\nSecResponseBodyLimit %d\nSecResponseBodyLimitAction ProcessPartial\n", responseLimit)
}

// parts of a message and the variables that CRS rules read them from.
var corazaTargets = map[Target][]variables.RuleVariable{
	Args:        {variables.Args, variables.ArgsGet, variables.ArgsPost},
	ArgsNames:   {variables.ArgsNames, variables.ArgsGetNames, variables.ArgsPostNames},
	Headers:     {variables.RequestHeaders},
	HeaderNames: {variables.RequestHeadersNames},
	Cookies:     {variables.RequestCookies},
	CookieNames: {variables.RequestCookiesNames},
	URI: {variables.RequestURI, variables.RequestURIRaw, variables.RequestLine, variables.RequestFilename,
		variables.RequestBasename, variables.QueryString},
	Body:        {variables.RequestBody},
	XML:         {variables.XML, variables.RequestXML},
	Files:       {variables.Files, variables.FilesNames, variables.MultipartFilename, variables.MultipartName},
	PartHeaders: {variables.MultipartPartHeaders},
	Response:    {variables.ResponseBody, variables.ResponseHeaders},
}

func targetOf(v variables.RuleVariable) Target {
	for t, list := range corazaTargets {
		for _, known := range list {
			if known == v {
				return t
			}
		}
	}
	return ""
}

// directives writes the exclusions that have a target. Those without are left
// out of each transaction.
func (x exclusions) directives() string {
	var b strings.Builder
	for _, e := range x {
		if e.target == "" {
			continue
		}
		var vars []string
		for _, v := range corazaTargets[e.target] {
			s := "!" + v.Name()
			if e.name != "" {
				s += ":/^" + namePattern(e.name) + "$/"
			}
			vars = append(vars, s)
		}
		for _, id := range e.rules {
			fmt.Fprintf(&b, "SecRuleUpdateTargetById %d \"%s\"\n", id, strings.Join(vars, "|"))
		}
	}
	return b.String()
}

// namePattern spells a name so that nothing in it has a meaning to SecLang or
// to regular expressions. Coraza compares it with the lower-case name.
func namePattern(name string) string {
	var b strings.Builder
	b.WriteString("(?s)")
	for _, r := range strings.ToLower(name) {
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

// ruleFiles is the file system that Coraza reads rules from: the embedded CRS,
// the disk, and every directive of the operator's files as a file of its own,
// so that a mistake can be told by its line.
type ruleFiles struct {
	steps   map[string]*step
	reading *step // the last of the operator's directives that was read
}

type step struct {
	setting, place string
	dir, text      string
}

// add appends the directives of the given files to a configuration.
func (f *ruleFiles) add(conf coraza.WAFConfig, setting string, paths []string, errs *[]error) coraza.WAFConfig {
	for i, path := range paths {
		setting := fmt.Sprintf("%s[%d]", setting, i)
		abs, err := filepath.Abs(path)
		var text []byte
		if err == nil {
			text, err = os.ReadFile(abs)
		}
		if err != nil {
			*errs = append(*errs, merlon.BadSetting(setting, path, err.Error()))
			continue
		}
		for _, d := range splitDirectives(string(text)) {
			if strings.HasSuffix(d.text, "\\\n") { // Coraza would drop it silently
				*errs = append(*errs, merlon.BadSetting(setting, fmt.Sprintf("%s:%d", path, d.line), "the directive is not finished"))
				continue
			}
			name := fmt.Sprintf("%s#%d", abs, d.line)
			if f.steps == nil {
				f.steps = map[string]*step{}
			}
			f.steps[name] = &step{setting, fmt.Sprintf("%s:%d", path, d.line), filepath.Dir(abs), d.text}
			conf = conf.WithDirectivesFromFile(name)
		}
	}
	return conf
}

// Open satisfies fs.FS; Coraza reads by ReadFile.
func (f *ruleFiles) Open(name string) (fs.File, error) { return coreruleset.FS.Open(name) }

// ReadFile returns one directive, a file on disk or a file of the CRS.
func (f *ruleFiles) ReadFile(name string) ([]byte, error) {
	if s, ok := f.steps[name]; ok {
		f.reading = s
		return []byte(s.text), nil
	}
	if filepath.IsAbs(name) && !strings.Contains(name, "/@") {
		return os.ReadFile(name)
	}
	f.reading = nil
	return fs.ReadFile(coreruleset.FS, name)
}

// Glob finds files on disk, from where the including file is, or in the CRS.
func (f *ruleFiles) Glob(pattern string) ([]string, error) {
	if s := f.reading; s != nil && !strings.HasPrefix(pattern, "@") {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(s.dir, pattern)
		}
		found, err := filepath.Glob(pattern)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("no file matches %s", pattern)
		}
		return found, err
	}
	f.reading = nil
	return fs.Glob(coreruleset.FS, pattern)
}

type directive struct {
	line int
	text string
}

// splitDirectives cuts SecLang where Coraza's parser does: at line ends that
// are not escaped and not between backquotes.
func splitDirectives(text string) []directive {
	var out []directive
	var cur bytes.Buffer
	start, quoted := 0, false
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if cur.Len() == 0 {
			start = i + 1
		}
		cur.WriteString(line + "\n")
		switch {
		case !quoted && strings.HasSuffix(line, "`"):
			quoted = true
		case quoted && line[0] == '`':
			quoted = false
		}
		if !quoted && !strings.HasSuffix(line, `\`) {
			out = append(out, directive{start, cur.String()})
			cur.Reset()
		}
	}
	if cur.Len() > 0 {
		out = append(out, directive{start, cur.String()})
	}
	return out
}

// reasonOf drops Coraza's account of how it came to read a directive.
func reasonOf(err error) string {
	s := err.Error()
	for _, prefix := range []string{"failed to parse string: ", "failed to readfile: "} {
		if i := strings.LastIndex(s, prefix); i >= 0 {
			s = s[i+len(prefix):]
		}
	}
	return s
}
