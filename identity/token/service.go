package token

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	maxLifetime = 15 * time.Minute // of our own access tokens
	maxSkew     = 60 * time.Second
	maxRefreshT = 2160 * time.Hour
	noType      = "none" // stands for no "typ" in Issuer.Types
)

// A Service issues, verifies, refreshes and revokes tokens. It is a
// [merlon.Prover] for the Authorization field's Bearer tokens.
type Service struct {
	store       Store
	own         *issuer  // nil if no tokens are issued
	keys        *ownKeys // nil if no tokens are issued
	lifetime    time.Duration
	issuers     map[string]*issuer // by iss, our own among them
	sources     []*source
	revocations *revocations
	refresh     RefreshConfig
	refreshKeys refreshKeys
	cache       *cache
	state       atomic.Uint64 // grows with every revocation, and when a key goes away
	swept       atomic.Uint64 // the state that the cache was last swept for
	now         func() time.Time
}

// New returns a Service over the store, and reads from it. Its signing keys
// are sealed with a key derived from the given one. Run must be running for
// keys to be rotated and revocations to be heard of: without it, no token is
// accepted any longer after a minute.
func New(ctx context.Context, c Config, key secrets.Key, store Store) (*Service, error) {
	c, errs := c.withDefaults()
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s := &Service{
		store: store, lifetime: c.Lifetime, refresh: c.Refresh, now: time.Now,
		issuers: make(map[string]*issuer), cache: newCache(c.Cache),
		refreshKeys: refreshKeys{key.Derive("merlon refresh successor"), key.Derive("merlon refresh seal")},
	}
	clock := func() time.Time { return s.now() }
	change := func() { s.state.Add(1) }
	s.revocations = &revocations{store: store, now: clock, change: change, m: make(map[revokedKey]Revocation)}
	if err := s.revocations.look(ctx); err != nil {
		return nil, err
	}
	if c.Issuer != "" {
		s.keys = &ownKeys{
			store: store, box: key.Box("merlon token signing"), alg: c.Algorithm,
			rotate: c.Rotate, now: clock, change: change,
		}
		if err := s.keys.refresh(ctx); err != nil {
			return nil, err
		}
		s.own = &issuer{
			name: c.Issuer, own: true, audience: c.Audience, types: []string{accessType},
			algs:     []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA, jose.PS256},
			lifetime: maxLifetime, skew: maxSkew, keys: s.keys,
			claims: claimNames{name: "name", groups: "groups", roles: "roles", scopes: "scope"},
		}
		s.issuers[c.Issuer] = s.own
	}
	for n, t := range c.Issuers {
		i, source, err := newIssuer(t)
		if err != nil {
			errs = append(errs, merlon.Within(fmt.Sprintf("issuers[%d]", n), err))
			continue
		}
		source.now, source.change = clock, change
		s.issuers[i.name] = i
		s.sources = append(s.sources, source)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

func newIssuer(c Issuer) (*issuer, *source, error) {
	i := &issuer{
		name: c.Issuer, revokes: c.Issuer, audience: c.Audience, lifetime: c.Lifetime, skew: c.Skew, methods: c.Methods,
		claims: claimNames{c.Name, c.Groups, c.Roles, c.Tenant, c.Scopes},
	}
	for _, a := range c.Algorithms {
		i.algs = append(i.algs, jose.SignatureAlgorithm(a))
	}
	for _, t := range c.Types {
		i.types = append(i.types, mediaType(t))
	}
	source, err := newSource(c, i.algs)
	if err != nil {
		return nil, nil, err
	}
	i.keys = source
	return i, source, nil
}

// checker collects what is wrong with settings.
type checker struct{ errs []error }

func (k *checker) bad(setting, value, rule string) {
	k.errs = append(k.errs, merlon.BadSetting(setting, value, rule))
}

// duration returns d, or the default if it is zero.
func (k *checker) duration(setting string, d, std, from, to time.Duration) time.Duration {
	switch {
	case d == 0:
		return std
	case d < from || d > to:
		k.bad(setting, d.String(), "must be from "+from.String()+" to "+to.String())
	}
	return d
}

func (c Config) withDefaults() (Config, []error) {
	var k checker
	if c.Issuer != "" {
		if rule := badURL(c.Issuer, false); rule != "" {
			k.bad("issuer", c.Issuer, rule)
		}
		if len(c.Audience) == 0 {
			c.Audience = []string{c.Issuer}
		}
	}
	k.texts("audience", c.Audience)
	if c.Algorithm == "" {
		c.Algorithm = "RS256"
	} else if !slices.Contains([]string{"RS256", "PS256", "ES256", "EdDSA"}, c.Algorithm) {
		k.bad("algorithm", c.Algorithm, "must be RS256, PS256, ES256 or EdDSA")
	}
	c.Lifetime = k.duration("lifetime", c.Lifetime, 5*time.Minute, 30*time.Second, maxLifetime)
	c.Rotate = k.duration("rotate", c.Rotate, 720*time.Hour, 2*lead, 8760*time.Hour)
	r := &c.Refresh
	r.Absolute = k.duration("refresh.absolute", r.Absolute, 24*time.Hour, 5*time.Minute, maxRefreshT)
	r.Idle = k.duration("refresh.idle", r.Idle, min(time.Hour, r.Absolute), 5*time.Minute, maxRefreshT)
	if r.Idle > r.Absolute {
		k.bad("refresh.idle", r.Idle.String(), "must not be longer than absolute")
	}
	r.Grace = k.duration("refresh.grace", r.Grace, 10*time.Second, time.Second, 30*time.Second)
	switch {
	case c.Cache == 0:
		c.Cache = 16384
	case c.Cache < 16 || c.Cache > 1_000_000:
		k.bad("cache", strconv.Itoa(c.Cache), "must be from 16 to 1000000")
	}
	issuers := make([]Issuer, 0, len(c.Issuers))
	seen := map[string]bool{c.Issuer: true}
	for n, t := range c.Issuers {
		at := fmt.Sprintf("issuers[%d]", n)
		t, errs := t.withDefaults()
		for _, err := range errs {
			k.errs = append(k.errs, merlon.Within(at, err))
		}
		if t.Issuer != "" && seen[t.Issuer] {
			k.bad(at+".issuer", t.Issuer, "must not be there twice")
		}
		seen[t.Issuer] = true
		issuers = append(issuers, t)
	}
	c.Issuers = issuers
	return c, k.errs
}

func (k *checker) texts(setting string, texts []string) {
	for n, t := range texts {
		if t == "" || !plain(t) {
			k.bad(setting+"["+strconv.Itoa(n)+"]", t, "must be a text without hidden characters")
		}
	}
}

func (c Issuer) withDefaults() (Issuer, []error) {
	var k checker
	if rule := badURL(c.Issuer, false); rule != "" {
		k.bad("issuer", c.Issuer, rule)
	}
	if len(c.Audience) == 0 {
		k.bad("audience", "", "must say whom the issuer's tokens for you name")
	}
	k.texts("audience", c.Audience)
	if c.JWKS != "" {
		if rule := badURL(c.JWKS, true); rule != "" {
			k.bad("jwks", c.JWKS, rule)
		}
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = algorithms[:4]
	}
	for n, a := range c.Algorithms {
		if !slices.Contains(algorithms, a) {
			k.bad("algorithms["+strconv.Itoa(n)+"]", a, "must be one of "+strings.Join(algorithms, ", "))
		}
	}
	if len(c.Types) == 0 {
		c.Types = []string{accessType}
	}
	for n, t := range c.Types {
		switch mediaType(t) {
		case "", "dpop+jwt", "logout+jwt", "secevent+jwt", "jose", "jose+json":
			k.bad("types["+strconv.Itoa(n)+"]", t, "must be a type of access tokens")
		}
	}
	c.Lifetime = k.duration("lifetime", c.Lifetime, time.Hour, time.Minute, 24*time.Hour)
	c.Skew = k.duration("skew", c.Skew, maxSkew, time.Second, maxSkew)
	c.MaxAge = k.duration("max_age", c.MaxAge, 24*time.Hour, 5*time.Minute, 168*time.Hour)
	if c.Scopes == "" {
		c.Scopes = "scope"
	}
	names := make([]string, 0, len(c.Methods))
	for amr := range c.Methods {
		names = append(names, amr)
	}
	sort.Strings(names)
	for _, amr := range names {
		if m := c.Methods[amr]; !slices.Contains([]string{"password", "totp", "passkey", "recovery"}, m) {
			k.bad("methods."+amr, m, "must be password, totp, passkey or recovery")
		}
	}
	return c, k.errs
}

// Run rotates keys and listens for revocations until ctx ends. Then it closes
// what is open with tokens, since nobody hears any longer whether they still
// hold: a program that reads its configuration again goes on with the Service
// that it has, if nothing in Config changed.
func (s *Service) Run(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	if w, ok := s.store.(Waker); ok {
		go s.listen(ctx, w, wake)
	}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	slow := time.NewTicker(reload)
	defer slow.Stop()
	go s.runKeys(ctx, slow.C)
	defer s.cache.dropIf(func(*entry) bool { return true })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		case <-wake:
		}
		s.Poll(ctx)
	}
}

