package portal

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/oidc"
)

// linkPath is where somebody returns to who links an account elsewhere: it
// says what the provider was asked for. The relying party seals it.
const linkPath = Prefix + "account/link"

// oidcBegin sends somebody to a provider. It is a link, not a form, since a
// form's answer may lead only to this site.
func (p *Portal) oidcBegin(v *visit) {
	if p.env.OIDC == nil {
		p.fail(v, http.StatusNotFound, "error.missing")
		return
	}
	if site := v.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		p.refuse(v, NotOurForm) // another site may not begin a log-in here
		return
	}
	s := oidc.Start{Host: v.Host, ReturnTo: v.way.end(), MFA: v.way.strength() >= account.Multi}
	switch pending := v.form.Get("pending"); {
	case v.form.Get("link") != "":
		if v.sessionID() == "" {
			v.to(LogInPath(Prefix+"account", ""))
			return
		}
		s.ReturnTo = linkPath
	case pending != "":
		q := url.Values{"pending": {pending}, "end": {v.way.end()}}
		s.ReturnTo, s.Fresh = Prefix+"prove?"+q.Encode(), true
	case s.ReturnTo == linkPath || strings.HasPrefix(s.ReturnTo, Prefix+"prove?"):
		s.ReturnTo = "/"
	}
	to, err := p.env.OIDC.Begin(v.Context(), v.last(), s)
	if err != nil {
		p.oidcFailed(v, err)
		return
	}
	http.SetCookie(v.w, oidc.Cookie(to.Cookie))
	v.to(to.URL)
}

func (p *Portal) oidcCallback(v *visit) {
	if p.env.OIDC == nil {
		p.fail(v, http.StatusNotFound, "error.missing")
		return
	}
	a := oidc.Answer{Provider: v.last(), Host: v.Host, Query: v.URL.Query()}
	if c := v.CookiesNamed(oidc.CookieName); len(c) == 1 {
		a.Cookie = c[0].Value
	}
	http.SetCookie(v.w, oidc.Cookie(""))
	// What a browser brings from elsewhere is no form of ours and says nothing
	// about where to go.
	v.form, v.way = url.Values{}, way{Return: "/"}
	proof, err := p.env.OIDC.Callback(v.Context(), a)
	if err != nil {
		p.oidcFailed(v, err)
		return
	}
	p.vouched(v, proof)
}

// vouched goes on with what a provider has said.
func (p *Portal) vouched(v *visit, proof oidc.Proof) {
	if proof.ReturnTo == linkPath {
		step, err := p.env.Desk.Link(v.desk(), proof)
		switch {
		case err == nil && step.State == identity.Done:
			p.done(v, "linked", step)
		case err == nil && step.State == identity.Taken:
			p.showAccount(v, page{status: http.StatusConflict, fail: "fail.taken-provider"})
		default:
			p.nextAccount(v, step, err, "fail.provider", "")
		}
		return
	}
	pending := ""
	v.way.Return = proof.ReturnTo
	if q, ok := strings.CutPrefix(proof.ReturnTo, Prefix+"prove?"); ok {
		f, err := url.ParseQuery(q)
		if err != nil {
			p.unable(v, err)
			return
		}
		pending, v.way.Return = f.Get("pending"), account.SafeReturn(f.Get("end"))
	}
	step, err := p.env.Desk.Provider(v.desk(), pending, proof)
	retry := logInAgain(v, "fail.provider")
	retry.field = ""
	p.next(v, step, err, retry)
}

// oidcFailed shows that it did not work. What was wrong is for the operator.
func (p *Portal) oidcFailed(v *visit, err error) {
	status, reason := http.StatusForbidden, oidc.TokenRefused
	if e, ok := errors.AsType[*oidc.Error](err); ok {
		reason = e.Reason
	}
	switch reason {
	case oidc.UnknownProvider:
		status = http.StatusNotFound
	case oidc.ProviderDown:
		status = http.StatusBadGateway
	}
	d := merlon.Refuse(status, reason)
	d.Err = err
	v.Record("portal", d)
	p.env.Log.Warn("portal: no log-in at the provider", "id", v.ID, "provider", v.last(), "reason", reason, "error", err)
	pg := logInAgain(v, "fail.provider")
	pg.status, pg.field = status, ""
	p.show(v, pg)
}

// oidcLogout takes a provider's word that a session is over (OpenID Connect
// Back-Channel Logout 1.0). It comes from the provider's server, not from a
// browser: the token alone proves it.
func (p *Portal) oidcLogout(v *visit) {
	if p.env.OIDC == nil {
		p.json(v, http.StatusNotFound, map[string]string{"error": "invalid_request"})
		return
	}
	l, err := p.env.OIDC.VerifyLogoutToken(v.Context(), v.last(), v.form.Get("logout_token"))
	if err != nil {
		d := merlon.Refuse(http.StatusBadRequest, oidc.LogoutRefused)
		d.Err = err
		v.Record("portal", d)
		p.json(v, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
		return
	}
	if err := p.env.Desk.EndedElsewhere(v.desk(), l.Issuer, l.Subject, l.SID); err != nil {
		p.env.Log.Error("portal: sessions cannot be ended", "id", v.ID, "error", err)
		p.json(v, http.StatusServiceUnavailable, map[string]string{"error": "temporarily_unavailable"})
		return
	}
	p.json(v, http.StatusOK, map[string]string{})
}
