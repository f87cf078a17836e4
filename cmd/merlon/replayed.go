package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/internal/gateway"
	"github.com/merlon-dev/merlon/record"
)

// A judgement is what became of one recorded request now.
type judgement struct {
	site, route string
	guard       string // that would refuse; empty if all let it pass
	reason      merlon.Reason
	findings    []merlon.Finding
	err         error // it cannot be judged
}

func judge(g *gateway.Gateway, e *record.Entry) judgement {
	hr, err := e.Request()
	if err != nil {
		return judgement{err: err}
	}
	r, d := g.Judge(hr)
	j := judgement{site: r.Site, route: r.Route}
	if !d.Passed() {
		j.guard, j.reason, j.findings = r.RefusedBy(), d.Reason, d.Findings
		if d.Reason == merlon.GuardFailed {
			j.err = d.Err
		}
	}
	return j
}

// A replayed is what a replay found.
type replayed struct {
	From        time.Time `json:"from"`
	To          time.Time `json:"to"`
	Requests    int       `json:"requests"`
	Passed      int       `json:"passed"`       // then and now
	Refused     int       `json:"refused"`      // then and now
	OtherReason int       `json:"other_reason"` // of those, by another guard or for another reason
	NowRefused  int       `json:"now_refused"`
	NowPassed   int       `json:"now_passed"`
	NotCompared int       `json:"not_compared"`
	HeadOnly    int       `json:"head_only"` // their bodies are not recorded
	Unfinished  int       `json:"unfinished_segments"`
	Changes     []*change `json:"changes"`

	groups map[string]*change
	faults []error
}

// A change is requests that would fare differently for the same cause.
type change struct {
	Now      string        `json:"now"` // "refused" or "passed"
	Site     string        `json:"site,omitempty"`
	Route    string        `json:"route,omitempty"`
	Guard    string        `json:"guard"` // that refuses, now or then
	Reason   merlon.Reason `json:"reason"`
	Rule     string        `json:"rule,omitempty"`
	Count    int           `json:"count"`
	Examples []example     `json:"examples"`
}

type example struct {
	ID      string         `json:"id"`
	Time    time.Time      `json:"time"`
	Method  string         `json:"method"`
	Host    string         `json:"host"`
	Target  string         `json:"target"`
	Finding merlon.Finding `json:"finding"`

	n int
}

// maxExamples is how many requests are shown of each change.
const maxExamples = 3

func newReplayed() *replayed {
	return &replayed{groups: map[string]*change{}, Changes: []*change{}}
}

// add counts the n-th entry.
func (r *replayed) add(n int, e *record.Entry, j judgement) {
	r.Requests++
	if r.From.IsZero() || e.Time.Before(r.From) {
		r.From = e.Time
	}
	if e.Time.After(r.To) {
		r.To = e.Time
	}
	if !e.Whole {
		r.HeadOnly++
	}
	o := e.Outcome
	switch {
	case j.err != nil:
		r.NotCompared++
		r.faults = append(r.faults, fmt.Errorf("request %s: %w", e.ID, j.err))
	case gateway.OfTheMoment(o.Reason):
		r.NotCompared++
	case o.Guard == "" && j.guard == "":
		r.Passed++
	case o.Guard == "":
		r.NowRefused++
		r.change(n, e, j, "refused", j.guard, j.reason, j.findings)
	case j.guard != "":
		r.Refused++
		if j.guard != o.Guard || j.reason != o.Reason {
			r.OtherReason++
		}
	case !e.Whole || o.Hidden:
		r.NotCompared++ // what it was refused for may be what is not recorded
	default:
		r.NowPassed++
		var findings []merlon.Finding
		for _, f := range o.Findings {
			findings = append(findings, merlon.Finding{Rule: f.Rule, Part: f.Part})
		}
		r.change(n, e, j, "passed", o.Guard, o.Reason, findings)
	}
}

func (r *replayed) change(n int, e *record.Entry, j judgement, now, guard string, reason merlon.Reason, findings []merlon.Finding) {
	var first merlon.Finding
	if len(findings) > 0 {
		first = findings[0]
	}
	key := fmt.Sprintf("%q", []string{now, j.site, j.route, guard, string(reason), first.Rule})
	c := r.groups[key]
	if c == nil {
		c = &change{Now: now, Site: j.site, Route: j.route, Guard: guard, Reason: reason, Rule: first.Rule}
		r.groups[key] = c
		r.Changes = append(r.Changes, c)
	}
	c.Count++
	c.Examples = append(c.Examples, example{e.ID, e.Time, e.Method, e.Host, e.Target, first, n})
	// The first ones, in whatever order they were judged.
	slices.SortFunc(c.Examples, func(a, b example) int { return a.n - b.n })
	c.Examples = c.Examples[:min(len(c.Examples), maxExamples)]
}

