package portal

import (
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/provider"
)

// consentData is for the page on which somebody lets an application know who
// they are, or lets it sign them out.
type consentData struct {
	LogOut               bool
	Client, Host, Action string
	Ticket               string
	Scopes               []string
}

// Pages returns what people see of the authorization server.
func (p *Portal) Pages() provider.Pages { return serverPages{p} }

type serverPages struct{ p *Portal }

func (s serverPages) visit(w http.ResponseWriter, hr *http.Request) *visit {
	return s.p.visit(w, merlon.From(hr))
}

// LogIn implements [provider.Pages].
func (s serverPages) LogIn(w http.ResponseWriter, hr *http.Request, need provider.Need) {
	v := s.visit(w, hr)
	if v.sessionID() != "" {
		v.to(ProvePath(need.Strength, need.ReturnTo, ""))
		return
	}
	v.to(LogInPath(need.ReturnTo, "") + hint(need))
}

func hint(need provider.Need) string {
	if need.Hint == "" || len(need.Hint) > maxName {
		return ""
	}
	sep := "&"
	if account.SafeReturn(need.ReturnTo) == "/" {
		sep = "?"
	}
	return sep + "name=" + url.QueryEscape(need.Hint)
}

// Consent implements [provider.Pages]. As with all pages, a script of the same
// origin does not get to read it: the ticket in it is somebody's yes.
func (s serverPages) Consent(w http.ResponseWriter, hr *http.Request, ask provider.Ask) {
	v := s.visit(w, hr)
	if !opened(v.Request) {
		s.p.refuse(v, NotNavigation)
		return
	}
	d := consentData{Client: ask.Client, Host: ask.Host, Action: ask.Action, Ticket: ask.Ticket}
	for _, scope := range ask.Scopes {
		key := "scope." + scope
		if v.text.has(key) {
			d.Scopes = append(d.Scopes, v.text.get(key))
		} else {
			d.Scopes = append(d.Scopes, v.text.get("scope.other", scope))
		}
	}
	s.p.show(v, page{name: "consent", data: d, formTo: sources(ask.Host)})
}

// ConfirmLogOut implements [provider.Pages].
func (s serverPages) ConfirmLogOut(w http.ResponseWriter, hr *http.Request, ask provider.Ask) {
	v := s.visit(w, hr)
	if !opened(v.Request) {
		s.p.refuse(v, NotNavigation)
		return
	}
	s.p.show(v, page{name: "consent", formTo: sources(ask.Host), data: consentData{
		LogOut: true, Client: ask.Client, Action: ask.Action, Ticket: ask.Ticket,
	}})
}

// EndSession implements [provider.Pages].
func (s serverPages) EndSession(w http.ResponseWriter, hr *http.Request) error {
	_, err := s.p.env.Desk.LogOut(s.visit(w, hr).desk())
	return err
}

// SignedOut implements [provider.Pages].
func (s serverPages) SignedOut(w http.ResponseWriter, hr *http.Request) {
	v := s.visit(w, hr)
	if v.sessionID() != "" {
		// The request began in a session. Whether that is over is what the
		// desk knows now.
		if _, err := s.p.env.Desk.Me(v.desk()); err == nil {
			s.p.show(v, page{name: "message", data: message{Kind: "not-signed-out", Next: Prefix + "account", Label: "back.account"}})
			return
		}
		v.Identity = nil
	}
	s.p.signedOut(v, elsewhere{})
}

// Fail implements [provider.Pages].
func (s serverPages) Fail(w http.ResponseWriter, hr *http.Request, status int, reason merlon.Reason) {
	v := s.visit(w, hr)
	s.p.show(v, page{name: "error", status: status, fail: "error.oauth", data: string(reason) + " · " + v.ID})
}

// sources are what a consent form's answer may lead to, as sources of a
// Content-Security-Policy: the schemes that the application has, since it may
// send people on to other hosts, and browsers hold that against the form as
// well. What could end the directive is left out, and then the browser stays
// here.
func sources(host string) string {
	for _, c := range host {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]", c) {
			return ""
		}
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	switch {
	case host == "":
		return ""
	case name == "localhost", net.ParseIP(strings.Trim(name, "[]")).IsLoopback():
		return "http: https:"
	case err != nil && !strings.Contains(host, ":"):
		return "https: " + host + ":" // a host, or a scheme such as com.example.app
	}
	return "https:"
}
