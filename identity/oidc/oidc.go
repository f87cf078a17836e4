// Package oidc lets people sign in with accounts that they have elsewhere, at
// any number of OpenID Connect providers at once: the code flow with PKCE, and
// nothing that a browser brings back is believed unless the same browser was
// sent for it.
//
// It proves who somebody is at a provider, not which account of ours that is:
// a [Proof] says what may be concluded from, and [Proof.Authoritative] when an
// address may. It knows no pages and sets no cookie itself. Tokens stay here.
// A provider is believed about its own accounts: one that lies about them
// cannot be told from one that does not.
package oidc

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/secrets"
)

// Config configures a [RelyingParty]. The zero Config has no providers.
type Config struct {
	// Providers are where people may sign in. Default: none. Example:
	//
	//	providers:
	//	  - {name: corp, issuer: "https://login.corp.example", client_id: merlon, client_secret: env:CORP_SECRET}
	Providers []Provider `yaml:"providers,omitempty"`
}

// A Provider is one that people may sign in at.
type Provider struct {
	// Name is what rules and addresses call the provider: 1 to 32 lower-case
	// letters, digits and hyphens. Register
	// https://HOST/.merlon/oidc/callback/NAME there as redirect URI, for each
	// host. Default: none; it must be set. Example:
	//
	//	name: corp
	Name string `yaml:"name"`
	// Label is what the button says. Default: the name. Example:
	//
	//	label: Example Corp
	Label string `yaml:"label,omitempty"`
	// Issuer is the provider's address, exactly as its own metadata and tokens
	// say, with or without a slash at the end. It must be https. Default:
	// none; it must be set. Example:
	//
	//	issuer: https://login.corp.example
	Issuer string `yaml:"issuer"`
	// ClientID is what the provider calls Merlon. Default: none; it must be
	// set. Example:
	//
	//	client_id: merlon
	ClientID string `yaml:"client_id"`
	// ClientSecret is where the secret is that Merlon proves itself with.
	// Default: none; it or private_key must be set. Example:
	//
	//	client_secret: file:/run/secrets/corp
	ClientSecret secrets.Ref `yaml:"client_secret,omitempty"`
	// PrivateKey is where a key in PEM is that Merlon proves itself with
	// instead (private_key_jwt): RSA of 2048 bits or more, P-256 or Ed25519.
	// Default: none. Example:
	//
	//	private_key: file:/etc/merlon/corp.pem
	PrivateKey secrets.Ref `yaml:"private_key,omitempty"`
	// ClientCertificate is a file with a certificate in PEM. Merlon then proves
	// itself by it, with private_key as its key, in TLS (tls_client_auth, RFC
	// 8705). Default: none. Example:
	//
	//	client_certificate: /etc/merlon/corp.crt
	ClientCertificate string `yaml:"client_certificate,omitempty"`
	// KeyID is what the provider calls that key. Default: none. Example:
	//
	//	key_id: merlon-2026
	KeyID string `yaml:"key_id,omitempty"`
	// Scopes are what the provider is asked for; openid is always among them.
	// Default: [openid, profile, email]. Example:
	//
	//	scopes: [openid, profile, email, groups]
	Scopes []string `yaml:"scopes,omitempty"`
	// GroupsClaim is the claim that lists somebody's groups at the provider.
	// Default: groups. Example:
	//
	//	groups_claim: roles
	GroupsClaim string `yaml:"groups_claim,omitempty"`
	// Groups says which group of ours a group of the provider's is. Others are
	// not taken over. Default: none. Example:
	//
	//	groups: {engineering: developers}
	Groups map[string]string `yaml:"groups,omitempty"`
	// Roles says which role a group of the provider's gives. Default: none.
	// Example:
	//
	//	roles: {it-operations: admin}
	Roles map[string]string `yaml:"roles,omitempty"`
	// Domains are those of addresses that the provider decides about: whoever
	// it says has a verified address there is linked with the account here
	// that has the same one. For every other domain, an address proves
	// nothing, since the provider may have verified it years ago, or never.
	// Default: none. Example:
	//
	//	domains: [corp.example]
	Domains []string `yaml:"domains,omitempty"`
	// Create makes an account here for whoever signs in without having one.
	// Default: false. Example:
	//
	//	create: true
	Create bool `yaml:"create,omitempty"`
	// MFA are the values of the claims amr or acr by which the provider says
	// that it asked for two factors. [none] believes nothing. Default: [mfa].
	// Example:
	//
	//	mfa: [mfa, "https://refeds.org/profile/mfa"]
	MFA []string `yaml:"mfa,omitempty"`
	// ACRValues are what the provider is asked for when two factors are
	// needed. Default: none. Example:
	//
	//	acr_values: [multi-factor]
	ACRValues []string `yaml:"acr_values,omitempty"`
	// CA is a file of certificates in PEM that sign the provider's, if no
	// public authority does. Default: the system's authorities. Example:
	//
	//	ca: /etc/merlon/corp-ca.pem
	CA string `yaml:"ca,omitempty"`
}

