package oidc

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/secrets"
)

// A Proof is what a provider says about whoever signed in. Only Issuer and
// Subject together name somebody: names and addresses change hands.
type Proof struct {
	Provider string // Provider.Name
	Issuer   string
	Subject  string

	Name    string // preferred_username; for people, and to propose a log-in name
	Display string // name
	Email   string // as [account.FoldEmail] writes it; empty if there is none
	// EmailVerified: the provider says that it has verified the address.
	EmailVerified bool
	// Authoritative: it has, and the address is in one of its domains. Only
	// then may it be linked with an account that was there before.
	Authoritative bool

	Groups   []string  // ours, by Provider.Groups, sorted
	Roles    []string  // by Provider.Roles, sorted
	Methods  []string  // for merlon.Identity.Methods
	AuthTime time.Time // when the person logged in there; zero if it does not say
	SID      string    // the session there; empty if it does not say

	// IDToken is for [RelyingParty.EndSessionURL] only, and stays on the
	// server.
	IDToken secrets.Secret
	// Create: whoever has no account here yet may get one.
	Create bool
	// ReturnTo is where to go now: a path on this host.
	ReturnTo string
}

func (p *Proof) mfa() bool { return slices.Contains(p.Methods, account.ByMFA) }

// claims are what we read of an ID token or user info.
type claims struct {
	Issuer   string          `json:"iss"`
	Subject  string          `json:"sub"`
	Party    string          `json:"azp"`
	AuthTime float64         `json:"auth_time"`
	ACR      string          `json:"acr"`
	AMR      []string        `json:"amr"`
	SID      string          `json:"sid"`
	User     string          `json:"preferred_username"`
	Name     string          `json:"name"`
	Email    string          `json:"email"`
	Verified json.RawMessage `json:"email_verified"`

	all map[string]json.RawMessage
}

// verify checks an ID token (OpenID Connect Core, 3.1.3.7). go-oidc checks the
// signature, that we are in its audience and that it has not expired.
func (p *provider) verify(ctx context.Context, m *metadata, raw, nonce, accessToken string) (*claims, error) {
	if len(raw) > 64<<10 {
		return nil, errors.New("the ID token is too long")
	}
	t, err := oidc.NewVerifier(p.Issuer, p.keys, &oidc.Config{ClientID: p.ClientID, SupportedSigningAlgs: m.algs, Now: p.now}).Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	c := &claims{}
	if err := errors.Join(t.Claims(c), t.Claims(&c.all)); err != nil {
		return nil, err
	}
	now := p.now()
	switch {
	case c.Issuer != p.Issuer: // go-oidc lets one provider go without its scheme
		return nil, fmt.Errorf("iss is %q", c.Issuer)
	case c.Subject == "" || len(c.Subject) > 255:
		return nil, errors.New("sub is missing or too long")
	case subtle.ConstantTimeCompare([]byte(t.Nonce), []byte(nonce)) != 1:
		return nil, errors.New("nonce is not the one that was sent")
	case len(t.Audience) > 1 && c.Party == "":
		return nil, errors.New("azp is missing beside several audiences")
	case c.Party != "" && c.Party != p.ClientID:
		return nil, fmt.Errorf("azp is %q", c.Party)
	case t.IssuedAt.After(now.Add(skew)) || now.Sub(t.IssuedAt) > stateTTL:
		return nil, fmt.Errorf("iat is %v", t.IssuedAt)
	case c.authTime().After(now.Add(skew)):
		return nil, fmt.Errorf("auth_time is %v", c.authTime())
	}
	if t.AccessTokenHash != "" {
		if err := t.VerifyAccessToken(accessToken); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *claims) authTime() time.Time {
	if c.AuthTime <= 0 || c.AuthTime > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(c.AuthTime), 0)
}

// lacks reports whether user info may say what the ID token does not.
func (c *claims) lacks(p *provider) bool {
	_, groups := c.all[p.GroupsClaim]
	return c.Email == "" || c.User == "" && c.Name == "" || !groups && len(p.Groups)+len(p.Roles) > 0
}

// ask asks for user info and adds what the ID token does not say. It must be
// about the same person (OpenID Connect Core, 5.3.2).
func (c *claims) ask(ctx context.Context, m *metadata, t *oauth2.Token) error {
	info, err := m.provider.UserInfo(ctx, oauth2.StaticTokenSource(t))
	if err != nil {
		return fmt.Errorf("user info: %w", err)
	}
	if info.Subject != c.Subject {
		return errors.New("user info is about somebody else")
	}
	var more claims
	if err := errors.Join(info.Claims(&more), info.Claims(&more.all)); err != nil {
		return fmt.Errorf("user info: %w", err)
	}
	if c.Email == "" {
		c.Email, c.Verified = more.Email, more.Verified
	}
	if c.User == "" && c.Name == "" {
		c.User, c.Name = more.User, more.Name
	}
	for name, value := range more.all {
		if _, ok := c.all[name]; !ok {
			c.all[name] = value
		}
	}
	return nil
}

// proof concludes what may be concluded.
func (c *claims) proof(p *provider, raw string) Proof {
	pr := Proof{
		Provider: p.Name, Issuer: p.Issuer, Subject: c.Subject, Name: c.User, Display: c.Name,
		Methods: []string{account.ByOIDC + p.Name}, AuthTime: c.authTime(), SID: c.SID,
		IDToken: secrets.New(raw), Create: p.Create,
	}
	if email, err := account.FoldEmail(c.Email); err == nil {
		_, domain, _ := strings.Cut(email, "@")
		pr.Email = email
		// Some providers send a string.
		pr.EmailVerified = string(c.Verified) == "true" || string(c.Verified) == `"true"`
		pr.Authoritative = pr.EmailVerified && slices.Contains(p.Domains, domain)
	}
	for _, g := range groups(c.all[p.GroupsClaim]) {
		if ours, ok := p.Groups[g]; ok {
			pr.Groups = append(pr.Groups, ours)
		}
		if role, ok := p.Roles[g]; ok {
			pr.Roles = append(pr.Roles, role)
		}
	}
	pr.Groups, pr.Roles = sorted(pr.Groups), sorted(pr.Roles)
	if slices.Contains(p.MFA, c.ACR) && c.ACR != "" || slices.ContainsFunc(c.AMR, func(m string) bool { return slices.Contains(p.MFA, m) }) {
		pr.Methods = append(pr.Methods, account.ByMFA)
	}
	return pr
}

// groups reads a claim that is a list of strings, or a single one.
func groups(text json.RawMessage) []string {
	var list []string
	if json.Unmarshal(text, &list) == nil {
		return list
	}
	var one string
	if json.Unmarshal(text, &one) == nil && one != "" {
		return []string{one}
	}
	return nil
}

func sorted(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}
