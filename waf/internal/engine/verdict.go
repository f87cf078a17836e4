package engine

import (
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
)

// verdict words what the rules have said: of the request (0) or the answer (1).
func (t *transaction) verdict(which int) message.Verdict {
	v := t.cleanVerdict(which)
	v.Deny, v.By = t.denied, t.by
	for _, f := range t.fired {
		if inRequest := f.rule.Phase <= 2; inRequest != (which == 0) {
			continue
		}
		v.Fired = append(v.Fired, f.rule.id)
		if !v.Deny && v.Score == 0 || f.rule.scores == 0 && f.rule.id != v.By || ruleset.Scoring(f.rule.id) {
			continue
		}
		v.Hits = append(v.Hits, t.hit(f))
	}
	return v
}

// cleanVerdict reads the scores.
func (t *transaction) cleanVerdict(which int) message.Verdict {
	e := t.engine
	return message.Verdict{Score: atoi(t.tx[e.score[which]].s), Threshold: atoi(t.tx[e.threshold[which]].s)}
}

// hit describes a rule that matched, in memory of its own.
func (t *transaction) hit(f firing) message.Hit {
	h := message.Hit{Rule: f.rule.id, Message: strings.Clone(f.message)}
	last := 0
	for _, s := range t.spots[f.from:f.to] {
		last = max(last, s.level)
		h.Spots = append(h.Spots, message.Spot{
			Target: ruleset.TargetOf(s.v.String()), Name: strings.Clone(s.key), Value: strings.Clone(s.val), Head: s.level == 0,
		})
	}
	for _, s := range t.spots[f.from:f.to] {
		if s.level == last {
			h.Score += f.rule.scores
		}
	}
	return h
}

// saveTX and restoreTX keep TX while an answer is screened.
func (t *transaction) saveTX() []value {
	if !t.changed {
		return t.engine.before
	}
	t.saved = append(t.saved[:0], t.tx...)
	for _, n := range t.engine.late {
		t.tx[n] = t.engine.after[n]
	}
	return t.saved
}

func (t *transaction) restoreTX(state []value) { copy(t.tx, state) }
