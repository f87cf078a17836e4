// Package identity finds out who is asking. Its [Guard] tries each kind of
// proof that a request may carry and sets Request.Identity; its [Desk] is
// where people prove who they are and where sessions begin.
//
// It knows no pages: what people see is for who calls the Desk, and what an
// identity may do is for package access. A proof that is stolen whole, with
// the browser it is in, it cannot tell from its owner.
package identity

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/mfa"
)

// Config configures a [Guard] and a [Desk]. With the zero Config people log in
// whom an administrator has added, with the factors that they have chosen.
type Config struct {
	// MFA says who must have a second factor. Example:
	//
	//	mfa: {required: [team], level: phishing-resistant, grace: 72h}
	MFA MFA `yaml:"mfa,omitempty"`
	// Register says who may make an account: off, invite (whom an
	// administrator sends a link) or open (whoever has an address of
	// register_domains). The log-in name is the address, once a letter sent
	// there has been answered. Default: off. Example:
	//
	//	register: invite
	Register string `yaml:"register,omitempty"`
	// RegisterDomains are the mail domains that may register, if register is
	// open; "*" for any. Required then. Example:
	//
	//	register_domains: [example.com]
	RegisterDomains []string `yaml:"register_domains,omitempty"`
	// RegisterRoles are the roles of who has registered by themselves.
	// Default: none. Example:
	//
	//	register_roles: [member]
	RegisterRoles []string `yaml:"register_roles,omitempty"`
	// Login says who may log in from where and when. Without it, everybody
	// from anywhere; with it, only whom one of the rules lets in. A session
	// that moves to where its owner may not log in from is not one there, and
	// API keys, tokens and certificates are held to the rules as well.
	// Default: none. Example:
	//
	//	login:
	//	  - {groups: [ops], from: [10.8.0.0/16]}
	//	  - {groups: [staff], countries: [DE, US], when: "Mon-Fri 07:00-20:00 Europe/Berlin"}
	Login []Rule `yaml:"login,omitempty"`
	// Countries is a database of addresses and countries in MaxMind's format
	// (.mmdb), for rules with countries. Default: none. Example:
	//
	//	countries: /var/lib/merlon/country.mmdb
	Countries string `yaml:"countries,omitempty"`
	// Basic accepts passwords in every request (RFC 7617), for programs that
	// know nothing else. Default: off. Example:
	//
	//	basic: {htpasswd: /etc/merlon/htpasswd}
	Basic *Basic `yaml:"basic,omitempty"`
	// Certificates accepts client certificates of TLS connections. Default:
	// off. Example:
	//
	//	certificates: {name: email}
	Certificates *Certificates `yaml:"certificates,omitempty"`
	// ForwardAuthorization lets the Authorization field that Merlon has
	// accepted, and an accepted X-API-Key, pass on to the backend, which then
	// sees people's passwords and keys. Default: false. Example:
	//
	//	forward_authorization: true
	ForwardAuthorization bool `yaml:"forward_authorization,omitempty"`
	// Fresh is how long ago somebody must have proved to be there at most, to
	// change a password, an address or a factor. From 1m to 1h. Default: 5m.
	// Example:
	//
	//	fresh: 10m
	Fresh time.Duration `yaml:"fresh,omitempty"`
	// Tenant is how the name of a group begins that says which customer its
	// members belong to; the rest of it is the tenant, which limits and queues
	// can be by. Of several such groups the first by name counts, and a
	// token's own claim before all. Default: none; nobody has a tenant.
	// Example:
	//
	//	tenant: customer/
	Tenant string `yaml:"tenant,omitempty"`
}

// MFA says who must have a second factor, and what people are shown about it.
type MFA struct {
	// Config is what apps and browsers show.
	mfa.Config `yaml:",inline"`
	// Required are the roles whose owners must have a second factor; "all"
	// for everybody. Default: none. Example:
	//
	//	required: [team, admin]
	Required []string `yaml:"required,omitempty"`
	// Level is what they must have: any, or phishing-resistant, which only
	// passkeys and security keys are. Default: any. Example:
	//
	//	level: phishing-resistant
	Level account.Strength `yaml:"level,omitempty"`
	// Grace is how long they may take to enrol it, from the first log-in at
	// which it is missing. Until it is there they reach nothing but its
	// enrolment; afterwards an administrator must open the time again with
	// `merlon user reset`. From 5m to 720h. Default: 72h. Example:
	//
	//	grace: 24h
	Grace time.Duration `yaml:"grace,omitempty"`
}

const (
	defaultGrace = 72 * time.Hour
	defaultFresh = 5 * time.Minute
)

// complete fills in the defaults and says what cannot be used.
func (c Config) complete() (Config, error) {
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	within := func(setting string, d *time.Duration, def, least, most time.Duration) {
		if *d == 0 {
			*d = def
		}
		if *d < least || *d > most {
			bad(setting, d.String(), "must be from "+least.String()+" to "+most.String())
		}
	}
	within("mfa.grace", &c.MFA.Grace, defaultGrace, 5*time.Minute, 720*time.Hour)
	within("fresh", &c.Fresh, defaultFresh, time.Minute, time.Hour)
	switch c.MFA.Level {
	case account.None:
		c.MFA.Level = account.Multi
	case account.Single:
		bad("mfa.level", c.MFA.Level.String(), "must be any or phishing-resistant")
	}
	if c.MFA.Required != nil && len(c.MFA.Required) == 0 || slices.Contains(c.MFA.Required, "") {
		bad("mfa.required", "", "must name roles, or all; leave it out if nobody must")
	}
	switch c.Register {
	case "":
		c.Register = "off"
	case "off", "invite":
	case "open":
		if len(c.RegisterDomains) == 0 {
			bad("register_domains", "", `must name the mail domains that may register, or "*" for any`)
		}
	default:
		bad("register", c.Register, "must be off, invite or open")
	}
	for i, d := range c.RegisterDomains {
		folded, err := account.FoldEmail("x@" + d)
		if d != "*" && (err != nil || folded != "x@"+d) {
			bad("register_domains["+strconv.Itoa(i)+"]", d, "must be a domain in lower case, such as example.com, or *")
		}
	}
	return c, errors.Join(errs...)
}
