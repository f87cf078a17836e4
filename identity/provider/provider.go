// Package provider lets other applications sign people in through Merlon: an
// OAuth 2.0 authorization server and OpenID Connect provider that knows one
// way, the code with PKCE, and beside it client credentials for programs.
//
// It holds to OAuth 2.0 Security (RFC 9700): no implicit, password or hybrid
// flow, PKCE S256 for every client, exact redirect URIs, iss in every answer
// (RFC 9207), codes and refresh tokens that are good once and whose second use
// ends all that was made of them. It renders no page and knows no password:
// who somebody is says the Request's Identity, and [Pages] asks people. Access
// tokens are JWTs; who verifies one without asking here may believe it until
// it expires, after its grant has ended.
//
// It is not built on ory/fosite 0.49.0, which was weighed. Of fosite only the
// parsing of requests and three grants would have been used; discovery, iss,
// consent, user info and both kinds of log-out are not in it. Two concurrent
// requests with one code both get tokens there (its issue 778), and so with
// refresh tokens, because its storage interface reads first and invalidates
// later; here [Store] makes each one step. And it makes a binary with go-jose
// 4 grow from 6.2 to 17.6 MB, by 52 modules, an older go-jose beside ours and
// a test library among them. What is left without it is less than its storage
// would have taken.
package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/secrets"
)

// Config configures a [Provider]. The zero Config has no clients, and so
// answers nobody.
type Config struct {
	// Issuer is the address under which applications find this provider, and
	// the name that tokens carry: https, a host that Merlon serves, nothing
	// after it. Other applications compare it character by character.
	// Default: none; it must be set if there are clients. Example:
	//
	//	issuer: https://login.example.com
	Issuer string `yaml:"issuer,omitempty"`
	// Access is how long an access token is good. It cannot be taken back from
	// an application that does not ask, so it is short. From 1m to 15m.
	// Default: 5m. Example:
	//
	//	access: 2m
	Access time.Duration `yaml:"access,omitempty"`
	// Refresh is how long an application that was allowed offline_access can
	// get new tokens, however busy it is. Others can for 24 hours after the
	// log-in, and while the session lasts that it was allowed in. From 1h to 2160h, which is 90
	// days. Default: 720h. Example:
	//
	//	refresh: 168h
	Refresh time.Duration `yaml:"refresh,omitempty"`
	// Idle is after how long an unused refresh token is worthless. From 1h to
	// 2160h. Default: 168h. Example:
	//
	//	idle: 48h
	Idle time.Duration `yaml:"idle,omitempty"`
	// Clients are the applications that may sign people in here. Default:
	// none. Example:
	//
	//	clients:
	//	  - {id: wiki, secret: env:WIKI_SECRET, redirect: [https://wiki.example.com/callback]}
	Clients []Client `yaml:"clients,omitempty"`
}

const (
	defaultAccess  = 5 * time.Minute
	defaultRefresh = 30 * 24 * time.Hour
	defaultIdle    = 7 * 24 * time.Hour
	maxRefresh     = 90 * 24 * time.Hour

	codeTTL    = time.Minute      // ASVS 5.0, 10.4.3
	sessionTTL = 24 * time.Hour   // of a grant without offline_access: AAL2 of SP 800-63B-4
	idTokenTTL = 5 * time.Minute  // read once, at log-in
	stepTTL    = 10 * time.Minute // how long somebody may take to log in or to consent
	skew       = time.Minute      // between our own replicas
)

// The paths of the endpoints, on the issuer's host, where a gateway mounts
// [Provider.Handler].
const (
	Metadata      = "/.well-known/openid-configuration"
	OAuthMetadata = "/.well-known/oauth-authorization-server" // RFC 8414
	Authorize     = "/.merlon/oauth/authorize"
	Token         = "/.merlon/oauth/token"
	Revoke        = "/.merlon/oauth/revoke"
	Introspect    = "/.merlon/oauth/introspect"
	UserInfo      = "/.merlon/oauth/userinfo"
	EndSession    = "/.merlon/oauth/logout"
)