const (
	// UnknownProvider: there is no provider of this name in the configuration.
	UnknownProvider merlon.Reason = "oidc-unknown-provider"
	// ProviderDown: the provider's metadata or keys cannot be fetched, or do
	// not hold. Whether its issuer is spelt as the provider spells it, and its
	// certificate, are worth a look. It is tried again.
	ProviderDown merlon.Reason = "oidc-provider-down"
	// StateMissing: the browser that came back is not the one that was sent,
	// or it took longer than ten minutes. Begin again.
	StateMissing merlon.Reason = "oidc-state-missing"
	// StateMismatch: the answer belongs to another log-in than the one this
	// browser began, as when somebody else's answer is slipped in. Begin again.
	StateMismatch merlon.Reason = "oidc-state-mismatch"
	// StateReused: this answer came before; reloading the page does that.
	StateReused merlon.Reason = "oidc-state-reused"
	// IssuerMismatch: another provider answered than was asked (RFC 9207).
	IssuerMismatch merlon.Reason = "oidc-issuer-mismatch"
	// ProviderRefused: the provider says that there is no log-in: the person
	// stopped there, or Merlon is not registered as configured.
	ProviderRefused merlon.Reason = "oidc-provider-refused"
	// CodeRefused: the provider does not exchange the code. Look at client_id,
	// client_secret and the registered redirect URI.
	CodeRefused merlon.Reason = "oidc-code-refused"
	// TokenRefused: the ID token, or what else the provider sent, does not
	// hold.
	TokenRefused merlon.Reason = "oidc-token-refused"
	// NotFresh: somebody was to prove themselves again, and the provider does
	// not say that they did.
	NotFresh merlon.Reason = "oidc-not-fresh"
	// NotMFA: two factors were needed, and the provider does not say that
	// there were; see mfa.
	NotMFA merlon.Reason = "oidc-not-mfa"
	// LogoutRefused: a log-out token does not hold, or came before.
	LogoutRefused merlon.Reason = "oidc-logout-refused"
)

// An Error says why there is no proof. Its text is for the operator.
type Error struct {
	Reason merlon.Reason
	Err    error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return "oidc: " + string(e.Reason)
	}
	return "oidc: " + string(e.Reason) + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

func because(reason merlon.Reason, format string, args ...any) error {
	return &Error{reason, fmt.Errorf(format, args...)}
}

// Seen remembers what must not come twice, for all replicas.
type Seen interface {
	// First reports whether id comes for the first time, and remembers it
	// until the time given.
	First(ctx context.Context, id string, until time.Time) (bool, error)
}

// A RelyingParty signs people in at providers. It is made by [New].
type RelyingParty struct {
	providers map[string]*provider
	order     []Button
	box       *secrets.Box
	seen      Seen
	now       func() time.Time
}

// A Button is what the log-in page shows of a provider.
type Button struct{ Name, Label, Issuer string }

// CallbackPath is where a provider sends people back to, on every host.
func CallbackPath(provider string) string { return "/.merlon/oidc/callback/" + provider }

// LogoutPath is where a provider may send log-out tokens to, on every host.
func LogoutPath(provider string) string { return "/.merlon/oidc/logout/" + provider }

