package operator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"
	"github.com/corazawaf/coraza/v3/types"

	"github.com/merlon-dev/merlon/waf/internal/match"
	"github.com/merlon-dev/merlon/waf/internal/operator"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// A pair is an operator as it is here and as a rule of Coraza.
type pair struct {
	name, arg string
	op        operator.Operator
	waf       coraza.WAF
}

func static(text string) seclang.Macro { return seclang.Macro{{Text: text}} }

// both makes a pair of "name argument".
func both(tb testing.TB, rule string) *pair {
	tb.Helper()
	name, arg, _ := strings.Cut(rule, " ")
	return withLines(tb, name, arg, nil)
}

// withLines makes a pair of an operator that reads a file.
func withLines(tb testing.TB, name, arg string, lines []string) *pair {
	tb.Helper()
	op, err := operator.New(&seclang.Operator{Name: name, Arg: static(arg), Lines: lines})
	if err != nil {
		tb.Fatal(err)
	}
	waf, err := coraza.NewWAF(coraza.NewWAFConfig().WithDirectives(fmt.Sprintf(
		"SecRuleEngine On\nSecRule ARGS \"@%s %s\" \"id:1,phase:1,pass,log,capture\"", name, strings.ReplaceAll(arg, `"`, `\"`))))
	if err != nil {
		tb.Fatal(err)
	}
	return &pair{name, arg, op, waf}
}

// coraza is what Coraza says of a value: whether it matched, and TX:0 to TX:9.
func (p *pair) coraza(value string) (bool, [10]string) {
	tx := p.waf.NewTransaction()
	defer tx.Close()
	tx.AddGetRequestArgument("x", value)
	tx.ProcessRequestHeaders()
	var captured [10]string
	for i := range captured {
		if v := tx.(plugintypes.TransactionState).Variables().TX().Get(fmt.Sprint(i)); len(v) > 0 {
			captured[i] = v[0]
		}
	}
	return fired(tx), captured
}

func fired(tx types.Transaction) bool {
	for _, r := range tx.MatchedRules() {
		if r.Rule().ID() == 1 {
			return true
		}
	}
	return false
}

// agree fails unless the operator answers as Coraza's does, and what it
// accepts keeps what it requires.
func (p *pair) agree(tb testing.TB, value string) bool {
	tb.Helper()
	want, wantCaptures := p.coraza(value)
	got := p.op.Match(value, p.arg)
	if got != want {
		tb.Fatalf("@%s %q of %q: %v, Coraza says %v", p.name, p.arg, value, got, want)
	}
	if c, ok := p.op.(operator.Capturer); ok {
		var captures operator.Captures
		if captured := c.Capture(value, p.arg, &captures); captured != want {
			tb.Fatalf("@%s %q of %q: capture says %v", p.name, p.arg, value, captured)
		}
		if captures.Values != wantCaptures {
			tb.Fatalf("@%s %q of %q captures %q, Coraza %q", p.name, p.arg, value, captures.Values, wantCaptures)
		}
		if captures.Set != got || captures.Set != (captures.N > 0) {
			tb.Fatalf("@%s %q of %q: set %v, %d fields", p.name, p.arg, value, captures.Set, captures.N)
		}
	} else if wantCaptures != [10]string{} {
		tb.Fatalf("@%s %q of %q captures nothing, Coraza %q", p.name, p.arg, value, wantCaptures)
	}
	if s, ok := p.op.(operator.Screened); ok && got && !keeps(s.Required(), value) {
		tb.Fatalf("@%s %q matches %q, which does not keep its requirement", p.name, p.arg, value)
	}
	return got
}

// keeps reports whether a value keeps a requirement.
func keeps(r match.Requirement, value string) bool {
	raw := match.Presence(value)
	folded := match.Presence(match.Fold(value))
	for _, set := range r.Needs {
		if !set.Meets(&raw) || !set.Meets(&folded) || set != set.Folded() {
			return false
		}
	}
	if !r.Bytes {
		value = match.Fold(value)
	}
	for _, l := range r.Literals {
		if strings.Contains(lowerASCII(value), l) {
			return true
		}
	}
	return r.Literals == nil
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}
