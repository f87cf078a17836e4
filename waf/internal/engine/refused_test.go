package engine_test

import (
	"errors"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/engine"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// Rules that mean what other rules did last are refused, also where nothing in
// them depends on the message; the same about what they did themselves is not.
func TestRefused(t *testing.T) {
	const other = `SecRule ARGS "@rx (evil)" "id:1,phase:2,pass,capture"` + "\n"
	for _, c := range []struct {
		name, rules string
		refused     bool
	}{
		{"what another rule captured", `SecRule TX:1 "@rx evil" "id:2,phase:2,deny"`, true},
		{"by a pattern", `SecRule TX:/^[01]$/ "@rx evil" "id:2,phase:2,deny"`, true},
		{"by all of TX", `SecRule TX "@rx evil" "id:2,phase:2,deny"`, true},
		{"what it captured itself", `SecRule ARGS "@rx (a)" "id:2,phase:2,deny,capture,chain"` + "\n" + `SecRule TX:1 "@rx a"`, false},
		{"what another rule matched", `SecRule MATCHED_VAR "@rx evil" "id:2,phase:2,deny"`, true},
		{"as an argument", `SecRule ARGS "@streq %{MATCHED_VAR}" "id:2,phase:2,deny"`, true},
		{"as an argument about a constant", `SecRule &TX:none "@streq %{MATCHED_VAR}" "id:2,phase:2,deny"`, true},
		{"what it matched itself", `SecRule ARGS "@rx a" "id:2,phase:2,deny,chain"` + "\n" + `SecRule MATCHED_VAR "@rx evil"`, false},
		{"its own message, about another's match", `SecRule ARGS "@rx a" "id:2,phase:2,pass,msg:'%{MATCHED_VAR}',setvar:'tx.m=%{rule.msg}'"` + "\n" + `SecRule TX:m "@rx evil" "id:3,phase:2,deny"`, true},
		{"the same, but nobody reads it", `SecRule ARGS "@rx a" "id:2,phase:2,pass,msg:'%{MATCHED_VAR}',setvar:'tx.m=%{rule.msg}'"`, false},
		{"a message that is not there", `SecRule ARGS "@rx a" "id:2,phase:2,pass,setvar:'tx.m=%{rule.msg}'"` + "\n" + `SecRule TX:m "@rx evil" "id:3,phase:2,deny"`, true},
		{"its own message", `SecRule ARGS "@rx a" "id:2,phase:2,pass,msg:'%{ARGS.b}',setvar:'tx.m=%{rule.msg}'"` + "\n" + `SecRule TX:m "@rx evil" "id:3,phase:2,deny"`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rs, err := seclang.Parse(ruleset.Files{}, seclang.Source{Text: other + c.rules + "\n"})
			if err != nil {
				t.Fatal(err)
			}
			_, err = engine.New(rs)
			var e *seclang.Error
			if errors.As(err, &e) != c.refused || c.refused && !e.Unsupported || err != nil && e == nil {
				t.Errorf("error %v", err)
			}
		})
	}
}