func (r *replayed) fault(err error) {
	if errors.Is(err, record.ErrUnfinished) {
		r.Unfinished++
		return
	}
	r.faults = append(r.faults, err)
}

// tell prints the result, and returns the exit code it means.
func (r *replayed) tell(out, errs io.Writer, dir string, asJSON bool) error {
	const shown = 10
	for _, err := range r.faults[:min(len(r.faults), shown)] {
		printf(errs, "merlon: %v\n", err)
	}
	if more := len(r.faults) - shown; more > 0 {
		printf(errs, "merlon: and %d more that cannot be judged\n", more)
	}
	switch {
	case r.Requests == 0 && len(r.faults) > 0:
		return errSilent
	case r.Requests == 0 && r.Unfinished > 0:
		return fmt.Errorf("no request can be read in %s yet: what is being written can be read some time later, or when the gateway has stopped", dir)
	case r.Requests == 0:
		return fmt.Errorf("no request is recorded in %s in that time", dir)
	}
	slices.SortFunc(r.Changes, func(a, b *change) int {
		return cmp.Or(strings.Compare(b.Now, a.Now), b.Count-a.Count, a.Examples[0].n-b.Examples[0].n)
	})
	if asJSON {
		if err := encodeJSON(out, r); err != nil {
			return err
		}
	} else {
		r.print(out)
	}
	switch {
	case len(r.faults) > 0:
		return errSilent
	case r.NowRefused > 0:
		return wouldRefuse
	}
	return nil
}

func (r *replayed) print(out io.Writer) {
	const form = "2006-01-02 15:04"
	printf(out, "%s of %s to %s UTC\n", requests(r.Requests), r.From.Format(form), r.To.Format(form))
	printf(out, "%8d would be refused that passed\n", r.NowRefused)
	printf(out, "%8d would pass that were refused\n", r.NowPassed)
	printf(out, "%8d pass as before\n", r.Passed)
	other := ""
	if r.OtherReason > 0 {
		other = fmt.Sprintf(", %d of them by another guard or for another reason", r.OtherReason)
	}
	printf(out, "%8d are refused as before%s\n", r.Refused, other)
	if r.NotCompared > 0 {
		printf(out, "%8d cannot be compared: they were refused for the moment, or for what is not recorded\n", r.NotCompared)
	}
	if r.HeadOnly > 0 {
		printf(out, "%d of all have a body that is not recorded, and are judged by their head alone.\n", r.HeadOnly)
	}
	if r.Unfinished > 0 {
		printf(out, "Segments that are still being written, or that a crash has cut off: %d; the newest requests are not in here.\n", r.Unfinished)
	}
	printf(out, "Rates, concurrent requests and answers are not replayed; values of secrets are not recorded.\n")
	for _, c := range r.Changes {
		c.print(out)
	}
}

func (c *change) print(out io.Writer) {
	place := cmp.Or(c.Site, "no site") + c.Route
	verb := "would refuse"
	if c.Now == "passed" {
		verb = "would no longer refuse"
	}
	rule := ""
	if c.Rule != "" {
		rule = ", rule " + c.Rule
	}
	printf(out, "\n%s: %s %s (%s%s): %s\n", place, c.Guard, verb, c.Reason, plain(rule, 40), requests(c.Count))
	for _, e := range c.Examples {
		printf(out, "  %s  %s  %s %s\n", e.ID, e.Time.Format(time.DateTime), plain(e.Method, 20), plain(e.Target, 100))
		f := e.Finding
		line := plain(f.Part, 80)
		if f.Value != "" {
			line += " " + strconv.Quote(cut(f.Value, 60))
		}
		if f.Message != "" {
			line += ": " + plain(f.Message, 120)
		}
		if line = strings.TrimLeft(line, ": "); line != "" {
			printf(out, "      %s\n", line)
		}
	}
}

func requests(n int) string {
	if n == 1 {
		return "1 request"
	}
	return fmt.Sprintf("%d requests", n)
}

// plain makes text of strangers fit for a terminal.
func plain(s string, most int) string {
	s = strconv.Quote(cut(s, most))
	return strings.ReplaceAll(s[1:len(s)-1], `\"`, `"`)
}

func cut(s string, most int) string {
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
