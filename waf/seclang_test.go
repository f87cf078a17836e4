package waf_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/merlontest"
	"github.com/merlon-dev/merlon/waf"
)

func rulesFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOwnRules(t *testing.T) {
	before := rulesFile(t, "own.conf", `# a virtual patch
SecRule REQUEST_URI "@beginsWith /legacy" \
    "id:1000,phase:1,\
    deny,status:404,msg:'closed'"

SecRule REQUEST_URI "@beginsWith /editor" "id:1001,phase:1,pass,nolog,ctl:ruleRemoveTargetByTag=attack-xss;ARGS:html"
SecRule ARGS:colour "@pmFromFile words.data" "id:1002,phase:2,block,msg:'colour',severity:'CRITICAL',setvar:'tx.inbound_anomaly_score_pl1=+%{tx.critical_anomaly_score}'"
Include more/*.inc
`)
	dir := filepath.Dir(before)
	for name, text := range map[string]string{
		"words.data":   "mauve\n",
		"more/one.inc": `SecRule ARGS:shape "@streq square" "id:1003,phase:2,deny,msg:'shape'"` + "\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	after := rulesFile(t, "after.conf", "SecRuleRemoveById 930130\nSecRuleEngine DetectionOnly\n")
	run(t, waf.Config{Rules: []string{before}, RulesAfter: []string{after}}, []merlontest.Case{
		{Name: "virtual patch", Request: "GET /legacy/x\n" + browser, Want: waf.Attack, Status: 403},
		{Name: "its neighbour", Request: "GET /new/x\n" + browser, Want: waf.Clean},
		{Name: "data file", Request: "GET /?colour=mauve\n" + browser, Want: waf.Attack, Status: 403},
		{Name: "other data", Request: "GET /?colour=red\n" + browser, Want: waf.Clean},
		{Name: "included file", Request: "GET /?shape=square\n" + browser, Want: waf.Attack, Status: 403},
		{Name: "a rule that is removed", Request: "GET /.git/config\n" + browser, Want: waf.Clean},
		{Name: "the engine cannot be turned off from a file", Request: get("<script>alert(1)</script>"), Want: waf.Attack, Status: 403},
	})
}

// The remedy for a rule of the operator's own is to exclude that rule.
func TestOwnRuleRemedy(t *testing.T) {
	c := waf.Config{Rules: []string{rulesFile(t, "own.conf", `SecRule ARGS:shape "@streq square" "id:1003,phase:2,deny,msg:'shape'"`)}}
	r := merlontest.Request(t, "GET /?shape=square\n"+browser)
	d := newGuard(t, c).Check(r)
	if d.Passed() || d.Findings[0].Rule != "1003" || d.Findings[0].Message != "shape" {
		t.Fatalf("%+v", d)
	}
	c.Exclude = apply(t, d.Remedy).Exclude
	if d := newGuard(t, c).Check(r); !d.Passed() {
		t.Errorf("%+v", d)
	}
}

func TestMistakesInRules(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown directive", "SecRuleEngine On\n\n# x\nSecNonsense On\n", `:4": SecNonsense: there is no such directive`},
		{"bad pattern", "SecRule ARGS \"@rx (\" \\\n  \"id:1,phase:2,pass\"\n", `:1": SecRule: @rx: error parsing regexp`},
		{"unknown variable", "\nSecRule NOTHING \"@rx x\" \"id:1,phase:2,pass\"", `:2": SecRule: there is no variable "NOTHING"`},
		{"number taken", `SecRule ARGS "@rx x" "id:942100,phase:2,pass"`, `:1": `},
		{"number of Merlon's", `SecRule ARGS "@rx x" "id:99001,phase:2,pass"`, `:1": SecRule: id:99001 is the number of another rule, Merlon's own rules:`},
		{"not finished", "SecRule ARGS \"@rx x\" \\\n", `:1": the directive is not finished`},
		{"only Coraza", `SecRule ARGS "@inspectFile /bin/true" "id:1,phase:2,pass"`, `:1": SecRule: `},
		{"missing include", "Include nothing.conf", `:1": `},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := rulesFile(t, "own.conf", c.text)
			for _, conf := range []waf.Config{{Rules: []string{path}}, {RulesAfter: []string{path}}} {
				setting := "rules[0]"
				if conf.Rules == nil {
					setting = "rules_after[0]"
				}
				_, err := waf.New(conf)
				if c.name == "number taken" && conf.RulesAfter == nil {
					if err == nil {
						t.Errorf("%s: no error", c.name)
					}
					continue // the CRS's rule comes second
				}
				if want := fmt.Sprintf("%s \"%s%s", setting, path, c.want); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing in: %v", want, err)
				}
			}
		})
	}
	inner := rulesFile(t, "inner.conf", "# x\n\nSecNonsense On\n")
	outer := rulesFile(t, "outer.conf", "Include "+inner+"\n")
	_, err := waf.New(waf.Config{Rules: []string{outer}})
	if want := fmt.Sprintf("rules[0] %q: SecNonsense: ", inner+":3"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("in an included file: %q is missing in: %v", want, err)
	}
	_, err = waf.New(waf.Config{Rules: []string{rulesFile(t, "own.conf", `SecAction "id:1,phase:1,pass,setenv:'X=1'"`)}})
	if err == nil || !strings.Contains(err.Error(), "engine: coraza can run it") {
		t.Errorf("%v", err)
	}
	if _, err := waf.New(waf.Config{Rules: []string{"/nowhere/x.conf"}}); err == nil || !strings.Contains(err.Error(), `rules[0] "/nowhere/x.conf"`) {
		t.Errorf("%v", err)
	}
}
