package gateway

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/access"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/apikey"
	"github.com/merlon-dev/merlon/identity/attempts"
	"github.com/merlon-dev/merlon/identity/mfa"
	"github.com/merlon-dev/merlon/identity/oidc"
	"github.com/merlon-dev/merlon/identity/password"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/identity/token"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/portal"
	"github.com/merlon-dev/merlon/internal/portal/resume"
	"github.com/merlon-dev/merlon/ledger"
)

// jwksPath is where the public keys of Merlon's tokens are.
const jwksPath = portal.Prefix + "jwks.json"

// people is what one configuration makes of the stores: who they are, where
// they sign in and what they see there.
type people struct {
	c        config.Identity
	stores   *Stores
	guard    *identity.Guard
	desk     *identity.Desk
	hasher   *password.Hasher
	policy   *password.Policy
	sessions *session.Manager
	tokens   *token.Service     // nil if there are none
	signs    token.Config       // what they are made of
	issues   bool               // tokens of our own
	server   *provider.Provider // nil if it has no clients
	portal   *portal.Portal
	cancel   context.CancelFunc
	origin   func(site string) string
}

// peopleBuilder gathers mistakes while it builds.
type peopleBuilder struct {
	p    *people
	env  Env
	errs []error
}

func (b *peopleBuilder) fail(setting string, err error) {
	if err != nil {
		b.errs = append(b.errs, merlon.Within(setting, err))
	}
}

