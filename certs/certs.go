// Package certs gives the gateway's listeners their TLS: certificates from
// files, from an ACME authority or from Merlon's own local CA, a
// configuration that cannot be weakened below Mozilla's intermediate profile,
// and a watch that says in time when a certificate runs out.
//
// It never serves a certificate of its own making where files or ACME were
// asked for: such a name fails its handshake until it has a certificate. It
// asks for no certificate on demand, knows neither DNS-01 (so no wildcards by
// ACME) nor Encrypted Client Hello, and staples OCSP only for ACME
// certificates.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/merlon-dev/merlon"
)

// Config says where certificates come from. The zero Config takes them from a
// local CA that is made on first use and speaks TLS 1.2 and 1.3.
type Config struct {
	// Profile is the oldest TLS that clients may speak: intermediate (TLS 1.2
	// with forward-secret AEAD suites, and 1.3) or modern (TLS 1.3 only).
	// Nothing older can be configured. Default intermediate.
	// Example: modern.
	Profile Profile `yaml:"profile,omitempty"`

	// Certificates are certificate and key files. They are read again when
	// they change; a pair that cannot be used then leaves the old one in
	// service. A client that names no host, or one that no certificate is
	// for, is shown the first. Default none.
	// Example: [{cert: /etc/merlon/shop.pem, key: /etc/merlon/shop.key}].
	Certificates []Pair `yaml:"certificates,omitempty"`

	// ACME has certificates issued and renewed by Let's Encrypt or any other
	// RFC 8555 authority, for the hosts that no file covers. Default off.
	// Example: {email: ops@example.com, agree_tos: true}.
	ACME *ACME `yaml:"acme,omitempty"`

	// RequireSNI refuses the handshake of clients that name no host, or one
	// that no certificate is for, instead of showing them the default
	// certificate. Default false. Example: true.
	RequireSNI bool `yaml:"require_sni,omitempty"`

	// ClientCA is a file of certificate authorities (PEM), at most 1 MiB. With
	// it, clients are asked for a certificate of theirs: one that is not, or
	// that has expired, ends the handshake, and none at all is fine. Whom a
	// certificate proves is for identity.certificates. It is read at start and
	// with each reload; what the authorities revoke is not asked for. Default
	// none: clients are not asked. Example: /etc/merlon/staff-ca.pem.
	ClientCA string `yaml:"client_ca,omitempty"`

	// RedirectPort is the port on which clients reach the https listener, 1
	// to 65535, where that is not the port it listens on, as with a
	// container that publishes 8443 as 443. Plain HTTP is redirected to it.
	// Default the listener's own. Example: 443.
	RedirectPort int `yaml:"redirect_port,omitempty"`
}

// A Pair is a certificate and its key, both PEM.
type Pair struct {
	// Cert is the path of the certificate, followed by its intermediates.
	// It must be valid now and carry subject alternative names.
	// Example: /etc/merlon/shop.pem.
	Cert string `yaml:"cert"`
	// Key is the path of the private key. Group and others must have no
	// access to it (chmod 600). Example: /etc/merlon/shop.key.
	Key string `yaml:"key"`
	// GroupReadable accepts a key file that its group may read, as
	// Kubernetes mounts secrets for a pod that does not run as root. One that
	// others may read is refused all the same. Default false. Example: true.
	GroupReadable bool `yaml:"group_readable,omitempty"`
}

// An Env is what the program around it gives to [Certs].
type Env struct {
	// Data is the folder that state is kept in: the local CA in ca/, ACME
	// accounts, keys and certificates in acme/.
	Data string
	// Hosts are the hosts served: names, addresses, "*.example.com" for any
	// one label, "*" for every host.
	Hosts []string
	// HTTP: plain HTTP on port 80 reaches [Certs.HTTPChallenge], so HTTP-01
	// can be used.
	HTTP bool
	// Interval is the time between looks for changed files, due renewals and
	// certificates that run out; 10 seconds if zero.
	Interval time.Duration
	// Notify is told what happens to certificates; nil if nobody listens. It
	// may be called from several goroutines and should return quickly.
	Notify func(Notice)
	// Logger gets the details of ACME; nothing is logged if it is nil.
	Logger *slog.Logger
}

// What a [Notice] is about.
const (
	// CertificateExpiring: this certificate runs out within 14, 7, 3 or 1
	// days and should have been renewed by now. Look for issuance-failed
	// notices, or replace its files.
	CertificateExpiring merlon.Reason = "certificate-expiring"
	// CertificateExpired: this certificate has run out and clients refuse it.
	// Replace its files, or see why the ACME authority issues no new one.
	CertificateExpired merlon.Reason = "certificate-expired"
	// CertificateUnusable: certificate files have changed to something that
	// cannot be used. The previous certificate stays in service; put the files
	// right.
	CertificateUnusable merlon.Reason = "certificate-unusable"
	// CertificateRevoked: the authority has revoked this certificate; a new one
	// is being asked for. Find out who asked for the revocation.
	CertificateRevoked merlon.Reason = "certificate-revoked"
	// IssuanceFailed: the ACME authority did not issue or renew this
	// certificate. It is tried again; what there is stays in service. The cause
	// is usually DNS, a closed port 80 or 443, or a rate limit.
	IssuanceFailed merlon.Reason = "issuance-failed"
	// CertificateRenewed: a new certificate is in service. Nothing to do.
	CertificateRenewed merlon.Reason = "certificate-renewed"
)

