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
	"log/slog"
	"net/http"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/internal/portal/mail"
	"github.com/merlon-dev/merlon/internal/portal/resume"
	"github.com/merlon-dev/merlon/secrets"
)

// Prefix is where the pages live on every site.
const Prefix = "/.merlon/"

// Env is what the pages are made with.
type Env struct {
	Accounts account.Store
	Mail     mail.Mailer
	Resume   *resume.Keeper
	Key      secrets.Key
	Log      *slog.Logger
	// Origin returns the scheme, host and port that people reach a site by;
	// links in letters begin with it, never with what a request says.
	Origin func(site string) string
}

// A Portal serves the pages.
type Portal struct {
	env Env
}

// New returns a Portal.
func New(c Config, env Env) (*Portal, error) {
	return &Portal{env: env}, nil
}

// ServeHTTP answers requests for paths under [Prefix]; each must belong to a
// [merlon.Request] that the site's guards have let pass.
func (p *Portal) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	r := merlon.From(hr)
	if r == nil {
		panic("portal: the request belongs to no merlon.Request")
	}
	merlon.Respond(w, r, merlon.Refuse(http.StatusNotFound, "no-such-page"))
}
