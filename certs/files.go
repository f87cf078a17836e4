package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/merlon-dev/merlon"
)

// maxPEM bounds a certificate or key file; long chains are below 20 KiB.
const maxPEM = 1 << 20

// A fileSet is the certificates from files. Handshakes read the index, which
// is replaced as a whole when a file changes.
type fileSet struct {
	pairs []pair
	index atomic.Pointer[fileIndex]
}

// A pair is one certificate from files; only poll touches it after New.
type pair struct {
	Pair
	cert    *tls.Certificate
	serving fingerprint // of cert's files
	bad     fingerprint // of what was last found unusable
	told    bool        // bad has been an alarm
}

type fingerprint [sha256.Size]byte

type fileIndex struct {
	certs []*tls.Certificate
	exact map[string][]*tls.Certificate
	wild  map[string][]*tls.Certificate // "example.com" for "*.example.com"
}

func newFileSet(list []Pair) (*fileSet, error) {
	f := &fileSet{}
	var errs []error
	for i, p := range list {
		r := p.read()
		cert, err := p.judge(r, time.Now())
		if err != nil {
			errs = append(errs, merlon.Within(fmt.Sprintf("certificates[%d]", i), err))
			continue
		}
		f.pairs = append(f.pairs, pair{Pair: p, cert: cert, serving: r.print})
	}
	f.reindex()
	return f, errors.Join(errs...)
}

func (f *fileSet) reindex() {
	x := &fileIndex{exact: map[string][]*tls.Certificate{}, wild: map[string][]*tls.Certificate{}}
	for _, p := range f.pairs {
		x.certs = append(x.certs, p.cert)
		for _, name := range leafHosts(p.cert.Leaf) {
			if parent, ok := strings.CutPrefix(name, "*."); ok {
				x.wild[parent] = append(x.wild[parent], p.cert)
			} else {
				x.exact[name] = append(x.exact[name], p.cert)
			}
		}
	}
	f.index.Store(x)
}

// leafHosts are the names and addresses that a certificate is for.
func leafHosts(leaf *x509.Certificate) []string {
	var hosts []string
	for _, n := range leaf.DNSNames {
		bare, wild := strings.CutPrefix(n, "*.")
		name, ok := hostName(bare)
		if !ok {
			continue // as clients do, which know no such host
		}
		if wild {
			name = "*." + name
		}
		hosts = append(hosts, name)
	}
	for _, ip := range leaf.IPAddresses {
		if name, ok := hostName(ip.String()); ok {
			hosts = append(hosts, name)
		}
	}
	return hosts
}

// find returns the certificate for name that the client can use: an exact one
// before a wildcard, and of several, such as ECDSA and RSA, the first that
// suits.
func (f *fileSet) find(h *tls.ClientHelloInfo, name string) *tls.Certificate {
	x := f.index.Load()
	choices := x.exact[name]
	if len(choices) == 0 {
		if _, parent, ok := strings.Cut(name, "."); ok {
			choices = x.wild[parent]
		}
	}
	if len(choices) == 0 {
		return nil
	}
	for _, cert := range choices[:len(choices)-1] {
		if h.SupportsCertificate(cert) == nil {
			return cert
		}
	}
	return choices[len(choices)-1]
}

// has reports whether a certificate is for host, which may be a wildcard.
func (f *fileSet) has(host string) bool {
	x := f.index.Load()
	if parent, ok := strings.CutPrefix(host, "*."); ok {
		return len(x.wild[parent]) > 0
	}
	if len(x.exact[host]) > 0 {
		return true
	}
	_, parent, ok := strings.Cut(host, ".")
	return ok && len(x.wild[parent]) > 0
}

// first returns the certificate for clients that name no host that is served.
func (f *fileSet) first() *tls.Certificate {
	if certs := f.index.Load().certs; len(certs) > 0 {
		return certs[0]
	}
	return nil
}

func (f *fileSet) infos() []Info {
	var infos []Info
	for i, cert := range f.index.Load().certs {
		in := leafInfo(FromFile, cert.Leaf)
		in.Place = f.pairs[i].Cert
		infos = append(infos, in)
	}
	return infos
}

