package oracle_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
)

// alone are the sources of rules without the CRS.
func alone(text string) []ruleset.Source {
	return []ruleset.Source{
		{Text: "SecRxPreFilter Off\n"},
		{Text: text},
		{Text: "SecAuditEngine Off\nSecRequestBodyAccess On\nSecResponseBodyAccess On\nSecResponseBodyMimeType text/html application/json\n"},
	}
}

// on has rules enforced.
const on = "SecRuleEngine On\n"

// Rules as operators write them, one feature at a time. Each must say yes to
// some of the requests and no to others.
var features = []struct{ name, rules string }{
	{"a chain", `SecRule ARGS "@rx attack" "id:1,phase:2,deny,status:406,chain"
		SecRule REQUEST_HEADERS:X-A "@streq 1" "chain"
		SecRule REQUEST_METHOD "@streq POST"`},
	{"what follows allow:phase, read later", `SecRule ARGS "@rx attack" "id:1,phase:2,allow:phase,nolog"
		SecAction "id:2,phase:2,pass,nolog,setvar:tx.u=200"
		SecRule RESPONSE_STATUS "@streq %{tx.u}" "id:3,phase:3,deny,status:403"`},
	{"what follows allow:request, read later", `SecRule ARGS "@rx attack" "id:1,phase:1,allow:request,nolog"
		SecAction "id:2,phase:2,pass,nolog,setvar:tx.u=200"
		SecRule RESPONSE_STATUS "@streq %{tx.u}" "id:3,phase:3,deny,status:403"`},
	{"a condition on what the rule itself sets", `SecRule &TX:u "@eq 0" "id:1,phase:2,deny,setvar:tx.u=1,chain"
		SecRule ARGS "@rx attack"
		SecRule &TX:other "@gt 7" "id:2,phase:2,pass,setvar:tx.u=+1,chain"
		SecRule ARGS "@rx attack"`},
	{"a condition on what others may set, and the rule itself does", `SecRule ARGS:none "@rx attack" "id:1,phase:2,pass,setvar:tx.u=+1"
		SecAction "id:2,phase:2,pass,nolog,setvar:tx.u=+2"
		SecRule TX:u "@ge 2" "id:3,phase:2,deny,setvar:tx.u=-1,chain"
		SecRule ARGS "@rx attack"`},
	{"names made for every message", `SecAction "id:1,phase:2,pass,nolog,setvar:'tx.seen_%{rule.id}=1'"
		SecRule &TX:/^seen_/ "@eq 1" "id:2,phase:2,deny,chain"
		SecRule ARGS "@rx attack"`},
	{"a count of what the rule itself takes away", `SecRule REQUEST_HEADERS:X-A "@streq 1" "id:1,phase:2,deny,ctl:ruleRemoveTargetById=1;ARGS,chain"
		SecRule &ARGS:a "@eq 0"`},
	{"a target that is taken from earlier rules, too late", `SecRule ARGS "@rx attack" "id:1,phase:2,deny,tag:x"
		SecAction "id:2,phase:2,pass,nolog,ctl:ruleRemoveTargetByTag=x;ARGS"`},
	{"a chain that scores at its end", `SecRule ARGS "@contains a" "id:1,phase:2,pass,severity:CRITICAL,msg:'%{MATCHED_VAR} in %{MATCHED_VAR_NAME}',chain"
		SecRule MATCHED_VARS "@rx ^[a-z]+$" "setvar:'tx.inbound_anomaly_score_pl1=+5',setvar:'tx.blocking_inbound_anomaly_score=+5'"`},
	{"captures", `SecRule ARGS|REQUEST_COOKIES "@rx (\d)(\d?)" "id:1,phase:2,capture,pass,setvar:'tx.first=%{tx.1}',chain"
		SecRule TX:2 "@rx ^\d$" "setvar:'tx.second=%{tx.2}'"
		SecRule TX:second "@eq 2" "id:2,phase:2,deny"`},
	{"captures read by the next condition", `SecRule REQUEST_HEADERS:X-A "@rx ^(\w+)$" "id:1,phase:1,capture,deny,chain"
		SecRule REQUEST_COOKIES:a|ARGS "@streq %{TX.1}"`},
	{"arithmetic", `SecRule ARGS "@rx attack" "id:1,phase:2,pass,setvar:'tx.n=+3'"
		SecRule ARGS_NAMES "@streq b" "id:2,phase:2,pass,setvar:'tx.n=-1'"
		SecRule &ARGS "@gt 2" "id:3,phase:2,pass,setvar:'tx.n=+%{tx.n}'"
		SecRule TX:n "@ge 3" "id:4,phase:2,deny"`},
	{"arithmetic with nothing to add to", `SecRule ARGS:a "@rx ." "id:1,phase:2,pass,setvar:'tx.n=+%{tx.none}',setvar:'tx.m=x'"
		SecRule ARGS:b "@rx ." "id:2,phase:2,pass,setvar:'tx.m=+1',setvar:'tx.n=+%{ARGS.b}'"
		SecRule TX:n|TX:m "@rx ^\d" "id:4,phase:2,deny"`},
	{"names made of what matched", `SecRule REQUEST_HEADERS_NAMES "@rx ^x-" "id:1,phase:1,t:lowercase,pass,setvar:'tx.seen_%{MATCHED_VAR}=/%{MATCHED_VAR}/'"
		SecRule TX:/^seen_/ "@within /x-b/ /x-c/" "id:2,phase:1,deny"
		SecRule &TX:/^seen_/ "@eq 2" "id:3,phase:2,deny"`},
	{"a rule removed by number", `SecRule REQUEST_HEADERS:X-A "@streq 1" "id:1,phase:1,pass,nolog,ctl:ruleRemoveById=2"
		SecRule ARGS "@rx attack" "id:2,phase:2,deny"`},
	{"rules removed by a range", `SecRule REQUEST_FILENAME "@beginsWith /admin" "id:1,phase:1,pass,nolog,ctl:ruleRemoveById=2-3"
		SecRule ARGS "@rx attack" "id:2,phase:2,deny"
		SecRule ARGS "@rx evil" "id:3,phase:2,deny"
		SecRule ARGS "@rx select" "id:4,phase:2,deny"`},
	{"rules removed by tag", `SecRule REQUEST_FILENAME "@beginsWith /admin" "id:1,phase:1,pass,nolog,ctl:ruleRemoveByTag=x/y"
		SecRule ARGS "@rx attack" "id:2,phase:2,deny,tag:x/y"
		SecRule ARGS "@rx evil" "id:3,phase:2,deny,tag:x"`},
	{"targets removed", `SecRule REQUEST_FILENAME "@beginsWith /admin" "id:1,phase:1,pass,nolog,ctl:ruleRemoveTargetById=2;ARGS:a"
		SecRule REQUEST_METHOD "@streq POST" "id:5,phase:1,pass,nolog,ctl:ruleRemoveTargetByTag=x;ARGS:/^b/,ctl:ruleRemoveTargetByTag=x;REQUEST_COOKIES"
		SecRule ARGS|REQUEST_COOKIES "@rx attack" "id:2,phase:2,deny,tag:x"
		SecRule ARGS|!ARGS:a "@rx evil" "id:3,phase:2,deny,tag:x"`},
	{"a counted target removed", `SecRule REQUEST_METHOD "@streq POST" "id:1,phase:1,pass,nolog,ctl:ruleRemoveTargetById=2;ARGS:a"
		SecRule &ARGS:a "@eq 0" "id:2,phase:2,deny"`},
	{"skip", `SecRule ARGS:a "@rx ." "id:1,phase:2,pass,skip:1"
		SecRule ARGS "@rx attack" "id:2,phase:2,deny,status:401"
		SecRule ARGS "@rx attack" "id:3,phase:2,deny,chain"
		SecRule ARGS "@rx evil"`},
	{"skipping over another phase", `SecRule REQUEST_HEADERS:X-A "@streq 1" "id:1,phase:1,pass,skip:2"
		SecRule ARGS "@rx evil" "id:2,phase:2,deny,status:401"
		SecRule REQUEST_COOKIES "@rx ." "id:3,phase:1,deny,status:401"
		SecRule REQUEST_URI "@rx attack" "id:4,phase:1,deny"
		SecRule REQUEST_URI "@rx 1" "id:5,phase:1,deny"`},
	{"skipAfter", `SecRule REQUEST_METHOD "!@streq POST" "id:1,phase:2,pass,skipAfter:END"
		SecRule ARGS "@rx attack" "id:2,phase:2,deny"
		SecRule ARGS "@rx evil" "id:3,phase:2,pass,skipAfter:END"
		SecRule REQUEST_COOKIES "@rx attack" "id:4,phase:2,deny"
		SecMarker END
		SecRule ARGS "@rx select" "id:5,phase:2,deny"`},
	{"allow", `SecRule REQUEST_HEADERS:X-A "@streq 1" "id:1,phase:1,allow"
		SecRule ARGS "@rx attack|evil" "id:2,phase:2,deny"`},
	{"allow in its phase", `SecRule REQUEST_HEADERS:X-A "@streq 1" "id:1,phase:1,allow:phase"
		SecRule REQUEST_URI "@rx attack" "id:2,phase:1,deny"
		SecRule ARGS "@rx evil" "id:3,phase:2,deny"`},
	{"allow the request", `SecRule REQUEST_HEADERS:X-A "@streq 1" "id:1,phase:1,allow:request"
		SecRule ARGS "@rx evil" "id:3,phase:2,deny"
		SecRule RESPONSE_BODY "@rx attack" "id:4,phase:4,deny"`},
	{"allow at the end of a chain", `SecRule REQUEST_METHOD "@streq POST" "id:1,phase:2,allow,chain"
		SecRule ARGS:a "@rx ^\d*$"
		SecRule ARGS "@rx evil|attack|1" "id:3,phase:2,deny"`},
	{"multiMatch", `SecRule ARGS "@rx ^(?:attack|a%74tack|ATTACK)$" "id:1,phase:2,multiMatch,t:none,t:urlDecodeUni,t:lowercase,pass,setvar:tx.n=+1"
		SecRule TX:n "@ge 2" "id:2,phase:2,deny"`},
	{"MATCHED_VARS_NAMES", `SecRule ARGS|REQUEST_COOKIES "@rx attack" "id:1,phase:2,deny,chain"
		SecRule MATCHED_VARS_NAMES "@contains COOKIES"`},
	{"MATCHED_VAR_NAME", `SecRule ARGS "@rx attack" "id:1,phase:2,deny,chain"
		SecRule MATCHED_VAR_NAME "@streq ARGS:a"`},
	{"a negated operator", `SecRule ARGS:a "!@rx ^[a-z]*$" "id:1,phase:2,deny"`},
	{"a negated operator on all", `SecRule REQUEST_COOKIES|ARGS:/^[ab]$/ "!@within attack evil" "id:1,phase:2,deny"`},
	{"counts", `SecRule &REQUEST_HEADERS:X-A|&REQUEST_COOKIES:a "@eq 0" "id:1,phase:1,deny,chain"
		SecRule &ARGS_GET "@ge 2"`},
	{"patterns as keys", `SecRule ARGS:/^a|b$/|!ARGS:/^ab/ "@rx attack|evil" "id:1,phase:2,deny"`},
	{"keys differ by case", `SecRule ARGS:A|REQUEST_HEADERS:x-a|REQUEST_COOKIES:A "@rx 1|attack" "id:1,phase:2,deny"`},
	{"excepted keys", `SecRule ARGS|!ARGS:A|REQUEST_HEADERS|!REQUEST_HEADERS:X-A|!REQUEST_HEADERS:Host "@rx attack|1" "id:1,phase:2,deny"`},
	{"macros in arguments", `SecRule ARGS:a "@rx ." "id:1,phase:2,pass,setvar:'tx.want=%{MATCHED_VAR}'"
		SecRule REQUEST_COOKIES|ARGS:b "@streq %{tx.want}" "id:2,phase:2,deny"
		SecRule REQUEST_HEADERS:X-A "@within %{tx.want} 7" "id:3,phase:2,deny"`},
	{"a value of the message in an argument", `SecRule REQUEST_COOKIES|ARGS "@streq %{REQUEST_HEADERS.x-a}" "id:1,phase:1,deny"`},
	{"phases 1 and 2 of the same variables", `SecRule ARGS "@rx attack" "id:1,phase:1,deny,status:401"
		SecRule ARGS_POST|REQUEST_BODY "@rx evil" "id:2,phase:1,deny,status:402"
		SecRule ARGS_POST|REQUEST_BODY "@rx evil" "id:3,phase:2,deny"
		SecRule ARGS_COMBINED_SIZE "@gt 25" "id:4,phase:2,deny"
		SecRule REQUEST_BODY_LENGTH "@gt 20" "id:5,phase:2,deny"`},
	{"a body in phase 1", `SecRule &ARGS_POST "@eq 0" "id:1,phase:1,pass,setvar:tx.none=1"
		SecRule &ARGS_POST "@gt 0" "id:2,phase:2,deny,chain"
		SecRule TX:none "@eq 1"`},
	{"drop, redirect and block", `SecDefaultAction "phase:2,deny,status:409,log"
		SecRule ARGS:a "@rx attack" "id:1,phase:2,block"
		SecRule ARGS:a "@rx evil" "id:2,phase:2,drop"
		SecRule ARGS:b "@rx evil" "id:3,phase:2,redirect:https://example.com/"`},
	{"DetectionOnly for some", `SecRule REQUEST_HEADERS:X-A "@streq 1" "id:1,phase:1,pass,ctl:ruleEngine=DetectionOnly"
		SecRule ARGS "@rx attack|evil" "id:2,phase:2,deny,setvar:tx.blocking_inbound_anomaly_score=+5"`},
	{"off for some", `SecRule REQUEST_HEADERS:X-A "@streq 1" "id:1,phase:1,pass,ctl:ruleEngine=Off"
		SecRule ARGS "@rx attack|evil" "id:2,phase:2,deny,setvar:tx.blocking_inbound_anomaly_score=+5"`},
	{"actions with a condition in a chain", `SecRule REQUEST_METHOD "@streq POST" "id:1,phase:1,pass,nolog,ctl:ruleRemoveById=2,chain"
		SecRule REQUEST_HEADERS:X-A "@streq 1" "ctl:ruleRemoveById=3"
		SecRule ARGS "@rx attack" "id:2,phase:2,deny"
		SecRule ARGS "@rx evil" "id:3,phase:2,deny"`},
	{"updated targets", `SecRule ARGS|REQUEST_COOKIES "@rx attack" "id:1,phase:2,deny,tag:x,msg:'m'"
		SecRule ARGS "@rx evil" "id:2,phase:2,deny,tag:y"
		SecRuleUpdateTargetById 1 "!ARGS:a"
		SecRuleUpdateTargetByTag y "!ARGS:/^a/"
		SecRuleUpdateTargetById 2 "REQUEST_COOKIES"`},
	{"removed rules", `SecRule ARGS|REQUEST_COOKIES "@rx attack" "id:1,phase:2,deny,tag:x,msg:'m'"
		SecRule ARGS "@rx evil" "id:2,phase:2,deny,tag:y"
		SecRule ARGS "@rx select" "id:3,phase:2,deny"
		SecRuleRemoveById 3
		SecRuleRemoveByTag x`},
	{"libinjection", `SecRule ARGS|REQUEST_COOKIES "@detectSQLi" "id:1,phase:2,deny"
		SecRule ARGS|REQUEST_BODY|XML:/* "@detectXSS" "id:2,phase:2,deny"`},
	{"the target as it is and as it was sent", `SecRule REQUEST_URI "@rx attack" "id:1,phase:1,deny"
		SecRule REQUEST_URI_RAW "@rx evil" "id:2,phase:1,deny"
		SecRule REQUEST_URI|REQUEST_URI_RAW "@rx %41" "id:3,phase:1,deny"`},
	{"uploads", `SecRule FILES "@rx \.php$" "id:1,phase:2,deny"
		SecRule FILES_NAMES|MULTIPART_NAME "@streq b" "id:2,phase:2,deny"
		SecRule FILES_COMBINED_SIZE "@gt 50" "id:3,phase:2,deny"
		SecRule MULTIPART_PART_HEADERS "@rx (?i)image" "id:4,phase:2,deny"
		SecRule FILES_SIZES "@gt 40" "id:5,phase:2,deny"`},
	{"XML", `SecRule XML:/* "@rx attack" "id:1,phase:2,deny"
		SecRule XML://@* "@rx evil" "id:2,phase:2,deny"
		SecRule REQBODY_PROCESSOR "@streq XML" "id:3,phase:2,pass,setvar:tx.xml=1"
		SecRule TX:xml "@eq 1" "id:4,phase:2,deny,chain"
		SecRule &XML:/* "@gt 1"`},
	{"how the body is read", `SecRule REQBODY_PROCESSOR "!@rx ^(?:URLENCODED|MULTIPART|)$" "id:1,phase:2,deny"
		SecRule REQUEST_HEADERS:Content-Type "@rx json" "id:2,phase:1,pass,ctl:requestBodyProcessor=JSON"
		SecRule REQBODY_PROCESSOR "@streq MULTIPART" "id:3,phase:1,deny"`},
	{"values of numbers", `SecRule ARGS "@gt 10" "id:1,phase:2,deny,chain"
		SecRule MATCHED_VAR "@lt 100"`},
	{"the length of values", `SecRule ARGS|REQUEST_HEADERS:X-A "@gt 7" "id:1,phase:2,t:none,t:length,deny"`},
	{"answers", `SecRule RESPONSE_STATUS "@eq 500" "id:1,phase:3,pass,setvar:tx.e=1"
		SecRule RESPONSE_HEADERS:X-Powered-By "@rx php" "id:2,phase:3,deny,t:lowercase"
		SecRule RESPONSE_BODY "@rx attack" "id:3,phase:4,deny,chain"
		SecRule TX:e "@eq 1"
		SecRule ARGS:a "@rx evil" "id:4,phase:2,pass,setvar:tx.a=1"
		SecRule RESPONSE_BODY "@pm evil root" "id:5,phase:4,pass,setvar:tx.blocking_outbound_anomaly_score=+4,chain"
		SecRule TX:a "@eq 1" "setvar:tx.blocking_outbound_anomaly_score=+1"`},
	{"exceptions for the answer", `SecRule REQUEST_FILENAME "@beginsWith /admin" "id:1,phase:1,pass,ctl:ruleRemoveById=3"
		SecRule ARGS "@rx evil" "id:2,phase:2,pass,ctl:ruleRemoveTargetById=4;RESPONSE_HEADERS:x-powered-by"
		SecRule RESPONSE_BODY "@rx attack" "id:3,phase:4,deny"
		SecRule RESPONSE_HEADERS "@rx PHP" "id:4,phase:3,deny"
		SecRule RESPONSE_STATUS|&RESPONSE_HEADERS "@eq 2" "id:5,phase:2,pass,ctl:ruleRemoveById=3-4"`},
	{"what the request did seen from the answer", `SecRule ARGS "@rx evil" "id:1,phase:2,pass,setvar:'tx.bad=%{MATCHED_VAR}'"
		SecRule RESPONSE_BODY "@contains %{tx.bad}" "id:2,phase:4,deny,chain"
		SecRule &TX:bad "@eq 1"`},
	{"the highest severity", `SecRule ARGS "@rx attack" "id:1,phase:2,pass,severity:WARNING"
		SecRule REQUEST_COOKIES "@rx attack" "id:2,phase:2,pass,severity:CRITICAL"
		SecRule HIGHEST_SEVERITY "@le 2" "id:3,phase:2,deny"`},
	{"the rule's own words", `SecRule ARGS "@rx attack" "id:1,phase:2,pass,severity:WARNING,msg:'said',setvar:'tx.by=%{rule.id} %{rule.severity} %{rule.msg}'"
		SecRule TX:by "@streq 1 warning said" "id:2,phase:2,deny"`},
	{"a SecAction that counts", `SecAction "id:1,phase:1,pass,nolog,setvar:tx.n=2"
		SecRule ARGS "@rx attack" "id:2,phase:2,pass,setvar:tx.n=+1"
		SecAction "id:3,phase:2,pass,nolog,setvar:'tx.m=%{tx.n}'"
		SecRule TX:m "@gt 2" "id:4,phase:2,deny"`},
	{"a SecAction with a chain before it", `SecRule ARGS:a "@rx ." "id:1,phase:2,pass,chain,setvar:tx.half=1"
		SecRule ARGS:b "@rx attack" "setvar:tx.whole=1"
		SecRule TX:half "@eq 1" "id:2,phase:2,deny,chain"
		SecRule &TX:whole "@eq 0"`},
	{"a rule that denies unless", `SecRule REQUEST_HEADERS:X-A "!@streq 1" "id:1,phase:1,deny"`},
	{"a field that must be there", `SecRule &REQUEST_HEADERS:X-A "@eq 0" "id:1,phase:1,deny"`},
	{"an action whatever comes", `SecAction "id:1,phase:1,pass,setvar:tx.base=3"
		SecRule ARGS "@rx attack" "id:2,phase:2,pass,setvar:tx.blocking_inbound_anomaly_score=+%{tx.base}"`},
	{"what is not set because it was skipped", `SecRule REQUEST_FILENAME "@beginsWith /admin" "id:1,phase:1,pass,skipAfter:END"
		SecAction "id:2,phase:1,pass,setvar:tx.ok=1"
		SecMarker END
		SecRule &TX:ok "@eq 0" "id:3,phase:1,deny"`},
	{"what is not set because it was removed", `SecRule REQUEST_FILENAME "@beginsWith /admin" "id:1,phase:1,pass,ctl:ruleRemoveById=2"
		SecAction "id:2,phase:2,pass,setvar:tx.ok=1"
		SecRule &TX:ok "@eq 0" "id:3,phase:2,deny"`},
	{"upper case after lower case", `SecRule ARGS "@streq ATTACK" "id:1,phase:2,deny,t:lowercase,t:uppercase"
		SecRule REQUEST_COOKIES "!@rx ^[a-z0-9]*$" "id:2,phase:2,deny,t:cmdLine,t:uppercase,t:removeNulls"`},
	{"names made before what is rare", `SecRule ARGS_COMBINED_SIZE "@gt 8" "id:1,phase:2,pass,setvar:'tx.seen_%{MATCHED_VAR_NAME}=1',chain"
		SecRule ARGS "@rx attack"
		SecRule TX:/^seen_/ "@eq 1" "id:2,phase:2,deny"`},
	{"names made of values that are read by one of them", `SecRule REQUEST_BODY_LENGTH "@ge 0" "id:1,phase:2,pass,setvar:'tx.t_%{rule.id}=1',chain"
		SecRule ARGS "@rx attack"
		SecRule REQUEST_COOKIES "@rx ." "id:2,phase:2,deny,chain"
		SecRule TX:t_1 "@eq 1"`},
	{"what the first condition itself makes of names", `SecRule ARGS "@rx attack" "id:1,phase:2,deny,setvar:'tx.t_%{rule.id}=evil',chain"
		SecRule ARGS "@streq %{tx.t_1}"`},
	{"what grows with each value", `SecRule ARGS "@rx ." "id:1,phase:2,deny,setvar:'tx.w=a%{tx.w}',chain"
		SecRule TX:w "@beginsWith aa"`},
	{"all that matched against what did last", `SecRule REQUEST_COOKIES "@rx ." "id:1,phase:2,deny,setvar:'tx.w=a%{MATCHED_VAR}',chain"
		SecRule MATCHED_VARS "!@within %{tx.w}"`},
	{"a target removed from what is added up", `SecRule REQUEST_METHOD "@streq POST" "id:1,phase:1,pass,ctl:ruleRemoveTargetById=2;ARGS:a"
		SecRule ARGS "@rx ." "id:2,phase:2,deny,setvar:tx.n=+1,chain"
		SecRule TX:n "@eq 1"`},
	{"a target removed from what is counted after it", `SecRule REQUEST_METHOD "@streq POST" "id:1,phase:1,pass,ctl:ruleRemoveTargetById=2;ARGS:a"
		SecRule ARGS "@rx ." "id:2,phase:2,deny,chain"
		SecRule &MATCHED_VARS "@eq 1"`},
	{"a target removed by half a rule that is always evaluated", `SecRule ARGS:none "@rx attack" "id:1,phase:1,pass,setvar:tx.u=1"
		SecRule REQUEST_METHOD "@streq POST" "id:2,phase:1,pass,ctl:ruleRemoveTargetById=3;ARGS:a,chain"
		SecRule TX:u "@eq 1"
		SecRule &ARGS:a "@eq 0" "id:3,phase:2,deny,chain"
		SecRule ARGS|REQUEST_METHOD "@rx ."`},
	{"a counted target removed by an action", `SecAction "id:1,phase:1,pass,ctl:ruleRemoveTargetById=2;ARGS:a,setvar:'tx.x=%{REQUEST_METHOD}'"
		SecRule &ARGS:a "@eq 0" "id:2,phase:2,deny,chain"
		SecRule REQUEST_METHOD "@streq POST"`},
	{"the engine switched off by half a rule that is always evaluated", `SecRule ARGS:a "@rx attack" "id:1,phase:1,pass,setvar:tx.u=1"
		SecRule REQUEST_METHOD "@streq POST" "id:2,phase:1,pass,ctl:ruleEngine=Off,chain"
		SecRule TX:u "@eq 2"
		SecAction "id:3,phase:2,pass,setvar:tx.blocking_inbound_anomaly_score=+5"`},
	{"TX removed", `SecRule ARGS "@rx attack" "id:1,phase:1,pass,ctl:ruleRemoveTargetById=3;TX:u"
		SecAction "id:2,phase:2,pass,setvar:tx.u=1"
		SecRule &TX:u "@eq 0" "id:3,phase:2,deny"`},
	{"TX removed from what is set for every message", `SecAction "id:1,phase:1,pass,setvar:tx.base=3"
		SecRule ARGS "@rx attack" "id:2,phase:1,pass,ctl:ruleRemoveTargetById=3;TX:base"
		SecRule TX:base "@eq 3" "id:3,phase:2,pass,setvar:tx.ok=1"
		SecRule &TX:ok "@eq 0" "id:4,phase:2,deny"`},
	{"TX removed that is made of what matched", `SecRule ARGS_NAMES "@rx ." "id:1,phase:2,pass,setvar:'tx.n_%{MATCHED_VAR}=+1'"
		SecRule REQUEST_METHOD "@streq POST" "id:2,phase:1,pass,ctl:ruleRemoveTargetById=3;TX:n_a"
		SecRule TX:/^n_/ "@gt 1" "id:3,phase:2,deny"`},
	{"MATCHED_VARS removed", `SecRule REQUEST_METHOD "@streq POST" "id:1,phase:1,pass,ctl:ruleRemoveTargetById=2;MATCHED_VARS:ARGS:a"
		SecRule ARGS "@rx attack" "id:2,phase:2,deny,chain"
		SecRule MATCHED_VARS "@rx evil"`},
	{"what half a constant rule removes", `SecRule &TX:none "@eq 0" "id:1,phase:1,pass,ctl:ruleRemoveById=2,chain"
		SecRule &TX:none "@eq 1"
		SecRule ARGS "@rx attack" "id:2,phase:2,deny"
		SecRule ARGS "@rx evil" "id:3,phase:2,deny"`},
	{"what half a constant rule switches", `SecRule &TX:none "@eq 0" "id:1,phase:1,pass,ctl:ruleEngine=DetectionOnly,chain"
		SecRule &TX:none "@eq 1"
		SecRule ARGS "@rx attack" "id:2,phase:2,deny,setvar:tx.blocking_inbound_anomaly_score=+5"`},
	{"a value of TX in a message", `SecRule ARGS "@rx attack" "id:1,phase:2,pass,setvar:tx.u=x"
		SecRule ARGS "@rx evil" "id:2,phase:2,deny,msg:'said %{tx.u}'"`},
	{"the rule's own message, as it was before", `SecRule ARGS "@rx attack" "id:1,phase:2,pass,msg:'%{tx.q}',setvar:tx.q=evil,setvar:'tx.w=%{rule.msg}'"
		SecAction "id:2,phase:2,pass,msg:'%{ARGS.a}',setvar:'tx.v=%{rule.msg}'"
		SecRule TX:w|TX:v "@rx evil" "id:3,phase:2,deny"`},
	{"a severity that is not given", `SecRule ARGS "@rx attack" "id:1,phase:2,pass,setvar:'tx.v=%{rule.severity}'"
		SecRule ARGS "@rx evil" "id:2,phase:2,pass,severity:ERROR,chain"
		SecRule MATCHED_VAR "@rx a" "setvar:'tx.w=%{rule.severity}'"
		SecRule TX:v|TX:w "@streq unknown" "id:3,phase:2,deny"`},
	{"the severity of a rule that always fires", `SecRule &TX:none "@eq 0" "id:1,phase:2,pass,severity:CRITICAL"
		SecRule HIGHEST_SEVERITY "@le 2" "id:2,phase:2,deny,chain"
		SecRule ARGS "@rx attack"`},
	{"the highest severity, noted", `SecRule ARGS "@rx attack" "id:1,phase:2,pass,severity:WARNING"
		SecRule REQUEST_COOKIES "@rx attack" "id:2,phase:2,pass,severity:CRITICAL"
		SecAction "id:3,phase:2,pass,setvar:'tx.worst=%{HIGHEST_SEVERITY}'"
		SecRule TX:worst "@le 2" "id:4,phase:2,deny"`},
	{"what an action matches", `SecAction "id:1,phase:2,pass,setvar:'tx.w=%{MATCHED_VAR_NAME}'"
		SecRule TX:w "@streq UNKNOWN" "id:2,phase:2,deny,chain"
		SecRule ARGS "@rx attack"`},
	{"what is skipped unless something matches", `SecRule ARGS "@rx attack" "id:1,phase:2,pass,setvar:tx.on=1"
		SecRule &TX:on "@eq 0" "id:2,phase:2,pass,skipAfter:END"
		SecAction "id:3,phase:2,pass,setvar:tx.x=1"
		SecRule &TX:none "@eq 1" "id:4,phase:2,deny"
		SecMarker END
		SecRule TX:x "@eq 1" "id:5,phase:2,deny"`},
	{"a denial that is skipped unless something matches", `SecRule ARGS "@rx attack" "id:1,phase:2,pass,setvar:tx.on=1"
		SecRule &TX:on "@eq 0" "id:2,phase:2,pass,skipAfter:END"
		SecRule &TX:none "@eq 0" "id:3,phase:2,deny"
		SecMarker END`},
	{"a skip that is removed", `SecRule ARGS "@rx attack" "id:1,phase:2,pass,ctl:ruleRemoveById=3"
		SecRule ARGS "@rx evil" "id:2,phase:2,pass,setvar:tx.on=1"
		SecRule &TX:on "@eq 0" "id:3,phase:2,pass,skipAfter:END"
		SecAction "id:4,phase:2,pass,setvar:tx.blocking_inbound_anomaly_score=+5"
		SecMarker END`},
	{"what is skipped of an answer unless something matches", `SecRule ARGS "@rx attack" "id:1,phase:2,pass,setvar:tx.on=1"
		SecRule &TX:on "@eq 0" "id:2,phase:4,pass,skipAfter:END"
		SecAction "id:3,phase:4,pass,setvar:tx.blocking_outbound_anomaly_score=+4"
		SecMarker END`},
	{"how the body is read, by half a rule and by TX", `SecAction "id:1,phase:1,pass,setvar:tx.enforce=1"
		SecRule TX:enforce "@eq 1" "id:2,phase:1,pass,chain"
		SecRule REQBODY_PROCESSOR "@rx ^$" "ctl:requestBodyProcessor=URLENCODED"
		SecAction "id:6,phase:2,pass,setvar:tx.enforce=2"
		SecRule ARGS "@rx evil" "id:3,phase:1,pass,setvar:tx.none=1,ctl:requestBodyProcessor=JSON,chain"
		SecRule ARGS "@rx none"
		SecRule REQBODY_PROCESSOR "@streq URLENCODED" "id:4,phase:2,pass,setvar:tx.blocking_inbound_anomaly_score=+1"
		SecRule REQBODY_PROCESSOR "@streq JSON" "id:5,phase:2,pass,setvar:tx.blocking_inbound_anomaly_score=+2"`},
	{"an answer without a body", `SecRule RESPONSE_CONTENT_LENGTH "@rx ^0$" "id:1,phase:4,deny"`},
	{"names that the answer makes once more", `SecRule ARGS "@rx ." "id:1,phase:2,pass,setvar:'tx.seen_%{MATCHED_VAR}=1'"
		SecRule ARGS "@rx evil" "id:2,phase:3,pass,setvar:'tx.seen_%{MATCHED_VAR}=+1',chain"
		SecRule RESPONSE_STATUS "@eq 500"
		SecRule TX:/^seen_/ "@eq 2" "id:3,phase:3,deny"`},
	{"an answer's value after another request", `SecAction "id:1,phase:1,pass,setvar:tx.u=0"
		SecRule ARGS "@rx evil" "id:2,phase:2,pass,setvar:tx.u=1"
		SecRule RESPONSE_HEADERS "@rx PHP" "id:3,phase:3,deny,chain"
		SecRule TX:u "@eq 0"`},
	{"files of the set-up", `SecRule REMOTE_ADDR "@ipMatch 192.0.2.0/24" "id:1,phase:1,pass,ctl:ruleRemoveTargetById=2;ARGS:a"
		SecRule ARGS "@rx attack" "id:2,phase:2,deny"`},
}

