// Package oracle asks the native engine and Coraza about the same message and
// tells where their answers differ.
//
// Coraza is right by definition, but does not always agree with itself: it
// goes through the values of a message in random order, and rules that look at
// the last of them see another one each time. The native engine is held to
// agree with one of several runs. An answer is what a verdict says, and which
// rules that it can depend on fired; logs are not compared.
package oracle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon/waf/internal/engine"
	"github.com/merlon-dev/merlon/waf/internal/message"
)

// Runs is how often Coraza is asked before a difference is one.
const Runs = 10

// An Outcome is what came of a comparison.
type Outcome struct {
	Clean   bool   // the native engine's screen found nothing in the request
	Flagged bool   // rules that a verdict can depend on fired in Coraza
	Judged  bool   // Coraza denied or scored
	Runs    int    // how often Coraza had to be asked
	Diff    string // empty if there is no difference; names no values
	Open    bool   // where they differ, Coraza said so much only once that it can be expected to say something else yet
}

// Missed reports the one kind of difference that lets an attack through: the
// screen found nothing, although rules fire.
func (o Outcome) Missed() bool { return o.Clean && (o.Flagged || o.Judged) && o.Diff != "" }

// Compare asks both engines about a request and, if it is not nil and the
// request was not denied, an answer to it.
func Compare(native *engine.Engine, reference message.Engine, m *message.Request, a *message.Response) (Outcome, error) {
	return CompareRuns(native, reference, m, a, Runs)
}

// CompareRuns does so, and asks Coraza up to so many times.
func CompareRuns(native *engine.Engine, reference message.Engine, m *message.Request, a *message.Response, runs int) (Outcome, error) {
	var o Outcome
	var said answers
	ours, clean, err := ask(native, m, a)
	if err != nil {
		return o, fmt.Errorf("native: %w", err)
	}
	o.Clean = clean
	first := ""
	for o.Runs = 1; ; o.Runs++ {
		theirs, _, err := ask(reference, m, a)
		if err != nil {
			return o, fmt.Errorf("coraza: %w", err)
		}
		o.Flagged = o.Flagged || len(visible(native, theirs[0].Fired)) > 0
		for _, v := range theirs {
			o.Judged = o.Judged || v.Deny || v.Score > 0
		}
		diff := difference(native, &ours, &theirs)
		if diff == "" {
			return o, nil
		}
		if first == "" {
			first = diff
		}
		said = append(said, parts(native, &theirs))
		if o.Runs == runs {
			o.Diff, o.Open = first, said.open(parts(native, &ours))
			return o, nil
		}
	}
}

// verdicts are those about a request and its answer.
type verdicts [2]message.Verdict

// ask asks one engine, and whether it found the request clean at once.
func ask(e message.Engine, m *message.Request, a *message.Response) (v verdicts, clean bool, err error) {
	x, judged, err := e.Request(m)
	if err != nil {
		return v, false, err
	}
	defer x.Close()
	v[0] = judged
	if s, ok := x.(interface{ Clean() bool }); ok {
		clean = s.Clean()
	}
	if a != nil && !judged.Deny {
		v[1], err = x.Response(a)
	}
	return v, clean, err
}

// difference says where two answers differ, of which the first is the native
// engine's; empty if nowhere.
func difference(e *engine.Engine, ours, theirs *verdicts) string {
	var out []string
	for i, which := range []string{"request", "answer"} {
		out = append(out, compare(e, which, &ours[i], &theirs[i])...)
	}
	return strings.Join(out, "; ")
}

