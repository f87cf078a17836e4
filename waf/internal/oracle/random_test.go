package oracle_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// Rules put together at random, of everything that rules can say.
func TestRandomRules(t *testing.T) {
	sets, refused, shown := sample(4000, 250), 0, 0
	total := &tally{}
	for i := range sets {
		text := randomRules(rand.New(rand.NewPCG(uint64(i), 99)))
		diff, err := compareRules(text, uint64(i), total)
		var e *seclang.Error
		switch {
		case errors.As(err, &e):
			refused++
		case err != nil:
			t.Fatalf("%v\n%s", err, text)
		case diff != "":
			text, diff = shrink(text, diff, uint64(i))
			t.Errorf("set %d:\n%s%s", i, text, diff)
			if shown++; shown == 12 {
				t.Fatal("there are more")
			}
		}
	}
	t.Logf("%d sets, %d refused; %s", sets, refused, total)
	if refused*4 > sets {
		t.Error("so many sets are refused that the comparison has no power")
	}
}

// compareRules compares messages under a set of rules, and tells the first
// difference.
func compareRules(text string, seed uint64, s *tally) (string, error) {
	p, err := newPair(alone(on + text)...)
	if err != nil {
		return "", err
	}
	r := rand.New(rand.NewPCG(seed, 100))
	for range 40 {
		c := small(r)
		together(c.request)
		if diff := p.one(s, c); diff != "" {
			return diff, nil
		}
	}
	return "", nil
}

// together puts values under one name side by side, as Coraza does: rules made at
// random may string them together.
func together(m *message.Request) {
	byName(m.Header, func(h message.Pair) string { return h.Name })
	byName(m.Body.Args, func(a message.Pair) string { return a.Name })
	byName(m.Body.Parts, func(p message.Part) string { return p.Name })
	if path, query, ok := strings.Cut(m.URI, "?"); ok {
		list := strings.Split(query, "&")
		byName(list, func(field string) string {
			name, _, _ := strings.Cut(field, "=")
			return name
		})
		m.URI = path + "?" + strings.Join(list, "&")
	}
}

func byName[T any](list []T, name func(T) string) {
	first := map[string]int{}
	for i, v := range list {
		if n := strings.ToLower(name(v)); first[n] == 0 {
			first[n] = i + 1
		}
	}
	slices.SortStableFunc(list, func(a, b T) int { return first[strings.ToLower(name(a))] - first[strings.ToLower(name(b))] })
}

// shrink leaves out rules as long as there still is a difference.
func shrink(text, diff string, seed uint64) (string, string) {
	rules := strings.SplitAfter(strings.ReplaceAll(text, "\nSecRule TX:w", "\n\nSecRule TX:w"), "\n\n")
	for i := 0; i < len(rules); {
		fewer := slices.Delete(slices.Clone(rules), i, i+1)
		if d, err := compareRules(strings.Join(fewer, ""), seed, &tally{}); err == nil && d != "" {
			rules, diff = fewer, d
		} else {
			i++
		}
	}
	return strings.Join(rules, ""), diff
}

