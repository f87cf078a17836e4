package portal

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/identity/session"
)

// accountData is for the account page.
type accountData struct {
	Account   account.Account
	Factors   []account.Factor // without recovery codes
	Codes     int              // recovery codes that are left
	Sessions  []session.Session
	Here      string // the ID of this session
	Devices   []account.Device
	History   []account.LogIn
	Externals []externalRow
	Others    []oidc.Button // providers that are not linked
	Consents  []consentRow
	Weak      []string
	text      catalogue
}

type externalRow struct {
	account.External
	Label string // of the provider; its issuer if it is not configured any more
}

type consentRow struct {
	Client, Name, Scopes string
	Since                time.Time
}

// Agent names a browser in a few words.
func (d accountData) Agent(agent string) string { return d.text.agent(agent) }

// Method says by what somebody was proved, or was not.
func (d accountData) Method(methods string) string {
	var out []string
	for m := range strings.SplitSeq(methods, "+") {
		if key := "method." + m; d.text.has(key) {
			m = d.text.get(key)
		}
		out = append(out, strings.TrimPrefix(m, account.ByOIDC))
	}
	return strings.Join(out, " + ")
}

func itoa(n int) string { return strconv.Itoa(n) }

const historyShown = 20

// notices are what the account page may be told to say.
var notices = []string{"password", "email", "removed", "added", "ended", "linked", "display", "forgotten"}

func (p *Portal) accountPage(v *visit) {
	pg := page{name: "account"}
	if done := v.form.Get("done"); slices.Contains(notices, done) {
		pg.notice = "notice." + done
	}
	p.showAccount(v, pg)
}

func (p *Portal) showAccount(v *visit, pg page) {
	d, err := p.accountData(v)
	if errors.Is(err, account.ErrNotFound) {
		v.to(LogInPath(Prefix+"account", ""))
		return
	}
	if err != nil {
		p.unable(v, err)
		return
	}
	if old, ok := pg.data.(accountData); ok {
		d.Weak = old.Weak
	}
	pg.name, pg.data, pg.wide = "account", d, true
	p.show(v, pg)
}

func (p *Portal) accountData(v *visit) (accountData, error) {
	me, err := p.env.Desk.Me(v.desk())
	if err != nil {
		return accountData{}, err
	}
	ctx := v.Context()
	d := accountData{Account: me, Here: v.sessionID(), text: v.text}
	factors, err := p.env.Accounts.Factors(ctx, me.ID)
	if err != nil {
		return d, err
	}
	for _, f := range factors {
		if f.Kind == account.Recovery {
			d.Codes++
			continue
		}
		f.Data = nil // not for a page
		d.Factors = append(d.Factors, f)
	}
	if d.Sessions, err = p.env.Sessions.List(ctx, me.ID); err != nil {
		return d, err
	}
	if d.Devices, err = p.env.Accounts.Devices(ctx, me.ID); err != nil {
		return d, err
	}
	if d.History, err = p.env.Accounts.History(ctx, me.ID, historyShown); err != nil {
		return d, err
	}
	linked, err := p.env.Accounts.Externals(ctx, me.ID)
	if err != nil {
		return d, err
	}
	d.Externals, d.Others = p.linked(linked)
	d.Consents, err = p.consents(ctx, me.ID)
	return d, err
}

// linked returns the accounts elsewhere under the names that buttons have, and
// the providers at which there is none.
func (p *Portal) linked(list []account.External) (rows []externalRow, others []oidc.Button) {
	for _, e := range list {
		row := externalRow{External: e, Label: e.Issuer}
		if i := slices.IndexFunc(p.buttons, func(b oidc.Button) bool { return b.Issuer == e.Issuer }); i >= 0 {
			row.Label = p.buttons[i].Label
		}
		rows = append(rows, row)
	}
	for _, b := range p.buttons {
		if !slices.ContainsFunc(list, func(e account.External) bool { return e.Issuer == b.Issuer }) {
			others = append(others, b)
		}
	}
	return rows, others
}

func (p *Portal) consents(ctx context.Context, subject string) ([]consentRow, error) {
	s := p.provider.Load()
	if s == nil {
		return nil, nil
	}
	all, err := s.Consents(ctx, subject)
	if err != nil {
		return nil, err
	}
	var rows []consentRow
	for _, c := range all {
		rows = append(rows, consentRow{Client: c.Client, Name: s.ClientName(c.Client), Scopes: strings.Join(c.Scopes, ", "), Since: c.Since})
	}
	return rows, nil
}

// done shows the account page again, by a request of its own, so that loading
// it again does nothing twice; or new recovery codes, once.
func (p *Portal) done(v *visit, notice string, step identity.Step) {
	if len(step.Codes) > 0 {
		p.show(v, page{name: "codes", data: codesData{Codes: step.Codes, Next: Prefix + "account"}})
		return
	}
	v.to(Prefix + "account?done=" + notice)
}

