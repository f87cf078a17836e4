package waf

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/waf/internal/coraza"
	"github.com/merlon-dev/merlon/waf/internal/engine"
	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/oracle"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// The engines.
const (
	nativeEngine = "native"
	corazaEngine = "coraza"
)

// newEngine compiles rules, with what the exclusions change of them, for the
// engine that the settings name.
func newEngine(c Config, rules []ruleset.Source) (message.Engine, exclusions, error) {
	var x exclusions
	if len(c.Exclude) > 0 {
		loaded, err := loadedRules(c, rules)
		if err != nil {
			return nil, nil, err
		}
		var errs []error
		if x, errs = newExclusions(c.Exclude, loaded); errors.Join(errs...) != nil {
			return nil, nil, errors.Join(errs...)
		}
		rules = append(rules, x.sources()...)
	}
	if c.Engine == corazaEngine {
		e, err := coraza.New(rules)
		return e, x, err
	}
	own, err := newNative(rules)
	if err != nil || c.Verify == 0 {
		return own, x, err
	}
	ref, err := coraza.New(rules)
	return &verified{own, ref, c.Verify}, x, err
}

// loadedRules tells which rules there are to be excluded.
func loadedRules(c Config, rules []ruleset.Source) (map[int]message.RuleInfo, error) {
	if c.Engine == corazaEngine {
		e, err := coraza.New(rules)
		if err != nil {
			return nil, err
		}
		return e.Rules(), nil
	}
	set, err := parse(rules)
	if err != nil {
		return nil, err
	}
	return engine.Describe(set), nil
}

func parse(rules []ruleset.Source) (*seclang.Ruleset, error) {
	texts := make([]seclang.Source, len(rules))
	for i, s := range rules {
		texts[i] = seclang.Source{Name: s.Name, Text: s.Text}
	}
	set, err := seclang.Parse(ruleset.Files{}, texts...)
	if err != nil {
		return nil, badRules(rules, err)
	}
	return set, nil
}

func newNative(rules []ruleset.Source) (*engine.Engine, error) {
	set, err := parse(rules)
	if err != nil {
		return nil, err
	}
	e, err := engine.New(set)
	if err != nil {
		return nil, badRules(rules, err)
	}
	return e, nil
}

// badRules tells the operator which setting and line is wrong, and what to do
// where only this engine cannot take it.
func badRules(rules []ruleset.Source, err error) error {
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	var out []error
	for _, err := range list {
		var e *seclang.Error
		if !errors.As(err, &e) || e.Source >= len(rules) {
			out = append(out, fmt.Errorf("the rules cannot be loaded: %w", err))
			continue
		}
		reason := e.Msg
		if e.Directive != "" {
			reason = e.Directive + ": " + reason
		}
		if e.Unsupported {
			reason += "; engine: coraza can run it"
		}
		at := rules[e.Source]
		if at.Path != "" && e.File != at.Name {
			at.Path = e.File // it is in a file that the setting's own includes
		}
		out = append(out, at.Bad(e.Line, reason))
	}
	return errors.Join(out...)
}

// verified is the native engine, of which a share of the verdicts is compared
// with Coraza's. What either of them denies is denied.
type verified struct {
	own   *engine.Engine
	ref   *coraza.Engine
	share float64
}

func (v *verified) Rules() map[int]message.RuleInfo { return v.own.Rules() }

func (v *verified) Request(m *message.Request) (message.Exchange, message.Verdict, error) {
	x, got, err := v.own.Request(m)
	if err != nil || rand.Float64() >= v.share {
		return x, got, err
	}
	// Coraza does not always agree with itself (see package oracle).
	for i := 1; ; i++ {
		y, want, err := v.ref.Request(m)
		if err != nil {
			x.Close()
			return nil, got, err
		}
		d := oracle.Difference(v.own, got, want)
		if d == "" || i == oracle.Runs {
			return &both{v, x, y}, stricter(got, want, d), nil
		}
		y.Close()
	}
}

// stricter returns the verdict that is obeyed of two that differ.
func stricter(got, want message.Verdict, difference string) message.Verdict {
	if difference == "" {
		return got
	}
	if want.Deny && !got.Deny {
		got = want
	}
	got.Differs = difference
	return got
}

// both is an exchange that both engines follow.
type both struct {
	v        *verified
	own, ref message.Exchange
}

func (b *both) Response(a *message.Response) (message.Verdict, error) {
	got, err := b.own.Response(a)
	if err != nil {
		return got, err
	}
	want, err := b.ref.Response(a)
	if err != nil {
		return got, err
	}
	return stricter(got, want, oracle.Difference(b.v.own, got, want)), nil
}

// More asks the native engine alone.
func (b *both) More(piece []byte) (message.Verdict, error) {
	return b.own.(message.Continuer).More(piece)
}

func (b *both) Close() {
	b.own.Close()
	b.ref.Close()
}

// passed is the decision about what the rules let pass. It raises the alarm,
// without refusing anything, if the engines do not agree.
func passed(reason merlon.Reason, v message.Verdict) merlon.Decision {
	if v.Differs == "" {
		return merlon.Pass(reason)
	}
	d := merlon.Refuse(http.StatusForbidden, VerdictsDiffer)
	d.Monitored = true
	d.Findings = []merlon.Finding{differs(v)}
	return d
}

// differs is the finding that tells of two verdicts.
func differs(v message.Verdict) merlon.Finding {
	return merlon.Finding{Rule: "verify", Message: "the engines do not agree: " + v.Differs}
}
