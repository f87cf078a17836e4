package seclang_test

import (
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corazawaf/coraza-coreruleset/v4"

	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// files are the embedded rules of the CRS, and others by name.
type files map[string]string

func (f files) ReadFile(name string) ([]byte, error) {
	if text, ok := f[name]; ok {
		return []byte(text), nil
	}
	if !strings.HasPrefix(name, "@") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return fs.ReadFile(coreruleset.FS, name)
}

func (f files) Glob(pattern string) ([]string, error) {
	if strings.HasPrefix(pattern, "@") {
		return fs.Glob(coreruleset.FS, pattern)
	}
	var out []string
	for name := range maps.Keys(f) {
		ok, err := filepath.Match(pattern, name)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, name)
		}
	}
	return out, nil
}

// crs is the CRS with its own set-up.
var crs = []seclang.Source{
	{Name: "setup", Text: "Include @coraza.conf-recommended\nInclude @crs-setup.conf.example\n"},
	{Name: "crs", Text: "Include @owasp_crs/*.conf\n"},
}

// merlon is the CRS as the gateway sets it up.
var merlon = []seclang.Source{
	{Name: "setup", Text: `Include @coraza.conf-recommended
SecArgumentsLimit 1000
SecAction "id:99000,phase:1,pass,nolog,t:none,setvar:'tx.blocking_paranoia_level=4',setvar:'tx.inbound_anomaly_score_threshold=5',setvar:'tx.allowed_methods=GET HEAD POST OPTIONS PUT PATCH DELETE',setvar:'tx.restricted_headers_basic=/proxy/ /lock-token/'"
SecRule REQUEST_HEADERS:Content-Type "@rx ^(?i:text/x|application/(?:a|b))\s*(?:;|$)" "id:99001,phase:1,pass,nolog,t:none,t:lowercase,ctl:ruleRemoveById=920420"
SecRule REQUEST_HEADERS:Content-Type "@rx ^(?:application/csp-report|[^;\s/]+/(?:[^;\s/]*\+)?json)\s*(?:;|$)" "id:99002,phase:1,pass,nolog,t:none,t:lowercase,ctl:requestBodyProcessor=JSON"
SecRxPreFilter Off
Include @crs-setup.conf.example
SecRule ARGUMENTS_LIMIT_REACHED "@eq 1" "id:99004,phase:1,t:none,log,deny,status:413,msg:'Too many arguments in the query'"
SecRule URI_PARSE_ERROR "@eq 1" "id:99006,phase:1,t:none,log,deny,status:400,msg:'The request target cannot be parsed'"
SecRule ARGS "@rx ^[\w.@+ -]{0,64}['\"\x60][\s)]*;?\s*(?:--[\s-]*|#\s*|/\*.*)$" \
    "id:99101,phase:2,block,t:none,t:urlDecodeUni,msg:'SQL authentication bypass: a quote and a comment end the query',\
    tag:'application-multi',tag:'attack-sqli',tag:'paranoia-level/1',severity:'CRITICAL',\
    setvar:'tx.inbound_anomaly_score_pl1=+%{tx.critical_anomaly_score}'"
`},
	{Name: "own.conf", Text: `# a virtual patch
SecRule REQUEST_URI "@beginsWith /legacy" \
    "id:1000,phase:1,\
    # not any more
    deny,status:404,msg:'closed'"

SecRule REQUEST_URI "@beginsWith /editor" "id:1001,phase:1,pass,nolog,ctl:ruleRemoveTargetByTag=attack-xss;ARGS:html"
SecRule ARGS:colour "@pmFromFile words.data" "id:1002,phase:2,block,msg:'colour',severity:'CRITICAL'"
`},
	{Name: "crs", Text: "Include @owasp_crs/*.conf\n"},
	{Name: "after.conf", Text: "SecRuleRemoveById 930130\nSecRuleEngine DetectionOnly\n"},
	{Name: "exclusions", Text: `SecRuleUpdateTargetById 942100 "!ARGS:/^(?s)json\x{2e}items\x{2e}.*\x{2e}text$/|!ARGS_GET:/^(?s)json\x{2e}items\x{2e}.*\x{2e}text$/"
SecRuleUpdateTargetById 941100 "!REQUEST_COOKIES:/^(?s)a\x{5f}b$/|!REQUEST_URI|!XML|!XML:/*"
`},
	{Name: "enforced", Text: `SecRuleEngine On
SecAuditEngine Off
SecRequestBodyAccess On
SecRequestBodyLimit 20971520
SecRequestBodyInMemoryLimit 20971520
SecResponseBodyAccess On
SecResponseBodyLimit 524288
SecResponseBodyLimitAction ProcessPartial
`},
}

var merlonFiles = files{"words.data": "mauve\n# not red\n\nred wine\n"}

func parse(t testing.TB, read files, sources ...seclang.Source) *seclang.Ruleset {
	t.Helper()
	rs, err := seclang.Parse(read, sources...)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// The CRS is read whole, and every rule as Coraza reads it.
func TestCRS(t *testing.T) {
	sameAsCoraza(t, files{}, crs...)
	sameAsCoraza(t, merlonFiles, merlon...)
	rs := parse(t, merlonFiles, merlon...)
	want := map[string]string{
		"secruleengine": "On", "secargumentslimit": "1000", "secrequestbodylimit": "20971520", "secauditengine": "Off",
		"secresponsebodymimetype": "text/plain text/html text/xml", "seccomponentsignature": "OWASP_CRS/4.25.0",
	}
	for name, value := range want {
		if rs.Settings[name] != value {
			t.Errorf("%s is %q", name, rs.Settings[name])
		}
	}
}

// What the CRS is made of, so that a change of it is seen.
func TestStructure(t *testing.T) {
	rs := parse(t, files{}, crs...)
	var phases [6]int
	operators := map[string]int{}
	for _, r := range rs.Rules {
		phases[r.Phase]++
		for _, l := range r.Links {
			if l.Op != nil {
				name := l.Op.Name
				if l.Op.Negated {
					name = "!" + name
				}
				operators[name]++
			}
			if l.Op != nil && strings.HasSuffix(l.Op.Name, "FromFile") && len(l.Op.Lines) == 0 {
				t.Errorf("rule %d: no entries", r.ID)
			}
		}
	}
	if want := [6]int{30, 176, 290, 43, 109, 13}; phases != want {
		t.Errorf("rules in phases: %v, want %v", phases, want)
	}
	want := map[string]int{
		"rx": 298, "!rx": 20, "pm": 10, "!pm": 2, "pmFromFile": 20, "!pmFromFile": 1, "lt": 189, "!lt": 1, "ge": 42, "gt": 15,
		"eq": 49, "!eq": 6, "contains": 4, "!beginsWith": 1, "endsWith": 3, "!endsWith": 3, "streq": 5, "!streq": 2,
		"within": 3, "!within": 6, "ipMatch": 2, "detectSQLi": 2, "detectXSS": 2, "validateByteRange": 5, "!validateByteRange": 1,
		"validateUrlEncoding": 1, "validateUtf8Encoding": 1, "unconditionalMatch": 1,
	}
	if !maps.Equal(operators, want) {
		t.Errorf("operators: %v, want %v", operators, want)
	}
}

func BenchmarkCRS(b *testing.B) {
	for b.Loop() {
		parse(b, files{}, crs...)
	}
}
