package portal

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/internal/webpage"
)

// logInData is for the sign-in page.
type logInData struct{ Name string }

// secondData is for the page that asks for one more proof.
type secondData struct {
	Options []string
	Name    string
	Again   bool // who is asked is signed in already
	field   string
}

// Shows reports whether a way must be open, because what went wrong is in it.
func (d secondData) Shows(by string) bool {
	return d.field == by || d.field == "code" && by == identity.OptTOTP
}

// passwordData is for the page that asks for a new password.
type passwordData struct {
	Why, Name string
	Weak      []string
}

func (p *Portal) logInPage(v *visit) {
	if v.sessionID() != "" {
		v.to(v.way.end())
		return
	}
	pg := logInAgain(v, "")
	pg.status = http.StatusOK
	pg.data = logInData{shorten(v.form.Get("name"))}
	p.show(v, pg)
}

// logInAgain is the sign-in page after something went wrong. It says the same
// whatever was wrong (trap 41).
func logInAgain(v *visit, fail string) page {
	return page{name: "login", status: http.StatusForbidden, fail: fail, field: "password", data: logInData{shorten(v.form.Get("name"))}}
}

const maxName = 254

func shorten(name string) string {
	if len(name) > maxName {
		return ""
	}
	return name
}

func (p *Portal) logIn(v *visit) {
	step, err := p.env.Desk.Password(v.desk(), v.form.Get("name"), v.form.Get("password"))
	p.next(v, step, err, logInAgain(v, "fail.wrong"))
}

func (p *Portal) totp(v *visit) {
	step, err := p.env.Desk.TOTP(v.desk(), v.form.Get("pending"), v.form.Get("code"))
	p.next(v, step, err, p.secondAgain(v, "fail.code", "code"))
}

func (p *Portal) recovery(v *visit) {
	step, err := p.env.Desk.Recovery(v.desk(), v.form.Get("pending"), v.form.Get("recovery"))
	p.next(v, step, err, p.secondAgain(v, "fail.wrong", "recovery"))
}

func (p *Portal) prove(v *visit) {
	step, err := p.env.Desk.Prove(v.desk(), v.form.Get("pending"), v.form.Get("password"))
	p.next(v, step, err, p.secondAgain(v, "fail.wrong", "password"))
}

func (p *Portal) passkey(v *visit) {
	pending := v.form.Get("pending")
	retry := logInAgain(v, "fail.passkey")
	retry.field = ""
	if pending != "" {
		retry = p.secondAgain(v, "fail.passkey", "")
	}
	step, err := p.env.Desk.Passkey(v.desk(), pending, v.form.Get("ticket"), []byte(v.form.Get("answer")))
	p.next(v, step, err, retry)
}

func (p *Portal) askPasskey(v *visit) {
	c, step, err := p.env.Desk.AskPasskey(v.desk(), v.form.Get("pending"))
	p.challenge(v, c, step, err)
}

// challenge answers the portal's own script.
func (p *Portal) challenge(v *visit, c mfa.Ceremony, step identity.Step, err error) {
	status, body := http.StatusOK, map[string]any{}
	switch {
	case err != nil:
		p.env.Log.Error("portal: no answer", "id", v.ID, "path", v.URL.Path, "error", err)
		status = http.StatusServiceUnavailable
	case step.State == identity.Second || step.State == identity.Enrol:
		body["ticket"], body["options"], body["pending"] = c.Ticket, c.Options, step.Pending
	case step.State == identity.Prove:
		status, body["go"] = http.StatusUnauthorized, Prefix+"prove"+way{Return: Prefix + "account"}.query()
	case step.State == identity.Anonymous:
		status, body["go"] = http.StatusUnauthorized, LogInPath(Prefix+"account", "")
	case step.State == identity.Wait:
		status = http.StatusTooManyRequests
		v.w.Header().Set("Retry-After", itoa(seconds(step.Wait)))
	default:
		status = http.StatusConflict
	}
	p.json(v, status, body)
}

func (p *Portal) json(v *visit, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		p.unable(v, err)
		return
	}
	h := v.w.Header()
	webpage.Secure(h)
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Content-Type", "application/json")
	v.w.WriteHeader(status)
	_, _ = v.w.Write(b)
}

func (p *Portal) setPassword(v *visit) {
	step, err := p.env.Desk.SetPassword(v.desk(), v.form.Get("pending"), v.form.Get("new"))
	p.next(v, step, err, page{
		name: "password", pending: v.form.Get("pending"), fail: "fail.wrong", field: "new",
		data: passwordData{Why: whyOf(v.form.Get("why")), Name: shorten(v.form.Get("name"))},
	})
}

// whyOf lets through only reasons that there are words for.
func whyOf(why string) string {
	if why == "must-change" || why == "breached" || why == "recover" {
		return why
	}
	return ""
}

// next shows what the desk's answer leads to. Retry is the page that was
// answered, for what may be tried again.
func (p *Portal) next(v *visit, step identity.Step, err error, retry page) {
	if err != nil {
		p.unable(v, err)
		return
	}
	retry.pending = cmp.Or(step.Pending, retry.pending)
	switch step.State {
	case identity.SignedIn:
		p.signedIn(v, step)
	case identity.Second:
		p.show(v, p.second(v, step.Options, step.Name, step.Pending, v.form.Get("again") != ""))
	case identity.NewPassword:
		p.show(v, page{name: "password", pending: step.Pending, data: passwordData{Why: whyOf(step.Why), Name: step.Name}})
	case identity.Enrol:
		p.show(v, enrol(step.Pending, step.Options, step.EnrolBy))
	case identity.Prove:
		p.askAgain(v)
	case identity.Anonymous:
		v.to(LogInPath(Prefix+"account", ""))
	case identity.Sent:
		p.show(v, page{name: "message", data: message{Kind: "sent", Next: Prefix + "login", Label: "back.login"}})
	case identity.Closed:
		p.show(v, page{name: "message", status: http.StatusForbidden, data: message{Kind: "closed", Next: Prefix + "login", Label: "back.login"}})
	default:
		p.again(v, step, retry)
	}
}

