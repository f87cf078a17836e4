package waf

import (
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/types"

	"github.com/merlon-dev/merlon/waf/internal/body"
	reference "github.com/merlon-dev/merlon/waf/internal/coraza"
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
