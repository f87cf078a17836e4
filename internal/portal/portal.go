// Package portal has the pages that people meet: to sign in, to prove a second
// time, to register, to get back in, and to look after their account. They
// are made on the server, need no script but for passkeys, and tell nobody
// whether an account exists.
//
// It checks no password and keeps no session; it asks those who do, words
// what they answer, and makes sure that its own forms were sent by its own
// pages. It cannot protect what other scripts of the same origin do in
// its name beyond asking for a fresh proof before anything that matters.
package portal

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/internal/portal/resume"
	"github.com/merlon-dev/merlon/internal/webpage"
	"github.com/merlon-dev/merlon/secrets"
)

// Prefix is where the pages live on every site.
const Prefix = "/.merlon/"

// Env is what the pages are made with. OIDC and JWKS may be nil.
type Env struct {
	Desk     *identity.Desk
	Sessions *session.Manager
	Accounts account.Store
	OIDC     *oidc.RelyingParty
	// JWKS returns the public keys of the tokens that Merlon signs, as
	// token.Service does.
	JWKS     func(context.Context) ([]byte, http.Header, error)
	Resume   *resume.Keeper
	Register string // as in identity.Config: "off", "invite" or "open"
	Key      secrets.Key
	Log      *slog.Logger
	// Origin returns the scheme, host and port that people reach a site by;
	// links in letters begin with it, never with what a request says. Nil:
	// https and the site's name.
	Origin func(site string) string
}

// A Portal serves the pages.
type Portal struct {
	env      Env
	brand    string
	logo     *webpage.File
	css, js  *webpage.File
	pages    pages
	texts    *texts
	buttons  []oidc.Button
	routes   map[string]route
	formKey  []byte
	provider atomic.Pointer[provider.Provider]
}

// New returns a Portal.
func New(c Config, env Env) (*Portal, error) {
	var errs []error
	brand := func(err error) { errs = append(errs, merlon.Within("brand", err)) }
	brand(c.Brand.check())
	light, dark, err := c.Brand.shades()
	brand(err)
	p := &Portal{env: env, brand: c.Brand.Name, formKey: env.Key.Derive("merlon portal forms")}
	if c.Brand.Logo != "" {
		if p.logo, err = loadLogo(c.Brand.Logo); err != nil {
			brand(merlon.BadSetting("logo", c.Brand.Logo, err.Error()))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if p.pages, err = parsePages(); err != nil {
		return nil, err
	}
	if p.texts, err = loadTexts(textFiles); err != nil {
		return nil, err
	}
	if p.env.Origin == nil {
		p.env.Origin = func(site string) string { return "https://" + site }
	}
	if env.OIDC != nil {
		p.buttons = env.OIDC.Providers()
	}
	css := strings.NewReplacer("LIGHT", light.String(), "DARK", dark.String()).Replace(styleSheet)
	p.css = webpage.NewFile(static+"portal.css", []byte(css), "text/css; charset=utf-8")
	p.js = webpage.NewFile(static+"portal.js", script, "text/javascript; charset=utf-8")
	p.routes = table()
	return p, nil
}

// SetProvider gives the portal the authorization server whose consents the
// account page lists. It is apart from New because a provider needs the
// portal's [Pages] first.
func (p *Portal) SetProvider(s *provider.Provider) { p.provider.Store(s) }

// ServeHTTP answers requests for paths under [Prefix]; each must belong to a
// [merlon.Request] that the site's guards have let pass.
func (p *Portal) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	r := merlon.From(hr)
	if r == nil {
		panic("portal: the request belongs to no merlon.Request")
	}
	p.serve(p.visit(w, r))
}

func (p *Portal) visit(w http.ResponseWriter, r *merlon.Request) *visit {
	site := r.Site
	if site == "" {
		site = r.Host
	}
	return &visit{
		Request: r, w: w, origin: p.env.Origin(site), way: way{Return: "/"},
		text: p.texts.choose(strings.Join(r.Header.Values("Accept-Language"), ",")),
	}
}

// brandFor returns what the pages of a site are headed by.
func (p *Portal) brandFor(v *visit) string {
	if p.brand != "" {
		return p.brand
	}
	if v.Site != "" {
		return v.Site
	}
	return v.Host
}