func randomRules(r *rand.Rand) string {
	var b strings.Builder
	n := 2 + r.IntN(6)
	skips := r.IntN(2) == 0 // Coraza does not count rules that a ctl has removed
	for id := 1; id <= n; id++ {
		phase := []int{1, 2, 2, 2, 3, 4}[r.IntN(6)]
		if r.IntN(12) == 0 {
			fmt.Fprintf(&b, "SecAction \"id:%d,phase:%d,pass,nolog%s\"\n", id, phase, effects(r, false, !skips, n))
			continue
		}
		said := ""
		links := []int{1, 1, 1, 2, 2, 3}[r.IntN(6)]
		for i := range links {
			capturing := r.IntN(4) == 0
			op := operatorFor(r)
			if capturing {
				op = pick(r, `@rx (a)(t+)ack`, `@rx ^(\d+)$`, `@rx (\w)(\w)?`, `@pm attack evil 1`, `@rx (?i)(ev|at)(\w*)`)
			}
			if i == 0 && strings.Contains(op, "MATCHED_") {
				op = "@rx ^evil|1"
			}
			head := ""
			if i == 0 {
				head = fmt.Sprintf("id:%d,phase:%d,%s", id, phase, disruptive(r, skips))
				said = pick(r, "", "", ",severity:CRITICAL", ",severity:WARNING", ",tag:x", ",tag:x/y,tag:z", ",msg:'%{MATCHED_VAR_NAME} %{rule.id}'", ",msg:'plain'",
					",msg:'%{tx.u} %{tx.w}'", ",msg:'%{ARGS.a} %{MATCHED_VAR}'")
				head += said
			} else {
				head = "t:none"
			}
			if capturing {
				head += ",capture"
			}
			of := variables(r, i > 0, capturing)
			if how := transformations(r); !strings.Contains(of, "MATCHED_") || strings.Contains(how, "multiMatch") {
				head += how // see section 6 of docs/waf.md
			}
			then := effects(r, capturing, !skips, n)
			if !strings.Contains(said, "tx.u") && !strings.Contains(said, "plain") { // others are refused
				then = strings.ReplaceAll(then, "%{rule.msg}", "%{rule.id}")
			}
			head += then
			if i < links-1 {
				head += ",chain"
			}
			fmt.Fprintf(&b, "SecRule %s \"%s\" \"%s\"\n", of, op, head)
		}
		if r.IntN(6) == 0 {
			fmt.Fprintf(&b, "SecMarker M%d\n", r.IntN(2))
		}
		b.WriteString("\n")
	}
	b.WriteString("SecMarker M0\nSecMarker M1\n\n")
	for range r.IntN(3) {
		fmt.Fprintf(&b, pick(r, "SecRuleUpdateTargetById %d \"!ARGS:a\"\n\n", "SecRuleUpdateTargetById %d \"!ARGS:/^a/\"\n", "SecRuleUpdateTargetById %d \"!REQUEST_COOKIES\"\n"), 1+r.IntN(n))
	}
	if r.IntN(6) == 0 {
		b.WriteString("SecRule HIGHEST_SEVERITY \"@le 3\" \"id:92,phase:2,deny\"\n\n")
	}
	fmt.Fprintf(&b, "SecRule TX:u \"@ge 2\" \"id:90,phase:2,pass,setvar:'tx.blocking_inbound_anomaly_score=+%%{tx.u}'\"\n")
	fmt.Fprintf(&b, "SecRule TX:w \"@rx ^at\" \"id:91,phase:2,deny\"\n")
	return b.String()
}

func disruptive(r *rand.Rand, skips bool) string {
	if r.IntN(12) == 0 {
		return pick(r, "allow", "allow:phase", "allow:request", "drop", "block")
	}
	switch r.IntN(10) {
	case 0:
		return "deny,status:406"
	case 1:
		if skips {
			return fmt.Sprintf("pass,skip:%d", 1+r.IntN(2))
		}
	case 2:
		return fmt.Sprintf("pass,skipAfter:M%d", r.IntN(2))
	case 3:
		return "deny"
	}
	return "pass"
}

