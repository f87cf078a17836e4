package provider

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/secrets"
)

// A Client is an application that signs people in here, or a program that
// gets tokens for itself.
type Client struct {
	// ID is the client_id: 1 to 100 letters, digits and -._ characters.
	// Default: none; it must be set. Example:
	//
	//	id: wiki
	ID string `yaml:"id"`
	// Name is what people are told that the application is called. Default:
	// the id. Example:
	//
	//	name: The wiki
	Name string `yaml:"name,omitempty"`
	// Secret is where the client's secret is, at least 24 characters that
	// nobody can guess. Default: none; it must be set unless public is.
	// Example:
	//
	//	secret: file:/run/secrets/wiki
	Secret secrets.Ref `yaml:"secret,omitempty"`
	// Public says that the application cannot keep a secret: it runs in a
	// browser, on a phone or on a desk. Default: false. Example:
	//
	//	public: true
	Public bool `yaml:"public,omitempty"`
	// Redirect are the addresses where people come back to the application,
	// compared character by character. They are https; http on this machine
	// (http://127.0.0.1, http://[::1], where any port is right, and
	// http://localhost, where it is not); or, if the client is public, a
	// scheme of its own such as com.example.app:/callback. Default: none; at
	// least one must be set for authorization_code. Example:
	//
	//	redirect: [https://wiki.example.com/callback]
	Redirect []string `yaml:"redirect,omitempty"`
	// Scopes are what the client may ask for. openid, profile, email, groups
	// and roles open what they say about the person; offline_access lets it
	// get new tokens after they have left; all others go into access tokens.
	// Default: [openid, profile, email]. Example:
	//
	//	scopes: [openid, profile, email, groups]
	Scopes []string `yaml:"scopes,omitempty"`
	// Grants are the ways in which the client gets tokens: authorization_code,
	// refresh_token and client_credentials, the last not for public ones.
	// Default: [authorization_code, refresh_token]. Example:
	//
	//	grants: [client_credentials]
	Grants []string `yaml:"grants,omitempty"`
	// Audience is whom the client's access tokens are meant for, such as APIs
	// that it calls for people. Whoever is named accepts them as theirs: name
	// Merlon's own audience only for clients that may do what people may.
	// Default: the user info of this provider, and nobody else. Example:
	//
	//	audience: [https://api.example.com]
	Audience []string `yaml:"audience,omitempty"`
	// Consent says whether people are asked before the client learns who they
	// are: once, until it wants more or they take it back. Switch it off for
	// your own applications only. Default: true. Example:
	//
	//	consent: false
	Consent *bool `yaml:"consent,omitempty"`
	// Strength is the least that people have to prove when they sign in at the
	// client: multi-factor or phishing-resistant. Default: what policy asks of
	// them anyway. Example:
	//
	//	strength: multi-factor
	Strength account.Strength `yaml:"strength,omitempty"`
	// Introspect lets the client ask about any token, not only its own, as
	// programs must that get tokens from others. Default: false. Example:
	//
	//	introspect: true
	Introspect bool `yaml:"introspect,omitempty"`
	// Logout are the addresses where people may be sent after they have logged
	// out at the application's wish, compared character by character. Default:
	// none. Example:
	//
	//	logout: [https://wiki.example.com/]
	Logout []string `yaml:"logout,omitempty"`
	// BackchannelLogout is an address of the application that is told of every
	// log-out (OpenID Connect Back-Channel Logout 1.0): https, or http on this
	// machine. Default: none. Example:
	//
	//	backchannel_logout: https://wiki.example.com/logout/backchannel
	BackchannelLogout string `yaml:"backchannel_logout,omitempty"`
}

// The grants of [Client.Grants].
const (
	codeGrant    = "authorization_code"
	refreshGrant = "refresh_token"
	ownGrant     = "client_credentials"
)

// The scopes that mean something here.
const (
	scopeOpenID  = "openid"
	scopeProfile = "profile"
	scopeEmail   = "email"
	scopeGroups  = "groups"
	scopeRoles   = "roles"
	scopeOffline = "offline_access"
)

const minSecret = 24 // characters of a client's secret

// client is a Client that was looked at.
type client struct {
	Client
	secret  [sha256.Size]byte
	consent bool
}

