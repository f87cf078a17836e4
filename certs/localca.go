package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/merlon-dev/merlon"
)

// ErrNoLocalCA is the error of [LoadLocalCA] where none has been made.
var ErrNoLocalCA = errors.New("there is no local CA yet")

const (
	rootFile = "root.crt"
	keyFile  = "root.key"
	rootLife = 10 * 365 * day
)

// A LocalCA is a certificate authority of this machine's own. Its root is
// trusted by nobody until somebody says so; see [LocalCA.TrustText].
//
// The root can sign for servers and clients only, and for no further
// authority. Unless it was made for a site that serves every host, it can
// sign only for local names, private addresses and the domains of the hosts
// it was made for: a stolen key is of no use against anybody's bank.
type LocalCA struct {
	path   string
	root   *x509.Certificate
	key    *ecdsa.PrivateKey
	leaves leafCache
}

// OpenLocalCA returns the local CA kept in data, and makes it if there is
// none. Of several processes that do so at once one makes it and the others
// get the same. The hosts matter only when it is made.
func OpenLocalCA(data string, hosts []string) (*LocalCA, error) {
	ca, err := LoadLocalCA(data)
	if !errors.Is(err, ErrNoLocalCA) {
		return ca, err
	}
	set, err := newHostSet(hosts)
	if err != nil {
		return nil, err
	}
	if err := makeRoot(data, set); err != nil {
		return nil, fmt.Errorf("local CA: %w", err)
	}
	return LoadLocalCA(data)
}

// LoadLocalCA returns the local CA kept in data, or [ErrNoLocalCA]. It writes
// nothing.
func LoadLocalCA(data string) (*LocalCA, error) {
	dir := dataPath(data, "ca")
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoLocalCA
	}
	if err != nil {
		return nil, fmt.Errorf("local CA: %w", err)
	}
	if err := private(info, false); err != nil {
		return nil, fmt.Errorf("local CA: %s: %s", dir, strings.Replace(err.Error(), "600", "700", 1))
	}
	if names, err := os.ReadDir(dir); err == nil && len(names) == 0 {
		return nil, ErrNoLocalCA
	}
	ca, err := readRoot(dir)
	if err != nil {
		// Never made anew: whoever trusts the old root would be cut off, and
		// a lost key is something to know about.
		return nil, fmt.Errorf("local CA: %s: %w (put it right, or move the folder away to have a new CA made)", dir, err)
	}
	return ca, nil
}

func readRoot(dir string) (*LocalCA, error) {
	ca := &LocalCA{path: filepath.Join(dir, rootFile)}
	certPEM, err := readBounded(ca.path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rootFile, err)
	}
	keyPEM, err := Pair{Key: filepath.Join(dir, keyFile)}.readKey()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	certBlock, _ := pem.Decode(certPEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certBlock == nil || keyBlock == nil {
		return nil, errors.New("must hold a PEM certificate and key")
	}
	if ca.root, err = x509.ParseCertificate(certBlock.Bytes); err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, err
	}
	var ok bool
	if ca.key, ok = key.(*ecdsa.PrivateKey); !ok || !ca.key.PublicKey.Equal(ca.root.PublicKey) {
		return nil, errors.New("key and certificate do not belong together")
	}
	if !ca.root.IsCA {
		return nil, fmt.Errorf("%s: must be the certificate of an authority", rootFile)
	}
	if time.Now().After(ca.root.NotAfter) {
		return nil, fmt.Errorf("%s: expired on %s", rootFile, ca.root.NotAfter.UTC().Format(time.DateOnly))
	}
	return ca, ca.newLeafKey()
}

// makeRoot writes key and certificate into a folder of their own and renames
// it into place: the folder is there whole or not at all, and the second of
// two processes fails to rename and uses what the first has made.
func makeRoot(data string, hosts hostSet) error {
	certPEM, keyPEM, err := newRoot(hosts, time.Now())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(data, ".ca-") // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := writeSynced(filepath.Join(tmp, keyFile), keyPEM, 0o600); err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(tmp, rootFile), certPEM, 0o644); err != nil {
		return err
	}
	dir := dataPath(data, "ca")
	if err := os.Rename(tmp, dir); err != nil {
		if _, statErr := os.Stat(filepath.Join(dir, rootFile)); statErr == nil {
			return nil // another process was first
		}
		return err
	}
	return syncDir(data)
}