// newPeople builds what c says.
func newPeople(c config.Identity, env Env, origin func(site string) string) (*people, error) {
	p := &people{c: c, stores: env.Stores, origin: origin, cancel: func() {}}
	if p.stores == nil {
		p.stores = rehearsal()
	}
	b := &peopleBuilder{p: p, env: env}
	b.build()
	if err := errors.Join(b.errs...); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (b *peopleBuilder) build() {
	p, c, s := b.p, &b.p.c, b.p.stores
	hasher, err := s.hasherFor(c.Password)
	b.fail("password", err)
	p.hasher = hasher
	policy, perr := password.NewPolicy(c.Password)
	p.policy = policy
	b.fail("password", perr)
	factors, err := mfa.New(c.MFA.Config, s.Key, s.Accounts)
	b.fail("mfa", err)
	p.sessions, err = session.New(c.Session, s.Sessions, s.Accounts)
	b.fail("session", err)
	throttle, err := attempts.New(c.Attempts, s.Key, s.Tries, func(n attempts.Notice) {
		if p.desk != nil {
			p.desk.Attacked(n)
		}
		attacked(b.env, "identity", n)
	})
	b.fail("attempts", err)
	letters, err := portal.NewLetters(c.Portal.Brand, s.Post, b.env.Log)
	b.errs = append(b.errs, err)
	if errors.Join(b.errs...) != nil {
		b.rest()
		return
	}
	p.desk, err = identity.NewDesk(c.Config, identity.Env{
		Key: s.Key, Accounts: s.Accounts, Hasher: hasher, Policy: policy, Sessions: p.sessions, Factors: factors,
		Throttle: throttle, Letters: letters, Event: b.event, Revoke: p.revoke, Mapped: mapped(c.OIDC.Providers),
	})
	if err != nil {
		if b.rest(); errors.Join(b.errs...) == nil { // it is usually told there
			b.errs = append(b.errs, err)
		}
		return
	}
	b.tokens()
	b.provers(identity.Env{Key: s.Key, Accounts: s.Accounts, Hasher: hasher, Policy: policy, Sessions: p.sessions, Factors: factors,
		Throttle: throttle, Event: b.event})
	b.pages()
}

// rest tells what is wrong with everything else, where something that it needs
// cannot be built.
func (b *peopleBuilder) rest() {
	c, s := &b.p.c, b.p.stores
	_, err := identity.New(c.Config)
	b.errs = append(b.errs, err)
	b.tokens()
	_, err = oidc.New(c.OIDC, s.Key, s.Seen)
	b.errs = append(b.errs, err)
	_, err = portal.New(c.Portal, portal.Env{Key: s.Key})
	b.errs = append(b.errs, err)
}

// tokens makes what issues and verifies tokens, if there is anything to do.
func (b *peopleBuilder) tokens() {
	p, c := b.p, b.p.c.Token
	if c.Issuer == "" && len(b.p.c.Server.Clients) > 0 {
		c.Issuer = b.p.c.Server.Issuer
	}
	if c.Issuer == "" && len(c.Issuers) == 0 {
		if !reflect.ValueOf(c).IsZero() {
			b.fail("token.issuer", merlon.BadSetting("", "", "must be set, or token.issuers, as otherwise there are no tokens"))
		}
		return
	}
	p.issues = c.Issuer != ""
	s, err := p.stores.tokensFor(c)
	b.fail("token", err)
	p.tokens, p.signs = s, c
}

// provers makes the guard: what a program sends on purpose before the session.
func (b *peopleBuilder) provers(env identity.Env) {
	p, c := b.p, &b.p.c
	var list []merlon.Prover
	if c.Certificates != nil {
		cp, err := identity.NewCertificates(c.Config, p.stores.Accounts)
		b.errs = append(b.errs, err)
		list = append(list, cp)
	}
	list = append(list, apikey.New(p.stores.Keys, p.stores.Accounts))
	if p.tokens != nil {
		list = append(list, p.tokens)
	}
	if c.Basic != nil {
		bp, err := identity.NewBasic(c.Config, env, b.env.Secure)
		b.errs = append(b.errs, err)
		list = append(list, bp)
	}
	if errors.Join(b.errs...) != nil {
		return
	}
	var err error
	p.guard, err = identity.New(c.Config, append(list, p.sessions)...)
	b.errs = append(b.errs, err)
}

// pages makes what people see, and the authorization server.
func (b *peopleBuilder) pages() {
	p, c := b.p, &b.p.c
	env := portal.Env{
		Desk: p.desk, Sessions: p.sessions, Accounts: p.stores.Accounts, Resume: p.stores.Resume,
		Register: c.Register, Key: p.stores.Key, Log: b.env.Log, Origin: p.origin,
	}
	rp, err := oidc.New(c.OIDC, p.stores.Key, p.stores.Seen)
	b.errs = append(b.errs, err)
	if len(c.OIDC.Providers) > 0 {
		env.OIDC = rp
	}
	if p.tokens != nil {
		env.JWKS = p.tokens.JWKS
	}
	if p.portal, err = portal.New(c.Portal, env); err != nil {
		b.errs = append(b.errs, err)
		return
	}
	if len(c.Server.Clients) == 0 {
		return
	}
	if p.tokens == nil {
		if errors.Join(b.errs...) == nil {
			b.fail("server.issuer", merlon.BadSetting("", "", "must be set, such as https://id.example.com"))
		}
		return
	}
	signatures, err := p.tokens.Signatures()
	if err != nil {
		b.fail("server.issuer", err)
		return
	}
	p.server, err = provider.New(c.Server, provider.Deps{
		Store: p.stores.Grants, Signer: signatures, JWKS: jwksPath, Users: provider.Accounts(p.stores.Accounts),
		Pages: p.portal.Pages(), Key: p.stores.Key, Required: p.guard.Required, Holds: p.sessions.Holds,
		Failed: func(client string, err error) {
			b.env.Log.Warn("an application could not be told of a log-out", "client", client, "error", err)
		},
	})
	b.fail("server", err)
	p.portal.SetProvider(p.server)
}

// revoke ends the tokens of a session, or all of an account's, and what
// applications were allowed, who are told.
func (p *people) revoke(ctx context.Context, account, session string) error {
	var errs []error
	switch {
	case p.tokens == nil:
	case session != "":
		errs = append(errs, p.tokens.RevokeSession(ctx, session))
	default:
		errs = append(errs, p.tokens.RevokeSubject(ctx, account))
	}
	if p.server != nil {
		errs = append(errs, p.server.LoggedOut(ctx, account, session))
	}
	return errors.Join(errs...)
}

// mapped says which of our groups and roles each provider gives.
func mapped(list []oidc.Provider) map[string]identity.Mapping {
	all := map[string]identity.Mapping{}
	for _, p := range list {
		all[p.Name] = identity.Mapping{
			Groups: slices.Sorted(maps.Values(p.Groups)), Roles: slices.Sorted(maps.Values(p.Roles)),
		}
	}
	return all
}

// event records what happened at the desk.
func (b *peopleBuilder) event(e identity.Event) {
	log := b.env.Ledger
	if log == nil {
		return
	}
	l := ledger.Event{Time: time.Now(), Kind: ledger.Login, Name: e.Name, Guard: "identity", Reason: e.Reason, Subject: e.Account, Message: e.Detail}
	if r := e.Request; r != nil {
		l.ID, l.Site, l.Client, l.UserAgent = r.ID, r.Site, r.Client.String(), r.UserAgent()
	}
	l.Attrs = map[string]string{}
	for k, v := range map[string]string{"user": e.User, "by": e.Method} {
		if v != "" {
			l.Attrs[k] = v
		}
	}
	if e.Err != nil {
		l.Attrs["error"] = e.Err.Error()
	}
	if err := log.Append(l); err != nil && !errors.Is(err, ledger.ErrClosed) {
		b.env.Log.Error("an event could not be recorded", "event", e.Name, "error", err)
	}
}

// start begins what goes on without requests.
func (p *people) start(ctx context.Context, fail func(error)) {
	ctx, p.cancel = context.WithCancel(ctx)
	if p.tokens != nil {
		p.stores.lookAfter(p.tokens, p.signs, fail)
	}
	go func() {
		if err := p.stores.rehearse(ctx, p.hasher); err != nil && ctx.Err() == nil {
			fail(err)
		}
	}()
}

// close ends what is not needed any more; the stores stay.
func (p *people) close() {
	p.cancel()
	if p.guard != nil {
		_ = p.guard.Close() // a file that was only read
	}
	if p.desk != nil {
		p.desk.Close()
	}
	if p.sessions != nil {
		p.sessions.Close()
	}
	if p.policy != nil {
		_ = p.policy.Close() // a file that was only read
	}
	if p.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = p.server.Wait(ctx) // who was not told by then, is told by the tokens' end
	}
}

