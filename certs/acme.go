package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/mail"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/secrets"
)

const (
	acmeTLS        = "acme-tls/1" // RFC 8737
	challengePath  = "/.well-known/acme-challenge"
	letsEncrypt    = "https://acme-v02.api.letsencrypt.org/directory"
	renewalRatio   = 1.0 / 3 // of a certificate's life, left when it is renewed; ARI may say earlier
	ocspInterval   = time.Hour
	stopPatience   = 5 * time.Second
	loadPatience   = 5 * time.Second
	againAfterStop = time.Hour
)

// NoChallenge: something asked for an ACME challenge that is not being solved,
// or of a host that no certificate is asked for. Harmless after a renewal;
// often a sign that somebody else is trying to get a certificate for the host.
const NoChallenge merlon.Reason = "no-challenge"

// A Challenge is a way to prove to an ACME authority that a host is ours.
type Challenge string

const (
	// HTTP01 answers on port 80.
	HTTP01 Challenge = "http-01"
	// TLSALPN01 answers in the handshake on port 443.
	TLSALPN01 Challenge = "tls-alpn-01"
)

// ACME configures an RFC 8555 certificate authority.
type ACME struct {
	// Email is where the authority may write to about the account. Optional.
	// Example: ops@example.com.
	Email string `yaml:"email,omitempty"`

	// AgreeTOS says that you have read the authority's terms of service and
	// agree to them. It must be true. Example: true.
	AgreeTOS bool `yaml:"agree_tos,omitempty"`

	// Directory is the authority's directory URL, https. Default Let's
	// Encrypt's. Example: https://acme-staging-v02.api.letsencrypt.org/directory.
	Directory string `yaml:"directory,omitempty"`

	// Domains are the names to get certificates for, one each. Nothing else is
	// ever asked for, whatever clients name. Default the hosts of the sites
	// that no certificate file is for. Example: [shop.example.com].
	Domains []string `yaml:"domains,omitempty"`

	// Challenges may be used to prove that a host is ours: http-01 (needs port
	// 80) and tls-alpn-01 (needs port 443). Default both, http-01 only where
	// there is a listener for plain HTTP. Example: [tls-alpn-01].
	Challenges []Challenge `yaml:"challenges,omitempty"`

	// Profile is the authority's certificate profile. Default the authority's
	// own choice. Example: shortlived.
	Profile string `yaml:"profile,omitempty"`

	// EAB binds the account to one that you have with the authority, for those
	// that ask for it. Default none.
	// Example: {key_id: kid-1, hmac_key: env:ACME_HMAC}.
	EAB *EAB `yaml:"eab,omitempty"`

	// CAFile holds the PEM roots to trust for the connection to the authority,
	// for a private one. Only these are trusted then. Default the system's.
	// Example: /etc/merlon/step-ca.pem.
	CAFile string `yaml:"ca_file,omitempty"`
}

// EAB is an external account binding (RFC 8555 section 7.3.4).
type EAB struct {
	// KeyID is the key identifier that the authority gave. Example: kid-1.
	KeyID string `yaml:"key_id"`
	// HMACKey is where the key is that the authority gave, base64url.
	// Example: env:ACME_HMAC.
	HMACKey secrets.Ref `yaml:"hmac_key"`
}

// A manager gets certificates by ACME and keeps them renewed.
type manager struct {
	env     Env
	domains []string
	tlsALPN bool
	wanted  map[string]bool

	issuer certmagic.ACMEIssuer

	magic *certmagic.Config // nil until start
	cache *certmagic.Cache
	decoy net.Listener
	logs  *zap.Logger
}

// newManager checks c. It writes and contacts nothing.
func newManager(c ACME, env Env, hosts hostSet, files *fileSet) (*manager, error) {
	m := &manager{env: env, wanted: map[string]bool{}, logs: zapTo(env.Logger)}
	m.issuer = certmagic.ACMEIssuer{
		CA: c.Directory, Email: c.Email, Agreed: c.AgreeTOS, Profile: c.Profile, Logger: m.logs,
	}
	errs := []error{c.check()}
	if m.issuer.CA == "" {
		m.issuer.CA = letsEncrypt
	}
	if err := m.setDomains(c, hosts, files); err != nil {
		errs = append(errs, err)
	}
	if err := m.setChallenges(c.Challenges, env.HTTP); err != nil {
		errs = append(errs, err)
	}
	if c.EAB != nil {
		if err := m.setEAB(*c.EAB); err != nil {
			errs = append(errs, merlon.Within("eab", err))
		}
	}
	if c.CAFile != "" {
		roots, err := readBounded(c.CAFile)
		m.issuer.TrustedRoots = x509.NewCertPool()
		switch {
		case err != nil:
			errs = append(errs, merlon.BadSetting("ca_file", c.CAFile, err.Error()))
		case !m.issuer.TrustedRoots.AppendCertsFromPEM(roots):
			errs = append(errs, merlon.BadSetting("ca_file", c.CAFile, "must hold PEM certificates"))
		}
	}
	return m, errors.Join(errs...)
}

