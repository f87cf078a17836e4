package seclang_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// rule is a SecRule of which only the variables and actions matter.
func rule(variables, actions string) string {
	return fmt.Sprintf("SecRule %s \"@rx x\" \"%s\"\n", variables, actions)
}

var ownFiles = files{
	"words.data":         "# words\n\n  Mauve \nred wine\n",
	"nets.data":          "192.0.2.0/24\n2001:db8::1, 198.51.100.7\n",
	"dir/more.conf":      "SecRule ARGS \"@pmFromFile own.data\" \"id:7,pass\"\n",
	"dir/own.data":       "x\n",
	"inc/a.conf":         rule("ARGS", "id:5,pass"),
	"inc/b.conf":         rule("ARGS", "id:6,pass"),
	"inc/empty.conf":     "# nothing\n",
	"inc/loop.conf":      "Include loop.conf",
	"inc/unfinished.inc": "SecRule ARGS \\\n",
	"inc/bad.inc":        "\nSecNonsense 1",
}

// sound are texts that Coraza reads in the same way.
var sound = map[string]string{
	"comments and empty lines inside": "SecRule ARGS \\\n# why\n\n  \"@rx x\" \\\n\"id:1,\\\n  phase:1,\\\n pass\"",
	"carriage returns":                "SecRule ARGS \"@rx x\" \\\r\n  \"id:1,pass\"\r\n",
	"an escaped quote":                `SecRule ARGS "@rx a\"b\\" "id:1,pass,msg:'it\'s, so'"`,
	"a comma in quotes":               rule("ARGS", "id:1,pass,msg:'a, b: c',logdata:'x,%{MATCHED_VAR}',tag:'a,b'"),
	"double quotes in an action":      `SecAction "id:1,pass,msg:'say "x"'"`,
	"implicit rx":                     `SecRule ARGS "attack" "id:1,pass"`,
	"implicit negated rx":             `SecRule ARGS "!attack" "id:1,pass"`,
	"empty patterns":                  "SecRule ARGS \"\" \"id:1,pass\"\nSecRule ARGS \"!\" \"id:2,pass\"\nSecRule ARGS \"@rx\" \"id:3,pass\"",
	"a negated operator":              `SecRule ARGS "!@streq %{tx.a}-%{REQUEST_HEADERS.Host}" "id:1,pass"`,
	"bytes":                           `SecRule ARGS "@rx \xff\x{fe}[\x80-\x90]" "id:1,pass"`,
	"operators": `SecRule ARGS "@pm a B c" "id:1,pass"
SecRule ARGS "@pmf words.data" "id:2,pass"
SecRule ARGS "@pmFromFile words.data" "id:3,pass"
SecRule REMOTE_ADDR "@ipMatch 192.0.2.1, 2001:db8::/32,198.51.100.0/24" "id:4,pass"
SecRule REMOTE_ADDR "@ipMatchF nets.data" "id:5,pass"
SecRule ARGS "@validateByteRange 9,10,13,32-126" "id:6,pass"
SecRule ARGS "@validateByteRange" "id:7,pass"
SecRule ARGS "@restpath /users/{id}/x{y}" "id:8,pass"
SecRule ARGS "@validateNid us ^\d" "id:9,pass"
SecRule ARGS "@detectSQLi" "id:10,pass"
SecRule ARGS "@noMatch" "id:11,pass"
SecRule ARGS "@within a b" "id:12,pass"
SecRule ARGS "@strmatch a" "id:13,pass"
SecRule ARGS "@le 3" "id:14,pass"`,
	"data sets": "SecDataset words `\none\n# no\n\n  two\n`\nSecRule ARGS \"@pmFromDataset words\" \"id:1,pass\"\n" +
		"SecDataset nets `\n192.0.2.1\n`\nSecRule REMOTE_ADDR \"@ipMatchFromDataset nets\" \"id:2,pass\"",
	"selectors": rule("ARGS:Foo|args_get:/^A.b|c\\/d$/|!ARGS:Foo|&REQUEST_HEADERS:X-A|REQUEST_HEADERS:/^X-/|!REQUEST_HEADERS:X-B"+
		"|!REQUEST_HEADERS:/^X-[c]/|TX:1|tx:/^a/|XML:/*|XML://@*|!XML://@*|MATCHED_VARS|!ARGS|FILES:'/a|b/'|&TX", "id:1,pass"),
	"an exception before its variable": rule("!ARGS:x|ARGS", "id:1,pass"),
	"a key with odd bytes":             rule("ARGS:a:b!c&d.e[]", "id:1,pass"),
	"no default in phase 1":            rule("ARGS", "id:1,phase:1,block"),
	"defaults": "SecDefaultAction \"phase:1,log,auditlog,deny,status:429,setvar:tx.seen=1,capture\"\n" + rule("ARGS", "id:1,phase:1,block,nolog") +
		rule("ARGS", "id:2,phase:1,pass") + rule("ARGS", "id:3,phase:1,status:500") + rule("ARGS", "id:4,block") +
		"SecDefaultAction \"phase:2,nolog,drop\"\n" + rule("ARGS", "id:5") + rule("ARGS", "id:6,allow:phase,log") + rule("ARGS", "id:7,phase:3,block"),
	"defaults of a chain": "SecDefaultAction \"phase:2,log,deny,setvar:tx.seen=1\"\n" + rule("ARGS", "id:1,phase:1,block,chain") +
		rule("ARGS", "setvar:tx.a=1") + rule("ARGS", "id:2,chain,block") + "SecRule ARGS \"@rx x\"\n",
	"the last disruptive action": rule("ARGS", "id:1,deny,pass,redirect:http://a/b?c=d,status:303"),
	"disruptive actions": rule("ARGS", "id:1,deny") + rule("ARGS", "id:2,drop,status:401") + rule("ARGS", "id:3,redirect:'/x',status:200") +
		rule("ARGS", "id:4,allow") + rule("ARGS", "id:5,allow:request") + rule("ARGS", "id:6,phase:1,status:404"),
	"phases": rule("ARGS", "id:1,phase:request") + rule("ARGS", "id:2,phase:response") + rule("ARGS", "id:3,phase:logging") + rule("ARGS", "id:'4',phase:'3'"),
	"severities": rule("ARGS", "id:1,severity:CRITICAL") + rule("ARGS", "id:2,severity:'5'") + rule("ARGS", "id:3,severity:Emergency") +
		rule("ARGS", "id:4,ver:'a',rev:2,accuracy:9,maturity:1"),
	"transformations": rule("ARGS", "id:1,t:lowercase,t:none,t:urlDecodeUni,t:NORMALIZEPATH,t:normalisePathWin,t:md5,t:sha1,t:utf8toUnicode") +
		rule("ARGS", "id:2,multiMatch,capture,t:base64DecodeExt,t:cmdLine,t:length"),
	"chains": rule("ARGS", "id:1,phase:1,deny,chain,t:lowercase,msg:'a'") + "\n# and\n" + rule("TX:0", "t:none,chain,logdata:'%{TX.0}'") +
		"SecAction \"setvar:tx.a=%{MATCHED_VAR}\"\n" + rule("ARGS", "id:2"),
	"setvar": `SecAction "id:1,pass,setvar:tx.A=+%{tx.b},setvar:'tx.%{rule.id}-x=-1',setvar:!tx.b=1,setvar:TX.c=a=b"`,
	"ctl": `SecAction "id:1,pass,ctl:ruleRemoveById=1-5,ctl:ruleRemoveByTag=a/b,ctl:ruleRemoveByMsg=x y,ctl:ruleEngine=detectiononly,\
ctl:requestBodyProcessor=json,ctl:forceRequestBodyVariable=On,ctl:auditEngine=Off,ctl:auditLogParts=+E,ctl:debugLogLevel=3"
SecAction "id:2,pass,ctl:ruleRemoveTargetById=1-5;ARGS:Foo,ctl:ruleRemoveTargetByTag=t;REQUEST_HEADERS:/^X-A$/,ctl:ruleRemoveTargetByMsg=m n;REQUEST_URI,\
ctl:ruleRemoveTargetById=7;XML:/*,ctl:ruleRemoveTargetById=7; ARGS : a:b "`,
	"skips": rule("ARGS", "id:1,skip:2,skipAfter:'END X'") + rule("ARGS", "id:2,skipAfter:END") + "SecMarker \"END X\"\nSecMarker END\n",
	"remove": rule("ARGS", "id:1,tag:'a b'") + rule("ARGS", "id:2") + rule("ARGS", "id:3,deny,chain") + rule("ARGS", "t:none") + rule("ARGS", "id:10") +
		"SecMarker M\nSecRuleRemoveById 2 9-12 77\nSecRuleRemoveByTag \"a b\"\n" + rule("ARGS", "id:2,pass"),
	"update targets": rule("ARGS|REQUEST_HEADERS", "id:1,tag:t") + rule("ARGS", "id:2,chain") + rule("ARGS", "t:none") +
		"SecRuleUpdateTargetById 1 \"!ARGS:/^a|b$/|!REQUEST_HEADERS:Foo|REQUEST_URI\"\nSecRuleUpdateTargetById 1-2 5-9 \"!ARGS:q\"\n" +
		"SecRuleUpdateTargetByTag t \"!ARGS:r\"\nSecRuleUpdateTargetByTag \"t\" \"!ARGS:s\"\nSecRuleUpdateTargetById 2-2 !ARGS\n",
	"update actions": rule("ARGS", "id:1,deny,t:lowercase") + rule("ARGS", "id:2,deny,status:401,log") +
		"SecRuleUpdateActionById 1 \"pass,nolog,t:none,tag:'x',severity:2,msg:'m'\"\nSecRuleUpdateActionById 1-2 \"status:404,setvar:tx.a=1\"\n",
	"include":                          "Include inc/a.conf\nInclude dir/more.conf\n",
	"a tab between words in a pattern": "SecRule ARGS \"@rx a\tb \" \"id:1,pass\"",
	"other settings":                   "SecHashEngine Off\nSecUnicodeMap unicode.mapping 20127\nSecCollectionTimeout 600\nSecArgumentSeparator &\nSecDebugLogLevel 3\nsecruleengine ON",
}

