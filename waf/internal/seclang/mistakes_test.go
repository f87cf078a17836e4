package seclang_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// mistakes are directives that cannot be taken, and what is said about them.
var mistakes = []struct{ text, want string }{
	{"SecNonsense On", "1: SecNonsense: there is no such directive"},
	{"\n# x\nSecNonsense \\\n On", "3: SecNonsense: "},
	{"SecRule ARGS \\\n  \"@rx x\" \\\n", "1: the directive is not finished"},
	{"SecDataset a `\nx\n", "1: the backquote is not closed"},
	{"\nSecMarker " + strings.Repeat("x", 64<<10), "2: the line is longer than 65535 bytes"},
	{"SecRule", `1: SecRule: must be VARIABLES "OPERATOR" "ACTIONS"`},
	{"SecRule ARGS", "must be VARIABLES"},
	{"SecRule ARGS @rx", "must be VARIABLES"},
	{`SecRule ARGS "x`, "must be VARIABLES"},
	{`SecRule ARGS "x" id:1`, `the actions must stand between quotes`},
	{`SecRule ARGS "x"	"id:1"`, `the actions must stand between quotes`},
	{`SecRule ARGS "x" "id:1" # why`, `the actions must stand between quotes`},
	{`SecAction`, "the actions are missing"},
	{`SecAction  "id:1,pass"`, `there is no action "\"id"`},

	{rule("NOTHING", "id:1"), `there is no variable "NOTHING"`},
	{rule("ARGS|", "id:1"), `there is no variable ""`},
	{rule("!&ARGS", "id:1"), `there is no variable "&ARGS"`},
	{rule("!ARGS:x", "id:1"), `"!ARGS:x" names no variable to look at`},
	{rule("ARGS:|TX", "id:1"), "a key holds no / or ' and is not empty"},
	{rule("ARGS:a/b/", "id:1"), "write a pattern as /…/"},
	{rule("ARGS:'a'", "id:1"), "a key holds no / or '"},
	{rule("ARGS:/a", "id:1"), "the pattern is not closed by a /"},
	{rule(`ARGS:/a\/`, "id:1"), "the pattern is not closed by a /"},
	{rule("ARGS:'/a/", "id:1"), "the quote is not closed"},
	{rule("ARGS:/a/b", "id:1"), "another variable must follow"},
	{rule("ARGS:/a/|", "id:1"), "another variable must follow"},
	{rule("ARGS://", "id:1"), "the pattern is empty"},
	{rule("ARGS:/(/", "id:1"), "missing closing )"},
	{rule(`REQUEST_HEADERS:/^X-\S/`, "id:1"), `read in lower case, where \S means something else`},
	{rule("REQUEST_URI:x", "id:1"), "REQUEST_URI has no keys to select by"},
	{rule("REQUEST_URI:/x/", "id:1"), "REQUEST_URI has no keys to select by"},
	{rule("XML:/a/b", "id:1"), "only XML:/* and XML://@* do"},
	{rule("xml:/*", "id:1"), "the pattern is not closed"},

	{`SecRule ARGS "@RX x" "id:1"`, "there is no operator @RX; mind capitals"},
	{`SecRule ARGS "@" "id:1"`, "there is no operator @"},
	{`SecRule ARGS "@rx (" "id:1"`, "@rx: error parsing regexp: missing closing )"},
	{`SecRule ARGS "@rx (?=x)" "id:1"`, "@rx: error parsing regexp: invalid or unsupported Perl syntax"},
	{`SecRule ARGS "@rx \xff(" "id:1"`, "@rx: "},
	{`SecRule ARGS "@streq" "id:1"`, "@streq: a value is missing"},
	{`SecRule ARGS "@streq %{tx.a" "id:1"`, "%{ without }"},
	{`SecRule ARGS "@streq a%{" "id:1"`, "%{ without }"},
	{`SecRule ARGS "@streq %{%{tx.a}}" "id:1"`, "are made of letters, digits"},
	{`SecRule ARGS "@streq %{tx.}" "id:1"`, "the key is missing"},
	{`SecRule ARGS "@streq %{nothing}" "id:1"`, `there is no variable "nothing"`},
	{`SecRule ARGS "@pmFromFile" "id:1"`, "@pmFromFile: the name of the file is missing"},
	{`SecRule ARGS "@pmFromFile nowhere.data" "id:1"`, "@pmFromFile: open nowhere.data: file does not exist"},
	{`SecRule ARGS "@pmFromDataset nowhere" "id:1"`, `"nowhere" must be the name of a SecDataset that stands before`},
	{`SecRule REMOTE_ADDR "@ipMatch 192.0.2.1,192.0.2" "id:1"`, `"192.0.2" is no address and no network`},
	{`SecRule REMOTE_ADDR "@ipMatchFromFile words.data" "id:1"`, `"Mauve" is no address`},
	{`SecRule ARGS "@validateByteRange 1-256" "id:1"`, `"1-256" must be a byte or a range of bytes`},
	{`SecRule ARGS "@validateByteRange 9-1" "id:1"`, `must be a byte or a range`},
	{`SecRule ARGS "@validateNid xx ^" "id:1"`, "must be cl or us and a pattern"},
	{`SecRule ARGS "@restpath /{a-b}" "id:1"`, "invalid named capture"},

	{rule("ARGS", "pass"), "the number is missing"},
	{"SecRule ARGS \"@rx x\"", "the number is missing"},
	{rule("ARGS", "id:0"), "id:0: must be a number above 0"},
	{rule("ARGS", "id:x"), "id:x: must be a number above 0"},
	{rule("ARGS", "id:1") + rule("ARGS", "id:1"), "2: SecRule: id:1 is the number of another rule, text:1"},
	{rule("ARGS", "id:1,"), "an action is missing before or after a comma"},
	{rule("ARGS", "id:1,nonsense"), `there is no action "nonsense"`},
	{rule("ARGS", "id:1,msg:'it's so',deny"), "a quote (') is not closed"},
	{rule("ARGS", "id:1,deny:403"), "deny:403: takes no value"},
	{rule("ARGS", "id:1,phase:6"), "must be 1 to 5, request, response or logging"},
	{rule("ARGS", "id:1,severity:8"), "must be 0 to 7 or emergency, alert"},
	{rule("ARGS", "id:1,accuracy:10"), "must be 1 to 9"},
	{rule("ARGS", "id:1,tag:''"), "tag: a value is missing"},
	{rule("ARGS", "id:1,status:999"), "must be an HTTP status"},
	{rule("ARGS", "id:1,skip:0"), "must be the number of rules to skip"},
	{rule("ARGS", "id:1,skipAfter:END"), "1: SecRule: skipAfter:END: no SecMarker of this name follows"},
	{"SecMarker END\n" + rule("ARGS", "id:1,skipAfter:END"), "2: SecRule: skipAfter:END"},
	{rule("ARGS", "id:1,allow:all"), "must be allow, allow:phase or allow:request"},
	{rule("ARGS", "id:1,redirect"), "redirect: a value is missing"},
	{rule("ARGS", "id:1,t:nothing"), "t:nothing: there is no such transformation"},
	{rule("ARGS", "id:1,t:lowercase,t:None"), "must be written in lower case"},
	{rule("ARGS", "id:1,setvar:ip.x=1"), "must be tx.NAME=VALUE"},
	{rule("ARGS", "id:1,setvar:tx.x"), "the value is missing, like setvar:tx.x=1"},
	{rule("ARGS", "id:1,setvar:tx.x="), "a value is missing"},
	{rule("ARGS", "id:1,exec:/bin/x"), "the action exec does nothing, in Coraza neither"},
	{rule("ARGS", "id:1,initcol:ip"), "must be COLLECTION=KEY"},

	{rule("ARGS", "id:1,ctl:ruleremovebyid=1"), "there is no ctl of this name; mind capitals"},
	{rule("ARGS", "id:1,ctl:ruleRemoveById=a"), `"a" must be the number of a rule or a range`},
	{rule("ARGS", "id:1,ctl:ruleRemoveById=9-1"), `"9-1" must be`},
	{rule("ARGS", "id:1,ctl:ruleRemoveByTag"), "must name one tag or message"},
	{rule("ARGS", "id:1,ctl:ruleEngine=Maybe"), `"Maybe" must be On, Off, DetectionOnly`},
	{rule("ARGS", "id:1,ctl:requestBodyProcessor=YAML"), `"YAML" must be URLENCODED`},
	{rule("ARGS", "id:1,ctl:ruleRemoveTargetById=1"), "must be like ctl:ruleRemoveTargetById=VALUE;ARGS:name"},
	{rule("ARGS", "id:1,ctl:ruleRemoveTargetById=1;NOTHING"), `there is no variable "NOTHING"`},
	{rule("ARGS", "id:1,ctl:ruleRemoveTargetById=1;REQUEST_URI:x"), "REQUEST_URI has no keys"},
	{rule("ARGS", "id:1,ctl:ruleRemoveTargetById=1;ARGS:"), "the key is missing"},
	{rule("ARGS", "id:1,ctl:ruleRemoveTargetById=1;ARGS://"), "the pattern is empty"},
	{rule("ARGS", "id:1,ctl:ruleRemoveTargetById=1;ARGS:/(/"), "missing closing )"},
	{rule("ARGS", "id:1,ctl:hashEngine=On"), "does nothing, in Coraza neither"},

	{rule("ARGS", "id:1,chain"), "1: SecRule: the chain is not finished"},
	{rule("ARGS", "id:1,chain") + "SecMarker X\n", "1: SecRule: the chain is not finished"},
	{rule("ARGS", "id:1,chain") + rule("ARGS", "deny"), "2: SecRule: deny stands in a chained rule"},
	{rule("ARGS", "id:1,chain") + rule("ARGS", "block"), "2: SecRule: block stands in a chained rule"},
	{rule("ARGS", "id:1,chain") + rule("ARGS", "id:2"), "2: SecRule: id stands in a chained rule"},
	{rule("ARGS", "id:1,chain") + rule("ARGS", "skip:2"), "2: SecRule: skip stands in a chained rule"},

	{`SecDefaultAction "log,pass"`, "must have a phase and one of"},
	{`SecDefaultAction "phase:1,log"`, "must have a phase and one of"},
	{`SecDefaultAction "phase:1,pass,t:none"`, "t cannot be a default"},
	{`SecDefaultAction "phase:1,pass,msg:x"`, "msg cannot be a default"},
	{`SecDefaultAction "phase:1,pass,status:x"`, "status:x: must be an HTTP status"},
	{"SecDefaultAction \"phase:1,pass\"\nSecDefaultAction \"phase:1,deny\"", "2: SecDefaultAction: phase 1 has its default actions already"},

	{"SecRuleRemoveById", "the numbers of rules are missing"},
	{"SecRuleRemoveById -5", `"-5" must be the number of a rule or a range`},
	{"SecRuleRemoveById 0-5", `"0-5" must be`},
	{"SecRuleRemoveByTag", "a value is missing"},
	{"SecRuleUpdateTargetById 1", "without spaces in it"},
	{`SecRuleUpdateTargetById 1 "!ARGS"`, "there is no rule 1 before this line"},
	{rule("ARGS", "id:1") + `SecRuleUpdateTargetById 1 2 "!ARGS"`, "2: SecRuleUpdateTargetById: only one number can be named"},
	{rule("ARGS", "id:1") + `SecRuleUpdateActionById 1 "deny, status:403"`, "only one number can be named"},
	{rule("ARGS", "id:1") + `SecRuleUpdateActionById 1 "block"`, "block would let pass here; write deny or pass"},
	{rule("ARGS", "id:1") + `SecRuleUpdateActionById 1 "id:2"`, "id cannot be changed"},
	{`SecRuleUpdateTargetByTag a b "!ARGS"`, "must be a tag and variables"},
	{`SecRuleUpdateTargetByMsg a "!ARGS"`, "write SecRuleUpdateTargetById"},

	{"SecRuleEngine Maybe", `"Maybe" must be On, Off, DetectionOnly`},
	{"SecRequestBodyLimit 1MB", `"1MB" must be a number`},
	{"SecArgumentsLimit 0", `"0" must be a number above 0`},
	{"SecHashEngine On", `"On" does nothing, in Coraza neither`},
	{"SecGsbLookupDb x", "does nothing, in Coraza neither; take it out"},
	{"SecRemoteRules a https://b", "rules are read from files only; write Include"},
	{"SecAuditLogParts AXZ", `"AXZ" must be A, letters from B to K, and Z`},
	{"SecMarker", "the name is missing"},
	{"SecDataset a", "must be a name and a list between backquotes"},

	{"Include", "the name of a file is missing"},
	{"Include nowhere.conf", "open nowhere.conf: file does not exist"},
	{"Include nowhere/*.conf", "no file matches"},
	{"Include inc/bad.inc", "inc/bad.inc:2: SecNonsense: "},
	{"Include inc/unfinished.inc", "inc/unfinished.inc:1: the directive is not finished"},
	{"Include inc/loop.conf", "inc/loop.conf:1: Include: loop.conf: there are more than 100 directives of this kind"},
	{rule("ARGS", "id:1,chain") + "Include inc/a.conf", "1: SecRule: the chain is not finished"},
}