const (
	// UnknownClient: an application asks to sign somebody in that is not among
	// clients. Look at its client_id.
	UnknownClient merlon.Reason = "oauth-unknown-client"
	// RedirectMismatch: the redirect_uri is not one of the client's, character
	// by character, so nothing is sent there. Compare it with redirect.
	RedirectMismatch merlon.Reason = "oauth-redirect-mismatch"
	// BadRequest: the application's request breaks the protocol, or asks for
	// what is switched off here, such as a code without PKCE. The answer that
	// it got says what.
	BadRequest merlon.Reason = "oauth-bad-request"
	// ClientNotProved: the client's secret is missing or wrong.
	ClientNotProved merlon.Reason = "oauth-client-not-proved"
	// GrantInvalid: the code or refresh token has expired, was ended, or is
	// not this client's; or the PKCE verifier does not fit.
	GrantInvalid merlon.Reason = "oauth-grant-invalid"
	// CodeReplayed: a code came a second time, so somebody else may have it;
	// all that was made of it has ended (RFC 6749, 4.1.2).
	CodeReplayed merlon.Reason = "oauth-code-replayed"
	// RefreshReplayed: a refresh token came a second time, so somebody else
	// may have it; the whole family has ended (RFC 9700, 4.14.2).
	RefreshReplayed merlon.Reason = "oauth-refresh-replayed"
	// TokenInvalid: the access token is none of ours, has expired or was ended.
	TokenInvalid merlon.Reason = "oauth-token-invalid"
	// StaleForm: an answer to a page of ours came too late, or from another
	// session than the one that was asked. Begin again.
	StaleForm merlon.Reason = "oauth-stale-form"
)

// A Signer signs what is issued here, and knows its own signatures.
type Signer interface {
	// Sign returns the claims as a JWT whose header says typ.
	Sign(ctx context.Context, claims map[string]any, typ string) (string, error)
	// Verify returns the claims of a JWT that Sign made with this typ. It
	// judges only the signature and typ; times are judged here.
	Verify(ctx context.Context, token, typ string) (map[string]any, error)
	// Algorithm is what Sign signs with now: "RS256".
	Algorithm() string
}

// A User is what applications may learn about somebody, by scope.
type User struct {
	Name          string // the log-in name: preferred_username
	Display       string // name
	Email         string
	EmailVerified bool
	Groups        []string
	Roles         []string
}

// Users knows people at the time a token is made for them.
type Users interface {
	// User returns a subject who logged in at the time. [ErrNotFound] if there
	// is no such account any longer, or it was disabled, or whatever is as old
	// as that has ended.
	User(ctx context.Context, subject string, loggedIn time.Time) (User, error)
}

// Throttle slows down who guesses clients' secrets.
type Throttle interface {
	// Allow reports whether another try may be made now.
	Allow(ctx context.Context, client string, from netip.Addr) bool
	// Tried tells how one ended.
	Tried(ctx context.Context, client string, from netip.Addr, ok bool)
}

// Deps are what a [Provider] works with.
type Deps struct {
	Store  Store
	Signer Signer
	JWKS   string // the path of Signer's public keys: "/.merlon/jwks.json"
	Users  Users
	Pages  Pages
	Key    secrets.Key
	// Required is the least that policy asks of somebody, wherever they go: a
	// session that has proved less gets no code, and no new tokens. Nil: a
	// client's own strength counts only.
	Required func(*merlon.Identity) account.Strength
	// Holds reports whether a subject's session still holds. What was granted
	// in it without offline_access ends with it, however it ended. Nil: it ends
	// by [Provider.LoggedOut] only.
	Holds func(ctx context.Context, subject, session string) (bool, error)
	// Throttle may be nil: secrets are too long to be guessed.
	Throttle Throttle
	// HTTP is what log-out tokens are sent by. Nil: one that verifies
	// certificates with the system's authorities and uses no proxy.
	HTTP *http.Client
	// Failed is told of applications that could not be told of a log-out, from
	// several goroutines at once. It may be nil.
	Failed func(client string, err error)
}

// A Provider answers applications that sign people in. It is made by [New].
type Provider struct {
	issuer  string
	access  time.Duration
	refresh time.Duration
	idle    time.Duration
	clients map[string]*client
	origins map[string]bool // of pages that call the endpoints themselves

	Deps
	tickets *secrets.Box
	sidKey  []byte
	dummy   [sha256.Size]byte // what the secret of an unknown client is compared with

	sending sync.WaitGroup
	places  chan struct{} // for log-out tokens under way
	retry   time.Duration // between two tries to deliver one
	now     func() time.Time
}

