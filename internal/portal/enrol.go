package portal

import (
	"encoding/base64"
	"html/template"
	"time"

	"github.com/merlon-dev/merlon/identity"
)

type enrolData struct{ By time.Time }

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
		p.next(v, step, err, page{name: "enrol", pending: pending, fail: "fail.passkey", data: enrolData{}})
		return
	}
	if err == nil && step.State == identity.Done {
		p.done(v, "added", step)
		return
	}
	p.nextAccount(v, step, err, "fail.passkey", "")
}
