package portal

import (
	"net/http"
	"strings"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/internal/webpage"
)

const (
	// NotOurForm: a form of the sign-in or account pages came from somewhere
	// else, or from a page that was open while somebody signed in or out. If
	// it happens to everybody, see whether the site is reached by the host and
	// port that the configuration says.
	NotOurForm merlon.Reason = "portal-not-our-form"
	// NotNavigation: a script of the site fetched a page that only people may
	// open. Merlon's pages are not for programs.
	NotNavigation merlon.Reason = "portal-not-navigation"
)

// A route is one address of the portal. What is POST only changes something
// or sends a secret; links in letters are GET and change nothing, since mail
// systems follow them.
type route struct {
	get, post func(*Portal, *visit)
	session   bool // for those who are signed in
	fetched   bool // by the portal's own script, not opened as a page
	outside   bool // POST by others: no token, no cookie counts
}

// table returns the routes by their path below Prefix. One that ends with "/"
// stands for all below it. Whether a proof is fresh enough is for the desk to
// say, at the moment of the change.
func table() map[string]route {
	return map[string]route{
		"login":         {get: (*Portal).logInPage, post: (*Portal).logIn},
		"code":          {post: (*Portal).totp},
		"code/recovery": {post: (*Portal).recovery},
		"passkey":       {post: (*Portal).passkey},
		"passkey/ask":   {post: (*Portal).askPasskey, fetched: true},
		"password":      {post: (*Portal).setPassword},
		"prove":         {get: (*Portal).provePage, post: (*Portal).prove},
		"resume":        {get: (*Portal).resumePage, session: true},

		"enrol/totp":         {post: (*Portal).enrolTOTP},
		"enrol/totp/confirm": {post: (*Portal).confirmTOTP},
		"enrol/passkey":      {post: (*Portal).confirmPasskey},
		"enrol/passkey/ask":  {post: (*Portal).enrolPasskey, fetched: true},

		"recover":       {get: (*Portal).recoverPage, post: (*Portal).askRecover},
		"recover/link":  {get: (*Portal).recoverLink, post: (*Portal).recover},
		"register":      {get: (*Portal).registerPage, post: (*Portal).askRegister},
		"register/link": {get: (*Portal).joinPage, post: (*Portal).join},
		"verify":        {get: (*Portal).verifyLink, post: (*Portal).verify},
		"first":         {get: (*Portal).firstPage, post: (*Portal).first},

		"":                 {get: (*Portal).home},
		"account":          {get: (*Portal).accountPage, session: true},
		"account/display":  {post: (*Portal).changeDisplay, session: true},
		"account/devices":  {post: (*Portal).forgetDevices, session: true},
		"account/email":    {post: (*Portal).changeEmail, session: true},
		"account/password": {post: (*Portal).changePassword, session: true},
		"account/factor":   {post: (*Portal).removeFactor, session: true},
		"account/codes":    {post: (*Portal).newCodes, session: true},
		"account/session":  {post: (*Portal).endSession, session: true},
		"account/sessions": {post: (*Portal).endSessions, session: true},
		"account/unlink":   {post: (*Portal).unlink, session: true},
		"account/consent":  {post: (*Portal).takeBack, session: true},
		"logout":           {get: (*Portal).logOutPage, post: (*Portal).logOut},

		"oidc/begin/":    {get: (*Portal).oidcBegin},
		"oidc/callback/": {get: (*Portal).oidcCallback},
		"oidc/logout/":   {post: (*Portal).oidcLogout, outside: true},
		"jwks.json":      {get: (*Portal).jwks, fetched: true},
		"static/":        {get: (*Portal).static, fetched: true},
	}
}

func (p *Portal) find(path string) (route, bool) {
	rest, ok := strings.CutPrefix(path, Prefix)
	if !ok {
		return route{}, false
	}
	if rt, ok := p.routes[rest]; ok && !strings.HasSuffix(rest, "/") {
		return rt, true
	}
	if i := strings.LastIndexByte(rest, '/'); i > 0 && i < len(rest)-1 {
		rt, ok := p.routes[rest[:i+1]]
		return rt, ok
	}
	return route{}, false
}

func (p *Portal) serve(v *visit) {
	rt, ok := p.find(v.URL.Path)
	if !ok {
		p.fail(v, http.StatusNotFound, "error.missing")
		return
	}
	handle := rt.get
	switch v.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost:
		handle = rt.post
	default:
		handle = nil
	}
	if handle == nil {
		v.w.Header().Set("Allow", rt.allow())
		p.fail(v, http.StatusMethodNotAllowed, "error.method")
		return
	}
	if !rt.fetched && !rt.outside && !opened(v.Request) {
		p.refuse(v, NotNavigation)
		return
	}
	if !rt.outside && !p.putBack(v) {
		return
	}
	if err := v.read(); err != nil || v.Method == http.MethodPost && !rt.outside && !p.ownForm(v) {
		p.refuse(v, NotOurForm)
		return
	}
	if rt.session && v.sessionID() == "" {
		back := Prefix + "account"
		if v.Method != http.MethodPost {
			back = v.URL.RequestURI()
		}
		v.to(LogInPath(back, ""))
		return
	}
	handle(p, v)
}

func (rt route) allow() string {
	switch {
	case rt.get == nil:
		return "POST"
	case rt.post == nil:
		return "GET, HEAD"
	}
	return "GET, HEAD, POST"
}

// opened reports whether a person opened the page in a window. A browser that
// says nothing about it is believed; one that says "fetch" or "frame" is not,
// so that a script of the same origin cannot simply read these pages.
func opened(r *merlon.Request) bool {
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	return (mode == "" || mode == "navigate") && (dest == "" || dest == "document")
}

// refuse shows that a request was not one of ours, and records why.
func (p *Portal) refuse(v *visit, reason merlon.Reason) {
	v.Record("portal", merlon.Refuse(http.StatusForbidden, reason))
	p.fail(v, http.StatusForbidden, "fail.form")
}

// fail shows a failure that leads nowhere; the words are the same whoever asks.
func (p *Portal) fail(v *visit, status int, key string) {
	p.show(v, page{name: "error", status: status, fail: key, data: v.ID})
}

// unable says that something we work with does not answer.
func (p *Portal) unable(v *visit, err error) {
	p.env.Log.Error("portal: no answer", "id", v.ID, "path", v.URL.Path, "error", err)
	v.Record("portal", merlon.Unable(err))
	p.fail(v, http.StatusServiceUnavailable, "error.busy")
}

// last returns the last part of the path.
func (v *visit) last() string { return v.URL.Path[strings.LastIndexByte(v.URL.Path, '/')+1:] }

func (p *Portal) home(v *visit) { v.to(Prefix + "account") }

func (p *Portal) jwks(v *visit) {
	if p.env.JWKS == nil {
		p.fail(v, http.StatusNotFound, "error.missing")
		return
	}
	b, head, err := p.env.JWKS(v.Context())
	if err != nil {
		p.env.Log.Error("portal: no keys", "id", v.ID, "error", err)
		p.json(v, http.StatusServiceUnavailable, map[string]string{"error": "temporarily_unavailable"})
		return
	}
	h := v.w.Header()
	webpage.Secure(h)
	h.Set("Cross-Origin-Resource-Policy", "cross-origin") // public, for whoever verifies
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	merlon.AddHeader(h, head)
	v.w.WriteHeader(http.StatusOK)
	if v.Method != http.MethodHead {
		_, _ = v.w.Write(b)
	}
}