var (
	clientID   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)
	scopeToken = regexp.MustCompile(`^[!#-\[\]-~]{1,100}$`) // RFC 6749, 3.3
)

func newClient(c Client, issuer string) (*client, error) {
	cl := &client{Client: c, consent: c.Consent == nil || *c.Consent}
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	if !clientID.MatchString(c.ID) {
		bad("id", c.ID, "must be 1 to 100 letters, digits and -._ characters")
	}
	if cl.Name == "" {
		cl.Name = c.ID
	}
	switch {
	case c.Public && c.Secret != "":
		bad("secret", "", "a public client has none")
	case !c.Public:
		s, err := c.Secret.Resolve()
		if err == nil && len(s.Reveal()) < minSecret {
			err = fmt.Errorf("must have at least %d characters", minSecret)
		}
		if err != nil {
			bad("secret", string(c.Secret), err.Error())
		}
		cl.secret = sha256.Sum256([]byte(s.Reveal()))
	}
	cl.settle(bad)
	if len(c.Audience) == 0 {
		cl.Audience = []string{issuer + UserInfo}
	}
	for i, l := range c.Logout {
		if rule := badRedirect(l, c.Public); rule != "" {
			bad(fmt.Sprintf("logout[%d]", i), l, rule)
		}
	}
	if c.Strength > account.PhishingResistant {
		bad("strength", "", "must be multi-factor or phishing-resistant")
	}
	if b := c.BackchannelLogout; b != "" {
		if rule := badRedirect(b, false); rule != "" {
			bad("backchannel_logout", b, rule)
		}
	}
	return cl, errors.Join(errs...)
}

// settle fills in and checks what the client may do.
func (c *client) settle(bad func(setting, value, rule string)) {
	if len(c.Grants) == 0 {
		c.Grants = []string{codeGrant, refreshGrant}
	}
	for i, g := range c.Grants {
		if g != codeGrant && g != refreshGrant && g != ownGrant {
			bad(fmt.Sprintf("grants[%d]", i), g, "must be authorization_code, refresh_token or client_credentials")
		}
	}
	if c.Public && c.may(ownGrant) {
		bad("grants", ownGrant, "needs a secret, which a public client has not")
	}
	if c.may(codeGrant) != (len(c.Redirect) > 0) {
		bad("redirect", "", "must be set for authorization_code, and for nothing else")
	}
	for i, r := range c.Redirect {
		if rule := badRedirect(r, c.Public); rule != "" {
			bad(fmt.Sprintf("redirect[%d]", i), r, rule)
		}
	}
	if len(c.Scopes) == 0 {
		c.Scopes = []string{scopeOpenID, scopeProfile, scopeEmail}
	}
	for i, s := range c.Scopes {
		if !scopeToken.MatchString(s) {
			bad(fmt.Sprintf("scopes[%d]", i), s, "must be 1 to 100 printable characters without space, quote and backslash")
		}
	}
}

func (c *client) may(grant string) bool { return slices.Contains(c.Grants, grant) }

// ownScheme is a private-use scheme: a domain name backwards (RFC 8252, 7.1).
var ownScheme = regexp.MustCompile(`^[a-z][a-z0-9-]*(\.[a-z0-9-]+)+$`)

// badRedirect returns what is wrong with a redirect URI of the configuration, or "".
func badRedirect(uri string, public bool) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil || strings.ContainsAny(uri, "*\\ ") || u.Scheme == "" || u.User != nil:
		return "must be an address without placeholders"
	case strings.Contains(uri, "#"):
		return "must not have a fragment"
	case u.Scheme == "https" && u.Hostname() != "":
		return ""
	case u.Scheme == "http" && (loopback(u.Hostname()) || u.Hostname() == "localhost"):
		return ""
	case public && u.Host == "" && strings.HasPrefix(u.Path, "/") && ownScheme.MatchString(u.Scheme):
		return ""
	case public:
		return "must be https, http on this machine, or a scheme such as com.example.app:/callback"
	}
	return "must be https, or http on this machine"
}

func loopback(host string) bool { return host == "127.0.0.1" || host == "::1" }

// redirects reports whether uri is one of the client's redirect URIs.
func (c *client) redirects(uri string) bool {
	return slices.ContainsFunc(c.Redirect, func(r string) bool { return sameRedirect(r, uri) })
}

