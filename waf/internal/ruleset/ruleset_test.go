package ruleset_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
)

func TestDirectives(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string // "line text"
	}{
		{"one", "SecRuleEngine On", []string{"1 SecRuleEngine On\n"}},
		{"comments and empty lines", "# a\n\n  SecRuleEngine On  \r\n#b\nSecAction \"id:1\"", []string{"3 SecRuleEngine On\n", "5 SecAction \"id:1\"\n"}},
		{"continued", "SecAction \\\n  \"id:1\"\nSecRuleEngine On\n", []string{"1 SecAction \\\n\"id:1\"\n", "3 SecRuleEngine On\n"}},
		{"comment between", "SecAction \\\n# x\n\"id:1\"\n", []string{"1 SecAction \\\n\"id:1\"\n"}},
		{"backquotes", "SecDataset a `\none\ntwo\n`\nSecRuleEngine On\n", []string{"1 SecDataset a `\none\ntwo\n`\n", "5 SecRuleEngine On\n"}},
		{"not finished", "SecRuleEngine On\nSecAction \\\n", []string{"1 SecRuleEngine On\n", "2 SecAction \\\n"}},
		{"empty", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ruleset.Source{Text: c.text}.Directives()
			if len(got) != len(c.want) {
				t.Fatalf("%+v, want %q", got, c.want)
			}
			for i, d := range got {
				if one := fmt.Sprintf("%d %s", d.Line, d.Text); one != c.want[i] {
					t.Errorf("%q, want %q", one, c.want[i])
				}
				if d.Unfinished() != (c.name == "not finished" && i == len(got)-1) {
					t.Errorf("%q is finished: %v", d.Text, !d.Unfinished())
				}
			}
		})
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own.conf")
	if err := os.WriteFile(path, []byte("# x"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ruleset.Read("rules", []string{path})
	if err != nil || len(got) != 1 || got[0] != (ruleset.Source{Setting: "rules[0]", Path: path, Name: path, Text: "# x"}) {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = ruleset.Read("rules", []string{path, path + "x"})
	if err == nil || !strings.Contains(err.Error(), `rules[1] "`+path+`x"`) {
		t.Errorf("error %v", err)
	}
	if err := got[0].Bad(7, "is wrong"); !strings.Contains(err.Error(), `rules[0] "`+path+`:7": is wrong`) {
		t.Errorf("error %v", err)
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
