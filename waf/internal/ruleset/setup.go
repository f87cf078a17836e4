package ruleset

import (
	"fmt"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/body"
)

// ResponseLimit is how much of an answer is judged, as Coraza recommends.
const ResponseLimit = 512 << 10

// Rules of the set-up that deny on their own account.
const (
	QueryArguments = 99004
	BodyArguments  = 99005
	BadURI         = 99006
)

// A Setup is what the rules of a guard depend on beside their files.
type Setup struct {
	Paranoia, Threshold, OutboundThreshold int
	Arguments                              int   // values of a query, and of a body
	Limit                                  int64 // of a body, in bytes
	Types                                  *body.Types
}

// own is what errors call the texts that are not files.
const own = "Merlon's own rules"

// Around returns the rules of a guard without its exclusions: the set-up, the
// operator's files around the CRS, and what none of them may change.
func (s Setup) Around(before, after []Source) []Source {
	return slices.Concat(
		[]Source{{Name: own, Text: s.before()}}, before,
		[]Source{{Name: own, Text: "Include @owasp_crs/*.conf"}}, after,
		[]Source{{Name: own, Text: s.enforced()}},
	)
}

// before is read before all other rules.
func (s Setup) before() string {
	set := func(name string, v any) string { return fmt.Sprintf(",setvar:'tx.%s=%v'", name, v) }
	withType := func(id int, pattern, ctl string) string {
		return fmt.Sprintf("SecRule REQUEST_HEADERS:Content-Type \"@rx %s\" \"id:%d,phase:1,pass,nolog,t:none,t:lowercase,ctl:%s\"\n", pattern, id, ctl)
	}
	var known strings.Builder
	for _, cs := range body.Charsets() {
		known.WriteString("|" + cs + "| ")
	}
	return "Include @coraza.conf-recommended\n" +
		fmt.Sprintf("SecArgumentsLimit %d\n", s.Arguments) +
		"SecAction \"id:99000,phase:1,pass,nolog,t:none" +
		set("blocking_paranoia_level", s.Paranoia) +
		set("inbound_anomaly_score_threshold", s.Threshold) +
		set("outbound_anomaly_score_threshold", s.OutboundThreshold) +
		set("allowed_methods", "GET HEAD POST OPTIONS PUT PATCH DELETE") +
		set("allowed_request_content_type_charset", strings.TrimSpace(known.String())) +
		// Without content-encoding, which Merlon decodes, and expect, which
		// net/http answers.
		set("restricted_headers_basic", "/proxy/ /lock-token/ /content-range/ /if/ /x-http-method-override/ /x-http-method/ /x-method-override/ /x-middleware-subrequest/") +
		"\"\n" +
		withType(99001, s.Types.Pattern(), "ruleRemoveById=920420") +
		withType(99002, `^(?:application/csp-report|[^;\s/]+/(?:[^;\s/]*\+)?json)\s*(?:;|$)`, "requestBodyProcessor=JSON") +
		withType(99003, `^[^;\s/]+/(?:[^;\s/]*\+)?xml\s*(?:;|$)`, "requestBodyProcessor=XML") +
		// Coraza's own screen before regular expressions is faster, but
		// misses matches (of rule 942220, for one).
		"SecRxPreFilter Off\n" +
		"Include @crs-setup.conf.example\n" +
		ownRules
}

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
func (s Setup) enforced() string {
	return "SecRuleEngine On\nSecAuditEngine Off\nSecRequestBodyAccess On\n" +
		// Merlon bounds what it reads; this only keeps Coraza from bounding
		// it a second time, or from writing it to disk.
		fmt.Sprintf("SecRequestBodyLimit %d\nSecRequestBodyInMemoryLimit %d\n", 2*s.Limit, 2*s.Limit) +
		fmt.Sprintf("SecResponseBodyAccess On\nSecResponseBodyLimit %d\nSecResponseBodyLimitAction ProcessPartial\n", ResponseLimit)
}
