package oracle

import (
	"fmt"
	"slices"

	"github.com/merlon-dev/merlon/waf/internal/engine"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// Difference says where the native engine's verdict differs from Coraza's in
// what it decides: the denial, the score or the rules that fired. It is empty
// if nowhere, and names no values.
func Difference(native *engine.Engine, ours, theirs message.Verdict) string {
	a, b := visible(native, ours.Fired), visible(native, theirs.Fired)
	if ours.Deny == theirs.Deny && ours.By == theirs.By && ours.Score == theirs.Score && slices.Equal(a, b) {
		return ""
	}
	say := func(v message.Verdict, rules []int) string {
		return fmt.Sprintf("deny %v by %d, score %d, rules %v", v.Deny, v.By, v.Score, rules)
	}
	return "native: " + say(ours, a) + "; Coraza: " + say(theirs, b)
}