func TestFeatures(t *testing.T) {
	for _, f := range features {
		t.Run(f.name, func(t *testing.T) {
			p, err := newPair(alone(on + f.rules)...)
			if err != nil {
				t.Fatal(err)
			}
			n := 400 // few messages meet all that some rules ask for
			if full {
				n = 3000
			}
			s := p.compare(t, n, func(i int) named {
				c := small(rand.New(rand.NewPCG(uint64(i), 7)))
				c.id = fmt.Sprintf("%s %d", strings.ReplaceAll(f.rules, "\t", ""), i)
				return c
			})
			if yes := s.judged.Load(); yes == 0 || yes == s.n.Load() {
				t.Errorf("the rules say yes to %d of %d: the comparison has no power", yes, s.n.Load())
			}
		})
	}
}

// small makes messages of few words, so that rules about the same few words
// often match.
func small(r *rand.Rand) named {
	m := &message.Request{Client: "192.0.2.1", Port: 40000, Method: pick(r, "GET", "GET", "POST", "POST", "PUT"), Proto: "HTTP/1.1", Host: "example.com"}
	m.Header = []message.Pair{{Name: "Host", Value: "example.com"}}
	m.URI = pick(r, "/", "/admin/x.php", "/api/b", "/attack") + pick(r, "", "", "?"+fields(r), "?"+fields(r))
	for range r.IntN(3) {
		m.Header = append(m.Header, message.Pair{Name: pick(r, "X-A", "x-b", "X-B", "X-C", "User-Agent"), Value: word(r)})
	}
	if r.IntN(2) == 0 {
		m.Header = append(m.Header, message.Pair{Name: "Cookie", Value: name(r) + "=" + word(r) + pick(r, "", "; x="+word(r))})
	}
	if m.Method != "GET" {
		smallBody(r, m)
	}
	c := named{request: m}
	if r.IntN(2) == 0 {
		c.answer = &message.Response{
			Status: []int{200, 404, 500}[r.IntN(3)], Proto: "HTTP/1.1",
			Header: []message.Pair{{Name: "Content-Type", Value: pick(r, "text/html", "text/html; charset=utf-8", "application/json", "image/png")}},
		}
		if r.IntN(3) == 0 {
			c.answer.Header = append(c.answer.Header, message.Pair{Name: "X-Powered-By", Value: pick(r, "PHP/8", "go")})
		}
		// Coraza does not look into pictures, whatever it is given.
		if c.answer.Header[0].Value != "image/png" && r.IntN(4) > 0 {
			c.answer.Body = []byte("<p>" + word(r) + " " + word(r) + " root</p>")
		}
	}
	return c
}

