package waf

import (
	"slices"
	"strings"

	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/types"

	"github.com/merlon-dev/merlon/waf/internal/body"
	reference "github.com/merlon-dev/merlon/waf/internal/coraza"
	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
)

// Reference is plain Coraza with the set-up of a Guard.
func Reference(c Config) (coraza.WAF, error) {
	c = c.withDefaults()
	t, err := body.NewTypes(c.ContentTypes)
	if err != nil {
		return nil, err
	}
	rules, err := sources(c, t)
	if err != nil {
		return nil, err
	}
	return reference.Compile(rules, func(types.RuleMetadata) {})
}

// Unjudged is a guard that does everything but judge.
func Unjudged(c Config) (*Guard, error) {
	g, err := New(c)
	if err == nil {
		g.engine = noEngine{}
	}
	return g, err
}

type noEngine struct{}

func (noEngine) Request(*message.Request) (message.Exchange, message.Verdict, error) {
	return noEngine{}, message.Verdict{}, nil
}
func (noEngine) Rules() map[int]message.RuleInfo                     { return nil }
func (noEngine) Response(*message.Response) (message.Verdict, error) { return message.Verdict{}, nil }
func (noEngine) Close()                                              {}

// Disagreeing returns a guard whose engines do not have the same rules:
// Coraza has those of text, too.
func Disagreeing(c Config, text string) (*Guard, error) {
	c.Verify = 1
	g, err := New(c)
	if err != nil {
		return nil, err
	}
	rules, err := sources(c.withDefaults(), g.types)
	if err != nil {
		return nil, err
	}
	before := len(rules) - 2
	rules = slices.Insert(rules, before, ruleset.Source{Text: text})
	ref, err := reference.New(rules)
	if err != nil {
		return nil, err
	}
	own, err := newNative(slices.Insert(slices.Delete(slices.Clone(rules), before, before+1), before, ruleset.Source{Text: strings.Replace(text, "tea and biscuits", "-", 1)}))
	if err != nil {
		return nil, err
	}
	g.engine = &verified{own, ref, 1}
	return g, nil
}