func variables(r *rand.Rand, chained, capturing bool) string {
	all := []string{
		"ARGS", "ARGS", "ARGS", "ARGS:a", "ARGS:/^a/", "ARGS|!ARGS:b", "ARGS|!ARGS:/^[ab]$/", "&ARGS", "&ARGS:a", "&ARGS_GET:/a/", "ARGS_NAMES",
		"ARGS_NAMES:a", "ARGS_GET", "ARGS_POST", "ARGS_GET_NAMES", "ARGS_POST_NAMES:b", "REQUEST_HEADERS", "REQUEST_HEADERS:X-A", "&REQUEST_HEADERS:X-B",
		"REQUEST_HEADERS|!REQUEST_HEADERS:Host", "REQUEST_HEADERS_NAMES", "REQUEST_COOKIES", "REQUEST_COOKIES:a", "REQUEST_COOKIES|!REQUEST_COOKIES:/x/",
		"REQUEST_COOKIES_NAMES", "REQUEST_URI", "REQUEST_URI_RAW", "REQUEST_FILENAME", "REQUEST_BASENAME", "QUERY_STRING", "REQUEST_METHOD", "REQUEST_BODY", "REQUEST_LINE",
		"XML:/*", "XML://@*", "&XML:/*", "FILES", "FILES_NAMES", "FILES_SIZES", "FILES_COMBINED_SIZE", "MULTIPART_PART_HEADERS", "MULTIPART_FILENAME",
		"MULTIPART_NAME", "ARGS_COMBINED_SIZE", "TX:u", "TX:w", "TX:/^t/", "TX:/^seen_/", "&TX:u", "&TX:/^seen_/", "REQBODY_PROCESSOR", "REMOTE_ADDR",
		"RESPONSE_BODY", "RESPONSE_STATUS", "RESPONSE_HEADERS", "RESPONSE_CONTENT_TYPE", "REQUEST_BODY_LENGTH", "REQUEST_PROTOCOL", "SERVER_NAME",
		"TX:v", "&TX:w", "TX:/^seen_args/", "TX:/^seen_args:a/", "&TX:/^seen_args/", "TX:/u/", "TX:/w|v/", "&TX:/^[uvw]$/", "TX:u|ARGS", "ARGS|TX:w", "&ARGS_NAMES",
		"&REQUEST_COOKIES:x", "&MULTIPART_NAME", "&FILES", "&RESPONSE_HEADERS", "RESPONSE_HEADERS:/^x/", "RESPONSE_CONTENT_LENGTH", "RESPONSE_HEADERS_NAMES",
	}
	if chained {
		all = append(all, "MATCHED_VAR", "MATCHED_VARS", "MATCHED_VARS_NAMES", "MATCHED_VAR_NAME", "&MATCHED_VARS", "MATCHED_VARS|ARGS", "MATCHED_VAR", "MATCHED_VARS",
			"MATCHED_VARS_NAMES", "MATCHED_VAR_NAME", "TX:u|MATCHED_VAR", "MATCHED_VARS:/ARGS/", "MATCHED_VARS|REQUEST_METHOD", "TX:u", "TX:w", "TX:/^t/", "TX:/^seen_/", "TX:v")
	}
	s := all[r.IntN(len(all))]
	for r.IntN(3) == 0 && !strings.Contains(s, "!") {
		s += "|" + strings.Split(all[r.IntN(len(all))], "|")[0]
	}
	return s
}

func operatorFor(r *rand.Rand) string {
	return pick(r, "@rx attack", "@rx attack", "@rx ^$", "@rx (?i)^at|il$", "!@rx ^[a-z]*$", "!@rx attack", "@contains tta", "@streq attack", "@streq evil", "!@streq 1",
		"@eq 1", "@eq 0", "!@eq 0", "@gt 1", "@lt 3", "@ge 2", "@le 2", "@pm attack evil", "@within attack evil 1", "!@within attack evil 1", "@beginsWith a",
		"@endsWith k", "@unconditionalMatch", "@noMatch", "@validateByteRange 32-126", "@detectSQLi", "@detectXSS", "@ipMatch 192.0.2.0/24", "@streq %{TX.u}",
		"@contains %{ARGS.a}", "@eq %{TX.u}", "@within %{tx.w} 7", "@streq %{REQUEST_HEADERS.x-a}", "@streq %{MATCHED_VAR}", "@rx ^(?:1|2|12)$", "@rx o", "@rx .", "@rx .",
		"@rx [A-Z]", "@streq ATTACK", "@contains %{tx.u}", "@streq %{tx.w}", "@eq %{tx.v}", "@beginsWith %{tx.w}", "@streq %{MATCHED_VAR_NAME}", "@streq %{ARGS_COMBINED_SIZE}")
}

