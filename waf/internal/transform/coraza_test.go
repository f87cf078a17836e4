package transform_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/experimental/plugins"
	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"

	"github.com/merlon-dev/merlon/waf/internal/transform"
)

// names are all transformations that Coraza 3.8.1 registers, but for the
// second spellings.
var names = strings.Fields(`base64Decode base64DecodeExt base64Encode cmdLine compressWhitespace cssDecode escapeSeqDecode
	hexDecode hexEncode htmlEntityDecode jsDecode length lowercase md5 none normalisePath normalisePathWin removeComments
	removeCommentsChar removeNulls removeWhitespace replaceComments replaceNulls sha1 trim trimLeft trimRight uppercase
	urlDecode urlDecodeUni urlEncode utf8toUnicode`)

// An oracle is a Coraza with two rules for one transformation: one that sees
// the value it returns, and one with multiMatch, that also sees a value for
// every change it reports. An operator of our own notes what the rules see.
type oracle struct {
	waf  coraza.WAF
	seen []string
}

func (o *oracle) Evaluate(_ plugintypes.TransactionState, value string) bool {
	o.seen = append(o.seen, strings.Clone(value))
	return false
}

func newOracle(tb testing.TB, name string) *oracle {
	tb.Helper()
	o := &oracle{}
	plugins.RegisterOperator("note", func(plugintypes.OperatorOptions) (plugintypes.Operator, error) { return o, nil })
	var err error
	o.waf, err = coraza.NewWAF(coraza.NewWAFConfig().WithDirectives(fmt.Sprintf(`
SecRuleEngine On
SecRule ARGS "@note" "id:1,phase:1,pass,nolog,t:none,t:%[1]s"
SecRule ARGS "@note" "id:2,phase:1,pass,nolog,t:none,t:%[1]s,multiMatch"
`, name)))
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

// apply is what Coraza's function returns for s.
func (o *oracle) apply(tb testing.TB, s string) (value string, changed bool) {
	tb.Helper()
	o.seen = o.seen[:0]
	tx := o.waf.NewTransaction()
	defer tx.Close()
	tx.AddGetRequestArgument("x", s)
	tx.ProcessRequestHeaders()
	switch n := len(o.seen); {
	case n == 2 && o.seen[1] == s:
		return o.seen[0], false
	case n == 3 && o.seen[1] == s && o.seen[2] == o.seen[0]:
		return o.seen[0], true
	}
	tb.Fatalf("the rules saw %q of %q", o.seen, s)
	return "", false
}

func lookup(tb testing.TB, name string) *transform.Transformation {
	tb.Helper()
	x, ok := transform.Lookup(name)
	if !ok {
		tb.Fatalf("no %s", name)
	}
	return x
}

// agree fails unless the transformation does what Coraza's does, and keeps
// what it promises of Changes, Folds and Always.
func agree(tb testing.TB, o *oracle, x *transform.Transformation, a *transform.Arena, s string) {
	tb.Helper()
	got, changed := x.Apply(a, s)
	want, wantChanged := o.apply(tb, s)
	if got != want || changed != wantChanged {
		tb.Fatalf("%s of %q: %q, changed %v; Coraza: %q, %v", x.Name, s, got, changed, want, wantChanged)
	}
	checkPromise(tb, x, s, got, changed)
}