// sameRedirect reports whether uri is the registered one: character by
// character (RFC 9700, 4.1.3), except that on a loopback address the port may
// be any, since native applications take what is free (RFC 8252, 7.3).
func sameRedirect(registered, uri string) bool {
	if registered == uri {
		return true
	}
	for _, host := range [...]string{"http://127.0.0.1", "http://[::1]"} {
		want, ok := strings.CutPrefix(registered, host)
		got, ok2 := strings.CutPrefix(uri, host)
		if !ok || !ok2 {
			continue
		}
		want, ok = cutPort(want)
		got, ok2 = cutPort(got)
		return ok && ok2 && want == got
	}
	return false
}

// cutPort returns what follows the port, if there is one, in what follows a host.
func cutPort(s string) (rest string, ok bool) {
	if port, found := strings.CutPrefix(s, ":"); found {
		n, value := 0, 0
		for n < len(port) && n < 6 && port[n] >= '0' && port[n] <= '9' {
			value = value*10 + int(port[n]-'0')
			n++
		}
		if n == 0 || port[0] == '0' || value > 65535 {
			return "", false
		}
		s = port[n:]
	}
	return s, s == "" || s[0] == '/' || s[0] == '?'
}

// origins returns the origins of pages that are the client and call us
// themselves (CORS).
func (c *client) origins() []string {
	if !c.Public {
		return nil
	}
	var os []string
	for _, r := range c.Redirect {
		if u, err := url.Parse(r); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
			os = append(os, u.Scheme+"://"+u.Host)
		}
	}
	return os
}

// authenticate reads the form of a request and returns the client that sent
// it, or writes why not.
func (p *Provider) authenticate(w http.ResponseWriter, r *http.Request) (*client, bool) {
	if e, err := readForm(w, r); err != nil {
		p.refuse(w, r, http.StatusBadRequest, BadRequest, e, err.Error())
		return nil, false
	}
	id, secret, proof, err := credentials(r)
	if err != nil {
		p.refuse(w, r, http.StatusBadRequest, BadRequest, "invalid_request", err.Error())
		return nil, false
	}
	addr := from(r)
	if p.Throttle != nil && proof && !p.Throttle.Allow(r.Context(), id, addr) {
		w.Header().Set("Retry-After", "30")
		p.refuse(w, r, http.StatusTooManyRequests, ClientNotProved, "temporarily_unavailable", "too many tries")
		return nil, false
	}
	c := p.clients[id]
	want := p.dummy
	if c != nil && !c.Public {
		want = c.secret
	}
	got := sha256.Sum256([]byte(secret))
	same := subtle.ConstantTimeCompare(want[:], got[:]) == 1
	ok := c != nil && (c.Public && !proof || !c.Public && proof && same)
	if p.Throttle != nil && proof {
		p.Throttle.Tried(r.Context(), id, addr, ok)
	}
	if !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="merlon", charset="UTF-8"`)
		p.refuse(w, r, http.StatusUnauthorized, ClientNotProved, "invalid_client", "unknown client, or wrong secret")
		return nil, false
	}
	return c, true
}

// credentials returns the client's name and secret, and whether it sent one:
// in the Authorization header or in the form, never in both (RFC 6749, 2.3).
func credentials(r *http.Request) (id, secret string, proof bool, err error) {
	id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	proof = r.PostForm.Has("client_secret")
	if r.PostForm.Has("client_assertion") || r.PostForm.Has("client_assertion_type") {
		return "", "", false, errors.New("client_assertion is not supported")
	}
	if len(r.Header["Authorization"]) == 0 {
		return id, secret, proof, nil
	}
	user, pass, ok := r.BasicAuth()
	if !ok || proof || len(r.Header["Authorization"]) > 1 {
		return "", "", false, errors.New("the client proves itself in more than one way, or in an unknown one")
	}
	// RFC 6749, 2.3.1: both are form-encoded first.
	user, err1 := url.QueryUnescape(user)
	pass, err2 := url.QueryUnescape(pass)
	if err1 != nil || err2 != nil || id != "" && id != user {
		return "", "", false, errors.New("client_id is not what the Authorization header says")
	}
	return user, pass, true, nil
}

// from returns who sent a request.
func from(r *http.Request) netip.Addr {
	if mr := merlon.From(r); mr != nil {
		return mr.Client
	}
	return netip.Addr{}
}
