package seclang_test

import (
	"fmt"
	"io/fs"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/types/variables"

	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// Open makes files an fs.FS, as Coraza asks for one.
func (f files) Open(name string) (fs.File, error) { return coreruleset.FS.Open(name) }

// inCoraza loads the sources into Coraza and writes down the rules it made of
// them. What it found is in fields that only reflection can see.
func inCoraza(read files, sources ...seclang.Source) (rules string, err error) {
	defer func() {
		if r := recover(); r != nil { // SecRuleRemoveByMsg, for one
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	conf := coraza.NewWAFConfig().WithRootFS(read)
	for _, s := range sources {
		conf = conf.WithDirectives(s.Text)
	}
	waf, err := coraza.NewWAF(conf.WithDirectives("SecRequestBodyLimit 1000\nSecRequestBodyInMemoryLimit 1000\nSecResponseBodyLimit 1000\nSecAuditEngine Off"))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	list := reflect.ValueOf(waf).FieldByName("waf").Elem().FieldByName("Rules").FieldByName("rules")
	for i := range list.Len() {
		writeCorazaRule(&b, list.Index(i))
	}
	return b.String(), nil
}

func writeCorazaRule(b *strings.Builder, r reflect.Value) {
	str := func(name string) string { return r.FieldByName(name).String() }
	tags := r.FieldByName("Tags_")
	var list []string
	for i := range tags.Len() {
		list = append(list, tags.Index(i).String())
	}
	id := r.FieldByName("ID_").Int()
	h := head{id: int(id), phase: int(r.FieldByName("Phase_").Int()), marker: str("SecMark_"), severity: int(r.FieldByName("Severity_").Int()),
		log: r.FieldByName("Log").Bool(), tags: list, does: "pass"}
	status := int(r.FieldByName("DisruptiveStatus").Int())
	actions := r.FieldByName("actions")
	for i := range actions.Len() {
		a := actions.Index(i)
		f := a.FieldByName("Function").Elem().Elem()
		switch name := a.FieldByName("Name").String(); name {
		case "pass", "block":
			h.does = "pass"
		case "deny", "drop":
			h.does = fmt.Sprint(name, orDefault(status, 403))
		case "redirect":
			if status != 301 && status != 303 && status != 307 {
				status = 302
			}
			h.does = fmt.Sprint(name, status, f.FieldByName("target").String())
		case "allow":
			h.does = fmt.Sprint(name, f.FieldByName("allow").Int())
		case "skip":
			h.skip = int(f.FieldByName("data").Int())
		case "skipafter":
			h.after = f.FieldByName("data").String()
		}
	}
	fmt.Fprintf(b, "%+v\n", h)
	if h.marker != "" {
		return
	}
	for ok := true; ok; ok = !r.IsNil() {
		if r.Kind() == reflect.Pointer {
			r = r.Elem()
		}
		writeCorazaLink(b, r)
		r = r.FieldByName("Chain")
	}
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// A head is what both sides say about a rule as a whole.
type head struct {
	id, phase int
	marker    string
	severity  int
	log       bool
	tags      []string
	does      string
	skip      int
	after     string
}

func writeCorazaLink(b *strings.Builder, r reflect.Value) {
	vars := r.FieldByName("variables")
	for i := range vars.Len() {
		v := vars.Index(i)
		fmt.Fprintf(b, "  %s count=%t %s", nameOf(v.FieldByName("Variable")), v.FieldByName("Count").Bool(), corazaSelector(v, "KeyRx", "KeyStr"))
		ex := v.FieldByName("Exceptions")
		for j := range ex.Len() {
			fmt.Fprintf(b, " !%s", strings.ToLower(corazaSelector(ex.Index(j), "KeyRx", "KeyStr")))
		}
		b.WriteString("\n")
	}
	if op := r.FieldByName("operator"); !op.IsNil() {
		name := strings.TrimLeft(op.Elem().FieldByName("Function").String(), "!@")
		if full, ok := map[string]string{"pmf": "pmFromFile", "ipMatchF": "ipMatchFromFile",
			"pmFromDataset": "pmFromFile", "ipMatchFromDataset": "ipMatchFromFile"}[name]; ok {
			name = full
		}
		fmt.Fprintf(b, "  @%s negated=%t %q\n", name, op.Elem().FieldByName("Negation").Bool(), op.Elem().FieldByName("Data").String())
	}
	ts := r.FieldByName("transformations")
	for i := range ts.Len() {
		name := runtime.FuncForPC(ts.Index(i).FieldByName("Function").Pointer()).Name()
		name = strings.ToLower(name[strings.LastIndex(name, ".")+1:])
		if name == "md5t" || name == "sha1t" {
			name = name[:len(name)-1]
		}
		fmt.Fprintf(b, "  t:%s\n", name)
	}
	fmt.Fprintf(b, "  capture=%t multi=%t msg=%q logdata=%q\n", r.FieldByName("Capture").Bool(), r.FieldByName("MultiMatch").Bool(),
		corazaMacro(r.FieldByName("Msg")), corazaMacro(r.FieldByName("LogData")))
	actions := r.FieldByName("actions")
	for i := range actions.Len() {
		f := actions.Index(i).FieldByName("Function").Elem().Elem()
		switch actions.Index(i).FieldByName("Name").String() {
		case "setvar":
			fmt.Fprintf(b, "  setvar remove=%t %q=%q\n", f.FieldByName("isRemove").Bool(), corazaMacro(f.FieldByName("key")), corazaMacro(f.FieldByName("value")))
		case "ctl":
			name := ctlNames[f.FieldByName("action").Int()]
			value := f.FieldByName("value").String()
			if name == "requestBodyProcessor" {
				value = strings.ToUpper(value)
			}
			fmt.Fprintf(b, "  ctl %s %q %s %s\n", name, value, nameOf(f.FieldByName("collection")), corazaSelector(f, "colKeyRx", "colKey"))
		}
	}
}

// ctlNames are in the order of Coraza's constants.
var ctlNames = []string{"", "ruleRemoveTargetById", "ruleRemoveTargetByTag", "ruleRemoveTargetByMsg", "auditEngine", "auditLogParts",
	"forceRequestBodyVariable", "requestBodyAccess", "requestBodyLimit", "ruleEngine", "ruleRemoveById", "ruleRemoveByMsg",
	"ruleRemoveByTag", "hashEngine", "hashEnforcement", "requestBodyProcessor", "forceResponseBodyVariable",
	"responseBodyProcessor", "responseBodyAccess", "responseBodyLimit", "debugLogLevel"}

func nameOf(v reflect.Value) string {
	return strings.TrimPrefix(variables.RuleVariable(v.Uint()).Name(), "UNKNOWN")
}

func corazaMacro(v reflect.Value) string {
	if v.IsNil() {
		return ""
	}
	return v.Elem().Elem().FieldByName("original").String()
}

func corazaSelector(v reflect.Value, rx, key string) string {
	if re := v.FieldByName(rx); !re.IsNil() {
		return fmt.Sprintf("/%s/", re.Elem().FieldByName("expr").String())
	}
	return fmt.Sprintf("%q", v.FieldByName(key).String())
}

// written writes rules down in the same words.
func written(rs *seclang.Ruleset) string {
	var b strings.Builder
	for _, r := range rs.Rules {
		h := head{id: r.ID, phase: r.Phase, marker: r.Marker, severity: r.Severity, log: r.Log, tags: r.Tags,
			does: "pass", skip: r.Skip, after: r.SkipAfter}
		switch r.Disruptive {
		case seclang.Deny:
			h.does = fmt.Sprint("deny", r.Status)
		case seclang.Drop:
			h.does = fmt.Sprint("drop", r.Status)
		case seclang.Redirect:
			h.does = fmt.Sprint("redirect", r.Status, r.Location)
		case seclang.Allow:
			h.does = fmt.Sprint("allow", corazaAllow[r.Allow])
		}
		fmt.Fprintf(&b, "%+v\n", h)
		for _, l := range r.Links {
			writeLink(&b, l)
		}
	}
	return b.String()
}

var corazaAllow = map[seclang.AllowScope]int{seclang.AllowAll: 1, seclang.AllowPhase: 2, seclang.AllowRequest: 3}

func writeLink(b *strings.Builder, l *seclang.Link) {
	for _, t := range l.Targets {
		fmt.Fprintf(b, "  %s count=%t %s", t.Var, t.Count, selector(t.Selector))
		for _, x := range t.Except {
			fmt.Fprintf(b, " !%s", strings.ToLower(selector(x)))
		}
		b.WriteString("\n")
	}
	if l.Op != nil {
		fmt.Fprintf(b, "  @%s negated=%t %q\n", l.Op.Name, l.Op.Negated, l.Op.Arg.String())
	}
	for _, t := range l.Transformations {
		fmt.Fprintf(b, "  t:%s\n", strings.ToLower(t))
	}
	fmt.Fprintf(b, "  capture=%t multi=%t msg=%q logdata=%q\n", l.Capture, l.MultiMatch, l.Msg.String(), l.LogData.String())
	for _, a := range l.Actions {
		switch a := a.(type) {
		case seclang.SetVar:
			fmt.Fprintf(b, "  setvar remove=%t %q=%q\n", a.Remove, a.Name.String(), a.Value.String())
		case seclang.Ctl:
			fmt.Fprintf(b, "  ctl %s %q %s %s\n", a.Name, a.Value, a.Target, selector(a.Selector))
		}
	}
}

func selector(s seclang.Selector) string {
	if s.Regex != nil {
		return fmt.Sprintf("/%s/", s.Regex)
	}
	return fmt.Sprintf("%q", s.Key)
}

// sameAsCoraza compares what both make of the sources.
func sameAsCoraza(t *testing.T, read files, sources ...seclang.Source) {
	t.Helper()
	rs, err := seclang.Parse(read, sources...)
	if err != nil {
		t.Fatal(err)
	}
	want, err := inCoraza(read, sources...)
	if err != nil {
		t.Fatalf("only Coraza fails: %v", err)
	}
	have := written(rs)
	a, b := strings.Split(have, "\n"), strings.Split(want, "\n")
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			t.Fatalf("line %d of %d and %d:\n%s\nin Coraza:\n%s", i, len(a), len(b), a[max(0, i-5):min(len(a), i+3)], b[max(0, i-5):min(len(b), i+3)])
		}
	}
	if len(a) != len(b) {
		t.Fatalf("%d lines, in Coraza %d", len(a), len(b))
	}
}