func transformations(r *rand.Rand) string {
	s := pick(r, "", "", ",t:none", ",multiMatch", ",multiMatch,t:none")
	for r.IntN(2) == 0 {
		s += ",t:" + pick(r, "lowercase", "urlDecodeUni", "removeWhitespace", "compressWhitespace", "htmlEntityDecode", "length", "replaceComments", "normalizePath",
			"cmdLine", "jsDecode", "trim", "urlDecode", "base64Decode", "hexEncode", "uppercase")
	}
	return s
}

func effects(r *rand.Rand, capturing, removes bool, rules int) string {
	s := ""
	for r.IntN(2) == 0 {
		switch r.IntN(4) {
		case 0, 1:
			s += ",setvar:" + pick(r, "tx.u=1", "tx.u=+1", "tx.u=+2", "tx.u=-1", "'tx.u=+%{tx.v}'", "tx.v=3", "'tx.w=%{MATCHED_VAR}'", "'tx.seen_%{MATCHED_VAR_NAME}=%{MATCHED_VAR}'",
				"tx.blocking_inbound_anomaly_score=+5", "'tx.t_%{rule.id}=1'", "'tx.w=%{tx.w}a'", "'tx.v=%{ARGS.b}'", "tx.t1=attack", "tx.blocking_outbound_anomaly_score=+1",
				"'tx.w=a%{tx.w}'", "'tx.u=-%{tx.v}'", "'tx.v=+%{tx.u}'", "'tx.%{MATCHED_VAR}=1'", "'tx.seen_%{tx.u}=1'", "'tx.seen_args:a=1'", "'tx.seen_%{MATCHED_VAR}=+1'",
				"'tx.w=%{REQUEST_METHOD}'", "'tx.w=%{rule.severity}'", "'tx.w=%{rule.msg}'", "'tx.w=%{MATCHED_VAR_NAME}'")
		case 2:
			if capturing {
				s += ",setvar:" + pick(r, "'tx.w=%{tx.1}'", "'tx.w=%{TX.0}'", "'tx.u=+%{tx.1}'")
			}
		case 3:
			if r.IntN(2) == 0 {
				id := 1 + r.IntN(rules)
				removal := pick(r, fmt.Sprintf("ruleRemoveById=%d", id), fmt.Sprintf("ruleRemoveById=%d-%d", id, id+1), "ruleRemoveByTag=x")
				if !removes {
					removal = "ruleEngine=DetectionOnly"
				}
				byMsg := pick(r, "ruleRemoveByMsg=plain", "ruleRemoveTargetByMsg=plain;ARGS")
				if !removes {
					byMsg = "ruleRemoveTargetByMsg=plain;ARGS"
				}
				s += ",ctl:" + pick(r, byMsg, fmt.Sprintf("ruleRemoveTargetById=%d;REQUEST_COOKIES", id), fmt.Sprintf("ruleRemoveTargetById=%d;ARGS:/^b/", id),
					fmt.Sprintf("ruleRemoveTargetById=%d;ARGS_NAMES", id), fmt.Sprintf("ruleRemoveTargetById=%d;TX:u", id), fmt.Sprintf("ruleRemoveTargetById=%d;TX", id),
					fmt.Sprintf("ruleRemoveTargetById=%d;MATCHED_VARS", id), "ruleEngine=On", "requestBodyProcessor=JSON", removal, removal, fmt.Sprintf("ruleRemoveTargetById=%d;ARGS:a", id),
					fmt.Sprintf("ruleRemoveTargetById=%d;ARGS", id), "ruleRemoveTargetByTag=x;ARGS:/^a/", "ruleRemoveTargetByTag=z;REQUEST_COOKIES:a", "ruleEngine=DetectionOnly", "ruleEngine=Off",
					fmt.Sprintf("ruleRemoveTargetById=%d;REQUEST_HEADERS:X-A", id), fmt.Sprintf("ruleRemoveTargetById=%d;XML:/*", id))
			}
		}
	}
	return s
}