// listen hears of revocations from the store, again after it failed.
func (s *Service) listen(ctx context.Context, w Waker, wake chan<- struct{}) {
	for ctx.Err() == nil {
		_ = w.OnRevoke(ctx, func() {
			select {
			case wake <- struct{}{}:
			default: // one is waiting already
			}
		})
		select {
		case <-ctx.Done():
		case <-time.After(time.Second): // polling goes on meanwhile
		}
	}
}

// runKeys is beside the rest of Run, since making an RSA key takes a second.
func (s *Service) runKeys(ctx context.Context, tick <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		if s.keys != nil {
			_ = s.keys.refresh(ctx) // kept for Findings
		}
		for _, source := range s.sources {
			source.refreshOld()
		}
	}
}

// Poll asks the store once for revocations, as Run does all the time, and
// closes what is open with tokens that no longer hold.
func (s *Service) Poll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	_ = s.revocations.look(ctx) // kept for deaf and Findings
	if state := s.state.Load(); s.swept.Swap(state) != state {
		s.cache.dropIf(func(e *entry) bool { return !s.holds(e) })
	}
}

// Findings says what is weak or broken about keys and revocations, for the
// operator.
func (s *Service) Findings() []merlon.Finding {
	var out []merlon.Finding
	if s.keys != nil {
		s.keys.mu.RLock()
		if err := s.keys.err; err != nil {
			out = append(out, merlon.Finding{Rule: "signing-keys", Message: err.Error()})
		}
		s.keys.mu.RUnlock()
	}
	s.revocations.mu.RLock()
	if err := s.revocations.err; err != nil {
		out = append(out, merlon.Finding{Rule: "revocations", Message: err.Error()})
	}
	s.revocations.mu.RUnlock()
	for _, source := range s.sources {
		source.mu.Lock()
		if source.err != nil {
			out = append(out, merlon.Finding{Rule: "issuer-keys", Part: source.issuer, Message: source.err.Error()})
		}
		for _, f := range source.findings {
			f.Part = source.issuer + " " + f.Part
			out = append(out, f)
		}
		source.mu.Unlock()
	}
	return out
}
