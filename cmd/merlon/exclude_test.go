package main

import (
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/waf"
)

// Only what turns WAF rules off for exactly what the request had is put into a
// file without a person's hand.
func TestExclusions(t *testing.T) {
	for _, c := range []struct{ name, remedy, want string }{
		{"one", "waf:\n  exclude:\n    - {rule: 942100, target: args, name: q}", ""},
		{"several", "waf:\n  exclude:\n    - {rule: [1, 2], target: args, name: q}\n    - {rule: 3}", ""},
		{"nothing", "", "no setting is known that would let exactly this pass; merlon why ID tells more"},
		{"another setting of the WAF", "waf:\n  content_types: [a/b]", "is not an exclusion"},
		{"another setting beside it", "waf:\n  limit: 2MiB\n  exclude:\n    - {rule: 1}", "is not an exclusion"},
		{"another guard's", "limit:\n  burst: 400", "is not an exclusion"},
		{"another guard's beside it", "csrf: {}\nwaf:\n  exclude:\n    - {rule: 1}", "is not an exclusion"},
		{"a guard that is off", "off: [csrf]", "is not an exclusion"},
		{"a name for any", "waf:\n  exclude:\n    - {rule: 1, target: args, name: \"a*\"}", "would stand for others, too"},
		{"a name that was not recorded", "waf:\n  exclude:\n    - {rule: 1, target: args, name: \"[redacted]\"}", "is not recorded as a whole"},
		{"cut off", "waf:\n  exclude:\n    - {rule: 1}\n    - {rule: 2, target: args, na…", "is not recorded as a whole"},
		{"cut off where it is YAML", "waf:\n  exclude:\n    - {rule: 1}\n    # …", "is not recorded as a whole"},
		{"no configuration", "ask somebody", "is not recorded as a whole"},
	} {
		list, err := exclusions(ledger.Event{ID: "ID", Kind: ledger.Refusal, Guard: "waf", Site: "a", Route: "/r", Remedy: c.remedy})
		if c.want == "" {
			if err != nil || len(list) == 0 {
				t.Errorf("%s: %v", c.name, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	for remedy, want := range map[string]bool{
		"waf:\n  shadow:\n    exclude:\n      - {rule: 1}":                  true,
		"waf:\n  exclude:\n    - {rule: 1}":                                 false,
		"waf:\n  paranoia: 1\n  shadow:\n    exclude:\n      - {rule: 1}":   false,
		"waf:\n  shadow:\n    paranoia: 1\n    exclude:\n      - {rule: 1}": false,
	} {
		if list, err := exclusions(ledger.Event{Kind: ledger.Shadow, Guard: "waf", Remedy: remedy}); (err == nil) != want || len(list) > 0 != want {
			t.Errorf("a shadow's remedy is taken: %v\n%s", err, remedy)
		}
	}
	if _, err := exclusions(ledger.Event{ID: "ID", Kind: ledger.Access}); err == nil || !strings.Contains(err.Error(), "was not refused") {
		t.Error(err)
	}
}

func TestExclusionsInWords(t *testing.T) {
	for want, x := range map[string]waf.Exclude{
		"rule 1: off": {Rule: waf.RuleIDs{1}},
		`rules 1, 2: off for cookies named "a b"`:              {Rule: waf.RuleIDs{1, 2}, Target: waf.Cookies, Name: "a b"},
		"rule 1: off for args, whatever their names":           {Rule: waf.RuleIDs{1}, Target: waf.Args},
		`the rules tagged attack-sqli: off for args named "q"`: {Tag: "attack-sqli", Target: waf.Args, Name: "q"},
	} {
		if got := inWords(x); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