func TestLikeCoraza(t *testing.T) {
	for name, text := range sound {
		t.Run(name, func(t *testing.T) {
			sameAsCoraza(t, ownFiles, seclang.Source{Name: "text", Text: text})
		})
	}
}

// Coraza fails on this one.
func TestRemoveByMsg(t *testing.T) {
	rs := parse(t, ownFiles, seclang.Source{Text: rule("ARGS", "id:1,msg:'gone %{tx.a}'") + rule("ARGS", "id:2") +
		"SecMarker M\nSecRuleRemoveByMsg \"gone %{tx.a}\"\n"})
	if len(rs.Rules) != 2 || rs.Rules[0].ID != 2 {
		t.Errorf("%s", written(rs))
	}
}

// Names are relative to the file that has them, wherever it is included from.
func TestRelativeNames(t *testing.T) {
	read := files{
		"/etc/w/own.conf":    "",
		"/etc/w/a/one.conf":  "Include b/*.conf\nInclude @owasp_crs/RESPONSE-955-WEB-SHELLS.conf\n",
		"/etc/w/a/b/x.conf":  "SecRule ARGS \"@pmFromFile x.data\" \"id:1\"\nSecRule ARGS \"@pmFromFile /etc/y.data\" \"id:2\"\n",
		"/etc/w/a/b/x.data":  "x\n# no\nX y \n",
		"/etc/y.data":        "y",
		"/etc/w/z.data":      "z",
		"/etc/w/nowhere.inc": "",
	}
	rs := parse(t, read, seclang.Source{Name: "/etc/w/own.conf", Text: "Include a/one.conf\nSecRule ARGS \"@pmFromFile z.data\" \"id:3\""})
	want := map[int]string{1: "x|X y", 2: "y", 3: "z"}
	for _, r := range rs.Rules {
		if lines, ok := want[r.ID]; ok && strings.Join(r.Links[0].Op.Lines, "|") != lines {
			t.Errorf("rule %d: %q", r.ID, r.Links[0].Op.Lines)
		}
	}
	for i, want := range map[int]string{0: "/etc/w/a/b/x.conf:1", 1: "/etc/w/a/b/x.conf:2", 2: "@owasp_crs/RESPONSE-955-WEB-SHELLS.conf:10"} {
		if r := rs.Rules[i]; fmt.Sprintf("%s:%d", r.File, r.Line) != want {
			t.Errorf("rule %d is at %s:%d, not %s", r.ID, r.File, r.Line, want)
		}
	}
	if r := rs.Rules[len(rs.Rules)-1]; r.ID != 3 || r.File != "/etc/w/own.conf" || r.Line != 2 {
		t.Errorf("%+v", r)
	}
}