// again shows the page that was answered, with what is wrong.
func (p *Portal) again(v *visit, step identity.Step, retry page) {
	switch step.State {
	case identity.Wrong:
		retry.status = http.StatusForbidden
	case identity.Weak:
		retry.status, retry.fail = http.StatusUnprocessableEntity, "fail.weak"
		weak := v.weak(step.Weak)
		switch d := retry.data.(type) {
		case passwordData:
			d.Weak = weak
			retry.data = d
		case joinData:
			d.Weak = weak
			retry.data = d
		case accountData:
			d.Weak = weak
			retry.data = d
		}
	case identity.Wait:
		retry.status, retry.fail, retry.wait = http.StatusTooManyRequests, "fail.wait", step.Wait
		retry.args = []any{v.span(step.Wait)}
	case identity.Busy:
		retry.status, retry.fail, retry.wait = http.StatusServiceUnavailable, "fail.busy", time.Second
	case identity.Taken:
		retry.status = http.StatusConflict
		if !strings.HasPrefix(retry.fail, "fail.taken") {
			retry.fail = "fail.taken-factor"
		}
	case identity.TooMany:
		retry.status, retry.fail, retry.field = http.StatusConflict, "fail.too-many", ""
	case identity.LastFactor:
		retry.status, retry.fail, retry.field = http.StatusConflict, "fail.last-factor", ""
	case identity.EnrolOver:
		p.fail(v, http.StatusForbidden, "fail.enrol-over")
		return
	case identity.Unlinked:
		retry = logInAgain(v, "fail.unlinked")
	case identity.Stale:
		p.stale(v)
		return
	default:
		p.env.Log.Error("portal: the desk answers what no page knows", "state", step.State, "path", v.URL.Path)
		p.fail(v, http.StatusServiceUnavailable, "error.busy")
		return
	}
	p.show(v, retry)
}

// stale begins again: at the sign-in page, or, for who is signed in, at the
// account.
func (p *Portal) stale(v *visit) {
	if v.sessionID() != "" {
		p.fail(v, http.StatusForbidden, "fail.stale")
		return
	}
	pg := logInAgain(v, "fail.stale")
	pg.field, pg.data = "", logInData{} // the form's name may be that of a device
	p.show(v, pg)
}

// signedIn takes the browser to where it wanted. It is not sent there by a
// redirect: browsers would hold what the site answers then against this
// page's form-action, and applications do send people to other hosts.
func (p *Portal) signedIn(v *visit, step identity.Step) {
	end := v.way.end()
	if len(step.Codes) > 0 {
		p.show(v, page{name: "codes", data: codesData{Codes: step.Codes, Next: end}})
		return
	}
	p.show(v, page{name: "message", refresh: end, data: message{Kind: "onward", Next: end, Label: "continue"}})
}

func (p *Portal) second(v *visit, options []string, name, pending string, again bool) page {
	if slices.Contains(options, identity.OptPasskey) {
		// One question to the browser is for both.
		options = slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == identity.OptSecurityKey })
	}
	d := secondData{Options: options, Name: name, Again: again}
	extra := url.Values{"options": {strings.Join(options, ",")}, "name": {name}}
	if again {
		extra.Set("again", "yes")
	}
	return page{name: "second", pending: pending, data: d, extra: extra, providers: p.ofWhoProves(v, options)}
}

// ofWhoProves are the providers that can prove again who is signed in.
func (p *Portal) ofWhoProves(v *visit, options []string) []oidc.Button {
	if v.sessionID() == "" || !slices.Contains(options, identity.OptProvider) {
		return nil
	}
	list, err := p.env.Accounts.Externals(v.Context(), v.Identity.Subject)
	if err != nil {
		return nil // one too many is offered
	}
	return slices.DeleteFunc(slices.Clone(p.buttons), func(b oidc.Button) bool {
		return !slices.ContainsFunc(list, func(e account.External) bool { return e.Issuer == b.Issuer })
	})
}

// secondAgain is the page for one more proof, as it was sent.
func (p *Portal) secondAgain(v *visit, fail, field string) page {
	pg := p.second(v, optionsOf(v.form.Get("options")), shorten(v.form.Get("name")), v.form.Get("pending"), v.form.Get("again") != "")
	d := pg.data.(secondData)
	d.field = field
	pg.data, pg.fail, pg.field = d, fail, field
	return pg
}

// optionsOf reads what this page said before; only the order and the look of
// the next one hang on it.
func optionsOf(list string) []string {
	known := []string{identity.OptPassword, identity.OptTOTP, identity.OptRecovery, identity.OptPasskey, identity.OptSecurityKey, identity.OptProvider}
	var out []string
	for o := range strings.SplitSeq(list, ",") {
		if slices.Contains(known, o) && !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	return out
}

func (v *visit) weak(problems []password.Problem) []string {
	var out []string
	for _, w := range problems {
		key := "weak." + string(w.Rule)
		if !v.text.has(key) {
			out = append(out, w.String())
			continue
		}
		out = append(out, v.text.get(key, w.Bound))
	}
	return out
}

func (v *visit) span(d time.Duration) string {
	if s := seconds(d); s < 120 {
		return v.text.get("wait.seconds", s)
	}
	return v.text.get("wait.minutes", int((d+time.Minute-1)/time.Minute))
}
