package ruleset_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
)

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string // "line text"
		bad        string   // in the error
	}{
		{"one", "SecRuleEngine On", []string{"1 SecRuleEngine On\n"}, ""},
		{"comments and empty lines", "# a\n\n  SecRuleEngine On  \r\n#b\nSecAction \"id:1\"", []string{"3 SecRuleEngine On\n", "5 SecAction \"id:1\"\n"}, ""},
		{"continued", "SecAction \\\n  \"id:1\"\nSecRuleEngine On\n", []string{"1 SecAction \\\n\"id:1\"\n", "3 SecRuleEngine On\n"}, ""},
		{"comment between", "SecAction \\\n# x\n\"id:1\"\n", []string{"1 SecAction \\\n\"id:1\"\n"}, ""},
		{"backquotes", "SecDataset a `\none\ntwo\n`\nSecRuleEngine On\n", []string{"1 SecDataset a `\none\ntwo\n`\n", "5 SecRuleEngine On\n"}, ""},
		{"not finished", "SecRuleEngine On\nSecAction \\\n", nil, `own.conf:2": the directive is not finished`},
		{"empty", "", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "own.conf")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := ruleset.Read("rules", []string{path})
			if c.bad != "" {
				if err == nil || !strings.Contains(err.Error(), c.bad) {
					t.Fatalf("error %v, want %q", err, c.bad)
				}
				return
			}
			if err != nil || len(got) != len(c.want) {
				t.Fatalf("%+v, %v", got, err)
			}
			for i, s := range got {
				place, _, _ := strings.Cut(c.want[i], " ")
				if s.Place() != path+":"+place || s.Text != c.want[i][len(place)+1:] || s.Setting != "rules[0]" || s.Dir != dir {
					t.Errorf("%+v, want %q", s, c.want[i])
				}
			}
		})
	}
}

func TestFiles(t *testing.T) {
	var f ruleset.Files
	found, err := f.Glob("@owasp_crs/*.conf")
	if err != nil || len(found) < 20 {
		t.Fatalf("%v, %v", found, err)
	}
	for _, name := range []string{found[0], "/etc/merlon/" + found[0]} {
		if text, err := f.ReadFile(name); err != nil || len(text) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"own.conf", "/nowhere/own.conf", "@owasp_crs/../own.conf"} {
		if _, err := f.ReadFile(name); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	if _, err := f.Glob(t.TempDir() + "/*.conf"); err == nil {
		t.Error("a pattern without files is no error")
	}
}

// Every variable belongs to one part of a message.
func TestParts(t *testing.T) {
	for _, target := range []message.Target{message.Args, message.URI, message.XMLContent, message.Answer} {
		list := ruleset.Variables(target)
		for _, v := range list {
			if ruleset.TargetOf(v) != target {
				t.Errorf("%s belongs to %q, not to %q", v, ruleset.TargetOf(v), target)
			}
		}
		if len(list) == 0 {
			t.Errorf("%s has no variables", target)
		}
	}
	if ruleset.TargetOf("TX") != "" || ruleset.Variables("") != nil {
		t.Error("what is no part of a message has a target")
	}
}