func smallBody(r *rand.Rand, m *message.Request) {
	b := &m.Body
	typed := func(k message.Kind, media string) {
		b.Kind = k
		m.Header = append(m.Header, message.Pair{Name: "Content-Type", Value: media})
	}
	switch r.IntN(6) {
	case 0, 1:
		typed(message.Form, "application/x-www-form-urlencoded")
		b.Text = fields(r)
		for f := range strings.SplitSeq(b.Text, "&") {
			k, v, _ := strings.Cut(f, "=")
			b.Args = append(b.Args, message.Pair{Name: k, Value: v})
		}
	case 2:
		typed(message.JSON, "application/json")
		for range r.IntN(4) {
			b.Args = append(b.Args, message.Pair{Name: pick(r, "json.a", "json.b", "a"), Value: word(r)})
		}
	case 3:
		typed(message.XML, "text/xml")
		for range r.IntN(3) {
			b.Attrs = append(b.Attrs, word(r))
			b.Texts = append(b.Texts, word(r))
		}
	case 4:
		typed(message.Multipart, "multipart/form-data; boundary=xx")
		for range r.IntN(4) {
			p := message.Part{Name: name(r), Size: int64(r.IntN(60))}
			p.Header = []message.Pair{{Name: "Content-Disposition", Value: "form-data; name=" + p.Name}}
			if p.File = r.IntN(2) == 0; p.File {
				p.FileNames = []string{pick(r, "a.php", "b.png", "attack")}
				p.Header = append(p.Header, message.Pair{Name: "Content-Type", Value: pick(r, "image/png", "text/plain")})
			} else {
				b.Args = append(b.Args, message.Pair{Name: p.Name, Value: word(r)})
			}
			b.Parts = append(b.Parts, p)
		}
	}
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

func name(r *rand.Rand) string { return pick(r, "a", "a", "b", "b", "A", "ab", "t", "x") }

func word(r *rand.Rand) string {
	return pick(r, "", "1", "2", "7", "12", "attack", "attack", "ATTACK", "a%74tack", "evil", "evil 1", "select 1", "a' or 1=1--", "<script>", "attack and evil", "%41", "x", "a=b")
}

func fields(r *rand.Rand) string {
	var list []string
	for range 1 + r.IntN(3) {
		list = append(list, name(r)+"="+strings.NewReplacer(" ", "+", "&", "%26").Replace(word(r)))
	}
	return strings.Join(list, "&")
}
