package portal

import (
	"net/http"
	"net/url"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
)

// message is for pages that say one thing.
type message struct {
	Kind  string // of the texts message.<kind>.title and .text
	Next  string
	Label string // the key of the button's text
	// Elsewhere is where to sign out as well.
	Elsewhere elsewhere
}

// linkData is for the page that a link in a letter opens. The link is used by
// its form alone: mail systems open links, and must not use them up (trap 50).
type linkData struct{ Kind, Action, Secret string }

// joinData is for the page that makes an account.
type joinData struct {
	First         bool
	Secret, Email string
	Name          string
	Weak          []string
}

const maxSecret = 128

func secretOf(f url.Values) string {
	s := f.Get("token")
	if len(s) > maxSecret {
		return ""
	}
	return s
}

func (p *Portal) gone(v *visit) {
	p.show(v, page{name: "message", status: http.StatusNotFound, data: message{Kind: "gone", Next: Prefix + "login", Label: "back.login"}})
}

// holds shows that a link is no longer good, or returns true.
func (p *Portal) holds(v *visit, purpose string) (email string, ok bool) {
	email, ok, err := p.env.Desk.LinkHolds(v.Context(), purpose, secretOf(v.form))
	switch {
	case err != nil:
		p.unable(v, err)
		return "", false
	case !ok:
		p.gone(v)
	}
	return email, ok
}

func (p *Portal) recoverPage(v *visit) { p.show(v, page{name: "recover"}) }

func (p *Portal) askRecover(v *visit) {
	step, err := p.env.Desk.AskRecover(v.desk(), v.form.Get("name"))
	p.next(v, step, err, page{name: "recover", fail: "fail.wrong", field: "name"})
}

func (p *Portal) recoverLink(v *visit) {
	if _, ok := p.holds(v, account.RecoverLink); ok {
		p.show(v, page{name: "link", data: linkData{"recover", Prefix + "recover/link", secretOf(v.form)}})
	}
}

func (p *Portal) recover(v *visit) {
	step, err := p.env.Desk.Recover(v.desk(), secretOf(v.form))
	if err == nil && step.State == identity.Stale {
		p.gone(v)
		return
	}
	p.next(v, step, err, page{name: "link", fail: "fail.wrong", data: linkData{"recover", Prefix + "recover/link", secretOf(v.form)}})
}

func (p *Portal) verifyLink(v *visit) {
	if _, ok := p.holds(v, account.EmailLink); ok {
		p.show(v, page{name: "link", data: linkData{"verify", Prefix + "verify", secretOf(v.form)}})
	}
}

func (p *Portal) verify(v *visit) {
	step, err := p.env.Desk.ConfirmEmail(v.desk(), secretOf(v.form))
	switch {
	case err != nil:
		p.unable(v, err)
	case step.State == identity.Done:
		p.show(v, page{name: "message", data: message{Kind: "verified", Next: Prefix + "account", Label: "continue"}})
	case step.State == identity.Taken:
		p.fail(v, http.StatusConflict, "fail.taken-email")
	default:
		p.gone(v)
	}
}

func (p *Portal) registerPage(v *visit) {
	if p.env.Register != "open" {
		p.next(v, identity.Step{State: identity.Closed}, nil, page{})
		return
	}
	p.show(v, page{name: "register"})
}

func (p *Portal) askRegister(v *visit) {
	step, err := p.env.Desk.AskRegister(v.desk(), v.form.Get("email"))
	p.next(v, step, err, page{name: "register", fail: "fail.email", field: "email"})
}

func (p *Portal) joinPage(v *visit) {
	if p.env.Register != "open" && p.env.Register != "invite" { // or somebody chooses a password in vain
		p.next(v, identity.Step{State: identity.Closed}, nil, page{})
		return
	}
	if email, ok := p.holds(v, account.InviteLink); ok {
		p.show(v, page{name: "join", data: joinData{Secret: secretOf(v.form), Email: email}})
	}
}

func (p *Portal) join(v *visit) {
	secret := secretOf(v.form)
	step, err := p.env.Desk.Register(v.desk(), secret, v.form.Get("display"), v.form.Get("new"))
	if err == nil && step.State == identity.Stale {
		p.gone(v)
		return
	}
	email := ""
	if err == nil && step.State != identity.SignedIn {
		email, _, err = p.env.Desk.LinkHolds(v.Context(), account.InviteLink, secret)
	}
	p.next(v, step, err, page{
		name: "join", fail: "fail.wrong", field: "new",
		data: joinData{Secret: secret, Email: email, Name: shorten(v.form.Get("display"))},
	})
}

func (p *Portal) firstPage(v *visit) {
	if _, ok := p.holds(v, account.FirstLink); ok {
		p.show(v, page{name: "join", data: joinData{First: true, Secret: secretOf(v.form)}})
	}
}

func (p *Portal) first(v *visit) {
	step, err := p.env.Desk.First(v.desk(), secretOf(v.form), v.form.Get("name"), v.form.Get("new"))
	if err == nil && (step.State == identity.Stale || step.State == identity.Taken) { // there is an account meanwhile
		p.gone(v)
		return
	}
	pg := page{
		name: "join", fail: "fail.weak", field: "new",
		data: joinData{First: true, Secret: secretOf(v.form), Name: shorten(v.form.Get("name"))},
	}
	if step.State == identity.Wrong {
		pg.fail, pg.field = "fail.taken-name", "name"
	}
	p.next(v, step, err, pg)
}