func leafInfo(source string, leaf *x509.Certificate) Info {
	in := Info{Source: source, Hosts: leafHosts(leaf), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	if len(in.Hosts) > 0 {
		in.Name = in.Hosts[0]
	}
	return in
}

// poll reads every pair again. Contents are compared, not times: that sees
// files written in place, renamed over, and symlinks swapped as Kubernetes
// does. An unusable pair must be found twice before it is an alarm, because
// certificate and key are rarely replaced in the same instant.
func (f *fileSet) poll(notify func(Notice)) {
	changed := false
	for i := range f.pairs {
		if n, ok := f.pairs[i].look(); ok {
			changed = changed || n.Reason == CertificateRenewed
			notify(n)
		}
	}
	if changed {
		f.reindex()
	}
}

// look takes a changed pair into service if it can be used.
func (p *pair) look() (n Notice, ok bool) {
	r := p.read()
	if r.print == p.serving {
		p.bad, p.told = fingerprint{}, false
		return n, false
	}
	cert, err := p.judge(r, time.Now())
	if err == nil {
		p.cert, p.serving = cert, r.print
		p.bad, p.told = fingerprint{}, false
		leaf := leafInfo(FromFile, cert.Leaf)
		return Notice{Reason: CertificateRenewed, Name: leaf.Name, Place: p.Cert, NotAfter: leaf.NotAfter}, true
	}
	if r.print != p.bad {
		p.bad, p.told = r.print, false
		return n, false
	}
	if p.told {
		return n, false
	}
	p.told = true
	return Notice{Reason: CertificateUnusable, Name: leafInfo(FromFile, p.cert.Leaf).Name, Place: p.Cert, Err: err}, true
}

// A reading is what a pair's files held. The fingerprint is of all that was
// found, so that a failure that stays the same has the same one.
type reading struct {
	cert, key []byte
	err       error
	print     fingerprint
}

func (p Pair) read() reading {
	var r reading
	var certErr, keyErr error
	var errs []error
	if r.cert, certErr = readBounded(p.Cert); certErr != nil {
		errs = append(errs, merlon.BadSetting("cert", p.Cert, certErr.Error()))
	}
	if r.key, keyErr = p.readKey(); keyErr != nil {
		errs = append(errs, merlon.BadSetting("key", p.Key, keyErr.Error()))
	}
	r.err = errors.Join(errs...)
	r.print = sha256.Sum256(fmt.Appendf(nil, "%x %x %v", sha256.Sum256(r.cert), sha256.Sum256(r.key), r.err))
	return r
}

// judge makes a certificate of a reading.
func (p Pair) judge(r reading, now time.Time) (*tls.Certificate, error) {
	if r.err != nil {
		return nil, r.err
	}
	if !bytes.Contains(r.key, []byte("PRIVATE KEY-----")) {
		return nil, merlon.BadSetting("key", p.Key, "must hold a PEM private key")
	}
	cert, err := tls.X509KeyPair(r.cert, r.key)
	if err != nil {
		// The text of these errors names the fault and shows no key.
		return nil, merlon.BadSetting("cert", p.Cert, strings.TrimPrefix(err.Error(), "tls: ")+" (key "+p.Key+")")
	}
	if rule := leafRule(cert.Leaf, now); rule != "" {
		return nil, merlon.BadSetting("cert", p.Cert, rule)
	}
	return &cert, nil
}

// leafRule returns the rule that a certificate breaks.
func leafRule(leaf *x509.Certificate, now time.Time) string {
	switch {
	case now.After(leaf.NotAfter):
		return "must not have expired; it did on " + leaf.NotAfter.UTC().Format(time.DateTime) + " UTC"
	case now.Before(leaf.NotBefore):
		return "must be valid now; it begins on " + leaf.NotBefore.UTC().Format(time.DateTime) + " UTC (is the clock right?)"
	case len(leafHosts(leaf)) == 0:
		return "must carry subject alternative names: browsers look at nothing else"
	}
	switch leaf.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1:
		return "must not be signed with " + leaf.SignatureAlgorithm.String()
	}
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			return fmt.Sprintf("must have an RSA key of 2048 bits or more, not %d", key.N.BitLen())
		}
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize < 256 {
			return "must have an ECDSA key on P-256 or a larger curve"
		}
	case ed25519.PublicKey:
	default:
		return "must have an RSA, ECDSA or Ed25519 key"
	}
	return ""
}

// readKey reads the key through one open file, so that what was judged is
// what is read.
func (p Pair) readKey() ([]byte, error) {
	f, err := os.Open(p.Key)
	if err != nil {
		return nil, shortPathError(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, shortPathError(err)
	}
	if err := private(info, p.GroupReadable); err != nil {
		return nil, err
	}
	return readAll(f)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, shortPathError(err)
	}
	defer f.Close()
	return readAll(f)
}

func readAll(f *os.File) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, shortPathError(err)
	}
	if len(b) > maxPEM {
		return nil, errors.New("must be a PEM file of at most 1 MiB")
	}
	return b, nil
}

// shortPathError drops the path, which the setting shows already.
func shortPathError(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}
