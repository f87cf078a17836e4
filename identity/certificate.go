package identity

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
)

// Certificates accepts client certificates that the TLS listener has verified.
type Certificates struct {
	// Name says what of the certificate is the log-in name: cn, email, uri or
	// dns. There must be exactly one of it. Default: email. Example:
	//
	//	name: uri
	Name string `yaml:"name,omitempty"`
	// Accounts says that there must be an account with that name, whose groups
	// and roles hold; otherwise the certificate alone is enough. Default:
	// false. Example:
	//
	//	accounts: true
	Accounts bool `yaml:"accounts,omitempty"`
	// Issuers are the common names of authorities that may issue these
	// certificates. Default: any that the listener trusts for clients. Example:
	//
	//	issuers: [Example Staff CA]
	Issuers []string `yaml:"issuers,omitempty"`
	// Groups are those of everybody with a certificate, if accounts is not
	// set. Default: none. Example:
	//
	//	groups: [staff]
	Groups []string `yaml:"groups,omitempty"`
	// Roles are those of everybody with a certificate, if accounts is not set.
	// Default: none. Example:
	//
	//	roles: [team]
	Roles []string `yaml:"roles,omitempty"`
}

const (
	// CertificateRefused: the client's certificate is good, but not for this:
	// it has not exactly one name of the kind that certificates.name says, is
	// of another issuer, or has expired while the connection was open.
	CertificateRefused merlon.Reason = "certificate-refused"
	// CertificateUnavailable: the store of accounts does not answer: 503.
	CertificateUnavailable merlon.Reason = "certificate-accounts-unavailable"
)

// An Accounts is what a [CertificateProver] needs to know; [account.Store] has it.
type Accounts interface {
	// ByName returns the account with a folded log-in name.
	ByName(ctx context.Context, name string) (account.Account, error)
}

// A CertificateProver proves by the client's certificate. It is a [merlon.Prover].
type CertificateProver struct {
	c        Certificates
	accounts Accounts
	now      func() time.Time
}

// NewCertificates returns a prover of c.Certificates, which must be set.
func NewCertificates(c Config, accounts Accounts) (*CertificateProver, error) {
	p := &CertificateProver{c: *c.Certificates, accounts: accounts, now: time.Now}
	if p.c.Name == "" {
		p.c.Name = "email"
	}
	var errs []error
	if !slices.Contains([]string{"cn", "email", "uri", "dns"}, p.c.Name) {
		errs = append(errs, merlon.BadSetting("certificates.name", p.c.Name, "must be cn, email, uri or dns"))
	}
	if p.c.Issuers != nil && (len(p.c.Issuers) == 0 || slices.Contains(p.c.Issuers, "")) {
		errs = append(errs, merlon.BadSetting("certificates.issuers", "", "must not be empty; leave it out for any"))
	}
	if p.c.Accounts && len(p.c.Groups)+len(p.c.Roles) > 0 {
		errs = append(errs, merlon.BadSetting("certificates.roles", "", "groups and roles are the account's, because accounts is set"))
	}
	return p, errors.Join(errs...)
}

// Name returns "certificate".
func (p *CertificateProver) Name() string { return account.ByCertificate }

// Prove returns who the certificate of r's connection is of. One that the
// listener did not verify is none.
func (p *CertificateProver) Prove(r *merlon.Request) (*merlon.Identity, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return nil, merlon.ErrNoProof
	}
	leaf := r.TLS.VerifiedChains[0][0]
	refused := func(format string, args ...any) (*merlon.Identity, error) {
		return nil, &failure{why: CertificateRefused, status: http.StatusForbidden, err: fmt.Errorf(format, args...)}
	}
	// The handshake may have been long ago.
	if now := p.now(); now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		return refused("it is good from %s to %s", leaf.NotBefore, leaf.NotAfter)
	}
	if len(p.c.Issuers) > 0 && !slices.Contains(p.c.Issuers, leaf.Issuer.CommonName) {
		return refused("its issuer is %q", shorten(leaf.Issuer.CommonName, 64))
	}
	names := namesOf(leaf, p.c.Name)
	if len(names) != 1 || names[0] == "" || strings.ContainsFunc(names[0], func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return refused("it has %d names of the kind %s", len(names), p.c.Name)
	}
	if !p.c.Accounts {
		return &merlon.Identity{
			Subject: subjectOf(leaf, p.c.Name, names[0]), Name: names[0],
			Groups: p.c.Groups, Roles: p.c.Roles, Methods: []string{account.ByCertificate},
		}, nil
	}
	name, err := account.Fold(names[0])
	if err != nil {
		return refused("its name cannot be a log-in name: %w", err)
	}
	a, err := p.accounts.ByName(r.Context(), name)
	switch {
	case errors.Is(err, account.ErrNotFound):
		return nil, &failure{why: NoAccount, status: http.StatusForbidden}
	case err != nil:
		return nil, &failure{why: CertificateUnavailable, status: http.StatusServiceUnavailable, err: err}
	case a.Disabled:
		return nil, &failure{why: AccountDisabled, status: http.StatusForbidden}
	}
	return &merlon.Identity{
		Subject: a.ID, Name: a.Name, Groups: a.Groups, Roles: a.Roles, Methods: []string{account.ByCertificate},
	}, nil
}

func namesOf(c *x509.Certificate, kind string) []string {
	switch kind {
	case "cn":
		if c.Subject.CommonName == "" {
			return nil
		}
		return []string{c.Subject.CommonName}
	case "email":
		return c.EmailAddresses
	case "dns":
		return c.DNSNames
	}
	var uris []string
	for _, u := range c.URIs {
		uris = append(uris, u.String())
	}
	return uris
}

// subjectOf is the same for all certificates that one issuer gives one name,
// and another for another issuer's.
func subjectOf(c *x509.Certificate, kind, name string) string {
	h := sha256.New()
	for _, part := range []string{string(c.RawIssuer), kind, name} {
		sum := sha256.Sum256([]byte(part))
		h.Write(sum[:])
	}
	return "certificate:" + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}