func (c ACME) check() error {
	var errs []error
	if !c.AgreeTOS {
		errs = append(errs, merlon.BadSetting("agree_tos", "",
			"must be true: read the authority's terms of service and write agree_tos: true if you agree"))
	}
	if c.Email != "" {
		if a, err := mail.ParseAddress(c.Email); err != nil || a.Address != c.Email {
			errs = append(errs, merlon.BadSetting("email", c.Email, "must be a plain mail address"))
		}
	}
	if c.Directory != "" {
		if u, err := url.Parse(c.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
			errs = append(errs, merlon.BadSetting("directory", c.Directory, "must be an https URL"))
		}
	}
	return errors.Join(errs...)
}

func (m *manager) setDomains(c ACME, hosts hostSet, files *fileSet) error {
	setting, list := "domains", c.Domains
	if len(list) == 0 {
		for _, h := range hosts.list {
			if h != anyHost && !files.has(h) {
				list = append(list, h)
			}
		}
	}
	if len(list) == 0 {
		return merlon.BadSetting(setting, "", "must name the hosts to get certificates for: the sites name none that need one")
	}
	var errs []error
	for i, raw := range list {
		name, ok := configuredName(raw)
		rule := ""
		switch {
		case strings.HasPrefix(raw, "*."):
			rule = "must not be a wildcard: that takes a DNS-01 challenge, which is not offered; give its files under certificates"
		case !ok:
			rule = "must be a host name"
		case !hosts.has(name):
			rule = "must be the host of a site, or challenges for it would be refused"
		case c.CAFile == "" && !publicName(name):
			rule = "cannot have a public certificate; give its files under certificates, or leave it out of domains"
		}
		if rule != "" {
			errs = append(errs, merlon.BadSetting(fmt.Sprintf("%s[%d]", setting, i), raw, rule))
			continue
		}
		if !m.wanted[name] {
			m.wanted[name] = true
			m.domains = append(m.domains, name)
		}
	}
	return errors.Join(errs...)
}

func publicName(name string) bool {
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.IsGlobalUnicast() && !ip.IsPrivate()
	}
	return certmagic.SubjectQualifiesForPublicCert(name) && strings.Contains(name, ".")
}

func (m *manager) setChallenges(list []Challenge, http bool) error {
	if len(list) == 0 {
		m.tlsALPN = true
		m.issuer.DisableHTTPChallenge = !http
		return nil
	}
	m.issuer.DisableHTTPChallenge, m.issuer.DisableTLSALPNChallenge = true, true
	var errs []error
	for i, c := range list {
		setting := fmt.Sprintf("challenges[%d]", i)
		switch {
		case c == TLSALPN01:
			m.tlsALPN, m.issuer.DisableTLSALPNChallenge = true, false
		case c == HTTP01 && http:
			m.issuer.DisableHTTPChallenge = false
		case c == HTTP01:
			errs = append(errs, merlon.BadSetting(setting, string(c), "needs a listener for plain HTTP on port 80 (listen.http)"))
		default:
			errs = append(errs, merlon.BadSetting(setting, string(c), "must be http-01 or tls-alpn-01"))
		}
	}
	return errors.Join(errs...)
}

func (m *manager) setEAB(c EAB) error {
	if c.KeyID == "" {
		return merlon.BadSetting("key_id", "", "must be given")
	}
	key, err := c.HMACKey.Resolve()
	if err != nil {
		return merlon.BadSetting("hmac_key", string(c.HMACKey), err.Error())
	}
	if _, err := base64.RawURLEncoding.DecodeString(key.Reveal()); err != nil {
		return merlon.BadSetting("hmac_key", string(c.HMACKey), "must be base64url without padding, as the authority gave it")
	}
	m.issuer.ExternalAccount = &acme.EAB{KeyID: c.KeyID, MACKey: key.Reveal()}
	return nil
}

// start serves what storage has and asks for the rest in the background.
func (m *manager) start(ctx context.Context, work *sync.WaitGroup) error {
	if err := m.openDecoy(work); err != nil {
		return fmt.Errorf("acme: %w", err)
	}
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return m.magic, nil },
		RenewCheckInterval: m.env.Interval,
		OCSPCheckInterval:  ocspInterval,
		Logger:             m.logs,
	})
	// Every field is given, so that nothing comes from certmagic's
	// package-level defaults.
	m.magic = certmagic.New(m.cache, certmagic.Config{
		RenewalWindowRatio: renewalRatio,
		OnEvent:            m.event,
		ShouldEmitFunc:     func(name string) bool { return name != "tls_get_certificate" },
		KeySource:          certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		DefaultServerName:  m.domains[0],
		FallbackServerName: m.domains[0],
		Storage:            &certmagic.FileStorage{Path: dataPath(m.env.Data, "acme")}, // files 0600, folders 0700
		Issuers:            []certmagic.Issuer{},
		Logger:             m.logs,
	})
	m.magic.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(m.magic, m.issuer)}
	for _, d := range m.domains {
		loading, cancel := context.WithTimeout(ctx, loadPatience) // it may ask an OCSP responder
		_, err := m.magic.CacheManagedCertificate(loading, d)
		cancel()
		if err != nil {
			work.Go(func() { m.obtain(ctx, d) })
		}
	}
	return nil
}