func TestMistakes(t *testing.T) {
	for _, m := range mistakes {
		rs, err := seclang.Parse(ownFiles, seclang.Source{Name: "text", Text: m.text})
		want := m.want
		if c := want[0]; '0' <= c && c <= '9' {
			want = "text:" + want
		}
		var e *seclang.Error
		if rs != nil || !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v\nof: %.200s", want, err, m.text)
		} else if e.Unsupported || e.Line == 0 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%#v\nof: %s", err, m.text)
		}
	}
}

// What Coraza could do is told apart from mistakes.
func TestUnsupported(t *testing.T) {
	for text, want := range map[string]string{
		rule("SERVER_PORT", "id:1"):                                  `the variable SERVER_PORT`,
		rule("ARGS", "id:1,msg:'%{time}'"):                           `msg:%{time}: the variable time`,
		`SecRule ARGS "@rbl a.example" "id:1,pass"`:                  `@rbl`,
		`SecRule ARGS "@inspectFile x" "id:1,pass"`:                  `@inspectFile`,
		rule("ARGS", "id:1,setenv:a=b"):                              `the action setenv`,
		rule("ARGS", "id:1,ctl:requestBodyAccess=Off"):               `ctl:requestBodyAccess`,
		rule("ARGS", "id:1,ctl:ruleRemoveTargetById=1;ARGS_PATH"):    `the variable ARGS_PATH`,
		"SecIgnoreRuleCompilationErrors On":                          `to leave out rules that cannot be read`,
		`SecRuleUpdateTargetByTag nobody "!REQBODY_PROCESSOR_ERROR"`: `REQBODY_PROCESSOR_ERROR`,
	} {
		source := seclang.Source{Name: "text", Text: text}
		_, err := seclang.Parse(ownFiles, source)
		var e *seclang.Error
		if !errors.As(err, &e) || !e.Unsupported || !strings.Contains(e.Msg, want+" ") {
			t.Errorf("%v\nof: %s", err, text)
		}
	}
}

