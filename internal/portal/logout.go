package portal

import (
	"context"
	"time"

	"github.com/merlon-dev/merlon/identity"
)

func (p *Portal) logOutPage(v *visit) {
	if v.sessionID() == "" {
		p.signedOut(v, elsewhere{})
		return
	}
	p.show(v, page{name: "logout"})
}

// elsewhere is where somebody may sign out as well.
type elsewhere struct{ Label, URL string }

func (p *Portal) signedOut(v *visit, e elsewhere) {
	p.show(v, page{name: "message", data: message{Kind: "signed-out", Next: Prefix + "login", Label: "back.login", Elsewhere: e}})
}

// logOut ends this session, or all of them. Whose session a provider stood
// behind is offered to sign out there: the next one at this browser could
// otherwise sign in with a click.
func (p *Portal) logOut(v *visit) {
	behind, err := p.env.Desk.Elsewhere(v.desk())
	if err != nil {
		p.env.Log.Warn("portal: nobody can be offered to sign out elsewhere", "id", v.ID, "error", err)
	}
	end := p.env.Desk.LogOut
	if v.form.Get("everywhere") != "" {
		end = p.env.Desk.LogOutEverywhere
	}
	if _, err := end(v.desk()); err != nil {
		p.unable(v, err)
		return
	}
	v.Identity = nil // the page that follows belongs to nobody
	p.signedOut(v, p.elsewhere(v, behind))
}

// endElsewhere is how long a provider may take to say where people sign out.
// What it said lately is known.
const endElsewhere = 2 * time.Second

// elsewhere returns where to sign out at the provider, from where people come
// back to a page of ours and nowhere else.
func (p *Portal) elsewhere(v *visit, behind identity.Elsewhere) elsewhere {
	var out elsewhere
	name := ""
	for _, b := range p.buttons {
		if b.Issuer == behind.Issuer && (name == "" || b.Name == behind.Provider) {
			name, out.Label = b.Name, b.Label
		}
	}
	if name == "" {
		return elsewhere{} // nobody, or it is not configured any more
	}
	ctx, cancel := context.WithTimeout(v.Context(), endElsewhere)
	defer cancel()
	var err error
	out.URL, err = p.env.OIDC.EndSessionURL(ctx, name, behind.IDToken, v.Host, Prefix+"logout")
	if err != nil {
		p.env.Log.Warn("portal: nobody can be offered to sign out elsewhere", "id", v.ID, "provider", name, "error", err)
	}
	if out.URL == "" {
		return elsewhere{}
	}
	return out
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
	step, err := p.env.Desk.EndSession(v.desk(), id)
	if err != nil || step.State != identity.Done {
		p.nextAccount(v, step, err, "fail.wrong", "")
		return
	}
	p.done(v, "ended", step)
}