func compare(e *engine.Engine, which string, ours, theirs *message.Verdict) []string {
	var out []string
	add := func(what string, a, b any) {
		out = append(out, fmt.Sprintf("%s: %s %v, Coraza %v", which, what, a, b))
	}
	if ours.Deny != theirs.Deny || ours.By != theirs.By {
		add("denied by", ours.By, theirs.By)
	}
	if ours.Score != theirs.Score || ours.Threshold != theirs.Threshold {
		add("score", fmt.Sprint(ours.Score, "/", ours.Threshold), fmt.Sprint(theirs.Score, "/", theirs.Threshold))
	}
	if a, b := visible(e, ours.Fired), visible(e, theirs.Fired); !slices.Equal(a, b) {
		add("rules", a, b)
	}
	if len(ours.Hits) != len(theirs.Hits) {
		add("hits", hitRules(ours.Hits), hitRules(theirs.Hits))
		return out
	}
	a, b := sorted(ours.Hits), sorted(theirs.Hits)
	for i := range a {
		if what := hitDifference(&a[i], &b[i]); what != "" {
			add(fmt.Sprintf("hit of rule %d: %s", a[i].Rule, what), describe(a[i]), describe(b[i]))
		}
	}
	return out
}

// visible are the rules of a list that verdicts must name, in order of number.
func visible(e *engine.Engine, fired []int) []int {
	var out []int
	for _, id := range fired {
		if e.Visible(id) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func hitRules(list []message.Hit) []int {
	var out []int
	for _, h := range list {
		out = append(out, h.Rule)
	}
	slices.Sort(out)
	return out
}

func sorted(list []message.Hit) []message.Hit {
	return slices.SortedStableFunc(slices.Values(list), func(a, b message.Hit) int { return cmp.Compare(a.Rule, b.Rule) })
}

// hitDifference says in what two hits differ. Spots are sets: Coraza finds
// them in random order.
func hitDifference(a, b *message.Hit) string {
	switch {
	case a.Rule != b.Rule:
		return "rule"
	case a.Score != b.Score:
		return "score"
	case a.Message != b.Message:
		return "message"
	case !slices.Equal(spots(a), spots(b)):
		return "spots"
	}
	return ""
}

func spots(h *message.Hit) []message.Spot {
	return slices.Compact(slices.SortedFunc(slices.Values(h.Spots), func(a, b message.Spot) int {
		head := 0
		if a.Head != b.Head {
			head = 1
			if a.Head {
				head = -1
			}
		}
		return cmp.Or(head, cmp.Compare(a.Target, b.Target), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value))
	}))
}

// describe names a hit and its spots, but not the values: they may be secret.
func describe(h message.Hit) string {
	s := fmt.Sprintf("%d+%d", h.Rule, h.Score)
	for _, p := range spots(&h) {
		s += fmt.Sprintf(" %s:%.60q", p.Target, p.Name)
	}
	return s
}

// answers are what Coraza said in several runs, part by part.
type answers []map[string]string

// open reports whether what Coraza said about the parts where it never agreed
// varies so much that it has more to say: of what was said once only there is
// about as much as of what has not been said yet.
func (list answers) open(ours map[string]string) bool {
	once := func(said func(map[string]string) string) bool {
		seen, n := map[string]int{}, 0
		for _, p := range list {
			seen[said(p)]++
		}
		for _, times := range seen {
			if times == 1 {
				n++
			}
		}
		return n*20 > len(list)
	}
	never := 0
	for part := range ours {
		if slices.ContainsFunc(list, func(p map[string]string) bool { return p[part] == ours[part] }) {
			continue
		}
		if never++; !once(func(p map[string]string) string { return p[part] }) {
			return false
		}
	}
	return never > 0 || once(func(p map[string]string) string { return fmt.Sprint(p) })
}

// parts takes an answer apart.
func parts(e *engine.Engine, v *verdicts) map[string]string {
	out := map[string]string{}
	for i := range v {
		out[fmt.Sprint("denial ", i)] = fmt.Sprint(v[i].Deny, v[i].By)
		out[fmt.Sprint("score ", i)] = fmt.Sprint(v[i].Score, v[i].Threshold)
		out[fmt.Sprint("rules ", i)] = fmt.Sprint(visible(e, v[i].Fired))
		out[fmt.Sprint("hits ", i)] = fmt.Sprint(hitRules(v[i].Hits))
		for n, h := range sorted(v[i].Hits) {
			at := fmt.Sprintf("hit %d of rule %d in %d: ", n, h.Rule, i)
			out[at+"score"], out[at+"message"], out[at+"spots"] = fmt.Sprint(h.Score), h.Message, fmt.Sprint(spots(&h))
		}
	}
	return out
}
