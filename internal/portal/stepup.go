package portal

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/internal/portal/resume"
)

// resumeData is for the page that sends a kept request again.
type resumeData struct{ Target, Field, Ticket string }

// provePage asks who is signed in to prove it again.
func (p *Portal) provePage(v *visit) {
	step, err := p.env.Desk.StepUp(v.desk(), v.way.strength())
	if err == nil && step.State == identity.Anonymous {
		v.to(Prefix + "login" + v.way.query())
		return
	}
	if err == nil && step.State == identity.Second {
		p.show(v, p.second(v, step.Options, step.Name, step.Pending, true))
		return
	}
	p.next(v, step, err, page{name: "error", fail: "fail.stale"})
}

// askAgain asks for a fresh proof and keeps what was sent until it is there.
// What cannot be kept must be sent again by hand.
func (p *Portal) askAgain(v *visit) {
	w := way{Return: Prefix + "account"}
	if v.Method == http.MethodPost && p.env.Resume != nil {
		ticket, cookie, err := p.env.Resume.Keep(v.Request)
		if err == nil {
			http.SetCookie(v.w, cookie)
			w = way{Return: "/", Ticket: ticket}
		} else if !errors.Is(err, resume.ErrFull) {
			p.env.Log.Warn("portal: a form cannot be kept", "id", v.ID, "error", err)
		}
	}
	v.to(Prefix + "prove" + w.query())
}

// putBack puts a form of ours that was kept in the place of the one that brings
// its ticket, as the gateway does for those of the site, or shows why there is
// none. The token of the kept one is looked at again.
func (p *Portal) putBack(v *visit) bool {
	if p.env.Resume == nil {
		return true
	}
	what, kept, err := p.env.Resume.Swap(v.Request)
	switch {
	case errors.Is(err, resume.ErrGone), kept && (v.Identity == nil || v.Identity.Subject != what.For):
		p.notKept(v)
	case err != nil:
		p.unable(v, err)
	default:
		return true
	}
	return false
}

func (p *Portal) notKept(v *visit) {
	p.show(v, page{name: "message", status: http.StatusNotFound, data: message{Kind: "not-kept"}})
}

// resumePage sends a kept request again, from the site's own page as before:
// by itself with a script, by a button without one.
func (p *Portal) resumePage(v *visit) {
	ticket := v.form.Get("ticket")
	if p.env.Resume == nil {
		p.fail(v, http.StatusNotFound, "error.missing")
		return
	}
	what, err := p.env.Resume.Release(v.Request, ticket, v.Identity.Subject)
	if errors.Is(err, resume.ErrGone) {
		p.notKept(v)
		return
	}
	if err != nil {
		p.unable(v, err)
		return
	}
	// Where the site's answer leads is the site's business, as if its own page
	// had sent the form.
	p.show(v, page{name: "resume", formTo: "https:", data: resumeData{what.Target, resume.Field, ticket}})
}

// ProveQuery returns what a provider's button on the page for a fresh proof
// is followed by.
func (v view) ProveQuery() string {
	q, _ := url.ParseQuery(trimQuestion(v.Way.query())) // made by Encode
	q.Set("pending", v.Pending)
	return "?" + q.Encode()
}

func trimQuestion(s string) string {
	if s != "" && s[0] == '?' {
		return s[1:]
	}
	return s
}
