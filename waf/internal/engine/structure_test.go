package engine

import (
	"fmt"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/ruleset"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// What folding leaves of the CRS 4.25 at paranoia level 1, with one action of
// the set-up. The numbers change with the CRS; that they stay small is what
// makes the engine cheap.
func TestStructure(t *testing.T) {
	e := native(t, sources(1))
	want := [5]struct{ loaded, unreached, constant, dependent int }{
		1: {177, 61, 69, 47},
		2: {290, 125, 48, 117},
		3: {43, 17, 26, 0},
		4: {109, 20, 27, 62},
	}
	if e.requestAll || e.respondAll {
		t.Error("clean messages are evaluated, too")
	}
	for phase, s := range e.structure {
		w := want[phase]
		if s.loaded != w.loaded || s.unreached() != w.unreached || s.constant+s.derived != w.constant || s.dependent != w.dependent {
			t.Errorf("phase %d: %+v, unreached %d", phase, s, s.unreached())
		}
	}
}

// sources are the CRS at a paranoia level, with nothing but what it needs.
func sources(level int) []ruleset.Source {
	return []ruleset.Source{
		{Text: "Include @coraza.conf-recommended\nSecAction \"id:99000,phase:1,pass,nolog,t:none,setvar:'tx.blocking_paranoia_level=" + fmt.Sprint(level) + "'\"\nSecRxPreFilter Off\nInclude @crs-setup.conf.example\n"},
		{Text: "Include @owasp_crs/*.conf"},
		{Text: "SecRuleEngine On\nSecAuditEngine Off\nSecRequestBodyAccess On\nSecResponseBodyAccess On\n"},
	}
}

func native(t testing.TB, src []ruleset.Source) *Engine {
	t.Helper()
	var list []seclang.Source
	for _, s := range src {
		list = append(list, seclang.Source{Name: s.Name, Text: s.Text})
	}
	rs, err := seclang.Parse(ruleset.Files{}, list...)
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(rs)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
