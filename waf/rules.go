package waf

import (
	"errors"

	"github.com/merlon-dev/merlon/waf/internal/body"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
)

// responseLimit is how much of an answer is judged.
const responseLimit = ruleset.ResponseLimit

// sources are the rules of a guard without its exclusions.
func sources(c Config, t *body.Types) ([]ruleset.Source, error) {
	before, err1 := ruleset.Read("rules", c.Rules)
	after, err2 := ruleset.Read("rules_after", c.RulesAfter)
	s := ruleset.Setup{
		Paranoia: c.Paranoia, Threshold: c.Threshold, OutboundThreshold: c.OutboundThreshold,
		Arguments: c.Arguments, Limit: int64(c.Limit), Types: t,
	}
	return s.Around(before, after), errors.Join(err1, err2)
}