// A Notice is something that happened to a certificate.
type Notice struct {
	Reason   merlon.Reason
	Name     string    // the certificate's first host
	Place    string    // the file, for certificates from files
	NotAfter time.Time // zero if the notice is not about a date
	Days     int       // with CertificateExpiring: the threshold, 14, 7, 3 or 1
	Err      error     // the cause of a failure
}

// Alarm reports whether somebody must do something.
func (n Notice) Alarm() bool { return n.Reason != CertificateRenewed }

// Where a certificate comes from.
const (
	FromFile    = "file"
	FromACME    = "acme"
	FromLocalCA = "local-ca"
)

// An Info describes a certificate in service. That of the local CA is its
// root: leafs are made as needed and last as long as the process.
type Info struct {
	Source              string // FromFile, FromACME or FromLocalCA
	Name                string // the first host; the subject of a root
	Hosts               []string
	Place               string // the file, where there is one
	NotBefore, NotAfter time.Time
	Missing             bool // asked for by ACME, but not issued yet
}

// Certs are the certificates of a gateway. Make them with [New], start them
// with [Certs.Start].
type Certs struct {
	config Config
	env    Env
	hosts  hostSet
	local  bool // neither files nor ACME: the local CA

	files   *fileSet
	acme    *manager       // nil without ACME
	ca      *LocalCA       // nil until Start, unless it was made earlier
	clients *x509.CertPool // nil if clients are not asked for certificates

	watch   watch
	cancel  context.CancelFunc
	work    sync.WaitGroup
	closing sync.Once
}

// New checks c against the hosts of env and reads the certificate files. It
// writes nothing and starts nothing, so that it may be used to check a
// configuration.
func New(c Config, env Env) (*Certs, error) {
	if env.Interval <= 0 {
		env.Interval = 10 * time.Second
	}
	if env.Logger == nil {
		env.Logger = slog.New(slog.DiscardHandler)
	}
	if env.Notify == nil {
		env.Notify = func(Notice) {}
	}
	cs := &Certs{config: c, env: env, local: len(c.Certificates) == 0 && c.ACME == nil}
	var errs []error
	fail := func(err error) { errs = append(errs, err) }

	if err := c.Profile.check(); err != nil {
		fail(err)
	}
	if c.RedirectPort < 0 || c.RedirectPort > 65535 {
		fail(merlon.BadSetting("redirect_port", strconv.Itoa(c.RedirectPort), "must be a port, 1 to 65535"))
	}
	var err error
	if cs.hosts, err = newHostSet(env.Hosts); err != nil {
		fail(err)
	}
	if cs.files, err = newFileSet(c.Certificates); err != nil {
		fail(err)
	}
	if c.ClientCA != "" {
		if cs.clients, err = loadClientCA(c.ClientCA); err != nil {
			fail(merlon.BadSetting("client_ca", c.ClientCA, err.Error()))
		}
	}
	if c.ACME != nil {
		if cs.acme, err = newManager(*c.ACME, env, cs.hosts, cs.files); err != nil {
			fail(merlon.Within("acme", err))
		}
	}
	switch {
	case cs.local:
		fail(cs.loadCA())
	case len(errs) == 0:
		fail(cs.uncovered())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return cs, nil
}

// loadCA checks that a local CA made earlier serves the hosts of today.
func (c *Certs) loadCA() error {
	ca, err := LoadLocalCA(c.env.Data)
	if errors.Is(err, ErrNoLocalCA) {
		return nil
	}
	if err != nil {
		return merlon.BadSetting("", "", err.Error())
	}
	c.ca = ca
	return ca.serves(c.hosts)
}

// uncovered says which hosts no certificate will be for.
func (c *Certs) uncovered() error {
	var errs []error
	for _, h := range c.hosts.list {
		if h == anyHost || c.files.has(h) || c.acme.has(h) {
			continue
		}
		errs = append(errs, merlon.BadSetting("certificates", h,
			"no certificate is for this host of a site: add one, or name the host in acme.domains"))
	}
	return errors.Join(errs...)
}

// Start makes the local CA if one is needed and there is none, and begins to
// watch files, to ask for and to renew certificates. It does not wait for an
// ACME authority. Call it once, before the first handshake; end it with
// [Certs.Close].
func (c *Certs) Start(ctx context.Context) error {
	if c.local && c.ca == nil {
		ca, err := OpenLocalCA(c.env.Data, c.env.Hosts)
		if err != nil {
			return err
		}
		if err := ca.serves(c.hosts); err != nil { // made meanwhile by another process
			return err
		}
		c.ca = ca
	}
	ctx, c.cancel = context.WithCancel(ctx)
	if c.acme != nil {
		if err := c.acme.start(ctx, &c.work); err != nil {
			c.cancel()
			return err
		}
	}
	c.work.Go(func() { c.run(ctx) })
	return nil
}

// Close ends the work in the background and waits for it. Handshakes go on
// being answered with the certificates there are. A second call does nothing.
func (c *Certs) Close() error {
	c.closing.Do(func() {
		if c.cancel == nil {
			return // never started
		}
		c.cancel()
		if c.acme != nil {
			c.acme.stop()
		}
		c.work.Wait()
	})
	return nil
}

func (c *Certs) run(ctx context.Context) {
	tick := time.NewTicker(c.env.Interval)
	defer tick.Stop()
	for {
		c.watch.look(c.Certificates(), c.env.Notify)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.files.poll(c.env.Notify)
		}
	}
}