func TestEntries(t *testing.T) {
	rs := parse(t, ownFiles, seclang.Source{Text: `SecRule REMOTE_ADDR "@ipMatchFromFile nets.data" "id:1"
SecDataset nets ` + "`\n192.0.2.1\n# no\n198.51.100.7,::1\n`" + `
SecRule REMOTE_ADDR "@ipMatchFromDataset nets" "id:2"
SecRule REMOTE_ADDR "@pmFromDataset nets" "id:3"`})
	for i, want := range []string{"192.0.2.0/24|2001:db8::1|198.51.100.7", "192.0.2.1|198.51.100.7|::1", "192.0.2.1|198.51.100.7,::1"} {
		if got := strings.Join(rs.Rules[i].Links[0].Op.Lines, "|"); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}

func TestMacro(t *testing.T) {
	rs := parse(t, ownFiles, seclang.Source{Text: `SecRule ARGS "@streq a%b%{TX.Some-Key[1]}%{request_uri}" "id:1,msg:'50 % {of} it'"`})
	l := rs.Rules[0].Links[0]
	want := seclang.Macro{{Text: "a%b"}, {Text: "TX.Some-Key[1]", Var: seclang.TX, Key: "some-key[1]"}, {Text: "request_uri", Var: seclang.RequestURI}}
	if !slices.Equal(l.Op.Arg, want) || l.Op.Arg.Static() || l.Op.Arg.String() != "a%b%{TX.Some-Key[1]}%{request_uri}" {
		t.Errorf("%+v", l.Op.Arg)
	}
	if !l.Msg.Static() || l.Msg.String() != "50 % {of} it" {
		t.Errorf("%+v", l.Msg)
	}
}

func TestIncludeBound(t *testing.T) {
	text := strings.Repeat("Include inc/empty.conf\n", 100)
	parse(t, ownFiles, seclang.Source{Text: text})
	if _, err := seclang.Parse(ownFiles, seclang.Source{Text: text + text[:23]}); err == nil {
		t.Error("no error")
	}
}