func writeSynced(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDir makes a rename outlast a power cut, where the system can.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	_ = d.Sync() // some file systems cannot; the files themselves are safe
	return d.Close()
}

func newRoot(hosts hostSet, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	id := sha256.Sum256(pub)
	machine, err := os.Hostname()
	if err != nil {
		machine = "this machine"
	}
	root := &x509.Certificate{
		Subject: pkix.Name{
			Organization: []string{"Merlon"},
			CommonName:   fmt.Sprintf("Merlon local CA of %.40s %s", machine, hex.EncodeToString(id[:4])),
		},
		NotBefore:             now.Add(-time.Hour), // clocks differ
		NotAfter:              now.Add(rootLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	constrain(root, hosts)
	der, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// constrain limits what a root can sign for (RFC 5280 section 4.2.1.10). For
// a host it is the whole registered domain, so that a second site of it needs
// no new root.
func constrain(root *x509.Certificate, hosts hostSet) {
	if hosts.any {
		return
	}
	root.PermittedDNSDomainsCritical = true
	// RFC 6761, RFC 6762, RFC 8375 and ICANN's internal: never public.
	names := []string{"localhost", "local", "test", "internal", "home.arpa"}
	networks := []string{"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
		"::1/128", "fc00::/7", "fe80::/10"}
	for _, h := range hosts.list {
		h = strings.TrimPrefix(h, "*.")
		if ip, err := netip.ParseAddr(h); err == nil {
			networks = append(networks, netip.PrefixFrom(ip, ip.BitLen()).String())
			continue
		}
		if domain, err := publicsuffix.EffectiveTLDPlusOne(h); err == nil {
			h = domain
		}
		names = append(names, h)
	}
	root.PermittedDNSDomains = names
	for _, n := range networks {
		_, ipNet, err := net.ParseCIDR(n)
		if err != nil {
			panic(err) // the list is fixed, and what was added to it came from a parsed address
		}
		root.PermittedIPRanges = append(root.PermittedIPRanges, ipNet)
	}
}

// Path is the file of the root certificate, to be given to those who should
// trust it. The key beside it is nobody's business.
func (ca *LocalCA) Path() string { return ca.path }

// Certificate returns the root certificate.
func (ca *LocalCA) Certificate() *x509.Certificate { return ca.root }

// Pool returns a pool that holds the root, for clients inside this process.
func (ca *LocalCA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.root)
	return pool
}

// Fingerprint is the SHA-256 of the root certificate, as browsers show it.
func (ca *LocalCA) Fingerprint() string {
	sum := sha256.Sum256(ca.root.Raw)
	var b strings.Builder
	for i, c := range sum {
		if i > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%02X", c)
	}
	return b.String()
}

func (ca *LocalCA) info() Info {
	return Info{Source: FromLocalCA, Name: ca.root.Subject.CommonName, Place: ca.path,
		NotBefore: ca.root.NotBefore, NotAfter: ca.root.NotAfter}
}

// serves says which hosts the root may not sign for.
func (ca *LocalCA) serves(hosts hostSet) error {
	var errs []error
	for _, h := range hosts.list {
		if h == anyHost || ca.maySign(strings.TrimPrefix(h, "*.")) {
			continue // every host is served as far as the root may sign for it
		}
		errs = append(errs, merlon.BadSetting("certificates", h, fmt.Sprintf(
			"the local CA in %s was made for other hosts and may not sign for this one: "+
				"give a certificate or acme, or move that folder away to have a new CA made, and trust that",
			filepath.Dir(ca.path))))
	}
	return errors.Join(errs...)
}

// maySign reports whether the root's name constraints permit a normalised name.
func (ca *LocalCA) maySign(name string) bool {
	if ip, err := netip.ParseAddr(name); err == nil {
		for _, n := range ca.root.PermittedIPRanges {
			if n.Contains(ip.AsSlice()) {
				return true
			}
		}
		return len(ca.root.PermittedIPRanges) == 0
	}
	for _, d := range ca.root.PermittedDNSDomains {
		if name == d || strings.HasSuffix(name, "."+d) {
			return true
		}
	}
	return len(ca.root.PermittedDNSDomains) == 0
}