// obtain gets the first certificate for a domain. certmagic tries again for
// thirty days with growing pauses, or gives up at once where it sees no sense;
// a gateway has no better plan than to begin anew.
func (m *manager) obtain(ctx context.Context, domain string) {
	for {
		err := m.magic.ObtainCertAsync(ctx, domain)
		if err == nil {
			_, err = m.magic.CacheManagedCertificate(ctx, domain)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		m.env.Notify(Notice{Reason: IssuanceFailed, Name: domain, Err: err})
		select {
		case <-ctx.Done():
			return
		case <-time.After(againAfterStop):
		}
	}
}

// openDecoy gives certmagic a port that is taken. It would open listeners of
// its own to answer challenges, on all addresses; finding this one it believes
// that somebody answers, which is so: the gateway's listeners do.
func (m *manager) openDecoy(work *sync.WaitGroup) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	m.decoy = ln
	work.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return // closed by stop
			}
			_ = conn.Close() // there is nothing to say to it
		}
	})
	host, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	n, err := strconv.Atoi(port)
	m.issuer.ListenHost, m.issuer.AltHTTPPort, m.issuer.AltTLSALPNPort = host, n, n
	return err
}

// stop ends the renewals. It does not wait long for one that hangs on the
// network; certmagic's locks expire.
func (m *manager) stop() {
	if m.cache == nil {
		return
	}
	stopped := make(chan struct{})
	go func() {
		m.cache.Stop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(stopPatience):
	}
	_ = m.decoy.Close() // only its goroutine hears of it
}

// event turns certmagic's events into notices.
func (m *manager) event(_ context.Context, name string, data map[string]any) error {
	n := Notice{}
	n.Name, _ = data["identifier"].(string)
	switch name {
	case "cert_obtained":
		n.Reason = CertificateRenewed
	case "cert_failed":
		n.Reason = IssuanceFailed
		n.Err, _ = data["error"].(error)
	case "cert_ocsp_revoked":
		n.Reason = CertificateRevoked
		if names, _ := data["subjects"].([]string); len(names) > 0 {
			n.Name = names[0]
		}
	default:
		return nil
	}
	m.env.Notify(n)
	return nil
}

// has reports whether a certificate is asked for this host.
func (m *manager) has(name string) bool { return m != nil && m.wanted[name] }

// find returns the certificate for a wanted name, nil if it has none yet.
func (m *manager) find(h *tls.ClientHelloInfo, name string) (*tls.Certificate, error) {
	if m.magic == nil || len(m.cache.AllMatchingCertificates(name)) == 0 {
		return nil, nil
	}
	if h.ServerName != name {
		again := *h
		again.ServerName = name
		h = &again
	}
	cert, err := m.magic.GetCertificate(h)
	if err != nil {
		return nil, err
	}
	return cert, nil
}

// challenge answers the handshake of a TLS-ALPN-01 challenge, for wanted names
// only.
func (m *manager) challenge(h *tls.ClientHelloInfo, name string) (*tls.Certificate, error) {
	if h.ServerName == "" || !m.wanted[name] || m.magic == nil {
		return nil, nil
	}
	cert, err := m.magic.GetCertificate(h)
	if err != nil {
		return nil, err
	}
	return cert, nil
}

// answer answers an HTTP-01 challenge, for wanted names only.
func (m *manager) answer(w http.ResponseWriter, r *http.Request) bool {
	name, ok := requestHost(r.Host)
	if !ok || !m.wanted[name] || m.magic == nil {
		return false
	}
	issuer, ok := m.magic.Issuers[0].(*certmagic.ACMEIssuer)
	return ok && issuer.HandleHTTPChallenge(w, r)
}

func isChallengePath(path string) bool {
	rest, ok := strings.CutPrefix(path, challengePath)
	return ok && (rest == "" || rest[0] == '/')
}

func (m *manager) infos() []Info {
	var infos []Info
	for _, d := range m.domains {
		in := Info{Source: FromACME, Name: d, Hosts: []string{d}, Missing: true}
		if m.cache != nil {
			for _, cert := range m.cache.AllMatchingCertificates(d) {
				if cert.Leaf.NotAfter.After(in.NotAfter) {
					in = leafInfo(FromACME, cert.Leaf)
					in.Name = d
				}
			}
		}
		infos = append(infos, in)
	}
	return infos
}
