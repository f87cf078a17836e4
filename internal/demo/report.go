package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// A Row of a report is one attack at both addresses.
type Row struct {
	Attack
	Bare  Result `json:"bare"`
	Gated Result `json:"gated"`
	// StoppedBy names what stopped the attack at the gate: guard, reason, rule.
	StoppedBy string `json:"stopped_by,omitempty"`
}

// A Report is what every attack and its twin came to.
type Report struct {
	Rows []Row `json:"attacks"`
}

// A Trial is where attacks are fired at.
type Trial struct {
	Bare   string // the shop itself
	Gated  string // the gateway in front of it
	Client *http.Client
	People *People  // who has an account at the gateway's log-in
	Fire   []Attack // what is fired; nil: every attack
	// Explain tells what the gateway did to the request with the given id, as
	// "guard: reason (rule)"; it may be nil or know nothing.
	Explain func(id string) string
}

// Run fires the attacks and their twins at both addresses, one after another.
func (t Trial) Run(ctx context.Context) Report {
	var report Report
	fire := t.Fire
	if fire == nil {
		fire = Attacks()
	}
	for _, a := range fire {
		row := Row{Attack: a, Bare: a.Fire(ctx, t.Client, t.Bare, nil), Gated: a.Fire(ctx, t.Client, t.Gated, t.People)}
		if shot := row.Gated.Attack; shot.stopped() {
			row.StoppedBy = shot.stoppedBy(t.Explain)
		}
		report.Rows = append(report.Rows, row)
	}
	return report
}

func (s Shot) stoppedBy(explain func(id string) string) string {
	if s.How != "" {
		return s.How
	}
	if explain != nil && s.ID != "" {
		if by := explain(s.ID); by != "" {
			if s.Then != "" {
				by += ", then " + explain(s.Then)
			}
			if s.Seen != "" {
				by += "; " + s.Seen
			}
			return by
		}
	}
	if s.Status < 400 {
		return "the answer did not carry it"
	}
	return strings.TrimSpace(fmt.Sprintf("status %d %s", s.Status, s.ID))
}

// Problems says what is wrong: an attack that gets through the gate although
// a guard should stop it, a legitimate use that fails, an attack that shows
// nothing because the bare shop withstands it. No attack at all is wrong, too.
func (r Report) Problems() []string {
	var wrong []string
	note := func(row Row, format string, args ...any) {
		wrong = append(wrong, row.Name+": "+fmt.Sprintf(format, args...))
	}
	for _, row := range r.Rows {
		if s := row.Bare.Attack; !s.Worked {
			note(row, "the attack fails on the bare shop, so the demo shows nothing (%s)", s.answer())
		}
		if s := row.Gated.Attack; s.Worked && row.NotYet == "" {
			note(row, "the attack gets through behind Merlon: %s", s.Evidence)
		} else if !s.Worked && !s.stopped() {
			note(row, "the attack met something broken behind Merlon (%s)", s.answer())
		}
		if s := row.Bare.Twin; !s.Worked {
			note(row, "a legitimate use fails on the bare shop: %s (%s)", row.Twin, s.answer())
		}
		if s := row.Gated.Twin; !s.Worked {
			note(row, "a legitimate use fails behind Merlon: %s (%s)", row.Twin, s.answer())
		}
	}
	if len(r.Rows) == 0 {
		wrong = append(wrong, "no attack was fired")
	}
	return wrong
}

func (s Shot) answer() string {
	if s.Err != "" {
		return s.Err
	}
	return strings.TrimSpace(fmt.Sprintf("status %d %s", s.Status, s.ID))
}

// OK reports whether the demo shows what it should; see [Report.Problems].
func (r Report) OK() bool { return len(r.Problems()) == 0 }

// The colours of a terminal.
const (
	red, green, yellow, dim, bold = "31", "32", "33", "2", "1"
)

// A pen writes the report.
type pen struct {
	w      io.Writer
	colour bool
	err    error
}

func (p *pen) print(parts ...string) {
	_, err := io.WriteString(p.w, strings.Join(parts, ""))
	p.err = errors.Join(p.err, err)
}

// cell pads a text to width and paints it.
func (p *pen) cell(width int, colour, text string) string {
	pad := strings.Repeat(" ", max(0, width-len([]rune(text))))
	return p.paint(colour, text) + pad
}

func (p *pen) paint(colour, text string) string {
	if !p.colour || colour == "" || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

const (
	whatWidth  = 48
	placeWidth = 14
)

// Write writes the report as a table, and what is wrong below it.
func (r Report) Write(w io.Writer, colour bool) error {
	p := &pen{w: w, colour: colour}
	p.print(p.cell(whatWidth, bold, "ATTACK, and its legitimate twin"), p.cell(placeWidth, bold, "BARE SHOP"),
		p.cell(placeWidth, bold, "BEHIND MERLON"), " ", p.paint(bold, "STOPPED BY"), "\n")
	var stopped, notYet int
	for _, row := range r.Rows {
		p.row(row)
		if row.Gated.Attack.stopped() {
			stopped++
		} else if row.NotYet != "" && row.Gated.Attack.Worked {
			notYet++
		}
	}
	p.print("\n", fmt.Sprintf("%d attacks: %d stopped, %d not yet.", len(r.Rows), stopped, notYet), "\n")
	if wrong := r.Problems(); len(wrong) > 0 {
		p.print(p.paint(red, "Wrong:"), "\n")
		for _, problem := range wrong {
			p.print("  ", problem, "\n")
		}
	} else {
		p.print(p.paint(green, "Every legitimate use worked, and nothing got through that should not."), "\n")
	}
	return p.err
}

func (p *pen) row(row Row) {
	bareColour, bare := attackWord(row.Bare.Attack, "")
	gatedColour, gated := attackWord(row.Gated.Attack, row.NotYet)
	if row.Bare.Attack.Worked {
		bareColour = yellow
	}
	by := row.StoppedBy
	if row.Gated.Attack.Worked {
		by = row.NotYet
	}
	p.print(p.cell(whatWidth, "", row.Title), p.cell(placeWidth, bareColour, bare), p.cell(placeWidth, gatedColour, gated), " ", by, "\n")
	p.print(p.cell(whatWidth, dim, "  "+row.Twin), p.twin(row.Bare.Twin), p.twin(row.Gated.Twin), "\n")
	if e := row.Bare.Attack.Evidence; e != "" {
		p.print(p.paint(dim, "  → bare: "+e), "\n")
	}
}

func (p *pen) twin(s Shot) string {
	if s.Worked {
		return p.cell(placeWidth, dim, "works")
	}
	return p.cell(placeWidth, red, "FAILS")
}

func attackWord(s Shot, notYet string) (colour, word string) {
	switch {
	case s.Worked && notYet != "":
		return yellow, "not yet"
	case s.Worked:
		return red, "got through"
	case s.stopped():
		return green, "stopped"
	default:
		return red, "BROKEN"
	}
}
