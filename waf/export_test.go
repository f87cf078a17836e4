package waf

import (
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/types"

	"github.com/merlon-dev/merlon/waf/internal/body"
	reference "github.com/merlon-dev/merlon/waf/internal/coraza"
	"github.com/merlon-dev/merlon/waf/internal/message"
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