var providerName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// New returns a RelyingParty. No provider is asked before somebody wants to
// sign in there. seen may be nil if there is one replica only.
func New(c Config, key secrets.Key, seen Seen) (*RelyingParty, error) {
	if seen == nil {
		seen = NewMemory()
	}
	rp := &RelyingParty{providers: make(map[string]*provider), seen: seen, now: time.Now}
	var errs []error
	for i, pc := range c.Providers {
		p, err := newProvider(pc)
		if _, twice := rp.providers[pc.Name]; twice {
			err = errors.Join(err, merlon.BadSetting("name", pc.Name, "another provider has it"))
		}
		if err != nil {
			errs = append(errs, merlon.Within(fmt.Sprintf("providers[%d]", i), err))
			continue
		}
		// Tests set the clock after New.
		p.now = func() time.Time { return rp.now() }
		p.keys.now = p.now
		rp.providers[p.Name] = p
		rp.order = append(rp.order, Button{p.Name, p.Label, p.Issuer})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	rp.box = key.Box("merlon oidc state")
	return rp, nil
}

// Providers returns the providers in the order of the configuration.
func (rp *RelyingParty) Providers() []Button { return slices.Clone(rp.order) }

// newProvider checks a Provider's settings.
func newProvider(c Provider) (*provider, error) {
	p := &provider{Provider: c, turn: make(chan struct{}, 1)}
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	if !providerName.MatchString(c.Name) {
		bad("name", c.Name, "must be 1 to 32 lower-case letters, digits and hyphens")
	}
	if p.Label == "" {
		p.Label = c.Name
	}
	if u, err := url.Parse(c.Issuer); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(c.Issuer, "?#") {
		bad("issuer", c.Issuer, "must be https, without query and fragment")
	}
	if c.ClientID == "" {
		bad("client_id", "", "must be set")
	}
	errs = append(errs, p.resolve())
	p.Scopes = slices.Clone(c.Scopes)
	if len(p.Scopes) == 0 {
		p.Scopes = []string{"openid", "profile", "email"}
	}
	if !slices.Contains(p.Scopes, "openid") {
		p.Scopes = append([]string{"openid"}, p.Scopes...)
	}
	if p.GroupsClaim == "" {
		p.GroupsClaim = "groups"
	}
	for i, d := range c.Domains {
		if f, err := account.FoldEmail("a@" + d); err != nil || f != "a@"+d {
			bad(fmt.Sprintf("domains[%d]", i), d, "must be a domain in lower case, such as corp.example")
		}
	}
	switch {
	case len(c.MFA) == 0:
		p.MFA = []string{"mfa"}
	case len(c.MFA) == 1 && c.MFA[0] == "none":
		p.MFA = nil
	}
	var pool *x509.CertPool
	if c.CA != "" {
		pool = x509.NewCertPool()
		pem, err := os.ReadFile(c.CA)
		if err == nil && !pool.AppendCertsFromPEM(pem) {
			err = errors.New("has no certificates in PEM")
		}
		if err != nil {
			bad("ca", c.CA, err.Error())
		}
	}
	p.http = newClient(pool, p.cert)
	p.keys = &keys{http: p.http, turn: make(chan struct{}, 1)}
	return p, errors.Join(errs...)
}

// Cookie returns the cookie that binds a log-in to the browser that began it;
// an empty value takes it away. It is sent back only by links, to this host.
func Cookie(value string) *http.Cookie {
	c := &http.Cookie{Name: CookieName, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(stateTTL / time.Second)}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

// CookieName is the name of that cookie.
const CookieName = "__Host-merlon-oidc"

// A Memory is a [Seen] in this process.
type Memory struct {
	mu    sync.Mutex
	until map[string]time.Time
	swept time.Time
	now   func() time.Time
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{until: make(map[string]time.Time), now: time.Now} }

// First implements [Seen].
func (m *Memory) First(_ context.Context, id string, until time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if now.Sub(m.swept) >= time.Minute {
		m.swept = now
		for k, t := range m.until {
			if !now.Before(t) {
				delete(m.until, k)
			}
		}
	}
	if _, ok := m.until[id]; ok {
		return false, nil
	}
	m.until[id] = until
	return true, nil
}
