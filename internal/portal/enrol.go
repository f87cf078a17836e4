package portal

import (
	"encoding/base64"
	"html/template"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/identity"
)

// enrolData is for the page that asks for another factor.
type enrolData struct {
	By  time.Time
	App bool // an authenticator app would be enough
}

// enrol is the page that asks for another factor. Of options, as of what the
// page for one more proof carries with it, only the look hangs on it.
func enrol(pending string, options []string, by time.Time) page {
	return page{
		name: "enrol", pending: pending, extra: url.Values{"options": {strings.Join(options, ",")}},
		data: enrolData{By: by, App: len(options) == 0 || slices.Contains(options, identity.OptTOTP)},
	}
}

// totpData is for the page of a new authenticator app. After a wrong code the
// page has no QR code any more: what was shown once is not shown again, nor is
// it sent back and forth (trap 46).
type totpData struct {
	QR     template.URL
	Secret string
	Ticket string
}

type codesData struct {
	Codes []string
	Next  string
}

func (p *Portal) enrolTOTP(v *visit) {
	pending := v.form.Get("pending")
	e, step, err := p.env.Desk.EnrolTOTP(v.desk(), pending)
	if err != nil || step.State != identity.Enrol {
		p.nextEnrol(v, step, err)
		return
	}
	p.show(v, page{name: "totp", pending: pending, data: totpData{
		QR:     template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(e.QR)),
		Secret: e.Secret, Ticket: e.Ticket,
	}})
}

func (p *Portal) confirmTOTP(v *visit) {
	pending, ticket := v.form.Get("pending"), v.form.Get("ticket")
	step, err := p.env.Desk.ConfirmTOTP(v.desk(), pending, ticket, v.form.Get("code"), v.form.Get("name"))
	if err == nil && (step.State == identity.Wrong || step.State == identity.Wait) {
		p.next(v, step, nil, page{name: "totp", pending: pending, fail: "fail.code", field: "code", data: totpData{Ticket: ticket}})
		return
	}
	p.nextEnrol(v, step, err)
}

func (p *Portal) enrolPasskey(v *visit) {
	c, step, err := p.env.Desk.EnrolPasskey(v.desk(), v.form.Get("pending"), kindOf(v.form.Get("kind")))
	p.challenge(v, c, step, err)
}

func (p *Portal) confirmPasskey(v *visit) {
	step, err := p.env.Desk.ConfirmPasskey(v.desk(), v.form.Get("pending"), kindOf(v.form.Get("kind")), v.form.Get("ticket"), []byte(v.form.Get("answer")), v.form.Get("name"))
	p.nextEnrol(v, step, err)
}

// kindOf says whether a key proves its owner, too, by a PIN or finger.
func kindOf(kind string) string {
	if kind == identity.OptSecurityKey {
		return kind
	}
	return identity.OptPasskey
}

// nextEnrol goes on after a factor was added, or was not: to the account of
// who is signed in, or along the log-in.
func (p *Portal) nextEnrol(v *visit, step identity.Step, err error) {
	pending := v.form.Get("pending")
	if pending != "" {
		retry := enrol(pending, optionsOf(v.form.Get("options")), time.Time{})
		retry.fail = "fail.passkey"
		p.next(v, step, err, retry)
		return
	}
	if err == nil && step.State == identity.Done {
		p.done(v, "added", step)
		return
	}
	p.nextAccount(v, step, err, "fail.passkey", "")
}
