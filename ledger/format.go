package ledger

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
)

// Colours of the kinds, as ANSI escapes.
const (
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	blue   = "\x1b[34m"
	bold   = "\x1b[1m"
	reset  = "\x1b[0m"
)

func colourOf(k Kind) string {
	switch k {
	case Refusal, ResponseRefusal:
		return red
	case Challenge, Monitored, Shadow:
		return yellow
	case Alarm:
		return bold + red
	case Admin:
		return blue
	}
	return ""
}

// Format writes e as one line for people: time, kind, what happened. Nothing
// in e can steer the terminal.
func Format(w io.Writer, e Event, colour bool) error {
	var b strings.Builder
	b.WriteString(e.Time.UTC().Format("2006-01-02T15:04:05.000Z"))
	kind := fmt.Sprintf("  %-16s", visible(string(e.Kind)))
	if c := colourOf(e.Kind); colour && c != "" {
		kind = c + kind + reset
	}
	b.WriteString(kind)
	add := func(s string) {
		if s != "" {
			b.WriteString("  " + visible(s))
		}
	}
	if e.Status != 0 {
		add(fmt.Sprint(e.Status))
	}
	add(join(" ", e.Guard, string(e.Reason)))
	add(join(" ", e.Client, e.Subject))
	if e.Method != "" {
		add(e.Method + " " + e.Host + shorten(e.Path, 120))
	}
	if e.Guard == "" && e.Kind != Access {
		add(e.Name)
	}
	add(e.Message)
	for _, k := range sortedKeys(e.Attrs) {
		add(k + "=" + e.Attrs[k])
	}
	add(e.ID)
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

func join(sep string, parts ...string) string {
	out := parts[:0:0]
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, sep)
}

// An explainer writes prose, 80 columns wide.
type explainer struct {
	b      strings.Builder
	reason func(guard, reason string) string
}

const columns = 80

// para writes a paragraph, each line after indent spaces.
func (x *explainer) para(indent int, format string, args ...any) {
	text := visible(fmt.Sprintf(format, args...))
	width := 0
	for word := range strings.FieldsSeq(text) {
		n := len([]rune(word))
		if width > 0 && width+1+n > columns {
			x.b.WriteByte('\n')
			width = 0
		}
		if width == 0 {
			x.b.WriteString(strings.Repeat(" ", indent))
			width = indent
		} else {
			x.b.WriteByte(' ')
			width++
		}
		x.b.WriteString(word)
		width += n
	}
	x.b.WriteByte('\n')
}

func (x *explainer) gap() { x.b.WriteByte('\n') }

// lines writes text as it stands, line by line.
func (x *explainer) lines(indent int, text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		x.b.WriteString(strings.Repeat(" ", indent) + visible(line) + "\n")
	}
}

// Explain writes in plain words what an event is about: what was asked, which
// guard decided and why, what it saw, what the others said, and the smallest
// change to the configuration that would let it pass. reason gives the manual's
// text on a guard's reason, or ""; it may be nil.
func Explain(w io.Writer, e Event, reason func(guard, reason string) string) error {
	x := &explainer{reason: reason}
	if x.reason == nil {
		x.reason = func(string, string) string { return "" }
	}
	x.asked(e)
	x.gap()
	x.decided(e)
	x.others(e)
	x.remedy(e)
	_, err := io.WriteString(w, x.b.String())
	return err
}

func (x *explainer) asked(e Event) {
	when := e.Time.UTC().Format("2 January 2006 at 15:04:05 UTC")
	if e.Method == "" {
		x.para(0, "%s: %s", when, join(" ", string(e.Kind), e.Name))
		if e.Message != "" {
			x.para(0, "%s", e.Message)
		}
		for _, k := range sortedKeys(e.Attrs) {
			x.para(2, "%s: %s", k, e.Attrs[k])
		}
		return
	}
	who := "an anonymous client"
	if e.Subject != "" {
		who = e.Subject
	}
	if e.Client != "" {
		who += " at " + e.Client
	}
	x.para(0, "On %s %s asked for", when, who)
	x.para(4, "%s %s%s", e.Method, e.Host, e.Path)
	where := "no site (none serves this host)"
	if e.Site != "" {
		where = "site " + e.Site
		if e.Route != "" {
			where += ", route " + e.Route
		}
	}
	x.para(0, "which belongs to %s.", where)
}