// nextAccount shows what an answer about the account leads to, if it is not Done.
func (p *Portal) nextAccount(v *visit, step identity.Step, err error, fail, field string) {
	if err != nil {
		p.unable(v, err)
		return
	}
	pg := page{name: "account", status: http.StatusForbidden, fail: fail, field: field}
	switch step.State {
	case identity.Prove, identity.Anonymous, identity.Sent, identity.Stale, identity.EnrolOver:
		p.next(v, step, nil, pg)
		return
	case identity.Wrong:
	case identity.Weak:
		pg.status, pg.fail, pg.field = http.StatusUnprocessableEntity, "fail.weak", "new"
		pg.data = accountData{Weak: v.weak(step.Weak)}
	case identity.Wait:
		pg.status, pg.fail, pg.wait, pg.args = http.StatusTooManyRequests, "fail.wait", step.Wait, []any{v.span(step.Wait)}
	case identity.Busy:
		pg.status, pg.fail = http.StatusServiceUnavailable, "fail.busy"
	case identity.LastFactor:
		pg.status, pg.fail, pg.field = http.StatusConflict, "fail.last-factor", ""
	case identity.TooMany:
		pg.status, pg.fail, pg.field = http.StatusConflict, "fail.too-many", ""
	case identity.Taken:
		pg.status, pg.fail, pg.field = http.StatusConflict, "fail.taken-factor", ""
	default:
		p.again(v, step, pg)
		return
	}
	p.showAccount(v, pg)
}

func (p *Portal) changePassword(v *visit) {
	step, err := p.env.Desk.ChangePassword(v.desk(), v.form.Get("current"), v.form.Get("new"))
	if err == nil && step.State == identity.Done {
		p.done(v, "password", step)
		return
	}
	p.nextAccount(v, step, err, "fail.current", "current")
}

func (p *Portal) changeDisplay(v *visit) {
	step, err := p.env.Desk.SetDisplay(v.desk(), v.form.Get("display"))
	if err == nil && step.State == identity.Done {
		p.done(v, "display", step)
		return
	}
	p.nextAccount(v, step, err, "fail.wrong", "display")
}

func (p *Portal) forgetDevices(v *visit) {
	step, err := p.env.Desk.ForgetDevices(v.desk())
	if err == nil && step.State == identity.Done {
		p.done(v, "forgotten", step)
		return
	}
	p.nextAccount(v, step, err, "fail.wrong", "")
}

func (p *Portal) changeEmail(v *visit) {
	step, err := p.env.Desk.ChangeEmail(v.desk(), v.form.Get("email"))
	if err == nil && step.State == identity.Sent {
		p.done(v, "email", step)
		return
	}
	p.nextAccount(v, step, err, "fail.email", "email")
}

func (p *Portal) removeFactor(v *visit) {
	step, err := p.env.Desk.RemoveFactor(v.desk(), v.form.Get("id"))
	if err == nil && step.State == identity.Done {
		p.done(v, "removed", step)
		return
	}
	p.nextAccount(v, step, err, "fail.wrong", "")
}

func (p *Portal) newCodes(v *visit) {
	step, err := p.env.Desk.NewCodes(v.desk())
	if err == nil && step.State == identity.Done {
		p.done(v, "added", step)
		return
	}
	p.nextAccount(v, step, err, "fail.wrong", "")
}

func (p *Portal) unlink(v *visit) {
	step, err := p.env.Desk.Unlink(v.desk(), v.form.Get("issuer"), v.form.Get("subject"))
	if err == nil && step.State == identity.Done {
		p.done(v, "removed", step)
		return
	}
	p.nextAccount(v, step, err, "fail.wrong", "")
}

func (p *Portal) takeBack(v *visit) {
	s := p.provider.Load()
	if s == nil {
		p.fail(v, http.StatusNotFound, "error.missing")
		return
	}
	if err := s.TakeBack(v.Context(), v.Identity.Subject, v.form.Get("client")); err != nil {
		p.unable(v, err)
		return
	}
	p.done(v, "removed", identity.Step{})
}

// agents and systems are looked for in a User-Agent in this order, since most
// browsers claim to be others, too.
var (
	agents  = [][2]string{{"Edg/", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser/", "Samsung Internet"}, {"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"}, {"CriOS/", "Chrome"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}, {"curl/", "curl"}}
	systems = [][2]string{{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"Windows", "Windows"}, {"Mac OS X", "macOS"}, {"CrOS", "ChromeOS"}, {"Linux", "Linux"}}
)

func (c catalogue) agent(text string) string {
	pick := func(list [][2]string) string {
		for _, a := range list {
			if strings.Contains(text, a[0]) {
				return a[1]
			}
		}
		return ""
	}
	browser, system := pick(agents), pick(systems)
	switch {
	case browser == "":
		return c.get("agent.unknown")
	case system == "":
		return browser
	}
	return c.get("agent.on", browser, system)
}
