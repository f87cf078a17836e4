package portal

import (
	"github.com/merlon-dev/merlon/identity"
)

func (p *Portal) logOutPage(v *visit) {
	if v.sessionID() == "" {
		p.signedOut(v)
		return
	}
	p.show(v, page{name: "logout"})
}

func (p *Portal) signedOut(v *visit) {
	p.show(v, page{name: "message", data: message{Kind: "signed-out", Next: Prefix + "login", Label: "back.login"}})
}

// logOut ends this session, or all of them, and tells the applications that
// people have signed in to through us.
func (p *Portal) logOut(v *visit) {
	if v.form.Get("everywhere") != "" && v.sessionID() != "" {
		if _, err := p.env.Desk.EndSession(v.desk(), ""); err != nil {
			p.unable(v, err)
			return
		}
		if err := p.applications(v, ""); err != nil {
			p.unable(v, err)
			return
		}
	}
	if err := p.endHere(v); err != nil {
		p.unable(v, err)
		return
	}
	p.signedOut(v)
}

// endHere ends the session of the request. The page that follows belongs to
// nobody.
func (p *Portal) endHere(v *visit) error {
	if _, err := p.env.Desk.LogOut(v.desk()); err != nil {
		return err
	}
	err := p.applications(v, v.sessionID())
	v.Identity = nil
	return err
}

// applications tells those that have signed somebody in through us that a
// session is over, or all of them.
func (p *Portal) applications(v *visit, session string) error {
	s := p.provider.Load()
	if s == nil || v.Identity == nil {
		return nil
	}
	return s.LoggedOut(v.Context(), v.Identity.Subject, session)
}

func (p *Portal) endSession(v *visit) {
	id := v.form.Get("id")
	if id == "" {
		p.refuse(v, NotOurForm)
		return
	}
	p.end(v, id)
}

func (p *Portal) endSessions(v *visit) { p.end(v, "") }

func (p *Portal) end(v *visit, id string) {
	var over []string
	if id != "" {
		over = []string{id}
	} else if list, err := p.env.Sessions.List(v.Context(), v.Identity.Subject); err == nil {
		for _, s := range list {
			if s.ID != v.sessionID() {
				over = append(over, s.ID)
			}
		}
	}
	step, err := p.env.Desk.EndSession(v.desk(), id)
	if err != nil || step.State != identity.Done {
		p.nextAccount(v, step, err, "fail.wrong", "")
		return
	}
	for _, s := range over {
		if err := p.applications(v, s); err != nil {
			p.unable(v, err)
			return
		}
	}
	p.done(v, "ended", step)
}