func (x *explainer) decided(e Event) {
	if e.Method == "" && e.Guard == "" {
		return
	}
	switch e.Kind {
	case Monitored:
		x.para(0, "It passed, with status %d, because %s is only monitored: otherwise %s would have refused it (%s).",
			e.Status, e.Guard, e.Guard, e.Reason)
	case Shadow:
		x.para(0, "It passed, with status %d. The shadow of %s, another configuration of it that is not obeyed, would have refused it (%s).",
			e.Status, e.Guard, e.Reason)
	case Challenge:
		x.para(0, "%s asked for proof of who it is, with status %d (%s).", e.Guard, e.Status, e.Reason)
	case ResponseRefusal:
		x.para(0, "%s refused it with status %d after the upstream had been asked (%s). The upstream may have acted on it.",
			e.Guard, e.Status, e.Reason)
	case Refusal:
		x.para(0, "%s refused it with status %d (%s). The upstream did not see it.", e.Guard, e.Status, e.Reason)
	default:
		x.para(0, "It passed all guards and was answered with status %d.", e.Status)
	}
	if e.Count > 1 {
		x.para(0, "This record stands for %s requests that were counted in a flood.", thousands(e.Count))
	}
	if text := x.reason(e.Guard, string(e.Reason)); text != "" {
		x.gap()
		x.para(0, "%s", text)
	}
	if e.Inspected > 0 && e.Inspected < e.BytesIn {
		x.para(0, "Guards looked at the first %s of %s bytes of the body.", thousands(uint64(e.Inspected)), thousands(uint64(e.BytesIn)))
	}
	for _, v := range e.Verdicts {
		if about(e, v) {
			x.saw(v)
		}
	}
}

// about reports whether a verdict is the one that the event is about.
func about(e Event, v Verdict) bool {
	return v.Guard == e.Guard && v.Effect != merlon.Allow && v.Shadow == (e.Kind == Shadow)
}

// speaker names who gave a verdict.
func speaker(v Verdict) string {
	if v.Shadow {
		return "the shadow of " + v.Guard
	}
	return v.Guard
}

// saw writes a verdict's findings and error.
func (x *explainer) saw(v Verdict) {
	if len(v.Findings) > 0 {
		x.gap()
		x.para(0, "What %s saw:", speaker(v))
	}
	for _, f := range v.Findings {
		head := f.Message
		if f.Rule != "" {
			head = join(": ", "rule "+f.Rule, f.Message)
		}
		x.para(2, "- %s", join(", in ", head, f.Part))
		if f.Value != "" {
			x.lines(6, f.Value)
		}
	}
	if v.Error != "" {
		x.gap()
		x.para(0, "Its error:")
		x.lines(4, v.Error)
	}
}

func (x *explainer) others(e Event) {
	var passed []string
	for _, v := range e.Verdicts {
		if about(e, v) {
			continue
		}
		if v.Effect == merlon.Allow {
			passed = append(passed, join(" ", speaker(v), paren(string(v.Reason))))
			continue
		}
		x.gap()
		verb := "would also have refused it"
		if v.Monitored {
			verb += ", but is only monitored"
		}
		x.para(0, "%s %s (%s).", speaker(v), verb, v.Reason)
		x.saw(v)
	}
	if len(passed) > 0 {
		x.gap()
		x.para(0, "Guards that let it pass: %s.", strings.Join(passed, ", "))
	}
}

func paren(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}

func (x *explainer) remedy(e Event) {
	if e.Guard == "" || e.Kind == Access {
		return
	}
	x.gap()
	if e.Remedy == "" {
		x.para(0, "No setting is known that would let exactly this pass and nothing worse.")
		if e.Kind == Refusal || e.Kind == Challenge {
			x.para(0, "The client would have to ask differently.")
		}
		return
	}
	where := "the site " + e.Site
	if e.Site == "" {
		where = "the site that is meant"
	}
	scope := "every request of the site"
	if e.Route != "" {
		where = "the route " + e.Route + " of " + where
		scope = "every request of the route"
	}
	x.para(0, "If this request is right, the smallest change that lets it pass is this, in %s:", where)
	x.gap()
	x.lines(4, e.Remedy)
	x.gap()
	x.para(0, "It opens for %s what the setting says, not only for this client. Try it with: merlon check", scope)
}

// Since turns "1h", "7d" or an RFC 3339 time into a Filter's Since or Until.
func Since(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d.Abs()), nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.Add(-time.Duration(n) * 24 * time.Hour), nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: must be a duration back from now such as 1h, or a time such as 2026-01-31T12:00:00Z", text)
}