// Independent mistakes are told together, with their places.
func TestAllMistakes(t *testing.T) {
	_, err := seclang.Parse(ownFiles,
		seclang.Source{Name: "a", Text: "SecNonsense 1\n" + rule("ARGS", "id:1,what,chain") + rule("NOTHING", "chain") + rule("ARGS", "t:none") + rule("ARGS", "id:2")},
		seclang.Source{Name: "b", Text: rule("ARGS", "id:3,chain")},
		seclang.Source{Name: "c", Text: rule("ARGS", "id:4,skipAfter:x")})
	want := []string{"0 a:1: SecNonsense", "0 a:2: SecRule: there is no action", "0 a:3: SecRule: there is no variable",
		"1 b:1: SecRule: the chain", "2 c:1: SecRule: skipAfter"}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatal(err)
	}
	list := joined.Unwrap()
	if len(list) != len(want) {
		t.Fatal(err)
	}
	for i, err := range list {
		e := err.(*seclang.Error)
		if have := string(rune('0'+e.Source)) + " " + e.Error(); !strings.HasPrefix(have, want[i]) {
			t.Errorf("%s, not %s", have, want[i])
		}
	}
	_, err = seclang.Parse(ownFiles, seclang.Source{Text: strings.Repeat("SecNonsense 1\n", 1000)})
	if n := len(err.(interface{ Unwrap() []error }).Unwrap()); n != 101 {
		t.Errorf("%d errors", n)
	}
}