// Certificates lists what is in service, for metrics and for the console.
func (c *Certs) Certificates() []Info {
	infos := c.files.infos()
	if c.acme != nil {
		infos = append(infos, c.acme.infos()...)
	}
	if c.ca != nil && c.local {
		infos = append(infos, c.ca.info())
	}
	return infos
}

// LocalCA returns the local CA, or nil if certificates come from elsewhere.
// Before [Certs.Start] it is nil on the first run, too.
func (c *Certs) LocalCA() *LocalCA {
	if !c.local {
		return nil
	}
	return c.ca
}

// TLSConfig returns the configuration of a listener that serves HTTP/2 and
// HTTP/1.1. Session tickets are encrypted with keys that crypto/tls makes
// anew every day and forgets after seven; they do not outlive the
// configuration, so a reload means full handshakes. There is no
// renegotiation, no compression and no 0-RTT: crypto/tls has none of them
// for servers.
func (c *Certs) TLSConfig() *tls.Config {
	conf := c.config.Profile.tls()
	conf.NextProtos = []string{"h2", "http/1.1"}
	if c.acme != nil && c.acme.tlsALPN {
		conf.NextProtos = append(conf.NextProtos, acmeTLS)
	}
	conf.GetCertificate = c.certificate
	if c.clients != nil {
		conf.ClientAuth, conf.ClientCAs = tls.VerifyClientCertIfGiven, c.clients
	}
	return conf
}

// certificate answers a client's hello. A nil certificate makes crypto/tls
// send the unrecognized_name alert.
func (c *Certs) certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name, named := "", h.ServerName != ""
	if named {
		var ok bool
		if name, ok = hostName(h.ServerName); !ok {
			return nil, nil
		}
	} else if h.Conn != nil {
		name = localAddr(h.Conn.LocalAddr())
	}
	if slices.Contains(h.SupportedProtos, acmeTLS) {
		return c.challenge(h, name)
	}
	if c.config.RequireSNI && !named {
		return nil, nil
	}
	if c.local {
		return c.localLeaf(name)
	}
	if cert := c.files.find(h, name); cert != nil {
		return cert, nil
	}
	if c.acme.has(name) {
		return c.acme.find(h, name)
	}
	if c.config.RequireSNI {
		return nil, nil
	}
	if cert := c.files.first(); cert != nil {
		return cert, nil
	}
	return c.acme.find(h, c.acme.domains[0])
}

// challenge answers a TLS-ALPN-01 challenge. RFC 8737 section 3: it is a
// handshake that offers acme-tls/1 and nothing else, so anybody who offers it
// along with other protocols is refused.
func (c *Certs) challenge(h *tls.ClientHelloInfo, name string) (*tls.Certificate, error) {
	if len(h.SupportedProtos) != 1 || c.acme == nil || !c.acme.tlsALPN {
		return nil, nil
	}
	return c.acme.challenge(h, name)
}

// localLeaf returns a certificate of the local CA for name, if name is among
// the hosts served, or for the first of them.
func (c *Certs) localLeaf(name string) (*tls.Certificate, error) {
	if c.ca == nil {
		return nil, nil
	}
	if name != "" && c.hosts.has(name) {
		return c.ca.leaf(name)
	}
	if c.config.RequireSNI || c.hosts.fallback == "" {
		return nil, nil
	}
	return c.ca.leaf(c.hosts.fallback)
}

// localAddr is the address part of a connection's own end.
func localAddr(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok {
		if ip, ok := netip.AddrFromSlice(t.IP); ok {
			return ip.Unmap().String()
		}
	}
	return ""
}

// HTTPChallenge goes in front of next on every listener. It answers HTTP-01
// challenges of the hosts that certificates are being asked for, and 404 for
// everything else below /.well-known/acme-challenge/, so that neither an
// upstream nor a file uploaded to it can prove to an authority that its
// sender owns the host.
func (c *Certs) HTTPChallenge(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isChallengePath(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		if c.acme != nil && c.acme.answer(w, r) {
			return
		}
		merlon.Respond(w, merlon.NewRequest(r), merlon.Refuse(http.StatusNotFound, NoChallenge))
	})
}

// dataPath is a folder below data.
func dataPath(data, name string) string { return filepath.Join(data, name) }