// ServeHTTP answers for Merlon's own pages.
func (p *people) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case p.server != nil && (strings.HasPrefix(r.URL.Path, "/.well-known/") || strings.HasPrefix(r.URL.Path, portal.Prefix+"oauth/")):
		p.server.Handler().ServeHTTP(w, r)
	case r.URL.Path == tokenPath:
		p.serveToken(w, merlon.From(r))
	default:
		p.portal.ServeHTTP(w, r)
	}
}

// challenge says where a browser proves what is missing, and keeps the form
// that it has sent until then. A program is told how it may prove it.
//
// What another site's page has sent is not kept: Merlon's own page would send
// it again, as a form of this site and with the session that SameSite had held
// back. The csrf guard may not have been asked yet, or be off.
func (p *people) challenge(r *merlon.Request, d merlon.Decision, rt *route) merlon.Decision {
	if !merlon.OpensPage(r.Request) {
		if d.Header["Www-Authenticate"] == nil {
			d.Header = http.Header{"Www-Authenticate": p.guard.Challenges(r)}
		}
		return d
	}
	to, ticket := "/", ""
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		to = r.URL.RequestURI()
	case resume.IsForm(r) && rt.csrf != nil && rt.csrf.Check(r).Passed():
		t, cookie, err := p.stores.Resume.Keep(r)
		if err == nil {
			ticket = t
			d.Header = http.Header{"Set-Cookie": {cookie.String()}}
		}
	}
	to = account.SafeReturn(to)
	switch d.Reason {
	case access.LoginRequired:
		d.Location = portal.LogInPath(to, ticket)
	case identity.SecondFactorMissing:
		d.Location = portal.ProvePath(max(p.c.MFA.Level, account.Multi), to, ticket)
	default:
		need := account.None
		if rt.access != nil {
			need = rt.access.Strength()
		}
		d.Location = portal.ProvePath(need, to, ticket)
	}
	return d
}

// FirstLink returns the address at which the first administrator is made, and
// until when it is good; empty if there is somebody already, or nobody signs in.
func (g *Gateway) FirstLink(ctx context.Context) (address string, until time.Time, err error) {
	p := g.people
	if p == nil || len(g.sites) == 0 {
		return "", time.Time{}, nil
	}
	secret, until, needed, err := p.desk.FirstLink(ctx)
	if err != nil || !needed {
		return "", time.Time{}, err
	}
	return p.origin(g.sites[0].name) + portal.Prefix + "first?token=" + secret.Reveal(), until, nil
}

// ResumeGone: the form that was kept while somebody proved who they are is not
// kept any more, or belongs to somebody else. It must be filled in again.
const ResumeGone merlon.Reason = "kept-form-gone"

// swap puts a kept form back in the place of the request that brings its
// ticket.
func (p *people) swap(r *merlon.Request) (resume.Kept, bool, error) { return p.stores.Resume.Swap(r) }

// originOf returns the address that people reach a site by.
func originOf(f *config.File, https func() string) func(site string) string {
	set := map[string]string{}
	for _, s := range f.Sites {
		if s.Origin != "" && len(s.Host) > 0 {
			set[s.Host[0]] = strings.TrimSuffix(s.Origin, "/")
		}
	}
	return func(site string) string {
		if o := set[site]; o != "" {
			return o
		}
		host, port, err := net.SplitHostPort(https())
		if err != nil || port == "443" {
			port = ""
		}
		if strings.HasPrefix(site, "*") || site == "" { // no name of its own
			if site = host; site == "" || net.ParseIP(site) != nil && (net.ParseIP(site).IsLoopback() || net.ParseIP(site).IsUnspecified()) {
				site = "localhost"
			}
		}
		if port != "" {
			return "https://" + net.JoinHostPort(site, port)
		}
		return "https://" + site
	}
}

// checkOrigin reports what is wrong with a site's origin.
func checkOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return merlon.BadSetting("origin", origin, "must be https and a host, such as https://shop.example.com")
	}
	return nil
}
