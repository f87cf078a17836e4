package config

import (
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/identity/token"
	"github.com/merlon-dev/merlon/internal/portal"
	"github.com/merlon-dev/merlon/internal/portal/mail"
)

// Identity says who can sign in and how, on all sites. It is in force as soon
// as it is written, be it empty, or as anything is required of who comes in.
type Identity struct {
	identity.Config `yaml:",inline"`

	// OIDC is identity providers elsewhere.
	OIDC oidc.Config `yaml:",inline"`
	// Portal is the pages that people meet.
	Portal portal.Config `yaml:",inline"`

	// Password says how passwords are kept and which are good enough.
	Password password.Config `yaml:"password,omitempty"`
	// Session says how long people stay signed in.
	Session session.Config `yaml:"session,omitempty"`
	// Attempts slows down who guesses.
	Attempts attempts.Config `yaml:"attempts,omitempty"`
	// Token is about tokens that programs send: whose are accepted, and those
	// that Merlon itself issues.
	Token token.Config `yaml:"token,omitempty"`
	// Server lets other applications sign people in here, by OAuth 2.0 and
	// OpenID Connect.
	Server provider.Config `yaml:"server,omitempty"`
	// Mail says how letters reach people.
	Mail mail.Config `yaml:"mail,omitempty"`
}

// SignIn reports whether people sign in here, and returns how.
func (f *File) SignIn() (Identity, bool) {
	if f.Identity != nil {
		return *f.Identity, true
	}
	for _, s := range f.Sites {
		site := s.Guards.Under(f.Guards)
		for _, g := range append([]Guards{site}, routeGuards(s, site)...) {
			if g.Require != nil && g.Require.ByIdentity() {
				return Identity{}, true
			}
		}
	}
	return Identity{}, false
}

func routeGuards(s Site, site Guards) []Guards {
	all := make([]Guards, len(s.Routes))
	for i, r := range s.Routes {
		all[i] = r.Guards.Under(site)
	}
	return all
}
