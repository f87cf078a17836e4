package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"merlon": main, "serve-requests": serveRequests, "decrypt": decrypt})
}

// TestScripts runs the command as its users do: each script in testdata is a
// folder of files and what is typed in it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                scriptCommands,
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_DATA_HOME", e.Getenv("WORK")+"/share")
			return nil
		},
	})
}

// Every command's help shows how it is used, with examples that begin with the
// command itself and name flags that exist.
func TestHelpHasExamples(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		t.Run(strings.ReplaceAll(cmd.CommandPath(), " ", "_"), func(t *testing.T) {
			var out, errs bytes.Buffer
			args := append(strings.Fields(cmd.CommandPath())[1:], "--help")
			if code := run(context.Background(), args, &out, &errs); code != 0 || errs.Len() > 0 {
				t.Fatalf("exit code %d, %s", code, &errs)
			}
			if !strings.Contains(out.String(), "Examples:\n") {
				t.Errorf("no examples:\n%s", &out)
			}
			if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
				t.Errorf("the short text %q must be a line without a full stop", cmd.Short)
			}
			for line := range strings.Lines(cmd.Example) {
				checkExample(t, cmd.Root(), line)
			}
		})
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}

func checkExample(t *testing.T, root *cobra.Command, line string) {
	line, _, _ = strings.Cut(strings.TrimSpace(line), "  ") // what follows is a remark
	words := strings.Fields(line)
	if len(words) < 2 || words[0] != "merlon" {
		return
	}
	for i, w := range words {
		if strings.ContainsAny(w, "<>|") {
			words = words[:i]
			break
		}
	}
	cmd, rest, err := root.Find(words[1:])
	if err != nil {
		t.Errorf("example %q: %v", line, err)
		return
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("example %q: %v", line, err)
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		t.Errorf("example %q: %v", line, err)
	}
}

func TestSchemaIsJSON(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"config", "schema"}, &out, &errs); code != 0 {
		t.Fatalf("exit code %d, %s", code, &errs)
	}
	var schema struct {
		Schema     string         `json:"$schema"`
		Properties map[string]any `json:"properties"`
		Defs       map[string]struct {
			Properties map[string]any `json:"properties"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal(out.Bytes(), &schema); err != nil {
		t.Fatal(err)
	}
	if schema.Schema != "https://json-schema.org/draft/2020-12/schema" {
		t.Errorf("$schema is %q", schema.Schema)
	}
	for _, name := range []string{"listen", "sites", "waf", "monitor", "trusted_proxies"} {
		if schema.Properties[name] == nil {
			t.Errorf("the schema does not know %q", name)
		}
	}
	for section, setting := range map[string]string{"tls": "profile", "ledger": "key_file", "waf": "paranoia", "record": "recipient"} {
		ref := fmt.Sprint(schema.Properties[section])
		_, name, _ := strings.Cut(ref, "#/$defs/")
		name, _, _ = strings.Cut(name, " ")
		if schema.Defs[name].Properties[setting] == nil {
			t.Errorf("the schema of %s does not know %q: %s", section, setting, ref)
		}
	}
}
