package gateway

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/challenge"
	"github.com/merlon-dev/merlon/identity/provider"
	"github.com/merlon-dev/merlon/internal/config"
	"github.com/merlon-dev/merlon/internal/portal"
)

// people builds what there is for people who sign in.
func (b *builder) people() {
	c, on := b.file.SignIn()
	if !on || b.env.replay { // who somebody was then, nobody can prove now
		return
	}
	if c.Certificates != nil && b.file.TLS.ClientCA == "" {
		b.fail("identity.certificates", merlon.BadSetting("", "", "needs tls.client_ca: clients are not asked for certificates otherwise"))
	}
	if b.env.HTTPS == nil {
		b.env.HTTPS = func() string { return b.file.Listen.HTTPS }
	}
	if b.env.Secure == nil {
		b.env.Secure = func(r *merlon.Request) bool { return b.g.edge.IsHTTPS(r.Request) }
	}
	p, err := newPeople(c, b.env, originOf(b.file, b.env.HTTPS))
	b.fail("identity", err)
	b.g.people = p
	if p != nil && p.guard != nil {
		for _, text := range p.guard.Weak() {
			b.g.weak = append(b.g.weak, "identity: "+text)
		}
	}
}

// pages adds the routes of Merlon's own pages to a site. They are behind the
// site's guards, but for what it requires: who has not signed in must be able
// to. The WAF is not asked, since a password may look like anything, and what
// is behind it does not fall to what it finds.
func (b *builder) pages(setting string, c *config.Site, s *site, guards config.Guards) {
	guards.Require, guards.BackendLogin, guards.Throttle = nil, nil, nil
	guards.Off = append(slices.Clone(guards.Off), "waf")
	add := func(pattern string, page http.Handler, off ...string) {
		g := guards
		g.Off = append(slices.Clone(guards.Off), off...)
		r := b.route(setting, setting, s.name, pattern, g, nil)
		r.page, r.index = page, -1
		s.routes = append(s.routes, r)
	}
	for _, pattern := range b.pagePatterns(c) {
		if pattern == challengePages {
			add(pattern, b.g.challenges, "identity")
			continue
		}
		add(pattern, b.g.people)
	}
	if b.g.people == nil || b.g.people.server == nil {
		return
	}
	// Applications prove themselves to these, in their own way and from
	// wherever they are.
	for _, pattern := range []string{provider.Token, provider.Revoke, provider.Introspect, provider.UserInfo} {
		add(pattern, b.g.people, "identity", "csrf")
	}
}

// challengePages are where browsers prove that they are worth serving.
const challengePages = challenge.Prefix + "/**"

// pagePatterns are where Merlon's own pages are on a site. Only the issuer's own
// site tells applications about it; the backend of another may be one itself.
func (b *builder) pagePatterns(c *config.Site) []string {
	patterns := []string{challengePages}
	if b.g.people == nil {
		return patterns
	}
	patterns = append(patterns, portal.Prefix+"**")
	if b.g.people.server == nil {
		return patterns
	}
	issuer, err := url.Parse(b.g.people.c.Server.Issuer)
	if err != nil {
		return patterns // the provider has told it
	}
	own, hosts := &site{}, hostTable{}
	for _, h := range c.Host {
		if canonical, err := siteHost(h); err == nil {
			hosts[canonical] = own
		}
	}
	if hosts.find(issuer.Hostname()) != nil {
		patterns = append(patterns, provider.Metadata, provider.OAuthMetadata)
	}
	return patterns
}