// New returns a Provider.
func New(c Config, d Deps) (*Provider, error) {
	p := &Provider{
		issuer: c.Issuer, access: c.Access, refresh: c.Refresh, idle: c.Idle,
		clients: make(map[string]*client), origins: make(map[string]bool), Deps: d,
		places: make(chan struct{}, 16), retry: 2 * time.Second, now: time.Now,
	}
	var errs []error
	bad := func(setting, value, rule string) { errs = append(errs, merlon.BadSetting(setting, value, rule)) }
	if d.Store == nil || d.Signer == nil || d.Users == nil || d.Pages == nil || d.JWKS == "" {
		bad("", "", "needs a store, a signer and its keys' path, users and pages")
	}
	if c.Issuer != "" || len(c.Clients) > 0 {
		if rule := badIssuer(c.Issuer); rule != "" {
			bad("issuer", c.Issuer, rule)
		}
	}
	span := func(setting string, d *time.Duration, low, high, unset time.Duration) {
		switch {
		case *d == 0:
			*d = unset
		case *d < low || *d > high:
			bad(setting, d.String(), fmt.Sprintf("must be from %v to %v", low, high))
		}
	}
	span("access", &p.access, time.Minute, 15*time.Minute, defaultAccess)
	span("refresh", &p.refresh, time.Hour, maxRefresh, defaultRefresh)
	span("idle", &p.idle, time.Hour, maxRefresh, defaultIdle)
	for i, cc := range c.Clients {
		cl, err := newClient(cc, c.Issuer)
		if _, twice := p.clients[cc.ID]; twice {
			err = errors.Join(err, merlon.BadSetting("id", cc.ID, "another client has it"))
		}
		if err != nil {
			errs = append(errs, merlon.Within(fmt.Sprintf("clients[%d]", i), err))
			continue
		}
		p.clients[cl.ID] = cl
		for _, o := range cl.origins() {
			p.origins[o] = true
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	p.tickets = d.Key.Box("merlon oauth form")
	p.sidKey = d.Key.Derive("merlon oauth sid")
	p.dummy = sha256.Sum256(d.Key.Derive("merlon oauth unknown client"))
	if p.HTTP == nil {
		p.HTTP = &http.Client{Transport: &http.Transport{TLSHandshakeTimeout: sendTimeout, ForceAttemptHTTP2: true, MaxIdleConns: 16}}
	}
	return p, nil
}

// required is the least that somebody must have proved for a client.
func (p *Provider) required(c *client, id *merlon.Identity) account.Strength {
	if p.Required == nil {
		return c.Strength
	}
	return max(c.Strength, p.Required(id))
}

// badIssuer returns what is wrong with an issuer, or "".
func badIssuer(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || issuer != "https://"+u.Host || strings.ToLower(issuer) != issuer {
		return "must be https:// and a host in lower case, nothing after it"
	}
	return ""
}

// Handler returns the endpoints. They expect the gateway's Request in the
// context, whose Identity says who is signed in, and answer on the issuer's
// host only: on another one, people are signed in by other cookies.
func (p *Provider) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Metadata, p.metadata)
	mux.HandleFunc("GET "+OAuthMetadata, p.metadata)
	mux.HandleFunc("GET "+Authorize, p.authorize)
	mux.HandleFunc("POST "+Authorize, p.consented)
	mux.HandleFunc("POST "+Token, p.token)
	mux.HandleFunc("OPTIONS "+Token, p.preflight)
	mux.HandleFunc("POST "+Revoke, p.revoke)
	mux.HandleFunc("OPTIONS "+Revoke, p.preflight)
	mux.HandleFunc("POST "+Introspect, p.introspect)
	mux.HandleFunc("GET "+UserInfo, p.userInfo)
	mux.HandleFunc("POST "+UserInfo, p.userInfo)
	mux.HandleFunc("OPTIONS "+UserInfo, p.preflight)
	mux.HandleFunc("GET "+EndSession, p.endSession)
	mux.HandleFunc("POST "+EndSession, p.endSession)
	host := strings.TrimSuffix(strings.TrimPrefix(p.issuer, "https://"), ":443")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.TrimSuffix(strings.ToLower(r.Host), ":443") != host {
			http.NotFound(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// Accounts returns [Users] who are a store's accounts.
func Accounts(s account.Store) Users { return accounts{s} }

type accounts struct{ store account.Store }

func (a accounts) User(ctx context.Context, subject string, loggedIn time.Time) (User, error) {
	acc, err := a.store.Account(ctx, subject)
	switch {
	case errors.Is(err, account.ErrNotFound):
		return User{}, ErrNotFound
	case err != nil:
		return User{}, err
	case acc.Disabled || loggedIn.Before(acc.ValidFrom):
		return User{}, ErrNotFound
	}
	return User{
		Name: acc.Name, Display: acc.Display, Email: acc.Email, EmailVerified: acc.EmailVerified,
		Groups: slices.Clone(acc.Groups), Roles: slices.Clone(acc.Roles),
	}, nil
}

// hashOf returns what is stored of a secret that we made.
func hashOf(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

var encoding = base64.RawURLEncoding
